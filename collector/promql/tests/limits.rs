//! A query that may not go on ends in Prometheus' error, and never in a partial answer.

use pharos_common::labels::Labels;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, EngineOptions, QueryError, QueryOptions, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A storage of some series with a sample every second for an hour, which a test may have cancel the
/// query after some of them.
struct Seconds {
    series: usize,
    cancel_after: Option<(usize, Arc<AtomicBool>)>,
}

const SAMPLES: i64 = 3_600;

struct Streaming<'s> {
    storage: &'s Seconds,
    budget: &'s Budget,
    timestamps: Arc<[i64]>,
    next: usize,
}

impl SeriesSet for Streaming<'_> {
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError> {
        if self.next == self.storage.series {
            return Ok(None);
        }
        if let Some((after, cancelled)) = &self.storage.cancel_after {
            cancelled.store(self.next >= *after, Ordering::Relaxed);
        }
        self.budget.check()?;
        self.budget.take(self.timestamps.len())?;
        self.next += 1;
        let labels = Labels::from_pairs([("__name__", "m"), ("id", &format!("{:06}", self.next))]);
        let values = self.timestamps.iter().map(|&timestamp| timestamp as f64).collect();
        Ok(Some(SeriesColumns::floats(labels, Arc::clone(&self.timestamps), values)))
    }
}

impl Storage for Seconds {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let inside = |timestamp: &i64| (selection.start_ms..=selection.end_ms).contains(timestamp);
        let timestamps: Arc<[i64]> =
            (0..SAMPLES).map(|second| second * 1_000).filter(inside).collect::<Vec<_>>().into();
        Ok(Box::new(Streaming { storage: self, budget, timestamps, next: 0 }))
    }
}

fn engine(max_samples: usize) -> Engine {
    Engine::new(EngineOptions { max_samples, ..EngineOptions::default() })
}

fn hour(engine: &Engine, storage: &Seconds, query: &str) -> Result<Value, QueryError> {
    let result = engine.range(storage, query, 0, SAMPLES * 1_000 - 1_000, 60_000, &QueryOptions::default());
    result.map(|result| result.value)
}

#[test]
fn a_query_holds_one_series_and_its_result_not_all_samples() {
    let storage = Seconds { series: 100, cancel_after: None };
    // 100 results of 60 steps and one series of 3,600 samples fit; 360,000 samples would not.
    let value = hour(&engine(12_000), &storage, "sum(rate(m[5m]))").unwrap();
    assert!(matches!(value, Value::Matrix(matrix) if matrix.len() == 1));
}

#[test]
fn a_query_over_its_samples_fails_whole() {
    let storage = Seconds { series: 100, cancel_after: None };
    for query in ["m", "rate(m[5m])", "m + m", "max_over_time(m[5m:1s])", "m[1h]", "1"] {
        let error = hour(&engine(50), &storage, query).map(|_| ());
        if query == "m[1h]" {
            assert!(matches!(error, Err(QueryError::NotARangeExpression { .. })));
            continue;
        }
        let error = error.unwrap_err();
        assert!(matches!(error, QueryError::TooManySamples), "{query}: {error}");
        assert_eq!(
            error.to_string(),
            "query processing would load too many samples into memory in query execution"
        );
        assert_eq!(error.error_type(), "execution");
    }
}

#[test]
fn a_query_out_of_time_times_out() {
    let storage = Seconds { series: 10, cancel_after: None };
    let options = QueryOptions { timeout: Some(Duration::ZERO), ..QueryOptions::default() };
    let error = Engine::default().instant(&storage, "m", 0, &options).unwrap_err();
    assert_eq!(error.to_string(), "query timed out in expression evaluation");
    assert_eq!(error.error_type(), "timeout");
}

#[test]
fn a_query_that_is_cancelled_stops() {
    let options = QueryOptions::default();
    let storage = Seconds { series: 1_000_000, cancel_after: Some((3, Arc::clone(&options.cancelled))) };
    let error = Engine::default().instant(&storage, "m", 0, &options).unwrap_err();
    assert_eq!(error.to_string(), "query was canceled in expression evaluation");
    assert_eq!(error.error_type(), "canceled");
}

