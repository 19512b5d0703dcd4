//! Leaves: nodes that read samples. All leaves of a reading are evaluated while its series pass by, so
//! only one series' samples are held at a time.

use super::column::Series;
use super::part::{self, Found, Part, Task, read_all};
use super::summarized::{self, SummaryTask};
use super::window::Windows;
use super::{Evaluated, Evaluator, Scalar};
use crate::annotations::Place;
use crate::ast::{NodeId, NodeKind, RangeExtension};
use crate::error::QueryError;
use crate::functions::over_time::{self, RangeCall};
use crate::plan::{LeafKind, Reading};
use crate::storage::Selection;
use crate::summaries::SummaryRequest;
use std::sync::{Arc, OnceLock};

impl Evaluator<'_> {
    /// Evaluates a leaf, and with it all leaves that read the same series.
    pub(super) fn read_leaf(&mut self, index: usize) -> Result<(), QueryError> {
        let plan = self.plan;
        let node = plan.leaves[index].node;
        if self.values[node.index()].is_some() {
            // Another leaf of the same reading was first.
            return Ok(());
        }
        if plan.leaves[index].grid.steps == 0 {
            return self.store(node, Evaluated::Vector(Vec::new()));
        }
        let reading = &plan.readings[plan.leaves[index].reading];
        let mut tasks = Vec::with_capacity(reading.leaves.len());
        for &leaf in &reading.leaves {
            let leaf = &plan.leaves[leaf];
            let call = match leaf.kind {
                LeafKind::OverTime { .. } => Some(self.range_call(leaf.node)?),
                _ => None,
            };
            tasks.push(Task { leaf, call, counts: self.looked_at.is_some() });
        }
        let part = match self.read_summaries(index, &tasks)? {
            Some(part) => part,
            None => self.read_samples(reading, &tasks)?,
        };
        self.annotations.merge(part.annotations);
        self.stats.series_read += part.series_read;
        self.stats.samples_read += part.samples_read;
        self.stats.summaries.add(part.summaries);
        for (task, found) in tasks.iter().zip(part.found) {
            if let Some(looked_at) = &mut self.looked_at {
                looked_at.add(plan, task.leaf.node, &found.looked_at);
            }
            let value = self.finish_leaf(task, found)?;
            self.values[task.leaf.node.index()] = Some(value);
        }
        Ok(())
    }

    fn read_samples(&self, reading: &Reading, tasks: &[Task<'_>]) -> Result<Part, QueryError> {
        let plan = self.plan;
        let selection = Selection {
            matchers: plan.matchers(reading.selector),
            start_ms: reading.start_ms,
            end_ms: reading.end_ms,
            hints: reading.hints,
        };
        let sets = self.storage.select_parts(&selection, self.budget, threads())?;
        read_all(sets, tasks.len(), |set| part::read(set, tasks, self.budget, plan.setting.lookback_ms))
    }

    /// What summaries give a leaf; `None` if they do not serve it.
    fn read_summaries(&self, leaf: usize, tasks: &[Task<'_>]) -> Result<Option<Part>, QueryError> {
        let (leaf, [task]) = (&self.plan.leaves[leaf], tasks) else { return Ok(None) };
        let (Some(summarized), Some(storage)) = (&leaf.summarized, self.storage.summaries()) else {
            return Ok(None);
        };
        let matchers = self.plan.matchers(leaf.selector);
        let request =
            SummaryRequest { matchers, spans: Arc::clone(&summarized.spans), fields: summarized.fields };
        let Some(sets) = storage.summarize(&request, self.budget, threads())? else { return Ok(None) };
        let work = SummaryTask { task, summarized, matchers, storage: self.storage, budget: self.budget };
        read_all(sets, tasks.len(), |set| summarized::read(set, &work)).map(Some)
    }

    /// A leaf's value from what all parts gave.
    fn finish_leaf(&self, task: &Task<'_>, found: Found) -> Result<Evaluated, QueryError> {
        if matches!(task.leaf.kind, LeafKind::Samples { .. }) {
            return Ok(Evaluated::Samples(found.samples));
        }
        let Some(call) = &task.call else { return Ok(Evaluated::Vector(found.series)) };
        let held = cost(&found.series);
        let series = over_time::finish(call, found.series, || self.absent_labels(task.leaf.selector))?;
        // What `absent_over_time` makes of many series is at most one.
        self.budget.put_back(held);
        self.budget.take(cost(&series))?;
        Ok(Evaluated::Vector(series))
    }

    /// What a call of a function over a range needs besides samples.
    pub(super) fn range_call(&mut self, id: NodeId) -> Result<RangeCall, QueryError> {
        let plan = self.plan;
        let NodeKind::Call(call) = &plan.expr.node(id).kind else {
            return Err(QueryError::execution("not a call"));
        };
        let grid = plan.grids[id.index()];
        let range_id = plan.range_argument(&call.args);
        let mut scalars = Vec::new();
        for &arg in &call.args {
            if range_id != Some(plan.expr.unparenthesised(arg)) {
                scalars.push(match plan.expr.constant(arg) {
                    Some(value) => Scalar::Constant(value),
                    None => self.take_scalar(arg, grid)?,
                });
            }
        }
        let crate::functions::Implementation::OverTime(function) = call.function.implementation else {
            return Err(QueryError::execution("not a function over a range"));
        };
        let (windows, extension) = match range_id.map(|id| (id, &plan.expr.node(id).kind)) {
            Some((_, NodeKind::Range(range))) => {
                let extension = range.selector.extension;
                let lookback_ms = plan.setting.lookback_ms;
                let windows = Windows {
                    grid,
                    shift: plan.selector_shift(&range.selector)?,
                    range_ms: plan.range_ms(range)?,
                    before_ms: if extension == RangeExtension::None { 0 } else { lookback_ms },
                    after_ms: if extension == RangeExtension::Smoothed { lookback_ms } else { 0 },
                };
                (windows, extension)
            }
            Some((id, _)) => {
                let times = plan.subqueries[id.index()]
                    .ok_or_else(|| QueryError::execution("a range without times"))?;
                let windows =
                    Windows { grid, shift: times.shift, range_ms: times.range_ms, before_ms: 0, after_ms: 0 };
                (windows, RangeExtension::None)
            }
            None => return Err(QueryError::execution("a function over a range without a range")),
        };
        over_time::check_extension(function, call.function.name, extension)?;
        let place = call.args.first().map_or(Place(String::new()), |&arg| self.place(arg));
        Ok(RangeCall { function, windows, extension, scalars, place })
    }
}

fn cost(series: &[Series]) -> usize {
    series.iter().map(|series| series.column.cost()).sum()
}

/// Parts worth reading side by side. Asked for once: the answer is read from files of the kernel.
fn threads() -> usize {
    static THREADS: OnceLock<usize> = OnceLock::new();
    *THREADS.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}
