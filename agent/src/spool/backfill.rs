//! Reads frames back from the journal for the backfill lane.

use super::record::{self, FrameRecord, Record};
use crate::directory::{Definition, DefinitionSet};
use bytes::Bytes;
use pharos_common::journal::{JournalError, JournalReader};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Sequence of the frame that was read last.
    last: Option<u64>,
}

impl BackfillReader {
    pub(super) fn new(journal: JournalReader) -> Self {
        BackfillReader { journal, definitions: BTreeMap::new(), set: None, waiting: None, last: None }
    }

    /// Whether a frame lies behind this place of the journal.
    pub(super) fn is_beyond(&self, sequence: u64) -> bool {
        self.last.is_some_and(|last| last >= sequence)
    }

    /// Keeps a frame to be read again.
    pub(super) fn put_back(&mut self, frame: FrameRecord) {
        self.last = Some(frame.sequence.saturating_sub(1));
        self.waiting = Some(frame);
    }

    pub(super) fn next_frame(&mut self) -> Result<Option<FrameRecord>, JournalError> {
        if let Some(frame) = self.waiting.take() {
            self.last = Some(frame.sequence);
            return Ok(Some(frame));
        }
        while let Some((_, bytes)) = self.journal.next_record()? {
            match record::decode(bytes) {
                Some(Record::Frame(frame)) => {
                    self.last = Some(frame.sequence);
                    return Ok(Some(frame));
                }
                Some(Record::Definition(definition)) => {
                    self.definitions.insert(definition.group(), Arc::new(definition));
                    self.set = None;
                }
                _ => {}
            }
        }
        Ok(None)
    }

    pub(super) fn definitions(&mut self) -> Arc<DefinitionSet> {
        let definitions = &self.definitions;
        let set = self.set.get_or_insert_with(|| {
            Arc::new(DefinitionSet { definitions: definitions.values().cloned().collect() })
        });
        Arc::clone(set)
    }
}
