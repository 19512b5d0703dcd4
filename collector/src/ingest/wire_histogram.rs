//! Native histograms as remote write has them: checked, and turned into floats.
//!
//! What is refused, and the words for it, follow Prometheus' `Histogram.Validate`.

use crate::limits::HISTOGRAM_BUCKETS_MAX;
use pharos_common::histogram::{
    BucketSpan, CUSTOM_BUCKETS_SCHEMA, CounterResetHint, FloatHistogram, HistogramSample,
};
use pharos_proto::prometheus as wire;
use std::sync::Arc;

/// Schemas of exponential buckets.
const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// Why a histogram is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum HistogramFault {
    /// A schema that nobody knows.
    #[error("unknown histogram schema {0}")]
    Schema(i32),
    /// More buckets than are taken.
    #[error("a histogram with {0} buckets; at most {HISTOGRAM_BUCKETS_MAX} are taken")]
    TooManyBuckets(usize),
    /// A span that goes back.
    #[error(
        "{side} side: span number {number} with offset {offset}: histogram has a span whose offset is negative"
    )]
    NegativeOffset {
        /// Which side.
        side: &'static str,
        /// Which span, counted from 1.
        number: usize,
        /// Its offset.
        offset: i32,
    },
    /// Spans and buckets do not agree.
    #[error(
        "{side} side: spans need {want} buckets, have {got} buckets: histogram spans specify different number of buckets than provided"
    )]
    SpanBuckets {
        /// Which side.
        side: &'static str,
        /// Buckets that the spans cover.
        want: u64,
        /// Buckets there are.
        got: usize,
    },
    /// A count below zero.
    #[error(
        "{side} side: bucket number {number} has observation count of {count}: histogram has a bucket whose observation count is negative"
    )]
    NegativeCount {
        /// Which side.
        side: &'static str,
        /// Which bucket, counted from 1.
        number: usize,
        /// What it says.
        count: f64,
    },
    /// The counts do not add up.
    #[error(
        "{in_buckets} observations found in buckets, but the Count field is {count}: histogram's observation count should be at least the number of observations found in the buckets"
    )]
    Count {
        /// Observations in buckets.
        in_buckets: f64,
        /// Observations in all.
        count: f64,
    },
    /// Bounds that do not rise, or that an exponential histogram has none of.
    #[error(
        "histogram custom bounds must be finite and in strictly increasing order, and only with schema {CUSTOM_BUCKETS_SCHEMA}"
    )]
    CustomBounds,
    /// A histogram with custom buckets has neither a zero bucket nor buckets below zero.
    #[error(
        "custom buckets: must have no zero bucket, no negative buckets, and a bound for each bucket but the last"
    )]
    CustomBuckets,
}

/// Reads and checks a histogram.
///
/// # Errors
/// What is wrong with it.
pub(super) fn from_wire(histogram: wire::Histogram) -> Result<HistogramSample, HistogramFault> {
    let whole = !matches!(histogram.count, Some(wire::histogram::Count::CountFloat(_)));
    let buckets = |deltas: Vec<i64>, counts: Vec<f64>| match whole {
        true => added_up(&deltas),
        false => counts,
    };
    let read = FloatHistogram {
        counter_reset_hint: match histogram.reset_hint {
            1 => CounterResetHint::Reset,
            2 => CounterResetHint::NotReset,
            3 => CounterResetHint::Gauge,
            _ => CounterResetHint::Unknown,
        },
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: match histogram.zero_count {
            Some(wire::histogram::ZeroCount::ZeroCountInt(count)) => count as f64,
            Some(wire::histogram::ZeroCount::ZeroCountFloat(count)) => count,
            None => 0.0,
        },
        count: match histogram.count {
            Some(wire::histogram::Count::CountInt(count)) => count as f64,
            Some(wire::histogram::Count::CountFloat(count)) => count,
            None => 0.0,
        },
        sum: histogram.sum,
        positive_spans: spans(&histogram.positive_spans),
        negative_spans: spans(&histogram.negative_spans),
        positive_buckets: buckets(histogram.positive_deltas, histogram.positive_counts),
        negative_buckets: buckets(histogram.negative_deltas, histogram.negative_counts),
        custom_values: histogram.custom_values,
    };
    if !read.is_stale() {
        check(&read, whole)?;
    }
    Ok(HistogramSample { timestamp_ms: histogram.timestamp, histogram: Arc::new(read) })
}

