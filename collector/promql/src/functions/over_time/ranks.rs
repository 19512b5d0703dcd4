//! Quantiles of windows that move along.
//!
//! Where neighbouring windows share most of their samples the samples of a window are kept sorted: those that
//! leave are taken out and those that come are put in. Elsewhere each window's rank is searched for by itself.

use super::floats::SELECTION_VISITS;
use crate::error::QueryError;
use crate::eval::meter::Meter;
use crate::functions::quantile::{of_numbers, of_sorted, order, value_of};
use std::ops::Range;

/// A window must share so many times more samples with the one before than it gets new ones.
const SHARED_MIN: usize = 3;

/// To find a place among sorted values takes about as long as to look at so many.
const PLACE_VISITS: usize = 8;

/// See the module's documentation.
pub(super) struct Ranks<'v> {
    values: &'v [f64],
    moves: bool,
    /// The window that `sorted` holds.
    window: Range<usize>,
    /// Numbers that order as the values do, NaN first; as they come if windows do not move.
    sorted: Vec<i64>,
}

impl<'v> Ranks<'v> {
    pub(super) fn new(values: &'v [f64], bounds: &[Range<usize>]) -> Self {
        let read: usize = bounds.iter().map(ExactSizeIterator::len).sum();
        let moves = read > (SHARED_MIN + 1) * values.len();
        Ranks { values, moves, window: 0..0, sorted: Vec::new() }
    }

    /// The quantile of a window that is not empty and begins and ends no earlier than the one before.
    pub(super) fn quantile(
        &mut self,
        share: f64,
        window: Range<usize>,
        meter: &Meter<'_>,
    ) -> Result<f64, QueryError> {
        if !self.moves {
            meter.visit(SELECTION_VISITS * window.len())?;
            self.sorted.clear();
            self.sorted.extend(self.values[window].iter().map(|&value| order(value)));
            return Ok(of_numbers(share, &mut self.sorted));
        }
        let had = std::mem::replace(&mut self.window, window.clone());
        let leave = had.start..window.start.min(had.end);
        let come = had.end.max(window.start)..window.end;
        if SHARED_MIN * (leave.len() + come.len()) > window.len() {
            meter.visit(SELECTION_VISITS * PLACE_VISITS * window.len())?;
            self.sorted.clear();
            self.sorted.extend(self.values[window].iter().map(|&value| order(value)));
            self.sorted.sort_unstable();
        } else {
            meter.visit((PLACE_VISITS + window.len() / 8) * (leave.len() + come.len()))?;
            for &value in &self.values[leave] {
                if let Ok(at) = self.sorted.binary_search(&order(value)) {
                    self.sorted.remove(at);
                }
            }
            for &value in &self.values[come] {
                let number = order(value);
                let at = self.sorted.partition_point(|&have| have < number);
                self.sorted.insert(at, number);
            }
        }
        Ok(of_sorted(share, self.sorted.len(), |rank| {
            self.sorted.get(rank).map_or(f64::NAN, |&number| value_of(number))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::quantile::quantile;
    use crate::storage::Budget;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_that_move_have_the_quantiles_of_windows_by_themselves(
            values in prop::collection::vec(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY),
                Just(0.0), -3.0..3.0f64, (-2i8..2).prop_map(f64::from)], 1..80),
            length in 1usize..40, stride in 1usize..5, share in -0.1..1.1f64,
        ) {
            let bounds: Vec<_> = (0..values.len()).step_by(stride)
                .map(|end| (end + 1).saturating_sub(length)..end + 1).collect();
            let budget = Budget::new(usize::MAX, None, Default::default());
            let meter = Meter::new(&budget);
            let mut ranks = Ranks { moves: true, ..Ranks::new(&values, &bounds) };
            for window in bounds {
                let want = quantile(share, &mut values[window.clone()].to_vec());
                let found = ranks.quantile(share, window, &meter).unwrap();
                prop_assert!(found == want || found.is_nan() && want.is_nan(), "{found} {want}");
            }
        }
    }
}
