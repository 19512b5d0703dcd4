//! Start timestamps of a series' samples: since when each of them has counted (Prometheus' *start* or *created*
//! timestamp). The storage engine puts them together, and queries look at them; they hardly ever change, so they are
//! kept as runs.

use crate::sample::TimestampMs;

/// Samples that follow each other and have one start timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartRun {
    /// When the first of them was taken.
    pub first_ms: TimestampMs,
    /// Since when they count; `None` if nobody told.
    pub start_ms: Option<TimestampMs>,
}

/// The start timestamps of a series' samples, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Starts {
    runs: Vec<StartRun>,
}

impl Starts {
    /// Joins samples, told by their timestamps in rising order, with the start timestamps of some of them, each told
    /// with the timestamp of its sample, in rising order too.
    pub fn of(
        samples: impl Iterator<Item = TimestampMs>,
        told: impl Iterator<Item = (TimestampMs, TimestampMs)>,
    ) -> Starts {
        let mut told = told.peekable();
        let mut runs: Vec<StartRun> = Vec::new();
        for first_ms in samples {
            while told.next_if(|(at_ms, _)| *at_ms < first_ms).is_some() {}
            let start_ms = told.peek().filter(|(at_ms, _)| *at_ms == first_ms).map(|(_, start_ms)| *start_ms);
            if runs.last().is_none_or(|run| run.start_ms != start_ms) {
                runs.push(StartRun { first_ms, start_ms });
            }
        }
        if runs.iter().all(|run| run.start_ms.is_none()) {
            runs.clear();
        }
        Starts { runs }
    }

    /// Whether no sample of the series has one.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The start timestamp of the sample that was taken at this time.
    pub fn at(&self, timestamp_ms: TimestampMs) -> Option<TimestampMs> {
        let behind = self.runs.partition_point(|run| run.first_ms <= timestamp_ms);
        self.runs.get(behind.checked_sub(1)?)?.start_ms
    }

    /// Runs of samples with one start timestamp, oldest first; each lasts until the next begins.
    pub fn runs(&self) -> &[StartRun] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_with_one_start_make_a_run() {
        #[track_caller]
        fn check(samples: &[i64], starts: &[(i64, i64)], want: &[(i64, Option<i64>)]) {
            let starts = Starts::of(samples.iter().copied(), starts.iter().copied());
            let want: Vec<StartRun> =
                want.iter().map(|&(first_ms, start_ms)| StartRun { first_ms, start_ms }).collect();
            assert_eq!(starts.runs(), want);
        }
        check(&[], &[], &[]);
        check(&[1, 2, 3], &[], &[]);
        check(&[1, 2, 3], &[(1, 1), (2, 1), (3, 1)], &[(1, Some(1))]);
        check(&[1, 2, 3, 4], &[(1, 1), (2, 1), (3, 3), (4, 3)], &[(1, Some(1)), (3, Some(3))]);
        // A sample between that has none, and starts of samples that are not there.
        check(&[1, 2, 3], &[(0, 9), (1, 1), (3, 1), (7, 9)], &[(1, Some(1)), (2, None), (3, Some(1))]);
    }

    #[test]
    fn a_sample_has_the_start_of_its_run() {
        let starts = Starts::of([10, 20, 30].into_iter(), [(20, 15), (30, 15)].into_iter());
        let at: Vec<Option<i64>> = [9, 10, 20, 30, 99].map(|at| starts.at(at)).into();
        assert_eq!(at, [None, None, Some(15), Some(15), Some(15)]);
    }
}
