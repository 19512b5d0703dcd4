//! Reads of summaries: which series there are and where, then series by series what they sum up to.

use super::{Database, Inner};
use crate::block::cache::BlockCache;
use crate::block::reader::{Block, BlockError};
use crate::error::ReadError;
use crate::head::selection::Wanted;
use crate::hidden;
use crate::histogram::PART_LABEL;
use crate::rollup::record::FINEST_MS;
use crate::select::ReadBudget;
use crate::summarize::cursor::BlockCursor;
use crate::summarize::{Failure, InBlock, Sources, Summarizer, SummaryStats, single_buckets};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::{Span, Summary, SummaryFields};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Width of the finest roll-ups, in milliseconds: spans whose ends are multiples of it are summed up
/// without reading a sample.
pub const SUMMARY_GRAIN_MS: i64 = FINEST_MS;

/// Series to be summed up, sorted by labels.
pub struct Summaries {
    inner: Arc<Inner>,
    pages: Arc<BlockCache>,
    spans: Arc<[Span]>,
    sources: std::vec::IntoIter<Sources>,
    summarizer: Summarizer,
}

impl std::fmt::Debug for Summaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summaries").field("series_left", &self.sources.len()).finish_non_exhaustive()
    }
}

impl Database {
    /// Of what was sampled before, samples may be gone and roll-ups left.
    pub fn samples_since_ms(&self) -> TimestampMs {
        self.inner.samples_since_ms.load(Ordering::Relaxed)
    }

    /// Finds the series that match and sums them up over each of the spans, which rise and do not overlap:
    /// the same as from [`Database::select`], without reading every sample. `fields` says what is wanted.
    /// `None` if native histograms are among them, which are not summed up. Reads files: not for a thread
    /// that must not block.
    ///
    /// # Errors
    /// As [`Database::select`].
    pub fn summarize<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        spans: Arc<[Span]>,
        fields: SummaryFields,
        budget: &B,
    ) -> Result<Option<Summaries>, ReadError<B::Refusal>> {
        let Some(matchers) = hidden::from_outside(matchers) else { return Ok(None) };
        let matchers = &*matchers;
        let range = (spans.first(), spans.last());
        let (start_ms, end_ms) = match range {
            (Some(first), Some(last)) => (first.after_ms.saturating_add(1), last.until_ms),
            _ => (0, -1),
        };
        let inner = &self.inner;
        let take = |samples: usize| {
            budget.check()?;
            budget.take(samples)
        };
        // The head first, then the blocks, so that nothing slips between them while a cut moves it.
        let of_head = inner.head.select(matchers, start_ms, end_ms, Wanted::All);
        let of_head = of_head.into_pieces(take).map_err(ReadError::Refused)?;
        let blocks = inner.blocks_in(start_ms, end_ms, budget.may_read_files());
        let pages = Arc::new(inner.pages.for_reader(budget.may_read_files()));
        let mut found: HashMap<Labels, Sources, foldhash::fast::RandomState> = HashMap::default();
        let entry = |labels: &Labels| Sources {
            labels: labels.clone(),
            blocks: Vec::new(),
            pieces: Vec::new(),
            deleted: Vec::new(),
        };
        for (position, block) in blocks.iter().enumerate() {
            budget.check().map_err(ReadError::Refused)?;
            pages.permit_index(block)?;
            let index = block.index().inspect_err(|error| inner.note_damage(block, &error.to_string()))?;
            let tombstones = block.tombstones();
            for number in &index.postings.select_shown(matchers) {
                let Some(series) = index.series.get(number as usize) else { continue };
                let Some(timestamps) = index.timestamps.get(series.timestamps as usize) else { continue };
                if !timestamps.overlaps(start_ms, end_ms) {
                    continue;
                }
                let place = InBlock {
                    block: position,
                    series: number,
                    first_ms: timestamps.first_ms(),
                    last_ms: timestamps.last_ms,
                };
                if !found.contains_key(&series.labels) {
                    found.insert(series.labels.clone(), entry(&series.labels));
                }
                let Some(sources) = found.get_mut(&series.labels) else { continue };
                sources.blocks.push(place);
                for tombstone in tombstones.iter().filter(|tombstone| tombstone.matches(&series.labels)) {
                    let range = (tombstone.start_ms.max(place.first_ms), tombstone.end_ms.min(place.last_ms));
                    if range.0 <= range.1 {
                        sources.deleted.push(range);
                    }
                }
            }
        }
        for (labels, pieces) in of_head.into_pieces() {
            found.entry(labels).or_insert_with_key(entry).pieces = pieces;
        }
        let mut sources: Vec<Sources> = found.into_values().collect();
        if sources.iter().any(|sources| sources.labels.get(PART_LABEL).is_some()) {
            budget.give_back(sources.iter().map(Sources::samples).sum());
            return Ok(None);
        }
        sources.sort_unstable_by(|left, right| left.labels.cmp(&right.labels));
        Ok(Some(Summaries::new(Arc::clone(inner), pages, &blocks, sources, spans, fields)))
    }
}

