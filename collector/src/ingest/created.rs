//! `_created` samples of a text: an exposition in, the start timestamps of its series out.
//!
//! OpenMetrics tells since when a counter, histogram or summary has counted as a sample of its own, in seconds, with
//! the metric's name and `_created`; older clients declare it as a gauge. It stays the sample that it is.

use super::exposition::Exposition;
use foldhash::{HashMap, HashMapExt};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::TimestampMs;
use pharos_tsdb::MetricKind;

/// The end of the name of such a sample.
const CREATED: &str = "_created";

/// The ends of the names of the samples that it speaks of.
const COUNTED: [&str; 5] = ["_total", "_count", "_sum", "_bucket", ""];

/// Labels that tell the samples of one histogram or summary apart.
const INNER_LABELS: [&str; 2] = ["le", "quantile"];

/// Start timestamps, in milliseconds, by series.
pub(super) fn starts(exposition: &Exposition) -> HashMap<Labels, TimestampMs> {
    let mut starts = HashMap::new();
    let mut created: HashMap<(&str, Labels), TimestampMs> = HashMap::new();
    for sample in &exposition.samples {
        if let Some(base) = sample.labels.metric_name().strip_suffix(CREATED)
            && counts(base, exposition)
        {
            created.insert((base, object(&sample.labels)), (sample.value * 1_000.0).round() as TimestampMs);
        }
    }
    if created.is_empty() {
        return starts;
    }
    for sample in &exposition.samples {
        let name = sample.labels.metric_name();
        let bases = COUNTED.iter().filter_map(|end| name.strip_suffix(end));
        let told = bases.filter_map(|base| created.get(&(base, object(&sample.labels)))).next();
        if let Some(&start_ms) = told {
            starts.insert(sample.labels.clone(), start_ms);
        }
    }
    starts
}

/// Whether a metric is one that counts, as the text says.
fn counts(base: &str, exposition: &Exposition) -> bool {
    let kind = |name: &str| exposition.metadata.get(name).map(|metadata| metadata.kind);
    let is_cumulative =
        |kind| matches!(kind, MetricKind::Counter | MetricKind::Histogram | MetricKind::Summary);
    kind(base).is_some_and(is_cumulative) || kind(&format!("{base}_total")) == Some(MetricKind::Counter)
}

/// What tells an object that is counted from others of its metric.
fn object(labels: &Labels) -> Labels {
    labels.filtered(|name| name != METRIC_NAME && !INNER_LABELS.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::super::exposition::{Times, parse};
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let mut got: Vec<String> = starts(&parse(text, Times::Milliseconds, 7).unwrap())
            .into_iter()
            .map(|(labels, start_ms)| format!("{labels} {start_ms}"))
            .collect();
        got.sort_unstable();
        assert_eq!(got, want);
    }

    #[test]
    fn a_created_sample_tells_since_when_its_metric_counts() {
        check(
            "# TYPE a counter\na_total{x=\"1\"} 5\na_total{x=\"2\"} 5\na_created{x=\"1\"} 1.5\n",
            &["a_total{x=\"1\"} 1500"],
        );
        check(
            "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\nh_created 2\n",
            &["h_bucket{le=\"+Inf\"} 2000", "h_bucket{le=\"1\"} 2000", "h_count 2000", "h_sum 2000"],
        );
        check("# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_created 3\n", &["s{quantile=\"0.5\"} 3000"]);
        // As clients write it into the older format.
        check("# TYPE a_total counter\na_total 5\n# TYPE a_created gauge\na_created 4\n", &["a_total 4000"]);
    }

    #[test]
    fn a_gauge_that_is_called_so_tells_nothing() {
        check("# TYPE a gauge\na 5\na_created 1\n", &[]);
        check("a_total 5\na_created 1\n", &[]);
    }
}
