//! The journal: an append-only log of checksummed records in numbered segment files.
//!
//! Records flow in by [`Journal::append`], become durable by [`Journal::sync`], and flow out once, when
//! the journal is opened again ([`Journal::open`] replays them), or at any time through a
//! [`JournalReader`]. The agent buffers ticks in one, the collector's engine keeps its write-ahead log in
//! one. The journal knows nothing of what the records mean.
//!
//! # Format, version 1
//!
//! ```text
//! segment file  00000000000000000042.journal
//!   0  8  magic "PHJRNL" 0x00, version (1)
//!   8  8  segment number, u64 little-endian
//!  16  …  records
//! record
//!   0  2  marker 0xA7 0x51
//!   2  4  length of the payload, u32 little-endian
//!   6  4  CRC-32 (IEEE) of length and payload, u32 little-endian
//!  10  …  payload
//! ```
//!
//! Behind the last record less than a page of zeros may follow, if a crash ended a journal that was written past the
//! page cache ([`Journal::write_directly`]).
//!
//! # What recovery promises
//!
//! A torn end (a record cut short by a crash, at the end of the newest segment) is cut off and reported. It is cut
//! short if the file ends before it does, or if a sector of 512 bytes that it lies in was never written: a power cut
//! keeps of one write any of its sectors. So at most one record is appended between two calls of [`Journal::sync`]
//! where each has to be told from damage. Damage elsewhere, or to a record that is there whole, costs only the
//! records it lies in: reading resumes at the next marker with a valid checksum, and the damaged segment is kept
//! aside under `damaged/` for a person to look at.

mod reader;
mod segment;

pub use reader::JournalReader;
use segment::{
    HEADER_BYTES, RECORD_HEADER_BYTES, encode_header, encode_record, is_padding, is_torn, parse_records,
    parse_segment,
};

use crate::storage_io::{IoError, StorageIo, WritableFile};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest payload of one record. A longer length in a file is damage.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Memory for encoding that is kept from record to record.
const SCRATCH_BYTES_KEPT: usize = 4 << 20;

/// Where a record lies: orders records by age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Number of the segment.
    pub segment: u64,
    /// Offset of the record in the segment's file, bytes.
    pub offset: u64,
}

impl Position {
    /// Where the first record of a segment lies.
    pub fn first_of(segment: u64) -> Self {
        Position { segment, offset: HEADER_BYTES }
    }
}

/// Why a journal operation failed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file operation failed; nothing was appended, and a later attempt may succeed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An earlier sync or clean-up failed, so what is on disk is unknown. Only opening anew helps.
    #[error("the journal in {} takes no more records after a failed write; restart the program", .0.display())]
    Poisoned(PathBuf),
    /// The payload is larger than [`RECORD_BYTES_MAX`].
    #[error("a journal record of {0} bytes is larger than the {RECORD_BYTES_MAX} allowed")]
    TooLarge(usize),
    /// A segment was written by a newer version of Pharos.
    #[error("{}: journal format {version} is newer than this program knows (1); upgrade Pharos", path.display())]
    NewerFormat {
        /// The segment's file.
        path: PathBuf,
        /// Its version.
        version: u8,
    },
    /// The visitor of a replay refused a record.
    #[error("replay of {}: {message}", path.display())]
    Replay {
        /// The segment's file.
        path: PathBuf,
        /// What the visitor said.
        message: String,
    },
}

/// What opening a journal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Records handed to the visitor.
    pub records: u64,
    /// Bytes cut off the end of the newest segment (a record that a crash cut short).
    pub torn_bytes: u64,
    /// Bytes skipped elsewhere, which held acknowledged records before something damaged them.
    pub damaged_bytes: u64,
    /// Segments of which a copy was set aside under `damaged/`.
    pub set_aside: Vec<PathBuf>,
}

/// An open journal. One owner appends; readers have their own [`JournalReader`].
#[derive(Debug)]
pub struct Journal {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    segments: VecDeque<Segment>,
    file: Box<dyn WritableFile>,
    /// Files are opened by [`StorageIo::append_log`].
    direct: bool,
    /// Reused for encoding, so that appending does not allocate.
    scratch: Vec<u8>,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: u64,
    bytes: u64,
}

