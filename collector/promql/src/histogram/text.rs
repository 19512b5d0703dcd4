//! Histograms as text.

use super::buckets::buckets;
use crate::number::format_general;
use pharos_common::histogram::FloatHistogram;

/// A histogram as Prometheus prints it, e.g. `{count:3, sum:4, (1,2]:3}`.
pub(crate) fn to_text(histogram: &FloatHistogram) -> String {
    let mut text =
        format!("{{count:{}, sum:{}", format_general(histogram.count), format_general(histogram.sum));
    for bucket in buckets(histogram) {
        if bucket.count == 0.0 {
            continue;
        }
        text += &format!(
            ", {}{},{}{}:{}",
            if bucket.lower_inclusive { '[' } else { '(' },
            format_general(bucket.lower),
            format_general(bucket.upper),
            if bucket.upper_inclusive { ']' } else { ')' },
            format_general(bucket.count),
        );
    }
    text.push('}');
    text
}
