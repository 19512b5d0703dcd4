//! Joins the query engine to the storage engine: selections and budgets go down, columns come up.

use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::Summary;
use pharos_promql::storage::{Budget, ReadStats, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_promql::summaries::{SummaryRequest, SummarySet, SummarySets, SummaryStats, SummaryStorage};
use pharos_tsdb::{Database, ReadBudget, ReadError, Reads, SUMMARY_GRAIN_MS, Summaries};
use std::sync::Arc;

/// The storage engine as queries see it.
#[derive(Clone, Debug)]
pub struct DatabaseStorage {
    database: Database,
}

impl DatabaseStorage {
    /// Over an open engine.
    pub fn new(database: Database) -> Self {
        DatabaseStorage { database }
    }
}

#[derive(Clone, Copy)]
struct QueryBudget<'a>(&'a Budget);

impl ReadBudget for QueryBudget<'_> {
    type Refusal = StorageError;

    fn take(&self, samples: usize) -> Result<(), StorageError> {
        self.0.take(samples)
    }

    fn give_back(&self, samples: usize) {
        self.0.put_back(samples);
    }

    fn note_reads(&self, reads: Reads) {
        let Reads { head_samples, block_samples, blocks } = reads;
        self.0.note_reads(ReadStats { head_samples, block_samples, blocks });
    }

    fn check(&self) -> Result<(), StorageError> {
        self.0.check()
    }

    fn may_read_files(&self) -> bool {
        self.0.may_read_files()
    }
}

/// Series that were found, as queries read them.
struct Found<'b> {
    selection: pharos_tsdb::Selection,
    budget: QueryBudget<'b>,
}

impl SeriesSet for Found<'_> {
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError> {
        let series = self.selection.next_series(&self.budget).map_err(storage_error)?;
        Ok(series.map(|series| SeriesColumns {
            labels: series.labels,
            timestamps: series.timestamps,
            values: series.values,
            histograms: series.histograms,
            starts: series.starts,
        }))
    }
}

impl DatabaseStorage {
    fn find<'b>(&self, selection: &Selection<'_>, budget: &'b Budget) -> Result<Found<'b>, StorageError> {
        let Selection { matchers, start_ms, end_ms, .. } = *selection;
        let budget = QueryBudget(budget);
        let found = if selection.hints.starts {
            self.database.selection_with_starts(matchers, start_ms, end_ms, &budget)
        } else if selection.hints.newest_only {
            self.database.selection_of_newest(matchers, start_ms, end_ms, &budget)
        } else {
            self.database.selection(matchers, start_ms, end_ms, &budget)
        };
        Ok(Found { selection: found.map_err(storage_error)?, budget })
    }
}

fn storage_error(error: ReadError<StorageError>) -> StorageError {
    match error {
        ReadError::Refused(refusal) => refusal,
        ReadError::NotInMemory => StorageError::NotInMemory,
        other => StorageError::Failed(other.to_string().into()),
    }
}

/// Samples from which on a reading is worth more than one thread: to start one takes as long as to read so
/// many.
const SIDE_BY_SIDE_SAMPLES_MIN: usize = 100_000;

/// Parts for each thread, so that none waits long for another.
const PARTS_PER_THREAD: usize = 8;

impl Storage for DatabaseStorage {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        Ok(Box::new(self.find(selection, budget)?))
    }

    fn select_parts<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
        threads: usize,
    ) -> Result<Vec<Box<dyn SeriesSet + 's>>, StorageError> {
        let Found { selection, budget } = self.find(selection, budget)?;
        let series_max = if threads > 1 && selection.samples() >= SIDE_BY_SIDE_SAMPLES_MIN {
            selection.len().div_ceil(threads * PARTS_PER_THREAD)
        } else {
            usize::MAX
        };
        let parts = selection.split(series_max).into_iter();
        Ok(parts.map(|selection| Box::new(Found { selection, budget }) as Box<dyn SeriesSet + 's>).collect())
    }

    fn summaries(&self) -> Option<&dyn SummaryStorage> {
        Some(self)
    }
}

impl SummaryStorage for DatabaseStorage {
    fn grain_ms(&self) -> i64 {
        SUMMARY_GRAIN_MS
    }

    fn samples_since_ms(&self) -> TimestampMs {
        self.database.samples_since_ms()
    }

    fn summarize<'s>(
        &'s self,
        request: &SummaryRequest<'_>,
        budget: &'s Budget,
        parts: usize,
    ) -> Result<Option<SummarySets<'s>>, StorageError> {
        let spans = Arc::clone(&request.spans);
        let budget = QueryBudget(budget);
        let found = self.database.summarize(request.matchers, spans, request.fields, &budget);
        let Some(found) = found.map_err(storage_error)? else { return Ok(None) };
        let set = |summaries| Box::new(Summed { summaries, budget }) as Box<dyn SummarySet + 's>;
        Ok(Some(found.split(parts).into_iter().map(set).collect()))
    }
}

/// Series as the storage engine sums them up.
struct Summed<'b> {
    summaries: Summaries,
    budget: QueryBudget<'b>,
}

impl SummarySet for Summed<'_> {
    fn next_series(&mut self, out: &mut Vec<Summary>) -> Result<Option<Labels>, StorageError> {
        self.summaries.next_series(&self.budget, out).map_err(storage_error)
    }

    fn stats(&self) -> SummaryStats {
        let read = self.summaries.stats();
        let [five_minute_buckets, hour_buckets] = read.buckets.map(|buckets| buckets as usize);
        let (samples, blocks) = (read.samples as usize, self.summaries.blocks());
        SummaryStats { five_minute_buckets, hour_buckets, samples, blocks }
    }
}
