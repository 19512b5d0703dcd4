//! Native histograms: their buckets, their arithmetic, and what can be read from them.
//!
//! The type itself ([`FloatHistogram`]) is shared with the storage; here is what queries do with it.

mod accumulate;
mod buckets;
mod operate;
mod quantile;
mod reset;
mod statistics;
mod text;
mod trim;

pub(crate) use accumulate::Accumulator;
pub use buckets::{Bucket, buckets, compacted};
pub(crate) use operate::{Blend, blend, blend_plain, operate, remark};
pub(crate) use quantile::{Remarks, fraction, quantile};
pub use reset::is_reset;
pub(crate) use statistics::statistic;
pub(crate) use text::to_text;

use crate::storage::HistogramSample;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use std::sync::Arc;

/// `a + sign * b`, or `None` if their buckets do not fit together.
pub fn sum(a: &FloatHistogram, b: &FloatHistogram, sign: f64) -> Option<FloatHistogram> {
    let mut accumulator = Accumulator::new(a);
    accumulator.add(b, sign).ok()?;
    Some(accumulator.finish())
}

/// A histogram with all counts and the sum multiplied. A negative factor makes a gauge.
pub(crate) fn scaled(histogram: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut scaled = histogram.clone();
    scale(&mut scaled, factor);
    scaled
}

/// Multiplies all counts and the sum.
pub(crate) fn scale(histogram: &mut FloatHistogram, factor: f64) {
    histogram.zero_count *= factor;
    histogram.count *= factor;
    histogram.sum *= factor;
    for count in histogram.positive_buckets.iter_mut().chain(&mut histogram.negative_buckets) {
        *count *= factor;
    }
    if factor < 0.0 {
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Divides all counts and the sum. Dividing by zero leaves no buckets.
pub(crate) fn divide(histogram: &mut FloatHistogram, divisor: f64) {
    histogram.zero_count /= divisor;
    histogram.count /= divisor;
    histogram.sum /= divisor;
    if divisor == 0.0 {
        histogram.positive_buckets.clear();
        histogram.negative_buckets.clear();
        histogram.positive_spans.clear();
        histogram.negative_spans.clear();
    }
    for count in histogram.positive_buckets.iter_mut().chain(&mut histogram.negative_buckets) {
        *count /= divisor;
    }
    if divisor < 0.0 {
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Whether two histograms hold the same observations in the same buckets, bit for bit.
pub(crate) fn equal(a: &FloatHistogram, b: &FloatHistogram) -> bool {
    let (a, b) = (compacted(a), compacted(b));
    let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
    let same_lists = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| same(a, b));
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && same(a.zero_threshold, b.zero_threshold)
        && same(a.zero_count, b.zero_count)
        && same_lists(&a.custom_values, &b.custom_values)
        && a.positive_spans == b.positive_spans
        && a.negative_spans == b.negative_spans
        && same_lists(&a.positive_buckets, &b.positive_buckets)
        && same_lists(&a.negative_buckets, &b.negative_buckets)
}

/// Says of each histogram but the first whether it was reset, where it does not say itself.
pub(crate) fn find_resets(histograms: &mut [HistogramSample]) {
    for index in (1..histograms.len()).rev() {
        let (before, now) = histograms.split_at_mut(index);
        let (Some(before), Some(now)) = (before.last(), now.first_mut()) else { continue };
        if now.histogram.counter_reset_hint != CounterResetHint::Unknown
            || now.histogram.is_stale()
            || before.histogram.is_stale()
        {
            continue;
        }
        let reset = is_reset(&now.histogram, &before.histogram);
        let mut histogram = FloatHistogram::clone(&now.histogram);
        histogram.counter_reset_hint =
            if reset { CounterResetHint::Reset } else { CounterResetHint::NotReset };
        now.histogram = Arc::new(histogram);
    }
}

/// Takes back what histograms say about resets: a subquery may leave out or repeat samples.
pub(crate) fn forget_resets(histograms: &mut [HistogramSample]) {
    for sample in histograms {
        if matches!(sample.histogram.counter_reset_hint, CounterResetHint::Reset | CounterResetHint::NotReset)
        {
            let mut histogram = FloatHistogram::clone(&sample.histogram);
            histogram.counter_reset_hint = CounterResetHint::Unknown;
            sample.histogram = Arc::new(histogram);
        }
    }
}
