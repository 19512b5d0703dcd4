//! Rates of counters and differences of gauges.

use super::RangeCall;
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::Meter;
use crate::eval::smooth::Edges;
use crate::eval::window::Window;
use crate::functions::OverTime;
use crate::storage::SeriesColumns;
use std::ops::Range;

/// `rate`, `increase` and `delta`: the difference of last and first sample, extrapolated to the edges.
///
/// Resets are rare and found once per series, so a window costs its resets and not its samples.
pub(super) fn extrapolated(
    call: &RangeCall,
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let is_counter = call.function != OverTime::Delta;
    let values = series.values.as_slice();
    let resets: Vec<usize> = if is_counter { resets(values) } else { Vec::new() };
    let (mut low, mut high) = (0, 0);
    let mut column = Column::default();
    for (step, range) in bounds.iter().enumerate() {
        if range.len() < 2 {
            continue;
        }
        while resets.get(low).is_some_and(|&reset| reset <= range.start) {
            low += 1;
        }
        high = high.max(low);
        while resets.get(high).is_some_and(|&reset| reset < range.end) {
            high += 1;
        }
        meter.visit(1 + high - low)?;
        let last = range.end - 1;
        let mut difference = values[last] - values[range.start];
        for &reset in &resets[low..high] {
            difference += values[reset - 1];
        }
        let window = call.window(series, step, range.clone());
        let factor = extrapolation(
            &Observed {
                first_ms: window.timestamps[0],
                last_ms: series.timestamps[last],
                gaps: last - range.start,
                // From a counter's rise follows when it was zero, and before that it was not.
                zero_after: (is_counter && difference > 0.0 && values[range.start] >= 0.0)
                    .then(|| values[range.start] / difference),
            },
            &window,
            call.function == OverTime::Rate,
        );
        column.push_float(step, difference * factor);
    }
    Ok(column)
}

/// Where a counter fell.
fn resets(values: &[f64]) -> Vec<usize> {
    const STRIDE: usize = 64;
    let mut resets = Vec::new();
    let mut start = 1;
    while start < values.len() {
        let end = (start + STRIDE).min(values.len());
        // Most strides have none, which is found out without a branch per value.
        let pairs = || values[start - 1..end - 1].iter().zip(&values[start..end]);
        let has_any = pairs().fold(false, |found, (before, now)| found | (now < before));
        if has_any {
            let fell = pairs().enumerate().filter(|(_, (before, now))| now < before);
            resets.extend(fell.map(|(index, _)| start + index));
        }
        start = end;
    }
    resets
}

/// What of a window was seen.
pub(super) struct Observed {
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    /// Samples less one.
    pub(super) gaps: usize,
    /// A counter's first value over its increase.
    pub(super) zero_after: Option<f64>,
}

/// By what an increase between samples must be multiplied to cover the whole range: samples that come
/// close to an edge are taken to go on to it, others half a gap further, and counters not below zero.
pub(super) fn extrapolation(seen: &Observed, window: &Window<'_>, per_second: bool) -> f64 {
    let mut to_start = (seen.first_ms - window.start_ms) as f64 / 1000.0;
    let mut to_end = (window.end_ms - seen.last_ms) as f64 / 1000.0;
    let sampled = (seen.last_ms - seen.first_ms) as f64 / 1000.0;
    let gap = sampled / seen.gaps as f64;
    let threshold = gap * 1.1;
    if to_start >= threshold {
        to_start = gap / 2.0;
    }
    if let Some(zero_after) = seen.zero_after {
        let to_zero = sampled * zero_after;
        if to_zero < to_start {
            to_start = to_zero;
        }
    }
    if to_end >= threshold {
        to_end = gap / 2.0;
    }
    let mut factor = (sampled + to_start + to_end) / sampled;
    if per_second {
        factor /= window.range_ms as f64 / 1000.0;
    }
    factor
}

/// `rate`, `increase` and `delta` with values at the edges of the range.
pub(super) fn extended(function: OverTime, extension: RangeExtension, window: &Window<'_>) -> Option<f64> {
    let is_counter = function != OverTime::Delta;
    let smoothed = extension == RangeExtension::Smoothed;
    let (start_ms, end_ms) = (window.start_ms, window.end_ms);
    let edges = Edges::find(window.timestamps, window.values, start_ms, end_ms, smoothed, is_counter)?;
    let mut difference = edges.right - edges.left;
    if is_counter {
        // Interpolation has dealt with resets between an edge and the sample beyond it.
        let first = edges.first + usize::from(window.timestamps[edges.first] <= start_ms);
        let end = edges.last + usize::from(window.timestamps[edges.last] < end_ms);
        let inside = window.values.get(first..end).unwrap_or(&[]);
        let mut correction = 0.0;
        let mut before = edges.left;
        for &value in inside.iter().chain([&edges.right]) {
            if value < before {
                correction += before;
            }
            before = value;
        }
        difference += correction;
    }
    if function == OverTime::Rate {
        difference /= window.range_ms as f64 / 1000.0;
    }
    Some(difference)
}

/// `irate` and `idelta`: the last two samples.
pub(super) fn instant(
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    is_rate: bool,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    for (step, range) in bounds.iter().enumerate() {
        meter.visit(1)?;
        if range.len() < 2 {
            continue;
        }
        let last = range.end - 1;
        let (before, now) = (series.values[last - 1], series.values[last]);
        let elapsed_ms = series.timestamps[last] - series.timestamps[last - 1];
        if elapsed_ms == 0 {
            continue;
        }
        // A counter that fell has risen from zero to what it is.
        let mut difference = if is_rate && now < before { now } else { now - before };
        if is_rate {
            difference /= elapsed_ms as f64 / 1000.0;
        }
        column.push_float(step, difference);
    }
    Ok(column)
}
