//! Which labels, metrics and senders make up the head: what somebody asks for when there are too many
//! series.

use super::Database;
use crate::hidden;
use roaring::RoaringBitmap;

/// Names with counts, largest first.
pub type Ranking = Vec<(String, u64)>;

/// See [`Database::statistics`].
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Series in the head.
    pub series: u64,
    /// Different pairs of label name and value.
    pub label_pairs: u64,
    /// Series by metric name.
    pub series_by_metric: Ranking,
    /// Series by `name=value`.
    pub series_by_pair: Ranking,
    /// Series by value of the label asked for.
    pub series_by_value: Ranking,
    /// Different values by label name.
    pub values_by_label: Ranking,
    /// Bytes of the different values by label name.
    pub value_bytes_by_label: Ranking,
    /// New series that were refused since the start.
    pub refused: u64,
    /// The same by who sent them: metric and guarded label.
    pub refused_by_culprit: Ranking,
}

impl Database {
    /// Counts the head's series, the `top` largest of everything. `label` is the one that tells senders
    /// apart, e.g. `instance`. Takes the time of a walk over all label values, not over all series.
    pub fn statistics(&self, top: usize, label: &str) -> Statistics {
        let head = &self.inner.head;
        let mut found = Statistics::default();
        let mut pairs = Vec::new();
        {
            let registry = head.registry();
            found.series = registry.series_count() as u64;
            let names = registry.postings().names();
            for (name, values) in names.filter(|(name, _)| !hidden::is_reserved_label(name)) {
                let bytes = values.keys().map(|value| value.len() as u64).sum();
                found.label_pairs += values.len() as u64;
                found.values_by_label.push((name.to_owned(), values.len() as u64));
                found.value_bytes_by_label.push((name.to_owned(), bytes));
                let count =
                    |series: &RoaringBitmap| series.len() - series.intersection_len(registry.uncounted());
                let largest = largest(values.iter().map(|(value, series)| (&**value, count(series))), top);
                let named = |largest: &[(&str, u64)]| -> Ranking {
                    largest.iter().map(|&(value, count)| (value.to_owned(), count)).collect()
                };
                if name == pharos_common::labels::METRIC_NAME {
                    found.series_by_metric = named(&largest);
                }
                if name == label {
                    found.series_by_value = named(&largest);
                }
                pairs.extend(largest.iter().map(|(value, count)| (format!("{name}={value}"), *count)));
            }
        }
        found.series_by_pair = largest(pairs.into_iter(), top);
        found.values_by_label = largest(std::mem::take(&mut found.values_by_label).into_iter(), top);
        found.value_bytes_by_label =
            largest(std::mem::take(&mut found.value_bytes_by_label).into_iter(), top);
        let refusals = head.refusals();
        found.refused = refusals.total;
        let by_culprit = refusals.by_culprit().map(|(name, count)| (name.to_owned(), count));
        found.refused_by_culprit = largest(by_culprit, top);
        found
    }
}

/// The `top` largest, largest first, equal ones by name.
fn largest<N: Ord>(counts: impl Iterator<Item = (N, u64)>, top: usize) -> Vec<(N, u64)> {
    let mut counts: Vec<(N, u64)> = counts.collect();
    counts.sort_unstable_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    counts.truncate(top);
    counts
}
