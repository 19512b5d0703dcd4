//! The board: the latest reading of every group, for `/metrics` to show and for frames to carry.
//!
//! Samplers publish to it from their threads; the scheduler collects what is new into a frame once a tick.

use crate::directory::{Definition, DefinitionSet, Directory};
use crate::frame::{FrameDraft, ReadingRef};
use crate::group::{GroupSet, Presence};
use pharos_common::sample::TimestampMs;
use std::sync::{Arc, Mutex, PoisonError};

/// Readings older than this many of their intervals are not shown: missing beats wrong.
const STALE_INTERVALS: i64 = 2;
/// Added to it, so that a tick that comes a little late leaves no hole.
const STALE_GRACE_MS: i64 = 500;

/// The latest readings of all samplers.
#[derive(Debug)]
pub struct Board {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: Directory,
    /// One place for each sampler that has published, by its slot.
    slots: Vec<Slot>,
    definitions: Arc<DefinitionSet>,
    definitions_changed: bool,
}

#[derive(Debug, Default)]
struct Slot {
    /// Shape of the set that `readings` follows.
    shape: Option<u64>,
    readings: Vec<Posted>,
}

/// A group's latest reading.
#[derive(Clone, Debug)]
pub struct Posted {
    /// The group.
    pub definition: Arc<Definition>,
    /// A place for each column.
    pub values: Vec<f64>,
    /// Columns that have a value.
    pub present: Presence,
    gone: Presence,
    /// When the reading ended.
    pub timestamp_ms: TimestampMs,
    /// Within which time the next is promised.
    pub interval_ms: u32,
    fresh: bool,
}

impl Posted {
    /// Whether the reading is too old to be shown.
    pub fn is_stale(&self, now_ms: TimestampMs) -> bool {
        now_ms - self.timestamp_ms > STALE_INTERVALS * i64::from(self.interval_ms) + STALE_GRACE_MS
    }
}

impl Board {
    /// An empty board.
    pub fn new(directory: Directory) -> Self {
        let inner =
            Inner { directory, slots: Vec::new(), definitions: Arc::default(), definitions_changed: false };
        Board { inner: Mutex::new(inner) }
    }

    /// Shows a sampler's reading. Allocates only when groups or columns have come or gone.
    pub fn publish(&self, slot: usize, groups: &mut GroupSet, timestamp_ms: TimestampMs, interval_ms: u32) {
        let mut inner = self.lock();
        if inner.slots.len() <= slot {
            inner.slots.resize_with(slot + 1, Slot::default);
        }
        inner.publish(slot, groups, timestamp_ms, interval_ms);
        drop(inner);
        groups.published();
    }

    /// Encodes everything published since the last call; `None` if there is nothing.
    pub fn collect(&self) -> Option<FrameDraft> {
        let mut inner = self.lock();
        if inner.definitions_changed {
            let readings = inner.slots.iter().flat_map(|slot| &slot.readings);
            let definitions = readings.map(|posted| Arc::clone(&posted.definition)).collect();
            inner.definitions = Arc::new(DefinitionSet { definitions });
            inner.definitions_changed = false;
        }
        let mut draft = FrameDraft {
            definitions: Arc::clone(&inner.definitions),
            readings: Vec::with_capacity(inner.frame_bytes()),
            samples: 0,
            timestamp_ms: i64::MIN,
        };
        for posted in inner.slots.iter_mut().flat_map(|slot| &mut slot.readings).filter(|posted| posted.fresh)
        {
            posted.fresh = false;
            let reading = ReadingRef {
                group: posted.definition.group(),
                timestamp_ms: posted.timestamp_ms,
                interval_ms: posted.interval_ms,
                values: &posted.values,
                present: posted.present,
                gone: posted.gone,
            };
            draft.samples += reading.encode(&mut draft.readings);
            draft.timestamp_ms = draft.timestamp_ms.max(posted.timestamp_ms);
            posted.gone = Presence::EMPTY;
        }
        (draft.samples > 0).then_some(draft)
    }

    /// Copies of the readings that are not stale.
    pub fn latest(&self, now_ms: TimestampMs) -> Vec<Posted> {
        let inner = self.lock();
        let readings = inner.slots.iter().flat_map(|slot| &slot.readings);
        readings.filter(|posted| !posted.is_stale(now_ms) && !posted.present.is_empty()).cloned().collect()
    }

    /// Number that the next new group will get; the journal keeps it.
    pub fn next_group(&self) -> u32 {
        self.lock().directory.next_group()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn publish(&mut self, slot: usize, groups: &GroupSet, timestamp_ms: TimestampMs, interval_ms: u32) {
        let Inner { directory, slots, definitions_changed, .. } = self;
        let Some(slot) = slots.get_mut(slot) else { return };
        if slot.shape != Some(groups.shape()) {
            slot.shape = Some(groups.shape());
            slot.readings.clear();
            slot.readings.extend(groups.iter().map(|group| Posted {
                definition: directory.define(group),
                values: vec![0.0; group.columns().len()],
                present: Presence::EMPTY,
                gone: Presence::EMPTY,
                timestamp_ms,
                interval_ms,
                fresh: false,
            }));
            *definitions_changed = true;
        }
        for (posted, group) in slot.readings.iter_mut().zip(groups.iter()) {
            posted.values.copy_from_slice(group.values());
            posted.present = group.present();
            // A marker that no frame has taken yet is still owed, unless the series is back.
            posted.gone = posted.gone.union(group.gone()).without(posted.present);
            posted.timestamp_ms = timestamp_ms;
            posted.interval_ms = interval_ms;
            posted.fresh = true;
        }
    }

    fn frame_bytes(&self) -> usize {
        let readings = self.slots.iter().flat_map(|slot| &slot.readings);
        readings.map(|posted| 64 + posted.values.len() * 8).sum()
    }
}
