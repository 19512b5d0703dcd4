//! Joins the query engine to the storage engine: selections and budgets go down, columns come up.

use pharos_common::labels::Labels;
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
}

fn storage_error(error: ReadError<StorageError>) -> StorageError {
    match error {
        ReadError::Refused(refusal) => refusal,
        other => StorageError::Failed(other.to_string().into()),
    }
}

impl Storage for DatabaseStorage {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let Selection { matchers, start_ms, end_ms, .. } = *selection;
        let budget = QueryBudget(budget);
        let selected = if selection.hints.newest_only {
            self.database.select_newest(matchers, start_ms, end_ms, &budget)
        } else {
            self.database.select(matchers, start_ms, end_ms, &budget)
        };
        let columns: Vec<SeriesColumns> = selected
            .map_err(storage_error)?
            .into_iter()
            .map(|series| SeriesColumns {
                histograms: series.histograms,
                ..SeriesColumns::floats(series.labels, series.timestamps, series.values)
            })
            .collect();
        Ok(Box::new(columns.into_iter()))
    }

    fn summaries(&self) -> Option<&dyn SummaryStorage> {
        Some(self)
    }
}

impl SummaryStorage for DatabaseStorage {
    fn grain_ms(&self) -> i64 {
        SUMMARY_GRAIN_MS
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
