//! Leaves that are served by summaries: each window is put together from the spans that it consists of.

use super::column::{Column, Series};
use super::looked_at::StepCounts;
use super::meter::Meter;
use super::part::{Part, Task};
use super::window::{BoundsCache, Windows, drop_stale};
use crate::error::QueryError;
use crate::functions::over_time::{self, OfSummary, RangeCall};
use crate::plan::{Grid, LeafKind, Summarized};
use crate::storage::{Budget, Selection, SelectionHints, Storage};
use crate::summaries::SummarySet;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::STALE_NAN;
use pharos_common::summary::Summary;
use std::ops::Range;

/// What a [`Summary`] counts for in a budget: its size over that of a sample.
const SUMMARY_COST: usize = size_of::<Summary>() / 16;

/// What reading needs beside a part of the series.
pub(super) struct SummaryTask<'t> {
    pub(super) task: &'t Task<'t>,
    pub(super) summarized: &'t Summarized,
    pub(super) matchers: &'t [Matcher],
    pub(super) storage: &'t dyn Storage,
    pub(super) budget: &'t Budget,
}

/// Reads all series of a part.
pub(super) fn read(mut set: Box<dyn SummarySet + '_>, work: &SummaryTask<'_>) -> Result<Part, QueryError> {
    let budget = work.budget;
    let mut part = Part::default();
    part.found.resize_with(1, Default::default);
    let meter = Meter::new(budget);
    let held = work.summarized.spans.len().saturating_mul(SUMMARY_COST);
    budget.take(held)?;
    let mut summaries = Vec::with_capacity(work.summarized.spans.len());
    while let Some(labels) = set.next_series(&mut summaries)? {
        budget.check()?;
        let column = work.column(&labels, &summaries, &meter)?;
        if work.task.counts
            && let Some(found) = part.found.first_mut()
        {
            work.count(&summaries, &column, &mut found.looked_at);
        }
        part.series_read += 1;
        part.is_cut |= summaries.iter().any(|summary| summary.is_cut);
        if column.is_empty() {
            continue;
        }
        budget.take(column.cost())?;
        if let Some(call) = &work.task.call {
            over_time::remark(call, labels.metric_name(), &column, &mut part.annotations);
        }
        let drop_name = work.task.call.as_ref().map_or_else(
            || matches!(work.task.leaf.kind, LeafKind::InstantTimestamp),
            |call| !call.function.keeps_name(),
        );
        if let Some(found) = part.found.first_mut() {
            found.series.push(Series { labels, drop_name, column });
        }
    }
    budget.put_back(held);
    part.summaries = set.stats();
    part.samples_read += part.summaries.samples;
    Ok(part)
}

impl SummaryTask<'_> {
    /// A series at all steps.
    fn column(
        &self,
        labels: &Labels,
        summaries: &[Summary],
        meter: &Meter<'_>,
    ) -> Result<Column, QueryError> {
        let mut values = vec![STALE_NAN; self.summarized.windows.len()];
        let mut without: Vec<Range<usize>> = Vec::new();
        let mut joined = Summary::default();
        for (step, window) in self.summarized.windows.iter().enumerate() {
            meter.visit(window.len())?;
            let window = match summaries.get(window.clone()).unwrap_or_default() {
                [only] => only,
                several => {
                    joined.clear();
                    several.iter().for_each(|summary| joined.append(summary));
                    &joined
                }
            };
            match self.value(window, step) {
                OfSummary::Value(value) => values[step] = value,
                OfSummary::Nothing => {}
                OfSummary::NeedsSamples => match without.last_mut() {
                    Some(steps) if steps.end == step => steps.end += 1,
                    _ => without.push(step..step + 1),
                },
            }
        }
        if let Some(call) = &self.task.call {
            for steps in without {
                let column = self.over_samples(call, labels, steps.clone(), meter)?;
                for step in column.bounds() {
                    if let Some(value) = values.get_mut(steps.start + step) {
                        *value = column.float(step);
                    }
                }
            }
        }
        Ok(Column::from_floats(values).trimmed())
    }

    /// Counts what samples would have been looked at.
    fn count(&self, summaries: &[Summary], column: &Column, counts: &mut StepCounts) {
        if self.task.call.is_none() {
            return counts.add_points(column);
        }
        for (step, window) in self.summarized.windows.iter().enumerate() {
            let inside = summaries.get(window.clone()).unwrap_or_default();
            counts.add_at(step, inside.iter().map(|summary| summary.count as usize).sum());
        }
    }

    fn value(&self, window: &Summary, step: usize) -> OfSummary {
        match (&self.task.call, self.task.leaf.kind) {
            (Some(call), _) => over_time::of_summary(call, window, step),
            (None, _) if window.count == 0 || window.ends_stale || window.is_cut => OfSummary::Nothing,
            (None, LeafKind::InstantTimestamp) => OfSummary::Value(window.last.timestamp_ms as f64 / 1000.0),
            (None, _) => OfSummary::Value(window.last.value),
        }
    }

    /// Some steps of one series, from its samples.
    fn over_samples(
        &self,
        call: &RangeCall,
        labels: &Labels,
        steps: Range<usize>,
        meter: &Meter<'_>,
    ) -> Result<Column, QueryError> {
        let grid = call.windows.grid;
        let windows = Windows {
            grid: Grid { start_ms: grid.time(steps.start), steps: steps.len(), ..grid },
            ..call.windows
        };
        let own = labels.iter().map(|(name, value)| Matcher::equal(name, value));
        let matchers: Vec<Matcher> = self.matchers.iter().cloned().chain(own).collect();
        let selection = Selection {
            matchers: &matchers,
            start_ms: windows.start_ms(0).saturating_add(1),
            end_ms: windows.end_ms(steps.len().saturating_sub(1)),
            hints: SelectionHints::default(),
        };
        let call = RangeCall {
            function: call.function,
            windows,
            extension: call.extension,
            scalars: Vec::new(),
            place: call.place.clone(),
        };
        let mut set = self.storage.select(&selection, self.budget)?;
        let mut column = Column::default();
        while let Some(mut series) = set.next_series()? {
            let cost = series.cost();
            if series.labels == *labels {
                drop_stale(&mut series);
                let mut ignored = Default::default();
                let mut cache = BoundsCache::default();
                column = over_time::evaluate(&call, &series, &mut cache, &mut ignored, meter)?;
            }
            self.budget.put_back(cost);
        }
        Ok(column)
    }
}
