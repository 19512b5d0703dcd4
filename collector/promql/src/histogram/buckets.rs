//! Buckets: their indices, bounds and counts.

use pharos_common::histogram::{BucketSpan, FloatHistogram};

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Whether the lower bound belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper bound belongs to it.
    pub upper_inclusive: bool,
    /// Observations in it.
    pub count: f64,
}

/// Indices and counts that spans describe.
pub(crate) fn indexed<'h>(
    spans: &'h [BucketSpan],
    counts: &'h [f64],
) -> impl Iterator<Item = (i32, f64)> + 'h {
    let mut next = 0i32;
    spans
        .iter()
        .flat_map(move |span| {
            let start = next.wrapping_add(span.offset);
            next = start.wrapping_add(span.length as i32);
            start..next
        })
        .zip(counts.iter().copied())
}

/// Spans and counts for buckets with rising indices.
pub(crate) fn to_spans(buckets: impl IntoIterator<Item = (i32, f64)>) -> (Vec<BucketSpan>, Vec<f64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut counts = Vec::new();
    let mut next = 0;
    for (index, count) in buckets {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(BucketSpan { offset: index.wrapping_sub(next), length: 1 }),
        }
        next = index.wrapping_add(1);
        counts.push(count);
    }
    (spans, counts)
}

/// The histogram without empty buckets.
pub fn compacted(histogram: &FloatHistogram) -> FloatHistogram {
    let compact = |spans: &[BucketSpan], counts: &[f64]| {
        to_spans(indexed(spans, counts).filter(|(_, count)| *count != 0.0))
    };
    let (positive_spans, positive_buckets) = compact(&histogram.positive_spans, &histogram.positive_buckets);
    let (negative_spans, negative_buckets) = compact(&histogram.negative_spans, &histogram.negative_buckets);
    FloatHistogram {
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        custom_values: histogram.custom_values.clone(),
        ..*histogram
    }
}

/// The upper bound of an exponential bucket.
pub(crate) fn exponential_bound(index: i32, schema: i32) -> f64 {
    let bound = if schema <= 0 {
        let exponent = i64::from(index) << (-schema).min(32);
        2f64.powi(exponent.clamp(-2_000, 2_000) as i32)
    } else {
        let per_power = 1i32 << schema.min(30);
        let (whole, part) = (index.div_euclid(per_power), index.rem_euclid(per_power));
        2f64.powi(whole) * (f64::from(part) / f64::from(per_power)).exp2()
    };
    // The bucket below the one for infinite observations ends at the largest float.
    if bound.is_infinite() && exponent_is_largest(index, schema) { f64::MAX } else { bound }
}

/// Whether the bound is exactly 2^1024.
fn exponent_is_largest(index: i32, schema: i32) -> bool {
    if schema <= 0 {
        i64::from(index) << (-schema).min(32) == 1024
    } else {
        i64::from(index) == 1024i64 << schema.min(30)
    }
}

/// Bounds of a bucket above zero.
pub(crate) fn positive_bounds(histogram: &FloatHistogram, index: i32) -> (f64, f64) {
    if histogram.uses_custom_buckets() {
        let bound =
            |index: i32| usize::try_from(index).ok().and_then(|i| histogram.custom_values.get(i)).copied();
        let lower = if index <= 0 { f64::NEG_INFINITY } else { bound(index - 1).unwrap_or(f64::INFINITY) };
        return (lower, bound(index).unwrap_or(f64::INFINITY));
    }
    (exponential_bound(index.wrapping_sub(1), histogram.schema), exponential_bound(index, histogram.schema))
}

/// Buckets above zero, from the lowest.
pub(crate) fn positive(histogram: &FloatHistogram) -> impl Iterator<Item = Bucket> + '_ {
    let custom = histogram.uses_custom_buckets();
    indexed(&histogram.positive_spans, &histogram.positive_buckets).map(move |(index, count)| {
        let (lower, upper) = positive_bounds(histogram, index);
        Bucket { lower, upper, lower_inclusive: custom && index == 0, upper_inclusive: true, count }
    })
}

/// Buckets below zero, from the one next to zero.
pub(crate) fn negative(histogram: &FloatHistogram) -> impl Iterator<Item = Bucket> + '_ {
    indexed(&histogram.negative_spans, &histogram.negative_buckets).map(|(index, count)| {
        let (near, far) = positive_bounds(histogram, index);
        Bucket { lower: -far, upper: -near, lower_inclusive: true, upper_inclusive: false, count }
    })
}

/// The bucket around zero.
pub(crate) fn zero(histogram: &FloatHistogram) -> Bucket {
    Bucket {
        lower: -histogram.zero_threshold,
        upper: histogram.zero_threshold,
        lower_inclusive: true,
        upper_inclusive: true,
        count: histogram.zero_count,
    }
}

/// All buckets from the lowest to the highest, the zero bucket if it holds anything.
pub fn buckets(histogram: &FloatHistogram) -> Vec<Bucket> {
    let mut all: Vec<Bucket> = negative(histogram).collect();
    all.reverse();
    if histogram.zero_count > 0.0 {
        all.push(zero(histogram));
    }
    all.extend(positive(histogram));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_powers_of_the_base() {
        assert_eq!(exponential_bound(0, 0), 1.0);
        assert_eq!(exponential_bound(3, 0), 8.0);
        assert_eq!(exponential_bound(1, 1), std::f64::consts::SQRT_2);
        assert_eq!(exponential_bound(-1, -1), 0.25);
        assert_eq!(exponential_bound(1024, 0), f64::MAX);
        assert_eq!(exponential_bound(1025, 0), f64::INFINITY);
    }

    #[test]
    fn spans_round_trip() {
        let buckets = [(-2, 1.0), (-1, 2.0), (3, 4.0)];
        let (spans, counts) = to_spans(buckets);
        assert_eq!(spans.len(), 2);
        assert_eq!(indexed(&spans, &counts).collect::<Vec<_>>(), buckets);
    }
}
