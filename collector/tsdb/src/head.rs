//! The head: everything that is not in a block yet.
//!
//! Rows flow in from the one appending thread at a time ([`Head::append_row`]); readers come at any time
//! and take the registry's read lock, then one group's lock each, for as long as it takes to copy.

pub(crate) mod group;
pub(crate) mod guard;
pub(crate) mod late;
pub(crate) mod page;
pub(crate) mod registry;
pub(crate) mod selection;

use crate::error::{SeriesLimit, TsdbError};
use crate::hidden;
use crate::merge::Piece;
use crate::row::{Appended, GROUP_COLUMNS_MAX, GROUP_LABEL_BYTES_MAX, GroupId, Row, is_absent};
use group::Group;
use guard::{Guard, Refusals};
use late::{LateLog, LateSamples};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use registry::Registry;
use selection::Wanted;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Head {
    registry: RwLock<Registry>,
    late: Mutex<LateSamples>,
    /// Late samples that are being written into blocks; readers still find them here.
    late_being_cut: Mutex<Arc<LateSamples>>,
    /// Late rows that no checkpoint has.
    late_log: Mutex<LateLog>,
    refusals: Mutex<Refusals>,
    /// Rows older than this are late even for a group that has nothing newer.
    cut_before_ms: AtomicI64,
    newest_ms: AtomicI64,
    samples: AtomicU64,
}

/// Columns of a group that a selection wants, with their series.
type WantedColumns = Vec<(u16, u32)>;

/// What a selection found in the head.
#[derive(Debug, Default)]
struct Found {
    groups: Vec<(Arc<Group>, WantedColumns)>,
    labels: BTreeMap<u32, Labels>,
    /// Late samples in the range.
    late: Vec<(Labels, Piece)>,
}

/// Which timestamps are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) oldest_ms: TimestampMs,
    pub(crate) newest_ms: TimestampMs,
}

impl Head {
    pub(crate) fn new(cut_before_ms: TimestampMs) -> Self {
        Head {
            registry: RwLock::default(),
            late: Mutex::default(),
            late_being_cut: Mutex::default(),
            late_log: Mutex::default(),
            refusals: Mutex::default(),
            cut_before_ms: AtomicI64::new(cut_before_ms),
            newest_ms: AtomicI64::new(TimestampMs::MIN),
            samples: AtomicU64::new(0),
        }
    }

