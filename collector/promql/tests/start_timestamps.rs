//! Start timestamps in queries: what `start_timestamp` shows, what functions of counters make of them where they are
//! used, and what storages are asked for.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use pharos_common::starts::Starts;
use pharos_promql::storage::{
    Budget, HistogramSample, Selection, SeriesColumns, SeriesSet, Storage, StorageError,
};
use pharos_promql::{Engine, EngineOptions, QueryOptions, SampleValue, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MINUTE_MS: i64 = 60_000;

/// Series in memory, which are told their start timestamps only if those are asked for.
#[derive(Default)]
struct Memory {
    series: Vec<SeriesColumns>,
    were_asked: AtomicBool,
}

impl Storage for Memory {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        self.were_asked.fetch_or(selection.hints.starts, Ordering::Relaxed);
        let mut found = Vec::new();
        let is_inside = |time_ms: i64| (selection.start_ms..=selection.end_ms).contains(&time_ms);
        for series in &self.series {
            if !selection.matchers.iter().all(|matcher| matcher.matches_labels(&series.labels)) {
                continue;
            }
            let floats = series.timestamps.iter().copied().zip(series.values.iter().copied());
            let (timestamps, values): (Vec<_>, Vec<_>) =
                floats.filter(|(at_ms, _)| is_inside(*at_ms)).unzip();
            let mut histograms = series.histograms.clone();
            histograms.retain(|sample| is_inside(sample.timestamp_ms));
            let mut inside = SeriesColumns::floats(series.labels.clone(), timestamps.into(), values);
            inside.histograms = histograms;
            if selection.hints.starts {
                inside.starts = series.starts.clone();
            }
            budget.take(inside.cost())?;
            if inside.cost() > 0 {
                found.push(inside);
            }
        }
        Ok(Box::new(found.into_iter()))
    }
}

/// A sample: when it was taken, its value, and its start timestamp.
type Row = (i64, f64, Option<i64>);

impl Memory {
    /// Adds a series of floats.
    fn with(mut self, name: &str, kind: &str, rows: &[Row]) -> Self {
        let labels = Labels::from_pairs([("__name__", name), ("kind", kind)]);
        let (timestamps, values): (Vec<_>, Vec<_>) = rows.iter().map(|row| (row.0, row.1)).unzip();
        let mut series = SeriesColumns::floats(labels, timestamps.into(), values);
        series.starts = starts(rows);
        self.series.push(series);
        self
    }

    /// Adds a series of native histograms that have seen so many observations of 1.
    fn with_histograms(mut self, name: &str, kind: &str, rows: &[Row]) -> Self {
        let labels = Labels::from_pairs([("__name__", name), ("kind", kind)]);
        let mut series = SeriesColumns::floats(labels, Vec::new().into(), Vec::new());
        let histogram = |count: f64| FloatHistogram { count, sum: count, ..FloatHistogram::default() };
        let sample =
            |row: &Row| HistogramSample { timestamp_ms: row.0, histogram: Arc::new(histogram(row.1)) };
        series.histograms = rows.iter().map(sample).collect();
        series.starts = starts(rows);
        self.series.push(series);
        self
    }

    /// The values of a query at a time, with the kinds of series that have them.
    fn ask(&self, engine: &Engine, query: &str, at_ms: i64) -> Vec<(String, f64)> {
        let result = engine.instant(self, query, at_ms, &QueryOptions::default()).unwrap();
        let Value::Vector(vector) = result.value else { unreachable!("{query} is a vector") };
        let value = |value: &SampleValue| match value {
            SampleValue::Float(value) => *value,
            SampleValue::Histogram(histogram) => histogram.count,
        };
        vector.iter().map(|sample| (sample.labels.to_string(), value(&sample.value))).collect()
    }
}

fn starts(rows: &[Row]) -> Starts {
    let told = rows.iter().filter_map(|&(at_ms, _, start_ms)| Some((at_ms, start_ms?)));
    Starts::of(rows.iter().map(|row| row.0), told)
}

/// A counter that was restarted after two minutes, and a series of which nobody told since when it counts.
fn restarted() -> Memory {
    let counter = [
        (MINUTE_MS, 5.0, Some(1_500)),
        (2 * MINUTE_MS, 9.0, Some(1_500)),
        (3 * MINUTE_MS, 9.0, Some(150_000)),
        (4 * MINUTE_MS, 9.0, None),
        (5 * MINUTE_MS, STALE_NAN, None),
    ];
    Memory::default().with("hits_total", "told", &counter).with(
        "hits_total",
        "untold",
        &[(MINUTE_MS, 5.0, None)],
    )
}

