//! Calls of functions that are no functions over a range of a selector (those are leaves).

mod absent;
mod classic_histogram;
mod info;
mod labels;
mod order;

use super::column::{Column, Point, Series};
use super::looked_at::StepCounts;
use super::meter::Meter;
use super::window::BoundsCache;
use super::{Evaluated, Evaluator, Scalar, unlabelled};
use crate::ast::{Call, NodeId, NodeKind};
use crate::error::QueryError;
use crate::functions::over_time;
use crate::functions::{DatePart, Implementation, dates, math};
use crate::plan::Grid;

impl Evaluator<'_> {
    pub(super) fn call(&mut self, id: NodeId, call: &Call) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let arg = |index: usize| call.args.get(index).copied();
        let first = arg(0).unwrap_or(id);
        Ok(match call.function.implementation {
            Implementation::Float(function) => {
                Evaluated::Vector(map_floats(self.take_vector(first, grid)?, |value, _| {
                    Some(function(value))
                }))
            }
            Implementation::OverTime(_) => self.over_subquery(id, call)?,
            Implementation::Date(part) => self.date(part, arg(0), grid)?,
            Implementation::HistogramStat(stat) => {
                let series = self.take_vector(first, grid)?;
                Evaluated::Vector(map_points(series, |point, _| match point {
                    Point::Histogram(histogram) => {
                        Some(Point::Float(crate::histogram::statistic(stat, &histogram)))
                    }
                    Point::Float(_) => None,
                }))
            }
            Implementation::Absent => self.absent(first, grid)?,
            Implementation::Clamp => {
                let (series, least, most) = self.clamp_args(call, grid, Some(1), Some(2))?;
                Evaluated::Vector(clamped(series, &least, &most))
            }
            Implementation::ClampMax => {
                let (series, least, most) = self.clamp_args(call, grid, None, Some(1))?;
                Evaluated::Vector(clamped(series, &least, &most))
            }
            Implementation::ClampMin => {
                let (series, least, most) = self.clamp_args(call, grid, Some(1), None)?;
                Evaluated::Vector(clamped(series, &least, &most))
            }
            Implementation::Round => {
                let series = self.take_vector(first, grid)?;
                let nearest = match arg(1) {
                    Some(nearest) => self.take_scalar(nearest, grid)?,
                    None => Scalar::Constant(1.0),
                };
                Evaluated::Vector(map_floats(series, |value, step| {
                    // The inverse loses fewer bits for steps such as 0.1.
                    let inverse = 1.0 / nearest.at(step);
                    Some((value * inverse + 0.5).floor() / inverse)
                }))
            }
            Implementation::HistogramQuantile => self.histogram_quantile(call, grid)?,
            Implementation::HistogramQuantiles => self.histogram_quantiles(call, grid)?,
            Implementation::HistogramFraction => self.histogram_fraction(call, grid)?,
            Implementation::Info => self.info(id, call)?,
            Implementation::LabelReplace => self.label_replace(call, grid)?,
            Implementation::LabelJoin => self.label_join(call, grid)?,
            Implementation::Scalar => {
                let series = self.take_vector(first, grid)?;
                Evaluated::Scalar(only_floats(&series, grid.steps))
            }
            Implementation::Vector => {
                let scalar = self.take_scalar(first, grid)?;
                let floats = (0..grid.steps).map(|step| scalar.at(step)).collect();
                Evaluated::Vector(unlabelled(Column::from_floats(floats)))
            }
            Implementation::Time => {
                Evaluated::Scalar((0..grid.steps).map(|step| grid.time(step) as f64 / 1000.0).collect())
            }
            Implementation::Pi => Evaluated::Constant(std::f64::consts::PI),
            Implementation::QueryStart => Evaluated::Constant(self.plan.setting.start_ms as f64 / 1000.0),
            Implementation::QueryEnd => Evaluated::Constant(self.plan.setting.end_ms as f64 / 1000.0),
            Implementation::QueryStep => Evaluated::Constant(self.plan.setting.step_ms as f64 / 1000.0),
            Implementation::QueryRange => {
                let range_ms = self.plan.setting.end_ms - self.plan.setting.start_ms;
                Evaluated::Constant(range_ms as f64 / 1000.0)
            }
            Implementation::MinOf => self.of_two(call, grid, math::min)?,
            Implementation::MaxOf => self.of_two(call, grid, math::max)?,
            Implementation::Timestamp => {
                // Selectors are leaves; anything else is as old as the evaluation.
                let series = self.take_vector(first, grid)?;
                Evaluated::Vector(map_points(series, |_, step| {
                    Some(Point::Float(grid.time(step) as f64 / 1000.0))
                }))
            }
            // Selectors are leaves; the samples of anything else have no start timestamp.
            Implementation::StartTimestamp => {
                self.take_vector(first, grid)?;
                Evaluated::Vector(Vec::new())
            }
            Implementation::Sort { descending } => {
                Evaluated::Vector(order::by_value(self.take_vector(first, grid)?, descending, grid.steps))
            }
            Implementation::SortByLabel { descending } => {
                let labels: Vec<String> = call.args.iter().skip(1).map(|&arg| self.text(arg)).collect();
                Evaluated::Vector(order::by_labels(self.take_vector(first, grid)?, &labels, descending))
            }
        })
    }

    /// The text of an argument.
    pub(super) fn text(&self, id: NodeId) -> String {
        match &self.plan.expr.node(self.plan.expr.unparenthesised(id)).kind {
            NodeKind::String(text) => text.to_text(),
            _ => String::new(),
        }
    }

    /// A function over the results of a subquery.
    fn over_subquery(&mut self, id: NodeId, call: &Call) -> Result<Evaluated, QueryError> {
        let Some(range_id) = self.plan.range_argument(&call.args) else {
            return Err(QueryError::execution("a function over a range without a range"));
        };
        let range_call = self.range_call(id)?;
        let mut annotations = std::mem::take(&mut self.annotations);
        let mut cache = BoundsCache::default();
        let meter = Meter::new(self.budget);
        let mut counts = StepCounts::default();
        let mut out = Vec::new();
        let mut held = 0;
        for (samples, drop_name) in self.subquery_series(range_id)? {
            self.budget.check()?;
            let column = over_time::evaluate(&range_call, &samples, &mut cache, &mut annotations, &meter)?;
            if self.looked_at.is_some() {
                counts.add_windows(&range_call.windows, &samples, &mut cache, &meter)?;
            }
            self.budget.put_back(samples.cost());
            if !column.is_empty() {
                self.budget.take(column.cost())?;
                held += column.cost();
                let drop_name = drop_name || !range_call.function.keeps_name();
                out.push(Series { labels: samples.labels, drop_name, column });
            }
        }
        self.annotations.merge(annotations);
        if let Some(looked_at) = &mut self.looked_at {
            looked_at.add(self.plan, id, &counts);
        }
        self.budget.put_back(held);
        over_time::finish(&range_call, out, pharos_common::labels::Labels::empty).map(Evaluated::Vector)
    }

    fn date(&mut self, part: DatePart, arg: Option<NodeId>, grid: Grid) -> Result<Evaluated, QueryError> {
        Ok(match arg {
            Some(arg) => {
                let series = self.take_vector(arg, grid)?;
                Evaluated::Vector(map_floats(series, |value, _| Some(dates::part(part, value))))
            }
            None => {
                let seconds = |step| grid.time(step).div_euclid(1000) as f64;
                let floats = (0..grid.steps).map(|step| dates::part(part, seconds(step))).collect();
                Evaluated::Vector(unlabelled(Column::from_floats(floats)))
            }
        })
    }

    fn clamp_args(
        &mut self,
        call: &Call,
        grid: Grid,
        least: Option<usize>,
        most: Option<usize>,
    ) -> Result<(Vec<Series>, Scalar, Scalar), QueryError> {
        let series = call.args.first().map_or(Ok(Vec::new()), |&arg| self.take_vector(arg, grid))?;
        let mut scalar = |index: Option<usize>, default: f64| match index.and_then(|i| call.args.get(i)) {
            Some(&arg) => self.take_scalar(arg, grid),
            None => Ok(Scalar::Constant(default)),
        };
        let least = scalar(least, f64::NEG_INFINITY)?;
        let most = scalar(most, f64::INFINITY)?;
        Ok((series, least, most))
    }

    fn of_two(
        &mut self,
        call: &Call,
        grid: Grid,
        choose: fn(f64, f64) -> f64,
    ) -> Result<Evaluated, QueryError> {
        let mut scalar = |index: usize| {
            call.args.get(index).map_or(Ok(Scalar::Constant(f64::NAN)), |&arg| self.take_scalar(arg, grid))
        };
        let (a, b) = (scalar(0)?, scalar(1)?);
        Ok(match (&a, &b) {
            (Scalar::Constant(a), Scalar::Constant(b)) => Evaluated::Constant(choose(*a, *b)),
            _ => Evaluated::Scalar((0..grid.steps).map(|step| choose(a.at(step), b.at(step))).collect()),
        })
    }
}