impl Journal {
    /// Opens the journal in `folder` (created if missing) and hands every record, oldest first, to
    /// `visit`.
    ///
    /// # Errors
    /// If a file operation fails, a segment is of a newer format, or `visit` refuses a record.
    pub fn open(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        visit: impl FnMut(Position, &[u8]) -> Result<(), String>,
    ) -> Result<(Journal, Recovery), JournalError> {
        Self::open_from(io, folder, Position::first_of(0), visit)
    }

    /// As [`Journal::open`], but records before `first` are kept unread: their owner knows what is in them.
    /// The end of the newest segment is looked at in any case.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_from(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        first: Position,
        mut visit: impl FnMut(Position, &[u8]) -> Result<(), String>,
    ) -> Result<(Journal, Recovery), JournalError> {
        io.create_dir_all(folder)?;
        let mut recovery = Recovery::default();
        let mut segments = VecDeque::new();
        let numbers = segment_numbers(&*io, folder)?;
        for (index, &number) in numbers.iter().enumerate() {
            let path = segment_path(folder, number);
            let last = index + 1 == numbers.len();
            if number < first.segment && !last {
                segments.push_back(Segment { number, bytes: io.open(&path)?.len()? });
                continue;
            }
            let visit_record = |offset, payload: &[u8]| {
                recovery.records += 1;
                visit(Position { segment: number, offset }, payload)
                    .map_err(|message| JournalError::Replay { path: path.clone(), message })
            };
            let from = if number == first.segment { first.offset } else { 0 };
            let part = if from > HEADER_BYTES { read_from(&*io, &path, from)? } else { None };
            let (base, bytes, outcome) = match part {
                Some(bytes) => {
                    let outcome = parse_records(from, &bytes, visit_record)?;
                    (from, bytes, outcome)
                }
                None => {
                    let bytes = io.read(&path)?;
                    let outcome = parse_segment(&path, number, &bytes, visit_record)?;
                    (0, bytes, outcome)
                }
            };
            let rest = bytes.get((outcome.valid_end - base) as usize..).unwrap_or_default();
            let padded = outcome.valid_end >= HEADER_BYTES && is_padding(rest);
            let tail = if padded { 0 } else { rest.len() as u64 };
            let torn = last && (outcome.valid_end < HEADER_BYTES || is_torn(outcome.valid_end, rest));
            let damaged = outcome.damaged_bytes + if torn { 0 } else { tail };
            if damaged > 0 {
                recovery.damaged_bytes += damaged;
                let aside = set_aside(&*io, folder, &path)?;
                tracing::error!(file = %path.display(), aside = %aside.display(), damaged,
                    "Damaged journal records skipped; everything else is served");
                recovery.set_aside.push(aside);
            }
            let mut kept = outcome.valid_end;
            if last && (!rest.is_empty() || outcome.valid_end < HEADER_BYTES) {
                if torn && tail > 0 {
                    tracing::warn!(file = %path.display(), bytes = tail,
                        "Unfinished record at the end of the journal cut off");
                    recovery.torn_bytes += tail;
                }
                let mut file = io.append(&path)?;
                if outcome.valid_end < HEADER_BYTES {
                    file.truncate(0)?;
                    file.write_all(&encode_header(number))?;
                    kept = HEADER_BYTES;
                } else {
                    file.truncate(outcome.valid_end)?;
                }
                file.sync()?;
            }
            segments.push_back(Segment { number, bytes: kept });
        }
        let file = match segments.back() {
            Some(last) => io.append(&segment_path(folder, last.number))?,
            None => {
                let (segment, file) = create_segment(&*io, folder, 1, false)?;
                segments.push_back(segment);
                file
            }
        };
        let journal = Journal {
            io,
            folder: folder.to_owned(),
            segments,
            file,
            direct: false,
            scratch: Vec::new(),
            poisoned: false,
        };
        Ok((journal, recovery))
    }

    /// From now on records are written past the page cache where the system can: for journals that are synced after
    /// every few kilobytes, of which the cache would hand the disk whole pages each time.
    ///
    /// # Errors
    /// If the current segment cannot be opened anew; it goes on as it was.
    pub fn write_directly(&mut self) -> Result<(), JournalError> {
        self.file = self.io.append_log(&segment_path(&self.folder, self.current().number))?;
        self.direct = true;
        Ok(())
    }

    /// Appends a record and says where it lies. It survives the process at once, a power cut after
    /// [`Journal::sync`].
    ///
    /// # Errors
    /// If nothing was appended.
    pub fn append(&mut self, payload: &[u8]) -> Result<Position, JournalError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let outcome = encode_record(payload, &mut scratch).and_then(|()| self.write(&scratch));
        // One giant record must not be paid for ever after.
        scratch.clear();
        scratch.shrink_to(SCRATCH_BYTES_KEPT);
        self.scratch = scratch;
        outcome
    }

    fn write(&mut self, record: &[u8]) -> Result<Position, JournalError> {
        self.check_usable()?;
        let Segment { number, bytes } = self.current();
        if let Err(error) = self.file.write_all(record) {
            // Part of the record may be there; it must go, or the next one would follow garbage.
            if self.file.truncate(bytes).is_err() {
                self.poisoned = true;
            }
            return Err(error.into());
        }
        self.grow_current(record.len() as u64);
        Ok(Position { segment: number, offset: bytes })
    }

    /// Makes all appended records survive a power cut.
    ///
    /// # Errors
    /// If the system could not; the journal then refuses everything, for nobody knows what is on disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.check_usable()?;
        self.file.sync().map_err(|error| {
            self.poisoned = true;
            error.into()
        })
    }

    /// Starts a new segment, and syncs the old one first. Returns the new segment's number.
    ///
    /// # Errors
    /// If a file operation fails; the old segment stays current then.
    pub fn rotate(&mut self) -> Result<u64, JournalError> {
        let next = self.current().number + 1;
        self.advance_to(next)?;
        Ok(next)
    }

    /// Makes sure that the current segment's number is at least `segment`.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn advance_to(&mut self, segment: u64) -> Result<(), JournalError> {
        if self.current().number >= segment {
            return Ok(());
        }
        self.sync()?;
        let (segment, file) = create_segment(&*self.io, &self.folder, segment, self.direct)?;
        self.segments.push_back(segment);
        self.file = file;
        Ok(())
    }

    /// Removes all segments older than `segment`; never the current one.
    ///
    /// # Errors
    /// If a file operation fails; the rest is removed next time.
    pub fn remove_before(&mut self, segment: u64) -> Result<(), JournalError> {
        while let Some(&oldest) = self.segments.front() {
            if oldest.number >= segment || self.segments.len() == 1 {
                break;
            }
            self.io.remove_file(&segment_path(&self.folder, oldest.number))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    /// Number of the segment that takes records now.
    pub fn current_segment(&self) -> u64 {
        self.current().number
    }

    /// Number of the oldest segment.
    pub fn oldest_segment(&self) -> u64 {
        self.segments.front().map_or(1, |segment| segment.number)
    }

    /// Where the next record will lie.
    pub fn end(&self) -> Position {
        let Segment { number, bytes } = self.current();
        Position { segment: number, offset: bytes }
    }

    /// Size of the current segment.
    pub fn current_segment_bytes(&self) -> u64 {
        self.current().bytes
    }

    /// Size of all segments.
    pub fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// A reader of this journal's files that starts at `position`.
    pub fn reader(&self, position: Position) -> JournalReader {
        JournalReader::new(Arc::clone(&self.io), self.folder.clone(), position)
    }

    /// A reader that starts at the oldest record.
    pub fn reader_from_oldest(&self) -> JournalReader {
        self.reader(Position::first_of(self.oldest_segment()))
    }

    fn check_usable(&self) -> Result<(), JournalError> {
        if self.poisoned { Err(JournalError::Poisoned(self.folder.clone())) } else { Ok(()) }
    }

    fn current(&self) -> Segment {
        // `open` leaves at least one segment and nothing removes the last.
        self.segments.back().copied().unwrap_or(Segment { number: 1, bytes: HEADER_BYTES })
    }

    fn grow_current(&mut self, bytes: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes;
        }
    }
}

