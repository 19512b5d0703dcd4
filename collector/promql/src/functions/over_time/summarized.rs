//! Functions over a range, from a summary of the window's samples.
//!
//! Results have the bits of those from samples; sums and means are at most two units in the last place off,
//! and where that is not certain the window is left to its samples.

use super::RangeCall;
use super::rate::{Observed, extrapolation};
use crate::eval::window::Window;
use crate::functions::OverTime;
use pharos_common::summary::{EXACT_MAX, Summary};

/// Where adding might overflow in one order and not in another.
const MAGNITUDE_MAX: f64 = 1e300;

/// A quarter or less of a unit in the last place, as a share of a sum: what an answer may be off beyond the
/// roundings that any way of adding ends with.
const UNCERTAINTY_MAX: f64 = 1.0 / (1u64 << 55) as f64;

/// What a window's summary says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OfSummary {
    Value(f64),
    /// There is no sample, or too few.
    Nothing,
    /// The samples must be read.
    NeedsSamples,
}

/// The function at a step, of what its window's samples sum up to.
pub(crate) fn of_summary(call: &RangeCall, summary: &Summary, step: usize) -> OfSummary {
    if summary.count == 0 || summary.is_cut {
        return OfSummary::Nothing;
    }
    let seconds = |time_ms: i64| time_ms as f64 / 1000.0;
    OfSummary::Value(match call.function {
        OverTime::Absent | OverTime::Present => 1.0,
        OverTime::Count => summary.count as f64,
        OverTime::First => summary.first.value,
        OverTime::Last => summary.last.value,
        OverTime::TsOfFirst => seconds(summary.first.timestamp_ms),
        OverTime::TsOfLast => seconds(summary.last.timestamp_ms),
        OverTime::Min => summary.min,
        OverTime::Max => summary.max,
        OverTime::Changes => summary.changes as f64,
        OverTime::Resets => summary.resets as f64,
        OverTime::Sum | OverTime::Avg => return sum(call.function, summary),
        OverTime::Rate | OverTime::Increase | OverTime::Delta => {
            if !falls_add_up(summary) {
                return OfSummary::NeedsSamples;
            }
            return difference(call, summary, step).map_or(OfSummary::Nothing, OfSummary::Value);
        }
        // The planner asks for no other.
        _ => return OfSummary::NeedsSamples,
    })
}

fn sum(function: OverTime, summary: &Summary) -> OfSummary {
    if summary.has_nan {
        return OfSummary::Value(f64::NAN);
    }
    let (sum, compensation) = (summary.sum, summary.compensation);
    let total = sum + compensation;
    let count = summary.count as f64;
    if !summary.is_exact {
        // What compensated adding of so many terms loses, at most, wherever it is done.
        let lost = (count * f64::EPSILON / 2.0).powi(2) * summary.magnitude;
        let is_certain = summary.uncertainty + 2.0 * lost <= total.abs() * UNCERTAINTY_MAX;
        if !is_certain || !total.is_finite() || summary.magnitude > MAGNITUDE_MAX {
            return OfSummary::NeedsSamples;
        }
    }
    OfSummary::Value(match function {
        OverTime::Avg => sum / count + compensation / count,
        _ => total,
    })
}

/// Whether falls of which only the sum is known give the difference that adding them one by one does: where
/// all are whole numbers nothing is rounded.
fn falls_add_up(summary: &Summary) -> bool {
    if summary.fallen == 0.0 {
        return true;
    }
    let whole = |value: f64| value.trunc() == value;
    let ends = [summary.first.value, summary.last.value];
    let mut all = ends.iter().chain(&summary.corrections);
    let magnitude: f64 = all.clone().map(|value| value.abs()).sum();
    all.all(|&value| whole(value)) && magnitude + summary.fallen < EXACT_MAX
}

/// `rate`, `increase` and `delta`, in the order of operations in which samples give them.
fn difference(call: &RangeCall, summary: &Summary, step: usize) -> Option<f64> {
    if summary.count < 2 {
        return None;
    }
    let is_counter = call.function != OverTime::Delta;
    let first = summary.first.value;
    let mut difference = summary.last.value - first;
    if is_counter {
        for before in &summary.corrections {
            difference += before;
        }
        difference += summary.fallen;
    }
    let seen = Observed {
        first_ms: summary.first.timestamp_ms,
        last_ms: summary.last.timestamp_ms,
        gaps: usize::try_from(summary.count - 1).ok()?,
        zero_after: (is_counter && difference > 0.0 && first >= 0.0).then(|| first / difference),
        zero_ms: None,
    };
    let window = Window {
        timestamps: &[],
        values: &[],
        histograms: &[],
        start_ms: call.windows.start_ms(step),
        end_ms: call.windows.end_ms(step),
        range_ms: call.windows.range_ms,
        time_ms: call.windows.grid.time(step),
    };
    Some(difference * extrapolation(&seen, &window, call.function == OverTime::Rate))
}
