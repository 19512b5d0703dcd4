//! `</` and `>/`: a histogram without its observations above or below a value.

use super::buckets::{Bucket, compacted, negative, positive, zero};
use super::quantile::share_below;
use pharos_common::histogram::FloatHistogram;

/// Which observations go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    /// Those above the value (`</`).
    Above,
    /// Those below the value (`>/`).
    Below,
}

/// Drops observations on one side of a value. Within a bucket they are taken to be spread evenly, and a
/// bucket without end that the value lies in goes whole.
pub(super) fn trimmed(histogram: &FloatHistogram, value: f64, drop: Drop) -> FloatHistogram {
    let mut out = histogram.clone();
    let custom = histogram.uses_custom_buckets();
    let mut kept = 0.0;
    let mut dropped_sum = 0.0;
    let (mut has_positive, mut has_negative) = (false, false);
    for (index, bucket) in positive(histogram).enumerate() {
        if bucket.count == 0.0 {
            continue;
        }
        has_positive |= !custom || bucket.upper > 0.0;
        has_negative |= custom && (bucket.upper <= 0.0 || bucket.lower < 0.0);
        let part = split(&bucket, value, drop, custom);
        kept += part.kept;
        dropped_sum += (bucket.count - part.kept) * part.dropped_middle;
        out.positive_buckets[index] = part.kept;
    }
    for (index, bucket) in negative(histogram).enumerate() {
        if bucket.count == 0.0 {
            continue;
        }
        has_negative = true;
        let part = split(&bucket, value, drop, false);
        kept += part.kept;
        dropped_sum += (bucket.count - part.kept) * part.dropped_middle;
        out.negative_buckets[index] = part.kept;
    }
    if histogram.zero_count > 0.0 {
        let bucket = zero(histogram);
        let below = below(&bucket, value, true);
        out.zero_count = if drop == Drop::Above { below } else { bucket.count - below };
        kept += out.zero_count;
    }
    out.count = kept;
    out.sum = 0.0;
    if kept != 0.0 {
        out.sum = histogram.sum - dropped_sum;
        let impossible = (!has_negative && out.sum < 0.0) || (!has_positive && out.sum > 0.0);
        if impossible {
            out.sum = 0.0;
        }
    }
    compacted(&out)
}

struct Part {
    kept: f64,
    /// What the dropped observations are taken to be on average.
    dropped_middle: f64,
}

/// Observations of a bucket at or below a value.
fn below(bucket: &Bucket, value: f64, linear: bool) -> f64 {
    if value <= bucket.lower {
        0.0
    } else if value >= bucket.upper {
        bucket.count
    } else {
        bucket.count * share_below(bucket, value, linear)
    }
}

fn split(bucket: &Bucket, value: f64, drop: Drop, linear: bool) -> Part {
    let whole = match drop {
        Drop::Above => bucket.upper <= value,
        Drop::Below => bucket.lower >= value,
    };
    if whole {
        return Part { kept: bucket.count, dropped_middle: 0.0 };
    }
    if bucket.lower == f64::NEG_INFINITY || bucket.upper == f64::INFINITY {
        return split_endless(bucket, value, drop);
    }
    let outside = match drop {
        Drop::Above => bucket.lower >= value,
        Drop::Below => bucket.upper <= value,
    };
    if outside {
        // Prometheus takes the middle of a whole exponential bucket without its sign.
        let middle = middle(bucket.lower, bucket.upper, linear);
        return Part { kept: 0.0, dropped_middle: if linear { middle } else { middle.abs() } };
    }
    let below = below(bucket, value, linear);
    match drop {
        // The middle of a custom bucket stands for its part, too.
        Drop::Above if linear => Part { kept: below, dropped_middle: (bucket.lower + bucket.upper) / 2.0 },
        Drop::Below if linear => {
            Part { kept: bucket.count - below, dropped_middle: (bucket.lower + bucket.upper) / 2.0 }
        }
        Drop::Above => Part { kept: below, dropped_middle: middle(bucket.lower, value, false) },
        Drop::Below => {
            Part { kept: bucket.count - below, dropped_middle: middle(value, bucket.upper, false) }
        }
    }
}

/// The middle between two bounds on the same side of zero.
fn middle(lower: f64, upper: f64, linear: bool) -> f64 {
    if linear {
        return (lower + upper) / 2.0;
    }
    (lower.abs() * upper.abs()).sqrt().copysign(upper + lower)
}

/// A bucket without lower or upper end: only from zero to a positive bound is anything known.
fn split_endless(bucket: &Bucket, value: f64, drop: Drop) -> Part {
    let from_zero = bucket.lower == f64::NEG_INFINITY && bucket.upper.is_finite();
    if from_zero && value >= 0.0 && value < bucket.upper {
        let share = value / bucket.upper;
        return match drop {
            Drop::Above => Part { kept: bucket.count * share, dropped_middle: (value + bucket.upper) / 2.0 },
            Drop::Below => Part { kept: bucket.count * (1.0 - share), dropped_middle: value / 2.0 },
        };
    }
    let end = if bucket.lower == f64::NEG_INFINITY { bucket.upper } else { bucket.lower };
    Part { kept: 0.0, dropped_middle: end }
}
