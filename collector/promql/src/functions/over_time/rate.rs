//! Rates of counters and differences of gauges.

use super::{RangeCall, starts};
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::Meter;
use crate::eval::smooth::Edges;
use crate::eval::window::{KnownWindows, Window};
use crate::functions::OverTime;
use crate::storage::SeriesColumns;
use pharos_common::starts::Starts;
use std::ops::Range;

/// `rate`, `increase` and `delta`: the difference of last and first sample, extrapolated to the edges.
///
/// Resets are rare and found once per series, so a window costs its resets and not its samples. By what a
/// difference is multiplied follows from timestamps, which series that were sampled together share; only
/// counters that were zero a moment ago are looked at one by one, and those that are known to have been zero within
/// the window.
pub(super) fn extrapolated(
    call: &RangeCall,
    series: &SeriesColumns,
    known: &KnownWindows,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let is_counter = call.function != OverTime::Delta;
    let per_second = call.function == OverTime::Rate;
    let values = series.values.as_slice();
    let starts = starts::of(call, series);
    let resets: Vec<usize> = match starts {
        Some(starts) => starts::resets(values, &series.timestamps, starts),
        None if is_counter => resets(values),
        None => Vec::new(),
    };
    let stretches = known.stretches(|| stretches(call, series, &known.bounds, per_second));
    let (mut low, mut high) = (0, 0);
    let mut column = Column::default();
    column.reserve(known.bounds.len());
    for ((step, range), stretch) in known.bounds.iter().enumerate().zip(stretches) {
        // Zero at a known time serves for a sample.
        let zero_ms = match starts {
            Some(_) if !range.is_empty() => {
                starts::zero_inside(starts, series.timestamps[range.start], call.windows.start_ms(step))
            }
            _ => None,
        };
        if range.len() < 2 && zero_ms.is_none() {
            continue;
        }
        let last = range.end - 1;
        let first = values[range.start];
        let mut difference = values[last] - first;
        meter.visit(1)?;
        if low < resets.len() {
            while resets.get(low).is_some_and(|&reset| reset <= range.start) {
                low += 1;
            }
            high = high.max(low);
            while resets.get(high).is_some_and(|&reset| reset < range.end) {
                high += 1;
            }
            meter.visit(high - low)?;
            for &reset in &resets[low..high] {
                difference += values[reset - 1];
            }
        }
        if let Some(zero_ms) = zero_ms {
            let ends = (series.timestamps[range.start], series.timestamps[last]);
            let stretch = Stretch::since(zero_ms, ends, range.len() - 1, call.windows.end_ms(step));
            difference += first;
            column.push_float(step, difference * stretch.factor(None, call.windows.range_ms, per_second));
            continue;
        }
        let factor = if is_counter && difference > 0.0 && first >= 0.0 && !stretch.is_far(first, difference) {
            stretch.factor(Some(first / difference), call.windows.range_ms, per_second)
        } else {
            stretch.factor
        };
        column.push_float(step, difference * factor);
    }
    Ok(column)
}

/// The stretches of all windows of series with these timestamps.
fn stretches(
    call: &RangeCall,
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    per_second: bool,
) -> Vec<Stretch> {
    let times = &*series.timestamps;
    let of = |(step, range): (usize, &Range<usize>)| {
        let (Some(&first_ms), Some(&last_ms)) =
            (times.get(range.start), range.end.checked_sub(1).and_then(|last| times.get(last)))
        else {
            return Stretch::default();
        };
        if range.len() < 2 {
            return Stretch::default();
        }
        let (start_ms, end_ms) = (call.windows.start_ms(step), call.windows.end_ms(step));
        let mut stretch = Stretch::of(first_ms, last_ms, range.len() - 1, (start_ms, end_ms));
        stretch.factor = stretch.factor(None, call.windows.range_ms, per_second);
        stretch
    };
    bounds.iter().enumerate().map(of).collect()
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
    /// When a counter is known to have been zero before its first sample.
    pub(super) zero_ms: Option<i64>,
}

/// How far, in seconds, the samples of a window reach, and how far they are taken to go on: samples that come
/// close to an edge up to it, others half a gap further.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stretch {
    sampled: f64,
    to_start: f64,
    to_end: f64,
    /// By what a difference is multiplied, unless it is of a counter that was zero a moment ago.
    factor: f64,
}

