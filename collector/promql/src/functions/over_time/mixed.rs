//! Functions over ranges that hold native histograms, alone or among floats.

use super::rate::{Observed, extrapolation};
use super::{RangeCall, floats, histogram_rate, regression, starts, sums};
use crate::annotations::Annotations;
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::eval::column::{Column, Point};
use crate::eval::meter::Meter;
use crate::eval::window::Window;
use crate::functions::OverTime;
use crate::functions::quantile::{invalid, quantile};
use crate::histogram::{Blend, blend_plain, equal, is_reset, remark};
use crate::quote::go_quote;
use crate::storage::SeriesColumns;
use pharos_common::starts::Starts;
use std::ops::Range;
use std::sync::Arc;

/// To look at a histogram takes about as long as to look at so many floats.
const HISTOGRAM_VISITS: usize = 64;

pub(super) fn evaluate(
    call: &RangeCall,
    series: &SeriesColumns,
    bounds: &[Range<usize>],
    annotations: &mut Annotations,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let times: Vec<i64> = series.histograms.iter().map(|sample| sample.timestamp_ms).collect();
    let histogram_bounds = call.windows.bounds(&times, meter)?;
    let mut column = Column::default();
    let mut held = 0;
    for (step, (range, histograms)) in bounds.iter().zip(histogram_bounds).enumerate() {
        let mut window = call.window(series, step, range.clone());
        window.histograms = &series.histograms[histograms];
        if window.values.is_empty() && window.histograms.is_empty() {
            continue;
        }
        if call.extension != RangeExtension::None && !window.histograms.is_empty() {
            let message = "smoothed and anchored modifiers do not work with native histograms";
            return Err(QueryError::execution(message));
        }
        meter.visit(1 + floats::SELECTION_VISITS * range.len())?;
        meter.visit(HISTOGRAM_VISITS * window.histograms.len())?;
        let name = series.labels.metric_name();
        let starts = starts::of(call, series);
        let mut mixed = MixedWindow { call, window: &window, step, name, starts, annotations, meter };
        if let Some(point) = mixed.value()? {
            // Histograms that are computed are large, so they count before the column is whole.
            if let Point::Histogram(histogram) = &point {
                let cost = histogram.cost_in_samples();
                meter.budget.take(cost)?;
                held += cost;
            }
            column.push(step, point);
        }
    }
    meter.budget.put_back(held);
    Ok(column)
}

struct MixedWindow<'w> {
    call: &'w RangeCall,
    window: &'w Window<'w>,
    step: usize,
    name: &'w str,
    starts: Option<&'w Starts>,
    annotations: &'w mut Annotations,
    meter: &'w Meter<'w>,
}

