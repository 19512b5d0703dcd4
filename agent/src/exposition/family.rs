//! One metric family of the text: its help and type, and its series in the order that scrapers want.
//!
//! Agents carry the parts of a histogram or a summary as series of their own; here they come together again
//! under the name of the whole, bucket by bucket, then the sum and the count.

use super::{Format, render_labels};
use pharos_proto::v1::{Label, MetricType};
use std::cmp::Ordering;
use std::fmt::Write as _;

#[derive(Debug)]
pub(super) struct Family {
    kind: MetricType,
    help: String,
    series: Vec<Series>,
}

#[derive(Debug)]
struct Series {
    part: Part,
    /// With braces, or nothing.
    labels: String,
    /// The labels without the bound; empty for what has no parts.
    whole: String,
    /// Of a bucket or a quantile; NaN for what has none.
    bound: f64,
    value: f64,
}

/// What a series is of its family, in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The family's own name, a summary's quantiles among them.
    Value,
    Bucket,
    Sum,
    Count,
}

impl Part {
    /// The family of a series, and which part of it the series is.
    pub(super) fn split(name: &str, kind: MetricType) -> (&str, Part) {
        let parts: &[Part] = match kind {
            MetricType::Histogram => &[Part::Bucket, Part::Sum, Part::Count],
            MetricType::Summary => &[Part::Sum, Part::Count],
            _ => &[],
        };
        let split = |part: &Part| Some((name.strip_suffix(part.suffix())?, *part));
        parts.iter().find_map(split).unwrap_or((name, Part::Value))
    }

    fn suffix(self) -> &'static str {
        match self {
            Part::Value => "",
            Part::Bucket => "_bucket",
            Part::Sum => "_sum",
            Part::Count => "_count",
        }
    }
}

impl Series {
    fn order(&self, other: &Series) -> Ordering {
        let parts = || (&self.whole, self.part).cmp(&(&other.whole, other.part));
        parts().then_with(|| self.bound.total_cmp(&other.bound)).then_with(|| self.labels.cmp(&other.labels))
    }
}

impl Family {
    pub(super) fn new(kind: MetricType, help: &str) -> Self {
        Family { kind, help: help.to_owned(), series: Vec::new() }
    }

    pub(super) fn add<'a>(
        &mut self,
        part: Part,
        labels: impl Iterator<Item = &'a Label> + Clone,
        value: f64,
    ) {
        let mut series = Series {
            part,
            labels: render_labels(labels.clone()),
            whole: String::new(),
            bound: f64::NAN,
            value,
        };
        let bound = match self.kind {
            MetricType::Histogram => Some("le"),
            MetricType::Summary => Some("quantile"),
            _ => None,
        };
        if let Some(bound) = bound {
            let bounded = labels.clone().find(|label| label.name == bound);
            series.bound = bounded.and_then(|label| label.value.parse().ok()).unwrap_or(f64::NAN);
            series.whole = render_labels(labels.filter(|label| label.name != bound));
        }
        self.series.push(series);
    }

    /// Brings the series into order; of those that are there twice the first stays.
    pub(super) fn tidy(&mut self) {
        self.series.sort_by(Series::order);
        // A text file may name a series that a sampler has, too; a scraper would refuse them all.
        self.series.dedup_by(|later, first| later.part == first.part && later.labels == first.labels);
    }

    /// Writes it to the text of that format.
    pub(super) fn render(&self, name: &str, format: Format, out: &mut String) {
        // OpenMetrics wants a counter's samples, not its family, to end in `_total`.
        let stripped = name.strip_suffix("_total");
        let (family, kind) = match (format, self.kind, stripped) {
            (Format::Prometheus, MetricType::Counter, _) => (name, "counter"),
            (Format::Prometheus, MetricType::Gauge | MetricType::Info, _) => (name, "gauge"),
            (_, MetricType::Histogram, _) => (name, "histogram"),
            (_, MetricType::Summary, _) => (name, "summary"),
            (Format::Prometheus, _, _) => (name, "untyped"),
            (Format::OpenMetrics, MetricType::Counter, Some(family)) => (family, "counter"),
            (Format::OpenMetrics, MetricType::Gauge | MetricType::Info, _) => (name, "gauge"),
            (Format::OpenMetrics, _, _) => (name, "unknown"),
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {family} ");
        for letter in self.help.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '"' if format == Format::OpenMetrics => out.push_str("\\\""),
                letter => out.push(letter),
            }
        }
        let _ = write!(out, "\n# TYPE {family} {kind}\n");
        for series in &self.series {
            out.push_str(name);
            out.push_str(series.part.suffix());
            out.push_str(&series.labels);
            out.push(' ');
            write_value(out, series.value);
            out.push('\n');
        }
    }
}

/// The shortest digits that read back as the same number; an exponent only where zeros would fill the line.
pub(super) fn write_value(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
        return;
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let _ = write!(out, "{digits}e{exponent:+03}");
    } else {
        let _ = write!(out, "{value}");
    }
}
