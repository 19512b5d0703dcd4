//! The spool: keeps frames until a collector has made them durable.
//!
//! Every frame gets its sequence here, goes into the journal, and is offered to the live lane if a
//! collector is connected. A frame that could not be sent live, or whose live copy never arrived, waits for
//! the backfill lane; [`Spool::next_backfill`] reads it back from the journal. Acknowledgements free the
//! journal segment by segment. When the journal is full the oldest frames go, counted; when the disk is,
//! frames still go out live.
//!
//! [`Spool`] decides, without threads or network; [`keeper`] runs it on a thread of its own.
//!
//! # Which lane a frame belongs to
//!
//! A frame has one lane at a time. It is *in flight* when sent live and not acknowledged, *pending* when it
//! belongs to the backfill lane, and *in doubt* when an earlier run of the agent sent it live and died. On
//! connecting, the collector tells its highest durable sequence of both lanes, which settles every doubt:
//! what lies above it moves to the backfill lane, and a record in the journal says so. Since the collector
//! stores a backfilled frame only if its sequence is above all others of that lane, backfill never
//! overtakes a frame in flight.

mod backfill;
pub mod keeper;
mod ranges;
mod record;

pub use backfill::BackfillFrame;
pub use keeper::{SpoolHandle, SpoolView};

use crate::directory::{Definition, DefinitionSet};
use crate::error::AgentError;
use crate::frame::FrameDraft;
use crate::own_metrics::{LossReason, OwnMetrics};
use backfill::BackfillReader;
use bytes::Bytes;
use pharos_common::clock::SharedClock;
use pharos_common::journal::{Journal, JournalError};
use pharos_common::storage_io::{StorageIo, write_atomically};
use pharos_proto::v1::Lane;
use ranges::Ranges;
use record::{FrameRecord, Record};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Bytes of a stream's identity, as `Hello` carries it.
pub const STREAM_ID_BYTES: usize = 16;
/// Live frames without acknowledgement; more means that the collector does not keep up.
const IN_FLIGHT_FRAMES_MAX: usize = 1_024;
/// Backfilled bytes without acknowledgement: enough to fill a fast line, little enough to hold in memory.
const BACKFILL_WINDOW_BYTES: usize = 2 << 20;
/// A power cut may take back the last records of the journal, and with them the knowledge of which
/// sequences were used. Skipping more than a segment can hold keeps them unique.
const SEQUENCES_SKIPPED_AT_START: u64 = 1 << 20;
/// Time between attempts to open a journal again that failed for good.
const REOPEN_INTERVAL: Duration = Duration::from_secs(10);

/// Bounds of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all its segments.
    pub bytes_max: u64,
    /// Age of its oldest frame.
    pub age_max: Duration,
    /// Bytes after which a segment is closed. Segments are freed whole.
    pub segment_bytes_max: u64,
}

impl Default for SpoolLimits {
    /// Two days of 500 series at 1 s.
    fn default() -> Self {
        SpoolLimits {
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(48 * 3_600),
            segment_bytes_max: 8 << 20,
        }
    }
}

/// A frame on its way to the collector.
#[derive(Clone, Debug)]
pub struct LiveFrame {
    /// Its sequence.
    pub sequence: u64,
    /// What its readings refer to.
    pub definitions: Arc<DefinitionSet>,
    /// `Tick.readings`, encoded.
    pub readings: Bytes,
}

/// What opening found.
pub struct Opened {
    /// The spool.
    pub spool: Spool,
    /// Definitions of earlier runs, newest of each object.
    pub definitions: Vec<Arc<Definition>>,
    /// Number to give to the next new object.
    pub next_group: u32,
}

/// Frames, their fate and their journal.
pub struct Spool {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    journal: Journal,
    /// The journal refuses everything since then; nothing is written until it is opened again.
    broken_since: Option<Duration>,
    failing: bool,
    limits: SpoolLimits,
    metrics: OwnMetrics,
    clock: SharedClock,
    stream_id: [u8; STREAM_ID_BYTES],
    next_sequence: u64,
    segments: VecDeque<SegmentIndex>,
    /// Definitions that the current segment holds.
    written: Option<Arc<DefinitionSet>>,
    live: Option<mpsc::Sender<LiveFrame>>,
    in_flight: VecDeque<InFlight>,
    in_doubt: Ranges,
    pending: Ranges,
    backfill: BackfillState,
    scratch: Vec<u8>,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug)]
