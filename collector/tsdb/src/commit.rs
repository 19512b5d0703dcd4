//! Group commit: appends gather entries, one thread writes and syncs them, and tells how far it has come.
//!
//! Everything that was gathered while the disk was busy goes out as one record with one sync, so the rate
//! of syncs adapts to the disk (a giant as several, each with its sync: behind the last sync there is never more
//! than one record, which is how a torn end is told from damage). When the disk is full the thread keeps the record and tries again, and
//! appends are refused meanwhile; when a sync fails nobody knows what is on disk, and the engine is
//! poisoned.

use crate::error::TsdbError;
use crate::head::group::{Group, GroupState};
use crate::head::registry::Registry;
use crate::journal_entry::{EntryWriter, Records};
use crate::metadata::Metadata;
use crate::row::{Lane, StreamId, StreamMark};
use pharos_common::journal::{Journal, JournalError, Position};
use pharos_common::sample::TimestampMs;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Entries that may wait for the disk; beyond, appends are refused.
const PENDING_BYTES_MAX: usize = 32 << 20;

/// Metadata of all metrics, in bytes: what is more is left out. A new epoch repeats all of it in one record.
const METADATA_BYTES_MAX: usize = 8 << 20;

/// What an entry of metadata takes beside its texts.
const METADATA_ENTRY_BYTES: usize = 64;

/// How long entries gather when nobody is held up by them. An agent keeps its frame until it is acknowledged
/// and goes on sending meanwhile; a sync for each frame would write more pages than samples.
const LINGER: Duration = Duration::from_millis(50);

/// How long entries gather at most when somebody is held up, for those to come who are expected: who was held up by
/// the commit before, or came while it was written. A lone sender waits for nobody.
const LINGER_HURRIED: Duration = Duration::from_millis(4);

/// So much is written at once in any case.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// Memory for gathering that is kept from commit to commit.
const SPARE_BYTES_KEPT: usize = 4 << 20;

/// A segment is closed at this size: small enough that what it holds is soon in blocks.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// A row in so many is told in full: what a damaged record costs behind it.
const FULL_ROW_EVERY: u32 = 64;

/// A stream is forgotten so long after its last frame.
const STREAM_KEPT_MS: i64 = 7 * 86_400_000;

/// A record that the disk refuses is tried again so often.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// How far the journal has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Commits up to here are durable.
    pub(crate) durable: u64,
    /// The last boundary that somebody requested.
    pub(crate) boundary: Boundary,
    /// Why the journal takes nothing now.
    pub(crate) failure: Option<Failure>,
}

/// A place between two records that somebody requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Boundary {
    /// The commit before it.
    commit: u64,
    /// Everything behind that commit lies here or later.
    pub(crate) position: Position,
    /// Epoch and number of the record that comes next, as the journal has them.
    pub(crate) next_record: (u32, u64),
}

/// Why the journal takes nothing.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// It will, when there is room.
    Full(Arc<str>),
    /// It never will.
    Poisoned(Arc<str>),
    /// The engine was closed.
    Closed,
}

impl From<&Failure> for TsdbError {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Full(reason) => TsdbError::Busy(reason.to_string()),
            Failure::Poisoned(reason) => TsdbError::Poisoned(reason.to_string()),
            Failure::Closed => TsdbError::Closed,
        }
    }
}

/// What waits to be written, and what every new segment has to repeat.
#[derive(Debug)]
pub(crate) struct Pending {
    entries: EntryWriter,
    /// Number of the epoch; groups remember in which they were defined.
    epoch: u64,
    /// Number of the commit that is gathering.
    commit: u64,
    /// Somebody wants a boundary behind this commit.
    requested: Option<BoundaryKind>,
    /// Counts the boundaries; groups tell their first row behind each in full.
    era: u64,
    /// Since when entries gather; `None` if there are none, or the writing thread has not been told.
    gathering_since: Option<Instant>,
    /// So many are held up until this commit is durable.
    held_up: usize,
    /// So many are likely to be, and then nothing more comes.
    expected: usize,
    closing: bool,
    /// Newest timestamp among the rows gathered.
    newest_ms: TimestampMs,
    marks: HashMap<StreamId, StreamMarks>,
    metadata: BTreeMap<String, Metadata>,
    /// About what it takes.
    metadata_bytes: usize,
}

