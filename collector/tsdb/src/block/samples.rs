//! Reads the samples of a block: a series and a time range in, its values and the timestamps that it shares
//! with others out.
//!
//! Columns are read page by page, and decoded pages are kept in the [`BlockCache`] that a reader brings along.
//! Compaction, which reads everything once, brings none.

use super::CHECKSUM_BYTES;
use super::cache::{BlockCache, SectionKey};
use super::index::{Column, Index, SeriesEntry, TimestampColumn};
use super::reader::{Block, BlockError};
use crate::codec::dense::{self, Form, PAGE_ROWS};
use crate::codec::page::Page;
use crate::merge::Piece;
use crate::tombstones::without_deleted;
use pharos_common::labels::Labels;
use pharos_common::sample::{Sample, TimestampMs};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Windows of timestamps that one reader of a block remembers.
const WINDOWS_KNOWN_MAX: usize = 1_024;

/// Timestamps in these windows at which they are forgotten, 8 bytes each.
const WINDOW_ROWS_KNOWN_MAX: usize = 512 << 10;

/// A reading of more pages of one column is no dashboard's that comes back in a moment, and is not kept.
const PAGES_KEPT_MAX: usize = 256;

impl Block {
    /// All samples of one series, for compaction; none if all were deleted.
    pub(crate) fn series(&self, index: &Index, number: usize) -> Result<Option<(Labels, Piece)>, BlockError> {
        let Some(series) = index.series.get(number) else { return Ok(None) };
        let rows = self.rows(index, series.timestamps, TimestampMs::MIN, TimestampMs::MAX, None)?;
        let Some(rows) = rows else { return Err(self.damaged("a column of timestamps")) };
        let piece = self.piece(series, &rows, None)?;
        Ok(Some((series.labels.clone(), piece)))
    }

    /// The samples of one series in a range. `windows` remembers what series have in common.
    pub(crate) fn series_in(
        &self,
        number: u32,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        windows: &mut Windows,
    ) -> Result<Option<Piece>, BlockError> {
        match windows.window(self, number, start_ms, end_ms)? {
            Some(window) => self.samples_of(number, &window, windows.cache.as_deref()),
            None => Ok(None),
        }
    }

    /// The samples of one series in a window of its timestamps.
    pub(crate) fn samples_of(
        &self,
        number: u32,
        window: &Window,
        cache: Option<&BlockCache>,
    ) -> Result<Option<Piece>, BlockError> {
        let Some(series) = window.index.series.get(number as usize) else { return Ok(None) };
        self.piece(series, &window.found, cache).map(Some)
    }

    /// The newest sample of one series in a window of its timestamps.
    pub(crate) fn newest_of(
        &self,
        number: u32,
        window: &Window,
        cache: Option<&BlockCache>,
    ) -> Result<Option<Sample>, BlockError> {
        let Some(series) = window.index.series.get(number as usize) else { return Ok(None) };
        let is_touched = self.tombstones().iter().any(|tombstone| tombstone.matches(&series.labels));
        let (timestamp_ms, value) = if is_touched {
            // The newest may be deleted: then the one that counts is not the last.
            let piece = self.piece(series, &window.found, cache)?;
            (piece.timestamps.last().copied(), piece.values.last().copied())
        } else {
            let window = &window.found;
            let row = window.rows.end.saturating_sub(1);
            let values = self.values(series, window, row..window.rows.end, cache)?;
            (window.timestamps.last().copied(), values.last().copied())
        };
        Ok(timestamp_ms.zip(value).map(|(timestamp_ms, value)| Sample { timestamp_ms, value }))
    }

    fn piece(
        &self,
        series: &SeriesEntry,
        window: &Rows,
        cache: Option<&BlockCache>,
    ) -> Result<Piece, BlockError> {
        let values = self.values(series, window, window.rows.clone(), cache)?;
        let piece = Piece { timestamps: Arc::clone(&window.timestamps), values };
        let tombstones = self.tombstones();
        if tombstones.is_empty() {
            return Ok(piece);
        }
        Ok(without_deleted(&tombstones, &series.labels, piece))
    }

