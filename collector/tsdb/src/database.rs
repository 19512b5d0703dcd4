//! The engine as callers see it: opens a folder, takes rows, answers selections, keeps house.
//!
//! ```text
//! folder/VERSION           which format this is
//! folder/LOCK              held by the process that has it open
//! folder/journal/          rows that are not in blocks yet
//! folder/checkpoints/      the head as it was, so that little of the journal has to be replayed
//! folder/exemplars/        the newest exemplars
//! folder/blocks/*.block    blocks, named by window and sequence
//! folder/manifest          which blocks there are
//! folder/tombstones        what was deleted and is not cleaned away; its second copy is tombstones.copy
//! folder/snapshots/        copies of the blocks by hard links
//! folder/damaged/          files set aside
//! ```

mod checkpoint;
mod delete;
mod housekeeping;
mod inventory;
mod open;
mod read;
mod replay;
mod restore;
mod retention;
mod room;
mod selection;
mod snapshot;
mod statistics;
mod summarize;
mod verify;

pub use open::{OpenReport, Options};
pub use selection::Selection;
pub use statistics::{Ranking, Statistics};
pub use summarize::{SUMMARY_GRAIN_MS, Summaries};
pub use verify::{FileCheck, Verdict};

use crate::block::cache::BlockCache;
use crate::block::index_cache::IndexCache;
use crate::block::reader::Block;
use crate::commit::CommitQueue;
use crate::error::TsdbError;
use crate::exemplars::{AppendedExemplars, Exemplar, ExemplarLog};
use crate::head::guard::Guard;
use crate::head::{Head, Window};
use crate::metadata::Metadata;
use crate::row::{AppendBatch, Appended, CommitNumber, GroupId, Lane, Row, StreamId};
use housekeeping::Housekeeping;
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{FolderLock, StorageIo};
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

/// Samples further ahead of the clock are refused.
const FUTURE_MAX_MS: i64 = 24 * 3_600_000;

/// An open engine; clones share it. The folder is free again when the last clone is gone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
    /// Ends the threads when the last clone of the handle goes; the threads hold `inner` only.
    _threads: Arc<Threads>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("folder", &self.inner.folder).finish_non_exhaustive()
    }
}

struct Inner {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    options: Options,
    guard: Guard,
    clock: SharedClock,
    head: Head,
    commits: CommitQueue,
    /// Sorted by the sequence in their names: earliest stored first.
    blocks: RwLock<Vec<Arc<Block>>>,
    /// See [`Database::samples_since_ms`].
    samples_since_ms: AtomicI64,
    /// Decoded pages of the blocks.
    pages: Arc<BlockCache>,
    indexes: Arc<IndexCache>,
    housekeeping: Mutex<Housekeeping>,
    exemplars: ExemplarLog,
    room: room::Room,
    counters: Counters,
    _lock: Box<dyn FolderLock>,
}

#[derive(Debug, Default)]
struct Counters {
    late: AtomicU64,
    duplicates: AtomicU64,
    too_old: AtomicU64,
    too_new: AtomicU64,
    appended: AtomicU64,
    block_bytes_written: AtomicU64,
    /// What checkpoints take on disk.
    checkpoint_bytes: AtomicU64,
    checkpoint_bytes_written: AtomicU64,
    checkpoints: AtomicU64,
    compactions: AtomicU64,
    compactions_failed: AtomicU64,
    damaged_bytes: AtomicU64,
    blocks_missing: AtomicU64,
}

struct Threads {
    inner: Arc<Inner>,
    handles: Mutex<Vec<JoinHandle<()>>>,
    alarm: Arc<housekeeping::Alarm>,
}