#[track_caller]
fn check(memory: &Memory, query: &str, at_ms: i64, want: &[(&str, f64)]) {
    let found = memory.ask(&Engine::default(), query, at_ms);
    let found: Vec<(&str, f64)> = found.iter().map(|(labels, value)| (labels.as_str(), *value)).collect();
    assert_eq!(found, want, "{query} at {at_ms}");
}

const TOLD: &str = r#"{kind="told"}"#;
const UNTOLD: &str = r#"{kind="untold"}"#;

#[test]
fn the_start_timestamp_of_a_sample_is_shown_in_seconds_and_0_where_nobody_told_it() {
    let memory = restarted();
    let query = "start_timestamp(hits_total)";
    check(&memory, query, MINUTE_MS, &[(TOLD, 1.5), (UNTOLD, 0.0)]);
    check(&memory, query, 2 * MINUTE_MS + 30_000, &[(TOLD, 1.5), (UNTOLD, 0.0)]);
    check(&memory, query, 3 * MINUTE_MS, &[(TOLD, 150.0), (UNTOLD, 0.0)]);
    check(&memory, query, 4 * MINUTE_MS, &[(TOLD, 0.0), (UNTOLD, 0.0)]);
    // A series that is gone has none, nor one that is not there yet.
    check(&memory, query, 5 * MINUTE_MS, &[(UNTOLD, 0.0)]);
    check(&memory, query, MINUTE_MS - 1, &[]);
    // Whoever wants samples without one, or those with one.
    check(&memory, "start_timestamp(hits_total) == 0", MINUTE_MS, &[(UNTOLD, 0.0)]);
    check(&memory, "time() - (start_timestamp(hits_total) != 0)", MINUTE_MS, &[(TOLD, 58.5)]);
}

