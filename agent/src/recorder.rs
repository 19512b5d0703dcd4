//! The flight recorder: the last minute of some series at 10 Hz, in memory, shipped only when it is wanted.
//!
//! Readings flow in from the samplers' threads into rings that never grow. When an alert fires or somebody
//! asks (`POST /-/dump`), what has not been shipped yet goes to the spool as frames of the backfill lane,
//! as the series `<name>:fast`, where samples between grid points belong.

use crate::board::Board;
use crate::directory::{Definition, DefinitionSet};
use crate::frame::{FrameDraft, ReadingRef};
use crate::group::{Group, GroupSet, Presence};
use crate::own_metrics::OwnMetrics;
use crate::spool::SpoolHandle;
use pharos_common::sample::TimestampMs;
use regex::Regex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Series that are kept: with a minute at 10 Hz they take 5 MB.
const SERIES_MAX: usize = 1_024;
/// Readings that a ring holds at most, whatever is configured.
const READINGS_MAX: usize = 3_000;

/// What is recorded.
#[derive(Clone, Debug)]
pub struct RecorderPlan {
    /// Names of the series; none switches the recorder off.
    pub series: Vec<Regex>,
    /// For how long readings are kept.
    pub keep: Duration,
    /// Milliseconds from reading to reading.
    pub interval_ms: u32,
}

impl Default for RecorderPlan {
    fn default() -> Self {
        RecorderPlan { series: Vec::new(), keep: Duration::from_secs(60), interval_ms: 100 }
    }
}

/// The recorder; shared by the samplers' threads.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Looked at without the lock, for most agents record nothing.
    on: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    plan: RecorderPlan,
    slots: Vec<SlotRings>,
    series: usize,
    dumped_until_ms: TimestampMs,
}

#[derive(Debug, Default)]
struct SlotRings {
    shape: Option<u64>,
    rings: Vec<Ring>,
}

/// The last readings of one group.
#[derive(Debug)]
struct Ring {
    /// Place of the group in its sampler's list.
    place: usize,
    definition: Arc<Definition>,
    columns: Vec<usize>,
    times: Vec<TimestampMs>,
    /// One row of `columns` values a reading; NaN where there was none.
    values: Vec<f64>,
    next: usize,
    filled: usize,
}

impl Recorder {
    /// Records this from now on. What is kept of series that stay is kept.
    pub fn configure(&self, plan: &RecorderPlan) {
        let mut inner = self.lock();
        let capacity = inner.plan.capacity() != plan.capacity();
        inner.plan = plan.clone();
        if plan.series.is_empty() {
            // Nobody would lay the rings out anew any more, and what they hold is no longer wanted.
            inner.slots.clear();
            inner.series = 0;
        }
        for slot in &mut inner.slots {
            slot.shape = None;
            if capacity {
                slot.rings.clear();
            }
        }
        self.on.store(!plan.series.is_empty(), Ordering::Relaxed);
    }

