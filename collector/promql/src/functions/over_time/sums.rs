//! Sums, means and variances over windows.
//!
//! Prometheus adds with Neumaier's compensation, whose last bits depend on the order of terms, so a
//! window's sum cannot in general be had from its neighbour's. But where every partial sum is exact (all
//! values are integers and none too large, as counters and sizes are) the compensation is zero, and sums
//! are differences of prefix sums.

use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::Meter;
use crate::functions::math::add_compensated;
use std::ops::Range;

/// Integers below this are exact in a float, and so are sums below it.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Windows must overlap at least this often for prefix sums to pay.
const OVERLAP_MIN: usize = 3;

pub(super) fn sum(values: &[f64], bounds: &[Range<usize>], meter: &Meter<'_>) -> Result<Column, QueryError> {
    match prefix_sums(values, bounds) {
        Some(prefix) => fill(bounds, meter, |range| Ok(exact_sum(&prefix, range))),
        None => fill(bounds, meter, |range| compensated_sum(&values[range], meter)),
    }
}

pub(super) fn average(
    values: &[f64],
    bounds: &[Range<usize>],
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    match prefix_sums(values, bounds) {
        Some(prefix) => fill(bounds, meter, |range| {
            let count = range.len() as f64;
            Ok(exact_sum(&prefix, range) / count)
        }),
        None => fill(bounds, meter, |range| compensated_average(&values[range], meter)),
    }
}

fn fill(
    bounds: &[Range<usize>],
    meter: &Meter<'_>,
    value: impl Fn(Range<usize>) -> Result<f64, QueryError>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    for (step, range) in bounds.iter().enumerate() {
        meter.visit(1)?;
        if !range.is_empty() {
            column.push_float(step, value(range.clone())?);
        }
    }
    Ok(column)
}

/// Sums of all values before each index, if windows overlap much and every sum is exact.
fn prefix_sums(values: &[f64], bounds: &[Range<usize>]) -> Option<Vec<i64>> {
    let read: usize = bounds.iter().map(ExactSizeIterator::len).sum();
    if read < OVERLAP_MIN * values.len() {
        return None;
    }
    let mut magnitude = 0.0;
    let mut total = 0i64;
    let mut prefix = Vec::with_capacity(values.len() + 1);
    prefix.push(0);
    for &value in values {
        let integer = value as i64;
        magnitude += value.abs();
        // A negative zero is left out since integers have none.
        if integer as f64 != value || magnitude >= EXACT_MAX || (value == 0.0 && value.is_sign_negative()) {
            return None;
        }
        total += integer;
        prefix.push(total);
    }
    Some(prefix)
}

fn exact_sum(prefix: &[i64], range: Range<usize>) -> f64 {
    (prefix[range.end] - prefix[range.start]) as f64
}

/// The sum of values and what rounding took from it, without a branch per value.
///
/// What an addition loses is itself a float, and both this way of finding it (Knuth's) and the branching
/// one (Neumaier's) find it exactly, so the bits are the same. `None` where the sum overflows.
fn branchless_sum(values: &[f64], meter: &Meter<'_>) -> Result<Option<(f64, f64)>, QueryError> {
    let (mut sum, mut compensation) = (0.0f64, 0.0f64);
    for piece in meter.pieces(values) {
        for &value in piece? {
            let total = sum + value;
            let added = total - sum;
            compensation += (sum - (total - added)) + (value - added);
            sum = total;
        }
    }
    Ok((sum.is_finite() && compensation.is_finite()).then_some((sum, compensation)))
}

pub(super) fn compensated_sum(values: &[f64], meter: &Meter<'_>) -> Result<f64, QueryError> {
    if let Some((sum, compensation)) = branchless_sum(values, meter)? {
        return Ok(sum + compensation);
    }
    let (mut sum, mut compensation) = (0.0, 0.0);
    for piece in meter.pieces(values) {
        for &value in piece? {
            add_compensated(value, &mut sum, &mut compensation);
        }
    }
    Ok(if sum.is_infinite() { sum } else { sum + compensation })
}