    pub(crate) fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_mut(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn late(&self) -> MutexGuard<'_, LateSamples> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds or makes the group with exactly these columns.
    pub(crate) fn define_group(&self, columns: &[Labels], guard: &Guard) -> Result<GroupId, TsdbError> {
        if columns.is_empty() || columns.len() > GROUP_COLUMNS_MAX {
            return Err(TsdbError::GroupWidth(columns.len()));
        }
        if columns.iter().map(|labels| labels.as_bytes().len()).sum::<usize>() > GROUP_LABEL_BYTES_MAX {
            return Err(TsdbError::TooManySeries {
                limit: GROUP_LABEL_BYTES_MAX,
                of: SeriesLimit::GroupLabelBytes,
            });
        }
        {
            // An explosion must not hold back those who append: what is refused needs no more than this.
            let registry = self.registry();
            if let Some(id) = registry.find_group(columns) {
                return Ok(id);
            }
            guard.check(&registry, &registry.unknown(columns))?;
        }
        self.registry_mut().define_group(columns, guard)
    }

    /// Notes that the new ones of these series were refused.
    pub(crate) fn count_refused(&self, columns: &[Labels], guard: &Guard) {
        let registry = self.registry();
        let unknown = registry.unknown(columns);
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        for labels in unknown.into_iter().filter(|labels| !hidden::is_uncounted(labels)) {
            refusals.count(&guard.culprit(labels));
        }
    }

    /// Series that were refused since the start.
    pub(crate) fn refusals(&self) -> Refusals {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Appends a row, having handed the group's state to `journal` first. The caller lets only one thread
    /// append at a time, so the journal has rows in the order in which they are applied. Locks are taken in
    /// one order everywhere: registry, group, late samples.
    pub(crate) fn append_row(
        &self,
        registry: &Registry,
        row: &Row<'_>,
        window: Window,
        appended: &mut Appended,
        journal: impl FnOnce(&Group, &mut group::GroupState, &[f64]),
    ) -> Result<(), TsdbError> {
        let group = registry.group(row.group).ok_or(TsdbError::UnknownGroup(row.group))?;
        if row.values.len() != group.columns.len() {
            return Err(TsdbError::RowWidth { want: group.columns.len(), got: row.values.len() });
        }
        let present = group.samples_in(row.values);
        if row.timestamp_ms > window.newest_ms {
            appended.too_new += present;
            return Ok(());
        }
        if row.timestamp_ms < window.oldest_ms {
            appended.too_old += present;
            return Ok(());
        }
        if present == 0 {
            return Ok(());
        }
        let mut state = group.lock();
        let in_order = row.timestamp_ms > state.newest_ms
            && row.timestamp_ms >= self.cut_before_ms.load(Ordering::Relaxed);
        if in_order {
            journal(&group, &mut state, row.values);
            state.push(row.timestamp_ms, row.values);
            self.newest_ms.fetch_max(row.timestamp_ms, Ordering::Relaxed);
            self.samples.fetch_add(present, Ordering::Relaxed);
            appended.samples += present;
            return Ok(());
        }
        // What is there stays, whatever a repetition says; what the newest row lacks is filled in, for a
        // sender may spread one tick over two requests.
        if let Some((_, last)) = state.last_row().filter(|(timestamp, _)| *timestamp == row.timestamp_ms) {
            let before = group.samples_in(last);
            let filled = match state.filled_last_row(row.values) {
                Some(merged) => {
                    journal(&group, &mut state, &merged);
                    state.replace_last_row(&merged);
                    group.samples_in(&merged) - before
                }
                None => 0,
            };
            self.samples.fetch_add(filled, Ordering::Relaxed);
            appended.samples += filled;
            appended.duplicates += present - filled;
            return Ok(());
        }
        journal(&group, &mut state, row.values);
        drop(state);
        self.append_late(&group, row, appended);
        self.late_log().push(row.group, row.timestamp_ms, row.values);
        Ok(())
    }

    fn late_log(&self) -> MutexGuard<'_, LateLog> {
        self.late_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the late rows since the checkpoint before.
    pub(crate) fn take_late_log(&self) -> LateLog {
        std::mem::take(&mut *self.late_log())
    }

    /// Puts late rows back that could not be written.
    pub(crate) fn put_back_late_log(&self, log: LateLog) {
        self.late_log().put_back(log);
    }

    /// Adds a late row of a checkpoint.
    pub(crate) fn restore_late(&self, group: &Group, row: &Row<'_>, appended: &mut Appended) {
        self.append_late(group, row, appended);
    }

    /// Counts rows that came as pages.
    pub(crate) fn count_restored(&self, samples: usize, newest_ms: TimestampMs) {
        self.newest_ms.fetch_max(newest_ms, Ordering::Relaxed);
        self.samples.fetch_add(samples as u64, Ordering::Relaxed);
    }

    fn append_late(&self, group: &Group, row: &Row<'_>, appended: &mut Appended) {
        let mut late = self.late();
        for (column, (&series, &value)) in group.columns.iter().zip(row.values).enumerate() {
            if is_absent(value) {
                continue;
            }
            let is_new = late.insert(series, row.timestamp_ms, value);
            if !group.has_samples(column) {
                continue;
            }
            if is_new {
                self.samples.fetch_add(1, Ordering::Relaxed);
                appended.samples += 1;
                appended.late += 1;
            } else {
                appended.duplicates += 1;
            }
        }
    }

    /// Finds matching series: their groups and columns, their labels, and their late samples in the range.
    fn find(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        wanted: Wanted,
    ) -> Found {
        let registry = self.registry();
        let selected = wanted.of(registry.postings(), matchers);
        let mut columns: BTreeMap<GroupId, WantedColumns> = BTreeMap::new();
        let mut found = Found::default();
        for series in &selected {
            let Some(entry) = registry.series(series) else { continue };
            found.labels.insert(series, entry.labels.clone());
            for &(group, column) in &entry.locations {
                columns.entry(group).or_default().push((column, series));
            }
        }
        found.groups =
            columns.into_iter().filter_map(|(id, columns)| Some((registry.group(id)?, columns))).collect();
        // Late samples are taken while the registry cannot change: series numbers are used again.
        let being_cut = Arc::clone(&self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner));
        let late = self.late();
        for source in [&*being_cut, &*late] {
            if source.series.is_empty() {
                continue;
            }
            for (series, labels) in &found.labels {
                if let Some(column) = source.series.get(series) {
                    let (timestamps, values) = column.range(start_ms, end_ms);
                    if !timestamps.is_empty() {
                        let piece = Piece { timestamps: timestamps.into(), values: values.to_vec() };
                        found.late.push((labels.clone(), piece));
                    }
                }
            }
        }
        found
    }

    /// Hands the labels of matching series that may have samples in the range to `visit`.
    pub(crate) fn visit_series(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        visit: &mut impl FnMut(&Labels),
    ) {
        let registry = self.registry();
        let late: HashSet<u32> = {
            let being_cut = self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner);
            let late = self.late();
            being_cut
                .series
                .iter()
                .chain(&late.series)
                .filter(|(_, column)| !column.range(start_ms, end_ms).0.is_empty())
                .map(|(series, _)| *series)
                .collect()
        };
        for number in &registry.postings().select_shown(matchers) {
            let Some(series) = registry.series(number) else { continue };
            let in_range = late.contains(&number)
                || series.locations.iter().filter_map(|(id, _)| registry.group(*id)).any(|group| {
                    let state = group.lock();
                    state
                        .oldest_ms()
                        .is_some_and(|oldest_ms| oldest_ms <= end_ms && state.newest_ms >= start_ms)
                });
            if in_range {
                visit(&series.labels);
            }
        }
    }