/// What is wrong with a segment's file, told without changing anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentCheck {
    /// Records that are whole.
    pub records: u64,
    /// Bytes behind the last of them, if they look like a record that a crash cut short.
    pub torn_bytes: u64,
    /// Bytes of damaged records.
    pub damaged_bytes: u64,
}

/// Checks the file of a segment, whose name tells its number. `None` if the name is none of a segment.
///
/// # Errors
/// If it is of a newer format.
pub fn check_segment(path: &Path, bytes: &[u8]) -> Result<Option<SegmentCheck>, JournalError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some(number) = name.strip_suffix(".journal").and_then(|number| number.parse().ok()) else {
        return Ok(None);
    };
    let mut check = SegmentCheck::default();
    let parsed = parse_segment(path, number, bytes, |_, _| {
        check.records += 1;
        Ok(())
    })?;
    check.damaged_bytes = parsed.damaged_bytes;
    let rest = bytes.get(parsed.valid_end as usize..).unwrap_or_default();
    if parsed.valid_end >= HEADER_BYTES && is_padding(rest) {
        return Ok(Some(check));
    }
    let torn = parsed.valid_end < HEADER_BYTES || is_torn(parsed.valid_end, rest);
    *if torn { &mut check.torn_bytes } else { &mut check.damaged_bytes } += rest.len() as u64;
    Ok(Some(check))
}

