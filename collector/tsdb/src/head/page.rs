//! A sealed piece of a group in memory: up to [`PAGE_ROWS`] rows, transposed to columns and compressed.

use crate::codec::short;
use crate::codec::varint::{Cursor, push};
use crate::codec::zigzag;
use crate::row::is_absent;
use pharos_common::sample::TimestampMs;

/// Rows of a page: enough for the cheap codec to pay, few enough that the open rows stay small.
pub(crate) const PAGE_ROWS: usize = 120;

/// Immutable once made; shared with readers.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) first_ms: TimestampMs,
    pub(crate) last_ms: TimestampMs,
    rows: usize,
    /// Values of all columns together.
    samples: usize,
    /// Where each column starts in `bytes`; timestamps lie before the first.
    columns: Box<[u32]>,
    bytes: Box<[u8]>,
}

/// The samples of one column of a page.
#[derive(Debug, Default)]
pub(crate) struct PageColumn {
    /// Rows that have a value; empty if all have.
    pub(crate) present: Vec<bool>,
    pub(crate) values: Vec<f64>,
}

const ALL_PRESENT: u8 = 0;
const SOME_PRESENT: u8 = 1;

impl Page {
    /// Seals rows. `values` holds `timestamps.len()` rows of equal width, one after the other.
    pub(crate) fn seal(timestamps: &[TimestampMs], values: &[f64]) -> Page {
        let rows = timestamps.len();
        let width = values.len() / rows.max(1);
        let mut bytes = Vec::with_capacity(values.len() * 2 + 64);
        short::encode_timestamps(timestamps, &mut bytes);
        let mut starts = Vec::with_capacity(width);
        let mut samples = 0;
        let mut column = Vec::with_capacity(rows);
        for at in 0..width {
            starts.push(bytes.len() as u32);
            column.clear();
            column.extend(values[at..].iter().step_by(width).copied().filter(|&value| !is_absent(value)));
            samples += column.len();
            if column.len() == rows {
                bytes.push(ALL_PRESENT);
            } else {
                bytes.push(SOME_PRESENT);
                let present = values[at..].iter().step_by(width).map(|&value| u64::from(!is_absent(value)));
                crate::codec::bits::pack(&mut bytes, 1, present);
            }
            short::encode_values(&column, &mut bytes);
        }
        Page {
            first_ms: timestamps.first().copied().unwrap_or(0),
            last_ms: timestamps.last().copied().unwrap_or(0),
            rows,
            samples,
            columns: starts.into(),
            bytes: bytes.into(),
        }
    }