    /// Which rows lie in a range, and their timestamps. `None` if there are none.
    fn rows(
        &self,
        index: &Index,
        number: u32,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        cache: Option<&BlockCache>,
    ) -> Result<Option<Rows>, BlockError> {
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
                let each = |_, page: &Page| page.append_integers(&mut timestamps);
                self.pages(&column.column, column.rows, pages, cache, &damaged, each)?;
            }
            Form::Dropped { .. } => return Ok(None),
            _ => return Err(damaged()),
        }
        if timestamps.len() != rows {
            return Err(damaged());
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
        Ok(Some(Rows { rows: first_row + from..first_row + to, timestamps, column_rows: column.rows }))
    }

    /// The values of some rows of a window's series.
    fn values(
        &self,
        series: &SeriesEntry,
        window: &Rows,
        rows: Range<usize>,
        cache: Option<&BlockCache>,
    ) -> Result<Vec<f64>, BlockError> {
        let damaged = || self.damaged(format!("series {}", series.labels));
        let column = &series.values;
        if let Form::Constant(bits) = column.form {
            return Ok(vec![f64::from_bits(bits); rows.len()]);
        }
        let mut values = Vec::with_capacity(rows.len());
        let pages = rows.start / PAGE_ROWS..rows.end.div_ceil(PAGE_ROWS);
        let each = |page: usize, decoded: &Page| {
            let first = page * PAGE_ROWS;
            let from = rows.start.saturating_sub(first);
            decoded.append_values(from..(rows.end - first).min(PAGE_ROWS), &mut values);
        };
        self.pages(column, window.column_rows, pages, cache, &damaged, each)?;
        if values.len() != rows.len() {
            return Err(damaged());
        }
        Ok(values)
    }

    /// Hands the pages of a column of `rows` rows to `each` with their numbers, in order.
    fn pages(
        &self,
        column: &Column,
        rows: usize,
        wanted: Range<usize>,
        cache: Option<&BlockCache>,
        damaged: &dyn Fn() -> BlockError,
        mut each: impl FnMut(usize, &Page),
    ) -> Result<(), BlockError> {
        let kept = cache.filter(|_| wanted.len() <= PAGES_KEPT_MAX);
        let Some(cache) = kept else {
            cache.map_or(Ok(()), BlockCache::permit_reading)?;
            return self.decode(column, rows, wanted, damaged, |number, page| each(number, &page));
        };
        let key = |page: usize| SectionKey { block: self.id(), offset: column.offset, page: page as u32 };
        let mut next = wanted.start;
        while next < wanted.end {
            if let Some(page) = cache.pages.get(&key(next)) {
                each(next, &page);
                next += 1;
                continue;
            }
            cache.permit_reading()?;
            // What follows and is not known either is read with it.
            let mut end = next + 1;
            while end < wanted.end && cache.pages.get(&key(end)).is_none() {
                end += 1;
            }
            self.decode(column, rows, next..end, damaged, |number, page| {
                each(number, &page);
                cache.pages.insert(key(number), Arc::new(page));
            })?;
            next = end;
        }
        Ok(())
    }

    /// Reads pages from the file, checks and decodes them.
    fn decode(
        &self,
        column: &Column,
        rows: usize,
        wanted: Range<usize>,
        damaged: &dyn Fn() -> BlockError,
        mut each: impl FnMut(usize, Page),
    ) -> Result<(), BlockError> {
        let sections = self.sections(column, &wanted, damaged)?;
        let mut number = wanted.start;
        let pages = sections.pages.iter().map(|range| {
            let rows = rows.saturating_sub(number * PAGE_ROWS).min(PAGE_ROWS);
            number += 1;
            (sections.bytes.get(range.clone()).unwrap_or_default(), rows)
        });
        let meta = sections.bytes.get(sections.meta.clone()).unwrap_or_default();
        let mut at = wanted.start;
        let each = |page: Page| {
            each(at, page);
            at += 1;
        };
        dense::decode(column.form, meta, pages, each).map_err(|_| damaged())
    }

    /// Reads a column's meta and the wanted pages, and checks them.
    fn sections(
        &self,
        column: &Column,
        wanted: &Range<usize>,
        damaged: &dyn Fn() -> BlockError,
    ) -> Result<Sections, BlockError> {
        let (Some(before), Some(lengths)) =
            (column.page_lengths.get(..wanted.start), column.page_lengths.get(wanted.clone()))
        else {
            return Err(damaged());
        };
        let with_checksum = |length: &u32| *length as usize + CHECKSUM_BYTES;
        let meta_length = with_checksum(&column.meta_length);
        let skipped: usize = before.iter().map(with_checksum).sum();
        let length: usize = lengths.iter().map(with_checksum).sum();
        let mut bytes = vec![0; meta_length + length];
        if skipped == 0 {
            self.file.read_exact_at(&mut bytes, column.offset)?;
        } else {
            let (meta, pages) = bytes.split_at_mut(meta_length);
            self.file.read_exact_at(meta, column.offset)?;
            self.file.read_exact_at(pages, column.offset + (meta_length + skipped) as u64)?;
        }
        let mut start = 0;
        let mut checked = |length: u32| {
            let section = start..start + length as usize;
            start = section.end + CHECKSUM_BYTES;
            let is_sound = bytes.get(section.clone()).map(crc32fast::hash).is_some_and(|checksum| {
                bytes.get(section.end..start) == Some(checksum.to_le_bytes().as_slice())
            });
            if is_sound { Ok(section) } else { Err(damaged()) }
        };
        let meta = checked(column.meta_length)?;
        let pages = lengths.iter().map(|&length| checked(length)).collect::<Result<_, _>>()?;
        Ok(Sections { bytes, meta, pages })
    }
}

