//! Values of the query language as Prometheus' JSON, written straight to the output.

use super::digits::{push_timestamp, push_value};
use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_common::sample::{Sample, TimestampMs};
use pharos_promql::{MatrixSeries, SampleValue, Value, VectorSample};
use std::io::{self, Write};

/// A sample's value as Go's JSON encoder of Prometheus prints it: the shortest digits, with an exponent
/// below 1e-6 and from 1e21.
pub fn format_value(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && value != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        return pharos_promql::format_exponent(value);
    }
    pharos_promql::format_float(value)
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    // Nearly all texts are plain: they need neither escapes nor a copy.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}

/// Appends `{"a":"1"}`
pub(crate) fn push_labels(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    for (position, (name, value)) in labels.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push_text(out, name);
        out.push(b':');
        push_text(out, value);
    }
    out.push(b'}');
}

/// Appends `[1.5,"2"]`
fn push_point(out: &mut Vec<u8>, timestamp_ms: TimestampMs, value: f64) {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.extend_from_slice(b",\"");
    push_value(out, value);
    out.extend_from_slice(b"\"]");
}

fn push_histogram(
    out: &mut Vec<u8>,
    timestamp_ms: TimestampMs,
    histogram: &FloatHistogram,
) -> io::Result<()> {
    out.push(b'[');
    push_timestamp(out, timestamp_ms);
    out.push(b',');
    super::json_histogram::write(out, histogram)?;
    out.push(b']');
    Ok(())
}

/// Appends items with commas between.
fn push_list<T>(
    out: &mut Vec<u8>,
    items: &[T],
    mut push: impl FnMut(&mut Vec<u8>, &T) -> io::Result<()>,
) -> io::Result<()> {
    out.push(b'[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        push(out, item)?;
    }
    out.push(b']');
    Ok(())
}

/// Bytes that are gathered before they are written: single digits are far too small to be.
const GATHERED_BYTES: usize = 16 << 10;

/// Writes a list of which each item is gathered as bytes.
pub(crate) fn write_list<T>(
    out: &mut (impl Write + ?Sized),
    items: &[T],
    mut push: impl FnMut(&mut Vec<u8>, &T) -> io::Result<()>,
) -> io::Result<()> {
    let mut gathered = Vec::with_capacity(GATHERED_BYTES + GATHERED_BYTES / 4);
    gathered.push(b'[');
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            gathered.push(b',');
        }
        push(&mut gathered, item)?;
        if gathered.len() >= GATHERED_BYTES {
            out.write_all(&gathered)?;
            gathered.clear();
        }
    }
    gathered.push(b']');
    out.write_all(&gathered)
}

/// `"resultType":"vector","result":[…]`
pub(crate) fn write_result(out: &mut (impl Write + ?Sized), value: &Value) -> io::Result<()> {
    let kind = match value {
        Value::Scalar(_) => "scalar",
        Value::String { .. } => "string",
        Value::Vector(_) => "vector",
        Value::Matrix(_) => "matrix",
    };
    write!(out, "\"resultType\":\"{kind}\",\"result\":")?;
    let mut text = Vec::new();
    match value {
        Value::Scalar(sample) => push_point(&mut text, sample.timestamp_ms, sample.value),
        Value::String { timestamp_ms, text: string } => {
            text.push(b'[');
            push_timestamp(&mut text, *timestamp_ms);
            text.push(b',');
            push_text(&mut text, string);
            text.push(b']');
        }
        Value::Vector(vector) => return write_list(out, vector, push_vector_sample),
        Value::Matrix(matrix) => return write_list(out, matrix, push_matrix_series),
    }
    out.write_all(&text)
}

fn push_vector_sample(out: &mut Vec<u8>, sample: &VectorSample) -> io::Result<()> {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &sample.labels);
    match &sample.value {
        SampleValue::Float(value) => {
            out.extend_from_slice(b",\"value\":");
            push_point(out, sample.timestamp_ms, *value);
        }
        SampleValue::Histogram(histogram) => {
            out.extend_from_slice(b",\"histogram\":");
            push_histogram(out, sample.timestamp_ms, histogram)?;
        }
    }
    out.push(b'}');
    Ok(())
}

fn push_matrix_series(out: &mut Vec<u8>, series: &MatrixSeries) -> io::Result<()> {
    out.extend_from_slice(b"{\"metric\":");
    push_labels(out, &series.labels);
    if !series.floats.is_empty() {
        out.extend_from_slice(b",\"values\":");
        push_list(out, &series.floats, |out, sample: &Sample| {
            push_point(out, sample.timestamp_ms, sample.value);
            Ok(())
        })?;
    }
    if !series.histograms.is_empty() {
        out.extend_from_slice(b",\"histograms\":");
        push_list(out, &series.histograms, |out, sample| {
            push_histogram(out, sample.timestamp_ms, &sample.histogram)
        })?;
    }
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_print_as_prometheus_prints_them() {
        #[track_caller]
        fn check(value: f64, want: &str) {
            assert_eq!(format_value(value), want);
        }
        check(0.0, "0");
        check(-0.0, "-0");
        check(0.1, "0.1");
        check(1e-6, "0.000001");
        check(1.5e-7, "1.5e-07");
        check(123_456_789_012_345_680_000.0, "123456789012345680000");
        check(1e21, "1e+21");
        check(1.7e308, "1.7e+308");
        check(f64::NAN, "NaN");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
    }

    #[test]
    fn timestamps_have_three_digits_or_none() {
        #[track_caller]
        fn check(timestamp_ms: i64, want: &str) {
            let mut out = Vec::new();
            push_timestamp(&mut out, timestamp_ms);
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        check(0, "0");
        check(1_500, "1.500");
        check(1_005, "1.005");
        check(-1, "-0.001");
        check(1_435_781_430_781, "1435781430.781");
    }

    #[test]
    fn results_have_prometheus_shape() {
        #[track_caller]
        fn check(value: &Value, want: &str) {
            let mut out = Vec::new();
            write_result(&mut out, value).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), want);
        }
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "x\"<y")]);
        check(
            &Value::Scalar(Sample { timestamp_ms: 4_000, value: 2.0 }),
            r#""resultType":"scalar","result":[4,"2"]"#,
        );
        check(
            &Value::Vector(vec![VectorSample {
                labels: labels.clone(),
                timestamp_ms: 1_500,
                value: SampleValue::Float(f64::NAN),
            }]),
            r#""resultType":"vector","result":[{"metric":{"__name__":"up","a":"x\"<y"},"value":[1.500,"NaN"]}]"#,
        );
        check(
            &Value::Matrix(vec![MatrixSeries {
                labels,
                floats: vec![Sample { timestamp_ms: 1, value: 1.0 }, Sample { timestamp_ms: 2, value: 2.5 }],
                histograms: Vec::new(),
            }]),
            r#""resultType":"matrix","result":[{"metric":{"__name__":"up","a":"x\"<y"},"values":[[0.001,"1"],[0.002,"2.5"]]}]"#,
        );
    }
}
