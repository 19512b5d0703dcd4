//! The storage of script tests as one that sums up: every script must answer the same through it.

use super::memory::Memory;
use pharos_common::labels::Labels;
use pharos_common::summary::{Span, Summary, sum_of_falls};
use pharos_promql::storage::{
    Budget, Selection, SelectionHints, SeriesColumns, SeriesSet, Storage, StorageError,
};
use pharos_promql::summaries::{SummaryRequest, SummarySet, SummarySets, SummaryStats, SummaryStorage};
use std::sync::Arc;

/// See the module's documentation.
pub(crate) struct Summing<'m>(pub(crate) &'m Memory);

impl Storage for Summing<'_> {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        self.0.select(selection, budget)
    }

    fn summaries(&self) -> Option<&dyn SummaryStorage> {
        Some(self)
    }
}

impl SummaryStorage for Summing<'_> {
    fn grain_ms(&self) -> i64 {
        1
    }

    fn summarize<'s>(
        &'s self,
        request: &SummaryRequest<'_>,
        _budget: &'s Budget,
        _parts: usize,
    ) -> Result<Option<SummarySets<'s>>, StorageError> {
        let mut found = self.0.find(&Selection {
            matchers: request.matchers,
            start_ms: request.spans[0].after_ms + 1,
            end_ms: request.spans[request.spans.len() - 1].until_ms,
            hints: SelectionHints::default(),
        });
        if found.iter().any(|series| !series.histograms.is_empty()) {
            return Ok(None);
        }
        let rest = found.split_off(found.len() / 2);
        let part = |series: Vec<SeriesColumns>| {
            let (spans, fields) = (Arc::clone(&request.spans), request.fields);
            let summed = series.into_iter().map(move |series| {
                (series.labels.clone(), spans.iter().map(|span| sum_up(&series, *span, fields)).collect())
            });
            Box::new(Summed(summed.collect::<Vec<_>>().into_iter())) as Box<dyn SummarySet + 's>
        };
        Ok(Some(vec![part(found), part(rest)]))
    }
}

fn sum_up(series: &SeriesColumns, span: Span, fields: pharos_common::summary::SummaryFields) -> Summary {
    let from = series.timestamps.partition_point(|&timestamp| timestamp <= span.after_ms);
    let to = series.timestamps.partition_point(|&timestamp| timestamp <= span.until_ms);
    let mut summary = Summary::default();
    summary.append_run(&series.timestamps[from..to], &series.values[from..to], fields);
    // As a storage does that cannot keep every one.
    if summary.corrections.len() > 1
        && let Some(sum) = sum_of_falls(&summary.corrections)
    {
        summary.corrections.clear();
        summary.fallen = sum;
    }
    summary
}

struct Summed(std::vec::IntoIter<(Labels, Vec<Summary>)>);

impl SummarySet for Summed {
    fn next_series(&mut self, out: &mut Vec<Summary>) -> Result<Option<Labels>, StorageError> {
        Ok(self.0.next().map(|(labels, summaries)| {
            *out = summaries;
            labels
        }))
    }

    fn stats(&self) -> SummaryStats {
        SummaryStats::default()
    }
}
