//! The index of a block: its series, where their columns lie, and the postings.

use super::rollups::{Chunk, LevelDirectory};
use super::{Facts, Provenance};
use crate::codec::dense::{Form, PAGE_ROWS};
use crate::codec::varint::{Cursor, push, push_bytes};
use crate::codec::{SCALES, zigzag};
use crate::postings::Postings;
use pharos_common::labels::{Labels, push_label};
use pharos_common::sample::TimestampMs;
use roaring::RoaringBitmap;
use std::collections::HashMap;

/// Where a column lies in the file: its meta, then its pages, each with a checksum behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) form: Form,
    pub(crate) offset: u64,
    pub(crate) meta_length: u32,
    pub(crate) page_lengths: Box<[u32]>,
}

/// The timestamps of one or more series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimestampColumn {
    pub(crate) rows: usize,
    pub(crate) column: Column,
    /// First timestamp of each page; empty for the form that has no pages.
    pub(crate) page_starts: Box<[TimestampMs]>,
    pub(crate) last_ms: TimestampMs,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SeriesEntry {
    pub(crate) labels: Labels,
    /// Index of its timestamps.
    pub(crate) timestamps: u32,
    pub(crate) values: Column,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) provenance: Provenance,
    pub(crate) timestamps: Vec<TimestampColumn>,
    /// Sorted by labels; the position is the number that postings hold.
    pub(crate) series: Vec<SeriesEntry>,
    pub(crate) postings: Postings,
    /// Where the roll-ups of each level are; none in files of version 1.
    pub(crate) rollups: Vec<LevelDirectory>,
}

const CONSTANT: u8 = 0;
const SCALED: u8 = 1;
const FLOAT: u8 = 8;
const INTEGER: u8 = 9;
const EVEN: u8 = 10;
const DROPPED: u8 = 11;

impl Column {
    fn encode(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Constant(bits) => {
                out.push(CONSTANT);
                out.extend_from_slice(&bits.to_le_bytes());
                return;
            }
            Form::Even { first, step } => {
                out.push(EVEN);
                push(out, zigzag(first));
                push(out, zigzag(step));
                return;
            }
            Form::Dropped { first } => {
                out.push(DROPPED);
                push(out, zigzag(first));
                return;
            }
            Form::Scaled(index) => out.push(SCALED + index),
            Form::Float => out.push(FLOAT),
            Form::Integer => out.push(INTEGER),
        }
        push(out, self.offset);
        push(out, u64::from(self.meta_length));
        for &length in &self.page_lengths {
            push(out, u64::from(length));
        }
    }

    fn decode(cursor: &mut Cursor<'_>, rows: usize, data_end: u64) -> Option<Column> {
        let bare = |form| Column { form, offset: 0, meta_length: 0, page_lengths: Box::default() };
        let form = match cursor.byte()? {
            CONSTANT => return Some(bare(Form::Constant(cursor.u64()?))),
            EVEN => return Some(bare(Form::Even { first: cursor.signed()?, step: cursor.signed()? })),
            DROPPED => return Some(bare(Form::Dropped { first: cursor.signed()? })),
            FLOAT => Form::Float,
            INTEGER => Form::Integer,
            scaled if scaled >= SCALED && usize::from(scaled - SCALED) < SCALES.len() => {
                Form::Scaled(scaled - SCALED)
            }
            _ => return None,
        };
        let offset = cursor.varint()?;
        let meta_length = cursor.varint()?.try_into().ok()?;
        let page_lengths = (0..rows.div_ceil(PAGE_ROWS))
            .map(|_| cursor.varint()?.try_into().ok())
            .collect::<Option<Box<[u32]>>>()?;
        let column = Column { form, offset, meta_length, page_lengths };
        (column.end()? <= data_end).then_some(column)
    }

    /// Offset behind the last page, checksums included.
    fn end(&self) -> Option<u64> {
        let checksum = super::CHECKSUM_BYTES as u64;
        let mut end = self.offset.checked_add(u64::from(self.meta_length))?.checked_add(checksum)?;
        for &length in &self.page_lengths {
            end = end.checked_add(u64::from(length))?.checked_add(checksum)?;
        }
        Some(end)
    }
}

