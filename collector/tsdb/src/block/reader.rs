//! An open block: the footer is read when it is opened, the index when it is needed, roll-ups as they are wanted; [`super::samples`] reads its samples. Every byte is checked against its checksum before it is
//! decoded.

use super::cache::{BlockCache, SectionKey};
use super::index::Index;
use super::index_cache::{IndexCache, IndexSlot};
use super::rollups::Records;
use super::{CHECKSUM_BYTES, FOOTER_BYTES, Facts, Footer, HEADER_BYTES, MAGIC, VERSION, header};
use crate::error::ReadError;
use crate::rollup::columns::BucketColumns;
use crate::tombstones::Tombstone;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{IoError, ReadableFile, StorageIo};
use pharos_common::summary::SummaryFields;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// An index larger than this is damage.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// Numbers for the blocks that are opened, see [`Block::id`].
static OPENED: AtomicU64 = AtomicU64::new(0);

/// An open block; clones of its `Arc` keep the file readable after it was replaced or removed.
#[derive(Debug)]
pub(crate) struct Block {
    id: u64,
    path: PathBuf,
    pub(super) file: Arc<dyn ReadableFile>,
    footer: Footer,
    version: u8,
    bytes: u64,
    index: IndexSlot,
    facts: OnceLock<Facts>,
    /// The index was read and is whole.
    index_is_sound: AtomicBool,
    known_damaged: AtomicBool,
    /// Deletions that concern it.
    tombstones: RwLock<Arc<[Tombstone]>>,
}

/// Why a block cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("{}: {what} is damaged", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{}: block format {version} is newer than this program knows ({VERSION}); upgrade Pharos", path.display())]
    NewerFormat { path: PathBuf, version: u8 },
    /// The reader must not wait for a file.
    #[error("not in memory")]
    NotInMemory,
    #[error(transparent)]
    Io(#[from] IoError),
}

impl<R> From<BlockError> for ReadError<R> {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Damaged { path, what } => ReadError::Damaged { path, what },
            BlockError::NewerFormat { path, version } => {
                ReadError::Damaged { path, what: format!("format version {version}") }
            }
            BlockError::NotInMemory => ReadError::NotInMemory,
            BlockError::Io(error) => ReadError::Io(error),
        }
    }
}

impl Block {
    /// Opens a file for itself alone.
    pub(crate) fn open(io: &dyn StorageIo, path: &Path) -> Result<Block, BlockError> {
        Block::open_in(io, path, &IndexCache::new(usize::MAX))
    }