impl Threads {
    fn end(&self) {
        self.alarm.stop();
        self.inner.commits.close();
        let handles = std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            if handle.join().is_err() {
                tracing::error!("A thread of the storage engine panicked");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.end();
    }
}

/// What the engine holds and has done, since it was opened.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "each field is what it is called")]
pub struct Stats {
    pub head_series: u64,
    pub head_groups: u64,
    /// Samples stored since the engine was opened, replayed ones included.
    pub head_samples: u64,
    /// Bytes for names and indexes of the head's series.
    pub head_index_bytes: u64,
    /// Bytes for their samples.
    pub head_sample_bytes: u64,
    pub head_late_samples: u64,
    /// New series refused for a limit.
    pub series_refused: u64,
    pub head_min_ms: Option<TimestampMs>,
    pub head_max_ms: Option<TimestampMs>,
    pub samples_appended: u64,
    pub samples_late: u64,
    pub samples_duplicate: u64,
    pub samples_too_old: u64,
    pub samples_too_new: u64,
    pub journal_bytes: u64,
    pub journal_bytes_written: u64,
    pub journal_syncs: u64,
    pub blocks: u64,
    pub block_bytes: u64,
    pub block_bytes_written: u64,
    /// Times that the index of a block was wanted and was in memory.
    pub index_cache_hits: u64,
    /// The same when it had to be read.
    pub index_cache_misses: u64,
    /// Memory, about, of the indexes kept.
    pub index_cache_bytes: u64,
    pub checkpoints: u64,
    /// What they take on disk.
    pub checkpoint_bytes: u64,
    pub checkpoint_bytes_written: u64,
    pub compactions: u64,
    pub compactions_failed: u64,
    /// Bytes of files found damaged, those that were set aside before the start included.
    pub damaged_bytes: u64,
    /// Blocks that somebody took away.
    pub blocks_missing: u64,
}

impl Database {
    /// Finds or makes the group with exactly these series, in this order. At most 256; a group that nobody
    /// writes to for hours is closed, and its id unknown from then on.
    ///
    /// # Errors
    /// If the group has no columns or too many, or the limit of series is reached.
    pub fn define_group(&self, columns: &[Labels]) -> Result<GroupId, TsdbError> {
        let outcome = self.try_define_group(columns);
        if let Err(TsdbError::TooManySeries { .. }) = &outcome {
            self.inner.head.count_refused(columns, &self.inner.guard);
        }
        outcome
    }

    /// As [`Database::define_group`], for somebody who tries one by one what is refused together: what is
    /// refused here is not counted.
    ///
    /// # Errors
    /// As [`Database::define_group`].
    pub fn try_define_group(&self, columns: &[Labels]) -> Result<GroupId, TsdbError> {
        self.inner.head.define_group(columns, &self.inner.guard)
    }

    /// Appends rows: readers see them at once, [`Database::durable`] tells when they are safe. Does not
    /// wait for the disk.
    ///
    /// # Errors
    /// If the journal takes nothing now, or a row does not fit its group. Rows before a misfit are
    /// appended; the stream's mark is not moved.
    pub fn append(&self, batch: &AppendBatch<'_>) -> Result<Appended, TsdbError> {
        let inner = &*self.inner;
        let now_ms = inner.clock.now_ms();
        let window = Window {
            oldest_ms: inner.options.retention_ms.map_or(TimestampMs::MIN, |retention| now_ms - retention),
            newest_ms: now_ms + FUTURE_MAX_MS,
        };
        let mut appended = Appended::default();
        let registry = inner.head.registry();
        let mut pending = inner.commits.lock();
        inner.commits.check_open(&pending)?;
        if let Some(mark) = &batch.mark {
            let (live, backfill) = pending.marks(&mark.stream);
            let reached = if mark.lane == Lane::Live { live } else { backfill };
            if mark.sequence <= reached {
                appended.repeated = true;
                appended.commit = CommitNumber(pending.last_commit());
                return Ok(appended);
            }
        }
        let outcome = batch.rows.iter().try_for_each(|row: &Row<'_>| {
            inner.head.append_row(&registry, row, window, &mut appended, |group, state, values| {
                pending.row(row.group.0, row.timestamp_ms, values, group, state, &registry);
            })
        });
        if let (Ok(()), Some(mark)) = (&outcome, &batch.mark) {
            pending.mark(mark, now_ms);
        }
        appended.commit = CommitNumber(pending.last_commit());
        inner.commits.added(&mut pending);
        drop(pending);
        drop(registry);
        inner.counters.count(&appended);
        if inner.take_room(appended.samples) {
            self._threads.alarm.ring();
        }
        outcome.map(|()| appended)
    }

