//! How many samples each step looks at, as Prometheus counts them for `stats`. Counted only when somebody
//! wants to know: a pass over the windows of every series besides the one that evaluates them.

use super::column::Column;
use super::meter::Meter;
use super::window::{BoundsCache, Windows};
use crate::ast::{NodeId, NodeKind};
use crate::error::QueryError;
use crate::plan::Plan;
use crate::storage::SeriesColumns;
use pharos_common::sample::TimestampMs;

/// The samples that each step of a node looks at.
#[derive(Clone, Debug, Default)]
pub(super) struct StepCounts(Vec<u64>);

impl StepCounts {
    fn add(&mut self, step: usize, count: u64) {
        if step >= self.0.len() {
            self.0.resize(step + 1, 0);
        }
        if let Some(known) = self.0.get_mut(step) {
            *known += count;
        }
    }

    /// Adds what an instant selector took of a series.
    pub(super) fn add_points(&mut self, column: &Column) {
        for (step, point) in column.points() {
            let cost = match point {
                super::column::Point::Float(_) => 1,
                super::column::Point::Histogram(histogram) => histogram.cost_in_samples(),
            };
            self.add(step, cost as u64);
        }
    }

    /// Adds what all windows see of a series.
    ///
    /// # Errors
    /// If the query may not go on.
    pub(super) fn add_windows(
        &mut self,
        windows: &Windows,
        series: &SeriesColumns,
        cache: &mut BoundsCache,
        meter: &Meter<'_>,
    ) -> Result<(), QueryError> {
        for (step, bounds) in cache.windows(windows, &series.timestamps, meter)?.bounds.iter().enumerate() {
            self.add(step, bounds.len() as u64);
        }
        if series.histograms.is_empty() {
            return Ok(());
        }
        let times: Vec<TimestampMs> = series.histograms.iter().map(|sample| sample.timestamp_ms).collect();
        for (step, bounds) in windows.bounds(&times, meter)?.into_iter().enumerate() {
            let inside = series.histograms.get(bounds).unwrap_or_default();
            let cost: usize = inside.iter().map(|sample| sample.histogram.cost_in_samples()).sum();
            self.add(step, cost as u64);
        }
        Ok(())
    }

    pub(super) fn add_at(&mut self, step: usize, count: usize) {
        self.add(step, count as u64);
    }

    pub(super) fn append(&mut self, other: &StepCounts) {
        for (step, &count) in other.0.iter().enumerate() {
            self.add(step, count);
        }
    }
}

/// The samples that each step of a query looks at.
pub(super) struct LookedAt {
    per_step: Vec<u64>,
    /// How many subqueries each node stands in.
    depths: Vec<u32>,
    /// Whether the answer is a subquery's samples.
    is_subquery: bool,
}

impl LookedAt {
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        let expr = plan.expr;
        let mut depths = vec![0; expr.nodes.len()];
        for (index, node) in expr.nodes.iter().enumerate().rev() {
            let depth = depths[index] + u32::from(matches!(node.kind, NodeKind::Subquery(_)));
            expr.for_each_child(NodeId(index as u32), |child| depths[child.index()] = depth);
        }
        let root = expr.unparenthesised(expr.root);
        let is_subquery = matches!(expr.node(root).kind, NodeKind::Subquery(_));
        LookedAt { per_step: vec![0; plan.grid.steps], depths, is_subquery }
    }

    /// Adds what a node looked at. What is inside a subquery counts by the samples that the function around
    /// the subquery sees, or at the last step if there is no function.
    pub(super) fn add(&mut self, plan: &Plan<'_>, node: NodeId, counts: &StepCounts) {
        let depth = self.depths.get(node.index()).copied().unwrap_or(0);
        let total = || counts.0.iter().sum::<u64>();
        match depth {
            0 if plan.grids[node.index()].steps == 1 => {
                // The same at every step: evaluated once, counted at each.
                let total = total();
                self.per_step.iter_mut().for_each(|step| *step += total);
            }
            0 => self.per_step.iter_mut().zip(&counts.0).for_each(|(step, count)| *step += count),
            1 if self.is_subquery => {
                if let Some(last) = self.per_step.last_mut() {
                    *last += total();
                }
            }
            _ => {}
        }
    }

    pub(super) fn into_steps(self, plan: &Plan<'_>) -> Vec<(TimestampMs, u64)> {
        let counts = self.per_step.into_iter().enumerate();
        counts.map(|(step, count)| (plan.grid.time(step), count)).collect()
    }
}
