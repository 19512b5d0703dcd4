//! Functions over a range: windows of samples to one value each.
//!
//! A series of floats goes through [`floats`], which moves windows along incrementally where that gives
//! the same bits. One with native histograms goes window by window through [`mixed`].

mod extremes;
mod floats;
mod histogram_rate;
mod mixed;
mod ranks;
mod rate;
mod regression;
mod starts;
mod summarized;
mod sums;

pub(crate) use rate::Stretch;
pub(crate) use summarized::{OfSummary, of_summary};
pub(crate) use sums::Mean;

use crate::annotations::{Annotations, Place};
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::{Column, Series};
use crate::eval::meter::Meter;
use crate::eval::window::{BoundsCache, Window, Windows};
use crate::eval::{Scalar, unlabelled};
use crate::functions::OverTime;
use crate::quote::go_quote;
use crate::storage::SeriesColumns;
use pharos_common::labels::Labels;
use std::ops::Range;

/// A call of a function over a range, without its samples.
pub(crate) struct RangeCall {
    pub(crate) function: OverTime,
    pub(crate) windows: Windows,
    pub(crate) extension: RangeExtension,
    /// Whether it looks at start timestamps.
    pub(crate) uses_starts: bool,
    /// The other arguments, in order.
    pub(crate) scalars: Vec<Scalar>,
    /// Where the first argument stands.
    pub(crate) place: Place,
}

impl RangeCall {
    /// Another argument at a step.
    fn scalar(&self, index: usize, step: usize) -> f64 {
        self.scalars.get(index).map_or(f64::NAN, |scalar| scalar.at(step))
    }

    fn window<'s>(&self, series: &'s SeriesColumns, step: usize, bounds: Range<usize>) -> Window<'s> {
        Window {
            timestamps: &series.timestamps[bounds.clone()],
            values: &series.values[bounds],
            histograms: &[],
            start_ms: self.windows.start_ms(step),
            end_ms: self.windows.end_ms(step),
            range_ms: self.windows.range_ms,
            time_ms: self.windows.grid.time(step),
        }
    }
}

/// Refuses functions that make no sense of samples outside the range.
pub(crate) fn check_extension(
    function: OverTime,
    name: &str,
    extension: RangeExtension,
) -> Result<(), QueryError> {
    let is_rate = matches!(function, OverTime::Rate | OverTime::Increase | OverTime::Delta);
    let counts = matches!(function, OverTime::Resets | OverTime::Changes);
    match extension {
        RangeExtension::Anchored if !is_rate && !counts => Err(QueryError::execution(format!(
            "anchored modifier can only be used with: changes, delta, increase, rate, resets - not with {name}"
        ))),
        RangeExtension::Smoothed if !is_rate => Err(QueryError::execution(format!(
            "smoothed modifier can only be used with: delta, increase, rate - not with {name}"
        ))),
        _ => Ok(()),
    }
}

/// Evaluates a function over all windows of a series without stale markers.
pub(crate) fn evaluate(
    call: &RangeCall,
    series: &SeriesColumns,
    cache: &mut BoundsCache,
    annotations: &mut Annotations,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let known = cache.windows(&call.windows, &series.timestamps, meter)?;
    let column = if series.histograms.is_empty() {
        floats::evaluate(call, series, &known, annotations, meter)?
    } else {
        mixed::evaluate(call, series, &known.bounds, annotations, meter)?
    };
    remark(call, series.labels.metric_name(), &column, annotations);
    Ok(column)
}

/// Remarks on a series whose name does not fit the function.
pub(crate) fn remark(call: &RangeCall, name: &str, column: &Column, annotations: &mut Annotations) {
    if !matches!(call.function, OverTime::Rate | OverTime::Increase) {
        return;
    }
    let suffixes = ["_total", "_sum", "_count", "_bucket"];
    if name.is_empty() || suffixes.iter().any(|suffix| name.ends_with(suffix)) {
        return;
    }
    if column.bounds().any(|step| !crate::eval::column::is_absent(column.float(step))) {
        let text = format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {}",
            go_quote(name)
        );
        annotations.info(&text, &call.place);
    }
}

