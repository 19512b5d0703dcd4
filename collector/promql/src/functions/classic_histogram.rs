//! Quantiles and fractions of classic histograms: cumulative counts under upper bounds.

/// A bucket: observations up to a bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// What had to be mended in a histogram's buckets: counts fell although they are cumulative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mended {
    /// Upper bounds of the first and last bucket raised.
    pub(crate) first: f64,
    pub(crate) last: f64,
    /// The most that a count was raised by.
    pub(crate) most: f64,
}

/// Largest relative difference of counts that is a matter of rounding.
const ROUNDING: f64 = 1e-12;

/// The value below which a share of the observations lies, and what had to be mended to find it.
pub(crate) fn quantile(share: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Mended>) {
    if share.is_nan() {
        return (f64::NAN, None);
    }
    if share < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if share > 1.0 {
        return (f64::INFINITY, None);
    }
    sort(buckets);
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    coalesce(buckets);
    let mended = mend(buckets);
    let [.., second_last, last] = buckets.as_slice() else { return (f64::NAN, None) };
    if last.count == 0.0 {
        return (f64::NAN, None);
    }
    let mut rank = share * last.count;
    let finite = buckets.len() - 1;
    let index = buckets[..finite].iter().position(|bucket| bucket.count >= rank).unwrap_or(finite);
    if index == finite {
        return (second_last.upper, mended);
    }
    let bucket = buckets[index];
    let Some(below) = index.checked_sub(1).and_then(|below| buckets.get(below)) else {
        if bucket.upper <= 0.0 {
            return (bucket.upper, mended);
        }
        return (bucket.upper * (rank / bucket.count), mended);
    };
    rank -= below.count;
    let count = bucket.count - below.count;
    (below.upper + (bucket.upper - below.upper) * (rank / count), mended)
}

/// The share of the observations between two values.
pub(crate) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    sort(buckets);
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return f64::NAN;
    }
    coalesce(buckets);
    let Some(total) = buckets.last().map(|last| last.count) else { return f64::NAN };
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    // Observations of histograms with only positive bounds are taken to be positive.
    let mut bucket_lower =
        if buckets.first().is_some_and(|first| first.upper <= 0.0) { f64::NEG_INFINITY } else { 0.0 };
    let mut rank = 0.0;
    let (mut lower_rank, mut upper_rank) = (None, None);
    for (index, bucket) in buckets.iter().enumerate() {
        if let Some(below) = index.checked_sub(1).and_then(|below| buckets.get(below)) {
            bucket_lower = below.upper;
        }
        let bucket_upper = bucket.upper;
        let interpolate = |value: f64| {
            rank + (bucket.count - rank) * (value - bucket_lower) / (bucket_upper - bucket_lower)
        };
        for (bound, bound_rank) in [(lower, &mut lower_rank), (upper, &mut upper_rank)] {
            if bound_rank.is_some() {
                continue;
            }
            if bucket_lower >= bound {
                *bound_rank = Some(rank);
            } else if bucket_lower < bound && bucket_upper > bound {
                *bound_rank = Some(interpolate(bound));
            }
        }
        if lower_rank.is_some() && upper_rank.is_some() {
            break;
        }
        rank = bucket.count;
    }
    let within = |rank: Option<f64>| rank.filter(|&rank| rank <= total).unwrap_or(total);
    (within(upper_rank) - within(lower_rank)) / total
}

fn sort(buckets: &mut [Bucket]) {
    buckets.sort_by(|a, b| a.upper.partial_cmp(&b.upper).unwrap_or(std::cmp::Ordering::Equal));
}

/// Adds up buckets with one bound.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|new, kept| {
        let same = new.upper == kept.upper;
        if same {
            kept.count += new.count;
        }
        same
    });
}

/// Makes counts rise: small falls are rounding and are smoothed away, others are remarked upon.
fn mend(buckets: &mut [Bucket]) -> Option<Mended> {
    let mut mended: Option<Mended> = None;
    let mut before = buckets.first()?.count;
    for bucket in buckets.iter_mut().skip(1) {
        let count = bucket.count;
        if count == before {
            continue;
        }
        if almost_equal(before, count) {
            bucket.count = before;
            continue;
        }
        if count < before {
            let raised = before - count;
            bucket.count = before;
            mended = Some(match mended {
                None => Mended { first: bucket.upper, last: bucket.upper, most: raised },
                Some(earlier) => Mended { last: bucket.upper, most: earlier.most.max(raised), ..earlier },
            });
            continue;
        }
        before = count;
    }
    mended
}

/// Equal but for rounding, relative to their size.
fn almost_equal(a: f64, b: f64) -> bool {
    if a.is_nan() && b.is_nan() || a == b {
        return true;
    }
    let difference = (a - b).abs();
    let magnitude = a.abs() + b.abs();
    if a == 0.0 || b == 0.0 || magnitude < f64::MIN_POSITIVE {
        return difference < ROUNDING * f64::MIN_POSITIVE;
    }
    difference / magnitude.min(f64::MAX) < ROUNDING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|&(upper, count)| Bucket { upper, count }).collect()
    }

    #[test]
    fn quantiles_are_interpolated_within_buckets() {
        let histogram = [(0.1, 50.0), (0.2, 100.0), (f64::INFINITY, 100.0)];
        let check = |share: f64, want: f64| {
            let (found, mended) = quantile(share, &mut buckets(&histogram));
            assert!((found - want).abs() < 1e-12 && mended.is_none(), "{share}: {found}");
        };
        check(0.25, 0.05);
        check(0.75, 0.15);
        check(1.0, 0.2);
        assert!(quantile(0.5, &mut buckets(&histogram[..2])).0.is_nan());
    }

    #[test]
    fn falling_counts_are_mended_and_remarked_upon() {
        let mut falling = buckets(&[(1.0, 10.0), (2.0, 8.0), (f64::INFINITY, 12.0)]);
        let (_, mended) = quantile(0.5, &mut falling);
        assert_eq!(mended, Some(Mended { first: 2.0, last: 2.0, most: 2.0 }));
    }
}
