//! The board: the latest reading of every group, for `/metrics` to show and for frames to carry.
//!
//! Samplers publish to it from their threads; the scheduler collects what is new into a frame once a tick.
//! Samples between grid points are groups of their own, of the series `<name>:fast`, which `/metrics` does
//! not show. What has not been read again in time is ended with stale markers.

use crate::directory::{Definition, DefinitionSet, Directory};
use crate::frame::{FrameDraft, ReadingRef};
use crate::group::{Group, GroupSet, Presence};
use pharos_common::sample::TimestampMs;
use std::sync::{Arc, Mutex, PoisonError};

/// Readings older than this many of their intervals are not shown: missing beats wrong.
const STALE_INTERVALS: i64 = 2;
/// Added to it, so that a tick that comes a little late leaves no hole.
const STALE_GRACE_MS: i64 = 500;
/// Groups of one sampler that are no more, and whose stale markers wait for a frame.
const OWED_MAX: usize = 4_096;

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
    /// Readings of groups that are no more, with stale markers that no frame has taken yet.
    owed: Vec<Posted>,
    /// Shape of the set that `fast` follows.
    fast_shape: Option<u64>,
    /// Groups that are published between grid points: place in the set, and reading.
    fast: Vec<(usize, Posted)>,
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

    fn new(definition: Arc<Definition>, columns: usize) -> Self {
        Posted {
            definition,
            values: vec![0.0; columns],
            present: Presence::EMPTY,
            gone: Presence::EMPTY,
            timestamp_ms: 0,
            interval_ms: 0,
            fresh: false,
        }
    }

    /// Takes a reading; how many values differ from the one before.
    fn post(&mut self, group: &Group, timestamp_ms: TimestampMs, interval_ms: u32) -> u32 {
        let differs = |(old, new): (&f64, &f64)| u32::from(old.to_bits() != new.to_bits());
        let changed = self.values.iter().zip(group.values()).map(differs).sum();
        self.values.copy_from_slice(group.values());
        self.present = group.present();
        self.timestamp_ms = timestamp_ms;
        self.interval_ms = interval_ms;
        self.fresh = true;
        changed
    }

    fn collect(&mut self, draft: &mut FrameDraft) {
        if !std::mem::take(&mut self.fresh) {
            return;
        }
        draft.add(&ReadingRef {
            group: self.definition.group(),
            timestamp_ms: self.timestamp_ms,
            interval_ms: self.interval_ms,
            values: &self.values,
            present: self.present,
            gone: self.gone,
        });
        self.gone = Presence::EMPTY;
    }
}

impl Board {
    /// An empty board.
    pub fn new(directory: Directory) -> Self {
        let inner =
            Inner { directory, slots: Vec::new(), definitions: Arc::default(), definitions_changed: false };
        Board { inner: Mutex::new(inner) }
    }

    /// Shows a sampler's reading; how many values differ from the one before. Allocates only when groups or
    /// columns have come or gone.
    pub fn publish(
        &self,
        slot: usize,
        groups: &mut GroupSet,
        timestamp_ms: TimestampMs,
        interval_ms: u32,
    ) -> u32 {
        let mut inner = self.lock();
        inner.make_room(slot);
        let changed = inner.publish(slot, groups, timestamp_ms, interval_ms);
        drop(inner);
        groups.published();
        changed
    }

    /// Takes a reading between grid points, of the groups that are `urgent`.
    pub fn publish_fast(
        &self,
        slot: usize,
        groups: &GroupSet,
        urgent: &[bool],
        timestamp_ms: TimestampMs,
        interval_ms: u32,
    ) {
        if !urgent.contains(&true) {
            return;
        }
        let mut inner = self.lock();
        inner.make_room(slot);
        inner.publish_fast(slot, groups, urgent, timestamp_ms, interval_ms);
    }

    /// The definition of a group's series `<name>:fast`.
    pub fn define_fast(&self, group: &Group) -> Arc<Definition> {
        self.lock().directory.define_fast(group)
    }

    /// Ends what should have been read again by now; how many series that were.
    pub fn expire(&self, now_ms: TimestampMs) -> u64 {
        let mut inner = self.lock();
        let mut expired = 0;
        for slot in &mut inner.slots {
            for posted in slot.readings.iter_mut().chain(slot.fast.iter_mut().map(|(_, posted)| posted)) {
                // What no frame has taken yet is late only because the frame is.
                if posted.fresh || posted.present.is_empty() || !posted.is_stale(now_ms) {
                    continue;
                }
                expired += posted.present.len() as u64;
                posted.gone = posted.gone.union(posted.present);
                posted.present = Presence::EMPTY;
                // Before this moment, in which a reading may come after all.
                posted.timestamp_ms = now_ms - 1;
                posted.fresh = true;
            }
        }
        expired
    }