    /// Appends the page as checkpoints have it: rows, samples, first and last timestamp, length, bytes of the
    /// timestamps and of each column but the last: varints; then the compressed bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push(out, self.rows as u64);
        push(out, self.samples as u64);
        push(out, zigzag(self.first_ms));
        push(out, zigzag(self.last_ms));
        push(out, self.bytes.len() as u64);
        let mut before = 0;
        for &start in &self.columns {
            push(out, u64::from(start - before));
            before = start;
        }
        out.extend_from_slice(&self.bytes);
    }

    /// Reads a page of `width` columns back. The caller has checked the bytes' checksum.
    pub(crate) fn decode(cursor: &mut Cursor<'_>, width: usize) -> Option<Page> {
        Self::decode_with(cursor, width, |cursor| {
            let mut start = 0u32;
            let mut columns = Vec::with_capacity(width);
            for _ in 0..width {
                start = start.checked_add(cursor.varint()?.try_into().ok()?)?;
                columns.push(start);
            }
            Some(columns.into())
        })
    }

    /// As [`Page::decode`], of a checkpoint of version 1: where each column starts is a u32.
    pub(crate) fn decode_v1(cursor: &mut Cursor<'_>, width: usize) -> Option<Page> {
        Self::decode_with(cursor, width, |cursor| {
            let starts = cursor.take(width.checked_mul(4)?)?.chunks_exact(4);
            Some(starts.filter_map(|start| Some(u32::from_le_bytes(start.try_into().ok()?))).collect())
        })
    }

    fn decode_with(
        cursor: &mut Cursor<'_>,
        width: usize,
        starts: impl FnOnce(&mut Cursor<'_>) -> Option<Box<[u32]>>,
    ) -> Option<Page> {
        let rows = cursor.usize()?;
        let samples = cursor.usize()?;
        let first_ms = cursor.signed()?;
        let last_ms = cursor.signed()?;
        let length = cursor.usize()?;
        let columns = starts(cursor)?;
        let bytes = cursor.take(length)?;
        let sound = (1..=PAGE_ROWS).contains(&rows)
            && samples <= rows * width
            && first_ms <= last_ms
            && columns.iter().all(|&start| (start as usize) < length);
        sound.then(|| Page { first_ms, last_ms, rows, samples, columns, bytes: bytes.into() })
    }

    /// Rows of the page.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Values of all columns together.
    pub(crate) fn samples(&self) -> usize {
        self.samples
    }

    /// Bytes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.columns.len() * 4 + std::mem::size_of::<Page>()
    }

    /// Appends the timestamps of all rows.
    pub(crate) fn timestamps(&self, out: &mut Vec<TimestampMs>) {
        let end = out.len() + self.rows;
        // A page that was read from a file may be none of ours, whatever its checksum says; then it has the
        // right number of rows nevertheless, for others stand behind them.
        if short::decode_timestamps(&mut Cursor::new(&self.bytes), self.rows, out).is_none() {
            out.resize(end, self.last_ms);
        }
    }

    /// Reads one column.
    pub(crate) fn column(&self, column: usize) -> PageColumn {
        let mut read = PageColumn::default();
        if self.read_column(column, &mut read).is_none() {
            return PageColumn { present: vec![false; self.rows], values: Vec::new() };
        }
        read
    }

    fn read_column(&self, column: usize, read: &mut PageColumn) -> Option<()> {
        let start = *self.columns.get(column)? as usize;
        let mut cursor = Cursor::new(self.bytes.get(start..)?);
        let mut count = self.rows;
        if cursor.byte()? == SOME_PRESENT {
            let bitmap = cursor.take(crate::codec::bits::packed_bytes(self.rows, 1))?;
            crate::codec::bits::unpack(bitmap, 1, self.rows, |bit| read.present.push(bit == 1))?;
            count = read.present.iter().filter(|&&present| present).count();
        }
        read.values.reserve(count);
        short::decode_values(&mut cursor, count, &mut read.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::ABSENT;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_page_gives_back_what_was_sealed(
            (width, values) in (1usize..6).prop_flat_map(|width| {
                let value = prop_oneof![any::<u64>().prop_map(f64::from_bits), Just(ABSENT), Just(1.5)];
                (Just(width), prop::collection::vec(prop::collection::vec(value, width), 1..PAGE_ROWS))
            })
        ) {
            let timestamps: Vec<i64> = (0..values.len() as i64).map(|row| row * 1000).collect();
            let flat: Vec<f64> = values.iter().flatten().copied().collect();
            let sealed = Page::seal(&timestamps, &flat);
            let mut bytes = Vec::new();
            sealed.encode(&mut bytes);
            let mut cursor = Cursor::new(&bytes);
            let page = Page::decode(&mut cursor, width).unwrap();
            prop_assert!(cursor.is_empty());
            prop_assert_eq!(page.samples(), flat.iter().filter(|&&value| !is_absent(value)).count());
            let mut back = Vec::new();
            page.timestamps(&mut back);
            prop_assert_eq!(&back, &timestamps);
            for column in 0..width {
                let read = page.column(column);
                let mut dense = read.values.iter();
                for (row, want) in values.iter().enumerate() {
                    let present = read.present.is_empty() || read.present[row];
                    prop_assert_eq!(present, !is_absent(want[column]));
                    if present {
                        prop_assert_eq!(dense.next().unwrap().to_bits(), want[column].to_bits());
                    }
                }
            }
        }

        #[test]
        fn bytes_that_are_no_page_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), width in 1usize..4) {
            if let Some(page) = Page::decode(&mut Cursor::new(&bytes), width) {
                let mut timestamps = Vec::new();
                page.timestamps(&mut timestamps);
                prop_assert_eq!(timestamps.len(), page.rows());
                for column in 0..width {
                    let read = page.column(column);
                    let rows = if read.present.is_empty() { read.values.len() } else { read.present.len() };
                    prop_assert_eq!(rows, page.rows());
                }
            }
        }
    }
}