#[test]
fn ranges_that_are_none_are_refused() {
    let run = |start, end, step| {
        let result = Engine::default().range(&(), "1", start, end, step, &QueryOptions::default());
        result.map(|_| ()).map_err(|error| error.error_type())
    };
    assert_eq!(run(0, 10, 1), Ok(()));
    assert_eq!(run(10, 0, 1), Err("bad_data"));
    assert_eq!(run(0, 10, 0), Err("bad_data"));
    let text = Engine::default().range(&(), "\"x\"", 0, 1, 1, &QueryOptions::default()).unwrap_err();
    assert_eq!(
        text.to_string(),
        "invalid expression type \"string\" for range query, must be Scalar or instant Vector"
    );
}

#[test]
fn times_at_the_ends_of_the_world_do_no_harm() {
    for time in [i64::MIN, i64::MIN + 1, -1, i64::MAX - 1, i64::MAX] {
        let storage = Seconds { series: 1, cancel_after: None };
        for query in [
            "m",
            "rate(m[5m])",
            "m offset 290y",
            "m offset -290y",
            "sum_over_time(m[1h:1m])",
            "m @ 9e15",
            "m smoothed",
            "increase(m[290y] smoothed)",
            "year()",
            "time()",
            "predict_linear(m[5m], 1e300)",
            "day_of_year(vector(1e300))",
        ] {
            let _ = Engine::default().instant(&storage, query, time, &QueryOptions::default());
            let later = time.saturating_add(10_000);
            let _ = Engine::default().range(&storage, query, time, later, 1_000, &QueryOptions::default());
        }
    }
}

#[test]
fn a_range_of_very_many_steps_is_refused_before_memory_is_filled() {
    let storage = Seconds { series: 1, cancel_after: None };
    for query in [
        "time()",
        "vector(1)",
        "m",
        "rate(m[5m])",
        "1 + time()",
        "absent(nothing)",
        "sum_over_time(m[100y:1ms])",
    ] {
        let error = engine(1_000_000)
            .range(&storage, query, 0, i64::MAX / 2, 1, &QueryOptions::default())
            .map(|_| ());
        assert!(matches!(error, Err(QueryError::TooManySamples)), "{query}: {error:?}");
    }
}

#[test]
fn a_constant_inside_a_subquery_counts_at_each_of_its_times() {
    let storage = Seconds { series: 100, cancel_after: None };
    // Steps that are too many by themselves, and values at few steps that are too many together.
    for query in [
        "sum_over_time(vector(1)[10y:1s])",
        "sum_over_time(vector(1)[1000d:1s])",
        "vector(1)[10y:1s]",
        "(m @ 0)[10y:1s]",
        "count_over_time((m @ 0)[10y:1s])",
        "max_over_time(sum_over_time(vector(1)[10y:1s])[10y:1s])",
        "absent_over_time(vector(1)[10y:1s])",
        "(m @ 0)[900s:1s]",
        "count_over_time((m @ 0)[900s:1s])",
        "count_over_time(((m @ 0) > bool 0)[900s:1s])",
        "sum_over_time((time() * (m @ 0))[900s:1s])",
    ] {
        let error = engine(80_000).instant(&storage, query, 3_000_000, &QueryOptions::default()).unwrap_err();
        assert!(matches!(error, QueryError::TooManySamples), "{query}: {error}");
    }
}

#[test]
fn what_a_subquery_held_is_free_again_after_it() {
    let storage = Seconds { series: 10, cancel_after: None };
    let one = "count_over_time((m @ 0)[900s:1s])";
    let result = engine(12_000).instant(&storage, one, 3_000_000, &QueryOptions::default()).unwrap();
    assert!(result.stats.peak_samples >= 9_000);
    let several = [one; 5].join(" + ");
    let result = engine(12_000).instant(&storage, &several, 3_000_000, &QueryOptions::default()).unwrap();
    assert!(matches!(result.value, Value::Vector(vector) if vector.len() == 10));
}

#[test]
fn a_scalar_of_one_time_is_one_at_all_times() {
    let storage = Seconds { series: 1, cancel_after: None };
    let query = "vector(scalar(m @ 7) + time())";
    let result = engine(12_000).range(&storage, query, 0, 2_000, 1_000, &QueryOptions::default()).unwrap();
    let Value::Matrix(matrix) = result.value else { panic!("no matrix") };
    let values: Vec<f64> = matrix[0].floats.iter().map(|sample| sample.value).collect();
    assert_eq!(values, [7_000.0, 7_001.0, 7_002.0]);
}

