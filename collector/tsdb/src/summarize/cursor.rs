//! One block as it is summed up: what was read of it for the series before may serve the next.

use super::{Failure, InBlock, SummaryStats};
use crate::block::cache::BlockCache;
use crate::block::index::Index;
use crate::block::reader::{Block, BlockError};
use crate::block::rollups::Records;
use crate::block::samples::Windows;
use crate::merge::Piece;
use crate::rollup::columns::BucketColumns;
use crate::rollup::record::FINEST_MS;
use crate::rollup::{LEVELS_MS, bucket_of};
use crate::select::ReadBudget;
use pharos_common::summary::{Span, Summary, SummaryFields};
use std::sync::Arc;

/// Where a summary goes and what it may cost.
pub(crate) struct Work<'w, B> {
    pub(crate) fields: SummaryFields,
    pub(crate) stats: &'w mut SummaryStats,
    pub(crate) into: &'w mut Summary,
    pub(crate) scratch: &'w mut Summary,
    pub(crate) budget: &'w B,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    pub(crate) block: Arc<Block>,
    /// Position in the list of blocks.
    position: usize,
    /// By position in [`LEVELS_MS`].
    levels: [LevelCursor; LEVELS_MS.len()],
    windows: Windows,
    cache: Arc<BlockCache>,
    index: Option<Arc<Index>>,
    /// Samples read last: spans meet inside a bucket, so the next one wants them, too.
    samples: Option<(u32, Span, Option<Piece>)>,
}

/// The records of a level that were read last, and the series decoded last.
#[derive(Debug, Default)]
struct LevelCursor {
    records: Option<Arc<Records>>,
    decoded: Option<u32>,
    columns: BucketColumns,
}

impl BlockCursor {
    pub(crate) fn new(block: Arc<Block>, position: usize, cache: Arc<BlockCache>) -> Self {
        BlockCursor {
            block,
            position,
            levels: Default::default(),
            windows: Windows::new(Some(Arc::clone(&cache))),
            cache,
            index: None,
            samples: None,
        }
    }

    /// Adds what a series has in a span.
    pub(crate) fn sum_up<B: ReadBudget>(
        &mut self,
        place: &InBlock,
        span: Span,
        work: &mut Work<'_, B>,
    ) -> Result<(), Failure<B::Refusal>> {
        // Where the block has nothing beyond an edge the edge need not be on the grid.
        let widest_ms = LEVELS_MS[LEVELS_MS.len() - 1];
        let after_ms = match span.after_ms < place.first_ms {
            true => bucket_of(place.first_ms, widest_ms).saturating_mul(widest_ms),
            false => span.after_ms,
        };
        let until_ms = match span.until_ms >= place.last_ms {
            true => bucket_of(place.last_ms, widest_ms).saturating_add(1).saturating_mul(widest_ms),
            false => span.until_ms,
        };
        self.cover(LEVELS_MS.len(), place, Span { after_ms, until_ms }, work)
    }

    /// Whole buckets of the widest of `levels` levels, and beside them what the narrower ones give.
    fn cover<B: ReadBudget>(
        &mut self,
        levels: usize,
        place: &InBlock,
        span: Span,
        work: &mut Work<'_, B>,
    ) -> Result<(), Failure<B::Refusal>> {
        if span.after_ms >= span.until_ms {
            return Ok(());
        }
        let Some(level) = levels.checked_sub(1) else { return self.by_samples(place, span, work) };
        let width_ms = LEVELS_MS[level];
        let from = bucket_of(span.after_ms, width_ms).saturating_add(1);
        let to = span.until_ms.div_euclid(width_ms);
        if from >= to {
            return self.cover(level, place, span, work);
        }
        let is_there = self.decode(level, place.series, work.fields);
        if !is_there.map_err(|error| Failure::Block(self.position, error))? {
            return self.cover(level, place, span, work);
        }
        self.cover(level, place, Span { after_ms: span.after_ms, until_ms: from * width_ms }, work)?;
        let columns = &self.levels[level].columns;
        let mut at = columns.seek(from);
        if columns.all_serve() {
            let places = at..columns.seek(to).max(at);
            work.stats.buckets[level] += places.len() as u64;
            columns.append_all(places, work.into, work.scratch);
            return self.cover(level, place, Span { after_ms: to * width_ms, until_ms: span.until_ms }, work);
        }
        while let Some(number) = self.levels[level].columns.number(at).filter(|&number| number < to) {
            let columns = &self.levels[level].columns;
            if columns.serves(at) {
                columns.append_to(at, work.into, work.scratch);
                work.stats.buckets[level] += 1;
            } else {
                let inside = Span { after_ms: number * width_ms, until_ms: (number + 1) * width_ms };
                self.cover(level, place, inside, work)?;
            }
            at += 1;
        }
        self.cover(level, place, Span { after_ms: to * width_ms, until_ms: span.until_ms }, work)
    }

