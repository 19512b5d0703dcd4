//! Aggregations: series to groups, one column each.

mod choose;
mod count_values;
mod fold;
mod heap;
mod running;

pub(super) use running::Running;

use super::column::{Column, Series};
use super::{Evaluated, Evaluator};
use crate::ast::{Aggregate, AggregateOp, NodeId, NodeKind};
use crate::error::QueryError;
use pharos_common::labels::{Labels, METRIC_NAME};
use std::collections::HashMap;

/// Series that fall together.
pub(super) struct Groups {
    /// Labels of each group.
    pub(super) labels: Vec<Labels>,
    /// Which group each series is in.
    pub(super) of_series: Vec<usize>,
}

impl Groups {
    fn new(series: &[Series], grouping: &[String], without: bool) -> Self {
        let mut keys = GroupKeys::new(grouping, without);
        let mut groups = Groups { labels: Vec::new(), of_series: Vec::with_capacity(series.len()) };
        for series in series {
            let (group, is_new) = keys.number(&series.labels);
            if is_new {
                groups.labels.push(keys.last_labels());
            }
            groups.of_series.push(group);
        }
        groups
    }
}

/// Numbers the groups that series fall into, in the order in which they come.
pub(super) struct GroupKeys<'p> {
    grouping: &'p [String],
    without: bool,
    numbers: HashMap<Labels, usize, foldhash::fast::RandomState>,
    /// Packed labels of the group asked for last.
    key: Vec<u8>,
    last: Labels,
}

impl<'p> GroupKeys<'p> {
    fn new(grouping: &'p [String], without: bool) -> Self {
        GroupKeys { grouping, without, numbers: HashMap::default(), key: Vec::new(), last: Labels::empty() }
    }

    /// The number of the group of a series, and whether it is the first of it.
    fn number(&mut self, labels: &Labels) -> (usize, bool) {
        self.key.clear();
        let is_named = |name: &str| self.grouping.iter().any(|label| label == name);
        if self.without {
            labels.filter_into(|name| name != METRIC_NAME && !is_named(name), &mut self.key);
        } else if !self.grouping.is_empty() {
            labels.filter_into(is_named, &mut self.key);
        }
        if let Some(&number) = self.numbers.get(self.key.as_slice()) {
            return (number, false);
        }
        let number = self.numbers.len();
        self.last = group_labels(labels, self.grouping, self.without);
        self.numbers.insert(self.last.clone(), number);
        (number, true)
    }

    /// The labels of the group that was new last.
    fn last_labels(&self) -> Labels {
        self.last.clone()
    }
}

/// What of a series' labels its group has.
pub(super) fn group_labels(labels: &Labels, grouping: &[String], without: bool) -> Labels {
    if without {
        labels.filtered(|name| name != METRIC_NAME && !grouping.iter().any(|label| label == name))
    } else if grouping.is_empty() {
        Labels::empty()
    } else {
        labels.filtered(|name| grouping.iter().any(|label| label == name))
    }
}

impl Evaluator<'_> {
    pub(super) fn aggregate(&mut self, id: NodeId, aggregate: &Aggregate) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let place = self.place(self.plan.expr.unparenthesised(aggregate.expr));
        if aggregate.op == AggregateOp::CountValues {
            let series = self.take_vector(aggregate.expr, grid)?;
            let label = self.count_values_label(aggregate)?;
            return count_values::count_values(series, &label, aggregate, grid.steps, self.budget)
                .map(Evaluated::Vector);
        }
        let param = match aggregate.param {
            Some(param) => {
                let place = self.place(self.plan.expr.unparenthesised(param));
                Some((self.take_scalar(param, grid)?, place))
            }
            None => None,
        };
        let series = self.take_vector(aggregate.expr, grid)?;
        let groups = Groups::new(&series, &aggregate.grouping, aggregate.without);
        let series = match param {
            Some((param, param_place)) if aggregate.op.keeps_series() => {
                let request = choose::Request {
                    op: aggregate.op,
                    param: &param,
                    param_place: &param_place,
                    place: &self.place(id),
                    steps: grid.steps,
                };
                choose::choose(&request, series, &groups, &mut self.annotations, self.budget)?
            }
            param => {
                if let Some((param, param_place)) = &param {
                    fold::check_quantile(param, grid.steps, param_place, &mut self.annotations);
                }
                let request = fold::Request {
                    op: aggregate.op,
                    param: param.as_ref().map(|(param, _)| param),
                    place: &place,
                };
                self.budget.check()?;
                fold::fold(&request, &series, groups, &mut self.annotations, self.budget)?
            }
        };
        Ok(Evaluated::Vector(series))
    }

    fn count_values_label(&self, aggregate: &Aggregate) -> Result<String, QueryError> {
        let Some(param) = aggregate.param else { return Ok(String::new()) };
        match &self.plan.expr.node(self.plan.expr.unparenthesised(param)).kind {
            NodeKind::String(text) => match text.as_str().filter(|label| !label.is_empty()) {
                Some(label) => Ok(label.to_owned()),
                None => Err(QueryError::execution(format!(
                    "invalid label name {}",
                    crate::quote::go_quote_bytes(&text.bytes)
                ))),
            },
            _ => Ok(String::new()),
        }
    }
}

/// Groups' columns as series, without groups that have no value.
pub(super) fn into_series(labels: Vec<Labels>, columns: Vec<(Column, bool)>) -> Vec<Series> {
    labels
        .into_iter()
        .zip(columns)
        .filter(|(_, (column, _))| !column.is_empty())
        .map(|(labels, (column, drop_name))| Series { labels, drop_name, column })
        .collect()
}