#[test]
fn counted_values_that_all_differ_count_as_series() {
    let storage = Seconds { series: 1, cancel_after: None };
    let run = |max_samples| {
        let options = QueryOptions::default();
        engine(max_samples).range(&storage, "count_values(\"v\", m)", 0, 3_599_000, 1_000, &options)
    };
    let Value::Matrix(matrix) = run(100_000).unwrap().value else { panic!("no matrix") };
    assert_eq!(matrix.len(), 3_600);
    let error = run(20_000).unwrap_err();
    assert!(matches!(error, QueryError::TooManySamples), "{error}");
}

#[test]
fn labels_that_grow_and_grow_are_refused() {
    let storage = Seconds { series: 1, cancel_after: None };
    let grown =
        |levels: usize, start: &str, end: &str| format!("{}m{}", start.repeat(levels), end.repeat(levels));
    for (start, end) in [
        ("label_replace(", ", \"id\", \"$1$1\", \"id\", \"(.*)\")"),
        ("label_join(", ", \"id\", \"\", \"id\", \"id\")"),
    ] {
        let run = |levels| {
            let query = grown(levels, start, end);
            engine(4_000).instant(&storage, &query, 3_000_000, &QueryOptions::default())
        };
        let Value::Vector(vector) = run(6).unwrap().value else { panic!("no vector") };
        assert_eq!(vector[0].labels.get("id").map(str::len), Some(6 << 6));
        let error = run(60).unwrap_err();
        assert!(matches!(error, QueryError::TooManySamples), "{error}");
    }
}

/// A storage of these series.
struct Fixed(Vec<SeriesColumns>);

impl Storage for Fixed {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let is_wanted = |series: &&SeriesColumns| {
            selection.matchers.iter().all(|matcher| matcher.matches_labels(&series.labels))
        };
        let series: Vec<SeriesColumns> = self.0.iter().filter(is_wanted).cloned().collect();
        budget.take(series.iter().map(SeriesColumns::cost).sum())?;
        Ok(Box::new(series.into_iter()))
    }
}

#[test]
fn series_of_info_metrics_count_at_each_step() {
    let series = |labels: &[(&str, &str)]| {
        SeriesColumns::floats(Labels::from_pairs(labels.iter().copied()), vec![0].into(), vec![1.0])
    };
    let mut all = vec![series(&[("__name__", "m"), ("instance", "a")])];
    for job in 0..100 {
        all.push(series(&[("__name__", "target_info"), ("instance", "a"), ("job", &format!("{job:02}"))]));
    }
    let storage = Fixed(all);
    let run =
        |max_samples| engine(max_samples).range(&storage, "info(m)", 0, 999, 1, &QueryOptions::default());
    assert!(run(102_000).unwrap().stats.peak_samples >= 100_000);
    let error = run(50_000).unwrap_err();
    assert!(matches!(error, QueryError::TooManySamples), "{error}");
}

#[test]
fn series_that_become_one_count_with_the_gap_between_them() {
    let series = |name: &str, id: usize, timestamp_ms: i64| {
        let labels = Labels::from_pairs([("__name__", name), ("id", &format!("{id:02}"))]);
        SeriesColumns::floats(labels, vec![timestamp_ms].into(), vec![1.0])
    };
    let early = (0..100).map(|id| series("early", id, 0));
    let late = (0..100).map(|id| series("late", id, 3_600_000));
    let storage = Fixed(early.chain(late).collect());
    let run = |max_samples, query: &str| {
        engine(max_samples).range(&storage, query, 0, 3_600_000, 1_000, &QueryOptions::default())
    };
    for query in [
        "{id=~\".+\"} + 0",
        "sum by (id) ({id=~\".+\"})",
        "label_replace({id=~\".+\"}, \"__name__\", \"both\", \"\", \"\")",
        "sum by (id) ({id=~\".+\"}) * on (id) group_left () ({id=~\".+\"} * 0)",
    ] {
        let Value::Matrix(matrix) = run(1_000_000, query).unwrap().value else { panic!("no matrix") };
        assert_eq!(matrix.len(), 100, "{query}");
        let error = run(100_000, query).unwrap_err();
        assert!(matches!(error, QueryError::TooManySamples), "{query}: {error}");
    }
}
