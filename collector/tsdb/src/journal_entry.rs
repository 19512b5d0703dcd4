//! What a journal record holds: a run of entries, written by [`EntryWriter`], read by [`read_entries`].
//!
//! One record is one group commit; one that would be too large becomes several. Records of an epoch (a process's part of a segment) build on each
//! other: a group is defined before its first row in the epoch, and most rows are told against the group's
//! row before (see `codec::row_model`). A record that damage swallowed must not make the rows behind it wrong, so
//! each record says which it is, and now and then a row is told in full.
//!
//! ```text
//! record   epoch u32 little-endian (differs between epochs), number of the record in it, entries
//! entry    kind u8, then
//!   4 mark      stream 16 bytes, lane u8, sequence
//!   5 metadata  metric, kind u8, unit, help: each text with its length
//!   7 define    group, columns n, then n packed label sets; of each how many bytes at the beginning and how
//!               many at the end are those of the set before in the record, and the bytes between with their length
//!   8… row      bit 0: of the group numbered one above that of the row before in the record, else its group
//!               follows; bit 1: of the same time, else the difference (zigzag) follows; the bits above: 2 and
//!               the length of the row, or 63, then the length less 61 follows before all; row
//!   2           define of versions 1 and 2: group, columns n, then n packed label sets, each with its length
//!   3, 6        rows of version 1: group, difference of times (zigzag), `codec::row` against the row before or (6)
//!               against zeros; not written any more
//! ```
//!
//! All other numbers are varints. A row's length tells where the next entry begins even if the row's group is not
//! known.

use crate::codec::row as row_codec;
use crate::codec::row_model::RowModel;
use crate::codec::varint::{Cursor, push, push_bytes};
use crate::codec::zigzag;
use crate::metadata::{Metadata, MetricKind};
use crate::row::{Lane, StreamMark};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::HashMap;

const DEFINE_V1: u8 = 2;
const ROW_V1: u8 = 3;
const MARK: u8 = 4;
const METADATA: u8 = 5;
const FULL_ROW_V1: u8 = 6;
const DEFINE: u8 = 7;

/// The first byte of a row: flags, and above them its length.
const NEXT_GROUP: u8 = 1;
const SAME_TIME: u8 = 2;
const LENGTH_SHIFT: u32 = 2;
/// Added to lengths, so that a row's first byte is none of the other kinds.
const LENGTH_BASE: usize = 2;
/// A length from here on has a varint of its own.
const LENGTH_LONG: usize = 63;

/// A record of this size is closed before the next row: with that row and the largest definition of its group
/// ([`crate::row::GROUP_LABEL_BYTES_MAX`]) it is still one that the journal takes.
const RECORD_BYTES_FULL: usize = 16 << 20;

/// The records of a group commit: one, but for a giant.
#[derive(Debug, Default)]
pub(crate) struct Records {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Records {
    /// In their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.full.iter().chain([&self.last]).map(Vec::as_slice)
    }

    /// Bytes of all.
    pub(crate) fn len(&self) -> usize {
        self.iter().map(<[u8]>::len).sum()
    }

    /// The last one, for the memory that it has.
    pub(crate) fn into_last(self) -> Vec<u8> {
        self.last
    }
}

/// Entries that wait to be written.
#[derive(Debug)]
pub(crate) struct EntryWriter {
    /// Records that are full.
    full: Vec<Vec<u8>>,
    full_bytes: usize,
    bytes: Vec<u8>,
    header_bytes: usize,
    epoch: u32,
    number: u64,
    timestamp_ms: TimestampMs,
    /// The group of the row before in the record.
    group: Option<u32>,
    /// A row on its way, until its length is known.
    row: Vec<u8>,
    /// The label set told last in the record.
    labels: Vec<u8>,
}

impl EntryWriter {
    /// Begins with an epoch that differs from those that the journal holds already.
    pub(crate) fn new(epoch: u32) -> Self {
        let mut writer = EntryWriter {
            full: Vec::new(),
            full_bytes: 0,
            bytes: Vec::new(),
            header_bytes: 0,
            epoch,
            number: 0,
            timestamp_ms: 0,
            group: None,
            row: Vec::new(),
            labels: Vec::new(),
        };
        writer.begin_record();
        writer
    }

