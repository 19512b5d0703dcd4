//! The one door through which queries reach samples.
//!
//! A storage answers a selection series by series, each with whole columns (all its samples in a time
//! range at once), never with an iterator of single samples. Series that were sampled together share
//! one column of timestamps, so the engine works window boundaries out once for all of them. The engine
//! works on a few series at a time and lets go of their columns, so a query over many long series holds
//! little more than its result.

use crate::summaries::SummaryStorage;
pub use pharos_common::histogram::HistogramSample;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_common::starts::Starts;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// What to select.
#[derive(Clone, Debug)]
pub struct Selection<'a> {
    /// All must hold. At least one does not match the empty string (except for `info` series, which are
    /// selected by values of `instance` and `job`).
    pub matchers: &'a [Matcher],
    /// First timestamp wanted, inclusive.
    pub start_ms: TimestampMs,
    /// Last timestamp wanted, inclusive.
    pub end_ms: TimestampMs,
    /// What the samples are for. A storage may ignore it.
    pub hints: SelectionHints,
}

/// What the samples of a selection are for.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectionHints {
    /// Distance of evaluation times; 0 for a single one.
    pub step_ms: i64,
    /// Length of the range before each evaluation time; 0 for instant selectors.
    pub range_ms: i64,
    /// Name of the function over the range, or empty.
    pub function: &'static str,
    /// Whether nothing but each series' newest sample of the range is wanted: an instant selector at one
    /// time. A storage may answer with more.
    pub newest_only: bool,
    /// Whether start timestamps are wanted with the samples. Otherwise a storage need not look for them.
    pub starts: bool,
}

/// All samples of one series in the selected range, in time order without duplicates.
#[derive(Clone, Debug)]
pub struct SeriesColumns {
    /// What names the series.
    pub labels: Labels,
    /// When the float samples were taken; shared between series that were sampled together.
    pub timestamps: Arc<[TimestampMs]>,
    /// One value per timestamp. Stale markers are among them, bit for bit.
    pub values: Vec<f64>,
    /// Native histograms, for the few series that have them. No timestamp is also in `timestamps`.
    pub histograms: Vec<HistogramSample>,
    /// Start timestamps of floats and histograms, where they were wanted and are known.
    pub starts: Starts,
}

impl SeriesColumns {
    /// A series of floats.
    pub fn floats(labels: Labels, timestamps: Arc<[TimestampMs]>, values: Vec<f64>) -> Self {
        SeriesColumns { labels, timestamps, values, histograms: Vec::new(), starts: Starts::default() }
    }

    /// What the series takes of a [`Budget`].
    pub fn cost(&self) -> usize {
        self.values.len()
            + self.histograms.iter().map(|sample| sample.histogram.cost_in_samples()).sum::<usize>()
    }
}

/// What a query may cost, and whether somebody still waits for it. One per query, shared by all its
/// selections.
#[derive(Debug)]
pub struct Budget {
    samples_left: AtomicUsize,
    samples_max: usize,
    samples_low: AtomicUsize,
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
    reads: ReadCounters,
    may_read_files: bool,
}

/// From where samples of a query were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Samples decoded from memory.
    pub head_samples: usize,
    /// Samples decoded from blocks.
    pub block_samples: usize,
    /// Readings of a block: blocks, counted once for each selection that found samples in them.
    pub blocks: usize,
}

#[derive(Debug, Default)]
struct ReadCounters {
    head_samples: AtomicUsize,
    block_samples: AtomicUsize,
    blocks: AtomicUsize,
}

impl Budget {
    /// A budget of at most `samples_max` samples in memory at once, until `deadline`.
    pub fn new(samples_max: usize, deadline: Option<Instant>, cancelled: Arc<AtomicBool>) -> Self {
        Budget {
            samples_left: AtomicUsize::new(samples_max),
            samples_max,
            samples_low: AtomicUsize::new(samples_max),
            deadline,
            cancelled,
            reads: ReadCounters::default(),
            may_read_files: true,
        }
    }

    /// The same for a query on a thread that must not wait for a disk: a storage refuses it what is not in
    /// memory ([`StorageError::NotInMemory`]).
    pub fn without_files(self) -> Self {
        Budget { may_read_files: false, ..self }
    }

    /// Whether a storage may read files for it.
    pub fn may_read_files(&self) -> bool {
        self.may_read_files
    }

    /// Notes from where a storage read samples, for the statistics of the query.
    pub fn note_reads(&self, reads: ReadStats) {
        self.reads.head_samples.fetch_add(reads.head_samples, Ordering::Relaxed);
        self.reads.block_samples.fetch_add(reads.block_samples, Ordering::Relaxed);
        self.reads.blocks.fetch_add(reads.blocks, Ordering::Relaxed);
    }

    /// What was noted so far.
    pub fn reads(&self) -> ReadStats {
        ReadStats {
            head_samples: self.reads.head_samples.load(Ordering::Relaxed),
            block_samples: self.reads.block_samples.load(Ordering::Relaxed),
            blocks: self.reads.blocks.load(Ordering::Relaxed),
        }
    }

    /// Takes `samples` out of the budget. A storage calls it for what it decodes, before or while it
    /// does so; the engine puts the series' [`SeriesColumns::cost`] back when it has used it.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn take(&self, samples: usize) -> Result<(), StorageError> {
        let before = self
            .samples_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(samples))
            .map_err(|_| StorageError::TooManySamples { limit: self.samples_max })?;
        self.samples_low.fetch_min(before - samples, Ordering::Relaxed);
        Ok(())
    }

    /// Puts samples back that are no longer held.
    pub fn put_back(&self, samples: usize) {
        self.samples_left.fetch_add(samples, Ordering::Relaxed);
    }

    /// The most samples that may be held at once.
    pub fn samples_max(&self) -> usize {
        self.samples_max
    }

    /// The most samples that were held at once.
    pub fn peak_samples(&self) -> usize {
        self.samples_max - self.samples_low.load(Ordering::Relaxed)
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
    /// Files would have to be read, and must not be here.
    #[error("not in memory")]
    NotInMemory,
    /// The storage itself failed.
    #[error("storage: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The series of a selection, one after the other.
pub trait SeriesSet: Send {
    /// The next series, or `None` after the last. A series without a sample in the range is left out.
    ///
    /// # Errors
    /// If the budget is used up or the storage fails; the answer so far is then worthless.
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError>;
}

/// Series that are in memory already.
impl SeriesSet for std::vec::IntoIter<SeriesColumns> {
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError> {
        Ok(self.next())
    }
}

/// Where samples come from.
pub trait Storage: Send + Sync {
    /// All series that match, sorted by labels.
    ///
    /// # Errors
    /// If the budget is used up or the storage fails; never a partial answer.
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError>;

    /// The same series in parts that up to `threads` threads read, each the next one that is left: the first
    /// part has the first series, and so on. A storage cuts where that is well worth a thread.
    ///
    /// # Errors
    /// As [`Storage::select`].
    fn select_parts<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
        threads: usize,
    ) -> Result<Vec<Box<dyn SeriesSet + 's>>, StorageError> {
        let _ = threads;
        Ok(vec![self.select(selection, budget)?])
    }

    /// The same storage as one that sums up, if it is.
    fn summaries(&self) -> Option<&dyn SummaryStorage> {
        None
    }
}

/// No series at all: enough for queries of constants.
impl Storage for () {
    fn select<'s>(
        &'s self,
        _selection: &Selection<'_>,
        _budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        Ok(Box::new(Vec::new().into_iter()))
    }
}