/// What is to lie at a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoundaryKind {
    /// The beginning of a new segment.
    Segment,
    /// Any record.
    Record,
}

#[derive(Clone, Copy, Debug, Default)]
struct StreamMarks {
    live: u64,
    backfill: u64,
    seen_ms: TimestampMs,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct CommitQueue {
    pending: Mutex<Pending>,
    wake: Condvar,
    /// Goes with `pending`: the progress has changed.
    moved: Condvar,
    progress: watch::Sender<Progress>,
    /// Newest timestamp in each segment, and segments that may be removed.
    segments: Mutex<SegmentBook>,
    pub(crate) bytes_written: AtomicU64,
    /// Bytes of records that no checkpoint covers.
    pub(crate) uncovered_bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) journal_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct SegmentBook {
    newest_ms: BTreeMap<u64, TimestampMs>,
    remove_before: u64,
}

impl CommitQueue {
    /// `epoch` must differ from those the journal holds.
    pub(crate) fn new(epoch: u32) -> Self {
        CommitQueue {
            pending: Mutex::new(Pending {
                entries: EntryWriter::new(epoch),
                epoch: 1,
                commit: 1,
                requested: None,
                gathering_since: None,
                held_up: 0,
                expected: 1,
                era: 1,
                closing: false,
                newest_ms: TimestampMs::MIN,
                marks: HashMap::new(),
                metadata: BTreeMap::new(),
                metadata_bytes: 0,
            }),
            wake: Condvar::new(),
            moved: Condvar::new(),
            progress: watch::channel(Progress::default()).0,
            segments: Mutex::default(),
            bytes_written: AtomicU64::new(0),
            uncovered_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            journal_bytes: AtomicU64::new(0),
        }
    }

