//! Sliding windows over the samples of a series.
//!
//! The bounds of all windows are found in one pass over the timestamps; series that share a column of
//! timestamps share them.

use super::meter::Meter;
use crate::error::QueryError;
use crate::functions::over_time::Stretch;
use crate::plan::{Grid, Shift};
use crate::storage::{HistogramSample, SeriesColumns};
use pharos_common::sample::{TimestampMs, is_stale_nan};
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

/// Where the windows of a range lie.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    pub(crate) grid: Grid,
    pub(crate) shift: Shift,
    pub(crate) range_ms: i64,
    /// How far samples before a window are read, too (`anchored`, `smoothed`).
    pub(crate) before_ms: i64,
    /// How far samples after a window are read, too (`smoothed`).
    pub(crate) after_ms: i64,
}

impl Windows {
    /// The end of a step's window, inclusive. Its start, exclusive, is `range_ms` before.
    #[inline]
    pub(crate) fn end_ms(&self, step: usize) -> TimestampMs {
        self.shift.apply(self.grid.time(step))
    }

    #[inline]
    pub(crate) fn start_ms(&self, step: usize) -> TimestampMs {
        self.end_ms(step).saturating_sub(self.range_ms)
    }

    /// Indices of the timestamps that each step reads.
    ///
    /// # Errors
    /// If the query may not go on.
    pub(crate) fn bounds(
        &self,
        timestamps: &[TimestampMs],
        meter: &Meter<'_>,
    ) -> Result<Vec<Range<usize>>, QueryError> {
        let mut bounds = Vec::with_capacity(self.grid.steps);
        if self.range_ms == 0 && self.before_ms == 0 {
            bounds.resize(self.grid.steps, 0..0);
            return Ok(bounds);
        }
        let (mut low, mut high) = (0, 0);
        for step in 0..self.grid.steps {
            meter.visit(1)?;
            let first = self.start_ms(step).saturating_sub(self.before_ms);
            let last = self.end_ms(step).saturating_add(self.after_ms);
            low = seek(timestamps, low, first);
            high = seek(timestamps, high.max(low), last);
            bounds.push(low..high);
        }
        Ok(bounds)
    }
}

/// The first index from `from` on whose timestamp is after `time_ms`. Gallops: near targets cost little,
/// far ones a logarithm.
#[inline]
fn seek(timestamps: &[TimestampMs], from: usize, time_ms: TimestampMs) -> usize {
    let rest = &timestamps[from..];
    let mut stride = 1;
    while rest.get(stride - 1).is_some_and(|&timestamp| timestamp <= time_ms) {
        stride *= 2;
    }
    let low = stride / 2;
    let high = (stride - 1).min(rest.len());
    from + low + rest[low..high].partition_point(|&timestamp| timestamp <= time_ms)
}

/// Drops stale markers from a series, where it has any.
pub(crate) fn drop_stale(series: &mut SeriesColumns) {
    if has_stale(&series.values) {
        let timestamps: Vec<_> = series
            .timestamps
            .iter()
            .zip(&series.values)
            .filter(|(_, value)| !is_stale_nan(**value))
            .map(|(&timestamp, _)| timestamp)
            .collect();
        series.timestamps = timestamps.into();
        series.values.retain(|&value| !is_stale_nan(value));
    }
    series.histograms.retain(|sample| !sample.histogram.is_stale());
}

/// Whether there is a stale marker. Without a branch per value, as most series have none.
fn has_stale(values: &[f64]) -> bool {
    values.chunks(64).any(|chunk| chunk.iter().fold(false, |found, &value| found | is_stale_nan(value)))
}

/// The samples of one window.
#[derive(Clone, Copy)]
pub(crate) struct Window<'s> {
    pub(crate) timestamps: &'s [TimestampMs],
    pub(crate) values: &'s [f64],
    pub(crate) histograms: &'s [HistogramSample],
    /// Start of the range, exclusive.
    pub(crate) start_ms: TimestampMs,
    /// End of the range, inclusive.
    pub(crate) end_ms: TimestampMs,
    pub(crate) range_ms: i64,
    /// The evaluation time.
    pub(crate) time_ms: TimestampMs,
}

/// No sample is recent enough.
pub(crate) const NONE: u32 = u32::MAX;

/// Steps of columns of timestamps that a cache holds.
const STEPS_KNOWN_MAX: usize = 1 << 17;

/// What was found out about columns of timestamps, for the series that share them.
struct ByTimestamps<T> {
    /// By address; the column is kept, so no other can have it.
    known: HashMap<usize, (Arc<[TimestampMs]>, T), foldhash::fast::RandomState>,
    steps: usize,
}

