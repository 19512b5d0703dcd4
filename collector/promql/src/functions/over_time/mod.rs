//! Functions over a range: windows of samples to one value each.
//!
//! A series of floats goes through [`floats`], which moves windows along incrementally where that gives
//! the same bits. One with native histograms goes window by window through [`mixed`].

mod extremes;
mod floats;
mod histogram_rate;
mod mixed;
mod rate;
mod regression;
mod sums;

pub(crate) use sums::Mean;

use crate::annotations::{Annotations, Place};
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::{Column, Series};
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
) -> Result<Column, QueryError> {
    let bounds = cache.bounds(&call.windows, &series.timestamps);
    let column = if series.histograms.is_empty() {
        floats::evaluate(call, series, &bounds, annotations)?
    } else {
        mixed::evaluate(call, series, &bounds, annotations)?
    };
    if matches!(call.function, OverTime::Rate | OverTime::Increase) {
        remark_on_name(call, series.labels.metric_name(), &column, annotations);
    }
    Ok(column)
}

fn remark_on_name(call: &RangeCall, name: &str, column: &Column, annotations: &mut Annotations) {
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