    /// Whether any sample in memory may lie in the range.
    pub(crate) fn overlaps(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> bool {
        let late = self.late_range().is_some_and(|(first, last)| first <= end_ms && last >= start_ms);
        let in_order = self.newest_ms().is_some_and(|newest_ms| newest_ms >= start_ms);
        late || in_order && self.oldest_ms().is_some_and(|oldest_ms| oldest_ms <= end_ms)
    }

    /// Oldest timestamp in memory, late samples aside.
    pub(crate) fn oldest_ms(&self) -> Option<TimestampMs> {
        self.registry().groups().filter_map(|(_, group)| group.lock().oldest_ms()).min()
    }

    /// Newest timestamp ever appended in order.
    pub(crate) fn newest_ms(&self) -> Option<TimestampMs> {
        Some(self.newest_ms.load(Ordering::Relaxed)).filter(|&newest| newest != TimestampMs::MIN)
    }

    pub(crate) fn cut_before_ms(&self) -> TimestampMs {
        self.cut_before_ms.load(Ordering::Relaxed)
    }

    /// Samples that arrived since the start, those of journal and checkpoints included.
    pub(crate) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Cells of rows that are no pages yet.
    pub(crate) fn open_cells(&self) -> usize {
        self.registry().groups().map(|(_, group)| group.lock().open_cells()).sum()
    }

    /// Late samples in memory that no cut has taken.
    pub(crate) fn late_len(&self) -> usize {
        self.late().len()
    }

    /// Those that a cut is writing into blocks.
    pub(crate) fn late_being_cut_len(&self) -> usize {
        self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How far the groups have come that were written to in the last `active_ms` by the clock, the one that is
    /// furthest behind; `None` if there is none. To be asked regularly, for this is how it notices.
    pub(crate) fn reached_ms(&self, now_ms: TimestampMs, active_ms: i64) -> Option<TimestampMs> {
        let reached = |(_, group): (_, Arc<Group>)| group.lock().reached_ms(now_ms, active_ms);
        self.registry().groups().filter_map(reached).min()
    }

    /// Bytes of memory, about, of rows older than this: what a cut there gives back.
    pub(crate) fn row_bytes_before(&self, before_ms: TimestampMs) -> usize {
        self.registry().groups().map(|(_, group)| group.lock().row_bytes_before(before_ms)).sum()
    }

    /// Range of the late samples in memory.
    pub(crate) fn late_range(&self) -> Option<(TimestampMs, TimestampMs)> {
        self.late().range()
    }

    /// Bytes in memory, about, of names and indexes of series, and of their samples: what a cut gives back.
    pub(crate) fn memory_bytes(&self) -> (usize, usize) {
        let registry = self.registry();
        let rows: usize = registry.groups().map(|(_, group)| group.lock().row_bytes()).sum();
        (registry.memory_bytes(), rows + self.late().len() * 16)
    }

    /// First step of a cut: from now on rows older than `before_ms` are late, and late samples gather
    /// anew. The caller holds appends back meanwhile.
    pub(crate) fn begin_cut(&self, before_ms: TimestampMs) -> Arc<LateSamples> {
        self.cut_before_ms.fetch_max(before_ms, Ordering::Relaxed);
        self.late_log().begin_cut();
        let late = Arc::new(std::mem::take(&mut *self.late()));
        *self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&late);
        late
    }

    /// Puts late samples back after a cut that failed.
    pub(crate) fn abandon_cut(&self) {
        let mut being_cut = self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::take(&mut *being_cut);
        let mut late = self.late();
        for (&series, column) in &old.series {
            for (&timestamp, &value) in column.timestamps.iter().zip(&column.values) {
                late.insert(series, timestamp, value);
            }
        }
    }

    /// Closes groups of which every sample is in blocks and none is newer than `until_ms`, if one of their
    /// series matches. Whoever goes on writing to one defines it again. Only for who keeps house: meanwhile no
    /// other may close groups.
    pub(crate) fn close_empty(&self, matchers: &[Matcher], until_ms: TimestampMs) {
        let concerned = self.registry().postings().select(matchers);
        let mut registry = self.registry_mut();
        let late: HashSet<u32> = self.late().series.keys().copied().collect();
        registry.close_groups(
            |group| {
                let state = group.lock();
                state.rows() == 0
                    && state.newest_ms <= until_ms
                    && group.columns.iter().any(|&series| concerned.contains(series))
            },
            |series| late.contains(&series),
        );
    }

    /// Last step of a cut, when its blocks can be read: forgets what is in them, and groups and series
    /// that nobody has written to since the cut before.
    pub(crate) fn finish_cut(&self, before_ms: TimestampMs, idle_before_ms: TimestampMs) {
        for group in self.registry().groups().map(|(_, group)| group).collect::<Vec<_>>() {
            group.lock().cut(before_ms);
        }
        self.late_log().finish_cut();
        *self.late_being_cut.lock().unwrap_or_else(PoisonError::into_inner) = Arc::default();
        let mut registry = self.registry_mut();
        let late: HashSet<u32> = self.late().series.keys().copied().collect();
        registry.close_groups(
            |group| {
                let state = group.lock();
                state.rows() == 0 && state.newest_ms < idle_before_ms
            },
            |series| late.contains(&series),
        );
    }
}
