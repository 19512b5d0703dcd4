//! Sums up series over spans of time: by the buckets of roll-ups where they serve, by samples elsewhere.
//!
//! Sources of series flow in ([`Sources`]: series of blocks, and pieces of the head); out comes one
//! [`Summary`] per span. Each source is in time order, and mostly one begins where another ends. Where two
//! have samples in between each other ([`overlap`]) no bucket serves, and their samples are joined as any
//! read joins them.

pub(crate) mod cursor;
mod overlap;

use crate::block::reader::BlockError;
use crate::merge::{Piece, join_pieces};
use crate::rollup::{LEVELS_MS, record};
use crate::select::ReadBudget;
use cursor::BlockCursor;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::{Span, Summary, SummaryFields};
use std::sync::Arc;

/// A series and where its samples are, earliest stored first: first blocks, then the head.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) labels: Labels,
    pub(crate) blocks: Vec<InBlock>,
    pub(crate) pieces: Vec<Piece>,
    /// First and last timestamps of what was deleted: buckets still count it.
    pub(crate) deleted: Vec<(TimestampMs, TimestampMs)>,
}

impl Sources {
    /// Samples held in memory.
    pub(crate) fn samples(&self) -> usize {
        self.pieces.iter().map(|piece| piece.values.len()).sum()
    }
}

/// A series of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InBlock {
    /// Position in the list of blocks.
    pub(crate) block: usize,
    /// Its number in the block.
    pub(crate) series: u32,
    pub(crate) first_ms: TimestampMs,
    pub(crate) last_ms: TimestampMs,
}

impl InBlock {
    fn meets(&self, span: Span) -> bool {
        self.first_ms <= span.until_ms && self.last_ms > span.after_ms
    }
}

/// What was read to sum up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryStats {
    /// Buckets of each level of roll-ups, five minutes and one hour.
    pub buckets: [u64; LEVELS_MS.len()],
    /// Samples.
    pub samples: u64,
}

/// Why a series could not be summed up.
pub(crate) enum Failure<R> {
    Refused(R),
    Block(usize, BlockError),
}

/// What summing up needs besides a series' sources; kept from series to series for its memory.
pub(crate) struct Summarizer {
    pub(crate) cursors: Vec<BlockCursor>,
    pub(crate) fields: SummaryFields,
    pub(crate) stats: SummaryStats,
    pub(crate) scratch: Summary,
    /// The number of the finest bucket that each span is, if all are.
    pub(crate) single_buckets: Option<Arc<[i64]>>,
}

/// The numbers of the finest buckets that spans are; `None` if one of them is something else.
pub(crate) fn single_buckets(spans: &[Span]) -> Option<Arc<[i64]>> {
    let number = |span: &Span| {
        let number = span.after_ms.div_euclid(record::FINEST_MS);
        let is_one =
            span.after_ms.rem_euclid(record::FINEST_MS) == 0 && span.length_ms() == record::FINEST_MS;
        is_one.then_some(number)
    };
    spans.iter().map(number).collect::<Option<Vec<_>>>().map(Arc::from)
}

impl Summarizer {
    /// Appends one summary per span; the spans rise and do not overlap.
    pub(crate) fn series<B: ReadBudget>(
        &mut self,
        sources: &Sources,
        spans: &[Span],
        budget: &B,
        out: &mut Vec<Summary>,
    ) -> Result<(), Failure<B::Refusal>> {
        let contested = overlap::contested(sources);
        if let Some(buckets) = self.single_buckets.clone()
            && contested.is_empty()
            && sources.pieces.is_empty()
        {
            return self.of_single_buckets(sources, spans, &buckets, budget, out);
        }
        let mut order: Vec<Source<'_>> = sources.blocks.iter().map(Source::Block).collect();
        order.extend(sources.pieces.iter().map(Source::Piece));
        order.sort_by_key(Source::first_ms);
        let mut first = 0;
        for &span in spans {
            let mut summary = Summary::default();
            // Spans rise, so what ends before one is done with.
            while order.get(first).is_some_and(|source| source.last_ms() <= span.after_ms) {
                first += 1;
            }
            let near = order.get(first..).unwrap_or_default();
            let mut after_ms = span.after_ms;
            let from = contested.partition_point(|contested| contested.until_ms <= span.after_ms);
            for contested in contested.get(from..).unwrap_or_default() {
                if contested.after_ms >= span.until_ms {
                    break;
                }
                let until_ms = contested.until_ms.min(span.until_ms);
                let clear = Span { after_ms, until_ms: contested.after_ms.max(after_ms) };
                self.clear(near, clear, budget, &mut summary)?;
                let contested = Span { after_ms: clear.until_ms, until_ms };
                self.contested(sources, contested, budget, &mut summary)?;
                after_ms = until_ms;
            }
            self.clear(near, Span { after_ms, until_ms: span.until_ms }, budget, &mut summary)?;
            out.push(summary);
        }
        Ok(())
    }

