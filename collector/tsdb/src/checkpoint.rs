//! Checkpoints: what the head holds goes into files now and then, so that a restart replays only the
//! journal behind the newest of them.
//!
//! A checkpoint is taken at a boundary between two records of the journal. Its file holds what no checkpoint
//! before it has: pages sealed since, late samples that came since; and the open rows of every group, which
//! the next one holds again or has as pages. So the files of a *chain* make the head together. They hold pages as they
//! are in memory: nothing is compressed again, and loading them costs little more than reading.
//!
//! The journal's segments stay until their rows are in blocks, with or without checkpoints. A damaged or
//! missing file costs time only: [`chain`] tells which files a restart needs, and if one of them is not
//! there whole, the chain that ends before it is used, or the whole journal.

pub(crate) mod chain;
pub(crate) mod reader;
pub(crate) mod writer;

/// What every checkpoint begins with; a byte follows that tells the version.
const MAGIC: [u8; 7] = *b"PHCHECK";

/// The version that is written. Version 1, which is read as well, told pages and open rows at greater length.
pub(crate) const VERSION: u8 = 2;

/// Bytes before the first record.
pub(crate) const FILE_HEADER_BYTES: usize = MAGIC.len() + 1;

/// The first bytes of a file.
pub(crate) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [VERSION; FILE_HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header
}

/// The version of a file, if it is one that is known.
fn version_of(file: &[u8]) -> Option<u8> {
    let version = *file.strip_prefix(&MAGIC)?.first()?;
    (1..=VERSION).contains(&version).then_some(version)
}

/// Bytes before a record's payload: length u32, CRC-32 of kind and payload u32, kind u8.
pub(crate) const RECORD_HEADER_BYTES: usize = 9;

/// A record is closed at this size.
const RECORD_BYTES: usize = 1 << 20;

/// Largest record that is no damage: one group's pages may exceed [`RECORD_BYTES`] by far.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Kinds of records.
mod kind {
    pub(super) const DEFINITIONS: u8 = 1;
    pub(super) const GROUPS: u8 = 2;
    pub(super) const LATE: u8 = 3;
    pub(super) const STATE: u8 = 4;
    pub(super) const END: u8 = 5;
}

/// Fills in the header of a record, which stands before its payload.
pub(crate) fn seal_record(record: &mut [u8], kind: u8) {
    let Some((header, payload)) = record.split_at_mut_checked(RECORD_HEADER_BYTES) else { return };
    header[8] = kind;
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header[8..]);
    checksum.update(payload);
    header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[4..8].copy_from_slice(&checksum.finalize().to_le_bytes());
}

/// Name of the file with this number.
pub(crate) fn file_name(number: u64) -> String {
    format!("{number:020}.checkpoint")
}

/// The number in a checkpoint's name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".checkpoint")?.parse().ok()
}