struct SegmentIndex {
    number: u64,
    /// Frames in it have this sequence or a later one.
    first_sequence: u64,
    newest_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sequence: u64,
    journalled: bool,
}

/// The backfill lane of the connection.
#[derive(Debug, Default)]
struct BackfillState {
    reader: Option<BackfillReader>,
    /// Frames below have been sent on this connection.
    next: u64,
    /// Sequence and size of frames that were sent and not acknowledged.
    unacknowledged: VecDeque<(u64, usize)>,
    unacknowledged_bytes: usize,
}

impl Spool {
    /// Opens the spool in `folder`, creating it if it is missing.
    ///
    /// # Errors
    /// If the journal or the stream's identity cannot be read or written.
    pub fn open(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        limits: SpoolLimits,
        metrics: OwnMetrics,
        clock: SharedClock,
    ) -> Result<Opened, AgentError> {
        io.create_dir_all(folder)?;
        let stream_id = read_or_create_stream_id(&*io, folder)?;
        let mut found = Found::default();
        let journal_folder = folder.join("journal");
        let (mut journal, recovery) = Journal::open(Arc::clone(&io), &journal_folder, |at, bytes| {
            found.visit(at.segment, bytes);
            Ok(())
        })?;
        if recovery.records > 0 {
            tracing::info!(
                frames = found.frames,
                segments = found.segments.len(),
                torn_bytes = recovery.torn_bytes,
                damaged_bytes = recovery.damaged_bytes,
                "Journal opened"
            );
            // New frames follow new definitions, so that each segment can be read by itself.
            journal.rotate()?;
        }
        let next_sequence = match found.next_sequence {
            0 => 1,
            used => used.saturating_add(SEQUENCES_SKIPPED_AT_START),
        };
        let spool = Spool {
            io,
            folder: journal_folder,
            journal,
            broken_since: None,
            failing: false,
            limits,
            metrics,
            clock,
            stream_id,
            next_sequence,
            segments: found.segments.into(),
            written: None,
            live: None,
            in_flight: VecDeque::new(),
            in_doubt: found.in_doubt,
            pending: found.pending,
            backfill: BackfillState::default(),
            scratch: Vec::new(),
        };
        spool.show();
        Ok(Opened {
            spool,
            definitions: found.definitions.into_values().collect(),
            next_group: found.next_group,
        })
    }

    /// The stream's identity.
    pub fn stream_id(&self) -> [u8; STREAM_ID_BYTES] {
        self.stream_id
    }

    /// Changes the bounds.
    pub fn set_limits(&mut self, limits: SpoolLimits) {
        self.limits = limits;
        self.enforce_limits();
    }

