//! Native histograms as Prometheus' JSON: count, sum and the buckets that are not empty.

use super::json::format_value;
use pharos_common::histogram::{BucketSpan, FloatHistogram};
use std::io::{self, Write};

/// How a bucket's bounds are meant, in the API's numbers.
const LEFT_OPEN: u8 = 0;
const RIGHT_OPEN: u8 = 1;
const CLOSED: u8 = 3;

/// Writes one histogram.
pub(crate) fn write(out: &mut impl Write, histogram: &FloatHistogram) -> io::Result<()> {
    write!(
        out,
        "{{\"count\":\"{}\",\"sum\":\"{}\"",
        format_value(histogram.count),
        format_value(histogram.sum)
    )?;
    let mut separator = ",\"buckets\":[";
    let mut bucket = |rule: u8, lower: f64, upper: f64, count: f64| -> io::Result<()> {
        if count == 0.0 {
            return Ok(());
        }
        let (lower, upper, count) = (format_value(lower), format_value(upper), format_value(count));
        write!(out, "{separator}[{rule},\"{lower}\",\"{upper}\",\"{count}\"]")?;
        separator = ",";
        Ok(())
    };
    for (index, count) in indexed(&histogram.negative_spans, &histogram.negative_buckets).rev() {
        bucket(RIGHT_OPEN, -upper(histogram, index), -upper(histogram, index - 1), count)?;
    }
    bucket(CLOSED, -histogram.zero_threshold, histogram.zero_threshold, histogram.zero_count)?;
    for (index, count) in indexed(&histogram.positive_spans, &histogram.positive_buckets) {
        bucket(LEFT_OPEN, upper(histogram, index - 1), upper(histogram, index), count)?;
    }
    if separator == "," {
        out.write_all(b"]")?;
    }
    out.write_all(b"}")
}

fn indexed(spans: &[BucketSpan], counts: &[f64]) -> std::vec::IntoIter<(i32, f64)> {
    let mut index = 0i32;
    let mut indexed = Vec::with_capacity(counts.len());
    let mut counts = counts.iter();
    for span in spans {
        index = index.saturating_add(span.offset);
        for count in counts.by_ref().take(span.length as usize) {
            indexed.push((index, *count));
            index = index.saturating_add(1);
        }
    }
    indexed.into_iter()
}

fn upper(histogram: &FloatHistogram, index: i32) -> f64 {
    if histogram.uses_custom_buckets() {
        return match usize::try_from(index) {
            Ok(index) => histogram.custom_values.get(index).copied().unwrap_or(f64::INFINITY),
            Err(_) => f64::NEG_INFINITY,
        };
    }
    (f64::from(index) * (-f64::from(histogram.schema)).exp2()).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_prometheus_shape() {
        let histogram = FloatHistogram {
            count: 4.0,
            sum: 5.5,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![BucketSpan { offset: 1, length: 2 }],
            positive_buckets: vec![2.0, 0.0],
            negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
            negative_buckets: vec![1.0],
            ..FloatHistogram::default()
        };
        let mut out = Vec::new();
        write(&mut out, &histogram).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"count":"4","sum":"5.5","buckets":[[1,"-1","-0.5","1"],[3,"-0.001","0.001","1"],[0,"1","2","2"]]}"#
        );
    }
}