fn clamped(series: Vec<Series>, least: &Scalar, most: &Scalar) -> Vec<Series> {
    map_floats(series, |value, step| {
        let (least, most) = (least.at(step), most.at(step));
        if most < least { None } else { Some(math::max(least, math::min(most, value))) }
    })
}

/// Changes or drops each float; drops histograms. The metric's name goes.
fn map_floats(series: Vec<Series>, change: impl Fn(f64, usize) -> Option<f64>) -> Vec<Series> {
    series
        .into_iter()
        .filter_map(|mut series| {
            let column = std::mem::take(&mut series.column);
            let column = if column.has_histograms() { column.map_floats(|value| value) } else { column };
            let first = column.bounds().start;
            series.column = column.map_indexed(|index, value| change(value, first + index));
            series.drop_name = true;
            (!series.column.is_empty()).then_some(series)
        })
        .collect()
}

/// Changes or drops each sample. The metric's name goes.
fn map_points(series: Vec<Series>, change: impl Fn(Point, usize) -> Option<Point>) -> Vec<Series> {
    series
        .into_iter()
        .filter_map(|mut series| {
            series.column = series
                .column
                .points()
                .filter_map(|(step, point)| Some((step, change(point, step)?)))
                .collect();
            series.drop_name = true;
            (!series.column.is_empty()).then_some(series)
        })
        .collect()
}

/// The float of the one series that has one at each step; NaN if none or several have.
fn only_floats(series: &[Series], steps: usize) -> Vec<f64> {
    let mut found = vec![(0usize, f64::NAN); steps];
    for series in series {
        for step in series.column.bounds() {
            let value = series.column.float(step);
            if !super::column::is_absent(value) {
                let (count, only) = &mut found[step];
                *count += 1;
                *only = value;
            }
        }
    }
    found.into_iter().map(|(count, value)| if count == 1 { value } else { f64::NAN }).collect()
}
