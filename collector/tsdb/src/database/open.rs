//! Opens a folder: takes the lock, looks at the blocks, replays the journal, starts the threads.

use super::checkpoint::UNCOVERED_BYTES_MIN;
use super::delete;
use super::housekeeping::{Alarm, Housekeeping};
use super::inventory;
use super::replay::replay;
use super::restore::restore;
use super::{Counters, Database, Inner, Threads};
use crate::block::Provenance;
use crate::block::cache::BlockCache;
use crate::block::index_cache::IndexCache;
use crate::block::reader::{Block, BlockError};
use crate::checkpoint::chain::InBlocks;
use crate::commit::CommitQueue;
use crate::error::TsdbError;
use crate::exemplars::ExemplarLog;
use crate::head::guard::Guard;
use crate::manifest::Listed;
use pharos_common::clock::SharedClock;
use pharos_common::journal::Journal;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{StorageIo, write_atomically};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// The format of the folder that this version writes: 1 until blocks had roll-ups, perhaps without samples, and
/// journal rows were told by models. It reads all before; FORMAT.md tells what changed.
const FORMAT_VERSION: u32 = 2;

/// Names and indexes of series may take this part of the head's memory; new series are refused above.
const INDEX_SHARE: usize = 2;

/// How an engine is to work.
#[derive(Clone, Debug)]
pub struct Options {
    /// Blocks whose newest sample is older are dropped, older samples refused; `None` keeps all.
    pub retention_ms: Option<i64>,
    /// Roll-ups outlive the samples of a block until its newest is as old as this; `None` drops both at once.
    pub rollup_retention_ms: Option<i64>,
    /// When blocks, journal and checkpoints together take more bytes, the oldest blocks are dropped.
    pub retention_bytes: Option<u64>,
    /// Most series in the head; further ones are refused.
    pub series_max: usize,
    /// A label that tells senders apart, and the most series with one value of it; further ones are refused.
    pub series_per_value: Option<(String, usize)>,
    /// Most labels of a series.
    pub labels_max: usize,
    /// Most bytes of a series' labels, names and values together.
    pub label_bytes_max: usize,
    /// Memory for the head, in bytes. When samples would take more, they are cut into blocks early; when names and
    /// indexes of series take half of it, new series are refused.
    pub head_bytes_max: usize,
    /// Memory, in bytes, for decoded pages of blocks that are asked for again and again.
    pub page_cache_bytes: usize,
    /// Memory, in bytes, for indexes of blocks that nobody works with at the moment.
    pub index_cache_bytes: usize,
    /// Most exemplars kept; the oldest go first. Memory for each is a few hundred bytes.
    pub exemplars_max: usize,
    /// Whether the engine cuts, merges and drops by itself. Tests switch it off.
    pub housekeeping: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            retention_ms: Some(30 * 86_400_000),
            rollup_retention_ms: None,
            retention_bytes: None,
            series_max: 10_000_000,
            series_per_value: Some(("instance".to_owned(), 1_000_000)),
            labels_max: 256,
            label_bytes_max: 64 << 10,
            head_bytes_max: 2 << 30,
            page_cache_bytes: 256 << 20,
            index_cache_bytes: 256 << 20,
            exemplars_max: 100_000,
            housekeeping: true,
        }
    }
}

/// What opening found.
#[derive(Clone, Debug, Default)]
pub struct OpenReport {
    /// Blocks that can be read.
    pub blocks: usize,
    /// Samples loaded from checkpoints.
    pub checkpoint_samples: u64,
    /// Samples replayed from the journal.
    pub replayed_samples: u64,
    /// Bytes of an unfinished record cut off the journal's end: never acknowledged.
    pub torn_bytes: u64,
    /// Bytes of journal or blocks that are damaged.
    pub damaged_bytes: u64,
    /// Rows that could not be read since a record they build on is damaged.
    pub rows_lost: u64,
    /// Files set aside for a person to look at.
    pub set_aside: Vec<PathBuf>,
    /// Blocks that somebody took away, by name: their samples are not answered.
    pub missing_blocks: Vec<String>,
}