impl Summaries {
    fn new(
        inner: Arc<Inner>,
        pages: Arc<BlockCache>,
        blocks: &[Arc<Block>],
        sources: Vec<Sources>,
        spans: Arc<[Span]>,
        fields: SummaryFields,
    ) -> Self {
        let cursor = |(position, block): (usize, &Arc<Block>)| {
            BlockCursor::new(Arc::clone(block), position, Arc::clone(&pages))
        };
        let single_buckets = single_buckets(&spans);
        let summarizer = Summarizer {
            cursors: blocks.iter().enumerate().map(cursor).collect(),
            fields: fields.closed(),
            stats: SummaryStats::default(),
            scratch: Summary::default(),
            single_buckets,
        };
        Summaries { inner, pages, spans, sources: sources.into_iter(), summarizer }
    }

    /// The same series in at most `parts` parts that can be read side by side; the first has the first
    /// series, and so on.
    pub fn split(self, parts: usize) -> Vec<Summaries> {
        let blocks: Vec<Arc<Block>> =
            self.summarizer.cursors.iter().map(|cursor| Arc::clone(&cursor.block)).collect();
        let each = self.sources.len().div_ceil(parts.max(1)).max(1);
        let mut sources = self.sources;
        let mut all = Vec::new();
        while sources.len() > 0 {
            let part: Vec<Sources> = sources.by_ref().take(each).collect();
            let (spans, fields) = (Arc::clone(&self.spans), self.summarizer.fields);
            all.push(Summaries::new(
                Arc::clone(&self.inner),
                Arc::clone(&self.pages),
                &blocks,
                part,
                spans,
                fields,
            ));
        }
        all
    }

    /// Sums up the next series: its labels, and in `out` one summary per span. `None` after the last.
    ///
    /// # Errors
    /// As [`Database::select`].
    pub fn next_series<B: ReadBudget>(
        &mut self,
        budget: &B,
        out: &mut Vec<Summary>,
    ) -> Result<Option<Labels>, ReadError<B::Refusal>> {
        out.clear();
        let Some(sources) = self.sources.next() else { return Ok(None) };
        budget.check().map_err(ReadError::Refused)?;
        self.summarizer.series(&sources, &self.spans, budget, out).map_err(|failure| match failure {
            Failure::Refused(refusal) => ReadError::Refused(refusal),
            Failure::Block(position, error) => {
                if matches!(error, BlockError::Damaged { .. })
                    && let Some(cursor) = self.summarizer.cursors.get(position)
                {
                    self.inner.note_damage(&cursor.block, &error.to_string());
                }
                error.into()
            }
        })?;
        budget.give_back(sources.samples());
        Ok(Some(sources.labels))
    }

    /// Blocks that are read.
    pub fn blocks(&self) -> usize {
        self.summarizer.cursors.len()
    }

    /// What was read so far.
    pub fn stats(&self) -> SummaryStats {
        self.summarizer.stats
    }
}