/// Writes a histogram of floats.
pub(crate) fn to_wire(sample: &HistogramSample) -> wire::Histogram {
    let histogram: &FloatHistogram = &sample.histogram;
    let spans = |spans: &[BucketSpan]| {
        let span = |span: &BucketSpan| wire::BucketSpan { offset: span.offset, length: span.length };
        spans.iter().map(span).collect()
    };
    wire::Histogram {
        count: Some(wire::histogram::Count::CountFloat(histogram.count)),
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: Some(wire::histogram::ZeroCount::ZeroCountFloat(histogram.zero_count)),
        negative_spans: spans(&histogram.negative_spans),
        negative_counts: histogram.negative_buckets.clone(),
        positive_spans: spans(&histogram.positive_spans),
        positive_counts: histogram.positive_buckets.clone(),
        reset_hint: match histogram.counter_reset_hint {
            CounterResetHint::Unknown => 0,
            CounterResetHint::Reset => 1,
            CounterResetHint::NotReset => 2,
            CounterResetHint::Gauge => 3,
        },
        timestamp: sample.timestamp_ms,
        custom_values: histogram.custom_values.clone(),
        ..wire::Histogram::default()
    }
}

fn spans(spans: &[wire::BucketSpan]) -> Vec<BucketSpan> {
    spans.iter().map(|span| BucketSpan { offset: span.offset, length: span.length }).collect()
}

/// Whole counts are told as the difference to the bucket before.
fn added_up(deltas: &[i64]) -> Vec<f64> {
    let mut count = 0i64;
    deltas
        .iter()
        .map(|delta| {
            count = count.wrapping_add(*delta);
            count as f64
        })
        .collect()
}

fn check(histogram: &FloatHistogram, whole: bool) -> Result<(), HistogramFault> {
    let buckets =
        histogram.positive_buckets.len() + histogram.negative_buckets.len() + histogram.custom_values.len();
    if buckets > HISTOGRAM_BUCKETS_MAX {
        return Err(HistogramFault::TooManyBuckets(buckets));
    }
    check_side("positive", &histogram.positive_spans, &histogram.positive_buckets)?;
    check_side("negative", &histogram.negative_spans, &histogram.negative_buckets)?;
    if histogram.uses_custom_buckets() {
        check_custom(histogram)?;
    } else if !EXPONENTIAL_SCHEMAS.contains(&histogram.schema) {
        return Err(HistogramFault::Schema(histogram.schema));
    } else if !histogram.custom_values.is_empty() {
        return Err(HistogramFault::CustomBounds);
    }
    // Floats that were scaled or added need not add up to the last bit, so only whole counts are compared.
    let in_buckets: f64 = histogram.positive_buckets.iter().chain(&histogram.negative_buckets).sum::<f64>()
        + histogram.zero_count;
    if whole && in_buckets > histogram.count {
        return Err(HistogramFault::Count { in_buckets, count: histogram.count });
    }
    Ok(())
}

fn check_side(side: &'static str, spans: &[BucketSpan], buckets: &[f64]) -> Result<(), HistogramFault> {
    if let Some(at) = spans.iter().skip(1).position(|span| span.offset < 0) {
        let number = at + 2;
        return Err(HistogramFault::NegativeOffset { side, number, offset: spans[at + 1].offset });
    }
    let want: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if want != buckets.len() as u64 {
        return Err(HistogramFault::SpanBuckets { side, want, got: buckets.len() });
    }
    match buckets.iter().position(|count| *count < 0.0) {
        Some(at) => Err(HistogramFault::NegativeCount { side, number: at + 1, count: buckets[at] }),
        None => Ok(()),
    }
}