    /// Locks what is gathering. Whoever appends holds the lock, so entries are in the order in which rows
    /// are applied.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the writing thread.
    fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells the writing thread of entries that were added, if it does not know that there are some.
    pub(crate) fn added(&self, pending: &mut Pending) {
        let first = pending.gathering_since.is_none() && !pending.entries.is_empty();
        if first {
            pending.gathering_since = Some(Instant::now());
        }
        if first || pending.entries.len() >= LINGER_BYTES_MAX {
            self.wake();
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Says whether appends are taken now.
    pub(crate) fn check_open(&self, pending: &Pending) -> Result<(), TsdbError> {
        if let Some(failure) = &self.progress.borrow().failure {
            return Err(failure.into());
        }
        if pending.closing {
            return Err(TsdbError::Closed);
        }
        if pending.entries.len() > PENDING_BYTES_MAX {
            return Err(TsdbError::Busy("the disk is slower than the samples come".to_owned()));
        }
        Ok(())
    }

    /// As [`CommitQueue::durable`], and sees to it that the commit is written soon.
    pub(crate) async fn durable_now(&self, commit: u64) -> Result<(), TsdbError> {
        {
            let mut pending = self.lock();
            if commit >= pending.commit {
                pending.held_up += 1;
                if pending.held_up == 1 || pending.held_up >= pending.expected {
                    self.wake();
                }
            }
        }
        self.durable(commit).await
    }

    /// Resolves when the commit is durable.
    pub(crate) async fn durable(&self, commit: u64) -> Result<(), TsdbError> {
        let mut progress = self.progress.subscribe();
        let reached = progress
            .wait_for(|progress| progress.durable >= commit || progress.failure.is_some())
            .await
            .map_err(|_| TsdbError::Closed)?;
        match &reached.failure {
            Some(failure) if reached.durable < commit => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// Asks for a boundary behind everything gathered so far. Returns the commit to wait for with
    /// [`CommitQueue::wait_boundary`]. One request at a time: its owner waits before anybody asks again.
    pub(crate) fn request_boundary(&self, pending: &mut Pending, kind: BoundaryKind) -> u64 {
        pending.requested = Some(kind);
        self.wake();
        pending.commit
    }

    /// Blocks until the commit is durable.
    pub(crate) fn wait_durable(&self, commit: u64) -> Result<Progress, TsdbError> {
        let mut pending = self.lock();
        loop {
            let progress = self.progress();
            if progress.durable >= commit {
                return Ok(progress);
            }
            if let Some(failure) = &progress.failure {
                return Err(failure.into());
            }
            pending = self.moved.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Blocks until the boundary behind the commit is there, and everything before it durable.
    pub(crate) fn wait_boundary(&self, commit: u64) -> Result<Boundary, TsdbError> {
        let boundary = self.wait_durable(commit)?.boundary;
        if boundary.commit == commit { Ok(boundary) } else { Err(TsdbError::Closed) }
    }

    /// Tells everybody who waits how far the journal has come.
    fn tell(&self, change: impl FnOnce(&mut Progress)) {
        // Under the lock, so that nobody can miss it between looking and waiting.
        self.tell_locked(&self.lock(), change);
    }

    fn tell_locked(&self, _pending: &Pending, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(change);
        self.moved.notify_all();
    }

    /// Tells that all segments before `segment` whose rows are all older than `cut_before_ms` are not
    /// needed any more.
    pub(crate) fn release_segments(&self, segment: u64, cut_before_ms: TimestampMs) {
        let mut book = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = book
            .newest_ms
            .range(..segment)
            .find(|(_, newest_ms)| **newest_ms >= cut_before_ms)
            .map_or(segment, |(number, _)| *number);
        book.remove_before = book.remove_before.max(needed);
    }

    /// Notes the newest timestamp of a replayed segment.
    pub(crate) fn note_segment(&self, segment: u64, newest_ms: TimestampMs) {
        let mut book = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = book.newest_ms.entry(segment).or_insert(newest_ms);
        *newest = (*newest).max(newest_ms);
    }

    /// Why nothing is taken any more, if so.
    pub(crate) fn poisoned(&self) -> Option<String> {
        match &self.progress.borrow().failure {
            Some(Failure::Poisoned(reason)) => Some(reason.to_string()),
            _ => None,
        }
    }

    /// Ends the writing thread once everything gathered is written.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.wake();
    }

    /// The writing thread. Returns when the queue is closed or poisoned.
    /// `written` is called behind every commit.
    pub(crate) fn run(
        &self,
        mut journal: Journal,
        now_ms: impl Fn() -> TimestampMs,
        mut written: impl FnMut(),
    ) {
        let mut spare = Vec::new();
        while let Some(batch) = self.next_batch(std::mem::take(&mut spare), &journal, &now_ms) {
            if let Err(reason) = self.write(&mut journal, &batch) {
                tracing::error!(%reason, "The journal failed; no more writes are taken");
                self.tell(|progress| progress.failure = Some(Failure::Poisoned(reason.into())));
                return;
            }
            if batch.rotate {
                self.rotate(&mut journal);
            }
            self.journal_bytes.store(journal.total_bytes(), Ordering::Relaxed);
            let mut pending = self.lock();
            // Whoever waited for this commit is likely to come again, now that he can go on.
            pending.expected = (batch.held_up + pending.held_up).max(1);
            self.tell_locked(&pending, |progress| {
                progress.durable = batch.commit;
                progress.failure = None;
                if batch.requested {
                    let (position, next_record) = (journal.end(), batch.next_record);
                    progress.boundary = Boundary { commit: batch.commit, position, next_record };
                }
            });
            drop(pending);
            written();
            spare = batch.records.into_last();
            spare.clear();
            spare.shrink_to(SPARE_BYTES_KEPT);
        }
        self.tell(|progress| progress.failure = Some(Failure::Closed));
    }

    /// Blocks until there is something to write, or the queue is closed.
    fn gathered(&self) -> MutexGuard<'_, Pending> {
        let mut pending = self.lock();
        loop {
            // A new epoch begins with entries that nobody has added.
            if pending.gathering_since.is_none() && !pending.entries.is_empty() {
                pending.gathering_since = Some(Instant::now());
            }
            let at_once = pending.closing
                || pending.requested.is_some()
                || pending.entries.len() >= LINGER_BYTES_MAX
                || pending.held_up >= pending.expected && !pending.entries.is_empty();
            let linger = if pending.held_up > 0 { LINGER_HURRIED } else { LINGER };
            let left = pending.gathering_since.map(|since| linger.saturating_sub(since.elapsed()));
            pending = match left {
                _ if at_once => return pending,
                Some(Duration::ZERO) => return pending,
                Some(left) => self.wake.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(pending).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn next_batch(
        &self,
        spare: Vec<u8>,
        journal: &Journal,
        now_ms: &impl Fn() -> TimestampMs,
    ) -> Option<Batch> {
        let mut pending = self.gathered();
        if pending.entries.is_empty() && pending.requested.is_none() {
            return None;
        }
        let empty = pending.entries.is_empty();
        let records = if empty { Records::default() } else { pending.entries.swap(spare) };
        let full = journal.current_segment_bytes() + records.len() as u64 > SEGMENT_BYTES_MAX;
        let mut batch = Batch {
            records,
            empty,
            requested: pending.requested.is_some(),
            next_record: (0, 0),
            commit: pending.commit,
            held_up: pending.held_up,
            newest_ms: std::mem::replace(&mut pending.newest_ms, TimestampMs::MIN),
            rotate: pending.requested == Some(BoundaryKind::Segment) || full,
        };
        pending.commit += 1;
        pending.gathering_since = None;
        pending.held_up = 0;
        if pending.requested.take().is_some() {
            pending.era += 1;
        }
        if batch.rotate {
            pending.begin_epoch(now_ms());
        }
        batch.next_record = pending.entries.next_record();
        Some(batch)
    }

    /// Writes and syncs the records; waits as long as the disk is full.
    fn write(&self, journal: &mut Journal, batch: &Batch) -> Result<(), String> {
        if batch.empty {
            return Ok(());
        }
        for record in batch.records.iter() {
            self.write_record(journal, record)?;
            self.note_segment(journal.current_segment(), batch.newest_ms);
        }
        Ok(())
    }

    fn write_record(&self, journal: &mut Journal, record: &[u8]) -> Result<(), String> {
        loop {
            match journal.append(record) {
                Ok(_) => break,
                Err(JournalError::Io(error)) => {
                    let reason: Arc<str> = error.to_string().into();
                    if self.progress().failure.is_none() {
                        tracing::error!(%reason, "The journal cannot be written; trying again until it can");
                    }
                    self.tell(|progress| progress.failure = Some(Failure::Full(reason)));
                    let waited =
                        self.wake.wait_timeout_while(self.lock(), RETRY_EVERY, |pending| !pending.closing);
                    if waited.unwrap_or_else(PoisonError::into_inner).0.closing {
                        return Err("closed while the disk took no writes".to_owned());
                    }
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        self.bytes_written.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.uncovered_bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        journal.sync().map_err(|error| error.to_string())?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Starts a new segment and removes those that were released. The next record begins an epoch either
    /// way, so a failure only makes a segment longer.
    fn rotate(&self, journal: &mut Journal) {
        if let Err(error) = journal.rotate() {
            tracing::warn!(%error, "No new journal segment could be started; going on with the old one");
            return;
        }
        let mut book = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let remove_before = book.remove_before.min(journal.current_segment());
        if let Err(error) = journal.remove_before(remove_before) {
            tracing::warn!(%error, "A journal segment could not be removed; trying again later");
        }
        book.newest_ms = book.newest_ms.split_off(&remove_before);
    }

    /// The newest timestamp in each segment up to `segment`.
    pub(crate) fn segments_until(&self, segment: u64) -> Vec<(u64, TimestampMs)> {
        let book = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        book.newest_ms.range(..=segment).map(|(&number, &newest_ms)| (number, newest_ms)).collect()
    }
}

struct Batch {
    records: Records,
    empty: bool,
    /// Somebody waits for the boundary behind it.
    requested: bool,
    next_record: (u32, u64),
    commit: u64,
    /// So many wait for it.
    held_up: usize,
    newest_ms: TimestampMs,
    rotate: bool,
}

fn metadata_bytes(metric: &str, metadata: &Metadata) -> usize {
    METADATA_ENTRY_BYTES + metric.len() + metadata.help.len() + metadata.unit.len()
}

impl Pending {
    /// Number of the commit that what is appended now belongs to; the last one if nothing waits.
    pub(crate) fn last_commit(&self) -> u64 {
        if self.entries.is_empty() { self.commit - 1 } else { self.commit }
    }

    /// Adds a row; called with the group's state locked, before the row is applied.
    pub(crate) fn row(
        &mut self,
        id: u32,
        timestamp_ms: TimestampMs,
        values: &[f64],
        group: &Group,
        state: &mut GroupState,
        registry: &Registry,
    ) {
        self.entries.split_if_full();
        let mut full = state.journal_rows >= FULL_ROW_EVERY;
        if state.journal_epoch != self.epoch {
            let labels: Vec<_> =
                group.columns.iter().filter_map(|&series| Some(&registry.series(series)?.labels)).collect();
            self.entries.define(id, labels.into_iter());
            state.journal_epoch = self.epoch;
            full = true;
        }
        if state.journal_era != self.era {
            state.journal_era = self.era;
            state.rows_in_era = 0;
            full = true;
        }
        state.rows_in_era += 1;
        state.journal_rows = if full { 0 } else { state.journal_rows + 1 };
        self.entries.row(id, timestamp_ms, &mut state.journal_model, values, full);
        self.newest_ms = self.newest_ms.max(timestamp_ms);
    }

    /// Adds a stream's mark.
    pub(crate) fn mark(&mut self, mark: &StreamMark, now_ms: TimestampMs) {
        self.entries.mark(mark);
        self.remember_mark(mark, now_ms);
    }

    /// Takes a replayed mark in.
    pub(crate) fn remember_mark(&mut self, mark: &StreamMark, now_ms: TimestampMs) {
        let marks = self.marks.entry(mark.stream).or_default();
        match mark.lane {
            Lane::Live => marks.live = marks.live.max(mark.sequence),
            Lane::Backfill => marks.backfill = marks.backfill.max(mark.sequence),
        }
        marks.seen_ms = now_ms;
    }

    /// How far a stream's lanes have come: live, backfill.
    pub(crate) fn marks(&self, stream: &StreamId) -> (u64, u64) {
        self.marks.get(stream).map_or((0, 0), |marks| (marks.live, marks.backfill))
    }

    /// Adds metadata if it is news and there is room: nothing hangs on it, and a record has its bound.
    pub(crate) fn metadata(&mut self, metric: &str, metadata: Metadata) {
        let is_news = self.metadata.get(metric) != Some(&metadata);
        if is_news && self.entries.len() <= PENDING_BYTES_MAX && self.has_room_for(metric, &metadata) {
            self.entries.split_if_full();
            self.entries.metadata(metric, &metadata);
            self.remember_metadata(metric, metadata);
        }
    }

    /// Takes replayed metadata in, as far as there is room.
    pub(crate) fn remember_metadata(&mut self, metric: &str, metadata: Metadata) {
        if self.has_room_for(metric, &metadata) {
            self.metadata_bytes += metadata_bytes(metric, &metadata);
            if let Some(before) = self.metadata.insert(metric.to_owned(), metadata) {
                self.metadata_bytes -= metadata_bytes(metric, &before);
            }
        }
    }

    fn has_room_for(&self, metric: &str, metadata: &Metadata) -> bool {
        let before = self.metadata.get(metric).map_or(0, |before| metadata_bytes(metric, before));
        self.metadata_bytes - before + metadata_bytes(metric, metadata) <= METADATA_BYTES_MAX
    }

    /// All metadata, sorted by metric.
    pub(crate) fn all_metadata(&self) -> Vec<(String, Metadata)> {
        self.metadata.iter().map(|(metric, metadata)| (metric.clone(), metadata.clone())).collect()
    }

    /// Counts the boundaries so far.
    pub(crate) fn era(&self) -> u64 {
        self.era
    }

    /// Marks and metadata as a record of their own, as a new epoch repeats them.
    pub(crate) fn state_record(&self) -> Vec<u8> {
        let mut entries = EntryWriter::new(0);
        repeat(&self.marks, &self.metadata, &mut entries);
        entries.swap(Vec::new()).into_last()
    }

    /// A new epoch stands alone: it repeats marks and metadata, and groups are defined again.
    pub(crate) fn begin_epoch(&mut self, now_ms: TimestampMs) {
        self.epoch += 1;
        self.entries.restart();
        self.marks.retain(|_, marks| now_ms - marks.seen_ms < STREAM_KEPT_MS);
        repeat(&self.marks, &self.metadata, &mut self.entries);
    }
}

fn repeat(
    marks: &HashMap<StreamId, StreamMarks>,
    metadata: &BTreeMap<String, Metadata>,
    entries: &mut EntryWriter,
) {
    for (&stream, marks) in marks {
        for (lane, sequence) in [(Lane::Live, marks.live), (Lane::Backfill, marks.backfill)] {
            if sequence > 0 {
                entries.mark(&StreamMark { stream, lane, sequence });
            }
        }
    }
    for (metric, metadata) in metadata {
        entries.metadata(metric, metadata);
    }
}