impl Database {
    /// Opens the engine in `folder`, which is created if missing.
    ///
    /// # Errors
    /// If another process has it open, it is of a newer format, or a file operation fails. Damage is no
    /// error: what is damaged is set aside and reported.
    pub fn open(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        options: Options,
        clock: SharedClock,
    ) -> Result<(Database, OpenReport), TsdbError> {
        io.create_dir_all(folder)?;
        let lock = io.lock(&folder.join("LOCK")).map_err(|error| match error.source.kind() {
            ErrorKind::WouldBlock => TsdbError::Locked(folder.to_owned()),
            _ => error.into(),
        })?;
        check_version(&*io, folder)?;
        let mut report = OpenReport::default();
        let indexes = IndexCache::new(options.index_cache_bytes);
        let listed = inventory::read(&*io, folder, &mut report)?;
        let (blocks, provenance) = open_blocks(&*io, folder, &indexes, &listed, &mut report)?;
        let now_ms = clock.now_ms();
        let commits = CommitQueue::new((now_ms / 1_000) as u32);
        let in_blocks = InBlocks { before_ms: provenance.cut_before_ms, segment: provenance.journal_segment };
        let mut restored = restore(&*io, folder, &commits, in_blocks, now_ms, &mut report)?;
        let mut journal =
            replay(Arc::clone(&io), folder, &mut restored, &commits, in_blocks, now_ms, &mut report)?;
        journal.write_directly()?;
        commits.lock().begin_epoch(now_ms);
        let (exemplars, recovery) =
            ExemplarLog::open(Arc::clone(&io), &folder.join("exemplars"), options.exemplars_max)?;
        report.torn_bytes += recovery.torn_bytes;
        report.damaged_bytes += recovery.damaged_bytes;
        report.set_aside.extend(recovery.set_aside);
        let tombstones = delete::read(&*io, folder, &mut report)?;
        let missing = inventory::missing(&listed, &blocks, &report);
        report.missing_blocks = missing.clone();
        let counters = Counters::default();
        let before = set_aside_before(&*io, folder, &report)?;
        counters.damaged_bytes.store(report.damaged_bytes + before, Ordering::Relaxed);
        blocks.iter().for_each(|block| delete::bury(block, &tombstones));
        // A sequence is never used twice: deletions tell by it what they mean.
        let used = blocks.iter().filter_map(|block| Some(sequence_of(&block.file_name())? + 1));
        let meant = tombstones.iter().map(|tombstone| tombstone.before_sequence);
        let vanished = missing.iter().filter_map(|name| Some(sequence_of(name)? + 1));
        let next_sequence = used.chain(meant).chain(vanished).max().unwrap_or(1);
        report.blocks = blocks.len();
        let housekeeping = options.housekeeping;
        let guard = Guard {
            series_max: options.series_max,
            per_value: options.series_per_value.clone(),
            labels_max: options.labels_max,
            label_bytes_max: options.label_bytes_max,
            memory_bytes_max: options.head_bytes_max / INDEX_SHARE,
        };
        let pages = Arc::new(BlockCache::new(options.page_cache_bytes));
        let inner = Arc::new(Inner {
            io,
            folder: folder.to_owned(),
            options,
            guard,
            clock,
            head: restored.head,
            commits,
            blocks: RwLock::new(blocks),
            samples_since_ms: AtomicI64::new(TimestampMs::MIN),
            pages,
            indexes,
            housekeeping: Mutex::new(
                Housekeeping::new(next_sequence, tombstones, restored.checkpoints, in_blocks, now_ms)
                    .with_inventory(listed, missing),
            ),
            exemplars,
            room: super::room::Room::default(),
            counters,
            _lock: lock,
        });
        inner.note_thinned(&inner.blocks());
        inner.list_blocks(&mut inner.housekeeping(), &[]);
        inner.note_checkpoint_bytes(&inner.housekeeping());
        let threads = start_threads(&inner, journal, housekeeping)?;
        Ok((Database { inner, _threads: Arc::new(threads) }, report))
    }
}

fn start_threads(inner: &Arc<Inner>, journal: Journal, housekeeping: bool) -> Result<Threads, TsdbError> {
    let alarm = Arc::new(Alarm::default());
    let mut handles = Vec::new();
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| TsdbError::Io(format!("starting a thread: {error}")))
    };
    let (committing, ringing) = (Arc::clone(inner), Arc::clone(&alarm));
    let commit = move || {
        let mut rung_at = 0;
        committing.commits.run(
            journal,
            || committing.clock.now_ms(),
            || {
                // Not at every commit: whether it pays now is a walk over all groups.
                let uncovered = committing.commits.uncovered_bytes.load(Ordering::Relaxed);
                if uncovered.abs_diff(rung_at) >= UNCOVERED_BYTES_MIN / 4 {
                    rung_at = uncovered;
                    ringing.ring();
                }
            },
        );
    };
    handles.push(spawn("tsdb-commit", Box::new(commit))?);
    if housekeeping {
        let (keeping, alarm) = (Arc::clone(inner), Arc::clone(&alarm));
        handles.push(spawn("tsdb-housekeeping", Box::new(move || keeping.keep_house(&alarm)))?);
    }
    Ok(Threads { inner: Arc::clone(inner), handles: Mutex::new(handles), alarm })
}

/// Contents of the file `VERSION`.
pub(super) fn version_text() -> String {
    format!("{FORMAT_VERSION}\n")
}

/// Makes sure that the folder is of this version: what is written from now on an older program cannot read.
fn check_version(io: &dyn StorageIo, folder: &Path) -> Result<(), TsdbError> {
    if read_version(io, folder)? != Some(FORMAT_VERSION) {
        write_atomically(io, &folder.join("VERSION"), version_text().as_bytes())?;
    }
    Ok(())
}

