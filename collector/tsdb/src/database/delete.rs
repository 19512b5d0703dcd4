//! Deletes series: tombstones first, which readers and merges honour; the room is given back by cleaning.

use super::housekeeping::Housekeeping;
use super::open::{OpenReport, sequence_of, set_aside};
use super::{Database, Inner};
use crate::block::Provenance;
use crate::block::reader::Block;
use crate::block::writer::{BlockWriter, RolledUp};
use crate::error::TsdbError;
use crate::hidden;
use crate::tombstones::{self, Tombstone};
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::path::Path;
use std::sync::Arc;

/// Deletions that may wait for cleaning: each costs every read a little.
const TOMBSTONES_MAX: usize = 1_000;

impl Database {
    /// Deletes the samples of all series that match in a range, both ends included. They are gone for every
    /// reader when this returns, and durably; samples appended later are not touched. Blocks the thread,
    /// for as long as writing the head to blocks takes.
    ///
    /// # Errors
    /// If a file operation fails, or so many deletions wait that [`Database::clean_tombstones`] is due.
    pub fn delete_series(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<(), TsdbError> {
        let Some(matchers) = hidden::from_outside(matchers) else { return Ok(()) };
        let matchers = &*matchers;
        let inner = &*self.inner;
        let mut housekeeping = inner.housekeeping();
        if housekeeping.tombstones.len() >= TOMBSTONES_MAX {
            let reason =
                format!("{TOMBSTONES_MAX} deletions wait to be cleaned; call clean_tombstones first");
            return Err(TsdbError::Busy(reason));
        }
        inner.cut_all(&mut housekeeping)?;
        let mut all = housekeeping.tombstones.clone();
        let before_sequence = housekeeping.next_sequence();
        all.push(Tombstone { matchers: matchers.to_vec(), start_ms, end_ms, before_sequence });
        inner.set_tombstones(&mut housekeeping, all)?;
        // They count for no limit any more, unless somebody goes on writing to them.
        inner.head.close_empty(matchers, end_ms);
        Ok(())
    }

    /// Writes blocks anew without what was deleted, and forgets the deletions. Blocks the thread. Returns
    /// how many blocks were written.
    ///
    /// # Errors
    /// If a file operation fails or a block is damaged; deleted samples stay deleted, and it can be tried
    /// again.
    pub fn clean_tombstones(&self) -> Result<usize, TsdbError> {
        let inner = &*self.inner;
        let mut housekeeping = inner.housekeeping();
        let mut written = 0;
        for block in inner.blocks() {
            if block.has_deleted_samples()? {
                inner.rewrite(&block)?;
                written += 1;
            }
        }
        inner.set_tombstones(&mut housekeeping, Vec::new())?;
        Ok(written)
    }
}

impl Inner {
    /// Stores the deletions, then shows them to readers.
    fn set_tombstones(&self, housekeeping: &mut Housekeeping, all: Vec<Tombstone>) -> Result<(), TsdbError> {
        write(&*self.io, &self.folder, &all)?;
        for block in self.blocks() {
            bury(&block, &all);
        }
        housekeeping.tombstones = all;
        Ok(())
    }

    /// Writes a block anew under its name, so that it keeps its place among those stored before and after.
    pub(super) fn rewrite(&self, block: &Block) -> Result<Arc<Block>, TsdbError> {
        let name = block.file_name();
        let mut writer = self.block_writer(&name, RolledUp::All)?;
        let index = block.index()?;
        if index.is_thinned() {
            // Roll-ups cannot be told what is missing, so those of the series go whole.
            let tombstones = block.tombstones();
            writer
                .add_thinned(block, |labels| !tombstones.iter().any(|tombstone| tombstone.matches(labels)))?;
        } else {
            for number in 0..index.series.len() {
                if let Some((labels, piece)) = block.series(&index, number)? {
                    writer.add(&labels, &piece.timestamps, &piece.values)?;
                }
            }
        }
        self.renew(writer, &name, index.provenance.clone())
    }

    /// Finishes a block that takes the place of one of the same name.
    pub(super) fn renew(
        &self,
        writer: BlockWriter,
        name: &str,
        provenance: Provenance,
    ) -> Result<Arc<Block>, TsdbError> {
        let (file, bytes) = writer.finish(name, provenance)?;
        self.counters.block_bytes_written.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        let renewed = Arc::new(Block::open_in(&*self.io, &file, &self.indexes)?);
        renewed.verify()?;
        let mut blocks = self.blocks.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(old) = blocks.iter_mut().find(|old| old.path() == file) {
            *old = Arc::clone(&renewed);
        }
        Ok(renewed)
    }
}

/// Names of the file and of its copy in the storage folder, in the order in which they are written.
pub(super) const FILE_NAMES: [&str; 2] = ["tombstones", "tombstones.copy"];

/// Stores the deletions in a folder.
pub(super) fn write(io: &dyn StorageIo, folder: &Path, all: &[Tombstone]) -> Result<(), TsdbError> {
    let bytes = tombstones::encode(all);
    FILE_NAMES.iter().try_for_each(|name| Ok(write_atomically(io, &folder.join(name), &bytes)?))
}

/// Tells a block which deletions concern it.
pub(super) fn bury(block: &Block, all: &[Tombstone]) {
    let sequence = sequence_of(&block.file_name()).unwrap_or(0);
    let meant = all.iter().filter(|tombstone| {
        tombstone.before_sequence > sequence && block.overlaps(tombstone.start_ms, tombstone.end_ms)
    });
    block.set_tombstones(meant.cloned().collect());
}

/// Reads the deletions when the engine opens. Damage is set aside and reported, and the other copy is used; only
/// if both are damaged what was deleted and not cleaned away yet is there again.
pub(super) fn read(
    io: &dyn StorageIo,
    folder: &Path,
    report: &mut OpenReport,
) -> Result<Vec<Tombstone>, TsdbError> {
    let mut found: Option<(Vec<u8>, Vec<Tombstone>)> = None;
    let (mut damaged, mut stale) = (0, Vec::new());
    for name in FILE_NAMES {
        let path = folder.join(name);
        let bytes = match io.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                stale.push(path);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match (tombstones::decode(&bytes), &found) {
            (Some(tombstones), None) => found = Some((bytes, tombstones)),
            // The first was written first, so it is the newer one.
            (Some(_), Some((first, _))) if *first != bytes => stale.push(path),
            (Some(_), Some(_)) => {}
            (None, _) => {
                let aside = set_aside(io, folder, &path, report)?;
                tracing::error!(aside = %aside.display(), "A list of deleted series is damaged");
                damaged += 1;
                stale.push(path);
            }
        }
    }
    let Some((bytes, tombstones)) = found else {
        if damaged > 0 {
            tracing::error!("Deletions that were not cleaned away are lost; delete the series again");
        }
        return Ok(Vec::new());
    };
    for path in stale {
        write_atomically(io, &path, &bytes)?;
    }
    Ok(tombstones)
}
