//! Leaves: nodes that read samples. All leaves of a reading are evaluated while its series pass by, so
//! only one series' samples are held at a time.

use super::column::{Column, Point, Series};
use super::window::{BoundsCache, Windows, drop_stale};
use super::{Evaluated, Evaluator, Scalar};
use crate::annotations::{Annotations, Place};
use crate::ast::{NodeId, NodeKind, RangeExtension};
use crate::error::QueryError;
use crate::functions::over_time::{self, RangeCall};
use crate::plan::{Leaf, LeafKind};
use crate::storage::{HistogramSample, Selection, SeriesColumns};
use pharos_common::sample::{TimestampMs, is_stale_nan};
use std::borrow::Cow;
use std::sync::Arc;

/// A leaf and what it has found so far.
struct Work<'p> {
    leaf: &'p Leaf,
    /// What a function over a range needs besides samples.
    call: Option<RangeCall>,
    cache: BoundsCache,
    series: Vec<Series>,
    samples: Vec<SeriesColumns>,
}

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
        let mut works = Vec::with_capacity(reading.leaves.len());
        for &leaf in &reading.leaves {
            works.push(self.prepare(&plan.leaves[leaf])?);
        }
        let selection = Selection {
            matchers: plan.matchers(reading.selector),
            start_ms: reading.start_ms,
            end_ms: reading.end_ms,
            hints: reading.hints,
        };
        let mut annotations = std::mem::take(&mut self.annotations);
        let mut set = self.storage.select(&selection, self.budget)?;
        while let Some(mut series) = set.next_series()? {
            self.budget.check()?;
            let cost = series.cost();
            self.stats.series_read += 1;
            self.stats.samples_read += cost;
            // Instant leaves must see stale markers, ranges must not.
            for work in works.iter_mut().filter(|work| work.is_instant()) {
                work.instant(&work.seen(&series), plan.setting.lookback_ms)?;
            }
            if works.iter().any(|work| !work.is_instant()) {
                drop_stale(&mut series);
                for work in works.iter_mut().filter(|work| !work.is_instant()) {
                    work.range(&work.seen(&series), plan.setting.lookback_ms, &mut annotations)?;
                }
            }
            let held: usize = works.iter_mut().map(Work::newly_held).sum();
            self.budget.put_back(cost);
            self.budget.take(held)?;
        }
        self.annotations.merge(annotations);
        for work in works {
            let node = work.leaf.node;
            let value = work.finish(self)?;
            self.values[node.index()] = Some(value);
        }
        Ok(())
    }

    fn prepare<'p>(&mut self, leaf: &'p Leaf) -> Result<Work<'p>, QueryError> {
        let call = match leaf.kind {
            LeafKind::OverTime { .. } => Some(self.range_call(leaf.node)?),
            _ => None,
        };
        Ok(Work { leaf, call, cache: BoundsCache::default(), series: Vec::new(), samples: Vec::new() })
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
                    None => self.take_scalar(arg, grid),
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