impl Index {
    /// Whether samples were dropped and roll-ups are left.
    pub(crate) fn is_thinned(&self) -> bool {
        self.timestamps.iter().any(|timestamps| matches!(timestamps.column.form, Form::Dropped { .. }))
    }

    /// What is remembered of a block when its index is not in memory.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            provenance: self.provenance.clone(),
            is_thinned: self.is_thinned(),
            has_rollups: self.rollups.iter().any(|level| !level.chunks.is_empty()),
        }
    }

    /// Bytes in memory, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        /// What the allocator adds to a piece of memory.
        const ALLOCATION_BYTES: usize = 16;
        let column = |column: &Column| match column.page_lengths.len() {
            0 => 0,
            pages => pages * size_of::<u32>() + ALLOCATION_BYTES,
        };
        let timestamps: usize = self
            .timestamps
            .iter()
            .map(|timestamps| {
                let starts = timestamps.page_starts.len() * size_of::<TimestampMs>();
                size_of::<TimestampColumn>() + column(&timestamps.column) + starts + ALLOCATION_BYTES
            })
            .sum();
        // Labels are counted for: two numbers beside them.
        let labels = |series: &SeriesEntry| series.labels.as_bytes().len() + 2 * ALLOCATION_BYTES;
        let series: usize = self
            .series
            .iter()
            .map(|series| size_of::<SeriesEntry>() + labels(series) + column(&series.values))
            .sum();
        let chunks: usize = self.rollups.iter().map(|level| level.chunks.len() * size_of::<Chunk>()).sum();
        size_of::<Index>() + timestamps + series + self.postings.list_bytes() + chunks
    }

    /// The index as bytes, to be compressed whole.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, zigzag(self.provenance.cut_before_ms));
        push(&mut out, self.provenance.journal_segment);
        push(&mut out, self.provenance.replaces.len() as u64);
        for name in &self.provenance.replaces {
            push_bytes(&mut out, name.as_bytes());
        }
        push(&mut out, self.timestamps.len() as u64);
        for timestamps in &self.timestamps {
            timestamps.encode(&mut out);
        }
        self.encode_series(&mut out);
        self.encode_postings(&mut out);
        push(&mut out, self.rollups.len() as u64);
        for level in &self.rollups {
            level.encode(&mut out);
        }
        out
    }

    fn encode_series(&self, out: &mut Vec<u8>) {
        let mut symbols: Vec<&str> = Vec::new();
        let mut numbers: HashMap<&str, u64> = HashMap::new();
        for (name, values) in self.postings.names() {
            for text in std::iter::once(name).chain(values.keys().map(|value| &**value)) {
                numbers.entry(text).or_insert_with(|| {
                    symbols.push(text);
                    symbols.len() as u64 - 1
                });
            }
        }
        push(out, symbols.len() as u64);
        for symbol in &symbols {
            push_bytes(out, symbol.as_bytes());
        }
        let number = |text: &str| numbers.get(text).copied().unwrap_or(0);
        push(out, self.series.len() as u64);
        for series in &self.series {
            push(out, series.labels.len() as u64);
            for (name, value) in series.labels.iter() {
                push(out, number(name));
                push(out, number(value));
            }
            push(out, u64::from(series.timestamps));
            series.values.encode(out);
        }
    }

    fn encode_postings(&self, out: &mut Vec<u8>) {
        push(out, self.postings.names().count() as u64);
        for (name, values) in self.postings.names() {
            push_bytes(out, name.as_bytes());
            push(out, values.len() as u64);
            for (value, postings) in values {
                push_bytes(out, value.as_bytes());
                let mut bytes = Vec::with_capacity(postings.serialized_size());
                // Writing to a Vec cannot fail.
                let _ = postings.serialize_into(&mut bytes);
                push_bytes(out, &bytes);
            }
        }
    }

    /// Reads an index back; `None` if the bytes are not a well-formed one. `data_end` bounds columns.
    pub(crate) fn decode(bytes: &[u8], data_end: u64, version: u8) -> Option<Index> {
        let mut cursor = Cursor::new(bytes);
        let cut_before_ms = cursor.signed()?;
        let journal_segment = cursor.varint()?;
        let replaces =
            (0..cursor.usize()?).map(|_| text(&mut cursor).map(str::to_owned)).collect::<Option<_>>()?;
        let provenance = Provenance { cut_before_ms, journal_segment, replaces };
        let timestamps = (0..cursor.usize()?)
            .map(|_| TimestampColumn::decode(&mut cursor, data_end))
            .collect::<Option<Vec<_>>>()?;
        let symbols = (0..cursor.usize()?).map(|_| text(&mut cursor)).collect::<Option<Vec<_>>>()?;
        let series = decode_series(&mut cursor, &symbols, &timestamps, data_end)?;
        let postings = decode_postings(&mut cursor, series.len())?;
        let levels = if version == 1 { 0 } else { cursor.usize()? };
        let rollups =
            (0..levels).map(|_| LevelDirectory::decode(&mut cursor, data_end)).collect::<Option<Vec<_>>>()?;
        cursor.is_empty().then_some(Index { provenance, timestamps, series, postings, rollups })
    }
}

