//! One part of a reading: its series pass by one after the other, and every leaf of the reading takes what
//! it needs of each.

use super::column::{Column, Point, Series};
use super::looked_at::StepCounts;
use super::meter::Meter;
use super::smooth;
use super::window::{BoundsCache, NONE, NewestCache, drop_stale};
use crate::annotations::Annotations;
use crate::ast::RangeExtension;
use crate::error::QueryError;
use crate::functions::over_time::{self, RangeCall};
use crate::plan::{Leaf, LeafKind};
use crate::storage::{Budget, HistogramSample, SeriesColumns, SeriesSet};
use crate::summaries::SummaryStats;
use pharos_common::sample::{STALE_NAN, TimestampMs, is_stale_nan};
use std::borrow::Cow;
use std::sync::Arc;

/// A leaf and, for a function over a range, what that needs besides samples.
pub(super) struct Task<'p> {
    pub(super) leaf: &'p Leaf,
    pub(super) call: Option<RangeCall>,
    /// Whether the samples that each step looks at are counted.
    pub(super) counts: bool,
}

/// What a part's series gave a leaf.
#[derive(Default)]
pub(super) struct Found {
    pub(super) series: Vec<Series>,
    pub(super) samples: Vec<SeriesColumns>,
    pub(super) looked_at: StepCounts,
}

impl Found {
    pub(super) fn append(&mut self, mut other: Found) {
        self.series.append(&mut other.series);
        self.samples.append(&mut other.samples);
        self.looked_at.append(&other.looked_at);
    }
}

/// What reading a part came to.
#[derive(Default)]
pub(super) struct Part {
    /// For each task.
    pub(super) found: Vec<Found>,
    pub(super) annotations: Annotations,
    pub(super) series_read: usize,
    pub(super) samples_read: usize,
    pub(super) summaries: SummaryStats,
    /// Whether there were windows of which summaries tell nothing and samples are gone.
    pub(super) is_cut: bool,
}

/// Reads part after part. What it found out about timestamps serves the next one, too.
pub(super) struct Reader<'p> {
    works: Vec<Work<'p>>,
    budget: &'p Budget,
    lookback_ms: i64,
}

impl<'p> Reader<'p> {
    pub(super) fn new(tasks: &'p [Task<'p>], budget: &'p Budget, lookback_ms: i64) -> Self {
        Reader { works: tasks.iter().map(Work::new).collect(), budget, lookback_ms }
    }

    /// Reads all series of a part.
    pub(super) fn read(&mut self, mut set: Box<dyn SeriesSet + '_>) -> Result<Part, QueryError> {
        let (budget, lookback_ms) = (self.budget, self.lookback_ms);
        let mut part = Part::default();
        let meter = Meter::new(budget);
        let works = &mut self.works;
        while let Some(mut series) = set.next_series()? {
            budget.check()?;
            let cost = series.cost();
            part.series_read += 1;
            part.samples_read += cost;
            // Instant leaves must see stale markers, ranges must not.
            for work in works.iter_mut().filter(|work| work.is_instant()) {
                work.instant(&work.seen(&series), lookback_ms)?;
            }
            if works.iter().any(|work| !work.is_instant()) {
                drop_stale(&mut series);
                for work in works.iter_mut().filter(|work| !work.is_instant()) {
                    work.range(&work.seen(&series), lookback_ms, &mut part.annotations, &meter)?;
                }
            }
            let held: usize = works.iter_mut().map(Work::newly_held).sum();
            budget.put_back(cost);
            budget.take(held)?;
        }
        part.found = works.iter_mut().map(Work::take_found).collect();
        Ok(part)
    }
}

/// A task under way.
struct Work<'t> {
    task: &'t Task<'t>,
    bounds: BoundsCache,
    newest: NewestCache,
    found: Found,
    /// Series found when memory was last counted.
    counted: usize,
}

impl<'t> Work<'t> {
    fn new(task: &'t Task<'t>) -> Self {
        Work {
            task,
            bounds: BoundsCache::default(),
            newest: NewestCache::default(),
            found: Found::default(),
            counted: 0,
        }
    }

