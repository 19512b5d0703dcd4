//! Keeps a label explosion out of the head: which new series are refused, and who sends them.
//!
//! Only new series are refused; those that the head knows go on. The refusals are counted by metric and by
//! the guarded label's value, so that the culprit has a name. A native histogram counts as one series in the
//! limits of numbers, and start timestamps as none; the limit of memory counts what they really take.

use super::registry::Registry;
use crate::error::{SeriesLimit, TsdbError};
use crate::hidden;
use crate::starts;
use pharos_common::labels::Labels;
use std::collections::BTreeMap;

/// Culprits that are told apart. When they are more, those with the fewest refusals are counted by their metric
/// alone, so that an explosion under many nodes has a name too, and then together.
const CULPRITS_MAX: usize = 100;

/// Whoever was refused less often is not worth a series of its own where others may keep it.
const WORTH_NAMING: u64 = 100;

/// The name under which the rest is counted.
const OTHERS: &str = "others";

/// How many series there may be, and of what size.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub(crate) series_max: usize,
    /// A label, and the most series with one value of it.
    pub(crate) per_value: Option<(String, usize)>,
    pub(crate) labels_max: usize,
    pub(crate) label_bytes_max: usize,
    /// Memory for names and indexes of series; their samples can be written out, this cannot.
    pub(crate) memory_bytes_max: usize,
}

impl Guard {
    /// Refuses nothing: for what was taken once already.
    pub(crate) fn open() -> Self {
        Guard {
            series_max: usize::MAX,
            per_value: None,
            labels_max: usize::MAX,
            label_bytes_max: usize::MAX,
            memory_bytes_max: usize::MAX,
        }
    }

    /// Whether these series may join those of the registry.
    pub(crate) fn check(&self, registry: &Registry, new: &[&Labels]) -> Result<(), TsdbError> {
        let refuse = |limit: usize, of: SeriesLimit| Err(TsdbError::TooManySeries { limit, of });
        if new.is_empty() {
            return Ok(());
        }
        let counted = || new.iter().copied().filter(|labels| !hidden::is_uncounted(labels));
        if registry.series_count() + counted().count() > self.series_max {
            return refuse(self.series_max, SeriesLimit::Total);
        }
        if registry.memory_bytes() >= self.memory_bytes_max {
            return refuse(self.memory_bytes_max, SeriesLimit::Memory);
        }
        for labels in new.iter().filter(|labels| !starts::is_column(labels)) {
            if labels.as_bytes().len() > self.label_bytes_max {
                return refuse(self.label_bytes_max, SeriesLimit::LabelBytes);
            }
            if self.labels_max != usize::MAX && labels.len() > self.labels_max {
                return refuse(self.labels_max, SeriesLimit::Labels);
            }
        }
        let Some((label, limit)) = &self.per_value else { return Ok(()) };
        let mut by_value: BTreeMap<&str, u64> = BTreeMap::new();
        for value in counted().filter_map(|labels| labels.get(label)) {
            *by_value.entry(value).or_default() += 1;
        }
        for (value, more) in by_value {
            if registry.count(label, value) + more > *limit as u64 {
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
    by_culprit: BTreeMap<String, Culprit>,
}

/// How often somebody was refused, and when last: the total at that time.
#[derive(Clone, Copy, Debug)]
struct Culprit {
    count: u64,
    last: u64,
}

impl Refusals {
    /// Culprits and how often they were refused.
    pub(crate) fn by_culprit(&self) -> impl Iterator<Item = (&str, u64)> {
        self.by_culprit.iter().map(|(name, culprit)| (name.as_str(), culprit.count))
    }

    pub(crate) fn count(&mut self, culprit: &str) {
        self.total += 1;
        if !self.by_culprit.contains_key(culprit) {
            self.make_room();
        }
        self.add(culprit, 1);
    }

    fn add(&mut self, culprit: &str, more: u64) {
        let last = self.total;
        match self.by_culprit.get_mut(culprit) {
            Some(known) => *known = Culprit { count: known.count + more, last },
            None => drop(self.by_culprit.insert(culprit.to_owned(), Culprit { count: more, last })),
        }
    }

    /// Whoever sends an explosion soon has more refusals than those who are refused once, so the one with the
    /// fewest goes; of several the one that was silent for longest.
    fn make_room(&mut self) {
        if self.by_culprit.len() <= CULPRITS_MAX {
            return;
        }
        let named = self.by_culprit.iter().filter(|(name, _)| *name != OTHERS);
        let smallest = named.min_by_key(|(_, culprit)| (culprit.count, culprit.last));
        if let Some(smallest) = smallest.map(|(name, _)| name.clone())
            && let Some(culprit) = self.by_culprit.remove(&smallest)
        {
            let metric = smallest.split_once('{').map_or(OTHERS, |(metric, _)| metric);
            self.add(metric, culprit.count);
        }
    }

    /// Culprits that are refused often, and all others as one.
    pub(crate) fn worst(&self) -> Vec<(String, u64)> {
        let is_worst = |culprit: &Culprit| culprit.count >= WORTH_NAMING;
        let named = self.by_culprit.iter().filter(|(name, culprit)| is_worst(culprit) && *name != OTHERS);
        let mut worst: Vec<(String, u64)> =
            named.map(|(name, culprit)| (name.clone(), culprit.count)).collect();
        let told: u64 = worst.iter().map(|(_, count)| count).sum();
        if self.total > told {
            worst.push((OTHERS.to_owned(), self.total - told));
        }
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explosion_under_many_nodes_is_named_by_its_metric() {
        let mut refusals = Refusals::default();
        for number in 0..10 * CULPRITS_MAX {
            refusals.count(&format!("bomb{{instance=\"n{number}\"}}"));
            refusals.count("other{instance=\"n1\"}");
        }
        let worst = refusals.worst();
        let bomb = worst.iter().find(|(name, _)| name == "bomb").unwrap().1;
        assert!(bomb > 8 * CULPRITS_MAX as u64, "{worst:?}");
        assert!(
            worst.contains(&("other{instance=\"n1\"}".to_owned(), 10 * CULPRITS_MAX as u64)),
            "{worst:?}"
        );
        // Those that come and go make no series.
        assert_eq!(worst.len(), 3, "{worst:?}");
    }

    #[test]
    fn a_culprit_is_named_though_it_comes_after_many_others() {
        let mut refusals = Refusals::default();
        for number in 0..10 * CULPRITS_MAX {
            refusals.count(&format!("one{number}"));
        }
        for number in 0..5_000 {
            refusals.count("bomb");
            refusals.count(&format!("another{number}"));
        }
        let found: BTreeMap<&str, u64> = refusals.by_culprit().collect();
        assert_eq!(found["bomb"], 5_000);
        assert!(found.len() <= CULPRITS_MAX + 2);
        assert_eq!(found.values().sum::<u64>(), refusals.total);
    }
}
