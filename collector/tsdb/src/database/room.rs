//! Holds back who loads in bulk while the head has more than it should: cutting takes longer than appending.
//!
//! Live samples go on: they come no faster than time. Whoever sends the past as fast as it is taken asks for room
//! before the next part, and waits while the head writes out what it has.

use super::{Database, Inner};
use crate::error::TsdbError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// Late samples held before they are cut, if the head's memory allows ...
const LATE_MAX: usize = 4 << 20;

/// ... which gives so much to each: it is held sorted, once more as it came, and in room for more of both.
const LATE_BYTES: usize = 64;

/// The part of the head's memory that late samples may take.
const LATE_SHARE: usize = 4;

/// After so many samples the head's memory is looked at again: below ten megabytes.
const MEASURE_EVERY: u64 = 1 << 20;

/// Whether there is room.
#[derive(Debug)]
pub(super) struct Room {
    /// The head has less than its memory.
    in_head: AtomicBool,
    /// Samples that came since that was measured.
    unmeasured: AtomicU64,
    /// Counts the measurements.
    measured: watch::Sender<u64>,
}

impl Default for Room {
    fn default() -> Self {
        Room { in_head: AtomicBool::new(true), unmeasured: AtomicU64::new(0), measured: watch::channel(0).0 }
    }
}

impl Inner {
    /// Late samples held before they are cut.
    pub(super) fn late_max(&self) -> usize {
        LATE_MAX.min(self.options.head_bytes_max / LATE_SHARE / LATE_BYTES)
    }

    /// Notes that samples came; `true` if the head has more than its memory.
    pub(super) fn take_room(&self, samples: u64) -> bool {
        if self.room.unmeasured.fetch_add(samples, Ordering::Relaxed) < MEASURE_EVERY {
            return false;
        }
        self.measure_room();
        !self.room.in_head.load(Ordering::Relaxed)
    }

    /// Looks at the head's memory, and lets those go on who waited for it.
    pub(super) fn measure_room(&self) {
        self.room.unmeasured.store(0, Ordering::Relaxed);
        let (index, samples) = self.head.memory_bytes();
        let in_head = index.saturating_add(samples) <= self.options.head_bytes_max;
        // What cannot be written out must not hold back for ever.
        let in_head = in_head || samples < self.options.head_bytes_max / LATE_SHARE;
        self.room.in_head.store(in_head, Ordering::Relaxed);
        self.room.measured.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn has_room(&self) -> bool {
        let late = self.head.late_len() + self.head.late_being_cut_len();
        late <= 2 * self.late_max() && self.room.in_head.load(Ordering::Relaxed)
    }
}

impl Database {
    /// Resolves when the head has room for more than live samples: whoever loads in bulk waits for it before each
    /// part.
    ///
    /// # Errors
    /// [`TsdbError::Busy`] if there is none for this time.
    pub async fn room(&self, time_max: Duration) -> Result<(), TsdbError> {
        if !self.inner.options.housekeeping || self.inner.has_room() {
            return Ok(());
        }
        let mut measured = self.inner.room.measured.subscribe();
        let wait = async {
            while !self.inner.has_room() {
                if measured.changed().await.is_err() {
                    return;
                }
            }
        };
        let waited = tokio::time::timeout(time_max, wait).await;
        waited
            .map_err(|_| TsdbError::Busy("samples come faster than they are written into blocks".to_owned()))
    }
}
