//! Evaluation: a loop over the plan's nodes, children first. Each node turns its children's columns into
//! its own; no node is visited twice and nothing recurses.

mod aggregate;
mod binary;
mod call;
pub(crate) mod column;
mod leaf;
mod looked_at;
pub(crate) mod meter;
mod part;
mod result;
mod side_by_side;
pub(crate) mod smooth;
mod subquery;
mod summarized;
pub(crate) mod window;

pub(crate) use binary::Outcome;

use crate::annotations::{Annotations, Place};
use crate::ast::{NodeId, NodeKind};
use crate::error::QueryError;
use crate::plan::{Grid, Plan};
use crate::span::Lines;
use crate::storage::{Budget, SeriesColumns, Storage};
use crate::value::{QueryResult, QueryStats};
use column::{Column, Series};
use looked_at::LookedAt;
use std::collections::HashMap;

/// What a node evaluates to.
#[derive(Debug)]
pub(crate) enum Evaluated {
    /// The same number at every step.
    Constant(f64),
    /// A number at each step.
    Scalar(Vec<f64>),
    Vector(Vec<Series>),
    /// Samples with their own times.
    Samples(Vec<SeriesColumns>),
}

/// A query under way.
pub(crate) struct Evaluator<'e> {
    pub(crate) plan: &'e Plan<'e>,
    pub(crate) storage: &'e dyn Storage,
    pub(crate) budget: &'e Budget,
    pub(crate) annotations: Annotations,
    pub(crate) stats: QueryStats,
    /// Every node may be remarked on: its place must not cost a look at the whole query.
    lines: Lines,
    /// Counted if somebody wants to know.
    looked_at: Option<LookedAt>,
    values: Vec<Option<Evaluated>>,
}

/// A node of more steps is evaluated after a look at the budget.
const STEPS_WITHOUT_LOOK_MAX: usize = 10_000;

/// Evaluates a plan.
pub(crate) fn run(
    plan: &Plan<'_>,
    storage: &dyn Storage,
    budget: &Budget,
    counts_samples: bool,
) -> Result<QueryResult, QueryError> {
    budget.check()?;
    // Helpers of a node take memory by the step; so no more steps than samples.
    let inner_grids = plan.inner_grids.iter().flatten();
    if plan.grids.iter().chain(inner_grids).chain([&plan.grid]).any(|grid| grid.steps > budget.samples_max())
    {
        return Err(QueryError::TooManySamples);
    }
    let mut values = Vec::new();
    values.resize_with(plan.expr.nodes.len(), || None);
    let mut evaluator = Evaluator {
        plan,
        storage,
        budget,
        annotations: Annotations::default(),
        stats: QueryStats::default(),
        lines: Lines::of(plan.expr.query()),
        looked_at: counts_samples.then(|| LookedAt::new(plan)),
        values,
    };
    for index in 0..plan.expr.nodes.len() {
        // A look costs nothing beside a node of many steps, and much beside one of a few.
        if index % 64 == 0 || plan.grids[index].steps > STEPS_WITHOUT_LOOK_MAX {
            budget.check()?;
        }
        evaluator.node(NodeId(index as u32))?;
    }
    budget.check()?;
    evaluator.finish()
}

impl<'e> Evaluator<'e> {
    fn node(&mut self, id: NodeId) -> Result<(), QueryError> {
        if self.values[id.index()].is_some() {
            // Evaluated with what it is made of.
            return Ok(());
        }
        if let Some(leaf) = self.plan.leaf_of[id.index()] {
            return self.read_leaf(leaf);
        }
        let value = match &self.plan.expr.node(id).kind {
            NodeKind::Number(number) => Evaluated::Constant(number.value),
            NodeKind::Paren(inner) => match self.values[inner.index()].take() {
                Some(value) => value,
                // Ranges and texts have no value of their own.
                None => return Ok(()),
            },
            NodeKind::Unary(unary) => self.unary(*unary, id)?,
            NodeKind::Binary(binary) => self.binary(id, binary)?,
            NodeKind::Aggregate(aggregate) => self.aggregate(id, aggregate)?,
            NodeKind::Call(call) => self.call(id, call)?,
            // Read by the call around them, or leaves, which were dealt with above.
            NodeKind::String(_) | NodeKind::Selector(_) | NodeKind::Range(_) | NodeKind::Subquery(_) => {
                return Ok(());
            }
        };
        self.store(id, value)
    }

    /// Keeps a node's value for its parent, and counts what it holds.
    pub(crate) fn store(&mut self, id: NodeId, value: Evaluated) -> Result<(), QueryError> {
        self.budget.take(value.cost())?;
        self.values[id.index()] = Some(value);
        Ok(())
    }

    /// Takes a child's value, at each step of `grid`.
    ///
    /// # Errors
    /// If the value of one time does not fit into memory at all of them, or the query may not go on.
    fn take(&mut self, id: NodeId, grid: Grid) -> Result<Evaluated, QueryError> {
        let value = self.values[id.index()].take().unwrap_or(Evaluated::Vector(Vec::new()));
        self.budget.put_back(value.cost());
        let own = self.plan.grids[id.index()];
        if own.steps == 1 && grid.steps != 1 {
            return value.broadcast(grid.steps, self.budget);
        }
        Ok(value)
    }

    pub(crate) fn take_vector(&mut self, id: NodeId, grid: Grid) -> Result<Vec<Series>, QueryError> {
        Ok(match self.take(id, grid)? {
            Evaluated::Vector(series) => series,
            _ => Vec::new(),
        })
    }

    pub(crate) fn take_scalar(&mut self, id: NodeId, grid: Grid) -> Result<Scalar, QueryError> {
        Ok(match self.take(id, grid)? {
            Evaluated::Constant(value) => Scalar::Constant(value),
            Evaluated::Scalar(values) => Scalar::Steps(values),
            _ => Scalar::Constant(f64::NAN),
        })
    }

