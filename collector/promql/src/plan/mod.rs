//! From a tree to what must be evaluated, where and when.
//!
//! A plan keeps the tree's nodes in their order (children first) and adds to each: at which times it is
//! evaluated (a [`Grid`]; inside a subquery another one), whether its value is the same at all of them
//! (then it is evaluated once), and for selectors the time range to read. Selectors with equal matchers
//! share one reading.

mod grid;
mod selection;
mod summarized;

pub(crate) use grid::{Grid, Shift};
pub(crate) use selection::{Leaf, LeafKind, Reading};
pub(crate) use summarized::{Summarized, SummaryTraits};

use crate::ast::{AtModifier, DurationExprError, Expr, NodeId, NodeKind, VectorSelector};
use crate::error::QueryError;
use crate::functions::{HistogramStat, Implementation, OverTime};
use pharos_common::sample::TimestampMs;

/// What a plan depends on besides the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) start_ms: TimestampMs,
    pub(crate) end_ms: TimestampMs,
    /// 0 for an instant query.
    pub(crate) step_ms: i64,
    pub(crate) lookback_ms: i64,
    pub(crate) default_subquery_step_ms: i64,
    /// Whether functions of counters look at start timestamps.
    pub(crate) uses_starts: bool,
    /// Of the storage's summaries, if it has some.
    pub(crate) summaries: Option<SummaryTraits>,
}

impl Setting {
    fn range_ms(&self) -> i64 {
        self.end_ms.saturating_sub(self.start_ms)
    }
}

/// What to evaluate, where and when.
pub(crate) struct Plan<'e> {
    pub(crate) expr: &'e Expr,
    pub(crate) setting: Setting,
    /// The times of the whole query.
    pub(crate) grid: Grid,
    /// The times of each node. Those of range selectors and subqueries are those of what uses them.
    pub(crate) grids: Vec<Grid>,
    /// The times of what is inside each subquery.
    pub(crate) inner_grids: Vec<Option<Grid>>,
    /// Windows of subqueries, resolved: range, offset and time.
    pub(crate) subqueries: Vec<Option<SubqueryTimes>>,
    /// Which leaf a node is.
    pub(crate) leaf_of: Vec<Option<usize>>,
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) readings: Vec<Reading>,
}

/// A subquery's window, resolved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SubqueryTimes {
    pub(crate) shift: Shift,
    pub(crate) range_ms: i64,
}

impl<'e> Plan<'e> {
    pub(crate) fn new(expr: &'e Expr, setting: Setting) -> Result<Self, QueryError> {
        let grid = Grid::between(setting.start_ms, setting.end_ms, setting.step_ms);
        let count = expr.nodes.len();
        let mut plan = Plan {
            expr,
            setting,
            grid,
            grids: vec![grid; count],
            inner_grids: vec![None; count],
            subqueries: vec![None; count],
            leaf_of: vec![None; count],
            leaves: Vec::new(),
            readings: Vec::new(),
        };
        plan.assign_grids()?;
        plan.find_leaves()?;
        plan.find_statistics();
        plan.find_aggregations();
        plan.find_summarized();
        plan.share_readings();
        Ok(plan)
    }

    /// Parents before children: each node says at which times its children are evaluated.
    fn assign_grids(&mut self) -> Result<(), DurationExprError> {
        let fixed = self.step_invariant_nodes();
        let at_one_time = |grid: Grid, id: NodeId| {
            let constant = fixed.get(id.index()).copied().unwrap_or(false);
            if constant && grid.steps > 1 { Grid::single(grid.start_ms) } else { grid }
        };
        let root = self.expr.root;
        self.grids[root.index()] = at_one_time(self.grid, root);
        for index in (0..self.expr.nodes.len()).rev() {
            let grid = self.grids[index];
            let node = &self.expr.nodes[index];
            let inner = if let NodeKind::Subquery(subquery) = &node.kind {
                let (step_ms, range_ms) = (self.setting.step_ms, self.setting.range_ms());
                let range = subquery.range.resolve(step_ms, range_ms, false)?;
                let offset_ms = subquery.offset.resolve(step_ms, range_ms, true)?;
                let step = match &subquery.step {
                    Some(step) => step.resolve(step_ms, range_ms, false)?.max(1),
                    None => self.setting.default_subquery_step_ms,
                };
                let shift = self.shift(subquery.at, offset_ms);
                self.subqueries[index] = Some(SubqueryTimes { shift, range_ms: range });
                let inner = subquery_grid(grid, shift, range, step);
                self.inner_grids[index] = Some(inner);
                inner
            } else {
                grid
            };
            let expr = self.expr;
            expr.for_each_child(NodeId(index as u32), |child| {
                // Ranges are evaluated by the function around them, at its times.
                let is_range = matches!(
                    expr.node(child).kind,
                    NodeKind::Range(_) | NodeKind::Subquery(_) | NodeKind::String(_)
                );
                self.grids[child.index()] = if is_range { inner } else { at_one_time(inner, child) };
            });
        }
        Ok(())
    }

