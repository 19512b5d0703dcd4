//! Writes a block: series in label order go in, a file appears when all of it is on disk.

use super::index::{Column, Index, SeriesEntry, TimestampColumn};
use super::reader::Block;
use super::rollups::{Chunk, ChunkBuilder, LevelDirectory};
use super::{Footer, Provenance, VERSION, header};
use crate::codec::dense::{self, Encoded, Form, PAGE_ROWS};
use crate::error::TsdbError;
use crate::hidden;
use crate::rollup::{Buckets, LEVELS_MS, record};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{StorageIo, WritableFile, create_anew};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// `zstd`'s effort for the index: it is small and written once.
const INDEX_LEVEL: i32 = 9;

/// Which series of a block get roll-ups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RolledUp {
    /// All.
    All,
    /// Those that last for an hour or have more than a page of samples. A block that will be merged soon is
    /// spared the roll-ups of the others: reading their samples takes no longer.
    Long,
}

impl RolledUp {
    fn includes(self, timestamps: &[TimestampMs]) -> bool {
        let ends = timestamps.first().zip(timestamps.last());
        let lasts_ms = ends.map_or(0, |(first, last)| last - first);
        self == RolledUp::All || timestamps.len() > PAGE_ROWS || lasts_ms >= HOUR_MS
    }
}

const HOUR_MS: i64 = 3_600_000;

/// A block being written. Dropped unfinished, it leaves a temporary file that the next opening removes.
#[derive(Debug)]
pub(crate) struct BlockWriter {
    io: Arc<dyn StorageIo>,
    folder: PathBuf,
    temporary: PathBuf,
    file: Box<dyn WritableFile>,
    buffer: Vec<u8>,
    offset: u64,
    index: Index,
    /// Timestamps written before, by a hash of them: series that were sampled together share them.
    by_hash: HashMap<TimestampsKey, u32>,
    rolled_up: RolledUp,
    buckets: Buckets,
    chunks: [ChunkBuilder; LEVELS_MS.len()],
    samples: u64,
    oldest_ms: TimestampMs,
    newest_ms: TimestampMs,
}

/// Two columns of timestamps with equal keys are taken for equal: 128 bits of hash beside rows and ends.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimestampsKey {
    rows: usize,
    ends: (TimestampMs, TimestampMs),
    hashes: (u64, u64),
}

impl TimestampsKey {
    fn of(timestamps: &[TimestampMs]) -> Self {
        let hash = |seed: u64| {
            let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
            for &timestamp in timestamps {
                hasher.write_i64(timestamp);
            }
            hasher.finish()
        };
        TimestampsKey {
            rows: timestamps.len(),
            ends: (timestamps.first().copied().unwrap_or(0), timestamps.last().copied().unwrap_or(0)),
            hashes: (hash(1), hash(2)),
        }
    }
}

impl BlockWriter {
    /// Begins a block in `folder`; `name` is what its file will be called.
    pub(crate) fn create(
        io: Arc<dyn StorageIo>,
        folder: &Path,
        name: &str,
        rolled_up: RolledUp,
    ) -> Result<Self, TsdbError> {
        let temporary = folder.join(format!("{name}.tmp"));
        let file = create_anew(&*io, &temporary)?;
        let mut buffer = Vec::with_capacity(BUFFER_BYTES + (64 << 10));
        buffer.extend_from_slice(&header(VERSION));
        Ok(BlockWriter {
            io,
            folder: folder.to_owned(),
            temporary,
            file,
            offset: buffer.len() as u64,
            buffer,
            index: Index {
                rollups: LEVELS_MS.map(|width_ms| LevelDirectory { width_ms, chunks: Vec::new() }).into(),
                ..Index::default()
            },
            by_hash: HashMap::new(),
            rolled_up,
            buckets: Buckets::default(),
            chunks: Default::default(),
            samples: 0,
            oldest_ms: TimestampMs::MAX,
            newest_ms: TimestampMs::MIN,
        })
    }

    /// Adds a series; each one's labels sort behind those before. A series without samples is left out.
    pub(crate) fn add(
        &mut self,
        labels: &Labels,
        timestamps: &[TimestampMs],
        values: &[f64],
    ) -> Result<(), TsdbError> {
        let (Some(&first), Some(&last)) = (timestamps.first(), timestamps.last()) else { return Ok(()) };
        debug_assert!(self.index.series.last().is_none_or(|before| before.labels < *labels));
        debug_assert_eq!(timestamps.len(), values.len());
        self.roll_up(labels, timestamps, values)?;
        let timestamps = self.timestamps(timestamps)?;
        let encoded = dense::encode_values(values).map_err(codec_failed)?;
        let values_column = self.column(encoded)?;
        self.samples += values.len() as u64;
        self.oldest_ms = self.oldest_ms.min(first);
        self.newest_ms = self.newest_ms.max(last);
        self.index.postings.insert(self.index.series.len() as u32, labels);
        self.index.series.push(SeriesEntry { labels: labels.clone(), timestamps, values: values_column });
        Ok(())
    }

    /// Adds the roll-ups of the next series. Hidden series have none.
    fn roll_up(
        &mut self,
        labels: &Labels,
        timestamps: &[TimestampMs],
        values: &[f64],
    ) -> Result<(), TsdbError> {
        let number = self.index.series.len() as u32;
        if hidden::is_hidden(labels) || !self.rolled_up.includes(timestamps) {
            self.chunks.iter_mut().for_each(|chunk| chunk.add(number, |_| ()));
            return Ok(());
        }
        self.buckets.build(timestamps, values);
        for (level, width_ms) in LEVELS_MS.into_iter().enumerate() {
            self.chunks[level].add(number, |out| record::encode(&self.buckets.levels[level], width_ms, out));
            if self.chunks[level].is_full() {
                self.close_chunk(level)?;
            }
        }
        Ok(())
    }