    /// Opens a file and reads its footer. `indexes` keeps the index.
    pub(crate) fn open_in(
        io: &dyn StorageIo,
        path: &Path,
        indexes: &Arc<IndexCache>,
    ) -> Result<Block, BlockError> {
        let damaged = |what: &str| BlockError::Damaged { path: path.to_owned(), what: what.to_owned() };
        let file = io.open(path)?;
        let bytes = file.len()?;
        if bytes < (HEADER_BYTES + FOOTER_BYTES) as u64 {
            return Err(damaged("the end of the file"));
        }
        let mut start = [0; HEADER_BYTES];
        file.read_exact_at(&mut start, 0)?;
        let version = start[MAGIC.len()];
        if start != header(version) || version == 0 {
            return Err(damaged("the header"));
        }
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, bytes - FOOTER_BYTES as u64)?;
        // One damaged byte must not pass for a newer version.
        if version > VERSION && footer.ends_with(&start) {
            return Err(BlockError::NewerFormat { path: path.to_owned(), version });
        }
        let footer = Footer::decode(&footer, version).ok_or_else(|| damaged("the footer"))?;
        let end = footer.index_offset.checked_add(footer.index_length).map(|end| end + FOOTER_BYTES as u64);
        if end != Some(bytes) || footer.index_plain_length > INDEX_BYTES_MAX {
            return Err(damaged("the footer"));
        }
        let id = OPENED.fetch_add(1, Ordering::Relaxed);
        Ok(Block {
            id,
            path: path.to_owned(),
            file,
            footer,
            version,
            bytes,
            index: indexes.slot(id),
            facts: OnceLock::new(),
            index_is_sound: AtomicBool::new(false),
            known_damaged: AtomicBool::new(false),
            tombstones: RwLock::new(Arc::default()),
        })
    }

    /// A number that no other open block of this process has or had.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    pub(crate) fn oldest_ms(&self) -> TimestampMs {
        self.footer.oldest_ms
    }

    pub(crate) fn newest_ms(&self) -> TimestampMs {
        self.footer.newest_ms
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Remembers that the block is damaged; whether that is news.
    pub(crate) fn is_first_damage(&self) -> bool {
        !self.known_damaged.swap(true, Ordering::Relaxed)
    }

    /// Replaces what was deleted from it.
    pub(crate) fn set_tombstones(&self, tombstones: Vec<Tombstone>) {
        *self.tombstones.write().unwrap_or_else(PoisonError::into_inner) = tombstones.into();
    }

    /// Deletions that concern it.
    pub(crate) fn tombstones(&self) -> Arc<[Tombstone]> {
        Arc::clone(&self.tombstones.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether it holds series of which samples may have been deleted.
    pub(crate) fn has_deleted_samples(&self) -> Result<bool, BlockError> {
        let (index, tombstones) = (self.index()?, self.tombstones());
        Ok(tombstones.iter().any(|tombstone| !index.postings.select(&tombstone.matchers).is_empty()))
    }

    pub(crate) fn overlaps(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> bool {
        self.footer.oldest_ms <= end_ms && self.footer.newest_ms >= start_ms
    }

    /// Whether the index is in memory.
    pub(crate) fn has_index(&self) -> bool {
        self.index.get().is_some()
    }

    /// The index, from memory or from the file. Hold on to it for as long as it is worked with.
    pub(crate) fn index(&self) -> Result<Arc<Index>, BlockError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        // What was sound when it was read before may be so no more; who keeps house looks at it again.
        self.index_is_sound.store(false, Ordering::Relaxed);
        let damaged = || self.damaged("the index");
        let packed = self.packed_index()?;
        let plain = zstd::bulk::decompress(&packed, self.footer.index_plain_length as usize)
            .map_err(|_| damaged())?;
        let index = Index::decode(&plain, self.footer.index_offset, self.version).ok_or_else(damaged)?;
        self.index_is_sound.store(true, Ordering::Relaxed);
        self.facts.get_or_init(|| index.facts());
        Ok(self.index.keep(index))
    }

    /// Reads the index if nobody has yet: an opening reads none.
    pub(crate) fn open_index(&self) -> Result<(), BlockError> {
        if self.index_is_sound.load(Ordering::Relaxed) { Ok(()) } else { self.index().map(drop) }
    }

    fn packed_index(&self) -> Result<Vec<u8>, BlockError> {
        let mut packed = vec![0; self.footer.index_length as usize];
        self.file.read_exact_at(&mut packed, self.footer.index_offset)?;
        match crc32fast::hash(&packed) == self.footer.index_checksum {
            true => Ok(packed),
            false => Err(self.damaged("the index")),
        }
    }

    /// What is known of the block without its index, if it is.
    pub(crate) fn facts(&self) -> Result<&Facts, BlockError> {
        if let Some(facts) = self.facts.get() {
            return Ok(facts);
        }
        let index = self.index()?;
        Ok(self.facts.get_or_init(|| index.facts()))
    }

    /// Takes what somebody else remembered of the index with this checksum.
    pub(crate) fn remember(&self, index_checksum: u32, facts: Facts) {
        if index_checksum == self.footer.index_checksum {
            self.facts.get_or_init(|| facts);
        }
    }

    /// What is known of the index, to be remembered.
    pub(crate) fn told(&self) -> Option<(u32, Facts)> {
        Some((self.footer.index_checksum, self.facts.get()?.clone()))
    }

    /// Checks the index if nobody has read it since the block was opened. Gives the bytes that were read for it.
    pub(crate) fn check_index(&self) -> Result<u64, BlockError> {
        if self.index_is_sound.load(Ordering::Relaxed) {
            return Ok(0);
        }
        self.packed_index()?;
        self.index_is_sound.store(true, Ordering::Relaxed);
        Ok(self.footer.index_length)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Reads everything and checks it.
    pub(crate) fn verify(&self) -> Result<(), BlockError> {
        let index = self.index()?;
        if !index.is_thinned() {
            (0..index.series.len()).try_for_each(|number| self.series(&index, number).map(drop))?;
        }
        let mut columns = BucketColumns::default();
        for (level, directory) in index.rollups.iter().enumerate() {
            for chunk in 0..directory.chunks.len() {
                let records = self.records(&index, level, chunk)?;
                for series in records.series() {
                    if records.record(series).is_some_and(<[u8]>::is_empty) {
                        continue;
                    }
                    self.buckets(&index, level, &records, series, SummaryFields::ALL, &mut columns)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the roll-ups of some series: a chunk of a level, both by their position in the index.
    pub(crate) fn records(&self, index: &Index, level: usize, chunk: usize) -> Result<Records, BlockError> {
        let damaged = || self.damaged(format!("roll-ups {level}/{chunk}"));
        let directory = index.rollups.get(level).ok_or_else(damaged)?;
        let chunk = directory.chunks.get(chunk).ok_or_else(damaged)?;
        let bytes = self.section(chunk.offset, chunk.length, &damaged)?;
        Records::new(chunk.first_series, bytes).ok_or_else(damaged)
    }

    /// The same from the cache, or into it.
    pub(crate) fn records_kept(
        &self,
        index: &Index,
        level: usize,
        chunk: usize,
        cache: &BlockCache,
    ) -> Result<Arc<Records>, BlockError> {
        let directory = index.rollups.get(level);
        let offset =
            directory.and_then(|directory| directory.chunks.get(chunk)).map_or(0, |chunk| chunk.offset);
        let key = SectionKey { block: self.id, offset, page: 0 };
        if let Some(records) = cache.rollups.get(&key) {
            return Ok(records);
        }
        cache.permit_reading()?;
        let records = Arc::new(self.records(index, level, chunk)?);
        cache.rollups.insert(key, Arc::clone(&records));
        Ok(records)
    }

    /// Decodes the buckets of one series.
    pub(crate) fn buckets(
        &self,
        index: &Index,
        level: usize,
        records: &Records,
        series: u32,
        fields: SummaryFields,
        columns: &mut BucketColumns,
    ) -> Result<(), BlockError> {
        let damaged = || self.damaged(format!("roll-ups {level} of series {series}"));
        let width_ms = index.rollups.get(level).ok_or_else(damaged)?.width_ms;
        let record = records.record(series).ok_or_else(damaged)?;
        columns.decode(record, width_ms, fields).ok_or_else(damaged)
    }

    /// Reads a section and checks it.
    pub(super) fn section(
        &self,
        offset: u64,
        length: u32,
        damaged: &dyn Fn() -> BlockError,
    ) -> Result<Vec<u8>, BlockError> {
        let mut bytes = vec![0; length as usize + CHECKSUM_BYTES];
        self.file.read_exact_at(&mut bytes, offset)?;
        let checksum: [u8; CHECKSUM_BYTES] = bytes.last_chunk().copied().unwrap_or_default();
        bytes.truncate(length as usize);
        if crc32fast::hash(&bytes).to_le_bytes() != checksum {
            return Err(damaged());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
