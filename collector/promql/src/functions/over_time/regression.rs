//! Lines through samples: `deriv`, `predict_linear`, and exponential smoothing.

use super::RangeCall;
use crate::error::QueryError;
use crate::eval::column::Column;
use crate::eval::meter::{Meter, STRIDE};
use crate::functions::OverTime;
use crate::functions::math::add_compensated;
use crate::storage::SeriesColumns;
use pharos_common::sample::TimestampMs;
use std::ops::Range;

pub(super) fn evaluate(
    call: &RangeCall,
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    for (step, range) in bounds.iter().enumerate() {
        meter.visit(1)?;
        if range.is_empty() {
            continue;
        }
        let times = &series.timestamps[range.clone()];
        let values = &series.values[range.clone()];
        let smoothing = smoothing_factors(call, step)?;
        if values.len() < 2 {
            continue;
        }
        let value = match (call.function, smoothing) {
            (_, Some((smoothing, trend))) => smooth(values, smoothing, trend, meter)?,
            (OverTime::PredictLinear, _) => {
                let (slope, intercept) = line(times, values, call.windows.grid.time(step), meter)?;
                slope * call.scalar(0, step) + intercept
            }
            _ => line(times, values, times[0], meter)?.0,
        };
        column.push_float(step, value);
    }
    Ok(column)
}

/// The factors of exponential smoothing, if that is what is called.
pub(super) fn smoothing_factors(call: &RangeCall, step: usize) -> Result<Option<(f64, f64)>, QueryError> {
    if call.function != OverTime::DoubleExponentialSmoothing {
        return Ok(None);
    }
    let (smoothing, trend) = (call.scalar(0, step), call.scalar(1, step));
    for (name, short, value) in [("smoothing", "sf", smoothing), ("trend", "tf", trend)] {
        if value <= 0.0 || value >= 1.0 {
            return Err(QueryError::execution(format!(
                "invalid {name} factor. Expected: 0 < {short} < 1, got: {value:.6}"
            )));
        }
    }
    Ok(Some((smoothing, trend)))
}

/// Slope per second and value at `origin_ms` of the line with the least squares.
pub(super) fn line(
    times: &[TimestampMs],
    values: &[f64],
    origin_ms: TimestampMs,
    meter: &Meter<'_>,
) -> Result<(f64, f64), QueryError> {
    let mut count = 0.0;
    let (mut sum_x, mut c_x) = (0.0, 0.0);
    let (mut sum_y, mut c_y) = (0.0, 0.0);
    let (mut sum_xy, mut c_xy) = (0.0, 0.0);
    let (mut sum_xx, mut c_xx) = (0.0, 0.0);
    let first = values[0];
    let mut is_flat = true;
    for (times, values) in times.chunks(STRIDE).zip(meter.pieces(values)) {
        for (&time, &value) in times.iter().zip(values?) {
            is_flat &= value == first || count == 0.0;
            count += 1.0;
            let x = (time - origin_ms) as f64 / 1e3;
            add_compensated(x, &mut sum_x, &mut c_x);
            add_compensated(value, &mut sum_y, &mut c_y);
            add_compensated(x * value, &mut sum_xy, &mut c_xy);
            add_compensated(x * x, &mut sum_xx, &mut c_xx);
        }
    }
    if is_flat {
        return Ok(if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) });
    }
    sum_x += c_x;
    sum_y += c_y;
    sum_xy += c_xy;
    sum_xx += c_xx;
    let covariance = sum_xy - sum_x * sum_y / count;
    let variance = sum_xx - sum_x * sum_x / count;
    let slope = covariance / variance;
    Ok((slope, sum_y / count - slope * sum_x / count))
}

/// Double exponential smoothing of at least two values.
pub(super) fn smooth(
    values: &[f64],
    smoothing: f64,
    trend_factor: f64,
    meter: &Meter<'_>,
) -> Result<f64, QueryError> {
    let mut before = 0.0;
    let mut smoothed = values[0];
    let mut trend = values[1] - values[0];
    let mut is_second = true;
    for piece in meter.pieces(&values[1..]) {
        for &value in piece? {
            let scaled = smoothing * value;
            if !is_second {
                trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
            }
            is_second = false;
            let carried = (1.0 - smoothing) * (smoothed + trend);
            (before, smoothed) = (smoothed, scaled + carried);
        }
    }
    Ok(smoothed)
}