    /// Keeps a reading; the interval at which this sampler's readings are wanted, if they are.
    pub(crate) fn record(
        &self,
        slot: usize,
        groups: &GroupSet,
        timestamp_ms: TimestampMs,
        board: &Board,
    ) -> Option<u32> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.lock();
        if inner.slots.len() <= slot {
            inner.slots.resize_with(slot + 1, SlotRings::default);
        }
        if inner.slots[slot].shape != Some(groups.shape()) {
            inner.lay_out(slot, groups, board);
        }
        let rings = &mut inner.slots[slot].rings;
        if rings.is_empty() {
            return None;
        }
        let mut rings = rings.iter_mut().peekable();
        for (place, group) in groups.iter().enumerate() {
            if let Some(ring) = rings.next_if(|ring| ring.place == place) {
                ring.push(group, timestamp_ms);
            }
        }
        Some(inner.plan.interval_ms)
    }

    /// Hands what has not been shipped yet to the spool; how many samples that were. Nothing happens where
    /// nothing is recorded.
    pub fn dump(&self, board: &Board, spool: &SpoolHandle, metrics: &OwnMetrics) -> u64 {
        if !self.on.load(Ordering::Relaxed) {
            return 0;
        }
        let mut inner = self.lock();
        let mut samples = 0;
        let drafts = inner.drafts(&board.definitions());
        let next_group = board.next_group();
        for draft in drafts {
            samples += u64::from(draft.samples);
            spool.append_backfill(draft, next_group);
        }
        drop(inner);
        metrics.recorder_dumps.inc();
        metrics.recorder_samples.inc_by(samples);
        tracing::info!(samples, "The flight recorder's last minute is shipped");
        samples
    }

    /// How many series are recorded.
    pub fn series(&self) -> usize {
        self.lock().series
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecorderPlan {
    fn capacity(&self) -> usize {
        let readings = self.keep.as_millis() / u128::from(self.interval_ms.max(1));
        (readings as usize).clamp(1, READINGS_MAX)
    }

    fn wants(&self, name: &str) -> bool {
        self.series.iter().any(|pattern| pattern.is_match(name))
    }
}

impl Inner {
    fn lay_out(&mut self, slot: usize, groups: &GroupSet, board: &Board) {
        let mut old = std::mem::take(&mut self.slots[slot].rings);
        let others = self.slots.iter().flat_map(|slot| &slot.rings);
        self.series = others.map(|ring| ring.columns.len()).sum();
        let capacity = self.plan.capacity();
        let mut rings = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            let named = group.columns().iter().enumerate();
            let wanted = named.filter(|(_, column)| self.plan.wants(&column.name)).map(|(at, _)| at);
            let columns: Vec<usize> = wanted.take(SERIES_MAX.saturating_sub(self.series)).collect();
            if columns.is_empty() {
                continue;
            }
            self.series += columns.len();
            let definition = board.define_fast(group);
            let same = old
                .iter()
                .position(|ring| Arc::ptr_eq(&ring.definition, &definition) && ring.columns == columns);
            rings.push(match same {
                Some(at) => Ring { place, ..old.swap_remove(at) },
                None => Ring {
                    place,
                    definition,
                    times: vec![0; capacity],
                    values: vec![f64::NAN; capacity * columns.len()],
                    columns,
                    next: 0,
                    filled: 0,
                },
            });
        }
        self.slots[slot] = SlotRings { shape: Some(groups.shape()), rings };
    }

    /// Frames of everything newer than the last dump, oldest first: one for each tick of the recorder.
    fn drafts(&mut self, board: &DefinitionSet) -> Vec<FrameDraft> {
        let after = self.dumped_until_ms;
        let tick = i64::from(self.plan.interval_ms.max(1));
        let rings: Vec<&Ring> = self.slots.iter().flat_map(|slot| &slot.rings).collect();
        let mut rows: BTreeMap<TimestampMs, Vec<(&Ring, usize)>> = BTreeMap::new();
        for &ring in &rings {
            for row in (0..ring.filled).filter(|&row| ring.times[row] > after) {
                rows.entry(ring.times[row].div_euclid(tick)).or_default().push((ring, row));
            }
        }
        let mut definitions = board.definitions.clone();
        for ring in &rings {
            if definitions.iter().all(|known| !Arc::ptr_eq(known, &ring.definition)) {
                definitions.push(Arc::clone(&ring.definition));
            }
        }
        let definitions = Arc::new(DefinitionSet { definitions });
        let mut newest = after;
        let drafts = rows.into_values().filter_map(|rows| {
            let mut draft = FrameDraft::empty(Arc::clone(&definitions));
            for (ring, row) in rows {
                newest = newest.max(ring.times[row]);
                ring.encode(row, &mut draft);
            }
            (draft.samples > 0).then_some(draft)
        });
        let drafts = drafts.collect();
        self.dumped_until_ms = newest;
        drafts
    }
}

impl Ring {
    fn push(&mut self, group: &Group, timestamp_ms: TimestampMs) {
        let width = self.columns.len();
        let row = &mut self.values[self.next * width..(self.next + 1) * width];
        for (place, &column) in row.iter_mut().zip(&self.columns) {
            let here = group.present().contains(column);
            *place = if here { group.values()[column] } else { f64::NAN };
        }
        self.times[self.next] = timestamp_ms;
        self.next = (self.next + 1) % self.times.len();
        self.filled = (self.filled + 1).min(self.times.len());
    }

