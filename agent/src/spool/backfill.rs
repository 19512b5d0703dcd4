//! Reads frames back from the journal for the backfill lane.

use super::record::{self, FrameRecord, Record};
use super::{BACKFILL_WINDOW_BYTES, Spool};
use crate::directory::{Definition, DefinitionSet};
use crate::own_metrics::LossReason;
use bytes::Bytes;
use pharos_common::journal::{JournalError, JournalReader, Position};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of frames read at a time, so that fresh frames wait little for the journal's thread.
const BATCH_BYTES: usize = 256 << 10;

/// A frame read back from the journal.
#[derive(Clone, Debug)]
pub struct BackfillFrame {
    /// Its sequence.
    pub sequence: u64,
    /// What its readings refer to.
    pub definitions: Arc<DefinitionSet>,
    /// `Tick.readings`, encoded.
    pub readings: Bytes,
}

/// A place in the journal, and the definitions that hold there.
#[derive(Debug)]
pub(super) struct BackfillReader {
    journal: JournalReader,
    definitions: BTreeMap<u32, Arc<Definition>>,
    set: Option<Arc<DefinitionSet>>,
    /// Read, but not to be sent yet.
    waiting: Option<FrameRecord>,
}

impl BackfillReader {
    fn next_frame(&mut self) -> Result<Option<FrameRecord>, JournalError> {
        if let Some(frame) = self.waiting.take() {
            return Ok(Some(frame));
        }
        while let Some((_, bytes)) = self.journal.next_record()? {
            match record::decode(bytes) {
                Some(Record::Frame(frame)) => return Ok(Some(frame)),
                Some(Record::Definition(definition)) => {
                    self.definitions.insert(definition.group(), Arc::new(definition));
                    self.set = None;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn definitions(&mut self) -> Arc<DefinitionSet> {
        let definitions = &self.definitions;
        let set = self.set.get_or_insert_with(|| {
            Arc::new(DefinitionSet { definitions: definitions.values().cloned().collect() })
        });
        Arc::clone(set)
    }
}

impl Spool {
    /// Whether [`Spool::next_backfill`] would return something.
    pub fn backfill_ready(&self) -> bool {
        self.live.is_some()
            && self.backfill.unacknowledged_bytes < BACKFILL_WINDOW_BYTES
            && self.next_pending().is_some()
    }

    /// The next frames for the backfill lane, in rising order; empty if none may be sent now.
    ///
    /// # Errors
    /// If the journal cannot be read; a later attempt starts anew.
    pub fn next_backfill(&mut self) -> Result<Vec<BackfillFrame>, JournalError> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES && self.backfill_ready() {
            let Some(frame) = self.read_pending()? else { break };
            bytes += frame.readings.len();
            self.backfill.unacknowledged_bytes += frame.readings.len();
            self.backfill.unacknowledged.push_back((frame.sequence, frame.readings.len()));
            self.backfill.next = frame.sequence + 1;
            batch.push(frame);
        }
        Ok(batch)
    }

    /// The lowest sequence to be sent on the backfill lane now: never beyond a frame that is in flight.
    fn next_pending(&self) -> Option<u64> {
        let next = self.pending.first_from(self.backfill.next)?;
        let limit = self.in_flight.front().map_or(u64::MAX, |frame| frame.sequence);
        (next < limit).then_some(next)
    }

    fn read_pending(&mut self) -> Result<Option<BackfillFrame>, JournalError> {
        loop {
            let Some(wanted) = self.next_pending() else { return Ok(None) };
            let mut reader = match self.backfill.reader.take() {
                Some(reader) => reader,
                None => self.open_reader(wanted),
            };
            let Some(frame) = reader.next_frame()? else {
                // The end of the journal: what was wanted is not there.
                let missing = self.pending.remove_range(wanted, self.next_sequence.saturating_sub(1));
                self.metrics.lose(LossReason::Damaged, missing);
                self.show();
                return Ok(None);
            };
            if frame.sequence < wanted {
                self.backfill.reader = Some(reader);
                continue;
            }
            if frame.sequence > wanted {
                let missing = self.pending.remove_range(wanted, frame.sequence - 1);
                self.metrics.lose(LossReason::Damaged, missing);
                reader.waiting = Some(frame);
                self.backfill.reader = Some(reader);
                continue;
            }
            let definitions = reader.definitions();
            self.backfill.reader = Some(reader);
            return Ok(Some(BackfillFrame {
                sequence: frame.sequence,
                definitions,
                readings: frame.readings,
            }));
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
        BackfillReader { journal, definitions: BTreeMap::new(), set: None, waiting: None }
    }
}