/// The folder's version if it is one that this program knows; `None` if the folder tells none.
pub(super) fn read_version(io: &dyn StorageIo, folder: &Path) -> Result<Option<u32>, TsdbError> {
    let path = folder.join("VERSION");
    let bytes = match io.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&bytes);
    // Exactly as it is written: a file so short has no checksum but its only spelling.
    let version = text.trim_end().parse::<u32>().ok();
    match version.filter(|&version| version > 0 && text == format!("{version}\n")) {
        Some(version) if version <= FORMAT_VERSION => Ok(Some(version)),
        Some(version) => Err(TsdbError::NewerFormat { path, version, known: FORMAT_VERSION }),
        // Only its first characters: whatever it is, it is not ours.
        None => Err(TsdbError::Io(format!(
            "{}: {:?} is no format version; is this a folder of Pharos? If only this file is damaged, remove it",
            path.display(),
            text.chars().take(20).collect::<String>()
        ))),
    }
}

/// The sequence in a block's name: `WINDOW-SEQUENCE.block`.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    name.strip_suffix(".block")?.rsplit_once('-')?.1.parse().ok()
}

fn open_blocks(
    io: &dyn StorageIo,
    folder: &Path,
    indexes: &Arc<IndexCache>,
    listed: &Listed,
    report: &mut OpenReport,
) -> Result<(Vec<Arc<Block>>, Provenance), TsdbError> {
    let blocks_folder = folder.join("blocks");
    io.create_dir_all(&blocks_folder)?;
    let mut blocks = Vec::new();
    let mut latest = Provenance { cut_before_ms: TimestampMs::MIN, ..Provenance::default() };
    let mut replaced = Vec::new();
    for name in io.list(&blocks_folder)? {
        let path = blocks_folder.join(&name);
        if name.ends_with(".tmp") {
            io.remove_file(&path)?;
            continue;
        }
        let Some(sequence) = sequence_of(&name) else { continue };
        let opened = Block::open_in(io, &path, indexes).and_then(|block| {
            if let Some(Some(told)) = listed.get(&name) {
                block.remember(told.index_checksum, told.facts.clone());
            }
            let provenance = block.facts()?.provenance.clone();
            Ok((block, provenance))
        });
        match opened {
            Ok((block, provenance)) => {
                replaced.extend(provenance.replaces.iter().cloned());
                if provenance.journal_segment > latest.journal_segment {
                    latest = Provenance { replaces: Vec::new(), ..provenance };
                }
                blocks.push((sequence, Arc::new(block)));
            }
            Err(error @ BlockError::Damaged { .. }) => {
                let aside = set_aside(io, folder, &path, report)?;
                tracing::error!(%error, aside = %aside.display(), "A damaged block was set aside; the rest is served");
            }
            Err(error) => return Err(error.into()),
        }
    }
    // A crash may have come between publishing a merged block and removing what it replaces.
    for name in replaced {
        if let Some(at) = blocks.iter().position(|(_, block)| block.file_name() == name) {
            let (_, block) = blocks.remove(at);
            io.remove_file(block.path())?;
        }
    }
    blocks.sort_by_key(|(sequence, _)| *sequence);
    Ok((blocks.into_iter().map(|(_, block)| block).collect(), latest))
}

/// Bytes of files that were set aside by openings before: they count until somebody has looked at them and removed
/// them.
fn set_aside_before(io: &dyn StorageIo, folder: &Path, report: &OpenReport) -> Result<u64, TsdbError> {
    let damaged = folder.join("damaged");
    let names = match io.list(&damaged) {
        Ok(names) => names,
        Err(error) if error.is_not_found() => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let paths = names.into_iter().map(|name| damaged.join(name));
    paths.filter(|path| !report.set_aside.contains(path)).map(|path| Ok(io.open(&path)?.len()?)).sum()
}

/// Moves a damaged file to `damaged/`, for a person to look at, and notes it. Returns where it is.
pub(super) fn set_aside(
    io: &dyn StorageIo,
    folder: &Path,
    path: &Path,
    report: &mut OpenReport,
) -> Result<PathBuf, TsdbError> {
    let (aside, bytes) = move_aside(io, folder, path)?;
    report.damaged_bytes += bytes;
    report.set_aside.push(aside.clone());
    Ok(aside)
}

/// The same for somebody who has another report. Returns where it is, and its size.
pub(super) fn move_aside(
    io: &dyn StorageIo,
    folder: &Path,
    path: &Path,
) -> Result<(PathBuf, u64), TsdbError> {
    let damaged = folder.join("damaged");
    let aside = damaged.join(path.file_name().unwrap_or_default());
    let bytes = io.open(path)?.len()?;
    io.create_dir_all(&damaged)?;
    io.rename(path, &aside)?;
    io.sync_dir(path.parent().unwrap_or(folder))?;
    io.sync_dir(&damaged)?;
    Ok((aside, bytes))
}
