//! Which series and times the leaves of a plan read, and which of them read together.

use super::{Grid, Plan, Shift, Summarized};
use crate::ast::{NodeId, NodeKind, RangeExtension, VectorSelector};
use crate::error::QueryError;
use crate::functions::{Implementation, OverTime};
use crate::storage::SelectionHints;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;

/// A node that reads samples.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// The node that gets the result.
    pub(crate) node: NodeId,
    /// The node that holds the selector.
    pub(crate) selector: NodeId,
    pub(crate) kind: LeafKind,
    pub(crate) grid: Grid,
    pub(crate) shift: Shift,
    pub(crate) extension: RangeExtension,
    /// First and last timestamp it looks at.
    pub(crate) start_ms: TimestampMs,
    pub(crate) end_ms: TimestampMs,
    pub(crate) hints: SelectionHints,
    /// Which reading serves it.
    pub(crate) reading: usize,
    /// Whether it needs nothing but samples, so that it can be evaluated whenever they are read.
    pub(crate) is_independent: bool,
    /// Whether only counts and sums of histograms are used.
    pub(crate) wants_statistics: bool,
    /// The aggregation that is all that uses it and adds series up as they are read.
    pub(crate) aggregation: Option<NodeId>,
    /// How summaries serve it. It then reads by itself.
    pub(crate) summarized: Option<Summarized>,
}

/// What a leaf makes of samples.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LeafKind {
    /// The newest sample at each step.
    Instant,
    /// The time of the newest sample at each step.
    InstantTimestamp,
    /// The start timestamp of the newest sample at each step.
    InstantStart,
    /// A function over a range before each step.
    OverTime { range_ms: i64 },
    /// The samples of a range themselves.
    Samples { range_ms: i64 },
}

impl LeafKind {
    /// Whether it looks at the newest sample at each step.
    pub(crate) fn is_instant(self) -> bool {
        matches!(self, LeafKind::Instant | LeafKind::InstantTimestamp | LeafKind::InstantStart)
    }
}

/// A reading of series that serves one leaf or more.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) start_ms: TimestampMs,
    pub(crate) end_ms: TimestampMs,
    pub(crate) hints: SelectionHints,
    /// The selector whose matchers it uses.
    pub(crate) selector: NodeId,
    pub(crate) leaves: Vec<usize>,
}

