//! Whether values are what a script says, up to rounding.

use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use pharos_common::sample::is_stale_nan;

/// Relative difference that counts as rounding.
const EPSILON: f64 = 0.000_001;

pub(crate) fn floats_match(wanted: f64, found: f64) -> bool {
    if is_stale_nan(wanted) || is_stale_nan(found) {
        return is_stale_nan(wanted) && is_stale_nan(found);
    }
    if wanted.is_nan() && found.is_nan() || wanted == found {
        return true;
    }
    let difference = (wanted - found).abs();
    let magnitude = wanted.abs() + found.abs();
    if wanted == 0.0 || found == 0.0 || magnitude < f64::MIN_POSITIVE {
        return difference < EPSILON * f64::MIN_POSITIVE;
    }
    difference / magnitude.min(f64::MAX) < EPSILON
}

/// Compares histograms; the reset hint only where the script writes one.
pub(crate) fn histograms_match(wanted: &FloatHistogram, found: &FloatHistogram, compare_hint: bool) -> bool {
    let wanted = pharos_promql::histogram::compacted(wanted);
    let found = pharos_promql::histogram::compacted(found);
    let lists_match =
        |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| floats_match(a, b));
    (!compare_hint || hint(&wanted) == hint(&found))
        && wanted.schema == found.schema
        && floats_match(wanted.count, found.count)
        && floats_match(wanted.sum, found.sum)
        && wanted.zero_threshold == found.zero_threshold
        && floats_match(wanted.zero_count, found.zero_count)
        && lists_match(&wanted.custom_values, &found.custom_values)
        && wanted.positive_spans == found.positive_spans
        && wanted.negative_spans == found.negative_spans
        && lists_match(&wanted.positive_buckets, &found.positive_buckets)
        && lists_match(&wanted.negative_buckets, &found.negative_buckets)
}

fn hint(histogram: &FloatHistogram) -> CounterResetHint {
    histogram.counter_reset_hint
}
