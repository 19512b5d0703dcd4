//! Begins blocks, keeps the list of them, and finds out which have vanished.

use super::Inner;
use super::housekeeping::Housekeeping;
use super::open::{OpenReport, sequence_of, set_aside};
use crate::block::DAY_MS;
use crate::block::reader::Block;
use crate::block::writer::{BlockWriter, RolledUp};
use crate::error::TsdbError;
use crate::manifest::{self, FILE_NAME};
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
        let mut names: BTreeSet<String> =
            blocks.iter().filter(stays).map(|block| block.file_name()).collect();
        let oldest_ms = self.oldest_expected_ms();
        housekeeping.missing.retain(|name| !names.contains(name) && !is_past(name, oldest_ms));
        self.counters.blocks_missing.store(housekeeping.missing.len() as u64, Ordering::Relaxed);
        names.extend(housekeeping.missing.iter().cloned());
        if names == housekeeping.listed {
            return;
        }
        let listed: Vec<String> = names.iter().cloned().collect();
        match write_atomically(&*self.io, &self.folder.join(FILE_NAME), &manifest::encode(&listed)) {
            Ok(()) => housekeeping.listed = names,
            Err(error) => tracing::warn!(%error, "The list of blocks cannot be written now"),
        }
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

/// What the list says when the engine opens, and which of it is not there.
pub(super) fn read(
    io: &dyn StorageIo,
    folder: &Path,
    blocks: &[Arc<Block>],
    report: &mut OpenReport,
) -> Result<(BTreeSet<String>, Vec<String>), TsdbError> {
    let path = folder.join(FILE_NAME);
    let bytes = match io.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(Default::default()),
        Err(error) => return Err(error.into()),
    };
    let Some(listed) = manifest::decode(&bytes) else {
        let aside = set_aside(io, folder, &path, report)?;
        tracing::error!(aside = %aside.display(), "The list of blocks is damaged; it is made anew");
        return Ok(Default::default());
    };
    let have: BTreeSet<String> = blocks.iter().map(|block| block.file_name()).collect();
    // Reported already, and there for somebody to look at.
    let known_damaged = |name: &str| {
        report.set_aside.iter().any(|aside| aside.file_name().is_some_and(|aside| aside == name))
    };
    let missing = listed
        .iter()
        .filter(|name| sequence_of(name).is_some() && !have.contains(*name) && !known_damaged(name))
        .cloned()
        .collect();
    Ok((listed.into_iter().collect(), missing))
}
