//! Takes checkpoints: when one is due, what goes into it, which files may go.

use super::Inner;
use super::housekeeping::Housekeeping;
use crate::checkpoint::chain::{InBlocks, Link, first_needed};
use crate::checkpoint::file_name;
use crate::checkpoint::writer::CheckpointWriter;
use crate::commit::{Boundary, BoundaryKind};
use crate::error::TsdbError;
use crate::head::group::Group;
use crate::row::GroupId;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Journal bytes that a restart may have to replay before a checkpoint is worth its sync: a tenth of a
/// second of replay.
pub(super) const UNCOVERED_BYTES_MIN: u64 = 3 << 20;

/// About what an open cell takes in a checkpoint, and in the journal.
const OPEN_CELL_BYTES: u64 = 1;

/// Open rows are written by every checkpoint until they are pages, so there must be so many times as much
/// news. Groups that fill their pages at the same time are caught just after: then little is open.
const NEWS_PER_OPEN: u64 = 2;

/// What is known of the checkpoints in the folder.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The chain; its last file is what a restart begins with.
    pub(super) links: Vec<Link>,
    /// Bytes of each of its files, by number.
    pub(super) sizes: BTreeMap<u64, u64>,
    /// Number of the next file; never used twice.
    pub(super) next_number: u64,
    /// The scope that groups are defined in; `None` if they are to be defined anew.
    pub(super) scope: Option<u64>,
}

/// A checkpoint on its way.
struct Unpublished {
    writer: CheckpointWriter,
    link: Link,
    /// Groups, with how many of their pages it has.
    groups: Vec<(Arc<Group>, usize)>,
}

impl Inner {
    /// Whether so much of the journal lies behind the newest checkpoint that another one pays.
    pub(super) fn checkpoint_is_due(&self) -> bool {
        let uncovered = self.commits.uncovered_bytes.load(Ordering::Relaxed);
        uncovered >= UNCOVERED_BYTES_MIN
            && uncovered >= self.head.open_cells() as u64 * OPEN_CELL_BYTES * NEWS_PER_OPEN
    }

    /// Writes what no checkpoint has. Appends go on meanwhile.
    pub(super) fn checkpoint(&self, housekeeping: &mut Housekeeping) -> Result<(), TsdbError> {
        let checkpoints = &mut housekeeping.checkpoints;
        let number = checkpoints.next_number;
        checkpoints.next_number += 1;
        let scope = checkpoints.scope.unwrap_or(number);
        // Until the file is published its definitions are nowhere.
        checkpoints.scope = None;
        let (commit, era) = {
            let mut pending = self.commits.lock();
            let commit = self.commits.request_boundary(&mut pending, BoundaryKind::Record);
            (commit, pending.era() + 1)
        };
        let boundary = self.commits.wait_boundary(commit)?;
        let covered = self.commits.uncovered_bytes.load(Ordering::Relaxed);
        let link = Link { number, scope, replay_from: boundary.position, newest_ms: TimestampMs::MIN };
        let mut unpublished = self.write_groups(link, era)?;
        let (late, state, last_commit) = {
            let pending = self.commits.lock();
            (self.head.take_late_log(), pending.state_record(), pending.last_commit())
        };
        for (_, timestamp_ms, _) in late.rows() {
            unpublished.link.newest_ms = unpublished.link.newest_ms.max(timestamp_ms);
        }
        let written = (|| {
            for (group, timestamp_ms, values) in late.rows() {
                unpublished.writer.late(group.0, timestamp_ms, values)?;
            }
            unpublished.writer.state(&state)?;
            self.publish_checkpoint(housekeeping, unpublished, boundary, last_commit)
        })();
        match written {
            Ok(()) => {
                self.commits.uncovered_bytes.fetch_sub(covered, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                self.head.put_back_late_log(late);
                Err(error)
            }
        }
    }

    fn write_groups(&self, mut link: Link, era: u64) -> Result<Unpublished, TsdbError> {
        let folder = self.checkpoints_folder();
        let mut writer = CheckpointWriter::create(Arc::clone(&self.io), &folder, link.number)?;
        let groups: Vec<(GroupId, Arc<Group>)> = self.head.registry().groups().collect();
        for (id, group) in &groups {
            if group.lock().checkpoint_scope != link.scope {
                let columns = self.columns_of(group);
                writer.define(id.0, columns.iter())?;
                group.lock().checkpoint_scope = link.scope;
            }
        }
        let mut taken = Vec::with_capacity(groups.len());
        for (id, group) in groups {
            let capture = group.lock().capture(era);
            if capture.pages.is_empty() && capture.open_timestamps.is_empty() && capture.rows_in_era == 0 {
                continue;
            }
            link.newest_ms = link.newest_ms.max(capture.newest_ms);
            writer.group(id.0, group.columns.len(), &capture)?;
            taken.push((group, capture.pages.len()));
        }
        Ok(Unpublished { writer, link, groups: taken })
    }

    fn columns_of(&self, group: &Group) -> Vec<Labels> {
        let registry = self.head.registry();
        group.columns.iter().filter_map(|&series| Some(registry.series(series)?.labels.clone())).collect()
    }

    fn publish_checkpoint(
        &self,
        housekeeping: &mut Housekeeping,
        unpublished: Unpublished,
        boundary: Boundary,
        last_commit: u64,
    ) -> Result<(), TsdbError> {
        let Unpublished { mut writer, link, groups } = unpublished;
        let mut links = housekeeping.checkpoints.links.clone();
        links.drain(..first_needed(&links, housekeeping.in_blocks));
        links.push(link);
        let segments = self.commits.segments_until(boundary.position.segment);
        writer.end(&links, boundary.next_record, &segments)?;
        // It may have rows that the journal does not have yet; they must not outlive it.
        self.commits.wait_durable(last_commit)?;
        let bytes = writer.publish()?;
        for (group, pages) in groups {
            group.lock().cover(pages);
        }
        self.counters.checkpoint_bytes_written.fetch_add(bytes, Ordering::Relaxed);
        self.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        housekeeping.checkpoints.scope = Some(link.scope);
        housekeeping.checkpoints.links.push(link);
        housekeeping.checkpoints.sizes.insert(link.number, bytes);
        tracing::debug!(number = link.number, bytes, "Checkpoint written");
        self.remove_checkpoints(housekeeping)
    }

    /// Removes the files whose rows are in blocks.
    pub(super) fn remove_checkpoints(&self, housekeeping: &mut Housekeeping) -> Result<(), TsdbError> {
        let links = &mut housekeeping.checkpoints.links;
        let needed = first_needed(links, housekeeping.in_blocks);
        let gone: Vec<Link> = links.drain(..needed).collect();
        for link in gone {
            match self.io.remove_file(&self.checkpoints_folder().join(file_name(link.number))) {
                Ok(()) => {}
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            housekeeping.checkpoints.sizes.remove(&link.number);
        }
        self.note_checkpoint_bytes(housekeeping);
        Ok(())
    }

    /// Lets everybody know what the files take.
    pub(super) fn note_checkpoint_bytes(&self, housekeeping: &Housekeeping) {
        let bytes = housekeeping.checkpoints.sizes.values().sum();
        self.counters.checkpoint_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Later groups are defined anew, so that the files before need not stay for their definitions.
    pub(super) fn begin_scope(&self, housekeeping: &mut Housekeeping, in_blocks: InBlocks) {
        housekeeping.in_blocks = in_blocks;
        housekeeping.checkpoints.scope = None;
    }

    pub(super) fn checkpoints_folder(&self) -> PathBuf {
        self.folder.join("checkpoints")
    }
}