/// Bytes a record with this payload takes in a segment.
pub fn record_bytes(payload: usize) -> u64 {
    (RECORD_HEADER_BYTES + payload) as u64
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:020}.journal"))
}

fn segment_numbers(io: &dyn StorageIo, folder: &Path) -> Result<Vec<u64>, JournalError> {
    let names = io.list(folder)?;
    let mut numbers: Vec<u64> =
        names.iter().filter_map(|name| name.strip_suffix(".journal")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The file from `offset` on; `None` if it ends before.
fn read_from(io: &dyn StorageIo, path: &Path, offset: u64) -> Result<Option<Vec<u8>>, JournalError> {
    let file = io.open(path)?;
    let Some(length) = file.len()?.checked_sub(offset) else { return Ok(None) };
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

fn create_segment(
    io: &dyn StorageIo,
    folder: &Path,
    number: u64,
    direct: bool,
) -> Result<(Segment, Box<dyn WritableFile>), JournalError> {
    let path = segment_path(folder, number);
    let create = || {
        let mut file = io.create(&path)?;
        file.write_all(&encode_header(number))?;
        file.sync()?;
        io.sync_dir(folder)?;
        if direct { io.append_log(&path) } else { Ok(file) }
    };
    match create() {
        Ok(file) => Ok((Segment { number, bytes: HEADER_BYTES }, file)),
        Err(error) => {
            // Otherwise the next attempt would find the name taken. What cannot be removed now is an
            // empty segment to the next opening.
            let _ = io.remove_file(&path);
            Err(JournalError::Io(error))
        }
    }
}

/// Keeps a copy: the original may be cut, and then go on.
fn set_aside(io: &dyn StorageIo, folder: &Path, path: &Path) -> Result<PathBuf, JournalError> {
    let bytes = io.read(path)?;
    let damaged = folder.join("damaged");
    io.create_dir_all(&damaged)?;
    let aside = damaged.join(path.file_name().unwrap_or_default());
    match io.create(&aside) {
        Ok(mut file) => {
            file.write_all(&bytes)?;
            file.sync()?;
            io.sync_dir(&damaged)?;
        }
        // An earlier start has kept it already.
        Err(error) if error.source.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    Ok(aside)
}

#[cfg(test)]
mod tests;
