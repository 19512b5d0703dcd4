//! Leaves: nodes that read samples. All leaves of a reading are evaluated while its series pass by, so
//! only one series' samples are held at a time.

use super::aggregate::Running;
use super::column::Series;
use super::part::{Found, Part, Reader, Task};
use super::side_by_side::read_all;
use super::summarized::{self, SummaryTask};
use super::window::Windows;
use super::{Evaluated, Evaluator, Scalar};
use crate::annotations::Place;
use crate::ast::{NodeId, NodeKind, RangeExtension};
use crate::error::QueryError;
use crate::functions::over_time::{self, RangeCall};
use crate::plan::{LeafKind, Reading};
use crate::storage::{Budget, Selection, SeriesColumns};
use crate::summaries::SummaryRequest;
use std::sync::{Arc, OnceLock};

/// Not a remark of Prometheus', which drops all at once.
const SAMPLES_GONE: &str = "retention has dropped samples of this range, and the roll-ups that are left do not tell all that is asked";

impl<'e> Evaluator<'e> {
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
        let summarized = self.read_summaries(index, &tasks)?;
        let by_samples = summarized.is_none();
        let Gathered { part, running } = match summarized {
            Some(part) => Gathered { part, running: Vec::new() },
            None => self.read_samples(reading, &tasks)?,
        };
        for task in &tasks {
            if part.is_cut || by_samples && plan.lacks_samples(task.leaf) {
                self.annotations.warn(SAMPLES_GONE, &self.place(task.leaf.selector));
            }
        }
        self.annotations.merge(part.annotations);
        self.stats.series_read += part.series_read;
        self.stats.samples_read += part.samples_read;
        self.stats.summaries.add(part.summaries);
        let running = running.into_iter().chain(std::iter::repeat_with(|| None));
        for ((task, found), running) in tasks.iter().zip(part.found).zip(running) {
            if let Some(looked_at) = &mut self.looked_at {
                looked_at.add(plan, task.leaf.node, &found.looked_at);
            }
            if let (Some(running), Some(aggregation)) = (running, task.leaf.aggregation) {
                self.store(aggregation, Evaluated::Vector(running.into_series()))?;
                // The leaf was evaluated, and nobody asks for its value.
                self.values[task.leaf.node.index()] = Some(Evaluated::Vector(Vec::new()));
                continue;
            }
            let value = self.finish_leaf(task, found)?;
            self.values[task.leaf.node.index()] = Some(value);
        }
        Ok(())
    }

    /// Reads the samples of all tasks. What is aggregated at once is, unless it turns out to be histograms.
    fn read_samples(&self, reading: &Reading, tasks: &[Task<'_>]) -> Result<Gathered<'e>, QueryError> {
        match self.gather(reading, tasks, true)? {
            Some(gathered) => Ok(gathered),
            None => Ok(self.gather(reading, tasks, false)?.unwrap_or_default()),
        }
    }

    /// `None` if histograms came where floats were being added up.
    fn gather(
        &self,
        reading: &Reading,
        tasks: &[Task<'_>],
        at_once: bool,
    ) -> Result<Option<Gathered<'e>>, QueryError> {
        let (plan, budget) = (self.plan, self.budget);
        let selection = Selection {
            matchers: plan.matchers(reading.selector),
            start_ms: reading.start_ms,
            end_ms: reading.end_ms,
            hints: reading.hints,
        };
        let sets = self.storage.select_parts(&selection, budget, threads())?;
        let aggregation = |task: &Task<'_>| match &plan.expr.node(task.leaf.aggregation?).kind {
            NodeKind::Aggregate(aggregate) if at_once => Running::new(aggregate, budget),
            _ => None,
        };
        let mut gathered = Gathered::default();
        gathered.part.found.resize_with(tasks.len(), Found::default);
        gathered.running = tasks.iter().map(aggregation).collect();
        let mut are_floats = true;
        let join = |part: Part| {
            are_floats &= gathered.add(part, budget)?;
            Ok(())
        };
        let start = || Reader::new(tasks, budget, plan.setting.lookback_ms);
        read_all(sets, threads(), start, |set, reader| reader.read(set), join)?;
        if are_floats {
            return Ok(Some(gathered));
        }
        gathered.let_go(budget);
        Ok(None)
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
        let mut gathered = Gathered::default();
        gathered.part.found.resize_with(tasks.len(), Found::default);
        let join = |part| gathered.add(part, self.budget).map(drop);
        read_all(sets, threads(), || (), |set, ()| summarized::read(set, &work), join)?;
        Ok(Some(gathered.part))
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
        let leaf = plan.leaf_of[id.index()].and_then(|leaf| plan.leaves.get(leaf));
        let uses_starts = leaf.is_some_and(|leaf| leaf.hints.starts);
        Ok(RangeCall { function, windows, extension, uses_starts, scalars, place })
    }
}

/// What all parts came to.
#[derive(Default)]
struct Gathered<'e> {
    part: Part,
    /// For each task the aggregation that its series were added to.
    running: Vec<Option<Running<'e>>>,
}

impl Gathered<'_> {
    /// Adds the next part; `false` if its series cannot be aggregated like those before.
    fn add(&mut self, part: Part, budget: &Budget) -> Result<bool, QueryError> {
        self.part.annotations.merge(part.annotations);
        self.part.series_read += part.series_read;
        self.part.samples_read += part.samples_read;
        self.part.summaries.add(part.summaries);
        self.part.is_cut |= part.is_cut;
        let mut running = self.running.iter_mut();
        let mut is_accepted = true;
        for (all, found) in self.part.found.iter_mut().zip(part.found) {
            let slot = running.next();
            let Some(Some(aggregation)) = slot.as_deref().map(Option::as_ref) else {
                all.append(found);
                continue;
            };
            if aggregation.accepts(&found.series) {
                if let Some(Some(aggregation)) = slot {
                    found.series.iter().try_for_each(|series| aggregation.add(series))?;
                }
                budget.put_back(cost(&found.series));
                all.append(Found { series: Vec::new(), ..found });
            } else {
                // Nothing is lost if these are the first.
                is_accepted &= aggregation.is_empty();
                if let Some(slot) = slot {
                    *slot = None;
                }
                all.append(found);
            }
        }
        Ok(is_accepted)
    }

    /// Gives back what it holds of the budget.
    fn let_go(self, budget: &Budget) {
        for found in &self.part.found {
            let samples: usize = found.samples.iter().map(SeriesColumns::cost).sum();
            budget.put_back(cost(&found.series) + samples);
        }
        self.running.into_iter().flatten().for_each(|running| drop(running.into_series()));
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
