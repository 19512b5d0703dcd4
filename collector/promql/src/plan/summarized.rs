//! Which leaves are served by summaries of their samples, and over which spans of time.
//!
//! The starts and ends of all windows cut the time into spans; each window is a run of them. Where spans
//! are long against the grain of the storage's summaries, or windows lie far apart, few samples are read.

use super::{Grid, Leaf, LeafKind, Plan, Shift};
use crate::ast::{NodeKind, RangeExtension};
use crate::functions::{Implementation, OverTime};
use pharos_common::summary::{Span, SummaryFields};
use std::ops::Range;
use std::sync::Arc;

/// Below so many grains from the first to the last sample it is not worth it.
const GRAINS_MIN: i64 = 12;

/// What a span takes that begins or ends off the grid, beyond its samples: storages decode samples in
/// pages, worth about so many grains.
const PAGE_GRAINS: i64 = 2;

/// Summaries must save so many times what they read.
const GAIN_MIN: i64 = 2;

/// Times beyond are some client's mistake, and their differences might not be numbers.
const TIME_MAX_MS: i64 = 1 << 60;

/// What is known of a storage's summaries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SummaryTraits {
    pub(crate) grain_ms: i64,
    /// Before there may be no samples.
    pub(crate) samples_since_ms: i64,
}

/// How a leaf is served by summaries.
#[derive(Clone, Debug)]
pub(crate) struct Summarized {
    pub(crate) fields: SummaryFields,
    pub(crate) spans: Arc<[Span]>,
    /// For each step the spans of its window.
    pub(crate) windows: Vec<Range<usize>>,
}

/// The fields of summaries from which a function over a range can be told; `None` if it needs samples.
fn fields_of(function: OverTime, extension: RangeExtension) -> Option<SummaryFields> {
    if extension != RangeExtension::None {
        return None;
    }
    let ends = SummaryFields::FIRST.and(SummaryFields::LAST);
    Some(match function {
        OverTime::Absent | OverTime::Present | OverTime::Count => SummaryFields::COUNT,
        OverTime::First | OverTime::TsOfFirst => SummaryFields::FIRST,
        OverTime::Last | OverTime::TsOfLast => SummaryFields::LAST,
        OverTime::Min | OverTime::Max => SummaryFields::EXTREMES,
        OverTime::Sum | OverTime::Avg => SummaryFields::SUM,
        OverTime::Delta => ends,
        OverTime::Rate | OverTime::Increase => ends.and(SummaryFields::CORRECTIONS),
        OverTime::Changes => SummaryFields::CHANGES,
        OverTime::Resets => SummaryFields::RESETS,
        OverTime::Deriv
        | OverTime::DoubleExponentialSmoothing
        | OverTime::Idelta
        | OverTime::Irate
        | OverTime::Mad
        | OverTime::PredictLinear
        | OverTime::Quantile
        | OverTime::Stddev
        | OverTime::Stdvar
        | OverTime::TsOfMax
        | OverTime::TsOfMin => return None,
    })
}

/// Windows that are planned ahead. A subquery may have billions of steps, of which the evaluation then says
/// that they are too many.
const WINDOWS_MAX: usize = 100_000;