impl<T> Default for ByTimestamps<T> {
    fn default() -> Self {
        ByTimestamps { known: HashMap::default(), steps: 0 }
    }
}

impl<T> ByTimestamps<T> {
    fn get_or_find<E>(
        &mut self,
        timestamps: &Arc<[TimestampMs]>,
        steps: usize,
        find: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        let address = timestamps.as_ptr() as usize;
        // Columns without a row may all have the same address.
        let is_known = self.known.get(&address).is_some_and(|(known, _)| known.len() == timestamps.len());
        if !is_known && self.steps + steps > STEPS_KNOWN_MAX {
            self.known.clear();
            self.steps = 0;
        }
        match self.known.entry(address) {
            Entry::Occupied(entry) if is_known => Ok(&entry.into_mut().1),
            entry => {
                self.steps += steps;
                let found = find()?;
                Ok(&entry.insert_entry((Arc::clone(timestamps), found)).into_mut().1)
            }
        }
    }
}

/// Remembers which sample is the newest at each step.
#[derive(Default)]
pub(crate) struct NewestCache(ByTimestamps<Vec<u32>>);

impl NewestCache {
    /// For each step the index of the newest sample that is no older than the lookback, or [`NONE`].
    pub(crate) fn newest(
        &mut self,
        grid: Grid,
        shift: Shift,
        lookback_ms: i64,
        timestamps: &Arc<[TimestampMs]>,
    ) -> &[u32] {
        let find = || -> Result<Vec<u32>, std::convert::Infallible> {
            let mut newest = Vec::with_capacity(grid.steps);
            let mut next = 0;
            for step in 0..grid.steps {
                let time_ms = shift.apply(grid.time(step));
                next = seek(timestamps, next, time_ms);
                let is_recent = |index: &usize| {
                    timestamps.get(*index).is_some_and(|&taken| taken > time_ms.saturating_sub(lookback_ms))
                };
                let found = next.checked_sub(1).filter(is_recent);
                newest.push(found.and_then(|index| u32::try_from(index).ok()).unwrap_or(NONE));
            }
            Ok(newest)
        };
        let Ok(newest) = self.0.get_or_find(timestamps, grid.steps, find);
        newest
    }
}

/// Remembers where windows lie in columns of timestamps.
#[derive(Default)]
pub(crate) struct BoundsCache(ByTimestamps<Rc<KnownWindows>>);

/// Where windows lie in a column of timestamps, and what follows from that.
pub(crate) struct KnownWindows {
    pub(crate) bounds: Box<[Range<usize>]>,
    stretches: OnceCell<Box<[Stretch]>>,
}

impl KnownWindows {
    /// For each window how far its samples reach; found out when it is first asked for.
    pub(crate) fn stretches(&self, find: impl FnOnce() -> Vec<Stretch>) -> &[Stretch] {
        self.stretches.get_or_init(|| find().into())
    }
}

impl BoundsCache {
    pub(crate) fn windows(
        &mut self,
        windows: &Windows,
        timestamps: &Arc<[TimestampMs]>,
        meter: &Meter<'_>,
    ) -> Result<Rc<KnownWindows>, QueryError> {
        let find = || -> Result<_, QueryError> {
            let bounds = windows.bounds(timestamps, meter)?.into();
            Ok(Rc::new(KnownWindows { bounds, stretches: OnceCell::new() }))
        };
        self.0.get_or_find(timestamps, windows.grid.steps, find).map(Rc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Budget;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bounds_are_those_of_a_search_for_every_window(
            mut timestamps in prop::collection::vec(-500i64..500, 0..60),
            start in -600i64..600, step in 1i64..70, steps in 1usize..30,
            range_ms in 1i64..200, offset_ms in -100i64..100,
        ) {
            timestamps.sort_unstable();
            timestamps.dedup();
            let windows = Windows {
                grid: Grid { start_ms: start, step_ms: step, steps },
                shift: Shift { at_ms: None, offset_ms },
                range_ms, before_ms: 0, after_ms: 0,
            };
            let budget = Budget::new(usize::MAX, None, Default::default());
            let bounds = windows.bounds(&timestamps, &Meter::new(&budget)).unwrap();
            for (step, bounds) in bounds.into_iter().enumerate() {
                let inside: Vec<i64> = timestamps.iter().copied()
                    .filter(|&t| t > windows.start_ms(step) && t <= windows.end_ms(step)).collect();
                prop_assert_eq!(&timestamps[bounds], &inside[..]);
            }
        }
    }
}