impl MixedWindow<'_> {
    fn value(&mut self) -> Result<Option<Point>, QueryError> {
        let window = self.window;
        let (values, times, histograms) = (window.values, window.timestamps, window.histograms);
        let float = |value: f64| Ok(Some(Point::Float(value)));
        let seconds = |time_ms: i64| time_ms as f64 / 1000.0;
        match self.call.function {
            OverTime::Absent | OverTime::Present => float(1.0),
            OverTime::Count => float((values.len() + histograms.len()) as f64),
            OverTime::First => Ok(match (times.first(), histograms.first()) {
                (Some(&time), Some(sample)) if time < sample.timestamp_ms => Some(Point::Float(values[0])),
                (_, Some(sample)) => Some(Point::Histogram(Arc::clone(&sample.histogram))),
                (_, None) => values.first().map(|&value| Point::Float(value)),
            }),
            OverTime::Last => Ok(match (times.last(), histograms.last()) {
                (Some(&time), Some(sample)) if sample.timestamp_ms < time => {
                    values.last().map(|&value| Point::Float(value))
                }
                (_, Some(sample)) => Some(Point::Histogram(Arc::clone(&sample.histogram))),
                (_, None) => values.last().map(|&value| Point::Float(value)),
            }),
            OverTime::TsOfFirst => {
                let first = histograms.first().map_or(i64::MAX, |sample| sample.timestamp_ms);
                float(seconds(first.min(times.first().copied().unwrap_or(i64::MAX))))
            }
            OverTime::TsOfLast => {
                let last = histograms.last().map_or(0, |sample| sample.timestamp_ms);
                float(seconds(last.max(times.last().copied().unwrap_or(0))))
            }
            OverTime::Sum => self.blended(Blend::Sum),
            OverTime::Avg => self.blended(Blend::Mean),
            OverTime::Changes => float(self.events(floats::is_change, |before, now| !equal(now, before))),
            OverTime::Resets => float(self.events(floats::is_reset, |before, now| is_reset(now, before))),
            OverTime::Rate | OverTime::Increase | OverTime::Delta => Ok(self.rate()),
            OverTime::Irate | OverTime::Idelta => Ok(self.instant()),
            OverTime::Deriv | OverTime::PredictLinear | OverTime::DoubleExponentialSmoothing => {
                let factors = regression::smoothing_factors(self.call, self.step)?;
                if !values.is_empty() && !histograms.is_empty() {
                    self.remark_ignored();
                }
                if values.len() < 2 {
                    return Ok(None);
                }
                float(match (self.call.function, factors) {
                    (_, Some((smoothing, trend))) => {
                        regression::smooth(values, smoothing, trend, self.meter)?
                    }
                    (OverTime::PredictLinear, _) => {
                        let (slope, intercept) = regression::line(times, values, window.time_ms, self.meter)?;
                        slope * self.call.scalar(0, self.step) + intercept
                    }
                    _ => regression::line(times, values, times[0], self.meter)?.0,
                })
            }
            function => {
                if values.is_empty() {
                    return Ok(None);
                }
                if function == OverTime::Quantile
                    && let Some(text) = invalid(self.call.scalar(0, self.step))
                {
                    self.annotations.warn(&text, &self.call.place);
                }
                if !histograms.is_empty() {
                    self.remark_ignored();
                }
                float(self.of_floats(function)?)
            }
        }
    }

    /// Functions that see the floats of a range only.
    fn of_floats(&self, function: OverTime) -> Result<f64, QueryError> {
        let (values, times) = (self.window.values, self.window.timestamps);
        let extreme = |beats: fn(f64, f64) -> bool| {
            (1..values.len()).fold(0, |kept, index| {
                if beats(values[index], values[kept]) || values[kept].is_nan() { index } else { kept }
            })
        };
        let seconds = |index: usize| times[index] as f64 / 1000.0;
        Ok(match function {
            OverTime::Max => values[extreme(|new, kept| new > kept)],
            OverTime::Min => values[extreme(|new, kept| new < kept)],
            OverTime::TsOfMax => seconds(extreme(|new, kept| new >= kept)),
            OverTime::TsOfMin => seconds(extreme(|new, kept| new <= kept)),
            OverTime::Stdvar => sums::variance(values, self.meter)?,
            OverTime::Stddev => sums::variance(values, self.meter)?.sqrt(),
            OverTime::Mad => floats::median_deviation(values, &mut Vec::new()),
            _ => quantile(self.call.scalar(0, self.step), &mut values.to_vec()),
        })
    }

    fn remark_ignored(&mut self) {
        let text = format!(
            "ignored histograms in a range containing both floats and histograms for metric name {}",
            go_quote(self.name)
        );
        self.annotations.info(&text, &self.call.place);
    }

    fn remark_mixed(&mut self) {
        let text =
            format!("encountered a mix of histograms and floats for metric name {}", go_quote(self.name));
        self.annotations.warn(&text, &self.call.place);
    }

    fn remark_schemas(&mut self) {
        let text = format!(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
            go_quote(self.name)
        );
        self.annotations.warn(&text, &self.call.place);
    }

    fn blended(&mut self, kind: Blend) -> Result<Option<Point>, QueryError> {
        let (values, histograms) = (self.window.values, self.window.histograms);
        if histograms.is_empty() {
            return Ok(Some(Point::Float(match kind {
                Blend::Sum => sums::compensated_sum(values, self.meter)?,
                Blend::Mean => sums::compensated_average(values, self.meter)?,
            })));
        }
        if !values.is_empty() {
            self.remark_mixed();
            return Ok(None);
        }
        let list: Vec<_> = histograms.iter().map(|sample| &*sample.histogram).collect();
        Ok(match blend_plain(kind, &list) {
            Ok((histogram, added)) => {
                remark(added, "aggregation", &self.call.place, self.annotations);
                Some(Point::Histogram(Arc::new(histogram)))
            }
            Err(_) => {
                self.remark_schemas();
                None
            }
        })
    }

    /// How often something happened from one sample to the next. A change of type counts.
    fn events(
        &self,
        of_floats: fn(f64, f64) -> bool,
        of_histograms: fn(
            &pharos_common::histogram::FloatHistogram,
            &pharos_common::histogram::FloatHistogram,
        ) -> bool,
    ) -> f64 {
        let mut samples: Vec<(i64, Point)> = self
            .window
            .timestamps
            .iter()
            .zip(self.window.values)
            .map(|(&time, &value)| (time, Point::Float(value)))
            .chain(
                self.window
                    .histograms
                    .iter()
                    .map(|sample| (sample.timestamp_ms, Point::Histogram(Arc::clone(&sample.histogram)))),
            )
            .collect();
        samples.sort_by_key(|(time, _)| *time);
        let count = samples
            .windows(2)
            .filter(|pair| match (&pair[0].1, &pair[1].1) {
                // Only of resets start timestamps are known here.
                _ if starts::restarted(self.starts, pair[0].0, pair[1].0) => true,
                (Point::Float(before), Point::Float(now)) => of_floats(*before, *now),
                (Point::Histogram(before), Point::Histogram(now)) => of_histograms(before, now),
                _ => true,
            })
            .count();
        count as f64
    }

    fn rate(&mut self) -> Option<Point> {
        let window = self.window;
        let is_counter = self.call.function != OverTime::Delta;
        let per_second = self.call.function == OverTime::Rate;
        if window.histograms.is_empty() {
            return self.float_rate(is_counter, per_second);
        }
        if !window.values.is_empty() {
            self.remark_mixed();
            return None;
        }
        let (first, last) = (window.histograms.first()?, window.histograms.last()?);
        let zero_ms = starts::zero_inside(self.starts, first.timestamp_ms, window.start_ms);
        let mut remarks = histogram_rate::Remarks {
            name: self.name,
            place: &self.call.place,
            annotations: self.annotations,
        };
        let mut increase = match window.histograms {
            [only] => {
                zero_ms?;
                histogram_rate::since_zero(None, &only.histogram, &mut remarks)?
            }
            samples => {
                let increase = histogram_rate::increase(samples, is_counter, self.starts, &mut remarks)?;
                match zero_ms {
                    Some(_) => histogram_rate::since_zero(Some(&increase), &first.histogram, &mut remarks)?,
                    None => increase,
                }
            }
        };
        let first_count = first.histogram.count;
        let seen = Observed {
            first_ms: first.timestamp_ms,
            last_ms: last.timestamp_ms,
            gaps: window.histograms.len() - 1,
            zero_after: (is_counter && increase.count > 0.0 && first_count >= 0.0)
                .then(|| first_count / increase.count),
            zero_ms,
        };
        let factor = extrapolation(&seen, window, per_second);
        crate::histogram::scale(&mut increase, factor);
        Some(Point::Histogram(Arc::new(increase)))
    }

    fn float_rate(&self, is_counter: bool, per_second: bool) -> Option<Point> {
        let (values, times) = (self.window.values, self.window.timestamps);
        let (first, last) = (values.first()?, values.last()?);
        let zero_ms = starts::zero_inside(self.starts, *times.first()?, self.window.start_ms);
        if values.len() < 2 && zero_ms.is_none() {
            return None;
        }
        let mut difference = last - first;
        if is_counter {
            for (pair, times) in values.windows(2).zip(times.windows(2)) {
                if pair[1] < pair[0] || starts::restarted(self.starts, times[0], times[1]) {
                    difference += pair[0];
                }
            }
        }
        if zero_ms.is_some() {
            difference += first;
        }
        let seen = Observed {
            first_ms: *times.first()?,
            last_ms: *times.last()?,
            gaps: values.len() - 1,
            zero_after: (is_counter && difference > 0.0 && *first >= 0.0).then(|| first / difference),
            zero_ms,
        };
        Some(Point::Float(difference * extrapolation(&seen, self.window, per_second)))
    }

    /// `irate` and `idelta`.
    fn instant(&mut self) -> Option<Point> {
        let is_rate = self.call.function == OverTime::Irate;
        let window = self.window;
        let floats = window.timestamps.iter().zip(window.values).rev().take(2);
        let mut samples: Vec<(i64, Point)> = floats
            .map(|(&time, &value)| (time, Point::Float(value)))
            .chain(
                window
                    .histograms
                    .iter()
                    .rev()
                    .take(2)
                    .map(|sample| (sample.timestamp_ms, Point::Histogram(Arc::clone(&sample.histogram)))),
            )
            .collect();
        samples.sort_by_key(|(time, _)| *time);
        let [.., (before_ms, before), (now_ms, now)] = samples.as_slice() else { return None };
        let elapsed_ms = now_ms - before_ms;
        if elapsed_ms == 0 {
            return None;
        }
        let elapsed_seconds = elapsed_ms as f64 / 1000.0;
        let restarted = starts::restarted(self.starts, *before_ms, *now_ms);
        match (before, now) {
            (Point::Float(before), Point::Float(now)) => {
                let fell = is_rate && (now < before || restarted);
                let difference = if fell { *now } else { now - before };
                Some(Point::Float(if is_rate { difference / elapsed_seconds } else { difference }))
            }
            (Point::Histogram(before), Point::Histogram(now)) => {
                let mut remarks = histogram_rate::Remarks {
                    name: self.name,
                    place: &self.call.place,
                    annotations: self.annotations,
                };
                let kind = histogram_rate::LastTwo { is_rate, restarted };
                let mut difference = histogram_rate::last_difference(before, now, kind, &mut remarks)?;
                if is_rate {
                    crate::histogram::divide(&mut difference, elapsed_seconds);
                }
                Some(Point::Histogram(Arc::new(difference)))
            }
            _ => {
                self.remark_mixed();
                None
            }
        }
    }
}
