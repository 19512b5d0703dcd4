//! The text that `/metrics` serves: Prometheus' format or OpenMetrics, from the latest readings.

mod family;

use crate::board::Posted;
use family::{Family, Part};
use pharos_proto::v1::{Column, DefineGroup, Label, MetricType};
use std::collections::BTreeMap;

/// Which text format a scraper wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` header asks for. Prometheus' format unless OpenMetrics is wanted at least as much; it has
    /// to be named, for those who take anything know the former.
    pub fn negotiate(accept: &str) -> Format {
        // Of ranges that cover a type the most specific one counts.
        let quality = |ranges: &[&str]| ranges.iter().find_map(|range| quality(accept, range));
        let open_metrics = quality(&["application/openmetrics-text"]).unwrap_or(0.0);
        let text = quality(&["text/plain", "text/*", "*/*"]).unwrap_or(0.0);
        if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// The value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How much a header such as `Accept` wants something, if it names it; 1 unless it says so. Of several entries
/// (in several versions) that of the highest quality counts.
pub(crate) fn quality(header: &str, wanted: &str) -> Option<f32> {
    let entries = header.split(',').filter_map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let given = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim_end().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())
        });
        Some(given.flatten().unwrap_or(1.0))
    });
    entries.reduce(f32::max)
}

/// Labels that the collector adds and a scraper would add itself.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];

/// Metric families by name, each with its series.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<String, Family>,
}

impl Exposition {
    /// Adds readings.
    pub fn add_readings(&mut self, readings: &[Posted]) {
        for posted in readings {
            let message = &posted.definition.message;
            for (at, column) in message.columns.iter().enumerate() {
                if !posted.present.contains(at) {
                    continue;
                }
                let Some(&value) = posted.values.get(at) else { continue };
                let kind = column.r#type();
                let (family, part) = Part::split(&column.name, kind);
                self.family(family, kind, &column.help).add(part, labels_of(message, column), value);
            }
        }
    }

    /// Adds the program's metrics about itself.
    pub fn add_own(&mut self, families: &[prometheus::proto::MetricFamily]) {
        for family in families {
            let kind = match family.get_field_type() {
                prometheus::proto::MetricType::COUNTER => MetricType::Counter,
                prometheus::proto::MetricType::GAUGE => MetricType::Gauge,
                // The agent has no others.
                _ => continue,
            };
            for metric in family.get_metric() {
                let value = match kind {
                    MetricType::Counter => metric.get_counter().get_value(),
                    _ => metric.get_gauge().get_value(),
                };
                let labels: Vec<Label> = metric
                    .get_label()
                    .iter()
                    .map(|label| Label { name: label.name().to_owned(), value: label.value().to_owned() })
                    .collect();
                self.family(family.name(), kind, family.help()).add(Part::Value, labels.iter(), value);
            }
        }
    }

    /// The text.
    pub fn render(mut self, format: Format) -> String {
        let mut out = String::with_capacity(64 << 10);
        for (name, family) in &mut self.families {
            family.tidy();
            family.render(name, format, &mut out);
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn family(&mut self, name: &str, kind: MetricType, help: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_insert_with(|| Family::new(kind, help))
    }
}

/// A column's labels and its group's; its own come in place of its group's, as collectors read it.
fn labels_of<'a>(group: &'a DefineGroup, column: &'a Column) -> impl Iterator<Item = &'a Label> + Clone {
    let own = move |name: &str| column.labels.iter().any(|label| label.name == name);
    let shared = group
        .labels
        .iter()
        .filter(move |label| !TARGET_LABELS.contains(&label.name.as_str()) && !own(&label.name));
    shared.chain(&column.labels)
}

fn render_labels<'a>(labels: impl Iterator<Item = &'a Label>) -> String {
    let mut labels: Vec<&Label> = labels.collect();
    labels.sort_by(|left, right| left.name.cmp(&right.name));
    let mut out = String::new();
    for label in labels {
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&label.name);
        out.push_str("=\"");
        for letter in label.value.chars() {
            match letter {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                letter => out.push(letter),
            }
        }
        out.push('"');
    }
    if !out.is_empty() {
        out.push('}');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_negotiated_by_quality() {
        #[track_caller]
        fn check(accept: &str, want: Format) {
            assert_eq!(Format::negotiate(accept), want, "{accept:?}");
        }
        check("", Format::Prometheus);
        check("*/*", Format::Prometheus);
        check(
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
            Format::OpenMetrics,
        );
        check("application/openmetrics-text;q=0.3,text/plain;q=0.5", Format::Prometheus);
        check("text/plain;version=0.0.4", Format::Prometheus);
        check("Application/OpenMetrics-Text; Q=1", Format::OpenMetrics);
        check("application/openmetrics-text;q=0", Format::Prometheus);
        check("application/openmetrics-text;q=0.5, text/*;q=0.9", Format::Prometheus);
        check("application/openmetrics-text;q=0.5, */*;q=0.9", Format::Prometheus);
        check("application/openmetrics-text, */*", Format::OpenMetrics);
        check("application/openmetrics-text;q=0.5, text/plain;q=0.1, */*;q=0.9", Format::OpenMetrics);
        check(
            "application/openmetrics-text;q=0.1, application/openmetrics-text;version=1.0.0;q=0.7, text/plain;q=0.6",
            Format::OpenMetrics,
        );
    }

    #[test]
    fn values_and_labels_are_written_as_scrapers_read_them() {
        #[track_caller]
        fn check(value: f64, want: &str) {
            let mut out = String::new();
            family::write_value(&mut out, value);
            assert_eq!(out, want);
            assert!(value.is_nan() || out.replace("+Inf", "inf").parse::<f64>().unwrap() == value);
        }
        check(0.0, "0");
        check(1_234_567.0, "1234567");
        check(0.01, "0.01");
        check(1e-5, "1e-05");
        check(1.5e300, "1.5e+300");
        check(f64::INFINITY, "+Inf");
        check(f64::NAN, "NaN");
        let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
        let labels = [label("b", "x\"\\\ny"), label("a", "1")];
        assert_eq!(render_labels(labels.iter()), "{a=\"1\",b=\"x\\\"\\\\\\ny\"}");
        assert_eq!(render_labels([].iter()), "");
    }

    #[test]
    fn no_label_is_written_twice() {
        let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
        let group = DefineGroup {
            labels: vec![label("instance", "n"), label("gpu", "1"), label("pod", "a")],
            ..DefineGroup::default()
        };
        let column = Column { labels: vec![label("pod", "b")], ..Column::default() };
        assert_eq!(render_labels(labels_of(&group, &column)), r#"{gpu="1",pod="b"}"#);
    }
}
