//! The one door through which queries reach samples.
//!
//! A storage answers a selection with whole columns (all samples of a series in a time range at once),
//! never with an iterator of single samples. Series that were sampled together share one column of
//! timestamps, so the engine can work window boundaries out once for all of them.

use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// What to select.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// All must hold. At least one does not match the empty string.
    pub matchers: &'a [Matcher],
    /// First timestamp wanted, inclusive.
    pub start_ms: TimestampMs,
    /// Last timestamp wanted, inclusive.
    pub end_ms: TimestampMs,
}

/// All samples of one series in the selected range, in time order without duplicates.
#[derive(Clone, Debug)]
pub struct SeriesColumns {
    /// What names the series.
    pub labels: Labels,
    /// When the samples were taken; shared between series that were sampled together.
    pub timestamps: Arc<[TimestampMs]>,
    /// One value per timestamp. Stale markers are among them, bit for bit.
    pub values: Vec<f64>,
}

/// What a selection may cost, and whether somebody still waits for it. One per query, shared by all its
/// selections.
#[derive(Debug)]
pub struct Budget {
    samples_left: AtomicUsize,
    samples_max: usize,
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
}

impl Budget {
    /// A budget of at most `samples_max` samples in memory at once, until `deadline`.
    pub fn new(samples_max: usize, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) -> Self {
        Budget { samples_left: AtomicUsize::new(samples_max), samples_max, deadline, cancelled }
    }

    /// Takes `samples` out of the budget.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn take(&self, samples: usize) -> Result<(), StorageError> {
        self.samples_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(samples))
            .map(drop)
            .map_err(|_| StorageError::TooManySamples { limit: self.samples_max })
    }

    /// Puts samples back that are no longer held.
    pub fn put_back(&self, samples: usize) {
        self.samples_left.fetch_add(samples, Ordering::Relaxed);
    }

    /// Says whether to go on. Storages call it at least once per series or block page.
    ///
    /// # Errors
    /// If the query was cancelled or its time is up.
    pub fn check(&self) -> Result<(), StorageError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(StorageError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(StorageError::TimedOut);
        }
        Ok(())
    }
}

/// Why a selection could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The query would hold more samples than it may.
    #[error("query processing would load too many samples into memory in query execution (limit {limit})")]
    TooManySamples {
        /// Samples allowed.
        limit: usize,
    },
    /// Nobody waits for the answer any more.
    #[error("query was canceled")]
    Cancelled,
    /// The query's time is up.
    #[error("query timed out")]
    TimedOut,
    /// The storage itself failed.
    #[error("storage: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where samples come from.
pub trait Storage: Send + Sync {
    /// All series that match, with their samples in the range, sorted by labels. A series without a
    /// sample in the range is left out.
    ///
    /// # Errors
    /// If the budget is used up or the storage fails; never a partial answer.
    fn select(&self, selection: &Selection<'_>, budget: &Budget) -> Result<Vec<SeriesColumns>, StorageError>;
}
