//! Every reader of bytes that come from a disk, behind one signature, for whoever throws bytes at them: the
//! targets in `fuzz/` and the seeded driver in `tests/fuzz.rs`. Not for other callers.
//!
//! Checksums would stop nearly every change before the code behind them sees it, so bytes are handed to that
//! code directly, or get their checksum here.

use crate::block::index::Index;
use crate::block::reader::Block;
use crate::block::writer::{BlockWriter, RolledUp};
use crate::block::{Provenance, VERSION};
use crate::checkpoint::chain::Link;
use crate::checkpoint::reader::{Checkpoint, Visitor};
use crate::checkpoint::writer::CheckpointWriter;
use crate::checkpoint::{self, RECORD_HEADER_BYTES};
use crate::codec::dense::{self, Form};
use crate::codec::row_model::RowModel;
use crate::codec::varint::Cursor;
use crate::head::group::GroupCapture;
use crate::head::page::Page;
use crate::journal_entry::{EntryWriter, ReadState, read_entries};
use crate::row::{ABSENT, is_absent};
use pharos_common::journal::{Journal, Position};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{MemoryIo, StorageIo};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A reader to be fed, and bytes that it takes to begin from.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it reads.
    pub name: &'static str,
    /// Reads; must neither panic nor run away, whatever the bytes are.
    pub read: fn(&[u8]),
    /// Well-formed bytes.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All readers.
pub const TARGETS: [Target; 7] = [
    Target { name: "journal", read: journal, seeds: journal_seeds },
    Target { name: "journal_record", read: journal_record, seeds: journal_record_seeds },
    Target { name: "page", read: page, seeds: page_seeds },
    Target { name: "checkpoint", read: checkpoint, seeds: checkpoint_seeds },
    Target { name: "index", read: index, seeds: index_seeds },
    Target { name: "column", read: column, seeds: column_seeds },
    Target { name: "block", read: block, seeds: block_seeds },
];

/// Feeds the reader of this name; nothing if there is none.
pub fn read(name: &str, bytes: &[u8]) {
    if let Some(target) = TARGETS.iter().find(|target| target.name == name) {
        (target.read)(bytes);
    }
}

const WIDTH: usize = 3;

fn labels(column: usize) -> Labels {
    Labels::from_pairs([("__name__", "fuzzed"), ("column", &column.to_string())])
}

fn values(row: usize) -> [f64; WIDTH] {
    [7.0, if row.is_multiple_of(5) { ABSENT } else { row as f64 / 100.0 }, (row as f64).sqrt()]
}

/// A segment file.
fn journal(bytes: &[u8]) {
    let io = MemoryIo::new();
    let folder = Path::new("/journal");
    let name = folder.join("00000000000000000001.journal");
    let written = io.create_dir_all(folder).and_then(|()| io.create(&name)?.write_all(bytes));
    if written.is_ok() {
        let mut state = ReadState::default();
        let _ = Journal::open(Arc::new(io), folder, |_, record| {
            let _ = read_entries(record, &mut state, |_| ());
            Ok(())
        });
    }
}

fn journal_seeds() -> Vec<Vec<u8>> {
    let io = MemoryIo::new();
    let folder = Path::new("/journal");
    if let Ok((mut journal, _)) = Journal::open(Arc::new(io.clone()), folder, |_, _| Ok(())) {
        for record in journal_record_seeds() {
            let _ = journal.append(&record);
        }
    }
    io.paths().iter().filter_map(|path| io.read(path).ok()).collect()
}

/// What a record holds.
fn journal_record(bytes: &[u8]) {
    let mut state = ReadState::resume((1, 0), [(9, WIDTH)].into_iter());
    let _ = read_entries(bytes, &mut state, |_| ());
    let _ = read_entries(bytes, &mut ReadState::default(), |_| ());
}

fn journal_record_seeds() -> Vec<Vec<u8>> {
    let mut writer = EntryWriter::new(1);
    let columns: Vec<Labels> = (0..WIDTH).map(labels).collect();
    writer.define(9, columns.iter());
    let mut model = RowModel::new(WIDTH);
    let mut records = Vec::new();
    for row in 0..12 {
        writer.row(9, 1_000_000 + row as i64 * 1_000, &mut model, &values(row), row % 6 == 0);
        if row % 4 == 3 {
            records.push(writer.swap(Vec::new()).into_last());
        }
    }
    records
}

