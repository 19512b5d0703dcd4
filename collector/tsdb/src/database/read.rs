//! Reads: the head first, then the blocks, so that nothing slips between them while a cut moves it.

use super::{Database, Inner, Selection};
use crate::block::reader::{Block, BlockError};
use crate::error::{ReadError, TsdbError};
use crate::head::selection::Wanted;
use crate::hidden;
use crate::select::{ReadBudget, SelectedSeries};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Database {
    /// The series that match, in the range (both ends included), sorted by labels, to be read one by one.
    /// Reads files: not for a thread that must not block.
    ///
    /// # Errors
    /// If the budget refuses to go on, a block is damaged or cannot be read.
    pub fn selection<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        budget: &B,
    ) -> Result<Selection, ReadError<B::Refusal>> {
        Selection::find(&self.inner, matchers, (start_ms, end_ms), Wanted::All, budget)
    }

    /// As [`Database::selection`], and each series comes with the start timestamps of its samples.
    ///
    /// # Errors
    /// As [`Database::selection`].
    pub fn selection_with_starts<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        budget: &B,
    ) -> Result<Selection, ReadError<B::Refusal>> {
        Selection::find(&self.inner, matchers, (start_ms, end_ms), Wanted::WithStarts, budget)
    }

    /// As [`Database::selection`], with nothing but the newest sample of each series: what an instant query
    /// wants. Most come from the head's newest rows, without decoding anything.
    ///
    /// # Errors
    /// As [`Database::selection`].
    pub fn selection_of_newest<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        budget: &B,
    ) -> Result<Selection, ReadError<B::Refusal>> {
        Selection::find(&self.inner, matchers, (start_ms, end_ms), Wanted::Newest, budget)
    }

    /// The samples of all series that match, in the range (both ends included), sorted by labels. Series
    /// without a sample there are left out. Reads files: not for a thread that must not block.
    ///
    /// # Errors
    /// If the budget refuses to go on, a block is damaged or cannot be read; never a partial answer.
    pub fn select<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        budget: &B,
    ) -> Result<Vec<SelectedSeries>, ReadError<B::Refusal>> {
        read_all(self.selection(matchers, start_ms, end_ms, budget)?, budget)
    }

    /// As [`Database::select`], with nothing but the newest sample of each series.
    ///
    /// # Errors
    /// As [`Database::select`].
    pub fn select_newest<B: ReadBudget>(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        budget: &B,
    ) -> Result<Vec<SelectedSeries>, ReadError<B::Refusal>> {
        read_all(self.selection_of_newest(matchers, start_ms, end_ms, budget)?, budget)
    }

    /// Label sets of the series that match and may have samples in the range, sorted.
    ///
    /// # Errors
    /// If a block cannot be read.
    pub fn series(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<Vec<Labels>, TsdbError> {
        let Some(matchers) = hidden::from_outside(matchers) else { return Ok(Vec::new()) };
        let matchers = &*matchers;
        let mut found = BTreeSet::new();
        self.inner.visit_series(matchers, start_ms, end_ms, |labels| {
            if !found.contains(labels) {
                found.insert(hidden::whole(labels).unwrap_or_else(|| labels.clone()));
            }
        })?;
        Ok(found.into_iter().collect())
    }

    /// Names of the labels of these series, sorted.
    ///
    /// # Errors
    /// If a block cannot be read.
    pub fn label_names(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<Vec<String>, TsdbError> {
        let Some(matchers) = hidden::from_outside(matchers) else { return Ok(Vec::new()) };
        let matchers = &*matchers;
        let mut found: BTreeSet<String> = BTreeSet::new();
        if matchers.is_empty() && !self.inner.has_tombstones() {
            if self.inner.head.overlaps(start_ms, end_ms) {
                found.extend(self.inner.head.registry().postings().names().map(|(name, _)| name.to_owned()));
            }
            for block in self.inner.blocks_in(start_ms, end_ms, true) {
                found.extend(block.index()?.postings.names().map(|(name, _)| name.to_owned()));
            }
            found.retain(|name| !hidden::is_reserved_label(name));
            return Ok(found.into_iter().collect());
        }
        self.inner.visit_series(matchers, start_ms, end_ms, |labels| {
            for (name, _) in labels.iter() {
                if !found.contains(name) {
                    found.insert(name.to_owned());
                }
            }
        })?;
        found.retain(|name| !hidden::is_reserved_label(name));
        Ok(found.into_iter().collect())
    }

    /// Values of a label of these series, sorted.
    ///
    /// # Errors
    /// If a block cannot be read.
    pub fn label_values(
        &self,
        name: &str,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
    ) -> Result<Vec<String>, TsdbError> {
        let Some(matchers) = hidden::from_outside(matchers) else { return Ok(Vec::new()) };
        let matchers = &*matchers;
        let mut found: BTreeSet<String> = BTreeSet::new();
        if hidden::is_reserved_label(name) {
            return Ok(Vec::new());
        }
        if matchers.is_empty() && !self.inner.has_tombstones() {
            if self.inner.head.overlaps(start_ms, end_ms)
                && let Some(values) = self.inner.head.registry().postings().values(name)
            {
                found.extend(values.keys().map(ToString::to_string));
            }
            for block in self.inner.blocks_in(start_ms, end_ms, true) {
                if let Some(values) = block.index()?.postings.values(name) {
                    found.extend(values.keys().map(ToString::to_string));
                }
            }
            return Ok(found.into_iter().collect());
        }
        self.inner.visit_series(matchers, start_ms, end_ms, |labels| {
            if let Some(value) = labels.get(name)
                && !found.contains(value)
            {
                found.insert(value.to_owned());
            }
        })?;
        Ok(found.into_iter().collect())
    }
}

fn read_all<B: ReadBudget>(
    mut selection: Selection,
    budget: &B,
) -> Result<Vec<SelectedSeries>, ReadError<B::Refusal>> {
    let mut all = Vec::with_capacity(selection.len());
    while let Some(series) = selection.next_series(budget)? {
        all.push(series);
    }
    Ok(all)
}

impl Inner {
    /// Tells of a damaged block once: log, and the count of damaged bytes.
    pub(super) fn note_damage(&self, block: &Block, error: &str) {
        if block.is_first_damage() {
            tracing::error!(error, "A block is damaged; what can be read of it is served");
            self.counters.damaged_bytes.fetch_add(block.bytes(), Ordering::Relaxed);
        }
    }

    /// Whether series may have been deleted that indexes still speak of.
    fn has_tombstones(&self) -> bool {
        self.blocks().iter().any(|block| !block.tombstones().is_empty())
    }

    /// The blocks that a read of the range is about. One whose index turns out to be damaged is set aside instead:
    /// nothing of it can be read, and the rest is served. A reader that may not read files is told of it later.
    pub(super) fn blocks_in(
        &self,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        may_read_files: bool,
    ) -> Vec<Arc<Block>> {
        let mut blocks = self.blocks();
        blocks.retain(|block| block.overlaps(start_ms, end_ms));
        if may_read_files {
            blocks.retain(|block| match block.open_index() {
                Err(error @ BlockError::Damaged { .. }) => {
                    if let Err(error) = self.set_aside(block, &error) {
                        tracing::error!(%error, block = %block.path().display(), "A damaged block cannot be set aside");
                    }
                    false
                }
                _ => true,
            });
        }
        blocks
    }

    fn visit_series(
        &self,
        matchers: &[Matcher],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        mut visit: impl FnMut(&Labels),
    ) -> Result<(), TsdbError> {
        self.head.visit_series(matchers, start_ms, end_ms, &mut visit);
        for block in self.blocks_in(start_ms, end_ms, true) {
            let (index, tombstones) = (block.index()?, block.tombstones());
            for number in &index.postings.select_shown(matchers) {
                let Some(series) = index.series.get(number as usize) else { continue };
                let timestamps = index.timestamps.get(series.timestamps as usize);
                let (from_ms, to_ms) = (start_ms.max(block.oldest_ms()), end_ms.min(block.newest_ms()));
                let deleted = tombstones.iter().any(|tombstone| {
                    tombstone.start_ms <= from_ms
                        && tombstone.end_ms >= to_ms
                        && tombstone.matches(&series.labels)
                });
                if !deleted && timestamps.is_some_and(|timestamps| timestamps.overlaps(start_ms, end_ms)) {
                    visit(&series.labels);
                }
            }
        }
        Ok(())
    }
}
