//! Reads a block: the footer when it is opened, the index when it is first needed, pages as selections
//! want them. Every byte is checked against its checksum before it is decoded.

use super::index::{Column, Index, TimestampColumn};
use super::rollups::Records;
use super::{CHECKSUM_BYTES, FOOTER_BYTES, Footer, HEADER_BYTES, MAGIC, VERSION, header};
use crate::codec::dense::{self, Form, PAGE_ROWS};
use crate::error::ReadError;
use crate::merge::{Piece, Pieces};
use crate::newest::Newest;
use crate::rollup::record::BucketColumns;
use crate::tombstones::{Tombstone, without_deleted};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::{Sample, TimestampMs};
use pharos_common::storage_io::{IoError, ReadableFile, StorageIo};
use pharos_common::summary::SummaryFields;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// An index larger than this is damage.
const INDEX_BYTES_MAX: u64 = 4 << 30;

/// Windows of timestamps that one reader of a block remembers.
const WINDOWS_KNOWN_MAX: usize = 1_024;

/// Timestamps in these windows at which they are forgotten, 8 bytes each.
const WINDOW_ROWS_KNOWN_MAX: usize = 64 << 10;

/// An open block; clones of its `Arc` keep the file readable after it was replaced or removed.
#[derive(Debug)]
pub(crate) struct Block {
    path: PathBuf,
    file: Arc<dyn ReadableFile>,
    footer: Footer,
    version: u8,
    bytes: u64,
    index: OnceLock<Index>,
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
            BlockError::Io(error) => ReadError::Io(error),
        }
    }
}

impl Block {
    /// Opens a file and reads its footer.
    pub(crate) fn open(io: &dyn StorageIo, path: &Path) -> Result<Block, BlockError> {
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
        Ok(Block {
            path: path.to_owned(),
            file,
            footer,
            version,
            bytes,
            index: OnceLock::new(),
            known_damaged: AtomicBool::new(false),
            tombstones: RwLock::new(Arc::default()),
        })
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

    /// The index, read from the file the first time.
    pub(crate) fn index(&self) -> Result<&Index, BlockError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let damaged = || self.damaged("the index");
        let mut packed = vec![0; self.footer.index_length as usize];
        self.file.read_exact_at(&mut packed, self.footer.index_offset)?;
        if crc32fast::hash(&packed) != self.footer.index_checksum {
            return Err(damaged());
        }
        let plain = zstd::bulk::decompress(&packed, self.footer.index_plain_length as usize)
            .map_err(|_| damaged())?;
        let index = Index::decode(&plain, self.footer.index_offset, self.version).ok_or_else(damaged)?;
        Ok(self.index.get_or_init(|| index))
    }

    fn damaged(&self, what: impl Into<String>) -> BlockError {
        BlockError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Collects the samples of all matching series in the range.
    pub(crate) fn select<R>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        pieces: &mut Pieces,
        mut take: impl FnMut(usize) -> Result<(), R>,
    ) -> Result<(), ReadError<R>> {
        let index = self.index()?;
        let tombstones = self.tombstones();
        let mut windows: HashMap<u32, Option<PageWindow>> = HashMap::new();
        for number in &index.postings.select(matchers) {
            let Some(series) = index.series.get(number as usize) else { continue };
            let window = match windows.get(&series.timestamps) {
                Some(window) => window.clone(),
                None => {
                    let window = self.window(index, series.timestamps, start_ms, end_ms)?;
                    windows.entry(series.timestamps).or_insert(window).clone()
                }
            };
            let Some(window) = window else { continue };
            take(window.timestamps.len()).map_err(ReadError::Refused)?;
            let values = self.values(&series.labels, &series.values, &window)?;
            let piece = Piece { timestamps: window.timestamps, values };
            let piece = without_deleted(&tombstones, &series.labels, piece);
            if !piece.values.is_empty() {
                pieces.add(&series.labels, piece);
            }
        }
        Ok(())
    }

