//! Series in memory: the storage of script tests.

use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_promql::storage::{
    Budget, HistogramSample, Selection, SeriesColumns, SeriesSet, Storage, StorageError,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All series, sorted by labels.
#[derive(Default)]
pub(crate) struct Memory {
    series: BTreeMap<Labels, Samples>,
}

#[derive(Default)]
struct Samples {
    floats: BTreeMap<i64, f64>,
    histograms: BTreeMap<i64, Arc<FloatHistogram>>,
}

impl Memory {
    pub(crate) fn add_float(&mut self, labels: &Labels, timestamp_ms: i64, value: f64) {
        let samples = self.series.entry(labels.clone()).or_default();
        samples.histograms.remove(&timestamp_ms);
        samples.floats.insert(timestamp_ms, value);
    }

    pub(crate) fn add_histogram(&mut self, labels: &Labels, timestamp_ms: i64, histogram: FloatHistogram) {
        let samples = self.series.entry(labels.clone()).or_default();
        samples.floats.remove(&timestamp_ms);
        samples.histograms.insert(timestamp_ms, Arc::new(histogram));
    }
}

impl Storage for Memory {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let range = selection.start_ms..=selection.end_ms.max(selection.start_ms);
        let mut found = Vec::new();
        for (labels, samples) in &self.series {
            if !selection.matchers.iter().all(|matcher| matcher.matches_labels(labels)) {
                continue;
            }
            let (timestamps, values): (Vec<i64>, Vec<f64>) =
                samples.floats.range(range.clone()).map(|(&timestamp, &value)| (timestamp, value)).unzip();
            let histograms: Vec<HistogramSample> = samples
                .histograms
                .range(range.clone())
                .map(|(&timestamp_ms, histogram)| HistogramSample {
                    timestamp_ms,
                    histogram: Arc::clone(histogram),
                })
                .collect();
            if values.is_empty() && histograms.is_empty() {
                continue;
            }
            let series =
                SeriesColumns { labels: labels.clone(), timestamps: timestamps.into(), values, histograms };
            found.push(series);
        }
        Ok(Box::new(Streaming { series: found.into_iter(), budget }))
    }
}

/// Counts each series when it is handed out, as a storage that decodes does.
struct Streaming<'s> {
    series: std::vec::IntoIter<SeriesColumns>,
    budget: &'s Budget,
}

impl SeriesSet for Streaming<'_> {
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError> {
        let Some(series) = self.series.next() else { return Ok(None) };
        self.budget.take(series.cost())?;
        Ok(Some(series))
    }
}
