//! The writer: owns the journal, writes frames into it and reads them back.
//!
//! Frames flow in from the ledger, go to disk with the definitions that they need, and flow out again for the
//! backfill lane. Failing disks are noted and tried again; which frames that costs, the ledger decides.

use super::SpoolLimits;
use super::backfill::{BackfillFrame, BackfillReader};
use super::ledger::Unwritten;
use super::record::{self, FrameRecord};
use crate::directory::DefinitionSet;
use crate::own_metrics::{LossReason, OwnMetrics};
use pharos_common::clock::SharedClock;
use pharos_common::journal::{Journal, JournalError, Position};
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Time between attempts to open a journal again that failed for good.
const REOPEN_INTERVAL: Duration = Duration::from_secs(10);
/// Refused frames that are kept for a person to look at.
const SET_ASIDE_MAX: usize = 64;

/// The journal and what it holds.
pub(super) struct Writer {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    /// Where frames go that a collector refuses.
    refused: PathBuf,
    pub(super) journal: Journal,
    /// The journal refuses everything since then; nothing is written until it is opened again.
    broken_since: Option<Duration>,
    failing: bool,
    limits: SpoolLimits,
    metrics: OwnMetrics,
    clock: SharedClock,
    segments: VecDeque<SegmentIndex>,
    /// Definitions that the current segment holds.
    written: Option<Arc<DefinitionSet>>,
    /// All frames up to this one have been written, or could not be.
    passed: u64,
    reader: Option<BackfillReader>,
    scratch: Vec<u8>,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentIndex {
    pub(super) number: u64,
    /// Frames in it have this sequence or a later one.
    pub(super) first_sequence: u64,
    pub(super) newest_ms: i64,
}

/// What reading a frame back found.
pub(super) enum Found {
    Frame(BackfillFrame),
    /// These are not in the journal any more.
    Missing(u64, u64),
    /// It is still to be written.
    NotYet,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "called once, when the spool is opened")]
    pub(super) fn new(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        journal: Journal,
        limits: SpoolLimits,
        metrics: OwnMetrics,
        clock: SharedClock,
        segments: VecDeque<SegmentIndex>,
        passed: u64,
    ) -> Self {
        let writer = Writer {
            io,
            folder: folder.join("journal"),
            refused: folder.join("refused"),
            journal,
            broken_since: None,
            failing: false,
            limits,
            metrics,
            clock,
            segments,
            written: None,
            passed,
            reader: None,
            scratch: Vec::new(),
        };
        writer.show();
        writer
    }

    pub(super) fn set_limits(&mut self, limits: SpoolLimits) {
        self.limits = limits;
    }

    /// Writes a frame; whether that worked.
    pub(super) fn write(&mut self, unwritten: &Unwritten) -> bool {
        let Unwritten { frame, definitions, next_group, .. } = unwritten;
        self.passed = self.passed.max(frame.sequence);
        if self.broken_since.is_some() && !self.reopen() {
            return false;
        }
        match self.try_journal(frame, definitions, *next_group) {
            Ok(()) => {
                self.metrics.frames.inc();
                if std::mem::take(&mut self.failing) {
                    tracing::info!("The journal takes frames again");
                }
                true
            }
            Err(error) => {
                self.note_failure(&error);
                false
            }
        }
    }

    /// Notes that these live frames belong to the backfill lane from now on.
    pub(super) fn assign(&mut self, ranges: &[(u64, u64)]) {
        for &(first, last) in ranges {
            record::encode_assigned(&mut self.scratch, first, last);
            self.write_scratch();
        }
    }

    /// Makes the journal survive a power cut.
    pub(super) fn sync(&mut self) {
        if let Err(error) = self.journal.sync() {
            self.note_failure(&error);
        }
    }

    fn try_journal(
        &mut self,
        frame: &FrameRecord,
        definitions: &Arc<DefinitionSet>,
        next_group: u32,
    ) -> Result<(), JournalError> {
        let segment_max = self.limits.segment_bytes_max.min(self.limits.bytes_max / 4).max(1);
        let full = self.journal.current_segment_bytes() > segment_max;
        let fresh = self.segments.back().is_none_or(|last| last.number != self.journal.current_segment());
        if full && !fresh {
            self.journal.rotate()?;
        }
        if full || fresh {
            self.written = None;
            record::encode_head(&mut self.scratch, next_group, frame.sequence);
            self.journal.append(&self.scratch)?;
            if self.segments.back().is_none_or(|last| last.number != self.journal.current_segment()) {
                self.segments.push_back(SegmentIndex {
                    number: self.journal.current_segment(),
                    first_sequence: frame.sequence,
                    newest_ms: frame.timestamp_ms,
                });
            }
        }
        self.write_definitions(definitions)?;
        record::encode_frame(&mut self.scratch, frame);
        self.journal.append(&self.scratch)?;
        if let Some(segment) = self.segments.back_mut() {
            segment.newest_ms = segment.newest_ms.max(frame.timestamp_ms);
        }
        Ok(())
    }

    fn write_definitions(&mut self, wanted: &Arc<DefinitionSet>) -> Result<(), JournalError> {
        if self.written.as_ref().is_some_and(|written| Arc::ptr_eq(written, wanted)) {
            return Ok(());
        }
        let written = self.written.take();
        let mut changed = false;
        for definition in &wanted.definitions {
            let there = written.as_ref().is_some_and(|written| {
                written.definitions.iter().any(|known| Arc::ptr_eq(known, definition))
            });
            if !there {
                record::encode_definition(&mut self.scratch, definition);
                self.journal.append(&self.scratch)?;
                changed = true;
            }
        }
        if changed {
            // After a power cut a number must not be given to something else.
            self.journal.sync()?;
        }
        self.written = Some(Arc::clone(wanted));
        Ok(())
    }

    fn write_scratch(&mut self) {
        if self.broken_since.is_none()
            && let Err(error) = self.journal.append(&self.scratch)
        {
            self.note_failure(&error);
        }
    }

    fn note_failure(&mut self, error: &JournalError) {
        self.metrics.journal_errors.inc();
        if !self.failing {
            tracing::error!(%error, "The journal takes no frames; they are still sent live");
            self.failing = true;
        }
        if matches!(error, JournalError::Poisoned(_))
            || !matches!(error, JournalError::Io(error) if error.is_full())
        {
            self.broken_since.get_or_insert(self.clock.monotonic());
        }
    }

    /// Opens a journal again that refuses everything, now and then.
    fn reopen(&mut self) -> bool {
        let now = self.clock.monotonic();
        if self.broken_since.is_some_and(|since| now.saturating_sub(since) < REOPEN_INTERVAL) {
            return false;
        }
        self.broken_since = Some(now);
        match Journal::open(Arc::clone(&self.io), &self.folder, |_, _| Ok(())) {
            Ok((mut journal, _)) => {
                let usable = journal.rotate().is_ok();
                if usable {
                    self.journal = journal;
                    self.broken_since = None;
                    self.written = None;
                }
                usable
            }
            Err(_) => false,
        }
    }

    /// Drops the oldest segment of a journal that is too large or too old. Returns the last sequence that
    /// went with it, and why; call again until nothing is dropped.
    pub(super) fn enforce_limits(&mut self) -> Option<(u64, LossReason)> {
        let oldest_kept_ms = self.clock.now_ms().saturating_sub(self.limits.age_max.as_millis() as i64);
        let (oldest, next) = (*self.segments.front()?, *self.segments.get(1)?);
        let reason = if self.journal.total_bytes() > self.limits.bytes_max {
            LossReason::JournalFull
        } else if oldest.newest_ms < oldest_kept_ms {
            LossReason::TooOld
        } else {
            return None;
        };
        if let Err(error) = self.journal.remove_before(next.number) {
            self.note_failure(&error);
            return None;
        }
        self.segments.pop_front();
        Some((next.first_sequence.saturating_sub(1), reason))
    }

    /// Removes segments that hold nothing but frames below `lowest_needed`.
    pub(super) fn free(&mut self, lowest_needed: u64) {
        let mut keep_from = None;
        while let Some(next) = self.segments.get(1).copied()
            && next.first_sequence <= lowest_needed
        {
            self.segments.pop_front();
            keep_from = Some(next.number);
        }
        if let Some(number) = keep_from
            && let Err(error) = self.journal.remove_before(number)
        {
            self.note_failure(&error);
        }
        self.show();
    }

    /// Reads a frame back. Frames are asked for in rising order, and after a new connection anew.
    ///
    /// # Errors
    /// If the journal cannot be read; a later attempt starts anew.
    pub(super) fn read(&mut self, wanted: u64) -> Result<Found, JournalError> {
        if wanted > self.passed {
            return Ok(Found::NotYet);
        }
        loop {
            let mut reader = match self.reader.take().filter(|reader| !reader.is_beyond(wanted)) {
                Some(reader) => reader,
                None => self.open_reader(wanted),
            };
            let Some(frame) = reader.next_frame()? else {
                // The end of the journal: what was wanted is not there.
                return Ok(Found::Missing(wanted, self.passed));
            };
            if frame.sequence < wanted {
                self.reader = Some(reader);
                continue;
            }
            if frame.sequence > wanted {
                let last = frame.sequence - 1;
                reader.put_back(frame);
                self.reader = Some(reader);
                return Ok(Found::Missing(wanted, last));
            }
            let definitions = reader.definitions();
            self.reader = Some(reader);
            return Ok(Found::Frame(BackfillFrame {
                sequence: frame.sequence,
                definitions,
                readings: frame.readings,
            }));
        }
    }

    /// Keeps a copy of a frame that a collector refuses, for a person to look at.
    pub(super) fn set_aside(&mut self, sequence: u64) {
        let Ok(Found::Frame(frame)) = self.read(sequence) else { return };
        let path = self.refused.join(format!("{sequence:020}.tick"));
        let kept = self.io.list(&self.refused).map_or(0, |names| names.len());
        if kept >= SET_ASIDE_MAX {
            tracing::warn!(sequence, folder = %self.refused.display(), "Enough refused frames are kept already");
            return;
        }
        let outcome = self
            .io
            .create_dir_all(&self.refused)
            .and_then(|()| write_atomically(&*self.io, &path, &frame.readings));
        match outcome {
            Ok(()) => {
                tracing::error!(file = %path.display(), "A frame that the collector refuses is set aside")
            }
            Err(error) => tracing::error!(sequence, %error, "A refused frame cannot be set aside"),
        }
    }

    /// A reader at the segment that holds a frame. Segments start with all definitions.
    fn open_reader(&self, sequence: u64) -> BackfillReader {
        let at_or_before = self.segments.iter().rev().find(|segment| segment.first_sequence <= sequence);
        let segment = at_or_before.or(self.segments.front()).map_or(1, |segment| segment.number);
        // Damage in one segment does not reach into the next, nor do definitions.
        let mut journal = self.journal.reader_from_oldest();
        let start = journal.position();
        if segment != start.segment {
            journal = self.journal.reader(Position { segment, offset: start.offset });
        }
        BackfillReader::new(journal)
    }

    fn show(&self) {
        self.metrics.journal_bytes.set(self.journal.total_bytes() as i64);
    }
}