/// Windows of columns of timestamps that were read, for series that share them. [`Block::series_in`] keeps pages
/// in its cache.
#[derive(Debug)]
pub(crate) struct Windows {
    known: HashMap<(u32, TimestampMs, TimestampMs), Option<Rows>, foldhash::fast::RandomState>,
    /// The block's.
    index: Option<Arc<Index>>,
    /// Timestamps in all of them.
    rows: usize,
    cache: Option<Arc<BlockCache>>,
}

impl Windows {
    /// For one reader of one block.
    pub(crate) fn new(cache: Option<Arc<BlockCache>>) -> Self {
        Windows { known: HashMap::default(), index: None, rows: 0, cache }
    }

    /// Where the samples of a series in a range are. `None` if there are none.
    pub(crate) fn window(
        &mut self,
        block: &Block,
        number: u32,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<Option<Window>, BlockError> {
        let index = match &self.index {
            Some(index) => Arc::clone(index),
            None => Arc::clone(self.index.insert(block.index()?)),
        };
        let Some(series) = index.series.get(number as usize) else { return Ok(None) };
        let key = (series.timestamps, start_ms, end_ms);
        let known = self.known.get(&key).cloned();
        let found = match known {
            Some(found) => found,
            None => {
                if self.rows >= WINDOW_ROWS_KNOWN_MAX || self.known.len() >= WINDOWS_KNOWN_MAX {
                    // Readers hold on to what they use.
                    self.known.clear();
                    self.rows = 0;
                }
                let found = block.rows(&index, series.timestamps, start_ms, end_ms, self.cache.as_deref())?;
                self.rows += found.as_ref().map_or(0, |found| found.timestamps.len());
                self.known.insert(key, found.clone());
                found
            }
        };
        Ok(found.map(|found| Window { found, index }))
    }
}

/// Where in a block the samples of a series in a range are.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    found: Rows,
    index: Arc<Index>,
}

impl Window {
    pub(crate) fn timestamps(&self) -> &Arc<[TimestampMs]> {
        &self.found.timestamps
    }
}

/// The rows of a column of timestamps that lie in a range.
#[derive(Clone, Debug)]
struct Rows {
    rows: Range<usize>,
    timestamps: Arc<[TimestampMs]>,
    /// Rows of the whole column.
    column_rows: usize,
}

/// Checked bytes of a column, and where in them its parts are.
#[derive(Debug)]
struct Sections {
    bytes: Vec<u8>,
    meta: Range<usize>,
    pages: Vec<Range<usize>>,
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