impl Plan<'_> {
    /// Finds the leaves that summaries serve.
    pub(super) fn find_summarized(&mut self) {
        let Some(summaries) = self.setting.summaries else { return };
        for index in 0..self.leaves.len() {
            let leaf = &self.leaves[index];
            let summarized = self.wanted_of(leaf).and_then(|(range_ms, fields)| {
                Summarized::plan(leaf.grid, leaf.shift, range_ms, fields, summaries)
            });
            self.leaves[index].summarized = summarized;
        }
    }

    /// Whether a leaf looks at times of which samples are gone and summaries are left.
    pub(crate) fn lacks_samples(&self, leaf: &Leaf) -> bool {
        self.setting.summaries.is_some_and(|summaries| leaf.start_ms < summaries.samples_since_ms)
    }

    /// The range and the fields of summaries from which a leaf can be told.
    fn wanted_of(&self, leaf: &Leaf) -> Option<(i64, SummaryFields)> {
        match leaf.kind {
            LeafKind::Instant | LeafKind::InstantTimestamp if leaf.extension == RangeExtension::None => {
                Some((self.setting.lookback_ms, SummaryFields::LAST))
            }
            LeafKind::OverTime { range_ms } => match &self.expr.node(leaf.node).kind {
                NodeKind::Call(call) => match call.function.implementation {
                    Implementation::OverTime(function) => {
                        Some((range_ms, fields_of(function, leaf.extension)?))
                    }
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
    }
}

impl Summarized {
    /// The spans of windows of `range_ms` at all steps, if summaries save enough or are all that is left.
    fn plan(
        grid: Grid,
        shift: Shift,
        range_ms: i64,
        fields: SummaryFields,
        SummaryTraits { grain_ms, samples_since_ms }: SummaryTraits,
    ) -> Option<Summarized> {
        let ends = (shift.apply(grid.start_ms), shift.apply(grid.end_ms()));
        let in_bounds = |time_ms: i64| (-TIME_MAX_MS..TIME_MAX_MS).contains(&time_ms);
        if grid.steps == 0
            || grid.steps > WINDOWS_MAX
            || grain_ms <= 0
            || range_ms < grain_ms
            || range_ms >= TIME_MAX_MS
        {
            return None;
        }
        let all_ms = ends.1 - ends.0 + range_ms;
        if !in_bounds(ends.0) || !in_bounds(ends.1) {
            return None;
        }
        // From the samples that are left a window could be told in part, which would be wrong.
        let lacks_samples = ends.0 - range_ms < samples_since_ms;
        if !lacks_samples && all_ms < GRAINS_MIN * grain_ms {
            return None;
        }
        let spans = spans(grid, shift, range_ms);
        let read_ms: i64 = spans.iter().map(|span| read_ms(*span, grain_ms)).sum();
        if !lacks_samples && read_ms.saturating_mul(GAIN_MIN) > all_ms {
            return None;
        }
        let window = |step| {
            let until_ms = shift.apply(grid.time(step));
            let from = spans.partition_point(|span| span.after_ms < until_ms - range_ms);
            from..spans.partition_point(|span| span.until_ms <= until_ms).max(from)
        };
        Some(Summarized { fields, windows: (0..grid.steps).map(window).collect(), spans: spans.into() })
    }
}

/// The stretches between any two neighbouring edges of windows that lie in a window.
fn spans(grid: Grid, shift: Shift, range_ms: i64) -> Vec<Span> {
    let end = |step: usize| shift.apply(grid.time(step));
    let mut edges: Vec<i64> = (0..grid.steps).flat_map(|step| [end(step) - range_ms, end(step)]).collect();
    edges.sort_unstable();
    edges.dedup();
    let mut spans = Vec::new();
    let mut step = 0;
    for pair in edges.windows(2) {
        let span = Span { after_ms: pair[0], until_ms: pair[1] };
        // The last window that begins before the span reaches furthest.
        while step + 1 < grid.steps && end(step + 1) - range_ms <= span.after_ms {
            step += 1;
        }
        if span.until_ms <= end(step) {
            spans.push(span);
        }
    }
    spans
}

/// Time whose samples are read for a span.
fn read_ms(span: Span, grain_ms: i64) -> i64 {
    let inner_from = span.after_ms.div_euclid(grain_ms) * grain_ms
        + if span.after_ms.rem_euclid(grain_ms) == 0 { 0 } else { grain_ms };
    let inner_to = span.until_ms.div_euclid(grain_ms) * grain_ms;
    let inner = (inner_to - inner_from).max(0);
    match span.length_ms() - inner {
        0 => 0,
        outer => outer + PAGE_GRAINS * grain_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRAIN: i64 = 300_000;

    fn plan(start: i64, step: i64, steps: usize, range: i64) -> Option<Summarized> {
        let grid = Grid { start_ms: start, step_ms: step, steps };
        let shift = Shift { at_ms: None, offset_ms: 0 };
        Summarized::plan(grid, shift, range, SummaryFields::COUNT, summaries(GRAIN))
    }

    fn summaries(grain_ms: i64) -> SummaryTraits {
        SummaryTraits { grain_ms, samples_since_ms: i64::MIN }
    }

    #[test]
    fn windows_whose_samples_are_gone_are_served_however_short() {
        let is_served = |start_ms, samples_since_ms, range| {
            let grid = Grid { start_ms, step_ms: 15_000, steps: 4 };
            let shift = Shift { at_ms: None, offset_ms: 0 };
            let of = SummaryTraits { grain_ms: GRAIN, samples_since_ms };
            Summarized::plan(grid, shift, range, SummaryFields::COUNT, of).is_some()
        };
        assert!(is_served(GRAIN, 1, GRAIN), "the first window begins before");
        assert!(!is_served(GRAIN, 0, GRAIN), "none does");
        assert!(!is_served(GRAIN, 1, GRAIN - 1), "shorter than anything that is kept");
    }

    #[test]
    fn long_windows_on_the_grid_and_sparse_ones_are_served() {
        let is_served = |start, step, steps, range| plan(start, step, steps, range).is_some();
        assert!(is_served(0, 24 * GRAIN, 300, 24 * GRAIN));
        // One long window off the grid, then windows off the grid.
        assert!(is_served(1, 1, 1, 100 * GRAIN));
        assert!(is_served(1, 24 * GRAIN, 300, 24 * GRAIN));
        // A selector at coarse steps, wherever they are.
        assert!(is_served(0, 24 * GRAIN, 300, GRAIN));
        assert!(is_served(17, 24 * GRAIN, 300, GRAIN));
    }

    #[test]
    fn fine_steps_and_short_ranges_read_samples() {
        let is_served = |start, step, steps, range| plan(start, step, steps, range).is_some();
        assert!(!is_served(0, 15_000, 1_000, GRAIN));
        assert!(!is_served(0, 15_000, 1_000, 100 * GRAIN));
        assert!(!is_served(0, 1, 1, GRAIN));
        assert!(!is_served(0, 24 * GRAIN, 300, GRAIN - 1));
        assert!(!is_served(i64::MIN / 2, i64::MAX / 4, 4, GRAIN));
        assert!(!is_served(0, 1, 0, 100 * GRAIN));
        // More windows than memory could hold.
        assert!(!is_served(0, 1, 9_145_440_000_000, GRAIN));
        assert!(!is_served(0, GRAIN, 30_000_000, GRAIN));
    }

    proptest! {
        #[test]
        fn spans_tile_every_window(
            start in -50i64..50, step in 1i64..40, steps in 1usize..40, range in 1i64..60, offset_ms in -9i64..9,
        ) {
            let grid = Grid { start_ms: start, step_ms: step, steps };
            let shift = Shift { at_ms: None, offset_ms };
            let found = Summarized::plan(grid, shift, range + 12, SummaryFields::COUNT, summaries(1)).unwrap();
            prop_assert!(found.spans.windows(2).all(|pair| pair[0].until_ms <= pair[1].after_ms));
            for (step, window) in found.windows.iter().enumerate() {
                let end = shift.apply(grid.time(step));
                let spans = &found.spans[window.clone()];
                prop_assert_eq!(spans[0].after_ms, end - range - 12);
                prop_assert_eq!(spans[spans.len() - 1].until_ms, end);
                prop_assert!(spans.windows(2).all(|pair| pair[0].until_ms == pair[1].after_ms));
            }
        }
    }
}
