//! The newest sample of each series, gathered from head and blocks.

use crate::select::SelectedSeries;
use pharos_common::labels::Labels;
use pharos_common::sample::{Sample, TimestampMs};
use std::collections::HashMap;
use std::sync::Arc;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Newest {
    by_labels: HashMap<Labels, Sample, foldhash::fast::RandomState>,
}

impl Newest {
    /// Offers a sample of the head.
    pub(crate) fn offer(&mut self, labels: &Labels, sample: Sample) {
        self.offer_if(labels, sample, |have, new| new > have);
    }

    /// Offers a sample of a block: stored before those of the head, so at equal timestamps it is the first.
    pub(crate) fn offer_stored_before(&mut self, labels: &Labels, sample: Sample) {
        self.offer_if(labels, sample, |have, new| new >= have);
    }

    fn offer_if(&mut self, labels: &Labels, sample: Sample, wins: impl Fn(TimestampMs, TimestampMs) -> bool) {
        match self.by_labels.get_mut(labels) {
            Some(have) if wins(have.timestamp_ms, sample.timestamp_ms) => *have = sample,
            Some(_) => {}
            None => {
                self.by_labels.insert(labels.clone(), sample);
            }
        }
    }

    /// Whether the series has a sample newer than this already.
    pub(crate) fn has_newer(&self, labels: &Labels, than_ms: TimestampMs) -> bool {
        self.by_labels.get(labels).is_some_and(|have| have.timestamp_ms > than_ms)
    }

    /// Each series with its one sample, sorted by labels.
    pub(crate) fn into_series(self) -> Vec<SelectedSeries> {
        let mut shared: HashMap<TimestampMs, Arc<[TimestampMs]>, foldhash::fast::RandomState> =
            HashMap::default();
        let mut all: Vec<SelectedSeries> = self
            .by_labels
            .into_iter()
            .map(|(labels, sample)| {
                let timestamps =
                    shared.entry(sample.timestamp_ms).or_insert_with(|| [sample.timestamp_ms].into());
                SelectedSeries {
                    labels,
                    timestamps: Arc::clone(timestamps),
                    values: vec![sample.value],
                    histograms: Vec::new(),
                }
            })
            .collect();
        all.sort_unstable_by(|left, right| left.labels.cmp(&right.labels));
        all
    }
}