    /// Epoch and number of the record that is gathering.
    pub(crate) fn next_record(&self) -> (u32, u64) {
        (self.epoch, self.number)
    }

    /// Begins a new epoch, in which every group is defined again. Only an empty record may be restarted.
    pub(crate) fn restart(&mut self) {
        debug_assert!(self.is_empty());
        self.epoch = self.epoch.wrapping_add(1);
        self.number = 0;
        self.begin_record();
    }

    fn begin_record(&mut self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&self.epoch.to_le_bytes());
        push(&mut self.bytes, self.number);
        self.header_bytes = self.bytes.len();
        self.timestamp_ms = 0;
        self.group = None;
        self.labels.clear();
    }

    pub(crate) fn define<'a>(&mut self, group: u32, columns: impl ExactSizeIterator<Item = &'a Labels>) {
        self.bytes.push(DEFINE);
        push(&mut self.bytes, u64::from(group));
        push(&mut self.bytes, columns.len() as u64);
        for labels in columns {
            let (labels, before) = (labels.as_bytes(), self.labels.as_slice());
            let same = |(left, right): &(&u8, &u8)| left == right;
            let head = labels.iter().zip(before).take_while(same).count();
            let longest_tail = labels.len().min(before.len()) - head;
            let tail =
                labels.iter().rev().zip(before.iter().rev()).take(longest_tail).take_while(same).count();
            push(&mut self.bytes, head as u64);
            push(&mut self.bytes, tail as u64);
            push_bytes(&mut self.bytes, labels.get(head..labels.len() - tail).unwrap_or_default());
            self.labels.clear();
            self.labels.extend_from_slice(labels);
        }
    }

    /// `model` is the group's. A `full` row does not depend on those before.
    pub(crate) fn row(
        &mut self,
        group: u32,
        timestamp_ms: TimestampMs,
        model: &mut RowModel,
        values: &[f64],
        full: bool,
    ) {
        self.row.clear();
        model.encode(values, full, &mut self.row);
        let next = self.group.is_some_and(|before| before.wrapping_add(1) == group);
        let same = self.timestamp_ms == timestamp_ms;
        let flags = if next { NEXT_GROUP } else { 0 } | if same { SAME_TIME } else { 0 };
        let length = self.row.len() + LENGTH_BASE;
        self.bytes.push((length.min(LENGTH_LONG) as u8) << LENGTH_SHIFT | flags);
        if length >= LENGTH_LONG {
            push(&mut self.bytes, (length - LENGTH_LONG) as u64);
        }
        if !next {
            push(&mut self.bytes, u64::from(group));
        }
        if !same {
            push(&mut self.bytes, zigzag(timestamp_ms.wrapping_sub(self.timestamp_ms)));
        }
        self.bytes.extend_from_slice(&self.row);
        self.timestamp_ms = timestamp_ms;
        self.group = Some(group);
    }

    pub(crate) fn mark(&mut self, mark: &StreamMark) {
        self.bytes.push(MARK);
        self.bytes.extend_from_slice(&mark.stream);
        self.bytes.push(match mark.lane {
            Lane::Live => 0,
            Lane::Backfill => 1,
        });
        push(&mut self.bytes, mark.sequence);
    }

    pub(crate) fn metadata(&mut self, metric: &str, metadata: &Metadata) {
        self.bytes.push(METADATA);
        push_bytes(&mut self.bytes, metric.as_bytes());
        self.bytes.push(metadata.kind as u8);
        push_bytes(&mut self.bytes, metadata.unit.as_bytes());
        push_bytes(&mut self.bytes, metadata.help.as_bytes());
    }

    /// Closes the record if it is so large that another entry may be too much.
    pub(crate) fn split_if_full(&mut self) {
        if self.bytes.len() >= RECORD_BYTES_FULL {
            self.full_bytes += self.bytes.len();
            self.full.push(std::mem::take(&mut self.bytes));
            self.number += 1;
            self.begin_record();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.full_bytes + self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.bytes.len() == self.header_bytes
    }

    /// Hands the records over and begins the next in the buffer given.
    pub(crate) fn swap(&mut self, next: Vec<u8>) -> Records {
        let last = std::mem::replace(&mut self.bytes, next);
        let full = std::mem::take(&mut self.full);
        self.full_bytes = 0;
        self.number += 1;
        self.begin_record();
        Records { full, last }
    }
}