    /// The same where each span is one of the finest buckets, and blocks follow each other.
    fn of_single_buckets<B: ReadBudget>(
        &mut self,
        sources: &Sources,
        spans: &[Span],
        numbers: &[i64],
        budget: &B,
        out: &mut Vec<Summary>,
    ) -> Result<(), Failure<B::Refusal>> {
        out.resize_with(spans.len(), Summary::default);
        let mut order: Vec<&InBlock> = sources.blocks.iter().collect();
        order.sort_by_key(|place| place.first_ms);
        for place in order {
            let from = spans.partition_point(|span| span.until_ms < place.first_ms);
            let to = spans.partition_point(|span| span.after_ms < place.last_ms).max(from);
            let (Some(spans), Some(numbers), Some(out)) =
                (spans.get(from..to), numbers.get(from..to), out.get_mut(from..to))
            else {
                continue;
            };
            let Some(cursor) = self.cursors.get_mut(place.block) else { continue };
            let helpers = (&mut self.stats, &mut self.scratch);
            let unserved = cursor.single_buckets(place, numbers, self.fields, helpers, out)?;
            let unserved = unserved.unwrap_or_else(|| (0..spans.len()).collect());
            for at in unserved {
                if let (Some(span), Some(into)) = (spans.get(at), out.get_mut(at)) {
                    self.in_block(place, *span, budget, into)?;
                }
            }
        }
        Ok(())
    }

    /// A span in which sources follow each other.
    fn clear<B: ReadBudget>(
        &mut self,
        order: &[Source<'_>],
        span: Span,
        budget: &B,
        into: &mut Summary,
    ) -> Result<(), Failure<B::Refusal>> {
        if span.after_ms >= span.until_ms {
            return Ok(());
        }
        for source in order {
            if source.first_ms() > span.until_ms {
                break;
            }
            match source {
                Source::Piece(piece) => {
                    let rows = piece.rows_in(span);
                    self.stats.samples += rows.len() as u64;
                    into.append_run(&piece.timestamps[rows.clone()], &piece.values[rows], self.fields);
                }
                Source::Block(place) if place.meets(span) => {
                    self.in_block(place, span, budget, into)?;
                }
                Source::Block(_) => {}
            }
        }
        Ok(())
    }

    fn in_block<B: ReadBudget>(
        &mut self,
        place: &InBlock,
        span: Span,
        budget: &B,
        into: &mut Summary,
    ) -> Result<(), Failure<B::Refusal>> {
        let Some(cursor) = self.cursors.get_mut(place.block) else { return Ok(()) };
        let mut work = cursor::Work {
            fields: self.fields,
            stats: &mut self.stats,
            into,
            scratch: &mut self.scratch,
            budget,
        };
        cursor.sum_up(place, span, &mut work)
    }

    /// A span in which samples of several sources lie between each other.
    fn contested<B: ReadBudget>(
        &mut self,
        sources: &Sources,
        span: Span,
        budget: &B,
        into: &mut Summary,
    ) -> Result<(), Failure<B::Refusal>> {
        let mut pieces = Vec::new();
        let mut taken = 0;
        for place in sources.blocks.iter().filter(|place| place.meets(span)) {
            let Some(cursor) = self.cursors.get_mut(place.block) else { continue };
            into.is_cut |= cursor.is_thinned();
            if let Some(piece) = cursor.read(place, span)? {
                taken += piece.values.len();
                budget.take(piece.values.len()).map_err(Failure::Refused)?;
                pieces.push(piece);
            }
        }
        for piece in &sources.pieces {
            let rows = piece.rows_in(span);
            if !rows.is_empty() {
                pieces.push(Piece {
                    timestamps: piece.timestamps[rows.clone()].into(),
                    values: piece.values[rows].to_vec(),
                });
            }
        }
        let joined = join_pieces(pieces);
        self.stats.samples += joined.values.len() as u64;
        into.append_run(&joined.timestamps, &joined.values, self.fields);
        budget.give_back(taken);
        budget.check().map_err(Failure::Refused)
    }
}

/// Where samples of a series are.
enum Source<'s> {
    Block(&'s InBlock),
    Piece(&'s Piece),
}

impl Source<'_> {
    fn first_ms(&self) -> TimestampMs {
        match self {
            Source::Block(place) => place.first_ms,
            Source::Piece(piece) => piece.timestamps.first().copied().unwrap_or(TimestampMs::MAX),
        }
    }

    fn last_ms(&self) -> TimestampMs {
        match self {
            Source::Block(place) => place.last_ms,
            Source::Piece(piece) => piece.timestamps.last().copied().unwrap_or(TimestampMs::MIN),
        }
    }
}
