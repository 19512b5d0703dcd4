//! `__type__` and `__unit__`: labels that say what a metric is, on series whose sender tells it. Off unless
//! `--enable-feature=type-and-unit-labels` asks for it, since they are part of a series' identity.
//!
//! As in Prometheus what the metadata says takes the place of what a sender put there itself. Queries drop
//! both labels where they drop the metric's name.

use super::series_writer::LoneSample;
use crate::options::Options;
use pharos_common::labels::Labels;
use pharos_tsdb::{Metadata, MetricKind};
use std::collections::BTreeMap;

pub(super) const TYPE_LABEL: &str = "__type__";
pub(super) const UNIT_LABEL: &str = "__unit__";

/// Prometheus' name of the feature.
const FEATURE: &str = "type-and-unit-labels";

/// Endings of the series of a family; its metadata goes by the name without them.
const FAMILY_ENDINGS: [&str; 4] = ["_total", "_bucket", "_count", "_sum"];

/// Whether series get these labels.
pub(crate) fn is_wanted(options: &Options) -> bool {
    options.enable_feature.iter().any(|feature| feature == FEATURE)
}

/// The two labels, as far as the metadata tells.
pub(super) fn of(metadata: &Metadata) -> impl Iterator<Item = (&'static str, &str)> {
    let kind = (metadata.kind != MetricKind::Unknown).then(|| (TYPE_LABEL, metadata.kind.as_str()));
    let unit = (!metadata.unit.is_empty()).then_some((UNIT_LABEL, metadata.unit.as_str()));
    kind.into_iter().chain(unit)
}

/// Labels samples by what their text says about their families.
pub(super) fn label(samples: &mut [LoneSample], metadata: &BTreeMap<String, Metadata>) {
    for sample in samples {
        let about = family_of(sample.labels.metric_name(), metadata);
        let is_labelled = [TYPE_LABEL, UNIT_LABEL].iter().any(|name| sample.labels.get(name).is_some());
        if about.is_some() || is_labelled {
            sample.labels = labelled(&sample.labels, about);
        }
    }
}

fn family_of<'m>(name: &str, metadata: &'m BTreeMap<String, Metadata>) -> Option<&'m Metadata> {
    let family = || FAMILY_ENDINGS.iter().find_map(|ending| metadata.get(name.strip_suffix(ending)?));
    metadata.get(name).or_else(family)
}

fn labelled(labels: &Labels, about: Option<&Metadata>) -> Labels {
    let mut builder = labels.to_builder();
    builder.remove(TYPE_LABEL).remove(UNIT_LABEL);
    for (name, value) in about.into_iter().flat_map(of) {
        builder.set(name, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::super::exposition;
    use super::*;

    #[test]
    fn series_are_labelled_by_the_metadata_of_their_family() {
        let text = "# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_bucket{le=\"1\"} 1\n\
            # TYPE b_total counter\nb_total{__type__=\"gauge\",__unit__=\"x\"} 1\n# HELP c nothing else\n\
            c 1\nd{__unit__=\"x\"} 1\n";
        let mut exposition = exposition::parse(text, exposition::Times::Milliseconds, 0).unwrap();
        label(&mut exposition.samples, &exposition.metadata);
        let labels: Vec<String> = exposition.samples.iter().map(|sample| sample.labels.to_string()).collect();
        assert_eq!(
            labels,
            [
                "a_seconds_bucket{__type__=\"histogram\", __unit__=\"seconds\", le=\"1\"}",
                "b_total{__type__=\"counter\"}",
                "c",
                "d",
            ]
        );
    }
}