impl Work<'_> {
    fn is_instant(&self) -> bool {
        matches!(self.leaf.kind, LeafKind::Instant | LeafKind::InstantTimestamp)
    }

    /// The series as the leaf sees it: with resets found out where only counts and sums are used.
    fn seen<'s>(&self, series: &'s SeriesColumns) -> Cow<'s, SeriesColumns> {
        if !self.leaf.wants_statistics || series.histograms.len() < 2 {
            return Cow::Borrowed(series);
        }
        let mut series = series.clone();
        crate::histogram::find_resets(&mut series.histograms);
        Cow::Owned(series)
    }

    fn instant(&mut self, series: &SeriesColumns, lookback_ms: i64) -> Result<(), QueryError> {
        let column = if self.leaf.extension == RangeExtension::Smoothed {
            super::smooth::smoothed(self.leaf, series, lookback_ms)?
        } else {
            newest(self.leaf, series, lookback_ms)
        };
        if !column.is_empty() {
            let drop_name = matches!(self.leaf.kind, LeafKind::InstantTimestamp);
            self.series.push(Series { labels: series.labels.clone(), drop_name, column });
        }
        Ok(())
    }

    fn range(
        &mut self,
        series: &SeriesColumns,
        lookback_ms: i64,
        annotations: &mut Annotations,
    ) -> Result<(), QueryError> {
        match (self.leaf.kind, &self.call) {
            (LeafKind::Samples { range_ms }, _) => {
                let samples = super::smooth::window_samples(self.leaf, series, range_ms, lookback_ms)?;
                if !samples.values.is_empty() || !samples.histograms.is_empty() {
                    self.samples.push(samples);
                }
            }
            (_, Some(call)) => {
                let column = over_time::evaluate(call, series, &mut self.cache, annotations)?;
                if !column.is_empty() {
                    let drop_name = !call.function.keeps_name();
                    self.series.push(Series { labels: series.labels.clone(), drop_name, column });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the last series left behind. Each series adds at most one column or one run of samples.
    fn newly_held(&mut self) -> usize {
        let held = match self.leaf.kind {
            LeafKind::Samples { .. } => self.samples.last().map_or(0, SeriesColumns::cost),
            _ => self.series.last().map_or(0, |series| series.column.cost()),
        };
        let before = std::mem::replace(&mut self.cache.held_series, self.series.len() + self.samples.len());
        if before == self.series.len() + self.samples.len() { 0 } else { held }
    }

    fn finish(self, evaluator: &Evaluator<'_>) -> Result<Evaluated, QueryError> {
        if matches!(self.leaf.kind, LeafKind::Samples { .. }) {
            return Ok(Evaluated::Samples(self.samples));
        }
        let Some(call) = &self.call else { return Ok(Evaluated::Vector(self.series)) };
        over_time::finish(call, self.series, || evaluator.absent_labels(self.leaf.selector))
            .map(Evaluated::Vector)
    }
}

/// The newest sample at each step that is no older than the lookback and no stale marker.
fn newest(leaf: &Leaf, series: &SeriesColumns, lookback_ms: i64) -> Column {
    let wants_time = matches!(leaf.kind, LeafKind::InstantTimestamp);
    let mut floats = Cursor::default();
    let mut histograms = Cursor::default();
    let mut column = Column::default();
    for step in 0..leaf.grid.steps {
        let time_ms = leaf.shift.apply(leaf.grid.time(step));
        let oldest = time_ms.saturating_sub(lookback_ms);
        let float = floats.seek(&series.timestamps, time_ms, |&timestamp| timestamp);
        let histogram =
            histograms.seek(&series.histograms, time_ms, |sample: &HistogramSample| sample.timestamp_ms);
        let Some((taken_ms, point)) = newer(series, float, histogram) else { continue };
        if taken_ms > oldest {
            let point = if wants_time { Point::Float(taken_ms as f64 / 1000.0) } else { point };
            column.push(step, point);
        }
    }
    column
}

/// The newer of a float and a histogram, unless that marks the series as gone.
#[inline]
fn newer(
    series: &SeriesColumns,
    float: Option<usize>,
    histogram: Option<usize>,
) -> Option<(TimestampMs, Point)> {
    let float_ms = float.and_then(|index| series.timestamps.get(index)).copied();
    if let Some(sample) = histogram.and_then(|index| series.histograms.get(index))
        && float_ms.is_none_or(|float_ms| float_ms < sample.timestamp_ms)
    {
        let point = || Point::Histogram(Arc::clone(&sample.histogram));
        return (!sample.histogram.is_stale()).then(|| (sample.timestamp_ms, point()));
    }
    let value = *series.values.get(float?)?;
    (!is_stale_nan(value)).then_some((float_ms?, Point::Float(value)))
}

/// A place in a column of samples that only moves forward.
#[derive(Default)]
struct Cursor {
    next: usize,
}

impl Cursor {
    /// The index of the last sample at or before `time_ms`.
    #[inline]
    fn seek<T>(
        &mut self,
        samples: &[T],
        time_ms: TimestampMs,
        time: impl Fn(&T) -> TimestampMs,
    ) -> Option<usize> {
        while samples.get(self.next).is_some_and(|sample| time(sample) <= time_ms) {
            self.next += 1;
        }
        self.next.checked_sub(1)
    }
}
