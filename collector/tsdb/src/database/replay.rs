//! Replays the journal into the head when the engine opens: how long that takes is how long a restart takes.
//!
//! Reading, checking and decoding records is one half of the work, compressing rows into pages the other;
//! each has a thread, with a bounded run of batches between them. Rows reach the head in the order in which
//! the journal has them.

use super::open::OpenReport;
use super::restore::Restored;
use crate::checkpoint::chain::InBlocks;
use crate::commit::CommitQueue;
use crate::error::TsdbError;
use crate::head::Window;
use crate::head::guard::Guard;
use crate::journal_entry::{Entry, ReadState, read_entries};
use crate::row::{Appended, GroupId, Row};
use pharos_common::journal::{Journal, Position, record_bytes};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::StorageIo;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Values of a batch: enough that handing it over costs nothing, few enough to stay in the cache.
const BATCH_VALUES: usize = 1 << 15;

/// Batches that may wait for the head.
const BATCHES_WAITING_MAX: usize = 16;

/// Decoded entries on their way to the head.
#[derive(Debug, Default)]
struct Batch {
    steps: Vec<Step>,
    values: Vec<f64>,
}

#[derive(Debug)]
enum Step {
    Define {
        group: u32,
        columns: Vec<Labels>,
    },
    /// A record may be missing: rows can be told from those of a checkpoint by their count no more.
    Uncountable,
    /// The next `width` values of the batch.
    Row {
        group: u32,
        timestamp_ms: TimestampMs,
        width: usize,
    },
}

/// Replays the journal of `folder`, and notes in `report` what it found.
pub(super) fn replay(
    io: Arc<dyn StorageIo>,
    folder: &Path,
    restored: &mut Restored,
    commits: &CommitQueue,
    in_blocks: InBlocks,
    now_ms: TimestampMs,
    report: &mut OpenReport,
) -> Result<Journal, TsdbError> {
    let (send, batches) = sync_channel(BATCHES_WAITING_MAX);
    let first = restored.replay_from;
    let state = match restored.next_record {
        Some(next) => {
            let widths = restored.groups.iter().map(|(&group, &(_, width))| (group, width));
            ReadState::resume(next, widths)
        }
        None => ReadState::default(),
    };
    std::thread::scope(|scope| {
        let applying = scope.spawn(|| apply(restored, batches));
        let journal = decode(io, folder, commits, (first, state, in_blocks), now_ms, send, report);
        let applied =
            applying.join().map_err(|_| TsdbError::Io("replaying the journal panicked".to_owned()))?;
        report.replayed_samples = applied.samples;
        journal
    })
}

/// Reads records and hands their rows on; takes marks and metadata in at once.
fn decode(
    io: Arc<dyn StorageIo>,
    folder: &Path,
    commits: &CommitQueue,
    (first, mut state, in_blocks): (Position, ReadState, InBlocks),
    now_ms: TimestampMs,
    send: SyncSender<Batch>,
    report: &mut OpenReport,
) -> Result<Journal, TsdbError> {
    let mut batch = Batch::default();
    let mut malformed_bytes = 0;
    let mut contiguous = first;
    let visit = |position: Position, record: &[u8]| {
        // Rows are counted only as long as none is missing.
        if position != contiguous {
            batch.steps.push(Step::Uncountable);
        }
        contiguous = Position { offset: position.offset + record_bytes(record.len()), ..position };
        commits.uncovered_bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        let mut newest_ms = TimestampMs::MIN;
        let outcome = read_entries(record, &mut state, |entry| match entry {
            Entry::Define { group, columns } => batch.steps.push(Step::Define { group, columns }),
            Entry::Row { group, timestamp_ms, values } => {
                newest_ms = newest_ms.max(timestamp_ms);
                let in_blocks = position.segment < in_blocks.segment && timestamp_ms < in_blocks.before_ms;
                if !in_blocks {
                    batch.steps.push(Step::Row { group, timestamp_ms, width: values.len() });
                    batch.values.extend_from_slice(values);
                }
            }
            Entry::Mark(mark) => commits.lock().remember_mark(&mark, now_ms),
            Entry::Metadata { metric, metadata } => commits.lock().remember_metadata(metric, metadata),
        });
        if outcome.is_err() {
            malformed_bytes += record.len() as u64;
        }
        commits.note_segment(position.segment, newest_ms);
        if batch.values.len() >= BATCH_VALUES {
            send.send(std::mem::take(&mut batch)).map_err(|_| "the head takes no rows".to_owned())?;
        }
        Ok(())
    };
    let (mut journal, recovery) = Journal::open_from(io, &folder.join("journal"), first, visit)?;
    // A journal that somebody removed must not use places again that checkpoints and blocks speak of.
    if journal.end() < first {
        journal.advance_to(first.segment + 1)?;
    }
    journal.advance_to(in_blocks.segment)?;
    send.send(batch).map_err(|_| TsdbError::Io("the head takes no rows".to_owned()))?;
    report.torn_bytes = recovery.torn_bytes;
    report.damaged_bytes += recovery.damaged_bytes + malformed_bytes;
    report.rows_lost = state.rows_lost;
    report.set_aside.extend(recovery.set_aside);
    if report.damaged_bytes > 0 || report.rows_lost > 0 {
        tracing::error!(
            bytes = report.damaged_bytes,
            rows_lost = report.rows_lost,
            "Part of the storage is damaged; everything else is served"
        );
    }
    Ok(journal)
}

/// Appends what was decoded to the head.
fn apply(restored: &mut Restored, batches: Receiver<Batch>) -> Appended {
    let Restored { head, skip, groups: known, .. } = restored;
    // What was taken once is taken again, whatever the clock says now.
    let window = Window { oldest_ms: TimestampMs::MIN, newest_ms: TimestampMs::MAX };
    let mut appended = Appended::default();
    let mut groups: HashMap<u32, GroupId> = known.drain().map(|(group, (id, _))| (group, id)).collect();
    for Batch { steps, values } in batches {
        let mut rest = values.as_slice();
        for step in steps {
            match step {
                Step::Define { group, columns } => match head.define_group(&columns, &Guard::open()) {
                    Ok(id) => {
                        groups.insert(group, id);
                    }
                    Err(error) => tracing::error!(%error, "A group of the journal cannot be defined"),
                },
                Step::Uncountable => skip.clear(),
                Step::Row { group, timestamp_ms, width } => {
                    let (values, behind) = rest.split_at(width);
                    rest = behind;
                    let Some(&group) = groups.get(&group) else { continue };
                    if let Some(left) = skip.get_mut(&group).filter(|left| **left > 0) {
                        *left -= 1;
                        continue;
                    }
                    let row = Row { group, timestamp_ms, values };
                    let outcome =
                        head.append_row(&head.registry(), &row, window, &mut appended, |_, _, _| ());
                    if let Err(error) = outcome {
                        tracing::error!(%error, "A row of the journal cannot be replayed");
                    }
                }
            }
        }
    }
    appended
}
