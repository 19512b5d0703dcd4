//! Series in memory: the storage of script tests.

use pharos_common::histogram::{CounterResetHint, FloatHistogram};
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

impl Memory {
    /// Says of histograms that nothing was reset where that shows, as Prometheus' chunks do: of all but
    /// the first of a run with one layout that never falls.
    pub(crate) fn note_resets(&mut self) {
        for samples in self.series.values_mut() {
            let mut before: Option<(i64, Arc<FloatHistogram>)> = None;
            for (&timestamp_ms, histogram) in &mut samples.histograms {
                let original = Arc::clone(histogram);
                let continues = before.as_ref().is_some_and(|(before_ms, before)| {
                    samples.floats.range(before_ms..&timestamp_ms).next().is_none()
                        && before.schema == original.schema
                        && before.zero_threshold == original.zero_threshold
                        && before.custom_values == original.custom_values
                        && before.counter_reset_hint != CounterResetHint::Gauge
                        && !pharos_promql::histogram::is_reset(&original, before)
                });
                if continues && original.counter_reset_hint == CounterResetHint::Unknown {
                    Arc::make_mut(histogram).counter_reset_hint = CounterResetHint::NotReset;
                }
                before = Some((timestamp_ms, original));
            }
        }
    }
}

impl Memory {
    pub(crate) fn find(&self, selection: &Selection<'_>) -> Vec<SeriesColumns> {
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
            let floats = SeriesColumns::floats(labels.clone(), timestamps.into(), values);
            found.push(SeriesColumns { histograms, ..floats });
        }
        found
    }
}

impl Storage for Memory {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        Ok(Box::new(Streaming { series: self.find(selection).into_iter(), budget }))
    }

    fn select_parts<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
        _parts: usize,
    ) -> Result<Vec<Box<dyn SeriesSet + 's>>, StorageError> {
        Ok(halves(self.find(selection), budget))
    }
}

/// Halves of the series in two parts, so that scripts test parts, too.
fn halves<'s>(mut found: Vec<SeriesColumns>, budget: &'s Budget) -> Vec<Box<dyn SeriesSet + 's>> {
    let rest = found.split_off(found.len() / 2);
    [found, rest]
        .into_iter()
        .map(|series| Box::new(Streaming { series: series.into_iter(), budget }) as Box<dyn SeriesSet + 's>)
        .collect()
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