fn check_custom(histogram: &FloatHistogram) -> Result<(), HistogramFault> {
    let bounds = &histogram.custom_values;
    let rises = bounds.windows(2).all(|pair| pair[0] < pair[1]) && bounds.iter().all(|bound| !bound.is_nan());
    if !rises || bounds.last().is_some_and(|last| last.is_infinite()) {
        return Err(HistogramFault::CustomBounds);
    }
    // Spans have been checked against the buckets, so their sum is small.
    let first = histogram.positive_spans.first().map_or(0, |span| i64::from(span.offset));
    let end: i64 =
        histogram.positive_spans.iter().map(|span| i64::from(span.offset) + i64::from(span.length)).sum();
    let outside = first < 0 || end > bounds.len() as i64 + 1;
    let zero_bucket = histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0;
    if outside || zero_bucket || !histogram.negative_spans.is_empty() {
        return Err(HistogramFault::CustomBuckets);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> wire::Histogram {
        wire::Histogram {
            count: Some(wire::histogram::Count::CountInt(10)),
            zero_count: Some(wire::histogram::ZeroCount::ZeroCountInt(1)),
            sum: 12.5,
            zero_threshold: 0.001,
            positive_spans: vec![
                wire::BucketSpan { offset: -1, length: 2 },
                wire::BucketSpan { offset: 3, length: 1 },
            ],
            positive_deltas: vec![4, -2, 1],
            timestamp: 7,
            ..wire::Histogram::default()
        }
    }

    #[track_caller]
    fn check(change: impl Fn(&mut wire::Histogram), want: &str) {
        let mut histogram = whole();
        change(&mut histogram);
        let outcome = from_wire(histogram).map_err(|fault| fault.to_string());
        let message = outcome.expect_err("it is refused");
        assert!(message.contains(want), "{message}");
    }

    #[test]
    fn whole_counts_are_told_as_differences() {
        let read = from_wire(whole()).unwrap();
        assert_eq!(read.timestamp_ms, 7);
        assert_eq!(read.histogram.positive_buckets, [4.0, 2.0, 3.0]);
        assert_eq!((read.histogram.count, read.histogram.zero_count), (10.0, 1.0));
    }

    #[test]
    fn float_counts_are_taken_as_they_are() {
        let read = from_wire(wire::Histogram {
            count: Some(wire::histogram::Count::CountFloat(2.5)),
            positive_spans: vec![wire::BucketSpan { offset: 0, length: 1 }],
            positive_counts: vec![2.5],
            reset_hint: 3,
            ..wire::Histogram::default()
        });
        let histogram = read.unwrap().histogram;
        assert_eq!(histogram.positive_buckets, [2.5]);
        assert_eq!(histogram.counter_reset_hint, CounterResetHint::Gauge);
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_prometheus_words() {
        check(|h| h.schema = 9, "unknown histogram schema 9");
        check(|h| h.positive_spans[1].offset = -1, "span number 2 with offset -1");
        check(|h| h.positive_spans[1].length = 9, "spans need 11 buckets, have 3 buckets");
        check(|h| h.positive_deltas[1] = -5, "bucket number 2 has observation count of -1");
        check(|h| h.count = Some(wire::histogram::Count::CountInt(9)), "10 observations found in buckets");
        check(|h| h.custom_values = vec![1.0], "custom bounds");
        check(|h| h.positive_deltas = vec![0; HISTOGRAM_BUCKETS_MAX + 1], "at most");
        check(|h| h.schema = CUSTOM_BUCKETS_SCHEMA, "custom buckets");
    }

    #[test]
    fn a_stale_marker_needs_no_sense() {
        let stale = wire::Histogram { sum: pharos_common::sample::STALE_NAN, schema: 99, ..whole() };
        assert!(from_wire(stale).unwrap().histogram.is_stale());
    }
}
