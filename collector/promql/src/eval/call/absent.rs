//! `absent`: one series at the steps where there is none.

use crate::ast::{NodeId, NodeKind};
use crate::error::QueryError;
use crate::eval::column::{Column, Series};
use crate::eval::{Evaluated, Evaluator};
use crate::plan::Grid;
use pharos_common::labels::{Labels, LabelsBuilder, METRIC_NAME};
use pharos_common::matcher::MatchOp;

impl Evaluator<'_> {
    pub(super) fn absent(&mut self, arg: NodeId, grid: Grid) -> Result<Evaluated, QueryError> {
        let series = self.take_vector(arg, grid)?;
        let mut present = vec![false; grid.steps];
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
            return Ok(Evaluated::Vector(Vec::new()));
        }
        let labels = self.absent_labels(self.plan.expr.unparenthesised(arg));
        Ok(Evaluated::Vector(vec![Series { labels, drop_name: false, column }]))
    }

    /// The labels that a selector's `=` matchers fix: those that what is absent would have.
    pub(in crate::eval) fn absent_labels(&self, selector: NodeId) -> Labels {
        let matchers = match &self.plan.expr.node(selector).kind {
            NodeKind::Selector(selector) => &selector.matchers,
            NodeKind::Range(range) => &range.selector.matchers,
            _ => return Labels::empty(),
        };
        let mut labels = LabelsBuilder::default();
        let mut seen: Vec<&str> = Vec::new();
        for matcher in matchers.iter().filter(|matcher| matcher.name() != METRIC_NAME) {
            if matcher.op() == MatchOp::Equal && !seen.contains(&matcher.name()) {
                labels.set(matcher.name(), matcher.value());
                seen.push(matcher.name());
            } else {
                // A label with two conditions is not fixed.
                labels.remove(matcher.name());
            }
        }
        labels.build()
    }
}