    /// Adds the finest buckets with these rising numbers to a summary each. Gives the positions of those that do
    /// not serve; `None` if the block has no such buckets of the series.
    pub(crate) fn single_buckets<R>(
        &mut self,
        place: &InBlock,
        numbers: &[i64],
        fields: SummaryFields,
        (stats, scratch): (&mut SummaryStats, &mut Summary),
        out: &mut [Summary],
    ) -> Result<Option<Vec<usize>>, Failure<R>> {
        let position = self.position;
        if !self.decode(0, place.series, fields).map_err(|error| Failure::Block(position, error))? {
            return Ok(None);
        }
        let columns = &self.levels[0].columns;
        let mut unserved = Vec::new();
        let mut at = numbers.first().map_or(0, |&first| columns.seek(first));
        let mut span = 0;
        while let (Some(have), Some(&wanted)) = (columns.number(at), numbers.get(span)) {
            if have < wanted {
                at += 1;
            } else if have > wanted {
                // Buckets of a block mostly follow each other, wanted ones may lie far apart.
                span += numbers[span..].partition_point(|&number| number < have).max(1);
            } else {
                match out.get_mut(span) {
                    Some(into) if columns.serves(at) => {
                        columns.append_to(at, into, scratch);
                        stats.buckets[0] += 1;
                    }
                    _ => unserved.push(span),
                }
                at += 1;
                span += 1;
            }
        }
        Ok(Some(unserved))
    }

    /// Makes a level's columns those of a series; `false` if the block has no such level, or not for it.
    fn decode(&mut self, level: usize, series: u32, fields: SummaryFields) -> Result<bool, BlockError> {
        let cursor = &mut self.levels[level];
        if cursor.decoded == Some(series) {
            return Ok(true);
        }
        let index = match &self.index {
            Some(index) => Arc::clone(index),
            None => Arc::clone(self.index.insert(self.block.index()?)),
        };
        let stored = index.rollups.iter().position(|directory| directory.width_ms == LEVELS_MS[level]);
        let Some(stored) = stored else { return Ok(false) };
        if !cursor.records.as_ref().is_some_and(|records| records.series().contains(&series)) {
            let Some(chunk) = index.rollups[stored].chunk_of(series) else { return Ok(false) };
            cursor.records = match self.block.records_kept(&index, stored, chunk, &self.cache) {
                Ok(records) => Some(records),
                Err(error) => return self.without_buckets(error),
            };
        }
        let Some(records) = &cursor.records else { return Ok(false) };
        if records.record(series).is_some_and(<[u8]>::is_empty) {
            return Ok(false);
        }
        cursor.decoded = None;
        if let Err(error) = self.block.buckets(&index, stored, records, series, fields, &mut cursor.columns) {
            return self.without_buckets(error);
        }
        cursor.decoded = Some(series);
        Ok(true)
    }

    /// Damaged buckets are not needed as long as there are samples: it takes longer, and the damage is told.
    fn without_buckets(&self, error: BlockError) -> Result<bool, BlockError> {
        if !matches!(error, BlockError::Damaged { .. }) || self.is_thinned() {
            return Err(error);
        }
        if self.block.is_first_damage() {
            tracing::error!(%error, "Roll-ups of a block are damaged; its samples are read instead");
        }
        Ok(false)
    }

    fn by_samples<B: ReadBudget>(
        &mut self,
        place: &InBlock,
        span: Span,
        work: &mut Work<'_, B>,
    ) -> Result<(), Failure<B::Refusal>> {
        work.budget.check().map_err(Failure::Refused)?;
        if self.is_thinned() {
            work.into.is_cut = true;
            return Ok(());
        }
        let known = self.samples.as_ref().is_some_and(|(series, have, _)| {
            *series == place.series && have.after_ms <= span.after_ms && span.until_ms <= have.until_ms
        });
        if !known {
            let whole = Span {
                after_ms: span.after_ms.div_euclid(FINEST_MS) * FINEST_MS,
                until_ms: bucket_of(span.until_ms, FINEST_MS).saturating_add(1).saturating_mul(FINEST_MS),
            };
            let piece = self.read(place, whole)?;
            self.samples = Some((place.series, whole, piece));
        }
        let Some((_, _, Some(piece))) = &self.samples else { return Ok(()) };
        let rows = piece.rows_in(span);
        // Only while they are looked at: what is kept for the next span is little.
        work.budget.take(rows.len()).map_err(Failure::Refused)?;
        work.stats.samples += rows.len() as u64;
        work.into.append_run(&piece.timestamps[rows.clone()], &piece.values[rows.clone()], work.fields);
        work.budget.give_back(rows.len());
        Ok(())
    }

    /// Whether the block has roll-ups and no samples.
    pub(crate) fn is_thinned(&self) -> bool {
        self.block.facts().is_ok_and(|facts| facts.is_thinned)
    }

    /// The samples of a series in a span.
    pub(crate) fn read<R>(&mut self, place: &InBlock, span: Span) -> Result<Option<Piece>, Failure<R>> {
        let start_ms = span.after_ms.saturating_add(1);
        self.block
            .series_in(place.series, start_ms, span.until_ms, &mut self.windows)
            .map_err(|error| Failure::Block(self.position, error))
    }
}