/// What reading tells.
#[derive(Debug)]
pub(crate) enum Entry<'a> {
    Define { group: u32, columns: Vec<Labels> },
    Row { group: u32, timestamp_ms: TimestampMs, values: &'a [f64] },
    Mark(StreamMark),
    Metadata { metric: &'a str, metadata: Metadata },
}

/// What the records of an epoch build on. Lives as long as a replay.
#[derive(Debug, Default)]
pub(crate) struct ReadState {
    /// Epoch and number of the record that comes next if none is missing.
    expected: Option<(u32, u64)>,
    timestamp_ms: TimestampMs,
    /// The group of the row before in the record.
    group: Option<u32>,
    /// The label set told last in the record.
    labels: Vec<u8>,
    rows: HashMap<u32, RowBase, foldhash::fast::RandomState>,
    /// Rows that could not be told since a record before them is missing.
    pub(crate) rows_lost: u64,
}

#[derive(Debug)]
struct RowBase {
    model: RowModel,
    known: bool,
}

impl RowBase {
    fn new(width: usize, known: bool) -> Self {
        RowBase { model: RowModel::new(width), known }
    }
}

impl ReadState {
    /// Goes on in the middle of an epoch: `next_record` is the one to come, `widths` tells the groups that
    /// the records before define. What their rows were is not known, so each has to be told in full first.
    pub(crate) fn resume(next_record: (u32, u64), widths: impl Iterator<Item = (u32, usize)>) -> Self {
        ReadState {
            expected: Some(next_record),
            rows: widths.map(|(group, width)| (group, RowBase::new(width, false))).collect(),
            ..ReadState::default()
        }
    }

    fn begin_record(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let epoch = cursor.array().map(u32::from_le_bytes)?;
        let number = cursor.varint()?;
        match self.expected {
            Some((current, next)) if current == epoch && next == number => {}
            Some((current, next)) if current == epoch && next < number => {
                for base in self.rows.values_mut() {
                    base.known = false;
                }
            }
            // Another process, or another segment: its groups are others, even under the same number.
            _ => self.rows.clear(),
        }
        self.expected = Some((epoch, number.checked_add(1)?));
        self.timestamp_ms = 0;
        self.group = None;
        self.labels.clear();
        Some(())
    }
}

/// The bytes make no sense from some entry on; those before it were visited.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Hands the entries of a record to `visit`, in order. A row whose group or base is unknown, because a
/// record before is missing, is counted in the state and left out.
pub(crate) fn read_entries(
    record: &[u8],
    state: &mut ReadState,
    mut visit: impl FnMut(Entry<'_>),
) -> Result<(), Malformed> {
    let mut cursor = Cursor::new(record);
    state.begin_record(&mut cursor).ok_or(Malformed)?;
    while !cursor.is_empty() {
        if read_entry(&mut cursor, state, &mut visit).is_none() {
            // The rows behind cannot be told any more than those of a missing record.
            state.rows.clear();
            return Err(Malformed);
        }
    }
    Ok(())
}

fn read_entry(
    cursor: &mut Cursor<'_>,
    state: &mut ReadState,
    visit: &mut impl FnMut(Entry<'_>),
) -> Option<()> {
    match cursor.byte()? {
        kind @ (DEFINE | DEFINE_V1) => {
            let (group, columns) = read_define(kind, cursor, &mut state.labels)?;
            state.rows.insert(group, RowBase::new(columns.len(), true));
            visit(Entry::Define { group, columns });
        }
        kind @ (ROW_V1 | FULL_ROW_V1) => read_row_v1(kind, cursor, state, visit)?,
        head @ (8..) => read_row(head, cursor, state, visit)?,
        MARK => visit(Entry::Mark(read_mark(cursor)?)),
        METADATA => {
            let (metric, metadata) = read_metadata(cursor)?;
            visit(Entry::Metadata { metric, metadata });
        }
        _ => return None,
    }
    Some(())
}

fn read_row(
    head: u8,
    cursor: &mut Cursor<'_>,
    state: &mut ReadState,
    visit: &mut impl FnMut(Entry<'_>),
) -> Option<()> {
    let mut length = usize::from(head >> LENGTH_SHIFT);
    if length == LENGTH_LONG {
        length = length.checked_add(cursor.usize()?)?;
    }
    let group = match state.group {
        Some(before) if head & NEXT_GROUP != 0 => before.wrapping_add(1),
        None if head & NEXT_GROUP != 0 => return None,
        _ => cursor.varint()?.try_into().ok()?,
    };
    let step_ms = if head & SAME_TIME != 0 { 0 } else { cursor.signed()? };
    let timestamp_ms = state.timestamp_ms.wrapping_add(step_ms);
    let row = cursor.take(length.checked_sub(LENGTH_BASE)?)?;
    state.group = Some(group);
    state.timestamp_ms = timestamp_ms;
    match state.rows.get_mut(&group) {
        Some(base) if base.known || RowModel::is_full(row) => {
            base.model.decode(row)?;
            base.known = true;
            visit(Entry::Row { group, timestamp_ms, values: base.model.row() });
        }
        _ => state.rows_lost += 1,
    }
    Some(())
}

fn read_row_v1(
    kind: u8,
    cursor: &mut Cursor<'_>,
    state: &mut ReadState,
    visit: &mut impl FnMut(Entry<'_>),
) -> Option<()> {
    let group: u32 = cursor.varint()?.try_into().ok()?;
    let timestamp_ms = state.timestamp_ms.wrapping_add(cursor.signed()?);
    state.timestamp_ms = timestamp_ms;
    let Some(base) = state.rows.get_mut(&group) else {
        // Without the definition the width is unknown, and with it where the row ends.
        state.rows_lost += 1;
        return None;
    };
    let values = base.model.row_mut();
    if kind == FULL_ROW_V1 {
        values.fill(0.0);
        base.known = true;
    }
    if base.known {
        row_codec::decode(cursor, values)?;
        visit(Entry::Row { group, timestamp_ms, values });
    } else {
        row_codec::skip(cursor, values.len())?;
        state.rows_lost += 1;
    }
    Some(())
}

fn read_define(kind: u8, cursor: &mut Cursor<'_>, before: &mut Vec<u8>) -> Option<(u32, Vec<Labels>)> {
    let group = cursor.varint()?.try_into().ok()?;
    let count = cursor.usize()?;
    if count > crate::row::GROUP_COLUMNS_MAX {
        return None;
    }
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        if kind == DEFINE {
            let (head, tail) = (cursor.usize()?, cursor.usize()?);
            let tail_start = before.len().checked_sub(tail).filter(|&start| start >= head)?;
            before.splice(head..tail_start, cursor.bytes()?.iter().copied());
            columns.push(Labels::from_bytes(before)?);
        } else {
            columns.push(Labels::from_bytes(cursor.bytes()?)?);
        }
    }
    Some((group, columns))
}

fn read_mark(cursor: &mut Cursor<'_>) -> Option<StreamMark> {
    let stream = cursor.array()?;
    let lane = match cursor.byte()? {
        0 => Lane::Live,
        1 => Lane::Backfill,
        _ => return None,
    };
    Some(StreamMark { stream, lane, sequence: cursor.varint()? })
}

fn read_metadata<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a str, Metadata)> {
    let text = |cursor: &mut Cursor<'a>| std::str::from_utf8(cursor.bytes()?).ok();
    let metric = text(cursor)?;
    let kind = MetricKind::from_number(cursor.byte()?);
    let unit = text(cursor)?.to_owned();
    let help = text(cursor)?.to_owned();
    Some((metric, Metadata { kind, unit, help }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> [Labels; 2] {
        [Labels::from_pairs([("__name__", "a")]), Labels::from_pairs([("__name__", "b")])]
    }

    fn read(records: &[Vec<u8>]) -> (Vec<String>, u64) {
        let mut seen = Vec::new();
        let mut state = ReadState::default();
        for record in records {
            let _ = read_entries(record, &mut state, |entry| seen.push(format!("{entry:?}")));
        }
        (seen, state.rows_lost)
    }

    #[test]
    fn entries_come_back_as_written() {
        let mut writer = EntryWriter::new(5);
        let mut model = RowModel::new(2);
        writer.define(7, labels().iter());
        writer.row(7, 1_000, &mut model, &[1.0, 2.5], true);
        writer.row(7, 2_000, &mut model, &[1.0, f64::NAN], false);
        writer.mark(&StreamMark { stream: [3; 16], lane: Lane::Backfill, sequence: 9 });
        let metadata = Metadata { kind: MetricKind::Counter, unit: "s".into(), help: "h".into() };
        writer.metadata("a", &metadata);
        let (seen, _) = read(&[writer.swap(Vec::new()).into_last()]);
        assert_eq!(seen.len(), 5);
        assert!(seen[1].contains("timestamp_ms: 1000, values: [1.0, 2.5]"), "{}", seen[1]);
        assert!(seen[2].contains("timestamp_ms: 2000, values: [1.0, NaN]"), "{}", seen[2]);
        assert!(seen[3].contains("sequence: 9") && seen[4].contains("Counter"));
    }

    #[test]
    fn rows_behind_a_missing_record_are_left_out_until_one_is_told_in_full() {
        let mut writer = EntryWriter::new(5);
        let mut model = RowModel::new(2);
        let mut records = Vec::new();
        writer.define(7, labels().iter());
        for (value, full) in [(1.0, true), (2.0, false), (3.0, false), (4.0, true), (5.0, false)] {
            writer.row(7, 1_000, &mut model, &[value, 0.0], full);
            records.push(writer.swap(Vec::new()).into_last());
        }
        records.remove(1);
        let (seen, lost) = read(&records);
        assert_eq!(lost, 1);
        let values: Vec<&str> = seen[1..].iter().map(|row| &row[row.find('[').unwrap() + 1..][..3]).collect();
        assert_eq!(values, ["1.0", "4.0", "5.0"]);
    }

    #[test]
    fn groups_of_another_epoch_are_others() {
        let mut old = EntryWriter::new(5);
        old.define(7, labels().iter());
        let mut new = EntryWriter::new(6);
        let first = new.swap(Vec::new()).into_last();
        new.row(7, 1_000, &mut RowModel::new(2), &[1.0, 1.0], true);
        let (seen, lost) = read(&[old.swap(Vec::new()).into_last(), new.swap(Vec::new()).into_last()]);
        assert_eq!((seen.len(), lost), (1, 1), "the record that defines the group is missing: {first:?}");
    }

    #[test]
    fn label_sets_that_are_much_alike_take_little() {
        let column = |number: usize| {
            let (name, mode) = (format!("metric_{}", number / 8), format!("mode-{}", number % 8));
            Labels::from_pairs([("__name__", name.as_str()), ("instance", "a-node-of-many"), ("mode", &mode)])
        };
        let columns: Vec<Labels> = (0..64).map(column).collect();
        let mut writer = EntryWriter::new(5);
        writer.define(1, columns[..40].iter());
        writer.define(2, columns[40..].iter());
        let record = writer.swap(Vec::new()).into_last();
        assert!(record.len() < 64 * 10, "{}", record.len());
        let mut defined = Vec::new();
        let visit = |entry: Entry<'_>| {
            if let Entry::Define { columns, .. } = entry {
                defined.extend(columns);
            }
        };
        read_entries(&record, &mut ReadState::default(), visit).unwrap();
        assert_eq!(defined, columns);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_entries(&bytes, &mut ReadState::default(), |_| ());
        }
    }
}