    /// The sampler's slot, and the place among its groups, of a group's number on the wire.
    pub fn locate(&self, group: u32) -> Option<(usize, usize)> {
        let inner = self.lock();
        inner.slots.iter().enumerate().find_map(|(at, slot)| {
            let place = slot.readings.iter().position(|posted| posted.definition.group() == group);
            let fast = || slot.fast.iter().find(|(_, posted)| posted.definition.group() == group);
            place.or_else(|| fast().map(|(place, _)| *place)).map(|place| (at, place))
        })
    }

    /// All definitions that hold now.
    pub fn definitions(&self) -> Arc<DefinitionSet> {
        self.lock().definitions()
    }

    /// Encodes everything published since the last call; `None` if there is nothing.
    pub fn collect(&self) -> Option<FrameDraft> {
        let mut inner = self.lock();
        let bytes = inner.fresh_bytes();
        if bytes == 0 {
            return None;
        }
        let mut draft = FrameDraft::empty(inner.definitions());
        draft.readings.reserve(bytes);
        let mut owed = false;
        for slot in &mut inner.slots {
            for posted in slot.readings.iter_mut().chain(slot.fast.iter_mut().map(|(_, posted)| posted)) {
                posted.collect(&mut draft);
            }
            slot.owed.iter_mut().for_each(|posted| posted.collect(&mut draft));
            owed |= !slot.owed.is_empty();
            slot.owed.clear();
        }
        inner.definitions_changed |= owed;
        (draft.samples > 0).then_some(draft)
    }

    /// Copies of the readings that are not stale.
    pub fn latest(&self, now_ms: TimestampMs) -> Vec<Posted> {
        self.latest_by_slot(now_ms).into_iter().map(|(_, posted)| posted).collect()
    }

    /// The same with the slot of each.
    pub fn latest_by_slot(&self, now_ms: TimestampMs) -> Vec<(usize, Posted)> {
        let inner = self.lock();
        let slots = inner.slots.iter().enumerate();
        let readings = slots.flat_map(|(slot, of)| of.readings.iter().map(move |posted| (slot, posted)));
        let shown = readings.filter(|(_, posted)| !posted.is_stale(now_ms) && !posted.present.is_empty());
        shown.map(|(slot, posted)| (slot, posted.clone())).collect()
    }