#[test]
fn modifiers_say_of_which_sample_the_start_timestamp_is() {
    let memory = restarted();
    check(&memory, r#"start_timestamp(hits_total{kind="told"} offset 2m)"#, 5 * MINUTE_MS, &[(TOLD, 150.0)]);
    check(&memory, r#"start_timestamp((hits_total{kind="told"} @ 60))"#, 5 * MINUTE_MS, &[(TOLD, 1.5)]);
    check(&memory, "max(start_timestamp(hits_total))", 3 * MINUTE_MS, &[("{}", 150.0)]);
    // The value and its start, of the same series.
    let query = "hits_total + on (kind) start_timestamp(hits_total)";
    check(&memory, query, 3 * MINUTE_MS, &[(TOLD, 159.0), (UNTOLD, 5.0)]);
}

#[test]
fn what_is_computed_has_no_start_timestamp() {
    let memory = restarted();
    for query in [
        "start_timestamp(-hits_total)",
        "start_timestamp(sum(hits_total))",
        "start_timestamp(vector(1))",
        "start_timestamp(hits_total smoothed)",
    ] {
        check(&memory, query, 3 * MINUTE_MS, &[]);
    }
    let wrong = Engine::default().instant(&memory, "start_timestamp(1)", 0, &QueryOptions::default());
    assert!(wrong.is_err());
}

#[test]
fn native_histograms_have_start_timestamps_too() {
    let rows = [(MINUTE_MS, 1.0, Some(7_000)), (2 * MINUTE_MS, 2.0, None)];
    let memory = Memory::default().with_histograms("latency", "told", &rows);
    check(&memory, "start_timestamp(latency)", MINUTE_MS, &[(TOLD, 7.0)]);
    check(&memory, "start_timestamp(latency)", 2 * MINUTE_MS, &[(TOLD, 0.0)]);
}

#[test]
fn a_range_of_times_is_answered_like_each_of_them() {
    let memory = restarted();
    let (engine, options) = (Engine::default(), QueryOptions::default());
    let query = "start_timestamp(hits_total)";
    let range = engine.range(&memory, query, 0, 5 * MINUTE_MS, 20_000, &options).unwrap();
    let Value::Matrix(matrix) = range.value else { unreachable!("a range is a matrix") };
    for at_ms in (0..=5 * MINUTE_MS).step_by(20_000) {
        let of_series = |series: &pharos_promql::MatrixSeries| {
            let sample = series.floats.iter().find(|sample| sample.timestamp_ms == at_ms)?;
            Some((series.labels.to_string(), sample.value))
        };
        let at_once: Vec<_> = matrix.iter().filter_map(of_series).collect();
        assert_eq!(at_once, memory.ask(&engine, query, at_ms), "at {at_ms}");
    }
}

#[test]
fn start_timestamps_are_read_for_those_who_look_at_them_only() {
    #[track_caller]
    fn check(query: &str, want: bool) {
        let memory = restarted();
        memory.ask(&Engine::default(), query, 3 * MINUTE_MS);
        assert_eq!(memory.were_asked.into_inner(), want, "{query}");
    }
    check("start_timestamp(hits_total)", true);
    // Both read together.
    check("hits_total + on (kind) start_timestamp(hits_total)", true);
    check("hits_total", false);
    check("timestamp(hits_total)", false);
    check("start_timestamp(-hits_total)", false);
    check("rate(hits_total[5m])", false);
    check("irate(hits_total[5m])", false);
    check("increase(hits_total[5m]) + resets(hits_total[5m])", false);
}

/// An engine whose functions of counters look at start timestamps.
fn using_starts() -> Engine {
    Engine::new(EngineOptions { use_start_timestamps: true, ..EngineOptions::default() })
}

/// Checks the value of a query of `x` for a counter of floats and for one of native histograms, which count alike;
/// `None` if it has none.
#[track_caller]
fn check_counter(rows: &[Row], query: &str, at_ms: i64, want: Option<f64>) {
    let memory = Memory::default().with("x", "float", rows);
    let histograms = Memory::default().with_histograms("x", "histogram", rows);
    for memory in [memory, histograms] {
        let found = memory.ask(&using_starts(), query, at_ms).pop();
        let is_near = match (&found, want) {
            (Some((_, found)), Some(want)) => (found - want).abs() < 1e-9,
            (found, want) => found.is_none() && want.is_none(),
        };
        assert!(is_near, "{query} at {at_ms}: found {found:?}, want {want:?}");
    }
}

/// A sample a minute from the first on.
fn each_minute(samples: &[(f64, Option<i64>)]) -> Vec<Row> {
    let row = |(minute, sample): (i64, &(f64, Option<i64>))| (minute * MINUTE_MS, sample.0, sample.1);
    (1..).zip(samples).map(row).collect()
}

#[test]
fn a_restart_that_values_do_not_show_is_a_reset() {
    let (first, second) = (Some(-10 * MINUTE_MS), Some(150_000));
    let rows = each_minute(&[(10.0, first), (20.0, first), (30.0, second), (40.0, second)]);
    let at_ms = 4 * MINUTE_MS;
    // 30 from the first to the last, the 20 of before the reset, and a quarter of a sample's way at the start.
    check_counter(&rows, "increase(x[195s])", at_ms, Some(50.0 * 195.0 / 180.0));
    check_counter(&rows, "rate(x[195s])", at_ms, Some(50.0 / 180.0));
    check_counter(&rows, "resets(x[195s])", at_ms, Some(1.0));
    check_counter(&rows, "irate(x[195s])", at_ms, Some(10.0 / 60.0));
    check_counter(&rows, "irate(x[195s])", 3 * MINUTE_MS, Some(30.0 / 60.0));
    // Resets outside of a window are none of its business.
    check_counter(&rows, "resets(x[90s])", at_ms, Some(0.0));
    check_counter(&rows, "resets(x[195s])", 2 * MINUTE_MS, Some(0.0));
    // Neither are there any if nobody looks.
    let memory = Memory::default().with("x", "told", &rows);
    check(&memory, "resets(x[195s])", at_ms, &[(TOLD, 0.0)]);
    check(&memory, "irate(x[195s])", 3 * MINUTE_MS, &[(TOLD, 10.0 / 60.0)]);
}

#[test]
fn a_restart_that_values_show_too_counts_once() {
    let rows = each_minute(&[(10.0, Some(-MINUTE_MS)), (20.0, Some(-MINUTE_MS)), (5.0, Some(150_000))]);
    check_counter(&rows, "resets(x[170s])", 3 * MINUTE_MS, Some(1.0));
    check_counter(&rows, "increase(x[130s])", 3 * MINUTE_MS, Some(15.0 * 130.0 / 120.0));
}

#[test]
fn a_counter_that_began_within_the_window_was_zero_then() {
    #[track_caller]
    fn check(values: &[(f64, Option<i64>)], at_minute: i64, want: Option<f64>) {
        check_counter(&each_minute(values), "increase(x[5m])", at_minute * MINUTE_MS, want);
    }
    let began = Some(30_000);
    // All that it counted, and nothing before it began.
    check(&[(1.0, began), (2.0, began), (3.0, began), (4.0, began), (5.0, began)], 5, Some(5.0));
    // Towards the end it is taken to go on as ever: 210 seconds of counting, and 60 or 30 more.
    check(&[(1.0, began), (2.0, began), (3.0, began), (4.0, began)], 5, Some(4.0 * 270.0 / 210.0));
    check(&[(1.0, began), (2.0, began), (3.0, began)], 5, Some(3.0 * 180.0 / 150.0));
    // A single sample will do, for as far as it reaches.
    check(&[(3.0, began)], 5, Some(3.0));
    check(&[(3.0, began)], 1, Some(3.0));
    // But not if it began with the window or before, at the sample itself or after it, or if nobody knows.
    check(&[(3.0, Some(0))], 5, None);
    check(&[(3.0, Some(-1))], 5, None);
    check(&[(3.0, Some(MINUTE_MS))], 5, None);
    check(&[(3.0, Some(MINUTE_MS + 1))], 5, None);
    check(&[(3.0, None)], 5, None);
    // Then the start is guessed, as ever.
    check(&[(10.0, None), (11.0, None)], 5, Some(2.5));
    let rate = |rows: &[Row]| check_counter(rows, "rate(x[5m])", 5 * MINUTE_MS, Some(3.0 / 300.0));
    rate(&each_minute(&[(3.0, began)]));
    // Resets before the first sample and after it come together.
    let rows = each_minute(&[(5.0, Some(1)), (5.0, Some(119_000)), (2.0, None)]);
    check_counter(&rows, "increase(x[3m])", 3 * MINUTE_MS, Some(12.0));
}

#[test]
fn deltas_add_up_whatever_way_their_start_is_told() {
    let deltas = |start_ms: fn(i64) -> Option<i64>| -> Vec<Row> {
        (1..=10).map(|minute| (minute * MINUTE_MS, 60.0, start_ms(minute * MINUTE_MS))).collect()
    };
    #[track_caller]
    fn check(rows: &[Row], increase: f64) {
        let at_ms = 10 * MINUTE_MS;
        check_counter(rows, "increase(x[5m])", at_ms, Some(increase));
        check_counter(rows, "rate(x[5m])", at_ms, Some(increase / 300.0));
        check_counter(rows, "irate(x[5m])", at_ms, Some(increase / 300.0));
        check_counter(rows, "resets(x[5m])", at_ms, Some(if increase > 0.0 { 4.0 } else { 0.0 }));
    }
    // When the one before was taken, a moment later, or just before itself.
    check(&deltas(|at_ms| Some(at_ms - MINUTE_MS)), 300.0);
    check(&deltas(|at_ms| Some(at_ms - MINUTE_MS + 1)), 300.0);
    check(&deltas(|at_ms| Some(at_ms - 1)), 300.0);
    // A start at the sample itself says that it is not known.
    check(&deltas(Some), 0.0);
    check(&deltas(|_| None), 0.0);
}

#[test]
fn a_counter_whose_start_nobody_knew_is_no_delta() {
    // From its second sample on it tells the time of the first for its start.
    for first in [None, Some(MINUTE_MS), Some(2 * MINUTE_MS)] {
        let rows = each_minute(&[(1.0, first), (1.0, Some(MINUTE_MS))]);
        check_counter(&rows, "resets(x[90s])", 2 * MINUTE_MS, Some(0.0));
        check_counter(&rows, "increase(x[61s])", 2 * MINUTE_MS, Some(0.0));
    }
}

#[test]
fn what_is_computed_or_reaches_over_the_edge_tells_no_start() {
    let rows = each_minute(&[(10.0, Some(1)), (20.0, Some(1)), (30.0, Some(150_000)), (40.0, Some(150_000))]);
    let memory = Memory::default().with("x_total", "told", &rows);
    for query in [
        "increase(x_total[4m:1m])",
        "resets(x_total[4m:1m])",
        "increase(x_total[3m] anchored)",
        "rate(x_total[3m] smoothed)",
        "resets(x_total[3m] anchored)",
        "delta(x_total[3m])",
        "idelta(x_total[3m])",
        "changes(x_total[3m])",
    ] {
        let without = memory.ask(&Engine::default(), query, 4 * MINUTE_MS);
        assert_eq!(memory.ask(&using_starts(), query, 4 * MINUTE_MS), without, "{query}");
        assert_eq!(without.len(), 1, "{query}");
    }
    assert!(!memory.were_asked.into_inner());
}

#[test]
fn starts_that_are_read_for_another_change_nothing_unless_they_are_used() {
    let rows = each_minute(&[(10.0, Some(1)), (20.0, Some(1)), (30.0, Some(150_000)), (40.0, Some(150_000))]);
    let memory = Memory::default().with("x", "told", &rows);
    let query = "increase(x[5m]) + on (kind) 0 * start_timestamp(x)";
    let alone = memory.ask(&Engine::default(), "increase(x[5m])", 4 * MINUTE_MS);
    assert_eq!(memory.ask(&Engine::default(), query, 4 * MINUTE_MS), alone);
    assert_ne!(memory.ask(&using_starts(), query, 4 * MINUTE_MS), alone);
}

#[test]
fn stale_markers_between_samples_hide_no_restart() {
    let rows =
        each_minute(&[(10.0, Some(1)), (STALE_NAN, None), (30.0, Some(150_000)), (40.0, Some(150_000))]);
    let memory = Memory::default().with("x", "told", &rows);
    assert_eq!(memory.ask(&using_starts(), "resets(x[5m])", 4 * MINUTE_MS), [(TOLD.to_owned(), 1.0)]);
}
