//! The newest sample of every watched series, and a node's part of them as a storage for queries.

use super::watch::WatchedSeries;
use foldhash::HashMap;
use pharos_common::sample::{TimestampMs, is_stale_nan};
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use std::sync::Arc;

/// The newest sample of a series.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Which series.
    pub series: Arc<WatchedSeries>,
    /// When it was taken.
    pub timestamp_ms: TimestampMs,
    /// Its value; may be the stale marker.
    pub value: f64,
}

impl Newest {
    /// The value, unless the series has ended or is silent for longer than the lookback.
    pub fn live_value(&self, now_ms: TimestampMs, lookback_ms: i64) -> Option<f64> {
        let is_live = !is_stale_nan(self.value) && self.timestamp_ms > now_ms - lookback_ms;
        is_live.then_some(self.value)
    }
}

/// Newest samples by the series' slot.
pub type NewestBySlot = HashMap<u64, Newest>;

/// The newest samples of some series, as a query sees them.
pub struct NewestOf<'a> {
    newest: &'a NewestBySlot,
    slots: &'a [u64],
}

impl<'a> NewestOf<'a> {
    /// Those of `slots`.
    pub fn new(newest: &'a NewestBySlot, slots: &'a [u64]) -> Self {
        NewestOf { newest, slots }
    }
}

impl Storage for NewestOf<'_> {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let wanted = |newest: &&Newest| {
            (selection.start_ms..=selection.end_ms).contains(&newest.timestamp_ms)
                && selection.matchers.iter().all(|matcher| matcher.matches_labels(&newest.series.labels))
        };
        let mut found: Vec<&Newest> =
            self.slots.iter().filter_map(|slot| self.newest.get(slot)).filter(wanted).collect();
        found.sort_unstable_by(|a, b| a.series.labels.cmp(&b.series.labels));
        budget.take(found.len())?;
        let columns: Vec<SeriesColumns> = found
            .into_iter()
            .map(|newest| {
                let timestamps = Arc::from([newest.timestamp_ms]);
                SeriesColumns::floats(newest.series.labels.clone(), timestamps, vec![newest.value])
            })
            .collect();
        Ok(Box::new(columns.into_iter()))
    }
}
