//! The side door of a storage: what samples sum up to over spans of time, without the samples.
//!
//! Functions over long ranges (`avg_over_time`, `rate`, …) and selectors at coarse steps need no sample by
//! itself. A storage that keeps summaries says so ([`Storage::summaries`]); the planner then asks for
//! the spans into which the edges of all windows cut the time, and windows are put together from them. An
//! answer is the same as from samples: how a storage comes by a summary is its own affair.
//!
//! [`Storage::summaries`]: crate::storage::Storage::summaries

use crate::storage::{Budget, StorageError};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::{Span, Summary, SummaryFields};
use std::sync::Arc;

/// What to sum up.
#[derive(Clone, Debug)]
pub struct SummaryRequest<'a> {
    /// All must hold, as in a selection.
    pub matchers: &'a [Matcher],
    /// At least one; they rise and do not overlap.
    pub spans: Arc<[Span]>,
    /// Which fields are looked at.
    pub fields: SummaryFields,
}

/// What was read for summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryStats {
    /// Buckets of five minutes.
    pub five_minute_buckets: usize,
    /// Buckets of an hour.
    pub hour_buckets: usize,
    /// Samples, where buckets did not serve.
    pub samples: usize,
    /// Blocks of the storage.
    pub blocks: usize,
}

impl SummaryStats {
    /// Counts what another part of the same reading read.
    pub(crate) fn add(&mut self, other: SummaryStats) {
        self.five_minute_buckets += other.five_minute_buckets;
        self.hour_buckets += other.hour_buckets;
        self.samples += other.samples;
        self.blocks = self.blocks.max(other.blocks);
    }
}

/// The series of a request, one after the other.
pub trait SummarySet: Send {
    /// The labels of the next series, and in `out` one summary per span; `None` after the last. A series
    /// without a sample in any of the spans may be among them, with empty summaries.
    ///
    /// # Errors
    /// If the budget is used up or the storage fails; the answer so far is then worthless.
    fn next_series(&mut self, out: &mut Vec<Summary>) -> Result<Option<Labels>, StorageError>;

    /// What was read so far.
    fn stats(&self) -> SummaryStats;
}

/// Parts of the series of a request.
pub type SummarySets<'s> = Vec<Box<dyn SummarySet + 's>>;

/// A storage that sums up.
pub trait SummaryStorage: Send + Sync {
    /// Spans whose ends are multiples of so many milliseconds take no samples.
    fn grain_ms(&self) -> i64;

    /// What was sampled before may be there as summaries alone: a window that reaches back so far is told from
    /// them, or, where they cannot tell it, not at all.
    fn samples_since_ms(&self) -> TimestampMs {
        TimestampMs::MIN
    }

    /// All series that match, sorted by labels, in at most `parts` parts that are read on a thread each:
    /// the first part has the first series, and so on. `None` if their samples must be read: what has
    /// native histograms is not summed up.
    ///
    /// # Errors
    /// If the budget is used up or the storage fails.
    fn summarize<'s>(
        &'s self,
        request: &SummaryRequest<'_>,
        budget: &'s Budget,
        parts: usize,
    ) -> Result<Option<SummarySets<'s>>, StorageError>;
}