/// A page as checkpoints have it.
fn page(bytes: &[u8]) {
    if let Some(page) = Page::decode(&mut Cursor::new(bytes), WIDTH) {
        let mut timestamps = Vec::new();
        page.timestamps(&mut timestamps);
        for column in 0..WIDTH {
            page.column(column);
        }
    }
}

fn page_seeds() -> Vec<Vec<u8>> {
    let page = |rows: usize| {
        let timestamps: Vec<i64> = (0..rows as i64).map(|row| 1_000 * row + row % 3).collect();
        let values: Vec<f64> = (0..rows).flat_map(values).collect();
        let mut bytes = Vec::new();
        Page::seal(&timestamps, &values).encode(&mut bytes);
        bytes
    };
    vec![page(1), page(33), page(120)]
}

/// The payloads of a checkpoint's records: kind u8, length u16, payload; each gets its checksum.
fn checkpoint(bytes: &[u8]) {
    let mut file = checkpoint::file_header().to_vec();
    let mut cursor = Cursor::new(bytes);
    while let Some(kind) = cursor.byte() {
        let length = cursor.array().map_or(0, u16::from_le_bytes);
        let payload = cursor.take(usize::from(length)).unwrap_or(cursor.rest());
        let at = file.len();
        file.resize(at + RECORD_HEADER_BYTES, 0);
        file.extend_from_slice(payload);
        checkpoint::seal_record(&mut file[at..], kind);
    }
    if let Some(checkpoint) = Checkpoint::parse(file) {
        let _ = checkpoint.visit(&mut HashMap::default(), true, &mut Nobody);
    }
}

fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let file = sample_checkpoint().unwrap_or_default();
    let mut seed = Vec::new();
    let mut rest = file.get(checkpoint::FILE_HEADER_BYTES..).unwrap_or_default();
    while let Some((header, behind)) = rest.split_at_checked(RECORD_HEADER_BYTES) {
        let length = Cursor::new(header).array().map_or(0, u32::from_le_bytes) as usize;
        let Some((payload, behind)) = behind.split_at_checked(length) else { break };
        seed.push(header[RECORD_HEADER_BYTES - 1]);
        seed.extend_from_slice(&(length as u16).to_le_bytes());
        seed.extend_from_slice(payload);
        rest = behind;
    }
    vec![seed]
}

fn sample_checkpoint() -> Option<Vec<u8>> {
    let (io, folder) = (MemoryIo::new(), Path::new("/checkpoints"));
    io.create_dir_all(folder).ok()?;
    let mut writer = CheckpointWriter::create(Arc::new(io.clone()), folder, 1).ok()?;
    let columns: Vec<Labels> = (0..WIDTH).map(labels).collect();
    let rows = |range: std::ops::Range<usize>| {
        let values: Vec<f64> = range.clone().flat_map(values).collect();
        (range.map(|row| row as i64 * 1_000).collect::<Vec<i64>>(), values)
    };
    let (timestamps, sealed) = rows(0..120);
    let (open_timestamps, open_values) = rows(120..150);
    let page = Arc::new(Page::seal(&timestamps, &sealed));
    let newest_ms = 149_000;
    let capture = GroupCapture { pages: vec![page], open_timestamps, open_values, rows_in_era: 2, newest_ms };
    writer.define(5, columns.iter()).ok()?;
    writer.group(5, WIDTH, &capture).ok()?;
    writer.late(5, 77, &values(1)).ok()?;
    writer.state(&EntryWriter::new(0).swap(Vec::new()).into_last()).ok()?;
    let replay_from = Position { segment: 3, offset: 400 };
    writer.end(&[Link { number: 1, scope: 1, replay_from, newest_ms }], (8, 20), &[(3, newest_ms)]).ok()?;
    writer.publish().ok()?;
    io.read(&folder.join(checkpoint::file_name(1))).ok()
}

struct Nobody;

impl Visitor for Nobody {
    fn define(&mut self, _: u32, _: Vec<Labels>) -> Option<()> {
        Some(())
    }

