//! Aggregations that choose series and keep their labels: topk, bottomk, limitk, limit_ratio.

use super::Groups;
use super::heap::{Best, Entry, best_first, offer};
use crate::annotations::{Annotations, Place};
use crate::ast::AggregateOp;
use crate::error::QueryError;
use crate::eval::Scalar;
use crate::eval::column::{Column, Point, Series};
use crate::eval::meter::Meter;
use crate::number::format_general;
use crate::storage::Budget;
use pharos_common::labels::Labels;

/// What to choose.
pub(super) struct Request<'r> {
    pub(super) op: AggregateOp,
    pub(super) param: &'r Scalar,
    pub(super) param_place: &'r Place,
    /// Where the aggregation stands.
    pub(super) place: &'r Place,
    pub(super) steps: usize,
}

/// Extremes of a parameter over all steps.
struct ParamRange {
    least: f64,
    most: f64,
    has_nan: bool,
}

impl ParamRange {
    fn of(param: &Scalar, steps: usize) -> Self {
        let mut range = ParamRange { least: f64::INFINITY, most: f64::NEG_INFINITY, has_nan: false };
        for step in 0..steps {
            let value = param.at(step);
            range.has_nan |= value.is_nan();
            range.least = range.least.min(value);
            range.most = range.most.max(value);
        }
        range
    }
}

pub(super) fn choose(
    request: &Request<'_>,
    series: Vec<Series>,
    groups: &Groups,
    annotations: &mut Annotations,
    budget: &Budget,
) -> Result<Vec<Series>, QueryError> {
    let range = ParamRange::of(request.param, request.steps);
    if request.op == AggregateOp::LimitRatio {
        if range.has_nan {
            return Err(QueryError::execution("Ratio value is NaN"));
        }
        for (value, limit) in [(range.most, 1.0), (range.least, -1.0)] {
            if (limit > 0.0 && value > limit) || (limit < 0.0 && value < limit) {
                let text = format!(
                    "ratio value should be between -1 and 1, got {}, capping to {}",
                    format_general(value),
                    format_general(limit)
                );
                annotations.warn(&text, request.param_place);
            }
        }
    } else {
        if range.has_nan {
            return Err(QueryError::execution("Parameter value is NaN"));
        }
        if range.most < 1.0 {
            return Ok(Vec::new());
        }
        if range.least <= i64::MIN as f64 {
            let shown = format_general(range.least);
            return Err(QueryError::execution(format!("Scalar value {shown} underflows int64")));
        }
        if range.most >= 9_223_372_036_854_774_784.0 {
            let shown = format_general(range.most);
            return Err(QueryError::execution(format!("Scalar value {shown} overflows int64")));
        }
    }
    let ignores_histograms = matches!(request.op, AggregateOp::Topk | AggregateOp::Bottomk);
    if ignores_histograms && series.iter().any(|series| series.column.has_histograms()) {
        annotations.info(&format!("ignored histogram in {} aggregation", request.op), request.place);
    }
    let mut chosen = Chosen { columns: vec![Column::default(); series.len()], order: Vec::new() };
    let meter = Meter::new(budget);
    match request.op {
        AggregateOp::Topk => best(request, Best::Largest, &series, groups, &mut chosen, &meter)?,
        AggregateOp::Bottomk => best(request, Best::Smallest, &series, groups, &mut chosen, &meter)?,
        AggregateOp::Limitk => first(request, &series, groups, &mut chosen, &meter)?,
        _ => share(request, &series, &mut chosen, &meter)?,
    }
    Ok(chosen.into_series(series, request.steps))
}

/// To offer a sample takes about as long as to look at so many.
const OFFER_VISITS: usize = 4;

/// What was chosen of each series.
struct Chosen {
    columns: Vec<Column>,
    /// Series in the order they were chosen at the last step: the order of an instant query's answer.
    order: Vec<usize>,
}

impl Chosen {
    fn add(&mut self, step: usize, series: usize, point: Point) {
        self.columns[series].push(step, point);
        self.order.push(series);
    }

    fn into_series(mut self, series: Vec<Series>, steps: usize) -> Vec<Series> {
        if steps != 1 {
            self.order = (0..series.len()).collect();
        }
        let take = |index: &usize| {
            let column = std::mem::take(&mut self.columns[*index]);
            let series = &series[*index];
            (!column.is_empty()).then(|| Series {
                labels: series.labels.clone(),
                drop_name: series.drop_name,
                column,
            })
        };
        self.order.iter().filter_map(take).collect()
    }
}

/// The whole part of a parameter, at most the number of series.
fn count(request: &Request<'_>, step: usize, series: &[Series]) -> usize {
    let k = request.param.at(step) as i64;
    usize::try_from(k).unwrap_or(0).min(series.len())
}

fn best(
    request: &Request<'_>,
    best: Best,
    series: &[Series],
    groups: &Groups,
    chosen: &mut Chosen,
    meter: &Meter<'_>,
) -> Result<(), QueryError> {
    let mut heaps: Vec<Vec<Entry>> = vec![Vec::new(); groups.labels.len()];
    for step in 0..request.steps {
        meter.visit(OFFER_VISITS * series.len())?;
        let k = count(request, step, series);
        if k == 0 {
            continue;
        }
        for (index, series) in series.iter().enumerate() {
            if let Some(Point::Float(value)) = series.column.point(step) {
                offer(&mut heaps[groups.of_series[index]], k, best, Entry { value, series: index });
            }
        }
        for heap in &mut heaps {
            best_first(heap, best);
            for entry in heap.drain(..) {
                chosen.add(step, entry.series, Point::Float(entry.value));
            }
        }
    }
    Ok(())
}

fn first(
    request: &Request<'_>,
    series: &[Series],
    groups: &Groups,
    chosen: &mut Chosen,
    meter: &Meter<'_>,
) -> Result<(), QueryError> {
    let mut taken: Vec<usize> = vec![0; groups.labels.len()];
    for step in 0..request.steps {
        meter.visit(OFFER_VISITS * series.len())?;
        let k = count(request, step, series);
        taken.fill(0);
        for (index, series) in series.iter().enumerate() {
            let taken = &mut taken[groups.of_series[index]];
            if *taken < k
                && let Some(point) = series.column.point(step)
            {
                *taken += 1;
                chosen.add(step, index, point);
            }
        }
    }
    Ok(())
}

/// `limit_ratio`: each series has a number from its labels between 0 and 1, and those below the ratio
/// are taken; a negative ratio takes the rest.
fn share(
    request: &Request<'_>,
    series: &[Series],
    chosen: &mut Chosen,
    meter: &Meter<'_>,
) -> Result<(), QueryError> {
    let numbers: Vec<f64> =
        series.iter().map(|series| hash(&series.labels) as f64 / u64::MAX as f64).collect();
    for step in 0..request.steps {
        meter.visit(OFFER_VISITS * series.len())?;
        let ratio = request.param.at(step).clamp(-1.0, 1.0);
        if ratio == 0.0 {
            continue;
        }
        for (index, series) in series.iter().enumerate() {
            let number = numbers[index];
            let is_taken = if ratio > 0.0 { number < ratio } else { number >= 1.0 + ratio };
            if is_taken && let Some(point) = series.column.point(step) {
                chosen.add(step, index, point);
            }
        }
    }
    Ok(())
}

/// The hash of a label set that Prometheus orders series by: xxHash64 of its packed form.
fn hash(labels: &Labels) -> u64 {
    crate::xxhash::xxhash64(labels.as_bytes())
}