impl TimestampColumn {
    /// Whether the column's first and last timestamp enclose any of the range.
    pub(crate) fn overlaps(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> bool {
        self.first_ms() <= end_ms && self.last_ms >= start_ms
    }

    pub(crate) fn first_ms(&self) -> TimestampMs {
        match self.column.form {
            Form::Even { first, .. } | Form::Dropped { first } => first,
            _ => self.page_starts.first().copied().unwrap_or(TimestampMs::MIN),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        push(out, self.rows as u64);
        push(out, zigzag(self.last_ms));
        self.column.encode(out);
        let mut before = 0;
        for &start in &self.page_starts {
            push(out, zigzag(start.wrapping_sub(before)));
            before = start;
        }
    }

    fn decode(cursor: &mut Cursor<'_>, data_end: u64) -> Option<TimestampColumn> {
        let rows = cursor.usize()?;
        let last_ms = cursor.signed()?;
        let column = Column::decode(cursor, rows, data_end)?;
        let mut before = 0i64;
        let mut page_starts = Vec::with_capacity(column.page_lengths.len());
        for _ in 0..column.page_lengths.len() {
            before = before.wrapping_add(cursor.signed()?);
            page_starts.push(before);
        }
        let sorted = page_starts.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = matches!(column.form, Form::Integer | Form::Even { .. } | Form::Dropped { .. });
        (sorted && fits).then_some(TimestampColumn { rows, column, page_starts: page_starts.into(), last_ms })
    }
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    std::str::from_utf8(cursor.bytes()?).ok()
}

fn decode_series(
    cursor: &mut Cursor<'_>,
    symbols: &[&str],
    timestamps: &[TimestampColumn],
    data_end: u64,
) -> Option<Vec<SeriesEntry>> {
    let symbol = |cursor: &mut Cursor<'_>| symbols.get(cursor.usize()?).copied();
    let count = cursor.usize()?;
    let mut series = Vec::new();
    let mut packed = Vec::new();
    for _ in 0..count {
        packed.clear();
        for _ in 0..cursor.usize()? {
            let name = symbol(cursor)?;
            let value = symbol(cursor)?;
            push_label(&mut packed, name, value);
        }
        let labels = Labels::from_bytes(&packed)?;
        let number = cursor.varint()?;
        let rows = timestamps.get(usize::try_from(number).ok()?)?.rows;
        let values = Column::decode(cursor, rows, data_end)?;
        if matches!(values.form, Form::Integer | Form::Even { .. }) {
            return None;
        }
        series.push(SeriesEntry { labels, timestamps: number as u32, values });
    }
    Some(series)
}

fn decode_postings(cursor: &mut Cursor<'_>, series: usize) -> Option<Postings> {
    let mut postings = Postings::default();
    for _ in 0..cursor.usize()? {
        let name = text(cursor)?;
        for _ in 0..cursor.usize()? {
            let value = text(cursor)?;
            let list = RoaringBitmap::deserialize_from(cursor.bytes()?).ok()?;
            if list.max().is_some_and(|max| max as usize >= series) {
                return None;
            }
            postings.insert_list(name, value, list);
        }
    }
    Some(postings)
}