    fn page(&mut self, _: u32, page: Page) -> Option<()> {
        page.timestamps(&mut Vec::new());
        Some(())
    }

    fn open_row(&mut self, _: u32, _: TimestampMs, _: &[f64]) -> Option<()> {
        Some(())
    }

    fn group(&mut self, _: u32, _: TimestampMs, _: u32) -> Option<()> {
        Some(())
    }

    fn late(&mut self, _: u32, _: TimestampMs, _: &[f64]) -> Option<()> {
        Some(())
    }

    fn state(&mut self, record: &[u8]) -> Option<()> {
        journal_record(record);
        Some(())
    }
}

/// The index of a block, unpacked.
fn index(bytes: &[u8]) {
    for version in 1..=VERSION {
        if let Some(index) = Index::decode(bytes, u64::MAX / 2, version) {
            index.encode();
        }
    }
}

fn index_seeds() -> Vec<Vec<u8>> {
    let io = MemoryIo::new();
    let block = sample_block(&io).and_then(|path| Block::open(&io, &path).ok());
    block.and_then(|block| Some(block.index().ok()?.encode())).into_iter().collect()
}

/// A column of a block: form u8, rows u16, length of the meta u8, meta, one page.
fn column(bytes: &[u8]) {
    let mut cursor = Cursor::new(bytes);
    let form = match cursor.byte() {
        Some(scale @ 0..3) => Form::Scaled(scale),
        _ => Form::Float,
    };
    let rows = usize::from(cursor.array().map_or(0, u16::from_le_bytes));
    let meta = cursor.byte().and_then(|length| cursor.take(usize::from(length))).unwrap_or_default();
    let pages = std::iter::once((cursor.rest(), rows));
    let _ = dense::decode(form, meta, pages, |page| page.append_values(0..rows, &mut Vec::new()));
}

fn column_seeds() -> Vec<Vec<u8>> {
    let seed = |rows: usize, value: &dyn Fn(usize) -> f64| {
        let column: Vec<f64> = (0..rows).map(value).collect();
        let encoded = dense::encode_values(&column).ok()?;
        let form = if let Form::Scaled(scale) = encoded.form { scale } else { 3 };
        let mut seed = vec![form];
        seed.extend_from_slice(&(rows as u16).to_le_bytes());
        seed.push(u8::try_from(encoded.meta.len()).ok()?);
        seed.extend_from_slice(&encoded.meta);
        seed.extend_from_slice(encoded.pages.first()?);
        Some(seed)
    };
    let seeds = [
        seed(300, &|row| row as f64),
        seed(1_000, &|row| (row * 7 % 50) as f64 / 100.0),
        seed(90, &|row| (row as f64).sqrt()),
    ];
    seeds.into_iter().flatten().collect()
}

/// A block's file.
fn block(bytes: &[u8]) {
    let (io, path) = (MemoryIo::new(), Path::new("/blocks/0-1.block"));
    let written = io.create_dir_all(Path::new("/blocks")).and_then(|()| io.create(path)?.write_all(bytes));
    if written.is_ok()
        && let Ok(block) = Block::open(&io, path)
    {
        let _ = block.verify();
    }
}

fn block_seeds() -> Vec<Vec<u8>> {
    let io = MemoryIo::new();
    sample_block(&io).and_then(|path| io.read(&path).ok()).into_iter().collect()
}

fn sample_block(io: &MemoryIo) -> Option<PathBuf> {
    let folder = Path::new("/blocks");
    io.create_dir_all(folder).ok()?;
    let mut writer = BlockWriter::create(Arc::new(io.clone()), folder, "0-1.block", RolledUp::All).ok()?;
    for column in 0..WIDTH {
        let rows = 0..1_100 + column;
        let samples = rows.map(|row| (row as i64 * 1_000, values(row)[column]));
        let (timestamps, values): (Vec<i64>, Vec<f64>) =
            samples.filter(|(_, value)| !is_absent(*value)).unzip();
        writer.add(&labels(column), &timestamps, &values).ok()?;
    }
    Some(writer.finish("0-1.block", Provenance::default()).ok()?.0)
}
