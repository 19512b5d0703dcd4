//! Functions over ranges of floats.

use super::ranks::Ranks;
use super::{RangeCall, extremes, rate, regression, starts, sums};
use crate::annotations::Annotations;
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::Meter;
use crate::eval::window::{KnownWindows, Window};
use crate::functions::OverTime;
use crate::functions::quantile::{invalid, quantile};
use crate::storage::SeriesColumns;
use std::ops::Range;

/// To find the value of a rank takes about as long as to look at each value so many times.
pub(super) const SELECTION_VISITS: usize = 4;

pub(super) fn evaluate(
    call: &RangeCall,
    series: &SeriesColumns,
    known: &KnownWindows,
    annotations: &mut Annotations,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let bounds = &*known.bounds;
    let values = series.values.as_slice();
    let times = &*series.timestamps;
    let seconds = |time_ms: i64| time_ms as f64 / 1000.0;
    // One value for each window that has samples.
    let computed = |value: &mut dyn FnMut(usize, Range<usize>) -> Result<f64, QueryError>| {
        let mut column = Column::default();
        column.reserve(bounds.len());
        for (step, range) in bounds.iter().enumerate() {
            meter.visit(1)?;
            if !range.is_empty() {
                column.push_float(step, value(step, range.clone())?);
            }
        }
        Ok(column)
    };
    // The same where a value costs little however many samples there are.
    let filled =
        |value: &dyn Fn(usize, Range<usize>) -> f64| computed(&mut |step, range| Ok(value(step, range)));
    if call.extension != RangeExtension::None {
        return extended(call, series, bounds, meter);
    }
    match call.function {
        OverTime::Absent | OverTime::Present => filled(&|_, _| 1.0),
        OverTime::Count => filled(&|_, range| range.len() as f64),
        OverTime::First => filled(&|_, range| values[range.start]),
        OverTime::Last => filled(&|_, range| values[range.end - 1]),
        OverTime::TsOfFirst => filled(&|_, range| seconds(times[range.start])),
        OverTime::TsOfLast => filled(&|_, range| seconds(times[range.end - 1])),
        OverTime::Sum => sums::sum(values, bounds, meter),
        OverTime::Avg => sums::average(values, bounds, meter),
        OverTime::Stdvar => computed(&mut |_, range| sums::variance(&values[range], meter)),
        OverTime::Stddev => computed(&mut |_, range| Ok(sums::variance(&values[range], meter)?.sqrt())),
        OverTime::Max => {
            extremes::extremes(values, bounds, |new, kept| new > kept, |index| values[index], meter)
        }
        OverTime::Min => {
            extremes::extremes(values, bounds, |new, kept| new < kept, |index| values[index], meter)
        }
        OverTime::TsOfMax => {
            extremes::extremes(values, bounds, |new, kept| new >= kept, |index| seconds(times[index]), meter)
        }
        OverTime::TsOfMin => {
            extremes::extremes(values, bounds, |new, kept| new <= kept, |index| seconds(times[index]), meter)
        }
        OverTime::Changes => {
            let counted = prefix_counts(values, is_change);
            filled(&|_, range| f64::from(counted[range.end - 1] - counted[range.start]))
        }
        OverTime::Resets => {
            if let Some(starts) = starts::of(call, series) {
                let resets = starts::resets(values, times, starts);
                let until = |index: usize| resets.partition_point(|&reset| reset <= index);
                return filled(&|_, range| (until(range.end - 1) - until(range.start)) as f64);
            }
            let counted = prefix_counts(values, is_reset);
            filled(&|_, range| f64::from(counted[range.end - 1] - counted[range.start]))
        }
        OverTime::Rate | OverTime::Increase | OverTime::Delta => {
            rate::extrapolated(call, series, known, meter)
        }
        OverTime::Irate => rate::instant(series, bounds, true, starts::of(call, series), meter),
        OverTime::Idelta => rate::instant(series, bounds, false, None, meter),
        OverTime::Quantile => {
            let mut ranks = Ranks::new(values, bounds);
            let mut reported = None;
            computed(&mut |step, range| {
                let share = call.scalar(0, step);
                if reported != Some(share.to_bits())
                    && let Some(text) = invalid(share)
                {
                    reported = Some(share.to_bits());
                    annotations.warn(&text, &call.place);
                }
                ranks.quantile(share, range, meter)
            })
        }
        OverTime::Mad => {
            let mut scratch = Vec::new();
            computed(&mut |_, range| {
                meter.visit(2 * SELECTION_VISITS * range.len())?;
                Ok(median_deviation(&values[range], &mut scratch))
            })
        }
        OverTime::Deriv | OverTime::PredictLinear | OverTime::DoubleExponentialSmoothing => {
            regression::evaluate(call, series, bounds, meter)
        }
    }
}

/// `anchored` and `smoothed`.
fn extended(
    call: &RangeCall,
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    for (step, range) in bounds.iter().enumerate() {
        if range.is_empty() {
            continue;
        }
        meter.visit(range.len())?;
        let window = call.window(series, step, range.clone());
        let value = match call.function {
            OverTime::Changes => anchored_count(&window, is_change),
            OverTime::Resets => anchored_count(&window, is_reset),
            function => rate::extended(function, call.extension, &window),
        };
        if let Some(value) = value {
            column.push_float(step, value);
        }
    }
    Ok(column)
}

/// Counts events from the last sample at or before the range's start on.
fn anchored_count(window: &Window<'_>, is_event: fn(f64, f64) -> bool) -> Option<f64> {
    let last = window.timestamps.len().checked_sub(1)?;
    if window.timestamps[last] <= window.start_ms {
        return None;
    }
    let first = window.timestamps[..last].partition_point(|&time| time <= window.start_ms).saturating_sub(1);
    let events = window.values[first..].windows(2).filter(|pair| is_event(pair[0], pair[1])).count();
    Some(events as f64)
}

pub(super) fn is_change(before: f64, now: f64) -> bool {
    before != now && !(before.is_nan() && now.is_nan())
}

pub(super) fn is_reset(before: f64, now: f64) -> bool {
    now < before
}

/// For each sample, how many events there were up to it. A difference is the number inside a window.
fn prefix_counts(values: &[f64], is_event: fn(f64, f64) -> bool) -> Vec<u32> {
    let mut count = 0;
    let mut counts = Vec::with_capacity(values.len());
    let mut before = None;
    for &value in values {
        count += u32::from(before.is_some_and(|before| is_event(before, value)));
        counts.push(count);
        before = Some(value);
    }
    counts
}

/// The median distance from the median; NaN if there is a NaN among the values.
pub(super) fn median_deviation(values: &[f64], scratch: &mut Vec<f64>) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    scratch.clear();
    scratch.extend_from_slice(values);
    let median = quantile(0.5, scratch);
    scratch.clear();
    scratch.extend(values.iter().map(|value| (value - median).abs()));
    quantile(0.5, scratch)
}
