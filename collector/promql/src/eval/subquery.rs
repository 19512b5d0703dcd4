//! Subqueries: an instant vector evaluated at many times, read back as samples.

use super::{Evaluator, merge_same_labels, to_samples};
use crate::ast::{NodeId, NodeKind};
use crate::error::QueryError;
use crate::storage::SeriesColumns;

impl Evaluator<'_> {
    /// The samples that a subquery's inside gives. They count as held.
    pub(super) fn subquery_samples(&mut self, id: NodeId) -> Result<Vec<SeriesColumns>, QueryError> {
        Ok(self.subquery_series(id)?.into_iter().map(|(samples, _)| samples).collect())
    }

    /// The same, and whether each series' metric name goes at the end.
    pub(super) fn subquery_series(&mut self, id: NodeId) -> Result<Vec<(SeriesColumns, bool)>, QueryError> {
        let NodeKind::Subquery(subquery) = &self.plan.expr.node(id).kind else { return Ok(Vec::new()) };
        let grid = self.plan.inner_grids[id.index()].unwrap_or(self.plan.grid);
        let series = self.take_vector(subquery.expr, grid)?;
        let columns: usize = series.iter().map(|series| series.column.cost()).sum();
        self.budget.take(columns)?;
        let series = if grid.steps > 1 { merge_same_labels(series, self.budget)? } else { series };
        let mut found = Vec::with_capacity(series.len());
        let mut held = 0;
        for series in series.into_iter().filter(|series| !series.column.is_empty()) {
            self.budget.check()?;
            let drop_name = series.drop_name;
            let mut samples = to_samples(series, grid);
            crate::histogram::forget_resets(&mut samples.histograms);
            held += samples.cost();
            found.push((samples, drop_name));
        }
        // Samples took the place of columns.
        self.budget.put_back(columns);
        self.budget.take(held)?;
        Ok(found)
    }
}
