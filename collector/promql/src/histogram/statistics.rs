//! Single numbers of a histogram.

use super::buckets::buckets;
use crate::functions::HistogramStat;
use crate::functions::math::add_compensated;
use pharos_common::histogram::FloatHistogram;

/// A number that a histogram has.
pub(crate) fn statistic(stat: HistogramStat, histogram: &FloatHistogram) -> f64 {
    match stat {
        HistogramStat::Count => histogram.count,
        HistogramStat::Sum => histogram.sum,
        HistogramStat::Avg => histogram.sum / histogram.count,
        HistogramStat::Stdvar => variance(histogram),
        HistogramStat::Stddev => variance(histogram).sqrt(),
    }
}

/// The variance, estimated with every observation in the middle of its bucket.
fn variance(histogram: &FloatHistogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let (mut sum, mut compensation) = (0.0, 0.0);
    for bucket in buckets(histogram) {
        if bucket.count == 0.0 {
            continue;
        }
        let middle = if histogram.uses_custom_buckets() {
            (bucket.upper + bucket.lower) / 2.0
        } else if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
            0.0
        } else {
            // Exponential buckets have their middle at the geometric mean.
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let delta = middle - mean;
        add_compensated(bucket.count * delta * delta, &mut sum, &mut compensation);
    }
    (sum + compensation) / histogram.count
}
