//! Bytes of one segment file: its header, its records, and how to go on behind damage.

use super::{JournalError, RECORD_BYTES_MAX};
use std::path::Path;

pub(super) const HEADER_BYTES: u64 = 16;
pub(super) const RECORD_HEADER_BYTES: usize = 10;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Zeros behind the last record are fewer.
const PADDING_BYTES_MAX: usize = 4096;
const MAGIC: [u8; 7] = *b"PHJRNL\0";
const VERSION: u8 = 1;
const MARKER: [u8; 2] = [0xa7, 0x51];

pub(super) fn encode_header(number: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..7].copy_from_slice(&MAGIC);
    header[7] = VERSION;
    header[8..].copy_from_slice(&number.to_le_bytes());
    header
}

pub(super) fn encode_record(payload: &[u8], out: &mut Vec<u8>) -> Result<(), JournalError> {
    if payload.len() > RECORD_BYTES_MAX {
        return Err(JournalError::TooLarge(payload.len()));
    }
    let length = (payload.len() as u32).to_le_bytes();
    out.reserve(RECORD_HEADER_BYTES + payload.len());
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&length);
    out.extend_from_slice(&checksum(length, payload).to_le_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// The payload of the record that starts `bytes`, if it is whole and undamaged.
pub(super) fn decode_record(bytes: &[u8]) -> Option<&[u8]> {
    let (header, rest) = bytes.split_at_checked(RECORD_HEADER_BYTES)?;
    let (marker, header) = header.split_at(2);
    if marker != MARKER {
        return None;
    }
    let length: [u8; 4] = header[..4].try_into().ok()?;
    let expected = u32::from_le_bytes(header[4..].try_into().ok()?);
    let size = u32::from_le_bytes(length) as usize;
    if size > RECORD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..size)?;
    (checksum(length, payload) == expected).then_some(payload)
}

/// Length of the payload announced by a record header, if the header is plausible.
pub(super) fn announced_length(header: &[u8]) -> Option<usize> {
    if header.len() < RECORD_HEADER_BYTES || header[..2] != MARKER {
        return None;
    }
    let size = u32::from_le_bytes(header[2..6].try_into().ok()?) as usize;
    (size <= RECORD_BYTES_MAX).then_some(size)
}

pub(super) struct Parsed {
    /// Offset behind the last undamaged record.
    pub(super) valid_end: u64,
    /// Bytes skipped before it.
    pub(super) damaged_bytes: u64,
}

/// Hands the undamaged records of a segment to `visit`.
pub(super) fn parse_segment(
    path: &Path,
    number: u64,
    bytes: &[u8],
    visit: impl FnMut(u64, &[u8]) -> Result<(), JournalError>,
) -> Result<Parsed, JournalError> {
    let header_length = HEADER_BYTES as usize;
    if bytes.len() < header_length {
        return Ok(Parsed { valid_end: 0, damaged_bytes: 0 });
    }
    let mut damaged_bytes = 0;
    if bytes[..header_length] != encode_header(number) {
        if bytes[..7] == MAGIC && bytes[7] > VERSION && bytes[8..16] == number.to_le_bytes() {
            return Err(JournalError::NewerFormat { path: path.to_owned(), version: bytes[7] });
        }
        damaged_bytes += HEADER_BYTES;
    }
    let mut parsed = parse_records(HEADER_BYTES, &bytes[header_length..], visit)?;
    parsed.damaged_bytes += damaged_bytes;
    Ok(parsed)
}

/// Hands the undamaged records of the part of a segment that begins at offset `base` to `visit`.
pub(super) fn parse_records(
    base: u64,
    bytes: &[u8],
    mut visit: impl FnMut(u64, &[u8]) -> Result<(), JournalError>,
) -> Result<Parsed, JournalError> {
    let mut damaged_bytes = 0;
    let mut valid_end = 0;
    let mut at = 0;
    while at < bytes.len() {
        match decode_record(&bytes[at..]) {
            Some(payload) => {
                damaged_bytes += (at - valid_end) as u64;
                visit(base + at as u64, payload)?;
                at += RECORD_HEADER_BYTES + payload.len();
                valid_end = at;
            }
            None => at = next_marker(bytes, at + 1),
        }
    }
    Ok(Parsed { valid_end: base + valid_end as u64, damaged_bytes })
}

/// Whether what is left at the end of a segment is what [`crate::storage_io::StorageIo::append_log`] leaves there.
pub(super) fn is_padding(tail: &[u8]) -> bool {
    tail.len() < PADDING_BYTES_MAX && tail.iter().all(|&byte| byte == 0)
}

/// Whether what is left at the end of a segment, from offset `from` on, looks like a record that a crash cut short:
/// shorter than its header says, or with a sector that was never written. A power cut may leave any of a write's
/// sectors unwritten, also the first one of several; in a file that grows, what is not written is zeros. A record
/// of which every sector is there but whose checksum is wrong is damage.
pub(super) fn is_torn(from: u64, tail: &[u8]) -> bool {
    let unwritten = |part: &[u8]| part.iter().all(|&byte| byte == 0);
    let to_boundary = SECTOR_BYTES - (from % SECTOR_BYTES as u64) as usize;
    let (first, others) = tail.split_at(to_boundary.min(tail.len()));
    if tail.len() < RECORD_HEADER_BYTES || unwritten(first) {
        return true;
    }
    // A header may lie in two sectors; without the second it announces anything.
    if first.len() < RECORD_HEADER_BYTES && unwritten(others.get(..SECTOR_BYTES).unwrap_or(others)) {
        return true;
    }
    let Some(size) = announced_length(tail) else { return false };
    let Some(record) = tail.get(..RECORD_HEADER_BYTES + size) else { return true };
    record.get(to_boundary..).unwrap_or_default().chunks(SECTOR_BYTES).any(unwritten)
}

fn next_marker(bytes: &[u8], from: usize) -> usize {
    bytes[from.min(bytes.len())..]
        .windows(MARKER.len())
        .position(|window| window == MARKER)
        .map_or(bytes.len(), |distance| from + distance)
}
