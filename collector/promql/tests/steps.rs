//! A range query gives at every step, bit for bit, what an instant query gives at that time: windows that
//! move along, columns that are shared and values that are carried over change nothing.

use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, QueryOptions, SampleValue, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
struct Memory(Vec<SeriesColumns>);

/// Timestamps of a series, and what was cut of them.
type Cut = (Arc<[i64]>, Arc<[i64]>);

impl Storage for Memory {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let mut found = Vec::new();
        let mut shared: Option<Cut> = None;
        for series in &self.0 {
            if !selection.matchers.iter().all(|matcher| matcher.matches_labels(&series.labels)) {
                continue;
            }
            let first = series.timestamps.partition_point(|&time| time < selection.start_ms);
            let end = series.timestamps.partition_point(|&time| time <= selection.end_ms).max(first);
            if first == end {
                continue;
            }
            // Series that shared their timestamps share what is cut of them, too.
            let timestamps = match &shared {
                Some((whole, cut)) if Arc::ptr_eq(whole, &series.timestamps) => Arc::clone(cut),
                _ => series.timestamps[first..end].into(),
            };
            shared = Some((Arc::clone(&series.timestamps), Arc::clone(&timestamps)));
            budget.take(end - first)?;
            found.push(SeriesColumns::floats(
                series.labels.clone(),
                timestamps,
                series.values[first..end].to_vec(),
            ));
        }
        Ok(Box::new(found.into_iter()))
    }
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-20i32..100).prop_map(f64::from),
        3 => -1e3..1e3f64,
        1 => Just(f64::NAN),
        1 => Just(STALE_NAN),
        1 => Just(f64::INFINITY),
    ]
}

/// Three series, two of which were sampled together.
fn memory() -> impl Strategy<Value = Memory> {
    let times = || {
        prop::collection::vec(1i64..90_000, 1..40).prop_map(|gaps| {
            let mut time = -200_000;
            let times: Vec<i64> = gaps
                .into_iter()
                .map(|gap| {
                    time += gap;
                    time
                })
                .collect();
            times
        })
    };
    let values = || prop::collection::vec(value(), 40);
    (times(), times(), values(), values(), values()).prop_map(|(together, alone, a, b, c)| {
        let together: Arc<[i64]> = together.into();
        let alone: Arc<[i64]> = alone.into();
        let series = |id: &str, times: &Arc<[i64]>, values: Vec<f64>| {
            let labels = Labels::from_pairs([("__name__", "m"), ("id", id), ("le", id)]);
            SeriesColumns::floats(labels, Arc::clone(times), values[..times.len()].to_vec())
        };
        Memory(vec![series("1", &together, a), series("2", &together, b), series("+Inf", &alone, c)])
    })
}

const QUERIES: &[&str] = &[
    "m",
    "m offset 30s",
    "m offset -45s",
    "timestamp(m)",
    "rate(m[2m])",
    "increase(m[3m] offset 20s)",
    "delta(m[2m])",
    "irate(m[5m])",
    "idelta(m[5m])",
    "deriv(m[4m])",
    "predict_linear(m[4m], 60)",
    "changes(m[4m])",
    "resets(m[4m])",
    "sum_over_time(m[4m])",
    "avg_over_time(m[4m])",
    "min_over_time(m[4m])",
    "max_over_time(m[4m])",
    "ts_of_min_over_time(m[4m])",
    "ts_of_max_over_time(m[4m])",
    "count_over_time(m[90s])",
    "last_over_time(m[90s])",
    "first_over_time(m[90s])",
    "stddev_over_time(m[4m])",
    "mad_over_time(m[4m])",
    "quantile_over_time(0.3, m[4m])",
    "absent_over_time(m[20s])",
    "present_over_time(m[20s])",
    "double_exponential_smoothing(m[5m], 0.5, 0.3)",
    "increase(m[2m] anchored)",
    "changes(m[2m] anchored)",
    "rate(m[2m] smoothed)",
    "m smoothed",
    "max_over_time(rate(m[2m])[5m:40s])",
    "avg_over_time(m[3m:50s] offset 10s)",
    "sum(m)",
    "avg(m)",
    "min(m)",
    "max by (id) (m)",
    "stddev(m)",
    "quantile(0.7, m)",
    "count(m > 10)",
    "topk(1, m)",
    "bottomk(2, m)",
    "m > 20",
    "m > bool 20",
    "m * m",
    "m / on (id) group_left m offset 1m",
    "m + fill(3) (m offset 2m > 0)",
    "m and m offset 1m",
    "m unless m offset 1m",
    "m offset 1m or m",
    "absent(m > 50)",
    "scalar(sum(m)) + time()",
    "histogram_quantile(0.5, m)",
    "histogram_fraction(0, 2, m)",
    "clamp(m, 0, 10)",
    "round(m, 0.1)",
    "label_replace(m, \"id\", \"x$1\", \"id\", \"(.*)\")",
    "count_values(\"v\", m)",
    "hour(m)",
    "rate(m[2m] @ 0)",
    "m @ 10 + m",
];

type Answer = BTreeMap<String, u64>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn ranges_agree_with_instants(
        memory in memory(), start in -150_000i64..300_000, step in 1_000i64..120_000, steps in 1i64..8,
    ) {
        let engine = Engine::default();
        let options = QueryOptions::default();
        for query in QUERIES {
            let end = start + steps * step;
            let range = engine.range(&memory, query, start, end, step, &options);
            let mut instants = Vec::new();
            for index in 0..=steps {
                instants.push(engine.instant(&memory, query, start + index * step, &options));
            }
            // What fails at one time fails the whole range.
            let Ok(range) = range else {
                prop_assert!(instants.iter().any(Result::is_err), "{query}: only the range fails");
                continue;
            };
            let Value::Matrix(matrix) = range.value else { continue };
            for (index, instant) in instants.into_iter().enumerate() {
                let time = start + index as i64 * step;
                let from_range: Answer = matrix
                    .iter()
                    .flat_map(|series| series.floats.iter().map(move |sample| (series, sample)))
                    .filter(|(_, sample)| sample.timestamp_ms == time)
                    .map(|(series, sample)| (series.labels.to_string(), canonical(sample.value)))
                    .collect();
                let from_instant: Answer = match instant.map(|result| result.value) {
                    Ok(Value::Vector(vector)) => vector
                        .iter()
                        .filter_map(|sample| match sample.value {
                            SampleValue::Float(value) => Some((sample.labels.to_string(), canonical(value))),
                            SampleValue::Histogram(_) => None,
                        })
                        .collect(),
                    Ok(Value::Scalar(sample)) => [("{}".to_owned(), canonical(sample.value))].into(),
                    other => panic!("{query} at {time}: {other:?}"),
                };
                prop_assert_eq!(from_range, from_instant, "{} at {}", query, time);
            }
        }
    }
}

/// Bits of a float; all NaNs alike, as their bits depend on the order of operands.
fn canonical(value: f64) -> u64 {
    if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
}
