//! Aggregations that make one value of a group: sum, avg, min, max, count, group, stddev, stdvar,
//! quantile.
//!
//! Each group keeps one accumulator per step, and series are added one after the other over all steps,
//! in their order, so sums have the bits that adding step by step gives.

use super::running::{Accumulators, counts_alike};
use super::{Groups, into_series};
use crate::annotations::{Annotations, Place};
use crate::ast::AggregateOp;
use crate::error::QueryError;
use crate::eval::Scalar;
use crate::eval::column::{Column, Point, Series};
use crate::eval::meter::Meter;
use crate::functions::Mean;
use crate::functions::math::add_compensated;
use crate::functions::quantile::{invalid, quantile};
use crate::histogram::{Blend, blend};
use crate::storage::Budget;

/// What to do.
pub(super) struct Request<'r> {
    pub(super) op: AggregateOp,
    pub(super) param: Option<&'r Scalar>,
    /// Where the vector stands.
    pub(super) place: &'r Place,
}

/// Remarks on shares that are none.
pub(super) fn check_quantile(param: &Scalar, steps: usize, place: &Place, annotations: &mut Annotations) {
    let shares = (0..steps).map(|step| param.at(step));
    let (mut least, mut most, mut has_nan) = (f64::INFINITY, f64::NEG_INFINITY, false);
    for share in shares {
        has_nan |= share.is_nan();
        least = least.min(share);
        most = most.max(share);
    }
    let reported =
        [has_nan.then_some(f64::NAN), (most > 1.0).then_some(most), (least < 0.0).then_some(least)];
    for share in reported.into_iter().flatten() {
        if let Some(text) = invalid(share) {
            annotations.warn(&text, place);
        }
    }
}

pub(super) fn fold(
    request: &Request<'_>,
    series: &[Series],
    groups: Groups,
    annotations: &mut Annotations,
    budget: &Budget,
) -> Result<Vec<Series>, QueryError> {
    let mut members: Vec<Vec<&Series>> = vec![Vec::new(); groups.labels.len()];
    for (series, &group) in series.iter().zip(&groups.of_series) {
        members[group].push(series);
    }
    let meter = Meter::new(budget);
    let mut columns = Vec::with_capacity(members.len());
    let mut held = 0;
    for members in &members {
        meter.visit(members.iter().map(|series| series.column.len()).sum())?;
        let (column, drop_name) = group_column(request, members, annotations, &meter)?;
        // A group spans all its members, however far apart they are.
        budget.take(column.cost())?;
        held += column.cost();
        columns.push((column, drop_name));
    }
    budget.put_back(held);
    Ok(into_series(groups.labels, columns))
}

/// The column of one group, and whether a member's name has to go.
fn group_column(
    request: &Request<'_>,
    members: &[&Series],
    annotations: &mut Annotations,
    meter: &Meter<'_>,
) -> Result<(Column, bool), QueryError> {
    let drop_name = members.iter().any(|series| series.drop_name);
    let first = members.iter().map(|series| series.column.bounds().start).min().unwrap_or(0);
    let last = members.iter().map(|series| series.column.bounds().end).max().unwrap_or(0);
    let span = first..last;
    let with_histograms = members.iter().any(|series| series.column.has_histograms());
    let column = match request.op {
        AggregateOp::Sum if with_histograms => mixed(request, members, span, Blend::Sum, annotations),
        AggregateOp::Avg if with_histograms => mixed(request, members, span, Blend::Mean, annotations),
        op => {
            if with_histograms && !counts_alike(op) {
                annotations.info(&format!("ignored histogram in {op} aggregation"), request.place);
            }
            match Accumulators::new(op) {
                Some(mut accumulators) => {
                    for series in members {
                        accumulators.add(&series.column);
                    }
                    accumulators.into_column()
                }
                None => quantiles(request, members, span, meter)?,
            }
        }
    };
    Ok((column, drop_name))
}

/// To sort a value takes about as long as to look at so many.
const SORT_VISITS: usize = 8;

fn quantiles(
    request: &Request<'_>,
    members: &[&Series],
    span: std::ops::Range<usize>,
    meter: &Meter<'_>,
) -> Result<Column, QueryError> {
    let mut column = Column::default();
    let mut values = Vec::with_capacity(members.len());
    for step in span {
        meter.visit(SORT_VISITS * members.len())?;
        values.clear();
        values.extend(
            members
                .iter()
                .map(|series| series.column.float(step))
                .filter(|&float| !crate::eval::column::is_absent(float)),
        );
        if !values.is_empty() {
            let share = request.param.map_or(f64::NAN, |param| param.at(step));
            column.push_float(step, quantile(share, &mut values));
        }
    }
    Ok(column)
}

/// Sums and means of groups that hold native histograms: floats and histograms do not mix.
fn mixed(
    request: &Request<'_>,
    members: &[&Series],
    span: std::ops::Range<usize>,
    kind: Blend,
    annotations: &mut Annotations,
) -> Column {
    let mut column = Column::default();
    for step in span {
        let mut floats = Vec::new();
        let mut histograms = Vec::new();
        for series in members {
            match series.column.point(step) {
                Some(Point::Float(value)) => floats.push(value),
                Some(Point::Histogram(histogram)) => {
                    histograms.push((histogram, series.labels.metric_name()));
                }
                None => {}
            }
        }
        match (floats.split_first(), histograms.is_empty()) {
            (None, true) => {}
            (Some(_), false) => {
                annotations.warn("encountered a mix of histograms and floats for aggregation", request.place);
            }
            (Some((&first, rest)), true) => {
                let value = match kind {
                    Blend::Sum => {
                        let mut sum = Sum::start(first);
                        rest.iter().for_each(|&float| sum.add(float));
                        sum.total + sum.compensation
                    }
                    Blend::Mean => {
                        let mut mean = start_mean(first);
                        rest.iter().for_each(|&float| mean.add(float));
                        mean.value()
                    }
                };
                column.push_float(step, value);
            }
            (None, false) => {
                if let Some(histogram) = blend(kind, &histograms, request.place, annotations) {
                    column.push_histogram(step, histogram.into());
                }
            }
        }
    }
    column
}

#[derive(Clone)]
struct Sum {
    total: f64,
    compensation: f64,
}

impl Sum {
    fn start(first: f64) -> Self {
        Sum { total: first, compensation: 0.0 }
    }

    fn add(&mut self, value: f64) {
        add_compensated(value, &mut self.total, &mut self.compensation);
    }
}

fn start_mean(first: f64) -> Mean {
    let mut mean = Mean::default();
    mean.add(first);
    mean
}