impl Plan<'_> {
    pub(super) fn find_leaves(&mut self) -> Result<(), QueryError> {
        let root = self.expr.unparenthesised(self.expr.root);
        for index in 0..self.expr.nodes.len() {
            let id = NodeId(index as u32);
            match &self.expr.nodes[index].kind {
                NodeKind::Selector(_) => self.add_leaf(id, id, LeafKind::Instant, true)?,
                NodeKind::Range(range) if root == id => {
                    let range_ms = self.range_ms(range)?;
                    self.add_leaf(id, id, LeafKind::Samples { range_ms }, true)?;
                }
                NodeKind::Call(call) => match call.function.implementation {
                    Implementation::OverTime(_) => {
                        let Some(range_id) = self.range_argument(&call.args) else { continue };
                        if let NodeKind::Range(range) = &self.expr.node(range_id).kind {
                            let range_ms = self.range_ms(range)?;
                            let constants = call.args.iter().all(|&arg| {
                                self.expr.unparenthesised(arg) == range_id
                                    || self.expr.constant(arg).is_some()
                            });
                            let kind = LeafKind::OverTime { range_ms };
                            self.add_leaf(id, range_id, kind, constants)?;
                        }
                    }
                    function @ (Implementation::Timestamp | Implementation::StartTimestamp) => {
                        // Only a selector's own samples have times of their own.
                        let Some(&arg) = call.args.first() else { continue };
                        let arg = self.expr.unparenthesised(arg);
                        if matches!(self.expr.node(arg).kind, NodeKind::Selector(_)) {
                            self.remove_leaf(arg);
                            let kind = match function {
                                Implementation::Timestamp => LeafKind::InstantTimestamp,
                                _ => LeafKind::InstantStart,
                            };
                            self.add_leaf(id, arg, kind, true)?;
                        }
                    }
                    Implementation::Info => {
                        // The second argument says which labels to take; it is not evaluated.
                        if let Some(&selector) = call.args.get(1) {
                            self.remove_leaf(selector);
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn remove_leaf(&mut self, node: NodeId) {
        // An argument stands right before its call, so its leaf is the last one found.
        if let Some(removed) = self.leaf_of[node.index()].take() {
            self.leaves.truncate(removed);
        }
    }

    fn add_leaf(
        &mut self,
        node: NodeId,
        selector_id: NodeId,
        kind: LeafKind,
        is_independent: bool,
    ) -> Result<(), QueryError> {
        let Some(selector) = self.selector(selector_id) else { return Ok(()) };
        let shift = self.selector_shift(selector)?;
        let extension = selector.extension;
        let grid = self.grids[node.index()];
        let lookback_ms = self.setting.lookback_ms;
        let (first, last) = (shift.apply(grid.start_ms), shift.apply(grid.end_ms()));
        let (range_ms, function) = match kind {
            LeafKind::Instant | LeafKind::InstantTimestamp | LeafKind::InstantStart => (0, ""),
            LeafKind::Samples { range_ms } => (range_ms, ""),
            LeafKind::OverTime { range_ms } => (range_ms, self.function_name(node)),
        };
        // Ranges and the lookback are left-open, hence one millisecond less.
        let back_ms = match (range_ms, extension) {
            (0, _) => lookback_ms - 1,
            (range_ms, RangeExtension::None) => range_ms - 1,
            (range_ms, _) => range_ms.saturating_add(lookback_ms) - 1,
        };
        let ahead_ms = if extension == RangeExtension::Smoothed { lookback_ms } else { 0 };
        self.leaf_of[node.index()] = Some(self.leaves.len());
        self.leaves.push(Leaf {
            node,
            selector: selector_id,
            kind,
            grid,
            shift,
            extension,
            start_ms: first.saturating_sub(back_ms),
            end_ms: last.saturating_add(ahead_ms),
            hints: SelectionHints {
                step_ms: if grid.steps > 1 { grid.step_ms } else { 0 },
                range_ms,
                function,
                newest_only: grid.steps == 1 && extension == RangeExtension::None && kind.is_instant(),
                starts: self.wants_starts(node, kind, extension),
            },
            reading: 0,
            is_independent,
            wants_statistics: false,
            aggregation: None,
            summarized: None,
        });
        Ok(())
    }

    /// Whether a leaf looks at start timestamps. Values at the edges of ranges were never taken, so they have none.
    fn wants_starts(&self, node: NodeId, kind: LeafKind, extension: RangeExtension) -> bool {
        match (kind, &self.expr.node(node).kind) {
            (LeafKind::InstantStart, _) => true,
            (LeafKind::OverTime { .. }, NodeKind::Call(call)) => match call.function.implementation {
                Implementation::OverTime(function) => {
                    self.setting.uses_starts
                        && extension == RangeExtension::None
                        && function.looks_at_starts()
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn function_name(&self, node: NodeId) -> &'static str {
        match &self.expr.node(node).kind {
            NodeKind::Call(call) => call.function.name,
            _ => "",
        }
    }

    pub(crate) fn selector(&self, id: NodeId) -> Option<&VectorSelector> {
        match &self.expr.node(id).kind {
            NodeKind::Selector(selector) => Some(selector),
            NodeKind::Range(range) => Some(&range.selector),
            _ => None,
        }
    }

    pub(crate) fn matchers(&self, id: NodeId) -> &[Matcher] {
        self.selector(id).map_or(&[], |selector| &selector.matchers)
    }

    /// Finds the leaves that are arguments of an aggregation that adds up.
    pub(super) fn find_aggregations(&mut self) {
        for index in 0..self.expr.nodes.len() {
            let NodeKind::Aggregate(aggregate) = &self.expr.nodes[index].kind else { continue };
            let argument = self.expr.unparenthesised(aggregate.expr);
            let Some(leaf) = self.leaf_of[argument.index()].and_then(|leaf| self.leaves.get_mut(leaf)) else {
                continue;
            };
            let is_vector = match (&self.expr.node(leaf.node).kind, leaf.kind) {
                (_, LeafKind::Samples { .. }) => false,
                // Presence is turned into absence when all series are through.
                (NodeKind::Call(call), _) => {
                    !matches!(call.function.implementation, Implementation::OverTime(OverTime::Absent))
                }
                _ => true,
            };
            if is_vector && aggregate.param.is_none() && leaf.grid == self.grids[index] {
                leaf.aggregation = Some(NodeId(index as u32));
            }
        }
    }

    /// Leaves with equal matchers read together if their time ranges meet, so that little is read twice
    /// and nothing that no leaf wants.
    pub(super) fn share_readings(&mut self) {
        // Candidates by their matchers' text, so that a query of many selectors stays cheap to plan.
        let mut by_matchers: std::collections::HashMap<String, Vec<usize>> = Default::default();
        for index in 0..self.leaves.len() {
            let leaf = &self.leaves[index];
            if leaf.grid.steps == 0 {
                continue;
            }
            let key: String =
                self.matchers(leaf.selector).iter().map(|matcher| format!("{matcher},")).collect();
            let candidates = by_matchers.entry(key).or_default();
            let is_alone = !leaf.is_independent || leaf.summarized.is_some();
            let shared = candidates.last().copied().filter(|&reading| {
                let reading = &self.readings[reading];
                !is_alone && leaf.start_ms <= reading.end_ms && reading.start_ms <= leaf.end_ms
            });
            let reading = shared.unwrap_or(self.readings.len());
            match self.readings.get_mut(reading) {
                Some(reading) => {
                    let newest_only = reading.hints.newest_only
                        && leaf.hints.newest_only
                        && reading.end_ms == leaf.end_ms
                        && reading.start_ms == leaf.start_ms;
                    reading.start_ms = reading.start_ms.min(leaf.start_ms);
                    reading.end_ms = reading.end_ms.max(leaf.end_ms);
                    let starts = reading.hints.starts || leaf.hints.starts;
                    reading.hints = SelectionHints { newest_only, starts, ..SelectionHints::default() };
                    reading.leaves.push(index);
                }
                None => {
                    self.readings.push(Reading {
                        start_ms: leaf.start_ms,
                        end_ms: leaf.end_ms,
                        hints: leaf.hints,
                        selector: leaf.selector,
                        leaves: vec![index],
                    });
                    if !is_alone {
                        candidates.push(reading);
                    }
                }
            }
            self.leaves[index].reading = reading;
        }
    }
}
