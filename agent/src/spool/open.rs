//! Opens a spool: what an earlier run left in the journal becomes the first state of ledger and writer.

use super::ledger::Ledger;
use super::ranges::Ranges;
use super::record::{self, Record};
use super::writer::{SegmentIndex, Writer};
use super::{STREAM_ID_BYTES, SpoolLimits};
use crate::directory::Definition;
use crate::error::AgentError;
use crate::own_metrics::OwnMetrics;
use pharos_common::clock::SharedClock;
use pharos_common::journal::Journal;
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A power cut may take back the last records of the journal, and with them the knowledge of which
/// sequences were used. Skipping more than a segment can hold, and more than may pass unwritten, keeps them
/// unique.
const SEQUENCES_SKIPPED_AT_START: u64 = 1 << 20;

/// What opening found.
pub struct Opened {
    pub(super) ledger: Ledger,
    pub(super) writer: Writer,
    pub(super) clock: SharedClock,
    /// The stream's identity.
    pub stream_id: [u8; STREAM_ID_BYTES],
    /// Definitions of earlier runs, newest of each object.
    pub definitions: Vec<Arc<Definition>>,
    /// Number to give to the next new object.
    pub next_group: u32,
}

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
    let ledger = Ledger::new(metrics.clone(), next_sequence, found.in_doubt, found.pending);
    let writer = Writer::new(
        io,
        folder,
        journal,
        limits,
        metrics,
        Arc::clone(&clock),
        found.segments.into(),
        next_sequence - 1,
    );
    Ok(Opened {
        ledger,
        writer,
        clock,
        stream_id,
        definitions: found.definitions.into_values().collect(),
        next_group: found.next_group,
    })
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