    /// Resolves when the commit would survive a power cut. It gathers more for no longer than four milliseconds, and
    /// only if others than the caller waited just before.
    ///
    /// # Errors
    /// If the journal could not take it (yet). The samples may still become durable later.
    pub async fn durable(&self, commit: CommitNumber) -> Result<(), TsdbError> {
        self.inner.commits.durable_now(commit.0).await
    }

    /// As [`Database::durable`] for somebody who is not held up meanwhile: the commit may gather more for some
    /// hundredths of a second, so that many small appends cost one write.
    ///
    /// # Errors
    /// As [`Database::durable`].
    pub async fn durable_unhurried(&self, commit: CommitNumber) -> Result<(), TsdbError> {
        self.inner.commits.durable(commit.0).await
    }

    /// The commit that everything appended so far belongs to.
    pub fn last_commit(&self) -> CommitNumber {
        CommitNumber(self.inner.commits.lock().last_commit())
    }

    /// How far the lanes of a stream have come, live and backfill. They are durable when
    /// [`Database::last_commit`], taken after this, is.
    pub fn stream_marks(&self, stream: &StreamId) -> (u64, u64) {
        self.inner.commits.lock().marks(stream)
    }

    /// Remembers what a metric means; durable with the next commit.
    pub fn set_metadata(&self, metric: &str, metadata: Metadata) {
        let mut pending = self.inner.commits.lock();
        pending.metadata(metric, metadata);
        self.inner.commits.added(&mut pending);
    }

    /// What metrics mean, sorted by metric.
    pub fn metadata(&self) -> Vec<(String, Metadata)> {
        self.inner.commits.lock().all_metadata()
    }

    /// Keeps exemplars of series: durable, and there for readers, when this returns. Blocks the thread.
    ///
    /// # Errors
    /// If their journal cannot take them now.
    pub fn append_exemplars(&self, exemplars: &[(Labels, Exemplar)]) -> Result<AppendedExemplars, TsdbError> {
        self.inner.exemplars.append(exemplars)
    }

    /// The exemplars of all series that one of the selectors matches, in the range (both ends included),
    /// sorted by series, oldest first.
    pub fn exemplars(
        &self,
        selectors: &[Vec<Matcher>],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Vec<(Labels, Vec<Exemplar>)> {
        self.inner.exemplars.select(selectors, start_ms, end_ms)
    }

    /// Seals the head into blocks, merges those that are due, and returns when all is durable. Blocks the
    /// thread.
    ///
    /// # Errors
    /// If a file operation fails; nothing is lost then, and it can be tried again.
    pub fn flush(&self) -> Result<(), TsdbError> {
        self.inner.flush()
    }

    /// Writes what only the journal has into a checkpoint, so that the next opening has nothing to replay.
    /// Blocks the thread.
    ///
    /// # Errors
    /// If a file operation fails; nothing is lost then.
    pub fn checkpoint(&self) -> Result<(), TsdbError> {
        self.inner.checkpoint(&mut self.inner.housekeeping())
    }

    /// Why the engine takes no writes until it is restarted, if so.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.commits.poisoned()
    }

    /// Makes everything appended durable and ends the engine's threads. Reads still work. Blocks the
    /// thread.
    ///
    /// # Errors
    /// If the journal could not take what was appended.
    pub fn close(&self) -> Result<(), TsdbError> {
        let last = self.last_commit();
        self._threads.end();
        if self.inner.commits.progress().durable >= last.0 {
            return Ok(());
        }
        Err(self.poisoned().map_or(TsdbError::Closed, TsdbError::Poisoned))
    }