    /// Number that the next new group will get; the journal keeps it.
    pub fn next_group(&self) -> u32 {
        self.lock().directory.next_group()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Keeps what `before` owes to the next frame when groups have come or gone.
    fn keep_owed(&mut self, before: Vec<Posted>) {
        for old in before.into_iter().filter(|old| old.fresh && !old.gone.is_empty()) {
            let group = old.definition.group();
            let Some(new) = self.readings.iter_mut().find(|new| new.definition.group() == group) else {
                self.owed.push(Posted { present: Presence::EMPTY, ..old });
                continue;
            };
            // Columns that the group has no more are ended by the collector.
            let columns = &new.definition.message.columns;
            for (at, column) in old.definition.message.columns.iter().enumerate() {
                let place = columns.iter().position(|known| known.id == column.id);
                if let Some(place) = place.filter(|_| old.gone.contains(at)) {
                    new.gone.insert(place);
                }
            }
        }
        // A sampler whose groups change with every reading, while no frame is taken, owes the last of them.
        let excess = self.owed.len().saturating_sub(OWED_MAX);
        self.owed.drain(..excess);
    }
}

impl Inner {
    fn make_room(&mut self, slot: usize) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Slot::default);
        }
    }

    fn publish(
        &mut self,
        slot: usize,
        groups: &GroupSet,
        timestamp_ms: TimestampMs,
        interval_ms: u32,
    ) -> u32 {
        let Inner { directory, slots, definitions_changed, .. } = self;
        let Some(slot) = slots.get_mut(slot) else { return 0 };
        if slot.shape != Some(groups.shape()) {
            slot.shape = Some(groups.shape());
            let before = std::mem::take(&mut slot.readings);
            let posted = |group: &Group| Posted::new(directory.define(group), group.columns().len());
            slot.readings.extend(groups.iter().map(posted));
            slot.keep_owed(before);
            *definitions_changed = true;
        }
        let mut changed = 0;
        for (posted, group) in slot.readings.iter_mut().zip(groups.iter()) {
            changed += posted.post(group, timestamp_ms, interval_ms);
            // A marker that no frame has taken yet is still owed, unless the series is back.
            posted.gone = posted.gone.union(group.gone()).without(posted.present);
        }
        changed
    }

    fn publish_fast(
        &mut self,
        slot: usize,
        groups: &GroupSet,
        urgent: &[bool],
        timestamp_ms: TimestampMs,
        interval_ms: u32,
    ) {
        let Inner { directory, slots, definitions_changed, .. } = self;
        let Some(slot) = slots.get_mut(slot) else { return };
        if slot.fast_shape != Some(groups.shape()) {
            slot.fast_shape = Some(groups.shape());
            slot.fast.clear();
            *definitions_changed = true;
        }
        for (place, group) in groups.iter().enumerate().filter(|(place, _)| urgent.get(*place) == Some(&true))
        {
            let at = match slot.fast.iter().position(|(known, _)| *known == place) {
                Some(at) => at,
                None => {
                    let posted = Posted::new(directory.define_fast(group), group.columns().len());
                    slot.fast.push((place, posted));
                    *definitions_changed = true;
                    slot.fast.len() - 1
                }
            };
            if let Some((_, posted)) = slot.fast.get_mut(at) {
                let before = posted.present;
                posted.post(group, timestamp_ms, interval_ms);
                posted.gone = posted.gone.union(before).without(posted.present);
            }
        }
    }

    fn definitions(&mut self) -> Arc<DefinitionSet> {
        if self.definitions_changed {
            let mut definitions = Vec::new();
            for slot in &self.slots {
                let fast = slot.fast.iter().map(|(_, posted)| posted);
                let all = slot.readings.iter().chain(fast).chain(&slot.owed);
                definitions.extend(all.map(|posted| Arc::clone(&posted.definition)));
            }
            self.definitions = Arc::new(DefinitionSet { definitions });
            self.definitions_changed = false;
        }
        Arc::clone(&self.definitions)
    }

    /// Upper bound of the bytes that the next frame takes.
    fn fresh_bytes(&self) -> usize {
        let readings = self.slots.iter().flat_map(|slot| {
            slot.readings.iter().chain(&slot.owed).chain(slot.fast.iter().map(|(_, posted)| posted))
        });
        readings.filter(|posted| posted.fresh).map(|posted| 64 + posted.values.len() * 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::ColumnSpec;
    use pharos_common::sample::STALE_NAN_BITS;
    use pharos_proto::v1::Tick;
    use prost::Message as _;
    use std::collections::BTreeSet;

    fn columns(names: &[&'static str]) -> Vec<ColumnSpec> {
        names.iter().copied().map(ColumnSpec::plain).collect()
    }

    /// Names of the series that the next frame ends.
    fn ended(board: &Board) -> BTreeSet<String> {
        let draft = board.collect().unwrap();
        let tick = Tick::decode(draft.readings.as_slice()).unwrap();
        let mut ended = BTreeSet::new();
        for reading in tick.readings {
            let mut of_group = draft.definitions.definitions.iter().filter(|d| d.group() == reading.group);
            let definition = of_group.next().unwrap();
            assert!(of_group.next().is_none(), "one definition for each group");
            let mut values = reading.values.chunks(8);
            for (at, column) in definition.message.columns.iter().enumerate() {
                let is_there = reading.present.is_empty() || reading.present[at / 8] & (1 << (at % 8)) != 0;
                if is_there && values.next().unwrap() == STALE_NAN_BITS.to_le_bytes() {
                    ended.insert(column.name.clone());
                }
            }
        }
        ended
    }

    #[test]
    fn markers_reach_the_frame_also_when_groups_change_before_it_is_taken() {
        let board = Board::new(Directory::new("n", 0, []));
        let mut set = GroupSet::default();
        let stays = set.define("stays", Vec::new(), columns(&["a", "b", "c"]));
        let ends = set.define("ends", Vec::new(), columns(&["d"]));
        let read = |set: &mut GroupSet, second: i64, values: &[(usize, f64)], end: bool| {
            set.begin();
            values.iter().for_each(|(at, value)| set.group(stays).unwrap().put(*at, *value));
            match end {
                true => set.end(ends),
                false => set.group(ends).into_iter().for_each(|group| group.put(0, 1.0)),
            }
            board.publish(0, set, second * 1_000, 1_000);
        };
        read(&mut set, 1, &[(0, 1.0), (1, 1.0), (2, 1.0)], false);
        assert!(ended(&board).is_empty());
        // All but `a` end, and no frame takes it before the next two readings, which change the groups.
        read(&mut set, 2, &[(0, 1.0)], true);
        set.redefine(stays, columns(&["a", "x", "b", "c"]));
        read(&mut set, 3, &[(0, 1.0), (1, 1.0)], true);
        read(&mut set, 4, &[(0, 1.0), (1, 1.0), (3, 1.0)], true);
        // `c` is back, so nothing is owed of it.
        assert_eq!(ended(&board), ["b", "d"].map(str::to_owned).into());
        read(&mut set, 5, &[(0, 1.0), (1, 1.0), (3, 1.0)], true);
        assert!(ended(&board).is_empty());
    }
}
