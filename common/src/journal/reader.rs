//! Reads a journal's records behind the back of its writer: what the agent sends after an outage.

use super::segment::{HEADER_BYTES, RECORD_HEADER_BYTES, announced_length, decode_record};
use super::{JournalError, Position, segment_numbers, segment_path};
use crate::storage_io::{ReadableFile, StorageIo};
use std::path::PathBuf;
use std::sync::Arc;

/// A position in a journal that moves forward record by record.
#[derive(Debug)]
pub struct JournalReader {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    position: Position,
    file: Option<(u64, Arc<dyn ReadableFile>)>,
    buffer: Vec<u8>,
}

impl JournalReader {
    pub(super) fn new(io: Arc<dyn StorageIo>, folder: PathBuf, position: Position) -> Self {
        JournalReader { io, folder, position, file: None, buffer: Vec::new() }
    }

    /// Where the next record is looked for.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The next record and where it lies, or `None` at the end (more may come later). Segments that the
    /// writer has removed meanwhile, and damaged records, are stepped over.
    ///
    /// # Errors
    /// If a file operation fails.
    pub fn next_record(&mut self) -> Result<Option<(Position, &[u8])>, JournalError> {
        loop {
            match self.read_here()? {
                Step::Record { at, payload_bytes } => {
                    let payload = &self.buffer[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload_bytes];
                    return Ok(Some((at, payload)));
                }
                Step::End => return Ok(None),
                Step::Again => {}
            }
        }
    }

    fn read_here(&mut self) -> Result<Step, JournalError> {
        let Some(file) = self.open_segment()? else { return self.step_to_next_segment() };
        let length = file.len()?;
        let at = self.position;
        if length < at.offset + RECORD_HEADER_BYTES as u64 {
            return self.step_to_next_segment();
        }
        self.buffer.resize(RECORD_HEADER_BYTES, 0);
        file.read_exact_at(&mut self.buffer, at.offset)?;
        let announced = announced_length(&self.buffer)
            .filter(|&size| at.offset + (RECORD_HEADER_BYTES + size) as u64 <= length);
        if let Some(payload_bytes) = announced {
            self.buffer.resize(RECORD_HEADER_BYTES + payload_bytes, 0);
            file.read_exact_at(
                &mut self.buffer[RECORD_HEADER_BYTES..],
                at.offset + RECORD_HEADER_BYTES as u64,
            )?;
            if decode_record(&self.buffer).is_some() {
                self.position.offset += (RECORD_HEADER_BYTES + payload_bytes) as u64;
                return Ok(Step::Record { at, payload_bytes });
            }
        }
        // Either damage or a record that is being written right now.
        if self.has_later_segment()? {
            self.position.offset += 1;
            return Ok(Step::Again);
        }
        Ok(Step::End)
    }

    fn open_segment(&mut self) -> Result<Option<Arc<dyn ReadableFile>>, JournalError> {
        if let Some((number, file)) = &self.file
            && *number == self.position.segment
        {
            return Ok(Some(Arc::clone(file)));
        }
        match self.io.open(&segment_path(&self.folder, self.position.segment)) {
            Ok(file) => {
                self.file = Some((self.position.segment, Arc::clone(&file)));
                Ok(Some(file))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn later_segment(&self) -> Result<Option<u64>, JournalError> {
        let numbers = segment_numbers(&*self.io, &self.folder)?;
        Ok(numbers.into_iter().find(|&number| number > self.position.segment))
    }

    fn has_later_segment(&self) -> Result<bool, JournalError> {
        Ok(self.later_segment()?.is_some())
    }

    fn step_to_next_segment(&mut self) -> Result<Step, JournalError> {
        match self.later_segment()? {
            Some(segment) => {
                self.position = Position { segment, offset: HEADER_BYTES };
                Ok(Step::Again)
            }
            None => Ok(Step::End),
        }
    }
}

enum Step {
    Record { at: Position, payload_bytes: usize },
    End,
    Again,
}