impl Stretch {
    fn of(first_ms: i64, last_ms: i64, gaps: usize, (start_ms, end_ms): (i64, i64)) -> Self {
        let mut to_start = (first_ms - start_ms) as f64 / 1000.0;
        let mut to_end = (end_ms - last_ms) as f64 / 1000.0;
        let sampled = (last_ms - first_ms) as f64 / 1000.0;
        let gap = sampled / gaps as f64;
        let threshold = gap * 1.1;
        if to_start >= threshold {
            to_start = gap / 2.0;
        }
        if to_end >= threshold {
            to_end = gap / 2.0;
        }
        Stretch { sampled, to_start, to_end, factor: 0.0 }
    }

    /// The same of a counter that was zero at a known time within the window: nothing lies before that.
    fn since(zero_ms: i64, (first_ms, last_ms): (i64, i64), gaps: usize, end_ms: i64) -> Self {
        let sampled = (last_ms - zero_ms) as f64 / 1000.0;
        let mut to_end = (end_ms - last_ms) as f64 / 1000.0;
        // Of a single sample nobody knows how soon another would come.
        let gap = if gaps > 0 { (last_ms - first_ms) as f64 / 1000.0 / gaps as f64 } else { 0.0 };
        if to_end >= gap * 1.1 {
            to_end = gap / 2.0;
        }
        Stretch { sampled, to_start: 0.0, to_end, factor: 0.0 }
    }

    /// Whether a counter was zero so long ago that it does not matter: decided without a division, and only
    /// where rounding cannot turn the answer.
    #[inline]
    fn is_far(&self, first: f64, difference: f64) -> bool {
        const CERTAIN: f64 = 1.0 + 1e-9;
        const NORMAL_MIN: f64 = 1e-280;
        let reach = self.sampled * first;
        reach > NORMAL_MIN && reach.is_finite() && reach > difference * self.to_start * CERTAIN
    }

    /// By what an increase between samples must be multiplied to cover the whole range; counters are not taken
    /// to have been below zero.
    fn factor(&self, zero_after: Option<f64>, range_ms: i64, per_second: bool) -> f64 {
        let mut to_start = self.to_start;
        if let Some(zero_after) = zero_after {
            let to_zero = self.sampled * zero_after;
            if to_zero < to_start {
                to_start = to_zero;
            }
        }
        let mut factor = (self.sampled + to_start + self.to_end) / self.sampled;
        if per_second {
            factor /= range_ms as f64 / 1000.0;
        }
        factor
    }
}

/// The same for a single window.
pub(super) fn extrapolation(seen: &Observed, window: &Window<'_>, per_second: bool) -> f64 {
    let ends = (seen.first_ms, seen.last_ms);
    if let Some(zero_ms) = seen.zero_ms {
        let stretch = Stretch::since(zero_ms, ends, seen.gaps, window.end_ms);
        return stretch.factor(None, window.range_ms, per_second);
    }
    Stretch::of(ends.0, ends.1, seen.gaps, (window.start_ms, window.end_ms)).factor(
        seen.zero_after,
        window.range_ms,
        per_second,
    )
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
    starts: Option<&Starts>,
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
        let (before_ms, now_ms) = (series.timestamps[last - 1], series.timestamps[last]);
        let elapsed_ms = now_ms - before_ms;
        if elapsed_ms == 0 {
            continue;
        }
        // A counter that fell has risen from zero to what it is.
        let fell = is_rate && (now < before || starts::restarted(starts, before_ms, now_ms));
        let mut difference = if fell { now } else { now - before };
        if is_rate {
            difference /= elapsed_ms as f64 / 1000.0;
        }
        column.push_float(step, difference);
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_called_far_needs_no_division(
            first in prop_oneof![0.0..1e6f64, 1e-320..1e-300f64, 1e300..1e308f64],
            difference in prop_oneof![1e-9..1e6f64, 1e-320..1e-300f64, 1e300..1e308f64],
            sampled in 0.001..1e6f64, to_start in 0.0..1e4f64,
        ) {
            let stretch = Stretch { sampled, to_start, to_end: 0.25, factor: 0.0 };
            if stretch.is_far(first, difference) {
                let (with, without) =
                    (stretch.factor(Some(first / difference), 60_000, true), stretch.factor(None, 60_000, true));
                prop_assert_eq!(with.to_bits(), without.to_bits());
            }
        }
    }
}
