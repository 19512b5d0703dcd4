//! The text that `/metrics` serves: Prometheus' format or OpenMetrics, from the latest readings.

use crate::board::Posted;
use pharos_proto::v1::{Column, DefineGroup, Label, MetricType};
use std::collections::BTreeMap;
use std::fmt::Write as _;

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

#[derive(Debug)]
struct Family {
    kind: MetricType,
    help: String,
    /// Rendered labels (with braces, or nothing) and values.
    series: Vec<(String, f64)>,
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
                let labels = labels_of(message, column);
                let kind = MetricType::try_from(column.r#type).unwrap_or(MetricType::Unknown);
                self.family(&column.name, kind, &column.help).series.push((labels, value));
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
                let labels = render_labels(labels.iter());
                self.family(family.name(), kind, family.help()).series.push((labels, value));
            }
        }
    }

    /// The text.
    pub fn render(mut self, format: Format) -> String {
        let mut out = String::with_capacity(64 << 10);
        for (name, family) in &mut self.families {
            family.series.sort_by(|left, right| left.0.cmp(&right.0));
            // A text file may name a series that a sampler has, too; a scraper would refuse them all.
            family.series.dedup_by(|later, first| later.0 == first.0);
            family.render(name, format, &mut out);
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn family(&mut self, name: &str, kind: MetricType, help: &str) -> &mut Family {
        if !self.families.contains_key(name) {
            let family = Family { kind, help: help.to_owned(), series: Vec::new() };
            self.families.insert(name.to_owned(), family);
        }
        // Just inserted if it was missing.
        self.families.entry(name.to_owned()).or_insert_with(|| Family {
            kind,
            help: String::new(),
            series: Vec::new(),
        })
    }
}

impl Family {
    fn render(&self, name: &str, format: Format, out: &mut String) {
        // OpenMetrics wants a counter's samples, not its family, to end in `_total`.
        let stripped = name.strip_suffix("_total");
        let (family, kind) = match (format, self.kind, stripped) {
            (Format::Prometheus, MetricType::Counter, _) => (name, "counter"),
            (Format::Prometheus, MetricType::Gauge | MetricType::Info, _) => (name, "gauge"),
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
        for (labels, value) in &self.series {
            out.push_str(name);
            out.push_str(labels);
            out.push(' ');
            write_value(out, *value);
            out.push('\n');
        }
    }
}

/// A column's labels and its group's; its own come in place of its group's, as collectors read it.
fn labels_of(group: &DefineGroup, column: &Column) -> String {
    let own = |name: &str| column.labels.iter().any(|label| label.name == name);
    let shared = group
        .labels
        .iter()
        .filter(|label| !TARGET_LABELS.contains(&label.name.as_str()) && !own(&label.name));
    render_labels(shared.chain(&column.labels))
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

/// The shortest digits that read back as the same number; an exponent only where zeros would fill the line.
fn write_value(out: &mut String, value: f64) {
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
            write_value(&mut out, value);
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
        assert_eq!(labels_of(&group, &column), r#"{gpu="1",pod="b"}"#);
    }
}
