//! Reads checkpoints: checks a file whole, then hands its entries out.

use super::chain::Link;
use super::{FILE_HEADER_BYTES, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, kind, version_of};
use crate::codec::row as row_codec;
use crate::codec::row_model::RowModel;
use crate::codec::varint::Cursor;
use crate::head::page::{PAGE_ROWS, Page};
use crate::row::GROUP_COLUMNS_MAX;
use pharos_common::journal::Position;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::HashMap;
use std::ops::Range;

/// A file whose checksums are right.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    version: u8,
    bytes: Vec<u8>,
    records: Vec<(u8, Range<usize>)>,
    /// The chain up to this file, itself last.
    pub(crate) links: Vec<Link>,
    /// Epoch and number of the journal's record behind it.
    pub(crate) next_record: (u32, u64),
    /// The newest timestamp of each journal segment before it.
    pub(crate) segments: Vec<(u64, TimestampMs)>,
}

/// What reading tells, group by group.
pub(crate) trait Visitor {
    /// A group's columns.
    fn define(&mut self, group: u32, columns: Vec<Labels>) -> Option<()>;
    /// The next page of a group.
    fn page(&mut self, group: u32, page: Page) -> Option<()>;
    /// An open row of a group, behind its pages.
    fn open_row(&mut self, group: u32, timestamp_ms: TimestampMs, values: &[f64]) -> Option<()>;
    /// The group is told whole. `rows_in_era` of its rows are at the start of the journal behind the
    /// checkpoint, too.
    fn group(&mut self, group: u32, newest_ms: TimestampMs, rows_in_era: u32) -> Option<()>;
    /// A late row.
    fn late(&mut self, group: u32, timestamp_ms: TimestampMs, values: &[f64]) -> Option<()>;
    /// Marks and metadata: a record of the journal.
    fn state(&mut self, record: &[u8]) -> Option<()>;
}

impl Checkpoint {
    /// Checks all of a file. `None` if any of it is damaged or missing, or of a version that is not known.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Checkpoint> {
        let version = version_of(&bytes)?;
        let mut at = FILE_HEADER_BYTES;
        let mut records = Vec::new();
        while at < bytes.len() {
            let mut header = Cursor::new(bytes.get(at..at + RECORD_HEADER_BYTES)?);
            let length = header.array().map(u32::from_le_bytes)? as usize;
            let checksum = header.array().map(u32::from_le_bytes)?;
            let kind = header.byte()?;
            if length > RECORD_BYTES_MAX {
                return None;
            }
            let payload = at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + length;
            if crc32fast::hash(bytes.get(payload.start - 1..payload.end)?) != checksum {
                return None;
            }
            at = payload.end;
            records.push((kind, payload));
        }
        let (kind, end) = records.pop()?;
        if kind != kind::END {
            return None;
        }
        let (links, next_record, segments) = parse_end(&mut Cursor::new(bytes.get(end)?))?;
        Some(Checkpoint { version, bytes, records, links, next_record, segments })
    }

    /// Size of the file.
    pub(crate) fn bytes_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Hands all entries to `visitor`; open rows only if `open` says so, for all but a chain's last file
    /// have them in vain. `widths` knows the groups of the files of the scope before this, and learns those
    /// of this one. `None` if an entry makes no sense or the visitor refuses it.
    pub(crate) fn visit(
        &self,
        widths: &mut HashMap<u32, usize, foldhash::fast::RandomState>,
        open: bool,
        visitor: &mut impl Visitor,
    ) -> Option<()> {
        for (kind, payload) in &self.records {
            let payload = self.bytes.get(payload.clone())?;
            let mut cursor = Cursor::new(payload);
            match *kind {
                kind::DEFINITIONS => {
                    let length = cursor.usize().filter(|&length| length <= RECORD_BYTES_MAX)?;
                    let plain = zstd::bulk::decompress(cursor.rest(), length).ok()?;
                    let mut cursor = Cursor::new(&plain);
                    while !cursor.is_empty() {
                        let group = cursor.varint()?.try_into().ok()?;
                        let count =
                            cursor.usize().filter(|&count| (1..=GROUP_COLUMNS_MAX).contains(&count))?;
                        let columns =
                            (0..count).map(|_| Labels::from_bytes(cursor.bytes()?)).collect::<Option<_>>()?;
                        widths.insert(group, count);
                        visitor.define(group, columns)?;
                    }
                }
                kind::GROUPS => {
                    while !cursor.is_empty() {
                        visit_group(&mut cursor, self.version, widths, open, visitor)?;
                    }
                }
                kind::LATE => {
                    let mut row = Vec::new();
                    while !cursor.is_empty() {
                        let group = cursor.varint()?.try_into().ok()?;
                        let timestamp_ms = cursor.signed()?;
                        row.clear();
                        row.resize(*widths.get(&group)?, 0.0);
                        row_codec::decode(&mut cursor, &mut row)?;
                        visitor.late(group, timestamp_ms, &row)?;
                    }
                }
                kind::STATE => visitor.state(payload)?,
                _ => return None,
            }
        }
        Some(())
    }
}

fn visit_group(
    cursor: &mut Cursor<'_>,
    version: u8,
    widths: &HashMap<u32, usize, foldhash::fast::RandomState>,
    open: bool,
    visitor: &mut impl Visitor,
) -> Option<()> {
    let group = cursor.varint()?.try_into().ok()?;
    let width = *widths.get(&group)?;
    let newest_ms = cursor.signed()?;
    let rows_in_era = cursor.varint()?.try_into().ok()?;
    for _ in 0..cursor.usize()? {
        let page = if version == 1 { Page::decode_v1(cursor, width) } else { Page::decode(cursor, width) };
        visitor.page(group, page?)?;
    }
    let rows = cursor.usize().filter(|&rows| rows <= PAGE_ROWS)?;
    let mut timestamp_ms: TimestampMs = 0;
    let mut model = RowModel::new(if open || version == 1 { width } else { 0 });
    for _ in 0..rows {
        timestamp_ms = timestamp_ms.wrapping_add(cursor.signed()?);
        if version == 1 {
            row_codec::decode(cursor, model.row_mut())?;
        } else {
            let row = cursor.bytes()?;
            if open {
                model.decode(row)?;
            }
        }
        if open {
            visitor.open_row(group, timestamp_ms, model.row())?;
        }
    }
    if open { visitor.group(group, newest_ms, rows_in_era) } else { Some(()) }
}

/// The chain, the journal's next record, and its segments.
type End = (Vec<Link>, (u32, u64), Vec<(u64, TimestampMs)>);

fn parse_end(cursor: &mut Cursor<'_>) -> Option<End> {
    let mut links: Vec<Link> = Vec::new();
    for _ in 0..cursor.usize()? {
        let link = Link {
            number: cursor.varint()?,
            scope: cursor.varint()?,
            replay_from: Position { segment: cursor.varint()?, offset: cursor.varint()? },
            newest_ms: cursor.signed()?,
        };
        let rises =
            links.last().is_none_or(|before| before.number < link.number && before.scope <= link.scope);
        if !rises || link.scope > link.number {
            return None;
        }
        links.push(link);
    }
    let next_record = (cursor.varint()?.try_into().ok()?, cursor.varint()?);
    let mut segments = Vec::new();
    for _ in 0..cursor.usize()? {
        segments.push((cursor.varint()?, cursor.signed()?));
    }
    (cursor.is_empty() && !links.is_empty()).then_some((links, next_record, segments))
}