    /// New series that were refused since the start, by their metric and the guarded label; at most some hundred
    /// names, and what is rare under one.
    pub fn series_refused(&self) -> Vec<(String, u64)> {
        self.inner.head.refusals().worst()
    }

    /// What the engine holds and has done.
    pub fn stats(&self) -> Stats {
        let inner = &*self.inner;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (blocks, indexes) = (inner.blocks(), inner.indexes.stats());
        let (head_index_bytes, head_sample_bytes) = inner.head.memory_bytes();
        let (head_series, head_groups) = {
            let registry = inner.head.registry();
            (registry.series_count() as u64, registry.group_count() as u64)
        };
        Stats {
            head_series,
            head_groups,
            head_samples: inner.head.samples(),
            head_index_bytes: head_index_bytes as u64,
            head_sample_bytes: head_sample_bytes as u64,
            head_late_samples: inner.head.late_len() as u64,
            series_refused: inner.head.refusals().total,
            head_min_ms: inner.head.oldest_ms(),
            head_max_ms: inner.head.newest_ms(),
            samples_appended: load(&inner.counters.appended),
            samples_late: load(&inner.counters.late),
            samples_duplicate: load(&inner.counters.duplicates),
            samples_too_old: load(&inner.counters.too_old),
            samples_too_new: load(&inner.counters.too_new),
            journal_bytes: load(&inner.commits.journal_bytes),
            journal_bytes_written: load(&inner.commits.bytes_written),
            journal_syncs: load(&inner.commits.syncs),
            blocks: blocks.len() as u64,
            block_bytes: blocks.iter().map(|block| block.bytes()).sum(),
            block_bytes_written: load(&inner.counters.block_bytes_written),
            index_cache_hits: indexes.hits,
            index_cache_misses: indexes.misses,
            index_cache_bytes: indexes.bytes,
            checkpoints: load(&inner.counters.checkpoints),
            checkpoint_bytes: load(&inner.counters.checkpoint_bytes),
            checkpoint_bytes_written: load(&inner.counters.checkpoint_bytes_written),
            compactions: load(&inner.counters.compactions),
            compactions_failed: load(&inner.counters.compactions_failed),
            damaged_bytes: load(&inner.counters.damaged_bytes),
            blocks_missing: load(&inner.counters.blocks_missing),
        }
    }
}

/// A block on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Its file.
    pub name: String,
    /// The oldest sample in it.
    pub oldest_ms: TimestampMs,
    /// The newest.
    pub newest_ms: TimestampMs,
    /// Size of the file.
    pub bytes: u64,
    /// Version of the format.
    pub version: u32,
}

impl Database {
    /// The blocks, the oldest first.
    pub fn block_infos(&self) -> Vec<BlockInfo> {
        let info = |block: &Arc<Block>| BlockInfo {
            name: block.file_name(),
            oldest_ms: block.oldest_ms(),
            newest_ms: block.newest_ms(),
            bytes: block.bytes(),
            version: u32::from(block.version()),
        };
        let mut infos: Vec<BlockInfo> = self.inner.blocks().iter().map(info).collect();
        infos.sort_by_key(|block| (block.oldest_ms, block.newest_ms));
        infos
    }
}

impl Inner {
    fn blocks(&self) -> Vec<Arc<Block>> {
        self.blocks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn blocks_folder(&self) -> PathBuf {
        self.folder.join("blocks")
    }
}

impl Counters {
    fn count(&self, appended: &Appended) {
        self.appended.fetch_add(appended.samples, Ordering::Relaxed);
        self.late.fetch_add(appended.late, Ordering::Relaxed);
        self.duplicates.fetch_add(appended.duplicates, Ordering::Relaxed);
        self.too_old.fetch_add(appended.too_old, Ordering::Relaxed);
        self.too_new.fetch_add(appended.too_new, Ordering::Relaxed);
    }
}
