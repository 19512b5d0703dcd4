//! Prometheus' text exposition format: text in, samples and metadata out.
//!
//! OpenMetrics' `# UNIT` and `# EOF` lines are accepted, names in quotes too.

use super::label_rules::{LabelFault, checked_labels};
use crate::limits::SAMPLES_PER_WRITE_MAX;
use pharos_common::labels::METRIC_NAME;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Metadata, MetricKind};
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::series_writer::LoneSample;

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ExpositionError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// What a text says.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Its samples, in order.
    pub samples: Vec<LoneSample>,
    /// What it tells about metrics.
    pub metadata: BTreeMap<String, Metadata>,
}

/// In what a text tells times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Whole milliseconds, as Prometheus' own format.
    Milliseconds,
    /// Seconds, maybe with a fraction, as OpenMetrics.
    Seconds,
}

impl Times {
    fn read(self, text: &str) -> Result<TimestampMs, String> {
        match self {
            Times::Milliseconds => {
                text.parse().map_err(|_| format!("{text:?} is no timestamp in whole milliseconds"))
            }
            Times::Seconds => {
                let millis = text.parse::<f64>().ok().map(|seconds| (seconds * 1_000.0).round());
                let in_range = millis.filter(|millis| millis.abs() < TimestampMs::MAX as f64);
                in_range
                    .map(|millis| millis as TimestampMs)
                    .ok_or_else(|| format!("{text:?} is no timestamp in seconds"))
            }
        }
    }
}

/// Reads a text. Samples without a timestamp get `now_ms`.
///
/// # Errors
/// The first line that cannot be read.
pub fn parse(text: &str, times: Times, now_ms: TimestampMs) -> Result<Exposition, ExpositionError> {
    let mut exposition = Exposition::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches([' ', '\t', '\r']);
        let outcome = match line.strip_prefix('#') {
            Some(comment) => {
                take_comment(comment, &mut exposition.metadata);
                Ok(())
            }
            None if line.is_empty() => Ok(()),
            None if exposition.samples.len() >= SAMPLES_PER_WRITE_MAX => {
                Err(format!("the text has more than {SAMPLES_PER_WRITE_MAX} samples"))
            }
            None => parse_sample(line, times, now_ms).map(|sample| exposition.samples.push(sample)),
        };
        outcome.map_err(|message| ExpositionError { line: index + 1, message })?;
    }
    Ok(exposition)
}

fn take_comment(comment: &str, metadata: &mut BTreeMap<String, Metadata>) {
    let mut words = comment.trim_start_matches([' ', '\t']).splitn(3, [' ', '\t']);
    let (Some(keyword), Some(name)) = (words.next(), words.next()) else { return };
    if !matches!(keyword, "HELP" | "TYPE" | "UNIT") {
        return;
    }
    let rest = words.next().unwrap_or("").trim_start_matches([' ', '\t']);
    let name = name.trim_matches('"');
    let about = metadata.entry(name.to_owned()).or_default();
    match keyword {
        "HELP" => {
            let help = unescape(rest, false);
            about.help = super::stream_groups::shortened(&help, crate::limits::HELP_BYTES_MAX).to_owned();
        }
        "UNIT" => about.unit = rest.to_owned(),
        _ => {
            about.kind = match rest {
                "counter" => MetricKind::Counter,
                "gauge" => MetricKind::Gauge,
                "histogram" | "gaugehistogram" => MetricKind::Histogram,
                "summary" => MetricKind::Summary,
                "info" | "stateset" => MetricKind::Info,
                _ => MetricKind::Unknown,
            }
        }
    }
}

fn parse_sample(line: &str, times: Times, now_ms: TimestampMs) -> Result<LoneSample, String> {
    let name_end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    let (name, mut rest) = line.split_at(name_end);
    let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    if !name.is_empty() {
        if !pharos_common::labels::is_legacy_metric_name(name) {
            return Err(format!("{name:?} is no metric name"));
        }
        pairs.push((METRIC_NAME.into(), name.into()));
    }
    if let Some(inside) = rest.trim_start_matches([' ', '\t']).strip_prefix('{') {
        rest = parse_labels(inside, &mut pairs)?;
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next().ok_or("the value is missing")?;
    let value = parse_value(value).ok_or_else(|| format!("{value:?} is no number"))?;
    let timestamp_ms = match words.next() {
        None | Some("#") => now_ms,
        Some(text) => times.read(text)?,
    };
    let labels = checked_labels(pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
        .map_err(|fault: LabelFault| fault.to_string())?;
    Ok(LoneSample { labels, timestamp_ms, value })
}

/// Reads `a="1",b="2"}` and returns what follows the brace.
fn parse_labels<'a>(
    mut rest: &'a str,
    pairs: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Result<&'a str, String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = if rest.starts_with('"') {
            quoted(rest)?
        } else {
            let end = rest.find(['=', ' ', '\t', ',', '}']).ok_or("a label without a value")?;
            if !pharos_common::labels::is_legacy_label_name(&rest[..end]) {
                return Err(format!("{:?} is no label name", &rest[..end]));
            }
            (Cow::Borrowed(&rest[..end]), &rest[end..])
        };
        let was_quoted = rest.starts_with('"');
        rest = after.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('=') {
            let (value, after) = quoted(after.trim_start_matches([' ', '\t']))?;
            pairs.push((name, value));
            rest = after;
        } else if was_quoted {
            // `{"metric.name", a="1"}`
            pairs.push((METRIC_NAME.into(), name));
        } else {
            return Err(format!("label {name:?} has no value"));
        }
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.chars().next() {
            Some(',') => rest = &rest[1..],
            Some('}') => {}
            _ => return Err("expected , or } after a label".to_owned()),
        }
    }
}

fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    let inside = text.strip_prefix('"').ok_or("expected a text in quotes")?;
    let mut escaped = false;
    for (position, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok((unescape(&inside[..position], true), &inside[position + 1..])),
            _ => {}
        }
    }
    Err("a quote is not closed".to_owned())
}

fn unescape(text: &str, quotes: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('\\') => out.push('\\'),
            Some('"') if quotes => out.push('"'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    Cow::Owned(out)
}

/// A float as Go reads it.
fn parse_value(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => Some(f64::from_bits(pharos_common::sample::NORMAL_NAN_BITS)),
        "inf" | "+inf" | "infinity" | "+infinity" => Some(f64::INFINITY),
        "-inf" | "-infinity" => Some(f64::NEG_INFINITY),
        lower if lower.bytes().all(|b| b.is_ascii_digit() || b"+-.e".contains(&b)) => {
            // What is too large for a number is none, as in Go.
            lower.parse().ok().filter(|value: &f64| value.is_finite())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(line: &str, want: &str) {
        let got = match parse(line, Times::Milliseconds, 7) {
            Ok(exposition) => exposition
                .samples
                .iter()
                .map(|sample| format!("{} {} @{}", sample.labels, sample.value, sample.timestamp_ms))
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn samples_are_read() {
        check("up 1", "up 1 @7");
        check("up{job=\"a\",} 1.5e3 -12\n", "up{job=\"a\"} 1500 @-12");
        check("a{x=\"q\\\"\\n\\\\\"} +Inf", "a{x=\"q\\\"\\n\\\\\"} inf @7");
        check("{\"gpu.temp\", \"a.b\"=\"1\"} 90", "{\"gpu.temp\", \"a.b\"=\"1\"} 90 @7");
        check("# TYPE up gauge\n\n# EOF\nup NaN", "up NaN @7");
        check("a { b = \"1\" } 2 # {trace=\"x\"} 1", "a{b=\"1\"} 2 @7");
    }

    #[test]
    fn faults_name_their_line() {
        check("up 1\nup", "line 2: the value is missing");
        check("up x", "line 1: \"x\" is no number");
        check("up 1e400", "line 1: \"1e400\" is no number");
        check("up 1 1.5", "line 1: \"1.5\" is no timestamp in whole milliseconds");
        check("up{a} 1", "line 1: label \"a\" has no value");
        check("up{a=\"1} 1", "line 1: a quote is not closed");
        check("up{a=\"1\" b=\"2\"} 1", "line 1: expected , or } after a label");
        check("1up 1", "line 1: \"1up\" is no metric name");
        check("{a=\"1\"} 1", "line 1: series {a=\"1\"} has no metric name");
    }

    #[test]
    fn metadata_is_read() {
        let text = "# HELP up Whether\\nit is up\n# TYPE up gauge\n# just a comment\n";
        let metadata = parse(text, Times::Milliseconds, 0).unwrap().metadata;
        assert_eq!(metadata.len(), 1);
        assert_eq!(metadata["up"].help, "Whether\nit is up");
        assert_eq!(metadata["up"].kind, MetricKind::Gauge);
    }

    #[test]
    fn openmetrics_tells_times_in_seconds() {
        let at = |text: &str| parse(text, Times::Seconds, 0).map(|read| read.samples[0].timestamp_ms);
        assert_eq!(at("up 1 1700000000.123 # {trace=\"a\"} 1"), Ok(1_700_000_000_123));
        assert_eq!(at("up 1 -1"), Ok(-1_000));
        assert_eq!(at("up 1 1e30").unwrap_err().to_string(), "line 1: \"1e30\" is no timestamp in seconds");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-z{}=\"\\\\ ,#\n0-9é]{0,60}") {
            let _ = parse(&text, Times::Milliseconds, 0);
        }
    }
}
