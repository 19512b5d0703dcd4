//! Quantiles and fractions of native histograms.

use super::buckets::{Bucket, buckets};
use crate::annotations::{Annotations, Place, for_metric};
use pharos_common::histogram::FloatHistogram;

/// Where remarks on a histogram go.
pub(crate) struct Remarks<'r> {
    pub(crate) name: &'r str,
    pub(crate) place: &'r Place,
    pub(crate) annotations: &'r mut Annotations,
}

impl Remarks<'_> {
    fn info(&mut self, text: &str) {
        self.annotations.info(&format!("{text}{}", for_metric(self.name)), self.place);
    }
}

/// The value below which a share of the observations lies.
///
/// Observations that are NaN count but are in no bucket, as if they were above all others.
pub(crate) fn quantile(share: f64, histogram: &FloatHistogram, mut remarks: Remarks<'_>) -> f64 {
    if share < 0.0 {
        return f64::NEG_INFINITY;
    }
    if share > 1.0 {
        return f64::INFINITY;
    }
    if histogram.count == 0.0 || share.is_nan() {
        return f64::NAN;
    }
    let all = buckets(histogram);
    let has_nan = histogram.sum.is_nan();
    // The nearer end is searched from, so that less rounding adds up.
    let forward = has_nan || share < 0.5;
    let mut rank = if forward { share * histogram.count } else { (1.0 - share) * histogram.count };
    let mut count = 0.0;
    let mut found: Option<Bucket> = None;
    let step = |found: &mut Option<Bucket>, count: &mut f64, bucket: &Bucket| {
        if bucket.count == 0.0 {
            return false;
        }
        *found = Some(*bucket);
        *count += bucket.count;
        *count >= rank
    };
    if forward {
        let _ = all.iter().any(|bucket| step(&mut found, &mut count, bucket));
    } else {
        let _ = all.iter().rev().any(|bucket| step(&mut found, &mut count, bucket));
    }
    let Some(mut bucket) = found else {
        if has_nan && rank > 0.0 {
            remarks.info("input to histogram_quantile has NaN observations, result is NaN");
        }
        return f64::NAN;
    };
    let custom = histogram.uses_custom_buckets();
    if custom {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return bucket.upper;
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return bucket.lower;
        }
    } else {
        narrow_zero(histogram, &mut bucket);
    }
    count = count.min(histogram.count);
    if count < rank {
        if has_nan {
            remarks.info("input to histogram_quantile has NaN observations, result is NaN");
            return f64::NAN;
        }
        return bucket.upper;
    }
    if has_nan && all.iter().map(|bucket| bucket.count).sum::<f64>() < histogram.count {
        remarks.info("input to histogram_quantile has NaN observations, result is skewed higher");
    }
    if forward {
        rank -= count - bucket.count;
    } else {
        rank = count - rank;
    }
    let fraction = rank / bucket.count;
    if custom || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
        return bucket.lower + (bucket.upper - bucket.lower) * fraction;
    }
    let (log_lower, log_upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (log_lower + (log_upper - log_lower) * fraction).exp2()
    } else {
        -(log_upper + (log_lower - log_upper) * (1.0 - fraction)).exp2()
    }
}

/// The zero bucket of a histogram with observations on one side of zero only ends at zero.
fn narrow_zero(histogram: &FloatHistogram, bucket: &mut Bucket) {
    if bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        let (negative, positive) =
            (!histogram.negative_buckets.is_empty(), !histogram.positive_buckets.is_empty());
        if positive && !negative {
            bucket.lower = 0.0;
        } else if negative && !positive {
            bucket.upper = 0.0;
        }
    }
}

/// The share of the observations between two values.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &FloatHistogram, mut remarks: Remarks<'_>) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    let all = buckets(histogram);
    let in_buckets: f64 = all.iter().map(|bucket| bucket.count).sum();
    if histogram.sum.is_nan() && in_buckets < histogram.count {
        remarks
            .info("input to histogram_fraction has NaN observations, which are excluded from all fractions");
    }
    if lower >= upper {
        return 0.0;
    }
    let total = if histogram.sum.is_nan() { in_buckets } else { histogram.count };
    let (mut lower_rank, mut upper_rank) = (None, None);
    let mut rank = 0.0;
    for mut bucket in all {
        let is_zero = bucket.lower <= 0.0 && bucket.upper >= 0.0;
        narrow_zero(histogram, &mut bucket);
        for (bound, bound_rank) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if bound_rank.is_some() {
                continue;
            }
            if bucket.lower >= bound {
                *bound_rank = Some(rank);
            } else if bucket.upper > bound {
                let linear = histogram.uses_custom_buckets() || is_zero;
                *bound_rank = Some(rank + bucket.count * share_below(&bucket, bound, linear));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank += bucket.count;
    }
    let within = |rank: Option<f64>| rank.filter(|&rank| rank <= total).unwrap_or(total);
    (within(upper_rank) - within(lower_rank)) / histogram.count
}

/// The share of a bucket's observations below a value inside it.
pub(super) fn share_below(bucket: &Bucket, value: f64, linear: bool) -> f64 {
    if linear {
        if bucket.lower == f64::NEG_INFINITY {
            // Nothing is known of where the observations lie; they count as below.
            return 1.0;
        }
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (log_lower, log_upper) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    let log_value = value.abs().log2();
    if value > 0.0 {
        (log_value - log_lower) / (log_upper - log_lower)
    } else {
        1.0 - (log_value - log_upper) / (log_lower - log_upper)
    }
}
