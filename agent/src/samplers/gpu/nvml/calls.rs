//! What to do with an error of the driver: most mean that a GPU lacks a feature, some that it is lost.
//!
//! A feature that is not offered is asked for again only now and then, so that a consumer card does not pay
//! for a data centre card's list in every reading.

use nvml_wrapper::error::NvmlError;

/// Readings until a feature that was not offered is asked for again.
const READINGS_BETWEEN_RETRIES: u32 = 300;

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The GPU or the driver does not offer it; that is no fault.
    NotOffered,
    /// There is no answer now.
    NothingNow,
    /// The call failed; others may work.
    Failed,
    /// This GPU answers no more.
    GpuLost,
    /// No GPU answers any more: the driver is gone or was replaced.
    DriverGone,
}

/// What an error means for the reading.
pub(super) fn meaning(error: &NvmlError) -> Meaning {
    match error {
        NvmlError::NotSupported
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::FunctionNotFound
        | NvmlError::NoPermission
        | NvmlError::InvalidArg => Meaning::NotOffered,
        // 25 and 26: the struct's version or the call itself is not for this driver.
        NvmlError::UnexpectedVariant(25 | 26) => Meaning::NotOffered,
        NvmlError::NotFound | NvmlError::NoData | NvmlError::UnexpectedVariant(27) => Meaning::NothingNow,
        NvmlError::GpuLost | NvmlError::ResetRequired => Meaning::GpuLost,
        NvmlError::UnexpectedVariant(28) => Meaning::GpuLost,
        NvmlError::Uninitialized | NvmlError::DriverNotLoaded | NvmlError::LibRmVersionMismatch => {
            Meaning::DriverGone
        }
        _ => Meaning::Failed,
    }
}

/// The calls of one GPU that may not be offered. [`Calls::ask`] names each by a number.
#[derive(Debug, Default)]
pub(super) struct Calls {
    not_offered: u64,
    retry: u32,
    /// Calls that failed in this reading.
    pub(super) errors: u32,
}

impl Calls {
    /// Starts a reading.
    pub(super) fn begin(&mut self) {
        self.errors = 0;
        self.retry += 1;
        if self.retry >= READINGS_BETWEEN_RETRIES {
            self.retry = 0;
            self.not_offered = 0;
        }
    }

    /// Calls unless the feature is known to be missing. `None` is no answer.
    ///
    /// # Errors
    /// Only what ends the reading of this GPU.
    pub(super) fn ask<T>(
        &mut self,
        number: u8,
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Result<Option<T>, NvmlError> {
        let bit = 1u64 << (number % 64);
        if self.not_offered & bit != 0 {
            return Ok(None);
        }
        let error = match call() {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match meaning(&error) {
            Meaning::NotOffered => self.not_offered |= bit,
            Meaning::NothingNow => {}
            Meaning::Failed => self.errors += 1,
            Meaning::GpuLost | Meaning::DriverGone => return Err(error),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_offered_is_asked_for_again_only_now_and_then() {
        let (mut calls, mut asked) = (Calls::default(), 0);
        for _ in 0..READINGS_BETWEEN_RETRIES {
            calls.begin();
            let answer = calls.ask(3, || -> Result<u32, NvmlError> {
                asked += 1;
                Err(NvmlError::NotSupported)
            });
            assert!(matches!(answer, Ok(None)));
        }
        assert_eq!((asked, calls.errors), (2, 0));
    }

    #[test]
    fn a_failure_is_counted_and_a_lost_gpu_ends_the_reading() {
        let mut calls = Calls::default();
        calls.begin();
        assert!(matches!(calls.ask(1, || Err::<(), _>(NvmlError::Unknown)), Ok(None)));
        assert!(matches!(calls.ask(1, || Err::<(), _>(NvmlError::Timeout)), Ok(None)));
        assert_eq!(calls.errors, 2);
        assert!(calls.ask(1, || Err::<(), _>(NvmlError::GpuLost)).is_err());
        assert_eq!(meaning(&NvmlError::LibRmVersionMismatch), Meaning::DriverGone);
    }
}
