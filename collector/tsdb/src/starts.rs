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
pub use pharos_common::starts::{StartRun, Starts};

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
        let starts =
            starts.timestamps.iter().zip(&starts.values).map(|(at_ms, start_ms)| (*at_ms, *start_ms as i64));
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

    #[test]
    fn what_cannot_be_a_start_is_not_known() {
        let known = |start_ms, at_ms| (!crate::row::is_absent(cell(start_ms, at_ms))).then_some(start_ms);
        assert_eq!([known(5, 5), known(-5, 5), known(0, 5), known(6, 5)], [Some(5), Some(-5), None, None]);
        assert_eq!([known(i64::MIN, 5), known(i64::MAX, i64::MAX), known(i64::MIN + 1, 0)], [None; 3]);
    }
}
