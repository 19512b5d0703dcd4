//! Largest and smallest values of windows, in time linear in samples and steps.

use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::Meter;
use std::collections::VecDeque;
use std::ops::Range;

/// For each window, what `result` says of the sample that wins: the first one, replaced by each later
/// one that `beats` it. NaN never beats and is always beaten.
///
/// The queue holds the samples that could still win once those before them have left: each entry beats
/// none of those before it.
pub(super) fn extremes(
    values: &[f64],
    bounds: &[Range<usize>],
    beats: impl Fn(f64, f64) -> bool,
    result: impl Fn(usize) -> f64,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    let mut queue: VecDeque<usize> = VecDeque::new();
    let mut next = 0;
    for (step, range) in bounds.iter().enumerate() {
        meter.visit(1 + range.end.saturating_sub(next))?;
        if range.start > next {
            queue.clear();
            next = range.start;
        }
        while next < range.end {
            let value = values[next];
            if !value.is_nan() {
                while queue.back().is_some_and(|&back| beats(value, values[back])) {
                    queue.pop_back();
                }
                queue.push_back(next);
            }
            next += 1;
        }
        while queue.front().is_some_and(|&front| front < range.start) {
            queue.pop_front();
        }
        if !range.is_empty() {
            // All NaN: each sample replaces the one before, as none can be compared.
            let winner = queue.front().copied().unwrap_or(range.end - 1);
            column.push_float(step, result(winner));
        }
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Budget;
    use proptest::prelude::*;

    fn naive(values: &[f64], beats: impl Fn(f64, f64) -> bool) -> usize {
        let mut winner = 0;
        for (index, &value) in values.iter().enumerate() {
            if beats(value, values[winner]) || values[winner].is_nan() {
                winner = index;
            }
        }
        winner
    }

    proptest! {
        #[test]
        fn moving_windows_find_what_a_search_of_each_finds(
            values in prop::collection::vec(prop_oneof![Just(f64::NAN), Just(0.0), Just(-0.0), -3.0..3.0f64,
                (-2i8..2).prop_map(f64::from)], 1..40),
            length in 1usize..8, stride in 1usize..4,
        ) {
            let bounds: Vec<_> = (0..values.len()).step_by(stride)
                .map(|end| (end + 1).saturating_sub(length)..end + 1).collect();
            let rules: [fn(f64, f64) -> bool; 4] = [|a, b| a > b, |a, b| a < b, |a, b| a >= b, |a, b| a <= b];
            for beats in rules {
                let budget = Budget::new(usize::MAX, None, Default::default());
                let column =
                    extremes(&values, &bounds, beats, |index| index as f64, &Meter::new(&budget)).unwrap();
                for (step, range) in bounds.iter().enumerate() {
                    let want = range.start + naive(&values[range.clone()], beats);
                    prop_assert_eq!(column.float(step), want as f64);
                }
            }
        }
    }
}