    pub(crate) fn place(&self, id: NodeId) -> Place {
        Place(self.lines.locate(self.plan.expr.node(id).span))
    }

    fn unary(&mut self, unary: crate::ast::Unary, id: NodeId) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let value = self.take(unary.expr, grid)?;
        if !unary.negative {
            return Ok(value);
        }
        Ok(match value {
            Evaluated::Constant(value) => Evaluated::Constant(-value),
            Evaluated::Scalar(values) => Evaluated::Scalar(values.into_iter().map(|value| -value).collect()),
            Evaluated::Vector(mut series) => {
                for series in &mut series {
                    series.drop_name = true;
                    series.column.change_floats(|value| -value);
                    series.column.map_histograms(|histogram| crate::histogram::scaled(histogram, -1.0));
                }
                Evaluated::Vector(series)
            }
            samples @ Evaluated::Samples(_) => samples,
        })
    }
}

impl Evaluated {
    fn cost(&self) -> usize {
        match self {
            Evaluated::Constant(_) => 0,
            Evaluated::Scalar(values) => values.len(),
            Evaluated::Vector(series) => series.iter().map(|series| series.column.cost()).sum(),
            Evaluated::Samples(series) => series.iter().map(SeriesColumns::cost).sum(),
        }
    }

    /// The value of one time at each of `steps` steps, if that fits into the budget.
    fn broadcast(self, steps: usize, budget: &Budget) -> Result<Self, QueryError> {
        Ok(match self {
            Evaluated::Scalar(values) => Evaluated::Constant(values.first().copied().unwrap_or(f64::NAN)),
            Evaluated::Vector(mut series) => {
                let cost = series
                    .iter()
                    .fold(0usize, |cost, series| cost.saturating_add(series.column.broadcast_cost(steps)));
                budget.take(cost)?;
                for series in &mut series {
                    budget.check()?;
                    series.column = std::mem::take(&mut series.column).broadcast(steps);
                }
                budget.put_back(cost);
                Evaluated::Vector(series)
            }
            other => other,
        })
    }
}

/// A number for each step.
#[derive(Clone, Debug)]
pub(crate) enum Scalar {
    Constant(f64),
    Steps(Vec<f64>),
}

impl Scalar {
    #[inline]
    pub(crate) fn at(&self, step: usize) -> f64 {
        match self {
            Scalar::Constant(value) => *value,
            Scalar::Steps(values) => values.get(step).copied().unwrap_or(f64::NAN),
        }
    }
}

/// The error for two series that cannot be told apart.
pub(crate) const SAME_LABELS: &str = "vector cannot contain metrics with the same labelset";

/// Series by their labels: where to put values that may come from several places.
pub(crate) struct SeriesByLabels<'b> {
    index: HashMap<pharos_common::labels::Labels, usize, foldhash::fast::RandomState>,
    series: Vec<Series>,
    budget: &'b Budget,
    /// What gaps between series that became one take.
    held: usize,
}

impl<'b> SeriesByLabels<'b> {
    pub(crate) fn new(budget: &'b Budget) -> Self {
        SeriesByLabels { index: HashMap::default(), series: Vec::new(), budget, held: 0 }
    }

    pub(crate) fn into_series(self) -> Vec<Series> {
        self.budget.put_back(self.held);
        self.series
    }

    /// Adds a series; if there is one with its labels the two become one.
    ///
    /// # Errors
    /// If both have a value at the same step, or the query may not go on.
    pub(crate) fn add(&mut self, series: Series) -> Result<(), QueryError> {
        if series.column.is_empty() {
            return Ok(());
        }
        match self.index.entry(series.labels.clone()) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(self.series.len());
                self.series.push(series);
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                self.budget.check()?;
                let existing = &mut self.series[*entry.get()];
                let before = existing.column.len() + series.column.len();
                existing.column = existing
                    .column
                    .merged(&series.column)
                    .ok_or_else(|| QueryError::execution(SAME_LABELS))?;
                let gap = existing.column.len().saturating_sub(before);
                self.budget.take(gap)?;
                self.held += gap;
            }
        }
        Ok(())
    }
}

/// Makes one series of those with equal labels.
///
/// # Errors
/// If two of them have a value at the same step, or the query may not go on.
pub(crate) fn merge_same_labels(series: Vec<Series>, budget: &Budget) -> Result<Vec<Series>, QueryError> {
    let mut merged = SeriesByLabels::new(budget);
    for series in series {
        merged.add(series)?;
    }
    Ok(merged.into_series())
}

/// The samples of a column, with the times of a grid.
pub(crate) fn to_samples(series: Series, grid: Grid) -> SeriesColumns {
    if series.column.is_full_of_floats() {
        let timestamps = series.column.bounds().map(|step| grid.time(step)).collect();
        return SeriesColumns::floats(series.labels, timestamps, series.column.into_floats());
    }
    let mut timestamps = Vec::with_capacity(series.column.len());
    let mut values = Vec::with_capacity(series.column.len());
    let mut histograms = Vec::new();
    for (step, point) in series.column.points() {
        match point {
            column::Point::Float(value) => {
                timestamps.push(grid.time(step));
                values.push(value);
            }
            column::Point::Histogram(histogram) => {
                histograms.push(crate::storage::HistogramSample { timestamp_ms: grid.time(step), histogram });
            }
        }
    }
    SeriesColumns { histograms, ..SeriesColumns::floats(series.labels, timestamps.into(), values) }
}

/// A vector of one series without labels.
pub(crate) fn unlabelled(column: Column) -> Vec<Series> {
    vec![Series { labels: pharos_common::labels::Labels::empty(), drop_name: false, column }]
}
