//! Writes a checkpoint: definitions, groups, late rows, state; the file appears when all of it is on disk.

use super::chain::Link;
use super::{
    FILE_HEADER_BYTES, RECORD_BYTES, RECORD_HEADER_BYTES, file_header, file_name, kind, seal_record,
};
use crate::codec::row as row_codec;
use crate::codec::row_model::RowModel;
use crate::codec::varint::{push, push_bytes};
use crate::codec::zigzag;
use crate::error::TsdbError;
use crate::head::group::GroupCapture;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{IoError, StorageIo, WritableFile, create_anew};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `zstd`'s effort for definitions: labels of groups are much alike.
const DEFINITIONS_LEVEL: i32 = 1;

/// A checkpoint being written. Dropped unfinished, it leaves a temporary file, which the next attempt and
/// the next opening remove.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    number: u64,
    file: Box<dyn WritableFile>,
    /// The record that is gathering, header included.
    record: Vec<u8>,
    kind: u8,
    bytes: u64,
    /// An open row on its way.
    row: Vec<u8>,
    /// What a late row is told against.
    zeros: Vec<f64>,
}

impl CheckpointWriter {
    /// Begins the file with this number.
    pub(crate) fn create(io: Arc<dyn StorageIo>, folder: &Path, number: u64) -> Result<Self, TsdbError> {
        let temporary = temporary(folder, number);
        let mut file = create_anew(&*io, &temporary)?;
        file.write_all(&file_header())?;
        Ok(CheckpointWriter {
            io,
            folder: folder.to_owned(),
            number,
            file,
            record: vec![0; RECORD_HEADER_BYTES],
            kind: kind::GROUPS,
            bytes: FILE_HEADER_BYTES as u64,
            row: Vec::new(),
            zeros: Vec::new(),
        })
    }

    /// Appends a group's definition.
    pub(crate) fn define<'a>(
        &mut self,
        group: u32,
        columns: impl ExactSizeIterator<Item = &'a Labels>,
    ) -> Result<(), TsdbError> {
        self.begin(kind::DEFINITIONS)?;
        push(&mut self.record, u64::from(group));
        push(&mut self.record, columns.len() as u64);
        for labels in columns {
            push_bytes(&mut self.record, labels.as_bytes());
        }
        Ok(())
    }

    /// Appends what was captured of a group.
    pub(crate) fn group(
        &mut self,
        group: u32,
        width: usize,
        capture: &GroupCapture,
    ) -> Result<(), TsdbError> {
        self.begin(kind::GROUPS)?;
        let out = &mut self.record;
        push(out, u64::from(group));
        push(out, zigzag(capture.newest_ms));
        push(out, u64::from(capture.rows_in_era));
        push(out, capture.pages.len() as u64);
        for page in &capture.pages {
            page.encode(out);
        }
        push(out, capture.open_timestamps.len() as u64);
        let mut model = RowModel::new(width);
        let mut before: TimestampMs = 0;
        for (number, (&timestamp, row)) in
            capture.open_timestamps.iter().zip(capture.open_values.chunks(width)).enumerate()
        {
            push(out, zigzag(timestamp.wrapping_sub(before)));
            before = timestamp;
            self.row.clear();
            model.encode(row, number == 0, &mut self.row);
            push_bytes(out, &self.row);
        }
        Ok(())
    }

    /// Appends a late row.
    pub(crate) fn late(
        &mut self,
        group: u32,
        timestamp_ms: TimestampMs,
        values: &[f64],
    ) -> Result<(), TsdbError> {
        self.begin(kind::LATE)?;
        push(&mut self.record, u64::from(group));
        push(&mut self.record, zigzag(timestamp_ms));
        self.zeros.clear();
        self.zeros.resize(values.len(), 0.0);
        row_codec::encode(&mut self.zeros, values, &mut self.record);
        Ok(())
    }

    /// Appends marks and metadata, as a record of the journal.
    pub(crate) fn state(&mut self, record: &[u8]) -> Result<(), TsdbError> {
        self.begin(kind::STATE)?;
        self.record.extend_from_slice(record);
        Ok(())
    }

    /// Appends the end: the chain up to this file, itself included, which record of the journal comes next,
    /// and the newest timestamp of each segment before it. Syncs the file, which has its temporary name
    /// still.
    pub(crate) fn end(
        &mut self,
        links: &[Link],
        next_record: (u32, u64),
        segments: &[(u64, TimestampMs)],
    ) -> Result<(), TsdbError> {
        self.begin(kind::END)?;
        let out = &mut self.record;
        push(out, links.len() as u64);
        for link in links {
            push(out, link.number);
            push(out, link.scope);
            push(out, link.replay_from.segment);
            push(out, link.replay_from.offset);
            push(out, zigzag(link.newest_ms));
        }
        push(out, u64::from(next_record.0));
        push(out, next_record.1);
        push(out, segments.len() as u64);
        for &(segment, newest_ms) in segments {
            push(out, segment);
            push(out, zigzag(newest_ms));
        }
        self.write()?;
        Ok(self.file.sync()?)
    }

    /// Gives the file its name, durably. Returns its size in bytes.
    pub(crate) fn publish(self) -> Result<u64, TsdbError> {
        let path = self.folder.join(file_name(self.number));
        self.io.rename(&temporary(&self.folder, self.number), &path)?;
        self.io.sync_dir(&self.folder)?;
        Ok(self.bytes)
    }

    /// Begins an entry; ends the record before it if that is full or of another kind.
    fn begin(&mut self, kind: u8) -> Result<(), IoError> {
        if self.kind != kind || self.record.len() >= RECORD_BYTES {
            self.write()?;
            self.kind = kind;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), IoError> {
        if self.record.len() == RECORD_HEADER_BYTES {
            return Ok(());
        }
        if self.kind == kind::DEFINITIONS {
            self.pack_definitions()?;
        }
        seal_record(&mut self.record, self.kind);
        self.file.write_all(&self.record)?;
        self.bytes += self.record.len() as u64;
        self.record.truncate(RECORD_HEADER_BYTES);
        Ok(())
    }

    fn pack_definitions(&mut self) -> Result<(), IoError> {
        let plain = &self.record[RECORD_HEADER_BYTES..];
        let mut packed = vec![0; RECORD_HEADER_BYTES];
        push(&mut packed, plain.len() as u64);
        let body = zstd::bulk::compress(plain, DEFINITIONS_LEVEL)
            .map_err(|error| IoError::new("compress", &temporary(&self.folder, self.number), error))?;
        packed.extend_from_slice(&body);
        self.record = packed;
        Ok(())
    }
}

fn temporary(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{}.tmp", file_name(number)))
}