    fn encode(&self, row: usize, draft: &mut FrameDraft) {
        let mut values = vec![0.0; self.definition.message.columns.len()];
        let mut present = Presence::EMPTY;
        let width = self.columns.len();
        for (&column, &value) in self.columns.iter().zip(&self.values[row * width..(row + 1) * width]) {
            if !value.is_nan()
                && let Some(place) = values.get_mut(column)
            {
                *place = value;
                present.insert(column);
            }
        }
        draft.add(&ReadingRef {
            group: self.definition.group(),
            timestamp_ms: self.times[row],
            interval_ms: 1_000,
            values: &values,
            present,
            gone: Presence::EMPTY,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;
    use crate::group::ColumnSpec;
    use pharos_proto::v1::Tick;
    use prost::Message as _;

    fn plan(pattern: &str) -> RecorderPlan {
        RecorderPlan {
            series: vec![Regex::new(pattern).unwrap()],
            keep: Duration::from_secs(2),
            interval_ms: 100,
        }
    }

    fn times(drafts: &[FrameDraft]) -> Vec<i64> {
        let ticks = drafts.iter().map(|draft| Tick::decode(draft.readings.as_slice()).unwrap());
        ticks.flat_map(|tick| tick.readings.into_iter().map(|reading| reading.timestamp_ms)).collect()
    }

    #[test]
    fn the_last_readings_of_chosen_series_are_kept_and_shipped_once() {
        let board = Board::new(Directory::new("n", 0, []));
        let (recorder, mut groups) = (Recorder::default(), GroupSet::default());
        let columns = ["node_load1", "node_load5"].map(ColumnSpec::plain).to_vec();
        let handle = groups.define("loadavg", Vec::new(), columns);
        assert_eq!(recorder.record(0, &groups, 0, &board), None, "nothing is configured");
        recorder.configure(&plan("^node_load1$"));
        let read = |groups: &mut GroupSet, at: i64| {
            groups.begin();
            groups.group(handle).unwrap().put(0, at as f64);
            groups.group(handle).unwrap().put(1, 5.0);
            assert_eq!(recorder.record(0, groups, at, &board), Some(100));
        };
        (1..=50).for_each(|tick| read(&mut groups, tick * 100));
        let drafts = recorder.lock().drafts(&board.definitions());
        assert_eq!(times(&drafts), (31..=50).map(|tick| tick * 100).collect::<Vec<_>>());
        let first = Tick::decode(drafts[0].readings.as_slice()).unwrap();
        assert_eq!(first.readings[0].values[..], 3_100.0f64.to_le_bytes());
        let definitions = &drafts[0].definitions.definitions;
        assert!(definitions.iter().any(|one| one.message.columns[0].name == "node_load1:fast"));
        // A second dump has only what came after the first.
        (51..=52).for_each(|tick| read(&mut groups, tick * 100));
        assert_eq!(times(&recorder.lock().drafts(&board.definitions())), [5_100, 5_200]);
    }

    #[test]
    fn memory_is_bounded_whatever_the_pattern_matches() {
        let board = Board::new(Directory::new("n", 0, []));
        let (recorder, mut groups) = (Recorder::default(), GroupSet::default());
        for group in 0..20 {
            let columns = (0..200).map(|at| ColumnSpec::plain(format!("m{at}"))).collect();
            groups.define(format!("g{group}"), Vec::new(), columns);
        }
        recorder.configure(&plan(".*"));
        recorder.record(3, &groups, 1, &board);
        assert_eq!(recorder.series(), SERIES_MAX);
        recorder.configure(&plan("^m1$"));
        recorder.record(3, &groups, 2, &board);
        assert_eq!(recorder.series(), 20);
        // Switched off it keeps nothing that a later dump could bring up.
        recorder.configure(&RecorderPlan::default());
        assert_eq!((recorder.series(), recorder.lock().slots.len()), (0, 0));
    }
}