/// The mean: a sum divided at the end, or, from where the sum would overflow, a running mean.
pub(super) fn compensated_average(values: &[f64], meter: &Meter<'_>) -> Result<f64, QueryError> {
    if let Some((sum, compensation)) = branchless_sum(values, meter)? {
        let count = values.len() as f64;
        return Ok(sum / count + compensation / count);
    }
    let mut mean = Mean::default();
    for piece in meter.pieces(values) {
        for &value in piece? {
            mean.add(value);
        }
    }
    Ok(mean.value())
}

/// A mean under way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mean {
    /// The sum so far, or the mean once the sum would overflow.
    total: f64,
    compensation: f64,
    count: f64,
    is_running: bool,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f64) {
        self.count += 1.0;
        if self.count == 1.0 {
            self.total = value;
            return;
        }
        if !self.is_running {
            let (mut sum, mut compensation) = (self.total, self.compensation);
            add_compensated(value, &mut sum, &mut compensation);
            if !sum.is_infinite() {
                (self.total, self.compensation) = (sum, compensation);
                return;
            }
            self.is_running = true;
            self.total /= self.count - 1.0;
            self.compensation /= self.count - 1.0;
        }
        let share = (self.count - 1.0) / self.count;
        self.total *= share;
        self.compensation *= share;
        add_compensated(value / self.count, &mut self.total, &mut self.compensation);
    }

    /// Whether nothing was added yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0.0
    }

    pub(crate) fn value(&self) -> f64 {
        if self.is_running {
            self.total + self.compensation
        } else {
            self.total / self.count + self.compensation / self.count
        }
    }
}

/// The population variance.
pub(super) fn variance(values: &[f64], meter: &Meter<'_>) -> Result<f64, QueryError> {
    let mut count = 0.0;
    let (mut mean, mut mean_compensation) = (0.0, 0.0);
    let (mut squares, mut squares_compensation) = (0.0, 0.0);
    for piece in meter.pieces(values) {
        for &value in piece? {
            count += 1.0;
            let delta = value - (mean + mean_compensation);
            add_compensated(delta / count, &mut mean, &mut mean_compensation);
            let term = delta * (value - (mean + mean_compensation));
            add_compensated(term, &mut squares, &mut squares_compensation);
        }
    }
    Ok((squares + squares_compensation) / count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Budget;
    use proptest::prelude::*;

    fn metered<T>(work: impl FnOnce(&Meter<'_>) -> Result<T, QueryError>) -> T {
        work(&Meter::new(&Budget::new(usize::MAX, None, Default::default()))).unwrap()
    }

    fn windows(length: usize) -> Vec<Range<usize>> {
        (0..length).map(|end| end.saturating_sub(5)..end + 1).collect()
    }

    fn branching_sum(values: &[f64]) -> f64 {
        let (mut sum, mut compensation) = (0.0, 0.0);
        values.iter().for_each(|&value| add_compensated(value, &mut sum, &mut compensation));
        if sum.is_infinite() { sum } else { sum + compensation }
    }

    fn branching_average(values: &[f64]) -> f64 {
        let mut mean = Mean::default();
        values.iter().for_each(|&value| mean.add(value));
        mean.value()
    }

    proptest! {
        #[test]
        fn sums_without_branches_have_the_bits_of_those_with(
            values in prop::collection::vec(prop_oneof![any::<f64>(), -1e3..1e3f64, Just(-0.0), Just(1e100),
                Just(-1e100), Just(f64::MAX)], 1..30),
        ) {
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            prop_assert!(same(metered(|meter| compensated_sum(&values, meter)), branching_sum(&values)));
            prop_assert!(same(metered(|meter| compensated_average(&values, meter)), branching_average(&values)));
        }

        #[test]
        fn exact_sums_have_the_bits_of_compensated_ones(
            values in prop::collection::vec((-1_000_000i64..1_000_000).prop_map(|v| v as f64), 10..60),
        ) {
            let bounds = windows(values.len());
            prop_assert!(prefix_sums(&values, &bounds).is_some());
            let sums = metered(|meter| sum(&values, &bounds, meter));
            let means = metered(|meter| average(&values, &bounds, meter));
            for (step, range) in bounds.into_iter().enumerate() {
                let values = &values[range];
                let exact = metered(|meter| compensated_sum(values, meter));
                prop_assert_eq!(sums.float(step).to_bits(), exact.to_bits());
                let exact = metered(|meter| compensated_average(values, meter));
                prop_assert_eq!(means.float(step).to_bits(), exact.to_bits());
            }
        }
    }
}
