//! Start timestamps in functions of counters, if the engine is told to use them (Prometheus'
//! `use-start-timestamps`): what they say about resets that values do not show, and from where on a window's first
//! sample has counted. The rules are those of Prometheus 3.15.

use super::RangeCall;
use crate::storage::SeriesColumns;
use pharos_common::sample::TimestampMs;
use pharos_common::starts::Starts;
use std::cmp::Ordering;

/// The start timestamps of a series, if the call looks at them and there are some.
pub(super) fn of<'s>(call: &RangeCall, series: &'s SeriesColumns) -> Option<&'s Starts> {
    (call.uses_starts && !series.starts.is_empty()).then_some(&series.starts)
}

/// Whether the counter began anew between two samples that follow each other.
pub(super) fn restarted(starts: Option<&Starts>, before_ms: TimestampMs, now_ms: TimestampMs) -> bool {
    let Some(starts) = starts else { return false };
    // OpenTelemetry says by a start at the sample itself that it does not know.
    let Some(start_ms) = starts.at(now_ms).filter(|start_ms| *start_ms < now_ms) else { return false };
    let start_before_ms = starts.at(before_ms);
    if start_before_ms == Some(start_ms) {
        return false;
    }
    match start_ms.cmp(&before_ms) {
        Ordering::Less => false,
        Ordering::Greater => true,
        // Samples that count since the one before are deltas, unless that one did not know its own start: the
        // first sample of a counter stands in for it then.
        Ordering::Equal => start_before_ms.is_some_and(|start_before_ms| start_before_ms < before_ms),
    }
}

/// Since when a window's first sample has counted, if that was within the window: the counter was zero then.
pub(super) fn zero_inside(
    starts: Option<&Starts>,
    first_ms: TimestampMs,
    window_start_ms: TimestampMs,
) -> Option<TimestampMs> {
    starts?.at(first_ms).filter(|&start_ms| window_start_ms < start_ms && start_ms < first_ms)
}

/// Indices of the samples of a counter before which it fell or began anew.
pub(super) fn resets(values: &[f64], timestamps: &[TimestampMs], starts: &Starts) -> Vec<usize> {
    let began = |index: usize| {
        values[index] < values[index - 1] || restarted(Some(starts), timestamps[index - 1], timestamps[index])
    };
    (1..values.len().min(timestamps.len())).filter(|&index| began(index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_after_the_sample_before_is_a_reset_and_so_are_deltas() {
        #[track_caller]
        fn check(before: Option<i64>, now: Option<i64>, want: bool) {
            let told = [(100, before), (200, now)];
            let told = told.into_iter().filter_map(|(at_ms, start_ms)| Some((at_ms, start_ms?)));
            let starts = Starts::of([100, 200].into_iter(), told);
            assert_eq!(restarted(Some(&starts), 100, 200), want, "{before:?} {now:?}");
        }
        // Nobody told, or what was told makes no sense.
        check(None, None, false);
        check(Some(50), None, false);
        check(Some(50), Some(200), false);
        check(Some(50), Some(201), false);
        // The counter goes on.
        check(Some(50), Some(50), false);
        check(None, Some(50), false);
        check(Some(40), Some(50), false);
        // It began anew.
        check(Some(50), Some(101), true);
        check(None, Some(199), true);
        // Deltas begin where the one before ended; counters whose start nobody knew seem to.
        check(Some(50), Some(100), true);
        check(None, Some(100), false);
        check(Some(100), Some(100), false);
        check(Some(101), Some(100), false);
        // A clock that is ahead does not begin anew all the time.
        check(Some(150), Some(150), false);
        assert!(!restarted(None, 100, 200));
    }

    #[test]
    fn a_window_begins_at_zero_if_its_first_sample_began_within() {
        let starts = Starts::of([100].into_iter(), [(100, 50)].into_iter());
        let inside = |start_ms| zero_inside(Some(&starts), 100, start_ms);
        assert_eq!([inside(49), inside(50), inside(0)], [Some(50), None, Some(50)]);
        let at_itself = Starts::of([100].into_iter(), [(100, 100)].into_iter());
        assert_eq!(zero_inside(Some(&at_itself), 100, 0), None);
        assert_eq!(zero_inside(None, 100, 0), None);
    }
}
