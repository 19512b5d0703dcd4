//! Blocks: immutable files that hold all series of a stretch of time.
//!
//! A [`writer::BlockWriter`] takes series in label order and publishes the file whole or not at all; a
//! [`reader::Block`] answers selections from it. FORMAT.md shows the bytes; [`index`] is the part that is
//! read into memory.

pub(crate) mod cache;
pub(crate) mod index;
pub(crate) mod index_cache;
pub(crate) mod reader;
pub(crate) mod rollups;
pub(crate) mod samples;
pub(crate) mod writer;

use crate::codec::varint::Cursor;
use pharos_common::sample::TimestampMs;

/// What every block file starts with; a byte with the version follows.
pub(crate) const MAGIC: [u8; 7] = *b"PHBLOCK";

/// The version that is written. 1 had no roll-ups; it is still read.
pub(crate) const VERSION: u8 = 2;

/// Bytes of magic and version.
pub(crate) const HEADER_BYTES: usize = MAGIC.len() + 1;

/// Magic and version, as a file starts and ends with.
pub(crate) fn header(version: u8) -> [u8; HEADER_BYTES] {
    let mut bytes = [version; HEADER_BYTES];
    bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
    bytes
}

/// Bytes of the footer, which ends the file.
pub(crate) const FOOTER_BYTES: usize = 56;

/// Bytes of the checksum behind every meta and page.
pub(crate) const CHECKSUM_BYTES: usize = 4;

/// A window of time that a block of the first level covers.
pub(crate) const BLOCK_SPAN_MS: i64 = 2 * 3_600_000;

/// A day, which a compacted block covers.
pub(crate) const DAY_MS: i64 = 24 * 3_600_000;

/// The end of a block file: where the index lies, and what a reader wants to know without it.
///
/// ```text
///  0  8  offset of the index            32  8  newest timestamp
///  8  8  its length, compressed         40  4  CRC-32 of the index, compressed
/// 16  8  its length, plain              44  4  CRC-32 of bytes 0 to 44
/// 24  8  oldest timestamp               48  8  magic and version
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) index_offset: u64,
    pub(crate) index_length: u64,
    pub(crate) index_plain_length: u64,
    pub(crate) oldest_ms: TimestampMs,
    pub(crate) newest_ms: TimestampMs,
    pub(crate) index_checksum: u32,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FOOTER_BYTES);
        bytes.extend_from_slice(&self.index_offset.to_le_bytes());
        bytes.extend_from_slice(&self.index_length.to_le_bytes());
        bytes.extend_from_slice(&self.index_plain_length.to_le_bytes());
        bytes.extend_from_slice(&self.oldest_ms.to_le_bytes());
        bytes.extend_from_slice(&self.newest_ms.to_le_bytes());
        bytes.extend_from_slice(&self.index_checksum.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.extend_from_slice(&header(VERSION));
        bytes
    }

    /// Reads the footer of a file of this version.
    pub(crate) fn decode(bytes: &[u8], version: u8) -> Option<Footer> {
        let mut cursor = Cursor::new(bytes);
        let footer = Footer {
            index_offset: cursor.u64()?,
            index_length: cursor.u64()?,
            index_plain_length: cursor.u64()?,
            oldest_ms: cursor.u64()? as i64,
            newest_ms: cursor.u64()? as i64,
            index_checksum: cursor.array().map(u32::from_le_bytes)?,
        };
        let checksum = cursor.array().map(u32::from_le_bytes)?;
        (checksum == crc32fast::hash(bytes.get(..44)?) && cursor.array()? == header(version))
            .then_some(footer)
    }
}

/// What a block says of itself beside its samples.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    /// In-order rows older than this, of journal segments before `journal_segment`, are in blocks.
    pub(crate) cut_before_ms: TimestampMs,
    /// See `cut_before_ms`.
    pub(crate) journal_segment: u64,
    /// Files that this one replaces: removed if a crash left them.
    pub(crate) replaces: Vec<String>,
}

/// What the engine wants to know of a block all the time, so that it need not have the index for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) provenance: Provenance,
    /// Samples were dropped and roll-ups are left.
    pub(crate) is_thinned: bool,
    pub(crate) has_rollups: bool,
}
