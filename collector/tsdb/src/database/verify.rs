//! Checks a storage folder, byte by byte, and changes nothing: a running engine's, a snapshot's, a backup's.

use super::{Database, delete, open};
use crate::block::reader::{Block, BlockError};
use crate::checkpoint::reader::Checkpoint;
use crate::error::TsdbError;
use crate::manifest::{self, Listed};
use crate::tombstones;
use pharos_common::journal::{JournalError, check_segment};
use pharos_common::storage_io::{IoError, StorageIo};
use std::path::{Path, PathBuf};

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileCheck {
    /// The file.
    pub path: PathBuf,
    /// Its size, bytes.
    pub bytes: u64,
    /// What was found.
    pub verdict: Verdict,
}

/// What was found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every checksum is right.
    Whole,
    /// A record at the end of the journal is cut short, as by a crash, or is being written right now:
    /// nothing that was acknowledged.
    Torn {
        /// Its bytes.
        bytes: u64,
    },
    /// Something is damaged.
    Damaged {
        /// Which part, and what it means.
        what: String,
    },
    /// Written by a newer version, so nothing can be said.
    Newer {
        /// Its version.
        version: u32,
    },
    /// A block that the list of blocks names is not there: its samples are lost unless a snapshot has it.
    Missing,
    /// The file went away meanwhile, as files of a running engine do.
    Gone,
}

impl Database {
    /// Checks all files of the folder: every checksum of every block, checkpoint and journal segment, the
    /// list of deletions and the version. Needs no lock and writes nothing.
    ///
    /// # Errors
    /// If the folder or a file cannot be read, whatever is in it.
    pub fn verify(io: &dyn StorageIo, folder: &Path) -> Result<Vec<FileCheck>, TsdbError> {
        let mut checks = Vec::new();
        let mut note = |path: PathBuf, outcome: Result<(u64, Verdict), IoError>| -> Result<(), TsdbError> {
            let (bytes, verdict) = match outcome {
                Err(error) if error.is_not_found() => (0, Verdict::Gone),
                other => other?,
            };
            checks.push(FileCheck { path, bytes, verdict });
            Ok(())
        };
        let version = folder.join("VERSION");
        note(version.clone(), check_version(io, folder, &version))?;
        for name in delete::FILE_NAMES {
            let tombstones = folder.join(name);
            if list(io, folder)?.contains(&tombstones) {
                note(tombstones.clone(), check_tombstones(io, &tombstones))?;
            }
        }
        let manifest = folder.join(manifest::FILE_NAME);
        if list(io, folder)?.contains(&manifest) {
            note(manifest.clone(), check_manifest(io, &manifest))?;
        }
        for missing in missing_blocks(io, folder)? {
            note(missing, Ok((0, Verdict::Missing)))?;
        }
        let files = |name: &str, end: &str| -> Result<Vec<PathBuf>, TsdbError> {
            let all = list(io, &folder.join(name))?;
            Ok(all.into_iter().filter(|path| path.extension().is_some_and(|have| have == end)).collect())
        };
        for path in files("journal", "journal")?.into_iter().chain(files("exemplars", "journal")?) {
            note(path.clone(), check_journal(io, &path))?;
        }
        for path in files("checkpoints", "checkpoint")? {
            note(path.clone(), check_checkpoint(io, &path))?;
        }
        for path in files("blocks", "block")? {
            note(path.clone(), check_block(io, &path))?;
        }
        Ok(checks)
    }
}

/// Paths in a folder; none if there is no such folder.
fn list(io: &dyn StorageIo, folder: &Path) -> Result<Vec<PathBuf>, TsdbError> {
    match io.list(folder) {
        Ok(names) => Ok(names.into_iter().map(|name| folder.join(name)).collect()),
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn damaged(what: impl Into<String>) -> Verdict {
    Verdict::Damaged { what: what.into() }
}

fn check_version(io: &dyn StorageIo, folder: &Path, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.read(path)?.len() as u64;
    let verdict = match open::read_version(io, folder) {
        Ok(_) => Verdict::Whole,
        Err(TsdbError::NewerFormat { version, .. }) => Verdict::Newer { version },
        Err(error) => damaged(error.to_string()),
    };
    Ok((bytes, verdict))
}

fn check_tombstones(io: &dyn StorageIo, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.read(path)?;
    let verdict = match tombstones::decode(&bytes) {
        Some(_) => Verdict::Whole,
        None => damaged(
            "a list of deletions, of which there are two; if both are damaged, what is not cleaned away comes back",
        ),
    };
    Ok((bytes.len() as u64, verdict))
}

fn check_manifest(io: &dyn StorageIo, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.read(path)?;
    let verdict = match manifest::decode(&bytes) {
        Some(_) => Verdict::Whole,
        None => damaged("the list of blocks: it is made anew by the next start, nothing is lost"),
    };
    Ok((bytes.len() as u64, verdict))
}

/// Blocks that the list names and that are not there. A running engine changes the list before it removes blocks,
/// so what is missing counts only if the list still names it afterwards.
fn missing_blocks(io: &dyn StorageIo, folder: &Path) -> Result<Vec<PathBuf>, TsdbError> {
    let listed = || match io.read(&folder.join(manifest::FILE_NAME)) {
        Ok(bytes) => Ok(manifest::decode(&bytes).unwrap_or_default()),
        Err(error) if error.is_not_found() => Ok(Listed::new()),
        Err(error) => Err(error),
    };
    let before = listed()?;
    let have = list(io, &folder.join("blocks"))?;
    let after = listed()?;
    let paths =
        before.keys().filter(|name| after.contains_key(*name)).map(|name| folder.join("blocks").join(name));
    Ok(paths.filter(|path| !have.contains(path)).collect())
}

fn check_journal(io: &dyn StorageIo, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.read(path)?;
    let verdict = match check_segment(path, &bytes) {
        Ok(Some(check)) if check.damaged_bytes > 0 => damaged(format!(
            "{} bytes of records: the samples in them are lost unless a block or checkpoint has them; {} records are whole",
            check.damaged_bytes, check.records
        )),
        Ok(Some(check)) if check.torn_bytes > 0 => Verdict::Torn { bytes: check.torn_bytes },
        Ok(_) => Verdict::Whole,
        Err(JournalError::NewerFormat { version, .. }) => Verdict::Newer { version: u32::from(version) },
        Err(error) => damaged(error.to_string()),
    };
    Ok((bytes.len() as u64, verdict))
}

fn check_checkpoint(io: &dyn StorageIo, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.read(path)?;
    let length = bytes.len() as u64;
    let verdict = match Checkpoint::parse(bytes) {
        Some(_) => Verdict::Whole,
        None => damaged("a checkpoint: a restart takes longer, nothing is lost"),
    };
    Ok((length, verdict))
}

fn check_block(io: &dyn StorageIo, path: &Path) -> Result<(u64, Verdict), IoError> {
    let bytes = io.open(path)?.len()?;
    let verdict = match Block::open(io, path).and_then(|block| block.verify()) {
        Ok(()) => Verdict::Whole,
        Err(BlockError::Damaged { what, .. }) => {
            damaged(format!("{what}; put the file back from a snapshot"))
        }
        Err(BlockError::NewerFormat { version, .. }) => Verdict::Newer { version: u32::from(version) },
        Err(error @ BlockError::NotInMemory) => damaged(error.to_string()),
        Err(BlockError::Io(error)) => return Err(error),
    };
    Ok((bytes, verdict))
}
