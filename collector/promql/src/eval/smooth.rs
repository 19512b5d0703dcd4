//! Samples at the edges of ranges that are `anchored` or `smoothed`, and `smoothed` instant selectors.

use super::column::Column;
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::plan::Leaf;
use crate::storage::SeriesColumns;
use pharos_common::sample::{TimestampMs, is_stale_nan};

/// The value at `time_ms` on the line between two samples. A counter that fell in between is taken to
/// have started again from zero.
pub(crate) fn interpolate(
    before: (TimestampMs, f64),
    after: (TimestampMs, f64),
    time_ms: TimestampMs,
    is_counter: bool,
) -> f64 {
    let from = if is_counter && after.1 < before.1 { 0.0 } else { before.1 };
    from + (after.1 - from) * (time_ms - before.0) as f64 / (after.0 - before.0) as f64
}

/// The interpolated value at each step, from samples at most the lookback away on either side.
pub(super) fn smoothed(leaf: &Leaf, series: &SeriesColumns, lookback_ms: i64) -> Result<Column, QueryError> {
    if !series.histograms.is_empty() {
        return Err(QueryError::execution(
            "smoothed and anchored modifiers do not work with native histograms",
        ));
    }
    let samples: Vec<(TimestampMs, f64)> = series
        .timestamps
        .iter()
        .copied()
        .zip(series.values.iter().copied())
        .filter(|(_, value)| !is_stale_nan(*value))
        .collect();
    let mut column = Column::default();
    for step in 0..leaf.grid.steps {
        let time_ms = leaf.shift.apply(leaf.grid.time(step));
        let next = samples.partition_point(|&(timestamp, _)| timestamp < time_ms);
        let after = samples.get(next).copied().filter(|&(timestamp, _)| timestamp <= time_ms + lookback_ms);
        let before = next
            .checked_sub(1)
            .and_then(|previous| samples.get(previous).copied())
            .filter(|&(timestamp, _)| timestamp > time_ms - lookback_ms);
        match (before, after) {
            (_, Some((timestamp, value))) if timestamp == time_ms => column.push_float(step, value),
            (Some(before), Some(after)) => {
                column.push_float(step, interpolate(before, after, time_ms, false));
            }
            (Some((_, value)), None) => column.push_float(step, value),
            (None, _) => {}
        }
    }
    Ok(column)
}

/// The samples of a range at one time, with those that stand for its edges.
pub(super) fn window_samples(
    leaf: &Leaf,
    series: &SeriesColumns,
    range_ms: i64,
    lookback_ms: i64,
) -> Result<SeriesColumns, QueryError> {
    let end_ms = leaf.shift.apply(leaf.grid.start_ms);
    let start_ms = end_ms.saturating_sub(range_ms);
    let (before, after) = match leaf.extension {
        RangeExtension::None => (0, 0),
        RangeExtension::Anchored => (lookback_ms, 0),
        RangeExtension::Smoothed => (lookback_ms, lookback_ms),
    };
    let is_inside = |timestamp: TimestampMs| {
        timestamp > start_ms.saturating_sub(before) && timestamp <= end_ms.saturating_add(after)
    };
    let (timestamps, values): (Vec<_>, Vec<_>) = series
        .timestamps
        .iter()
        .copied()
        .zip(series.values.iter().copied())
        .filter(|&(timestamp, _)| range_ms > 0 && is_inside(timestamp))
        .unzip();
    let histograms: Vec<_> = series
        .histograms
        .iter()
        .filter(|sample| range_ms > 0 && is_inside(sample.timestamp_ms))
        .cloned()
        .collect();
    let (timestamps, values) = if leaf.extension == RangeExtension::None {
        (timestamps, values)
    } else {
        if !histograms.is_empty() {
            return Err(QueryError::execution("anchored modifier is not supported with histograms"));
        }
        let smoothed = leaf.extension == RangeExtension::Smoothed;
        extended(&timestamps, &values, start_ms, end_ms, smoothed)
    };
    let floats = SeriesColumns::floats(series.labels.clone(), timestamps.into(), values);
    Ok(SeriesColumns { histograms, ..floats })
}

/// The samples inside a range with one at each edge.
fn extended(
    timestamps: &[TimestampMs],
    values: &[f64],
    start_ms: TimestampMs,
    end_ms: TimestampMs,
    smoothed: bool,
) -> (Vec<TimestampMs>, Vec<f64>) {
    let Some(edges) = Edges::find(timestamps, values, start_ms, end_ms, smoothed, false) else {
        return (Vec::new(), Vec::new());
    };
    let first = edges.first + usize::from(timestamps[edges.first] <= start_ms);
    let last = edges.last + usize::from(timestamps[edges.last] < end_ms);
    let inside = first..last.max(first);
    let mut out_times = vec![start_ms];
    let mut out_values = vec![edges.left];
    out_times.extend_from_slice(&timestamps[inside.clone()]);
    out_values.extend_from_slice(&values[inside]);
    out_times.push(end_ms);
    out_values.push(edges.right);
    (out_times, out_values)
}

/// What stands for the edges of a range.
pub(crate) struct Edges {
    /// The last sample at or before the start, or the first of all.
    pub(crate) first: usize,
    /// The first sample at or after the end if smoothed, else the last of all.
    pub(crate) last: usize,
    /// Value at the start.
    pub(crate) left: f64,
    /// Value at the end.
    pub(crate) right: f64,
}

impl Edges {
    /// `None` if all samples lie before the range.
    pub(crate) fn find(
        timestamps: &[TimestampMs],
        values: &[f64],
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        smoothed: bool,
        is_counter: bool,
    ) -> Option<Edges> {
        let newest = timestamps.len().checked_sub(1)?;
        let before_newest = &timestamps[..newest];
        let first = before_newest.partition_point(|&timestamp| timestamp <= start_ms).saturating_sub(1);
        let last =
            if smoothed { before_newest.partition_point(|&timestamp| timestamp < end_ms) } else { newest };
        if timestamps[last] <= start_ms {
            return None;
        }
        let sample = |index: usize| (timestamps[index], values[index]);
        let left = if smoothed && timestamps[first] < start_ms {
            interpolate(sample(first), sample(first + 1), start_ms, is_counter)
        } else {
            values[first]
        };
        let right = if smoothed && last > 0 && timestamps[last] > end_ms {
            interpolate(sample(last - 1), sample(last), end_ms, is_counter)
        } else {
            values[last]
        };
        Some(Edges { first, last, left, right })
    }
}
