//! Quantiles of plain values.

/// The value below which a share of the values lies, interpolated between neighbours. Puts the values into another
/// order.
pub(crate) fn quantile(share: f64, values: &mut [f64]) -> f64 {
    let count = values.len();
    let Some(Rank { lower, upper, weight }) = Rank::of(share, count) else { return outside(share, count) };
    let (_, &mut below, rest) = values.select_nth_unstable_by(lower, |a, b| nan_first(*a, *b));
    let above = if upper > lower {
        rest.iter().copied().min_by(|a, b| nan_first(*a, *b)).unwrap_or(f64::NAN)
    } else {
        below
    };
    below * (1.0 - weight) + above * weight
}

/// The same of values as [`order`] numbers them, which compare much faster.
pub(crate) fn of_numbers(share: f64, numbers: &mut [i64]) -> f64 {
    let count = numbers.len();
    let Some(Rank { lower, upper, weight }) = Rank::of(share, count) else { return outside(share, count) };
    let (_, &mut below, rest) = numbers.select_nth_unstable(lower);
    let above = if upper > lower { rest.iter().copied().min().unwrap_or(below) } else { below };
    value_of(below) * (1.0 - weight) + value_of(above) * weight
}

/// A number that orders as the value does, by its bits; the same for each NaN, which comes first.
#[inline]
pub(crate) fn order(value: f64) -> i64 {
    if value.is_nan() {
        return i64::MIN;
    }
    let bits = value.to_bits() as i64;
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// The value that [`order`] came from.
#[inline]
pub(crate) fn value_of(number: i64) -> f64 {
    if number == i64::MIN {
        return f64::NAN;
    }
    f64::from_bits((number ^ ((number >> 63) as u64 >> 1) as i64) as u64)
}

/// The same of `count` values that are sorted already, NaN first.
pub(crate) fn of_sorted(share: f64, count: usize, value: impl Fn(usize) -> f64) -> f64 {
    let Some(Rank { lower, upper, weight }) = Rank::of(share, count) else { return outside(share, count) };
    value(lower) * (1.0 - weight) + value(upper) * weight
}

/// Between which sorted values a quantile lies.
struct Rank {
    lower: usize,
    upper: usize,
    /// Of the upper one.
    weight: f64,
}

impl Rank {
    /// `None` if there are no values, or the share is none.
    fn of(share: f64, count: usize) -> Option<Rank> {
        if count == 0 || !(0.0..=1.0).contains(&share) {
            return None;
        }
        let count = count as f64;
        let rank = share * (count - 1.0);
        let lower = rank.floor().max(0.0);
        let upper = (lower + 1.0).min(count - 1.0);
        Some(Rank { lower: lower as usize, upper: upper as usize, weight: rank - rank.floor() })
    }
}

/// The quantile where there is no rank.
fn outside(share: f64, count: usize) -> f64 {
    if count == 0 || share.is_nan() {
        f64::NAN
    } else if share < 0.0 {
        f64::NEG_INFINITY
    } else {
        f64::INFINITY
    }
}

/// Rising order with NaN before all numbers, as Prometheus' heaps have it.
pub(crate) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
        (false, false) => a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal),
    }
}

/// The remark for a share that is none, or nothing.
pub(crate) fn invalid(share: f64) -> Option<String> {
    if (0.0..=1.0).contains(&share) {
        return None;
    }
    let shown = crate::number::format_general(share);
    Some(format!("quantile value should be between 0 and 1, got {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn quantiles_are_those_of_sorted_values(
            mut values in prop::collection::vec(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -3.0..3.0f64,
                (-2i8..2).prop_map(f64::from)], 1..40),
            share in prop_oneof![0.0..=1.0f64, Just(0.0), Just(0.5), Just(1.0)],
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(|a, b| nan_first(*a, *b));
            let rank = share * (sorted.len() as f64 - 1.0);
            let weight = rank - rank.floor();
            let above = sorted[(rank.floor() as usize + 1).min(sorted.len() - 1)];
            let want = sorted[rank.floor() as usize] * (1.0 - weight) + above * weight;
            let mut numbers: Vec<i64> = values.iter().map(|&value| order(value)).collect();
            let come_back = numbers.iter().zip(&values).all(|(&number, &value)| {
                value.is_nan() && value_of(number).is_nan() || value_of(number).to_bits() == value.to_bits()
            });
            prop_assert!(come_back);
            let by_numbers = of_numbers(share, &mut numbers);
            let found = quantile(share, &mut values);
            prop_assert!(by_numbers == want || (by_numbers.is_nan() && want.is_nan()), "{by_numbers} {want}");
            prop_assert!(found == want || (found.is_nan() && want.is_nan()), "{found} {want}");
        }
    }
}
