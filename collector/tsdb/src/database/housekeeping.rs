//! What the engine does by itself: cut the head, merge blocks, drop what retention has passed.

use super::Inner;
use super::checkpoint::Checkpoints;
use super::open::sequence_of;
use crate::block::reader::{Block, BlockError};
use crate::block::writer::RolledUp;
use crate::block::{BLOCK_SPAN_MS, Provenance};
use crate::checkpoint::chain::InBlocks;
use crate::commit::BoundaryKind;
use crate::compact::{self, Candidate};
use crate::cut;
use crate::error::TsdbError;
use crate::manifest::Listed;
use crate::tombstones::Tombstone;
use pharos_common::sample::TimestampMs;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the engine looks whether something is due.
const EVERY: Duration = Duration::from_secs(1);

/// Rows stay in the head for half a window beyond their own, so that ordinary delays are not late.
const HEAD_SPAN_MS: i64 = BLOCK_SPAN_MS + BLOCK_SPAN_MS / 2;

/// How much further than the end of a window those must be who are written to before it is cut.
const BEHIND_WINDOW_MS: i64 = BLOCK_SPAN_MS / 2;

/// Who was written to within this time by the clock goes on there, maybe: a load of past data has pauses.
const WRITTEN_WITHIN_MS: i64 = 10_000;

/// How long a window is kept open at most for those who are behind, by the clock: somebody may be behind for ever.
const WAIT_FOR_WINDOW_MS: i64 = 60_000;

/// Journal size at which the head is cut early: what it takes on disk, and what a restart replays if the
/// checkpoints are damaged.
const JOURNAL_BYTES_MAX: u64 = 512 << 20;

/// The part of the head's memory that samples must take before they are cut for want of it.
const WORTH_CUTTING: usize = 8;

/// While new series are refused the head is cut this often, so that those which nobody writes to any more make
/// room: the second cut after their last sample closes them.
const CROWDED_CUT_EVERY_MS: i64 = 10 * 60_000;

/// State that only one cut or merge at a time may use.
#[derive(Debug)]
pub(super) struct Housekeeping {
    next_sequence: u64,
    /// Deletions that are not cleaned away.
    pub(super) tombstones: Vec<Tombstone>,
    pub(super) checkpoints: Checkpoints,
    /// What the newest cut moved into blocks.
    pub(super) in_blocks: InBlocks,
    /// What the cut before released; segments outlive their block by one.
    released: Option<(u64, TimestampMs)>,
    last_cut_before_ms: TimestampMs,
    /// By the clock, when the last cut began, and how many series had been refused by then.
    last_cut: (TimestampMs, u64),
    /// The window that is kept open, by its end, and since when by the clock.
    kept_open: Option<(TimestampMs, TimestampMs)>,
    /// Blocks that the list on disk names.
    pub(super) listed: Listed,
    /// Those of them that somebody took away.
    pub(super) missing: Vec<String>,
    /// Blocks with damage: served as far as they can be read, but never merged.
    damaged: HashSet<String>,
}

impl Housekeeping {
    pub(super) fn new(
        next_sequence: u64,
        tombstones: Vec<Tombstone>,
        checkpoints: Checkpoints,
        in_blocks: InBlocks,
        now_ms: TimestampMs,
    ) -> Self {
        Housekeeping {
            next_sequence,
            tombstones,
            checkpoints,
            in_blocks,
            released: None,
            last_cut_before_ms: TimestampMs::MIN,
            last_cut: (now_ms, 0),
            kept_open: None,
            listed: Listed::new(),
            missing: Vec::new(),
            damaged: HashSet::new(),
        }
    }

    /// With what the list of blocks said.
    pub(super) fn with_inventory(self, listed: Listed, missing: Vec<String>) -> Self {
        Housekeeping { listed, missing, ..self }
    }

    /// Whether a window may stay open for those who are behind.
    fn keep_open(&mut self, window_end_ms: TimestampMs, now_ms: TimestampMs) -> bool {
        let kept = self.kept_open.filter(|&(end_ms, _)| end_ms == window_end_ms);
        let (_, since_ms) = *self.kept_open.insert(kept.unwrap_or((window_end_ms, now_ms)));
        now_ms - since_ms < WAIT_FOR_WINDOW_MS
    }

