//! Roll-ups in a block: records of series that follow each other, gathered to chunks.
//!
//! Records flow in series by series and come out as chunks of some tens of kilobytes ([`ChunkBuilder`]), so
//! a query over many series reads few chunks and a query over one series little more than it needs. The
//! index holds where each chunk lies ([`LevelDirectory`]).
//!
//! ```text
//! chunk    records varint, bytes of each (varints), records
//! ```

use crate::codec::varint::{Cursor, push};
use std::ops::Range;

/// Bytes of records at which a chunk is closed.
const CHUNK_BYTES: usize = 32 << 10;

/// Records at which a chunk is closed: those of native histograms are empty.
const RECORDS_MAX: usize = 4_096;

/// A chunk of records and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The first of its series.
    pub(crate) first_series: u32,
    pub(crate) offset: u64,
    /// Without its checksum.
    pub(crate) length: u32,
}

/// All chunks of one level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LevelDirectory {
    pub(crate) width_ms: i64,
    /// By rising first series.
    pub(crate) chunks: Vec<Chunk>,
}

impl LevelDirectory {
    /// The chunk that has a series' record, by position.
    pub(crate) fn chunk_of(&self, series: u32) -> Option<usize> {
        self.chunks.partition_point(|chunk| chunk.first_series <= series).checked_sub(1)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        push(out, self.width_ms as u64);
        push(out, self.chunks.len() as u64);
        let (mut series, mut offset) = (0, 0);
        for chunk in &self.chunks {
            push(out, u64::from(chunk.first_series - series));
            push(out, chunk.offset - offset);
            push(out, u64::from(chunk.length));
            (series, offset) = (chunk.first_series, chunk.offset);
        }
    }

    /// Reads a directory back; `None` if it is malformed or points behind `data_end`.
    pub(crate) fn decode(cursor: &mut Cursor<'_>, data_end: u64) -> Option<LevelDirectory> {
        let width_ms = i64::try_from(cursor.varint()?).ok().filter(|&width| width > 0)?;
        let count = cursor.usize()?;
        let (mut series, mut offset) = (0u32, 0u64);
        let mut chunks = Vec::new();
        for _ in 0..count {
            series = series.checked_add(cursor.varint()?.try_into().ok()?)?;
            offset = offset.checked_add(cursor.varint()?)?;
            let length: u32 = cursor.varint()?.try_into().ok()?;
            let end = offset.checked_add(u64::from(length))?.checked_add(super::CHECKSUM_BYTES as u64)?;
            if end > data_end {
                return None;
            }
            chunks.push(Chunk { first_series: series, offset, length });
        }
        Some(LevelDirectory { width_ms, chunks })
    }
}

/// Gathers the records of one level.
#[derive(Debug, Default)]
pub(crate) struct ChunkBuilder {
    first_series: u32,
    lengths: Vec<usize>,
    records: Vec<u8>,
}

impl ChunkBuilder {
    /// Adds the record that `encode` appends, of the next series.
    pub(crate) fn add(&mut self, series: u32, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.lengths.is_empty() {
            self.first_series = series;
        }
        let before = self.records.len();
        encode(&mut self.records);
        self.lengths.push(self.records.len() - before);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_BYTES || self.lengths.len() >= RECORDS_MAX
    }

    /// The chunk gathered so far and its first series; `None` if there is no record.
    pub(crate) fn take(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.lengths.is_empty() {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.records.len() + 4 * self.lengths.len());
        push(&mut bytes, self.lengths.len() as u64);
        for &length in &self.lengths {
            push(&mut bytes, length as u64);
        }
        bytes.extend_from_slice(&self.records);
        self.lengths.clear();
        self.records.clear();
        Some((self.first_series, bytes))
    }
}

/// A chunk as read: its bytes, and where each record lies in them.
#[derive(Debug, Default)]
pub(crate) struct Records {
    first_series: u32,
    bytes: Vec<u8>,
    /// Where each record begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Records {
    /// Bytes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.starts.len() * size_of::<usize>() + size_of::<Records>()
    }

    /// Takes a chunk's checked bytes; `None` if they are no chunk.
    pub(crate) fn new(first_series: u32, bytes: Vec<u8>) -> Option<Records> {
        let mut cursor = Cursor::new(&bytes);
        let count = cursor.usize().filter(|&count| count <= bytes.len())?;
        let lengths = (0..count).map(|_| cursor.usize()).collect::<Option<Vec<usize>>>()?;
        let total = lengths.iter().try_fold(0usize, |total, &length| total.checked_add(length))?;
        let mut start = bytes.len().checked_sub(total)?;
        let mut starts = Vec::with_capacity(count + 1);
        starts.push(start);
        for length in lengths {
            start += length;
            starts.push(start);
        }
        Some(Records { first_series, bytes, starts })
    }

    /// The series whose records these are.
    pub(crate) fn series(&self) -> Range<u32> {
        self.first_series..self.first_series.saturating_add(self.starts.len().saturating_sub(1) as u32)
    }

    /// A series' record.
    pub(crate) fn record(&self, series: u32) -> Option<&[u8]> {
        let at = series.checked_sub(self.first_series)? as usize;
        self.bytes.get(*self.starts.get(at)?..*self.starts.get(at + 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_their_series() {
        let mut builder = ChunkBuilder::default();
        for series in 7u32..10 {
            builder.add(series, |out| out.extend(std::iter::repeat_n(series as u8, series as usize - 7)));
        }
        let (first, bytes) = builder.take().unwrap();
        assert!(builder.take().is_none());
        let records = Records::new(first, bytes.clone()).unwrap();
        assert_eq!(records.series(), 7..10);
        assert_eq!(records.record(7), Some(&[][..]));
        assert_eq!(records.record(9), Some(&[9, 9][..]));
        assert_eq!((records.record(6), records.record(10)), (None, None));
        assert!(Records::new(first, bytes[..3].to_vec()).is_none());
    }

    #[test]
    fn a_directory_comes_back() {
        let chunk = |first_series, offset| Chunk { first_series, offset, length: 50 };
        let directory = LevelDirectory { width_ms: 300_000, chunks: vec![chunk(0, 8), chunk(5, 100)] };
        let mut bytes = Vec::new();
        directory.encode(&mut bytes);
        assert_eq!(LevelDirectory::decode(&mut Cursor::new(&bytes), 154), Some(directory.clone()));
        assert_eq!(LevelDirectory::decode(&mut Cursor::new(&bytes), 153), None);
        assert_eq!(
            [0, 4, 5, 9].map(|series| directory.chunk_of(series)),
            [Some(0), Some(0), Some(1), Some(1)]
        );
    }
}
