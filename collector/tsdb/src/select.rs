//! Reads: matchers and a time range in, whole columns out.

use crate::starts::Starts;
use pharos_common::histogram::HistogramSample;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;

/// All samples of one series in a time range, in time order without duplicates.
#[derive(Clone, Debug)]
pub struct SelectedSeries {
    /// What names the series.
    pub labels: Labels,
    /// When the samples were taken; shared between series that were sampled together.
    pub timestamps: Arc<[TimestampMs]>,
    /// One value per timestamp; stale markers are among them.
    pub values: Vec<f64>,
    /// Native histograms, for the few series that have them. No timestamp is also in `timestamps`.
    pub histograms: Vec<HistogramSample>,
    /// Since when the samples have counted, of floats and histograms alike; empty if nobody told or asked.
    pub starts: Starts,
}

/// From where a read took samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Samples of the head.
    pub head_samples: usize,
    /// Samples of blocks.
    pub block_samples: usize,
    /// Blocks that had some.
    pub blocks: usize,
}

/// What a read may cost, decided by the reader.
pub trait ReadBudget: Sync {
    /// Why it refuses.
    type Refusal;

    /// Called before `samples` more are loaded.
    ///
    /// # Errors
    /// To end the read.
    fn take(&self, samples: usize) -> Result<(), Self::Refusal>;

    /// Called when `samples` that were taken are not held any more.
    fn give_back(&self, samples: usize);

    /// Whether files may be read. If not, what is not in memory ends the read ([`crate::ReadError::NotInMemory`]).
    fn may_read_files(&self) -> bool {
        true
    }

    /// Called when a read is over, with from where it read.
    fn note_reads(&self, _reads: Reads) {}

    /// Called at least once per series.
    ///
    /// # Errors
    /// To end the read.
    fn check(&self) -> Result<(), Self::Refusal>;
}

/// No limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unlimited;

impl ReadBudget for Unlimited {
    type Refusal = std::convert::Infallible;

    fn take(&self, _samples: usize) -> Result<(), Self::Refusal> {
        Ok(())
    }

    fn give_back(&self, _samples: usize) {}

    fn check(&self) -> Result<(), Self::Refusal> {
        Ok(())
    }
}
