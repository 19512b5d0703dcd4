//! Samples that came late: older than what their group already has, or than the last cut.
//!
//! They are few or they are a backfill; either way they are kept per series, sorted by time, merged with
//! everything else by reads, and written out with the next blocks.

use pharos_common::sample::TimestampMs;
use std::collections::HashMap;

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