    fn close_chunk(&mut self, level: usize) -> Result<(), TsdbError> {
        let Some((first_series, bytes)) = self.chunks[level].take() else { return Ok(()) };
        let chunk = Chunk { first_series, offset: self.offset, length: bytes.len() as u32 };
        self.section(&bytes)?;
        self.index.rollups[level].chunks.push(chunk);
        Ok(())
    }

    fn timestamps(&mut self, timestamps: &[TimestampMs]) -> Result<u32, TsdbError> {
        let key = TimestampsKey::of(timestamps);
        if let Some(&number) = self.by_hash.get(&key) {
            return Ok(number);
        }
        let encoded = dense::encode_timestamps(timestamps).map_err(codec_failed)?;
        let column = self.column(encoded)?;
        let page_starts = match column.page_lengths.is_empty() {
            true => Box::default(),
            false => timestamps.iter().step_by(PAGE_ROWS).copied().collect(),
        };
        let number = self.index.timestamps.len() as u32;
        self.index.timestamps.push(TimestampColumn {
            rows: timestamps.len(),
            column,
            page_starts,
            last_ms: key.ends.1,
        });
        self.by_hash.insert(key, number);
        Ok(number)
    }

    fn column(&mut self, encoded: Encoded) -> Result<Column, TsdbError> {
        let offset = self.offset;
        let paged = !encoded.pages.is_empty();
        if paged {
            self.section(&encoded.meta)?;
        }
        for page in &encoded.pages {
            self.section(page)?;
        }
        Ok(Column {
            form: encoded.form,
            offset: if paged { offset } else { 0 },
            meta_length: encoded.meta.len() as u32,
            page_lengths: encoded.pages.iter().map(|page| page.len() as u32).collect(),
        })
    }

    fn section(&mut self, bytes: &[u8]) -> Result<(), TsdbError> {
        self.buffer.extend_from_slice(bytes);
        self.buffer.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
        self.offset += (bytes.len() + super::CHECKSUM_BYTES) as u64;
        if self.buffer.len() >= BUFFER_BYTES {
            self.file.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Adds the roll-ups of another block, without its samples, instead of any series; of the series that
    /// `keep` says.
    pub(crate) fn add_thinned(
        &mut self,
        source: &Block,
        keep: impl Fn(&Labels) -> bool,
    ) -> Result<(), TsdbError> {
        let index = source.index()?;
        let kept = |number: u32| index.series.get(number as usize).filter(|series| keep(&series.labels));
        for (stored, directory) in index.rollups.iter().enumerate() {
            let level = LEVELS_MS.iter().position(|&width_ms| width_ms == directory.width_ms);
            let Some(level) = level else { continue };
            let mut number = 0;
            for chunk in 0..directory.chunks.len() {
                let records = source.records(&index, stored, chunk)?;
                for series in records.series().filter(|&series| kept(series).is_some()) {
                    let record = records.record(series).unwrap_or_default();
                    self.chunks[level].add(number, |out| out.extend_from_slice(record));
                    number += 1;
                }
                if self.chunks[level].is_full() {
                    self.close_chunk(level)?;
                }
            }
        }
        let dropped = |first| Column {
            form: Form::Dropped { first },
            offset: 0,
            meta_length: 0,
            page_lengths: [].into(),
        };
        let timestamps = index.timestamps.iter().map(|timestamps| TimestampColumn {
            rows: 0,
            column: dropped(timestamps.first_ms()),
            page_starts: [].into(),
            last_ms: timestamps.last_ms,
        });
        self.index.timestamps = timestamps.collect();
        for series in (0..index.series.len() as u32).filter_map(kept) {
            self.index.postings.insert(self.index.series.len() as u32, &series.labels);
            let (labels, timestamps) = (series.labels.clone(), series.timestamps);
            self.index.series.push(SeriesEntry { labels, timestamps, values: dropped(0) });
        }
        (self.oldest_ms, self.newest_ms) = (source.oldest_ms(), source.newest_ms());
        Ok(())
    }

    /// Samples added so far.
    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Publishes the block. Returns its file, which is durable, and its size in bytes.
    pub(crate) fn finish(mut self, name: &str, provenance: Provenance) -> Result<(PathBuf, u64), TsdbError> {
        (0..LEVELS_MS.len()).try_for_each(|level| self.close_chunk(level))?;
        self.index.provenance = provenance;
        let plain = self.index.encode();
        let packed = zstd::bulk::compress(&plain, INDEX_LEVEL)
            .map_err(|error| TsdbError::Io(format!("compressing the index of {name}: {error}")))?;
        let footer = Footer {
            index_offset: self.offset,
            index_length: packed.len() as u64,
            index_plain_length: plain.len() as u64,
            oldest_ms: self.oldest_ms,
            newest_ms: self.newest_ms,
            index_checksum: crc32fast::hash(&packed),
        };
        self.buffer.extend_from_slice(&packed);
        self.buffer.extend_from_slice(&footer.encode());
        self.file.write_all(&self.buffer)?;
        self.file.sync()?;
        let path = self.folder.join(name);
        self.io.rename(&self.temporary, &path)?;
        self.io.sync_dir(&self.folder)?;
        Ok((path, self.offset + packed.len() as u64 + super::FOOTER_BYTES as u64))
    }
}

fn codec_failed(error: pco::errors::PcoError) -> TsdbError {
    TsdbError::Io(format!("encoding a column: {error}"))
}
