//! Keeps a label explosion out of the head: which new series are refused, and who sends them.
//!
//! Only new series are refused; those that the head knows go on. The refusals are counted by metric and by
//! the guarded label's value, so that the culprit has a name.

use super::registry::Registry;
use crate::error::{SeriesLimit, TsdbError};
use pharos_common::labels::Labels;
use std::collections::BTreeMap;

/// Culprits that are told apart; further ones are counted together.
const CULPRITS_MAX: usize = 100;

/// How many series there may be, and of what size.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) series_max: usize,
    /// A label, and the most series with one value of it.
    pub(crate) per_value: Option<(String, usize)>,
    pub(crate) labels_max: usize,
    pub(crate) label_bytes_max: usize,
}

impl Guard {
    /// Refuses nothing: for what was taken once already.
    pub(crate) fn open() -> Self {
        Guard { series_max: usize::MAX, per_value: None, labels_max: usize::MAX, label_bytes_max: usize::MAX }
    }

    /// Whether these series may join those of the registry.
    pub(crate) fn check(&self, registry: &Registry, new: &[&Labels]) -> Result<(), TsdbError> {
        let refuse = |limit: usize, of: SeriesLimit| Err(TsdbError::TooManySeries { limit, of });
        if registry.series_count() + new.len() > self.series_max {
            return refuse(self.series_max, SeriesLimit::Total);
        }
        let mut by_value: BTreeMap<&str, usize> = BTreeMap::new();
        for labels in new {
            if labels.as_bytes().len() > self.label_bytes_max {
                return refuse(self.label_bytes_max, SeriesLimit::LabelBytes);
            }
            if self.labels_max != usize::MAX && labels.len() > self.labels_max {
                return refuse(self.labels_max, SeriesLimit::Labels);
            }
            if let Some((label, _)) = &self.per_value
                && let Some(value) = labels.get(label)
            {
                *by_value.entry(value).or_default() += 1;
            }
        }
        let Some((label, limit)) = &self.per_value else { return Ok(()) };
        for (value, more) in by_value {
            if registry.postings().count(label, value) + more as u64 > *limit as u64 {
                let of = SeriesLimit::PerValue { label: label.clone(), value: value.to_owned() };
                return refuse(*limit, of);
            }
        }
        Ok(())
    }

    /// Who sends this series.
    pub(crate) fn culprit(&self, labels: &Labels) -> String {
        let metric = labels.metric_name();
        match self.per_value.as_ref().and_then(|(label, _)| Some((label, labels.get(label)?))) {
            Some((label, value)) => format!("{metric}{{{label}={value:?}}}"),
            None => metric.to_owned(),
        }
    }
}

/// Series that were refused.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) total: u64,
    pub(crate) by_culprit: BTreeMap<String, u64>,
}

impl Refusals {
    pub(crate) fn count(&mut self, culprit: String) {
        self.total += 1;
        let full = self.by_culprit.len() >= CULPRITS_MAX && !self.by_culprit.contains_key(&culprit);
        *self.by_culprit.entry(if full { "others".to_owned() } else { culprit }).or_default() += 1;
    }
}