    /// Journals a frame and sends it live if it can.
    pub fn append(&mut self, draft: FrameDraft, next_group: u32, wanted: Lane) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let readings = Bytes::from(draft.readings);
        let lane = match &self.live {
            Some(live) if wanted == Lane::Live && self.in_flight.len() < IN_FLIGHT_FRAMES_MAX => {
                live.clone().try_reserve_owned().ok()
            }
            _ => None,
        };
        let frame = FrameRecord {
            sequence,
            timestamp_ms: draft.timestamp_ms,
            samples: draft.samples,
            backfill: lane.is_none(),
            readings: readings.clone(),
        };
        let journalled = self.journal_frame(&frame, &draft.definitions, next_group);
        match lane {
            Some(permit) => {
                self.in_flight.push_back(InFlight { sequence, journalled });
                permit.send(LiveFrame { sequence, definitions: draft.definitions, readings });
            }
            None if journalled => self.pending.insert(sequence),
            None => self.metrics.lose(LossReason::JournalFailed, 1),
        }
        self.enforce_limits();
        self.show();
    }

    /// A collector is connected and told what it has. From now on fresh frames go to `live`.
    pub fn connected(&mut self, live_durable: u64, backfill_durable: u64, live: mpsc::Sender<LiveFrame>) {
        let mut assign = Ranges::default();
        for InFlight { sequence, journalled } in std::mem::take(&mut self.in_flight) {
            if sequence <= live_durable {
                self.metrics.acknowledged.with_label_values(&["live"]).inc();
            } else if journalled {
                assign.insert(sequence);
            } else {
                self.metrics.lose(LossReason::JournalFailed, 1);
            }
        }
        self.in_doubt.remove_up_to(live_durable);
        for (first, last) in std::mem::take(&mut self.in_doubt).iter() {
            assign.insert_range(first, last);
        }
        for (first, last) in assign.iter() {
            self.pending.insert_range(first, last);
            record::encode_assigned(&mut self.scratch, first, last);
            self.write_scratch();
        }
        self.pending.remove_up_to(backfill_durable);
        self.next_sequence = self.next_sequence.max(live_durable + 1).max(backfill_durable + 1);
        self.backfill = BackfillState::default();
        self.live = Some(live);
        self.free();
        self.show();
    }

    /// The connection is gone. Frames in flight stay so until the next one tells their fate.
    pub fn disconnected(&mut self) {
        self.live = None;
        self.backfill = BackfillState::default();
        self.show();
    }

    /// A collector has made everything up to `sequence` of a lane durable.
    pub fn acknowledged(&mut self, lane: Lane, sequence: u64) {
        let mut frames = 0;
        match lane {
            Lane::Live => {
                while self.in_flight.front().is_some_and(|frame| frame.sequence <= sequence) {
                    self.in_flight.pop_front();
                    frames += 1;
                }
                self.metrics.acknowledged.with_label_values(&["live"]).inc_by(frames);
            }
            Lane::Backfill => {
                while let Some(&(sent, bytes)) = self.backfill.unacknowledged.front()
                    && sent <= sequence
                {
                    self.backfill.unacknowledged.pop_front();
                    self.backfill.unacknowledged_bytes -= bytes;
                    self.pending.remove_range(sent, sent);
                    frames += 1;
                }
                self.metrics.acknowledged.with_label_values(&["backfill"]).inc_by(frames);
            }
        }
        if frames > 0 {
            self.free();
            self.show();
        }
    }

    /// Frames that no collector has made durable yet.
    pub fn outstanding(&self) -> u64 {
        self.in_flight.len() as u64 + self.pending.len() + self.in_doubt.len()
    }

    /// Live frames without acknowledgement.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Makes the journal survive a power cut.
    pub fn sync(&mut self) {
        if let Err(error) = self.journal.sync() {
            self.note_failure(&error);
        }
    }

    fn journal_frame(
        &mut self,
        frame: &FrameRecord,
        definitions: &Arc<DefinitionSet>,
        next_group: u32,
    ) -> bool {
        if self.broken_since.is_some() && !self.reopen() {
            return false;
        }
        let outcome = self.try_journal(frame, definitions, next_group);
        match outcome {
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

    /// Drops the oldest segments of a journal that is too large or too old.
    fn enforce_limits(&mut self) {
        let oldest_kept_ms = self.clock.now_ms().saturating_sub(self.limits.age_max.as_millis() as i64);
        while let (Some(oldest), Some(next)) = (self.segments.front().copied(), self.segments.get(1).copied())
        {
            let reason = if self.journal.total_bytes() > self.limits.bytes_max {
                LossReason::JournalFull
            } else if oldest.newest_ms < oldest_kept_ms {
                LossReason::TooOld
            } else {
                return;
            };
            if let Err(error) = self.journal.remove_before(next.number) {
                self.note_failure(&error);
                return;
            }
            self.segments.pop_front();
            let last = next.first_sequence.saturating_sub(1);
            let lost = self.pending.remove_up_to(last) + self.in_doubt.remove_up_to(last);
            if lost > 0 {
                tracing::warn!(frames = lost, ?reason, "The oldest frames of the journal are dropped");
                self.metrics.lose(reason, lost);
            }
            for frame in self.in_flight.iter_mut().filter(|frame| frame.sequence <= last) {
                frame.journalled = false;
            }
        }
    }

    /// Removes segments that hold nothing but durable frames.
    fn free(&mut self) {
        let in_flight = self.in_flight.front().map(|frame| frame.sequence);
        let needed = [in_flight, self.pending.first(), self.in_doubt.first()];
        let lowest = needed.into_iter().flatten().min().unwrap_or(self.next_sequence);
        let mut keep_from = None;
        while let Some(next) = self.segments.get(1).copied()
            && next.first_sequence <= lowest
        {
            self.segments.pop_front();
            keep_from = Some(next.number);
        }
        if let Some(number) = keep_from
            && let Err(error) = self.journal.remove_before(number)
        {
            self.note_failure(&error);
        }
    }

    fn show(&self) {
        self.metrics.journal_bytes.set(self.journal.total_bytes() as i64);
        self.metrics.backfill_frames.set(self.pending.len() as i64);
    }
}

/// What replaying the journal tells.
#[derive(Default)]
struct Found {
    definitions: BTreeMap<String, Arc<Definition>>,
    next_group: u32,
    next_sequence: u64,
    segments: Vec<SegmentIndex>,
    in_doubt: Ranges,
    pending: Ranges,
    frames: u64,
}

impl Found {
    fn visit(&mut self, segment: u64, bytes: &[u8]) {
        match record::decode(bytes) {
            Some(Record::Head { next_group, next_sequence }) => {
                self.next_group = self.next_group.max(next_group);
                self.next_sequence = self.next_sequence.max(next_sequence);
                self.enter(segment, next_sequence, i64::MIN);
            }
            Some(Record::Definition(definition)) => {
                self.next_group = self.next_group.max(definition.group().saturating_add(1));
                self.definitions.insert(definition.key.clone(), Arc::new(definition));
            }
            Some(Record::Frame(frame)) => {
                self.frames += 1;
                self.next_sequence = self.next_sequence.max(frame.sequence.saturating_add(1));
                self.enter(segment, frame.sequence, frame.timestamp_ms);
                if frame.backfill {
                    self.pending.insert(frame.sequence);
                } else {
                    self.in_doubt.insert(frame.sequence);
                }
            }
            Some(Record::Assigned { first, last }) => {
                // Only frames that are still there can be sent.
                let there: Vec<(u64, u64)> = self
                    .in_doubt
                    .iter()
                    .map(|(start, end)| (start.max(first), end.min(last)))
                    .filter(|(start, end)| start <= end)
                    .collect();
                for (start, end) in there {
                    self.in_doubt.remove_range(start, end);
                    self.pending.insert_range(start, end);
                }
            }
            None => tracing::warn!(segment, "A record of an unknown kind in the journal is left out"),
        }
    }

    fn enter(&mut self, number: u64, sequence: u64, timestamp_ms: i64) {
        match self.segments.last_mut() {
            Some(last) if last.number == number => last.newest_ms = last.newest_ms.max(timestamp_ms),
            _ => {
                self.segments.push(SegmentIndex { number, first_sequence: sequence, newest_ms: timestamp_ms })
            }
        }
    }
}

/// The identity lies in the file `stream` beside the journal: losing the one without the other must not
/// make old sequences look new.
fn read_or_create_stream_id(io: &dyn StorageIo, folder: &Path) -> Result<[u8; STREAM_ID_BYTES], AgentError> {
    let path = folder.join("stream");
    match io.read(&path) {
        Ok(bytes) => {
            let text =
                std::str::from_utf8(&bytes).ok().and_then(|text| uuid::Uuid::try_parse(text.trim()).ok());
            text.map(uuid::Uuid::into_bytes).ok_or(AgentError::StreamId(path))
        }
        Err(error) if error.is_not_found() => {
            let id = uuid::Uuid::new_v4();
            write_atomically(io, &path, format!("{id}\n").as_bytes())?;
            Ok(id.into_bytes())
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