    pub(crate) fn shift(&self, at: Option<AtModifier>, offset_ms: i64) -> Shift {
        let at_ms = at.map(|at| at.resolve(self.setting.start_ms, self.setting.end_ms));
        Shift { at_ms, offset_ms }
    }

    pub(crate) fn selector_shift(&self, selector: &VectorSelector) -> Result<Shift, DurationExprError> {
        let offset_ms = selector.offset.resolve(self.setting.step_ms, self.setting.range_ms(), true)?;
        Ok(self.shift(selector.at, offset_ms))
    }

    pub(crate) fn range_ms(&self, range: &crate::ast::Range) -> Result<i64, DurationExprError> {
        range.range.resolve(self.setting.step_ms, self.setting.range_ms(), false)
    }

    /// Nodes whose value does not depend on the evaluation time.
    fn step_invariant_nodes(&self) -> Vec<bool> {
        let mut fixed: Vec<bool> = Vec::with_capacity(self.expr.nodes.len());
        for (id, node) in self.expr.nodes() {
            let mut children = true;
            self.expr
                .for_each_child(id, |child| children &= fixed.get(child.index()).copied().unwrap_or(false));
            fixed.push(match &node.kind {
                NodeKind::Number(_) | NodeKind::String(_) => true,
                NodeKind::Selector(selector) => selector.at.is_some(),
                NodeKind::Range(range) => range.selector.at.is_some(),
                NodeKind::Subquery(subquery) => subquery.at.is_some(),
                NodeKind::Call(call) => children && !depends_on_time(call),
                NodeKind::Aggregate(_) | NodeKind::Binary(_) | NodeKind::Unary(_) | NodeKind::Paren(_) => {
                    children
                }
            });
        }
        fixed
    }

    /// The range of a call's argument that is a range, without parentheses.
    pub(crate) fn range_argument(&self, args: &[NodeId]) -> Option<NodeId> {
        args.iter()
            .map(|&arg| self.expr.unparenthesised(arg))
            .find(|&arg| matches!(self.expr.node(arg).kind, NodeKind::Range(_) | NodeKind::Subquery(_)))
    }
}

impl Plan<'_> {
    /// Notes the leaves of which only counts and sums of histograms are used, with no subquery between.
    /// Prometheus reads those without buckets, and looks for counter resets while it does so.
    fn find_statistics(&mut self) {
        let mut wanted = vec![false; self.expr.nodes.len()];
        let mut settled = vec![false; self.expr.nodes.len()];
        for index in (0..self.expr.nodes.len()).rev() {
            let (mut statistics, mut is_settled) = (wanted[index], settled[index]);
            match &self.expr.nodes[index].kind {
                NodeKind::Subquery(_) => (statistics, is_settled) = (false, true),
                NodeKind::Call(call) => match call.function.implementation {
                    Implementation::HistogramStat(
                        HistogramStat::Count | HistogramStat::Sum | HistogramStat::Avg,
                    ) if !is_settled => statistics = true,
                    Implementation::HistogramQuantile
                    | Implementation::HistogramQuantiles
                    | Implementation::HistogramFraction => (statistics, is_settled) = (false, true),
                    _ => {}
                },
                _ => {}
            }
            let expr = self.expr;
            expr.for_each_child(NodeId(index as u32), |child| {
                wanted[child.index()] = statistics;
                settled[child.index()] = is_settled;
            });
        }
        for leaf in &mut self.leaves {
            leaf.wants_statistics = wanted[leaf.selector.index()];
        }
    }
}

/// Functions that look at the clock although their arguments do not change.
fn depends_on_time(call: &crate::ast::Call) -> bool {
    match call.function.implementation {
        Implementation::Time | Implementation::Timestamp => true,
        Implementation::Date(_) => call.args.is_empty(),
        Implementation::OverTime(OverTime::PredictLinear) => true,
        _ => false,
    }
}

/// The times of a subquery's inside: multiples of its step, from after the start of the first window to
/// the end of the last.
fn subquery_grid(outer: Grid, shift: Shift, range_ms: i64, step_ms: i64) -> Grid {
    if outer.steps == 0 {
        return Grid { start_ms: outer.start_ms, step_ms, steps: 0 };
    }
    let window_start = shift.apply(outer.start_ms).saturating_sub(range_ms);
    let start_ms = (window_start.div_euclid(step_ms) + 1).saturating_mul(step_ms);
    Grid::between(start_ms, shift.apply(outer.end_ms()), step_ms)
}
