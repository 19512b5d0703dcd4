//! One evaluation of a group reads each selector once, however many of its rules use it.
//!
//! What several rules select over the same time is kept until the evaluation ends, up to a number of samples.
//! Series that the group itself records are not: a rule sees what the rules before it wrote.

use super::file::RuleKind;
use super::rule::Group;
use crate::limits::SHARED_SAMPLES_MAX;
use crate::storage::DatabaseStorage;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// A selector as text, and what of it is wanted.
type Key = (String, TimestampMs, TimestampMs, bool, bool);

/// Which selectors of a group are worth keeping: those that more than one place of it reads.
#[derive(Debug, Default)]
pub struct SharedSelectors {
    repeated: HashSet<String>,
}

impl SharedSelectors {
    /// Of a group's interval rules.
    pub fn of(group: &Group) -> Self {
        let interval = || group.rules.iter().filter(|rule| rule.threshold.is_none());
        let recorded: HashSet<&str> = interval()
            .filter(|rule| matches!(rule.definition.kind, RuleKind::Record(_)))
            .map(|rule| rule.definition.name())
            .collect();
        let mut seen = HashSet::new();
        let mut repeated = HashSet::new();
        for selector in interval().flat_map(|rule| rule.definition.expr.selectors()) {
            // Without a fixed name it might select what the group records.
            let Some(name) = selector.metric_name() else { continue };
            let text = text_of(&selector.matchers);
            if !recorded.contains(name) && !seen.insert(text.clone()) {
                repeated.insert(text);
            }
        }
        SharedSelectors { repeated }
    }
}

fn text_of(matchers: &[Matcher]) -> String {
    let parts: Vec<String> = matchers
        .iter()
        .map(|matcher| {
            let op: MatchOp = matcher.op();
            format!("{:?}{}{:?}", matcher.name(), op.as_str(), matcher.value())
        })
        .collect();
    parts.join(",")
}

/// The storage as the rules of one evaluation see it.
#[derive(Debug)]
pub struct SharedReads {
    storage: Arc<DatabaseStorage>,
    selectors: Arc<SharedSelectors>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Key, Arc<[SeriesColumns]>>,
    samples: usize,
    /// Selections answered from what was kept.
    reused: usize,
}

impl SharedReads {
    /// For one evaluation.
    pub fn new(storage: Arc<DatabaseStorage>, selectors: Arc<SharedSelectors>) -> Self {
        SharedReads { storage, selectors, kept: Mutex::default() }
    }

    /// How many selections were answered from what was kept.
    pub fn reused(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).reused
    }

    fn find(&self, key: &Key) -> Option<Arc<[SeriesColumns]>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.by_key.get(key).map(Arc::clone);
        kept.reused += usize::from(found.is_some());
        found
    }

    fn keep(&self, key: Key, columns: &[SeriesColumns]) {
        let cost: usize = columns.iter().map(SeriesColumns::cost).sum();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.samples + cost <= SHARED_SAMPLES_MAX && kept.by_key.insert(key, Arc::from(columns)).is_none()
        {
            kept.samples += cost;
        }
    }
}

impl Storage for SharedReads {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let text = text_of(selection.matchers);
        if !self.selectors.repeated.contains(&text) {
            return self.storage.select(selection, budget);
        }
        let hints = selection.hints;
        let key = (text, selection.start_ms, selection.end_ms, hints.newest_only, hints.starts);
        if let Some(kept) = self.find(&key) {
            budget.take(kept.iter().map(SeriesColumns::cost).sum())?;
            let columns: Vec<SeriesColumns> = kept.iter().cloned().collect();
            return Ok(Box::new(columns.into_iter()));
        }
        let mut columns = Vec::new();
        let mut set = self.storage.select(selection, budget)?;
        while let Some(series) = set.next_series()? {
            columns.push(series);
        }
        drop(set);
        self.keep(key, &columns);
        Ok(Box::new(columns.into_iter()))
    }
}