    /// Blocks from now on have this sequence or a higher one.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    fn next_name(&mut self, window_ms: TimestampMs) -> String {
        let name = format!("{window_ms}-{:08}.block", self.next_sequence);
        self.next_sequence += 1;
        name
    }
}

/// Wakes the housekeeping thread, or ends it.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    state: Mutex<AlarmState>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct AlarmState {
    stopped: bool,
    rung: bool,
}

impl Alarm {
    fn lock(&self) -> MutexGuard<'_, AlarmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.wake.notify_all();
    }

    /// Lets the thread look at once whether something is due.
    pub(super) fn ring(&self) {
        self.lock().rung = true;
        self.wake.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Waits for the time to pass, or (if `early`) for somebody to ring; `true` when it is time to stop.
    fn wait(&self, time: Duration, early: bool) -> bool {
        let waiting = |state: &mut AlarmState| !(state.stopped || early && state.rung);
        let outcome = self.wake.wait_timeout_while(self.lock(), time, waiting);
        let mut state = outcome.unwrap_or_else(PoisonError::into_inner).0;
        state.rung = false;
        state.stopped
    }
}

impl Inner {
    pub(super) fn housekeeping(&self) -> MutexGuard<'_, Housekeeping> {
        self.housekeeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The housekeeping thread.
    pub(super) fn keep_house(&self, alarm: &Alarm) {
        while !alarm.wait(EVERY, true) {
            let outcome = self.tidy(|| !alarm.is_stopped());
            if let Err(error) = outcome
                && !alarm.is_stopped()
            {
                self.counters.compactions_failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "Cutting or merging blocks failed; trying again");
                // The disk may be full: do not hammer it.
                if alarm.wait(EVERY * 10, false) {
                    return;
                }
            }
        }
    }

    /// Does what is due.
    fn tidy(&self, go_on: impl Fn() -> bool) -> Result<(), TsdbError> {
        let mut housekeeping = self.housekeeping();
        self.check_indexes()?;
        self.drop_expired(&mut housekeeping)?;
        self.list_blocks(&mut housekeeping, &[]);
        while let Some(before_ms) = self.due_cut(&mut housekeeping) {
            self.cut(&mut housekeeping, before_ms)?;
            if !go_on() {
                return Ok(());
            }
        }
        if self.checkpoint_is_due() {
            self.checkpoint(&mut housekeeping)?;
        }
        while go_on() && self.merge_next(&mut housekeeping, &go_on)? {}
        Ok(())
    }

    pub(super) fn flush(&self) -> Result<(), TsdbError> {
        let mut housekeeping = self.housekeeping();
        self.check_indexes()?;
        self.cut_all(&mut housekeeping)?;
        // The new blocks were read back, and whoever asks for this may want the disk to be small.
        if let Some((segment, before_ms)) = housekeeping.released {
            self.commits.release_segments(segment, before_ms);
            let commit = self.commits.request_boundary(&mut self.commits.lock(), BoundaryKind::Segment);
            self.commits.wait_boundary(commit)?;
        }
        while self.merge_next(&mut housekeeping, || true)? {}
        Ok(())
    }

    /// Seals the head into blocks, and shows the files of all blocks and the deletions to `visit` while nothing
    /// merges or drops them.
    pub(super) fn with_still_blocks<T>(
        &self,
        visit: impl FnOnce(&[PathBuf], &[Tombstone]) -> Result<T, TsdbError>,
    ) -> Result<T, TsdbError> {
        let mut housekeeping = self.housekeeping();
        self.cut_all(&mut housekeeping)?;
        let files: Vec<PathBuf> = self.blocks().iter().map(|block| block.path().to_owned()).collect();
        visit(&files, &housekeeping.tombstones)
    }

    pub(super) fn cut_all(&self, housekeeping: &mut Housekeeping) -> Result<(), TsdbError> {
        let before_ms = self.head.newest_ms().map_or(self.head.cut_before_ms(), |newest_ms| newest_ms + 1);
        self.cut(housekeeping, before_ms)
    }

    /// The moment up to which the head should be cut now, if it should.
    fn due_cut(&self, housekeeping: &mut Housekeeping) -> Option<TimestampMs> {
        let now_ms = self.clock.now_ms();
        // A load of past data fills a window while the newest samples are of today: what is cut off under it
        // would be late, and cost many times as much.
        let reached_ms = self.head.reached_ms(now_ms, WRITTEN_WITHIN_MS);
        // A sample from the future must not make everything older late.
        let newest_ms = self.head.newest_ms().map(|newest_ms| newest_ms.min(self.clock.now_ms()));
        if let (Some(oldest_ms), Some(newest_ms)) = (self.head.oldest_ms(), newest_ms) {
            if newest_ms - oldest_ms >= HEAD_SPAN_MS {
                let window_end_ms = (oldest_ms.div_euclid(BLOCK_SPAN_MS) + 1) * BLOCK_SPAN_MS;
                let is_behind = |reached_ms| reached_ms < window_end_ms.saturating_add(BEHIND_WINDOW_MS);
                if !(reached_ms.is_some_and(is_behind) && housekeeping.keep_open(window_end_ms, now_ms)) {
                    return Some(window_end_ms);
                }
            }
            let journal_full = || self.commits.journal_bytes.load(Ordering::Relaxed) > JOURNAL_BYTES_MAX;
            let memory_full = || {
                let (index, samples) = self.head.memory_bytes();
                let all = self.options.head_bytes_max;
                // A cut gives back nothing but samples, so it must find some.
                index.saturating_add(samples) > all && samples > all / WORTH_CUTTING
            };
            let crowded = || {
                let (cut_ms, refused) = housekeeping.last_cut;
                self.clock.now_ms() - cut_ms >= CROWDED_CUT_EVERY_MS && self.head.refusals().total > refused
            };
            if oldest_ms < newest_ms && (journal_full() || memory_full() || crowded()) {
                let worth = |&reached_ms: &TimestampMs| {
                    let (_, samples) = self.head.memory_bytes();
                    reached_ms > oldest_ms && self.head.row_bytes_before(reached_ms) > samples / 2
                };
                return Some(
                    reached_ms.filter(worth).map_or(newest_ms, |reached_ms| reached_ms.min(newest_ms)),
                );
            }
        }
        let late = self.head.late_len();
        let late_is_old = self
            .head
            .late_range()
            .is_some_and(|(_, newest_late_ms)| self.clock.now_ms() - newest_late_ms > HEAD_SPAN_MS);
        let idle_late = late > 0 && late_is_old && self.head.oldest_ms().is_none();
        (late > self.late_max() || idle_late).then(|| self.head.cut_before_ms())
    }

    /// Moves rows before `before_ms`, and all late samples, into blocks.
    pub(super) fn cut(
        &self,
        housekeeping: &mut Housekeeping,
        before_ms: TimestampMs,
    ) -> Result<(), TsdbError> {
        let before_ms = before_ms.max(self.head.cut_before_ms());
        // First a new segment, then the cut: rows that are late for this cut must not lie before the segment
        // behind which replay looks for them. Rows between the two are in the blocks and are replayed as well.
        let commit = self.commits.request_boundary(&mut self.commits.lock(), BoundaryKind::Segment);
        let segment = self.commits.wait_boundary(commit)?.position.segment;
        let late = {
            let _no_appends = self.commits.lock();
            self.head.begin_cut(before_ms)
        };
        let outcome = self.write_cut(housekeeping, before_ms, &late, segment);
        if outcome.is_err() {
            self.head.abandon_cut();
        }
        outcome
    }

    fn write_cut(
        &self,
        housekeeping: &mut Housekeeping,
        before_ms: TimestampMs,
        late: &crate::head::late::LateSamples,
        segment: u64,
    ) -> Result<(), TsdbError> {
        let begun = (self.clock.now_ms(), self.head.refusals().total);
        let provenance =
            Provenance { cut_before_ms: before_ms, journal_segment: segment, replaces: Vec::new() };
        let written = cut::write_blocks(&self.head, late, before_ms, provenance, |window_ms| {
            let name = housekeeping.next_name(window_ms);
            Ok((self.block_writer(&name, RolledUp::Long)?, name))
        })?;
        self.counters.block_bytes_written.fetch_add(written.bytes, Ordering::Relaxed);
        self.publish(&written.files, &[])?;
        self.list_blocks(housekeeping, &[]);
        let idle_before_ms = housekeeping.last_cut_before_ms;
        self.head.finish_cut(before_ms, idle_before_ms);
        self.measure_room();
        if let Some((segment, before_ms)) = housekeeping.released.replace((segment, before_ms)) {
            self.commits.release_segments(segment, before_ms);
        }
        housekeeping.last_cut_before_ms = before_ms;
        housekeeping.last_cut = begun;
        self.begin_scope(housekeeping, InBlocks { before_ms, segment });
        self.remove_checkpoints(housekeeping)?;
        tracing::debug!(
            blocks = written.files.len(),
            samples = written.samples,
            bytes = written.bytes,
            "Head cut"
        );
        Ok(())
    }

    /// Reads new blocks back whole, then shows them to readers instead of those they replace. If one is not
    /// as it was written, all of them are removed: what they were made from is still there.
    fn publish(&self, files: &[PathBuf], replaced: &[Arc<Block>]) -> Result<(), TsdbError> {
        let read_back = |file: &PathBuf| -> Result<Arc<Block>, TsdbError> {
            let block = Block::open_in(&*self.io, file, &self.indexes)?;
            block.verify()?;
            Ok(Arc::new(block))
        };
        let new: Vec<Arc<Block>> = match files.iter().map(read_back).collect() {
            Ok(new) => new,
            Err(error) => {
                // Whatever cannot be removed either is found damaged by the next opening.
                files.iter().for_each(|file| drop(self.io.remove_file(file)));
                let _ = self.io.sync_dir(&self.blocks_folder());
                return Err(error);
            }
        };
        let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
        blocks.retain(|block| !replaced.iter().any(|gone| gone.path() == block.path()));
        blocks.extend(new);
        blocks.sort_by_key(|block| sequence_of(&block.file_name()));
        Ok(())
    }

    /// Does the next merge that is due; `false` if none is.
    pub(super) fn merge_next(
        &self,
        housekeeping: &mut Housekeeping,
        go_on: impl Fn() -> bool,
    ) -> Result<bool, TsdbError> {
        let blocks = self.blocks();
        let candidates: Vec<Candidate> = blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| {
                let is_thinned = block.facts().is_ok_and(|facts| facts.is_thinned);
                !is_thinned && !housekeeping.damaged.contains(&block.file_name())
            })
            .map(|(position, block)| Candidate {
                position,
                oldest_ms: block.oldest_ms(),
                newest_ms: block.newest_ms(),
            })
            .collect();
        let Some(positions) = compact::plan(&candidates, self.head.cut_before_ms()) else { return Ok(false) };
        let sources: Vec<Arc<Block>> =
            positions.iter().map(|&position| Arc::clone(&blocks[position])).collect();
        let oldest_ms = sources.iter().map(|block| block.oldest_ms()).min().unwrap_or(0);
        let name = housekeeping.next_name(oldest_ms.div_euclid(BLOCK_SPAN_MS) * BLOCK_SPAN_MS);
        let folder = self.blocks_folder();
        let writer = self.block_writer(&name, RolledUp::All)?;
        let borrowed: Vec<&Block> = sources.iter().map(Arc::as_ref).collect();
        let merged = compact::merge(&borrowed, writer, &name, go_on);
        if merged.is_err() && self.set_damaged_apart(housekeeping, &sources) {
            return Ok(true);
        }
        let bytes = merged?;
        self.counters.block_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.counters.compactions.fetch_add(1, Ordering::Relaxed);
        self.publish(&[folder.join(&name)], &sources)?;
        self.list_blocks(housekeeping, &[]);
        for source in &sources {
            self.io.remove_file(source.path())?;
        }
        self.io.sync_dir(&folder)?;
        tracing::debug!(blocks = sources.len(), bytes, "Blocks merged");
        Ok(true)
    }

    /// Finds out which of the blocks are damaged; `true` if some are.
    fn set_damaged_apart(&self, housekeeping: &mut Housekeeping, blocks: &[Arc<Block>]) -> bool {
        let mut found = false;
        for block in blocks {
            if let Err(error @ BlockError::Damaged { .. }) = block.verify() {
                tracing::error!(%error, "A block is damaged; what can be read of it is served, it is not merged");
                self.counters.damaged_bytes.fetch_add(block.bytes(), Ordering::Relaxed);
                housekeeping.damaged.insert(block.file_name());
                found = true;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