    /// Offers the newest sample of every matching series in the range.
    pub(crate) fn select_newest<R>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        newest: &mut Newest,
        mut take: impl FnMut(usize) -> Result<(), R>,
    ) -> Result<(), ReadError<R>> {
        let index = self.index()?;
        let tombstones = self.tombstones();
        let mut windows: HashMap<u32, Option<PageWindow>> = HashMap::new();
        for number in &index.postings.select(matchers) {
            let Some(series) = index.series.get(number as usize) else { continue };
            if newest.has_newer(&series.labels, self.footer.newest_ms) {
                continue;
            }
            if tombstones.iter().any(|tombstone| tombstone.matches(&series.labels)) {
                // Its newest sample may be deleted: then the one that counts is not the last of its window.
                let Some(window) = self.window(index, series.timestamps, start_ms, end_ms)? else { continue };
                take(window.timestamps.len()).map_err(ReadError::Refused)?;
                let values = self.values(&series.labels, &series.values, &window)?;
                let piece = Piece { timestamps: window.timestamps, values };
                let piece = without_deleted(&tombstones, &series.labels, piece);
                if let (Some(&timestamp_ms), Some(&value)) = (piece.timestamps.last(), piece.values.last()) {
                    newest.offer_stored_before(&series.labels, Sample { timestamp_ms, value });
                }
                continue;
            }
            let window = match windows.get(&series.timestamps) {
                Some(window) => window.clone(),
                None => {
                    let window = self.window(index, series.timestamps, start_ms, end_ms)?;
                    let window = window.map(PageWindow::last_row);
                    windows.entry(series.timestamps).or_insert(window).clone()
                }
            };
            let Some(window) = window else { continue };
            take(1).map_err(ReadError::Refused)?;
            let values = self.values(&series.labels, &series.values, &window)?;
            if let (Some(&timestamp_ms), Some(&value)) = (window.timestamps.last(), values.last()) {
                newest.offer_stored_before(&series.labels, Sample { timestamp_ms, value });
            }
        }
        Ok(())
    }

    /// All samples of one series, for compaction; none if all were deleted.
    pub(crate) fn series(&self, number: usize) -> Result<Option<(Labels, Piece)>, BlockError> {
        let index = self.index()?;
        let Some(series) = index.series.get(number) else { return Ok(None) };
        let window = self.window(index, series.timestamps, TimestampMs::MIN, TimestampMs::MAX)?;
        let Some(window) = window else { return Err(self.damaged("a column of timestamps")) };
        let values = self.values(&series.labels, &series.values, &window)?;
        let piece = Piece { timestamps: window.timestamps, values };
        Ok(Some((series.labels.clone(), without_deleted(&self.tombstones(), &series.labels, piece))))
    }

    /// Reads everything and checks it.
    pub(crate) fn verify(&self) -> Result<(), BlockError> {
        let index = self.index()?;
        if !index.is_thinned() {
            (0..index.series.len()).try_for_each(|number| self.series(number).map(drop))?;
        }
        let mut columns = BucketColumns::default();
        for (level, directory) in index.rollups.iter().enumerate() {
            for chunk in 0..directory.chunks.len() {
                let records = self.records(level, chunk)?;
                for series in records.series() {
                    if records.record(series).is_some_and(<[u8]>::is_empty) {
                        continue;
                    }
                    self.buckets(level, &records, series, SummaryFields::ALL, &mut columns)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the roll-ups of some series: a chunk of a level, both by their position in the index.
    pub(crate) fn records(&self, level: usize, chunk: usize) -> Result<Records, BlockError> {
        let damaged = || self.damaged(format!("roll-ups {level}/{chunk}"));
        let directory = self.index()?.rollups.get(level).ok_or_else(damaged)?;
        let chunk = directory.chunks.get(chunk).ok_or_else(damaged)?;
        let bytes = self.section(chunk.offset, chunk.length, &damaged)?;
        Records::new(chunk.first_series, bytes).ok_or_else(damaged)
    }

    /// Decodes the buckets of one series.
    pub(crate) fn buckets(
        &self,
        level: usize,
        records: &Records,
        series: u32,
        fields: SummaryFields,
        columns: &mut BucketColumns,
    ) -> Result<(), BlockError> {
        let damaged = || self.damaged(format!("roll-ups {level} of series {series}"));
        let width_ms = self.index()?.rollups.get(level).ok_or_else(damaged)?.width_ms;
        let record = records.record(series).ok_or_else(damaged)?;
        columns.decode(record, width_ms, fields).ok_or_else(damaged)
    }

    /// The samples of one series in a range. `windows` remembers what series have in common.
    pub(crate) fn series_in(
        &self,
        number: u32,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        windows: &mut Windows,
    ) -> Result<Option<Piece>, BlockError> {
        let index = self.index()?;
        let Some(series) = index.series.get(number as usize) else { return Ok(None) };
        let key = (series.timestamps, start_ms, end_ms);
        if windows.rows >= WINDOW_ROWS_KNOWN_MAX || windows.known.len() >= WINDOWS_KNOWN_MAX {
            *windows = Windows::default();
        }
        let window = match windows.known.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let window = self.window(index, series.timestamps, start_ms, end_ms)?;
                windows.rows += window.as_ref().map_or(0, |window| window.timestamps.len());
                new.insert(window)
            }
        };
        let Some(window) = window else { return Ok(None) };
        let values = self.values(&series.labels, &series.values, window)?;
        let piece = Piece { timestamps: Arc::clone(&window.timestamps), values };
        Ok(Some(without_deleted(&self.tombstones(), &series.labels, piece)))
    }

    /// Which pages a range touches, and the timestamps in it. `None` if there are none.
    fn window(
        &self,
        index: &Index,
        number: u32,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<Option<PageWindow>, BlockError> {
        let damaged = || self.damaged(format!("timestamps {number}"));
        let column = index.timestamps.get(number as usize).ok_or_else(damaged)?;
        let pages = column.pages(start_ms, end_ms);
        let first_row = pages.start * PAGE_ROWS;
        let rows = column.rows.min(pages.end * PAGE_ROWS).saturating_sub(first_row);
        let mut timestamps: Vec<TimestampMs> = Vec::with_capacity(rows);
        match column.column.form {
            Form::Even { first, step } => {
                timestamps.extend((first_row..first_row + rows).map(|row| first + step * row as i64));
            }
            Form::Integer => {
                let sections = self.sections(&column.column, &pages, &damaged)?;
                let sources = sections.pages(&pages, column.rows);
                let each = |page: &[i64]| timestamps.extend_from_slice(page);
                dense::decode_pages(&sections.meta, sources, each, 0).map_err(|_| damaged())?;
            }
            Form::Dropped { .. } => return Ok(None),
            _ => return Err(damaged()),
        }
        let from = timestamps.partition_point(|&timestamp| timestamp < start_ms);
        let to = timestamps.partition_point(|&timestamp| timestamp <= end_ms).max(from);
        if from == to {
            return Ok(None);
        }
        let timestamps = if from == 0 && to == timestamps.len() {
            timestamps.into()
        } else {
            Arc::from(&timestamps[from..to])
        };
        Ok(Some(PageWindow { pages, rows, keep: from..to, timestamps, column_rows: column.rows }))
    }

    fn values(&self, labels: &Labels, column: &Column, window: &PageWindow) -> Result<Vec<f64>, BlockError> {
        let damaged = || self.damaged(format!("series {labels}"));
        let mut values = Vec::with_capacity(window.rows);
        let sections = match column.form {
            Form::Constant(_) | Form::Dropped { .. } => Sections::default(),
            _ => self.sections(column, &window.pages, &damaged)?,
        };
        let pages = sections.pages(&window.pages, window.column_rows);
        dense::decode_values(column.form, &sections.meta, window.rows, pages, &mut values)
            .map_err(|_| damaged())?;
        if values.len() != window.rows {
            return Err(damaged());
        }
        values.truncate(window.keep.end);
        values.drain(..window.keep.start);
        Ok(values)
    }

    /// Reads a section and checks it.
    fn section(
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

    /// Reads a column's meta and the wanted pages, and checks them.
    fn sections(
        &self,
        column: &Column,
        pages: &Range<usize>,
        damaged: &dyn Fn() -> BlockError,
    ) -> Result<Sections, BlockError> {
        let read = |offset, length| self.section(offset, length, damaged);
        let meta = read(column.offset, column.meta_length)?;
        let mut offset = column.offset + u64::from(column.meta_length) + CHECKSUM_BYTES as u64;
        let mut wanted = Vec::with_capacity(pages.len());
        for (number, &length) in column.page_lengths.iter().enumerate() {
            if pages.contains(&number) {
                wanted.push(read(offset, length)?);
            }
            offset += u64::from(length) + CHECKSUM_BYTES as u64;
        }
        Ok(Sections { meta, pages: wanted })
    }
}

/// Windows of columns of timestamps that were read, for series that share them.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    known: HashMap<(u32, TimestampMs, TimestampMs), Option<PageWindow>, foldhash::fast::RandomState>,
    /// Timestamps in all of them.
    rows: usize,
}

/// The part of a column of timestamps that a range touches.
#[derive(Clone, Debug)]
struct PageWindow {
    pages: Range<usize>,
    /// Rows of these pages.
    rows: usize,
    /// Of these rows, those in the range.
    keep: Range<usize>,
    timestamps: Arc<[TimestampMs]>,
    /// Rows of the whole column.
    column_rows: usize,
}

impl PageWindow {
    /// The window narrowed to its last row, and to the page that holds it.
    fn last_row(self) -> PageWindow {
        let (Some(&last), Some(row)) = (self.timestamps.last(), self.keep.end.checked_sub(1)) else {
            return self;
        };
        let page = row / PAGE_ROWS;
        let first_page = self.pages.start + page;
        PageWindow {
            pages: first_page..first_page + 1,
            rows: (self.rows - page * PAGE_ROWS).min(PAGE_ROWS),
            keep: row - page * PAGE_ROWS..row - page * PAGE_ROWS + 1,
            timestamps: [last].into(),
            column_rows: self.column_rows,
        }
    }
}

/// Checked bytes of a column.
#[derive(Debug, Default)]
struct Sections {
    meta: Vec<u8>,
    pages: Vec<Vec<u8>>,
}

impl Sections {
    /// Pages with their rows. `wanted` tells which pages of the column these are.
    fn pages(&self, wanted: &Range<usize>, column_rows: usize) -> impl Iterator<Item = (&[u8], usize)> {
        let first = wanted.start;
        self.pages.iter().enumerate().map(move |(at, page)| {
            let start = (first + at) * PAGE_ROWS;
            (page.as_slice(), column_rows.saturating_sub(start).min(PAGE_ROWS))
        })
    }
}

impl TimestampColumn {
    /// Pages that may hold timestamps in the range.
    fn pages(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> Range<usize> {
        let count = self.rows.div_ceil(PAGE_ROWS);
        if self.last_ms < start_ms {
            return count..count;
        }
        match self.column.form {
            Form::Even { first, step } if step > 0 => {
                let row = |timestamp: TimestampMs| {
                    (timestamp.saturating_sub(first).max(0) / step).min(self.rows as i64 - 1) as usize
                };
                if end_ms < first { 0..0 } else { row(start_ms) / PAGE_ROWS..row(end_ms) / PAGE_ROWS + 1 }
            }
            _ if self.page_starts.is_empty() => 0..count,
            _ => {
                let from = self.page_starts.partition_point(|&first| first <= start_ms).saturating_sub(1);
                let to = self.page_starts.partition_point(|&first| first <= end_ms).max(from);
                from..to
            }
        }
    }
}

#[cfg(test)]
mod tests;
