//! Start timestamps: since when a cumulative sample has counted (Prometheus' *start* or *created* timestamp).
//!
//! The start timestamps of a series are a column of its group, beside that of its values, so journal, pages,
//! checkpoints, blocks, late rows, merges and deletions treat them as what they are: numbers that were sampled
//! with others. They hardly ever change, which every codec on that way tells in next to nothing. A series
//! without start timestamps has no such column.
//!
//! The column is a series of its own, with the labels of the series that it speaks of and [`START_LABEL`].
//! Nobody outside sees it ([`crate::hidden`]); whoever asks for start timestamps
//! ([`Database::selection_with_starts`](crate::Database::selection_with_starts)) gets [`Starts`] with each series.

use crate::hidden;
use crate::merge::Piece;
use crate::row::ABSENT;
use crate::select::SelectedSeries;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;

/// The label that tells a column of start timestamps. It sorts behind the names of all usual labels, and no series
/// that comes from outside may have it.
pub const START_LABEL: &str = "~start";

/// Start timestamps beyond this, which a double cannot tell to the millisecond, are taken for unknown.
const START_MS_MAX: u64 = 1 << 53;

/// What names the column of the start timestamps of a series.
pub fn column(labels: &Labels) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(START_LABEL, "1");
    builder.build()
}

/// The cell of a sample's start timestamp, in milliseconds; 0 says that it is not known (as in remote write 2.0).
/// One that lies behind its sample says nothing either.
pub fn cell(start_ms: TimestampMs, timestamp_ms: TimestampMs) -> f64 {
    let is_known = start_ms != 0 && start_ms <= timestamp_ms && start_ms.unsigned_abs() <= START_MS_MAX;
    if is_known { start_ms as f64 } else { ABSENT }
}

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
    /// Joins samples, told by their timestamps in rising order, with the start timestamps of some of them.
    pub(crate) fn of(samples: impl Iterator<Item = TimestampMs>, starts: &Piece) -> Starts {
        let mut told = starts.timestamps.iter().zip(&starts.values).peekable();
        let mut runs: Vec<StartRun> = Vec::new();
        for first_ms in samples {
            while told.next_if(|(at, _)| **at < first_ms).is_some() {}
            let start_ms = told.peek().filter(|(at, _)| **at == first_ms).map(|(_, start)| **start as i64);
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

impl SelectedSeries {
    /// Puts the start timestamps to the series' samples.
    pub(crate) fn add_starts(&mut self, starts: &Piece) {
        let mut floats = self.timestamps.iter().copied().peekable();
        let mut histograms = self.histograms.iter().map(|sample| sample.timestamp_ms).peekable();
        // The two have no timestamp in common.
        let next = std::iter::from_fn(|| match (floats.peek(), histograms.peek()) {
            (Some(float), Some(histogram)) if histogram < float => histograms.next(),
            (None, _) => histograms.next(),
            _ => floats.next(),
        });
        self.starts = Starts::of(next, starts);
    }
}

/// Whether a series is a column of start timestamps.
pub(crate) fn is_column(labels: &Labels) -> bool {
    labels.get(START_LABEL).is_some()
}

/// The labels of the series that a column of start timestamps speaks of; `None` for every other series.
pub(crate) fn whole(labels: &Labels) -> Option<Labels> {
    is_column(labels).then(|| hidden::whole(labels))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(starts: &[(i64, i64)]) -> Piece {
        Piece {
            timestamps: starts.iter().map(|(at, _)| *at).collect(),
            values: starts.iter().map(|(_, start)| *start as f64).collect(),
        }
    }

    #[test]
    fn samples_with_one_start_make_a_run() {
        #[track_caller]
        fn check(samples: &[i64], starts: &[(i64, i64)], want: &[(i64, Option<i64>)]) {
            let starts = Starts::of(samples.iter().copied(), &piece(starts));
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
        let starts = Starts::of([10, 20, 30].into_iter(), &piece(&[(20, 15), (30, 15)]));
        let at: Vec<Option<i64>> = [9, 10, 20, 30, 99].map(|at| starts.at(at)).into();
        assert_eq!(at, [None, None, Some(15), Some(15), Some(15)]);
    }

    #[test]
    fn what_cannot_be_a_start_is_not_known() {
        let known = |start_ms, at_ms| (!crate::row::is_absent(cell(start_ms, at_ms))).then_some(start_ms);
        assert_eq!([known(5, 5), known(-5, 5), known(0, 5), known(6, 5)], [Some(5), Some(-5), None, None]);
        assert_eq!([known(i64::MIN, 5), known(i64::MAX, i64::MAX), known(i64::MIN + 1, 0)], [None; 3]);
    }
}