    fn is_instant(&self) -> bool {
        matches!(self.task.leaf.kind, LeafKind::Instant | LeafKind::InstantTimestamp)
    }

    /// What was found since the last time.
    fn take_found(&mut self) -> Found {
        self.counted = 0;
        std::mem::take(&mut self.found)
    }

    /// The series as the leaf sees it: with resets found out where only counts and sums are used.
    fn seen<'s>(&self, series: &'s SeriesColumns) -> Cow<'s, SeriesColumns> {
        if !self.task.leaf.wants_statistics || series.histograms.len() < 2 {
            return Cow::Borrowed(series);
        }
        let mut series = series.clone();
        crate::histogram::find_resets(&mut series.histograms);
        Cow::Owned(series)
    }

    fn instant(&mut self, series: &SeriesColumns, lookback_ms: i64) -> Result<(), QueryError> {
        let column = if self.task.leaf.extension == RangeExtension::Smoothed {
            smooth::smoothed(self.task.leaf, series, lookback_ms)?
        } else {
            newest(self.task.leaf, series, lookback_ms, &mut self.newest)
        };
        if self.task.counts {
            self.found.looked_at.add_points(&column);
        }
        if !column.is_empty() {
            let drop_name = matches!(self.task.leaf.kind, LeafKind::InstantTimestamp);
            self.found.series.push(Series { labels: series.labels.clone(), drop_name, column });
        }
        Ok(())
    }

    fn range(
        &mut self,
        series: &SeriesColumns,
        lookback_ms: i64,
        annotations: &mut Annotations,
        meter: &Meter<'_>,
    ) -> Result<(), QueryError> {
        match (self.task.leaf.kind, &self.task.call) {
            (LeafKind::Samples { range_ms }, _) => {
                let samples = smooth::window_samples(self.task.leaf, series, range_ms, lookback_ms)?;
                if self.task.counts {
                    self.found.looked_at.add_at(0, samples.cost());
                }
                if !samples.values.is_empty() || !samples.histograms.is_empty() {
                    self.found.samples.push(samples);
                }
            }
            (_, Some(call)) => {
                let column = over_time::evaluate(call, series, &mut self.bounds, annotations, meter)?;
                if self.task.counts {
                    let counts = &mut self.found.looked_at;
                    counts.add_windows(&call.windows, series, &mut self.bounds, meter)?;
                }
                if !column.is_empty() {
                    let drop_name = !call.function.keeps_name();
                    self.found.series.push(Series { labels: series.labels.clone(), drop_name, column });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the last series left behind. Each series adds at most one column or one run of samples.
    fn newly_held(&mut self) -> usize {
        let held = match self.task.leaf.kind {
            LeafKind::Samples { .. } => self.found.samples.last().map_or(0, SeriesColumns::cost),
            _ => self.found.series.last().map_or(0, |series| series.column.cost()),
        };
        let before = std::mem::replace(&mut self.counted, self.found.series.len() + self.found.samples.len());
        if before == self.found.series.len() + self.found.samples.len() { 0 } else { held }
    }
}

/// The newest sample at each step that is no older than the lookback and no stale marker.
fn newest(leaf: &Leaf, series: &SeriesColumns, lookback_ms: i64, cache: &mut NewestCache) -> Column {
    let wants_time = matches!(leaf.kind, LeafKind::InstantTimestamp);
    if series.histograms.is_empty() {
        let newest = cache.newest(leaf.grid, leaf.shift, lookback_ms, &series.timestamps);
        return newest_floats(series, newest, wants_time);
    }
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

/// The samples at known indices.
fn newest_floats(series: &SeriesColumns, newest: &[u32], wants_time: bool) -> Column {
    let mut column = Column::default();
    column.reserve(newest.len());
    for (step, &index) in newest.iter().enumerate() {
        if index == NONE {
            continue;
        }
        let value = series.values.get(index as usize).copied().unwrap_or(STALE_NAN);
        if is_stale_nan(value) {
            continue;
        }
        let taken_ms = || series.timestamps.get(index as usize).copied().unwrap_or(0);
        column.push_float(step, if wants_time { taken_ms() as f64 / 1000.0 } else { value });
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
