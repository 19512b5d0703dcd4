//! Which series threshold rules watch: worked out once per group of columns, not per sample.
//!
//! Ingest asks [`WatchIndex::interest`] when a group is defined (or when rules were loaded again) and
//! keeps the answer beside the group. An append then hands over the values of just those columns; a
//! group that no rule watches costs one comparison.

use super::threshold::NODE_LABEL;
use super::urgency::{NodeHints, Urgency};
use arc_swap::ArcSwap;
use foldhash::HashMap;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use pharos_tsdb::CommitNumber;
use pharos_tsdb::is_hidden;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// A selector of a threshold rule.
#[derive(Clone, Debug)]
pub struct WatchedSelector {
    /// Index of the rule among the threshold rules.
    pub rule: usize,
    /// Index of the selector among the rule's.
    pub selector: usize,
    /// All must hold.
    pub matchers: Vec<Matcher>,
}

/// A series that at least one threshold rule watches.
#[derive(Debug)]
pub struct WatchedSeries {
    /// Names it among those that are watched now: small, and used again once nobody holds the series.
    pub slot: u32,
    /// What names it for people.
    pub labels: Labels,
    /// What watches it, in order.
    pub watchers: Box<[Watcher]>,
    /// How near to a threshold it is, for the agent that samples it.
    pub urgency: Urgency,
}

/// A selector of a threshold rule, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watcher {
    /// Which threshold rule.
    pub rule: u32,
    /// Which of its selectors.
    pub selector: u32,
}

/// The watched columns of one group.
#[derive(Debug)]
pub struct GroupInterest {
    /// Position in the row, and the series there.
    pub columns: Box<[(usize, Arc<WatchedSeries>)]>,
    /// The rules it was worked out for.
    pub generation: u64,
}

/// A row with its watched columns.
#[derive(Debug)]
pub struct ArrivedRow {
    /// What it is of.
    pub interest: Arc<GroupInterest>,
    /// When it was read.
    pub timestamp_ms: TimestampMs,
    /// Where the values of this row start in [`Arrived::values`]: one per watched column.
    pub first_value: usize,
}

/// What one append brought for the threshold rules.
#[derive(Debug)]
pub struct Arrived {
    /// The rows.
    pub rows: Vec<ArrivedRow>,
    /// Their values, one after the other.
    pub values: Vec<f64>,
    /// When they were appended.
    pub at: Instant,
    /// Durable when this is.
    pub commit: CommitNumber,
}

#[derive(Debug, Default)]
struct Watched {
    generation: u64,
    /// Selectors that fix the metric's name.
    by_name: HashMap<String, Vec<WatchedSelector>>,
    /// Those that do not.
    any_name: Vec<WatchedSelector>,
    series: Mutex<SeriesTable>,
}

#[derive(Debug, Default)]
struct SeriesTable {
    by_labels: HashMap<Labels, Arc<WatchedSeries>>,
    nodes: HashMap<String, Arc<NodeHints>>,
    free_slots: Vec<u32>,
    slots: u32,
}

/// The selectors of all threshold rules. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct WatchIndex {
    current: Arc<ArcSwap<Watched>>,
}

impl WatchIndex {
    /// Changes whenever the rules do.
    pub fn generation(&self) -> u64 {
        self.current.load().generation
    }

    /// Puts other selectors in place. Groups work their interest out again at their next append.
    pub fn replace(&self, selectors: Vec<WatchedSelector>) -> u64 {
        let mut watched = Watched { generation: self.generation() + 1, ..Watched::default() };
        for selector in selectors {
            let name = selector
                .matchers
                .iter()
                .find(|matcher| matcher.name() == METRIC_NAME && matcher.op() == MatchOp::Equal)
                .map(|matcher| matcher.value().to_owned());
            match name {
                Some(name) => watched.by_name.entry(name).or_default().push(selector),
                None => watched.any_name.push(selector),
            }
        }
        let generation = watched.generation;
        self.current.store(Arc::new(watched));
        generation
    }

    /// Which of a group's columns are watched; `None` if none is.
    pub fn interest(&self, columns: &[Labels]) -> (u64, Option<Arc<GroupInterest>>) {
        let watched = self.current.load();
        let found: Box<[_]> = columns
            .iter()
            .enumerate()
            .filter_map(|(position, labels)| watched.series(labels).map(|series| (position, series)))
            .collect();
        let generation = watched.generation;
        let interest = (!found.is_empty()).then(|| Arc::new(GroupInterest { columns: found, generation }));
        (generation, interest)
    }

    /// The watched series of these labels, if any rule watches it.
    pub fn series(&self, labels: &Labels) -> Option<Arc<WatchedSeries>> {
        self.current.load().series(labels)
    }

    /// Forgets series that no group and no rule holds any more.
    pub fn purge(&self) {
        let watched = self.current.load();
        let mut guard = watched.series.lock().unwrap_or_else(PoisonError::into_inner);
        let SeriesTable { by_labels, nodes, free_slots, .. } = &mut *guard;
        by_labels.retain(|_, series| {
            let held = Arc::strong_count(series) > 1;
            if !held {
                free_slots.push(series.slot);
            }
            held
        });
        nodes.retain(|_, hints| Arc::strong_count(hints) > 1);
    }
}

impl Watched {
    fn series(&self, labels: &Labels) -> Option<Arc<WatchedSeries>> {
        let named = self.by_name.get(labels.metric_name()).map(Vec::as_slice).unwrap_or_default();
        if named.is_empty() && self.any_name.is_empty() {
            return None;
        }
        let mut watchers: Vec<Watcher> = named
            .iter()
            .chain(&self.any_name)
            .filter(|selector| selector.matchers.iter().all(|matcher| matcher.matches_labels(labels)))
            .map(|selector| Watcher { rule: selector.rule as u32, selector: selector.selector as u32 })
            .collect();
        // Parts of histograms and start timestamps are no samples that a threshold could be about.
        if watchers.is_empty() || is_hidden(labels) {
            return None;
        }
        watchers.sort_unstable();
        watchers.dedup();
        let mut guard = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let SeriesTable { by_labels, nodes, free_slots, slots } = &mut *guard;
        if let Some(known) = by_labels.get(labels) {
            return Some(Arc::clone(known));
        }
        let slot = free_slots.pop().unwrap_or_else(|| {
            *slots += 1;
            *slots - 1
        });
        let node = labels.get(NODE_LABEL).unwrap_or("");
        let hints = match nodes.get(node) {
            Some(hints) => Arc::clone(hints),
            None => Arc::clone(nodes.entry(node.to_owned()).or_default()),
        };
        let (labels, watchers, urgency) = (labels.clone(), watchers.into(), Urgency::new(hints));
        let series = Arc::new(WatchedSeries { slot, labels: labels.clone(), watchers, urgency });
        by_labels.insert(labels, Arc::clone(&series));
        Some(series)
    }
}
