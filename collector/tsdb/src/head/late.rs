//! Samples that came late: older than what their group already has, or than the last cut.
//!
//! They are few or they are a backfill; either way they are kept per series, sorted by time, merged with
//! everything else by reads, and written out with the next blocks. [`LateLog`] has them once more, as they
//! came, for the next checkpoint.

use crate::row::GroupId;
use pharos_common::sample::TimestampMs;
use std::collections::HashMap;

/// Room for so many rows stays when they are gone.
const ROWS_KEPT: usize = 64 << 10;

/// Late samples of one series, sorted by time without duplicates.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateColumn {
    pub(crate) timestamps: Vec<TimestampMs>,
    pub(crate) values: Vec<f64>,
}

impl LateColumn {
    /// Adds a sample; `false` if there is one at this time already, which stays.
    fn insert(&mut self, timestamp_ms: TimestampMs, value: f64) -> bool {
        if self.timestamps.last().is_none_or(|&last| last < timestamp_ms) {
            self.timestamps.push(timestamp_ms);
            self.values.push(value);
            return true;
        }
        match self.timestamps.binary_search(&timestamp_ms) {
            Ok(_) => false,
            Err(at) => {
                self.timestamps.insert(at, timestamp_ms);
                self.values.insert(at, value);
                true
            }
        }
    }

    /// The samples in a range.
    pub(crate) fn range(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> (&[TimestampMs], &[f64]) {
        let from = self.timestamps.partition_point(|&timestamp| timestamp < start_ms);
        let to = self.timestamps.partition_point(|&timestamp| timestamp <= end_ms).max(from);
        (&self.timestamps[from..to], &self.values[from..to])
    }
}

/// Late samples of all series, by head series.
#[derive(Clone, Debug, Default)]
pub(crate) struct LateSamples {
    pub(crate) series: HashMap<u32, LateColumn, foldhash::fast::RandomState>,
    samples: usize,
}

impl LateSamples {
    /// Adds a sample; `false` if there is one at this time already.
    pub(crate) fn insert(&mut self, series: u32, timestamp_ms: TimestampMs, value: f64) -> bool {
        let inserted = self.series.entry(series).or_default().insert(timestamp_ms, value);
        self.samples += usize::from(inserted);
        inserted
    }

    /// Samples held.
    pub(crate) fn len(&self) -> usize {
        self.samples
    }

    /// Newest and oldest timestamp held.
    pub(crate) fn range(&self) -> Option<(TimestampMs, TimestampMs)> {
        let first = self.series.values().filter_map(|column| column.timestamps.first()).min()?;
        let last = self.series.values().filter_map(|column| column.timestamps.last()).max()?;
        Some((*first, *last))
    }
}

/// Late rows in the order in which they came, since the checkpoint before.
#[derive(Debug, Default)]
pub(crate) struct LateLog {
    rows: Vec<(GroupId, TimestampMs, u16)>,
    values: Vec<f64>,
    /// Rows at the beginning that a cut is writing into blocks.
    being_cut: usize,
}

impl LateLog {
    pub(crate) fn push(&mut self, group: GroupId, timestamp_ms: TimestampMs, values: &[f64]) {
        self.rows.push((group, timestamp_ms, values.len() as u16));
        self.values.extend_from_slice(values);
    }

    /// A cut takes everything that is here.
    pub(crate) fn begin_cut(&mut self) {
        self.being_cut = self.rows.len();
    }

    /// What the cut took is in blocks.
    pub(crate) fn finish_cut(&mut self) {
        let gone = std::mem::take(&mut self.being_cut).min(self.rows.len());
        let values: usize = self.rows.drain(..gone).map(|(.., width)| usize::from(width)).sum();
        self.values.drain(..values);
        // A backfill's memory comes back with it.
        self.rows.shrink_to(ROWS_KEPT);
        self.values.shrink_to(ROWS_KEPT);
    }

    /// Rows with their values.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (GroupId, TimestampMs, &[f64])> {
        let mut rest = self.values.as_slice();
        self.rows.iter().map(move |&(group, timestamp_ms, width)| {
            let (values, behind) = rest.split_at(usize::from(width));
            rest = behind;
            (group, timestamp_ms, values)
        })
    }

    /// Puts the rows of a checkpoint that failed back, before those that came since.
    pub(crate) fn put_back(&mut self, mut before: LateLog) {
        before.rows.append(&mut self.rows);
        before.values.append(&mut self.values);
        *self = before;
    }
}
