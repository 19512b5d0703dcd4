//! Begins blocks, keeps the list of them, and finds out which have vanished or lost their index.

use super::Inner;
use super::housekeeping::Housekeeping;
use super::open::{OpenReport, move_aside, sequence_of, set_aside};
use crate::block::DAY_MS;
use crate::block::reader::{Block, BlockError};
use crate::block::writer::{BlockWriter, RolledUp};
use crate::error::TsdbError;
use crate::manifest::{self, FILE_NAME, Listed, Told};
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Bytes of indexes that are read at once, only to see whether they are as they were written.
const INDEX_BYTES_CHECKED_AT_ONCE: u64 = 16 << 20;

impl Inner {
    /// Begins a block. `name` is what its file will be called.
    pub(super) fn block_writer(&self, name: &str, rolled_up: RolledUp) -> Result<BlockWriter, TsdbError> {
        BlockWriter::create(Arc::clone(&self.io), &self.blocks_folder(), name, rolled_up)
    }

    /// Writes the list of blocks if it changed, without those that are `going`. A list that cannot be written is
    /// tried again later: it is a witness, and nothing depends on it.
    pub(super) fn list_blocks(&self, housekeeping: &mut Housekeeping, going: &[Arc<Block>]) {
        let blocks = self.blocks();
        let stays = |block: &&Arc<Block>| going.iter().all(|gone| gone.path() != block.path());
        let told = |block: &Arc<Block>| {
            let (index_checksum, facts) = block.told()?;
            Some(Told { index_checksum, facts })
        };
        let mut names: Listed =
            blocks.iter().filter(stays).map(|block| (block.file_name(), told(block))).collect();
        let oldest_ms = self.oldest_expected_ms();
        housekeeping.missing.retain(|name| !names.contains_key(name) && !is_past(name, oldest_ms));
        self.counters.blocks_missing.store(housekeeping.missing.len() as u64, Ordering::Relaxed);
        names.extend(housekeeping.missing.iter().map(|name| (name.clone(), None)));
        if names == housekeeping.listed {
            return;
        }
        match write_atomically(&*self.io, &self.folder.join(FILE_NAME), &manifest::encode(&names)) {
            Ok(()) => housekeeping.listed = names,
            Err(error) => tracing::warn!(%error, "The list of blocks cannot be written now"),
        }
    }

    /// Checks the indexes that nobody has read since the engine was opened, some at a time, and sets blocks aside
    /// whose index is damaged: of them nothing can be read.
    pub(super) fn check_indexes(&self) -> Result<(), TsdbError> {
        let mut read = 0;
        for block in self.blocks() {
            match block.check_index() {
                Ok(bytes) => read += bytes,
                Err(error @ BlockError::Damaged { .. }) => self.set_aside(&block, &error)?,
                Err(error) => return Err(error.into()),
            }
            if read > INDEX_BYTES_CHECKED_AT_ONCE {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Serves a block no more, and keeps its file for a person to look at. Whoever notices first does it.
    pub(super) fn set_aside(&self, block: &Arc<Block>, error: &BlockError) -> Result<(), TsdbError> {
        let was_served = {
            let mut blocks = self.blocks.write().unwrap_or_else(PoisonError::into_inner);
            let before = blocks.len();
            blocks.retain(|other| other.path() != block.path());
            blocks.len() < before
        };
        if was_served {
            self.note_damage(block, &error.to_string());
            let aside = move_aside(&*self.io, &self.folder, block.path())?.0;
            tracing::error!(%error, aside = %aside.display(), "A damaged block was set aside; the rest is served");
        }
        Ok(())
    }

    /// Nothing older is kept.
    fn oldest_expected_ms(&self) -> TimestampMs {
        let samples_ms = self.options.retention_ms.unwrap_or(i64::MAX);
        let kept_ms = samples_ms.max(self.options.rollup_retention_ms.unwrap_or(0));
        self.clock.now_ms().saturating_sub(kept_ms)
    }
}

/// Whether a block's time has passed, as its name tells.
fn is_past(name: &str, oldest_ms: TimestampMs) -> bool {
    let window_ms = name.rsplit_once('-').and_then(|(window, _)| window.parse::<TimestampMs>().ok());
    window_ms.is_none_or(|window_ms| window_ms.saturating_add(DAY_MS) < oldest_ms)
}

/// What the list says when the engine opens.
pub(super) fn read(io: &dyn StorageIo, folder: &Path, report: &mut OpenReport) -> Result<Listed, TsdbError> {
    let path = folder.join(FILE_NAME);
    let bytes = match io.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Listed::new()),
        Err(error) => return Err(error.into()),
    };
    if let Some(listed) = manifest::decode(&bytes) {
        return Ok(listed);
    }
    let aside = set_aside(io, folder, &path, report)?;
    tracing::error!(aside = %aside.display(), "The list of blocks is damaged; it is made anew");
    Ok(Listed::new())
}

/// Which blocks of the list are not there.
pub(super) fn missing(listed: &Listed, blocks: &[Arc<Block>], report: &OpenReport) -> Vec<String> {
    let have: BTreeSet<String> = blocks.iter().map(|block| block.file_name()).collect();
    // Reported already, and there for somebody to look at.
    let known_damaged = |name: &str| {
        report.set_aside.iter().any(|aside| aside.file_name().is_some_and(|aside| aside == name))
    };
    let is_missing =
        |name: &&String| sequence_of(name).is_some() && !have.contains(*name) && !known_damaged(name);
    listed.keys().filter(is_missing).cloned().collect()
}
