//! Reads: matchers and a time range in, whole columns out.

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

    /// Called when `samples` that were taken are no longer held.
    fn put_back(&self, samples: usize) {
        let _ = samples;
    }

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

    fn check(&self) -> Result<(), Self::Refusal> {
        Ok(())
    }
}