/// What is left to do when all series are through: `absent_over_time` turns presence into absence.
pub(crate) fn finish(
    call: &RangeCall,
    series: Vec<Series>,
    labels: impl Fn() -> Labels,
) -> Result<Vec<Series>, QueryError> {
    if call.function != OverTime::Absent {
        return Ok(series);
    }
    let steps = call.windows.grid.steps;
    let mut present = vec![false; steps];
    for series in &series {
        for step in series.column.bounds() {
            present[step] |= series.column.has(step);
        }
    }
    let mut column = Column::default();
    for (step, present) in present.into_iter().enumerate() {
        if !present {
            column.push_float(step, 1.0);
        }
    }
    if column.is_empty() {
        return Ok(Vec::new());
    }
    let mut absent = unlabelled(column);
    for series in &mut absent {
        series.labels = labels();
        series.drop_name = true;
    }
    Ok(absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::meter::STRIDE;
    use crate::plan::{Grid, Shift};
    use crate::storage::{Budget, HistogramSample};
    use pharos_common::histogram::FloatHistogram;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    const WALKING: [OverTime; 9] = [
        OverTime::Sum,
        OverTime::Avg,
        OverTime::Stddev,
        OverTime::Stdvar,
        OverTime::Quantile,
        OverTime::Mad,
        OverTime::Deriv,
        OverTime::PredictLinear,
        OverTime::DoubleExponentialSmoothing,
    ];

    /// A call whose windows of `window` samples end at each of `steps` samples after the first so many.
    fn call(function: OverTime, window: usize, steps: usize) -> RangeCall {
        let grid = Grid { start_ms: window as i64, step_ms: 1, steps };
        let shift = Shift { at_ms: None, offset_ms: 0 };
        let windows = Windows { grid, shift, range_ms: window as i64, before_ms: 0, after_ms: 0 };
        let scalars = vec![Scalar::Constant(0.5); 2];
        let (extension, place) = (RangeExtension::None, Place(String::new()));
        RangeCall { function, windows, extension, uses_starts: false, scalars, place }
    }

    /// A series with a sample each millisecond of fractions, which no shortcut adds up.
    fn fractions(samples: usize) -> SeriesColumns {
        let values = (0..samples).map(|index| 0.1 + (index % 7) as f64).collect();
        SeriesColumns::floats(Labels::empty(), (1..=samples as i64).collect(), values)
    }

    /// Evaluates a call of a query that nobody waits for any more.
    fn evaluate_cancelled(call: &RangeCall, series: &SeriesColumns) -> Result<Column, QueryError> {
        let cancelled: Arc<AtomicBool> = Arc::default();
        let budget = Budget::new(usize::MAX, None, Arc::clone(&cancelled));
        let mut cache = BoundsCache::default();
        // Where windows lie is known by then.
        cache.windows(&call.windows, &series.timestamps, &Meter::new(&budget))?;
        cancelled.store(true, Ordering::Relaxed);
        evaluate(call, series, &mut cache, &mut Annotations::default(), &Meter::new(&budget))
    }

    #[test]
    fn a_cancelled_query_stops_between_windows() {
        let window = 2_000;
        let steps = STRIDE / window + 2;
        let series = fractions(window + steps);
        // Quantiles of windows that share their samples cost little.
        for function in WALKING.into_iter().filter(|&function| function != OverTime::Quantile) {
            let stopped = evaluate_cancelled(&call(function, window, steps), &series);
            assert!(matches!(stopped, Err(QueryError::Canceled { .. })), "{function:?}: {stopped:?}");
            // Little work is done without a look.
            let done = evaluate_cancelled(&call(function, window, 3), &series).unwrap();
            assert_eq!(done.len(), 3, "{function:?}");
        }
    }

    #[test]
    fn a_cancelled_query_stops_within_a_window() {
        let series = fractions(STRIDE + 3);
        for function in WALKING {
            let stopped = evaluate_cancelled(&call(function, STRIDE + 3, 1), &series);
            assert!(matches!(stopped, Err(QueryError::Canceled { .. })), "{function:?}: {stopped:?}");
        }
    }

    #[test]
    fn a_cancelled_query_stops_at_many_steps_of_little_work() {
        let series = fractions(STRIDE + 10);
        let functions = [
            OverTime::Count,
            OverTime::Max,
            OverTime::Changes,
            OverTime::Rate,
            OverTime::Irate,
            OverTime::Quantile,
        ];
        for function in functions {
            let stopped = evaluate_cancelled(&call(function, 2, STRIDE + 5), &series);
            assert!(matches!(stopped, Err(QueryError::Canceled { .. })), "{function:?}");
        }
        let budget = Budget::new(usize::MAX, None, Arc::new(true.into()));
        let windows = call(OverTime::Count, 2, STRIDE + 5).windows;
        assert!(windows.bounds(&series.timestamps, &Meter::new(&budget)).is_err());
    }

    #[test]
    fn a_window_of_several_pieces_is_one_to_sums() {
        let values = vec![0.5; STRIDE + 3];
        let series = SeriesColumns::floats(Labels::empty(), (1..=values.len() as i64).collect(), values);
        let budget = Budget::new(usize::MAX, None, Arc::default());
        for (function, want) in [
            (OverTime::Sum, 0.5 * series.values.len() as f64),
            (OverTime::Avg, 0.5),
            (OverTime::Stddev, 0.0),
            (OverTime::Deriv, 0.0),
            (OverTime::PredictLinear, 0.5),
            (OverTime::DoubleExponentialSmoothing, 0.5),
            (OverTime::Quantile, 0.5),
        ] {
            let call = call(function, series.values.len(), 1);
            let (mut cache, mut annotations) = (BoundsCache::default(), Annotations::default());
            let column =
                evaluate(&call, &series, &mut cache, &mut annotations, &Meter::new(&budget)).unwrap();
            assert_eq!(column.float(0), want, "{function:?}");
        }
    }

    /// A series of native histograms, one each millisecond.
    fn histograms(samples: usize) -> SeriesColumns {
        let histogram = Arc::new(FloatHistogram { count: 1.0, sum: 1.0, ..FloatHistogram::default() });
        let mut series = fractions(0);
        series.histograms = (1..=samples as i64)
            .map(|timestamp_ms| HistogramSample { timestamp_ms, histogram: Arc::clone(&histogram) })
            .collect();
        series
    }

    #[test]
    fn a_cancelled_query_stops_between_windows_of_histograms() {
        let (window, steps) = (200, 100);
        let stopped = evaluate_cancelled(&call(OverTime::Count, window, steps), &histograms(window + steps));
        assert!(matches!(stopped, Err(QueryError::Canceled { .. })), "{stopped:?}");
    }

    #[test]
    fn histograms_that_are_computed_count_as_they_come() {
        let series = histograms(30);
        let one = series.histograms[0].histogram.cost_in_samples();
        for (limit, fits) in [(20 * one, true), (20 * one - 1, false)] {
            let budget = Budget::new(limit, None, Arc::default());
            let mut cache = BoundsCache::default();
            let mut annotations = Annotations::default();
            let call = call(OverTime::Sum, 3, 20);
            let found = evaluate(&call, &series, &mut cache, &mut annotations, &Meter::new(&budget));
            match found {
                Ok(_) => assert!(fits && budget.take(limit).is_ok()),
                Err(error) => assert!(!fits && matches!(error, QueryError::TooManySamples), "{error}"),
            }
        }
    }
}
