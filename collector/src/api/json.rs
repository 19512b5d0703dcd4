//! Values of the query language as Prometheus' JSON, written straight to the output.

use pharos_common::labels::Labels;
use pharos_common::sample::{Sample, TimestampMs};
use pharos_promql::{MatrixSeries, SampleValue, Value, VectorSample};
use std::io::{self, Write};

/// A sample's value as Go's JSON encoder of Prometheus prints it: the shortest digits, with an exponent
/// below 1e-6 and from 1e21.
pub fn format_value(value: f64) -> String {
    let magnitude = value.abs();
    if value.is_finite() && value != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        return format_exponent(value);
    }
    pharos_promql::format_float(value)
}

/// A value as Go's format `'e'` prints it.
pub(crate) fn format_exponent(value: f64) -> String {
    if !value.is_finite() {
        return pharos_promql::format_float(value);
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Milliseconds as seconds, with three digits if need be.
pub(crate) fn write_timestamp(out: &mut (impl Write + ?Sized), timestamp_ms: TimestampMs) -> io::Result<()> {
    let sign = if timestamp_ms < 0 { "-" } else { "" };
    let millis = timestamp_ms.unsigned_abs();
    write!(out, "{sign}{}", millis / 1_000)?;
    match millis % 1_000 {
        0 => Ok(()),
        fraction => write!(out, ".{fraction:03}"),
    }
}

fn write_text(out: &mut (impl Write + ?Sized), text: &str) -> io::Result<()> {
    // Nearly all texts are plain: they need neither escapes nor a copy.
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.write_all(b"\"")?;
        out.write_all(text.as_bytes())?;
        return out.write_all(b"\"");
    }
    let quoted = serde_json::to_string(text).map_err(io::Error::other)?;
    out.write_all(quoted.as_bytes())
}

/// `{"a":"1"}`
pub(crate) fn write_labels(out: &mut (impl Write + ?Sized), labels: &Labels) -> io::Result<()> {
    out.write_all(b"{")?;
    for (position, (name, value)) in labels.iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        write_text(out, name)?;
        out.write_all(b":")?;
        write_text(out, value)?;
    }
    out.write_all(b"}")
}

fn write_point(out: &mut (impl Write + ?Sized), timestamp_ms: TimestampMs, value: f64) -> io::Result<()> {
    out.write_all(b"[")?;
    write_timestamp(out, timestamp_ms)?;
    write!(out, ",\"{}\"]", format_value(value))
}

fn write_list<T>(
    out: &mut (impl Write + ?Sized),
    items: &[T],
    mut write: impl FnMut(&mut dyn Write, &T) -> io::Result<()>,
) -> io::Result<()> {
    // `dyn` needs a sized reference; this costs one indirection a list.
    struct Through<'a, W: Write + ?Sized>(&'a mut W);
    impl<W: Write + ?Sized> Write for Through<'_, W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    let mut out = Through(out);
    out.write_all(b"[")?;
    for (position, item) in items.iter().enumerate() {
        if position > 0 {
            out.write_all(b",")?;
        }
        write(&mut out, item)?;
    }
    out.write_all(b"]")
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
    match value {
        Value::Scalar(sample) => write_point(out, sample.timestamp_ms, sample.value),
        Value::String { timestamp_ms, text } => {
            out.write_all(b"[")?;
            write_timestamp(out, *timestamp_ms)?;
            out.write_all(b",")?;
            write_text(out, text)?;
            out.write_all(b"]")
        }
        Value::Vector(vector) => {
            write_list(out, vector, |mut out, sample| write_vector_sample(&mut out, sample))
        }
        Value::Matrix(matrix) => {
            write_list(out, matrix, |mut out, series| write_matrix_series(&mut out, series))
        }
    }
}

fn write_vector_sample(out: &mut impl Write, sample: &VectorSample) -> io::Result<()> {
    out.write_all(b"{\"metric\":")?;
    write_labels(out, &sample.labels)?;
    match &sample.value {
        SampleValue::Float(value) => {
            out.write_all(b",\"value\":")?;
            write_point(out, sample.timestamp_ms, *value)?;
        }
        SampleValue::Histogram(histogram) => {
            out.write_all(b",\"histogram\":[")?;
            write_timestamp(out, sample.timestamp_ms)?;
            out.write_all(b",")?;
            super::json_histogram::write(out, histogram)?;
            out.write_all(b"]")?;
        }
    }
    out.write_all(b"}")
}

fn write_matrix_series(out: &mut impl Write, series: &MatrixSeries) -> io::Result<()> {
    out.write_all(b"{\"metric\":")?;
    write_labels(out, &series.labels)?;
    if !series.floats.is_empty() {
        out.write_all(b",\"values\":")?;
        write_list(out, &series.floats, |mut out, sample: &Sample| {
            write_point(&mut out, sample.timestamp_ms, sample.value)
        })?;
    }
    if !series.histograms.is_empty() {
        out.write_all(b",\"histograms\":")?;
        write_list(out, &series.histograms, |mut out, sample| {
            out.write_all(b"[")?;
            write_timestamp(&mut out, sample.timestamp_ms)?;
            out.write_all(b",")?;
            super::json_histogram::write(&mut out, &sample.histogram)?;
            out.write_all(b"]")
        })?;
    }
    out.write_all(b"}")
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
        assert_eq!(format_exponent(91.5), "9.15e+01");
        assert_eq!(format_exponent(0.0), "0e+00");
    }

    #[test]
    fn timestamps_have_three_digits_or_none() {
        #[track_caller]
        fn check(timestamp_ms: i64, want: &str) {
            let mut out = Vec::new();
            write_timestamp(&mut out, timestamp_ms).unwrap();
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
