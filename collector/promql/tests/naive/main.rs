//! Whatever way the engine plans and slides, the answer is what a naive evaluation gives: sample by sample,
//! step by step. With start timestamps or without.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

mod evaluate;
mod query;

use evaluate::{Data, Labels, Samples, Starts, Vector, evaluate};
use pharos_common::sample::STALE_NAN;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, EngineOptions, QueryOptions, SampleValue, Value};
use proptest::prelude::*;

struct Memory(Data);

impl Storage for Memory {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let mut found = Vec::new();
        for (own, samples) in &self.0.samples {
            let labels = pharos_common::labels::Labels::from_pairs(own.iter());
            let inside = selection.start_ms..=selection.end_ms;
            let (timestamps, values): (Vec<i64>, Vec<f64>) =
                samples.iter().filter(|sample| inside.contains(&sample.0)).copied().unzip();
            if !values.is_empty() && selection.matchers.iter().all(|matcher| matcher.matches_labels(&labels))
            {
                budget.take(values.len())?;
                let mut series = SeriesColumns::floats(labels, timestamps.into(), values);
                if let Some(starts) = self.0.starts.get(own).filter(|_| selection.hints.starts) {
                    let told = starts.iter().map(|(at_ms, start_ms)| (*at_ms, *start_ms));
                    series.starts =
                        pharos_common::starts::Starts::of(series.timestamps.iter().copied(), told);
                }
                found.push(series);
            }
        }
        Ok(Box::new(found.into_iter()))
    }
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (-5i32..40).prop_map(f64::from),
        3 => -1e2..1e2f64,
        1 => Just(f64::NAN),
        1 => Just(STALE_NAN),
        1 => prop::sample::select(vec![f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0]),
    ]
}

fn samples() -> impl Strategy<Value = Vec<(i64, f64)>> {
    prop::collection::vec((1i64..40, value()), 0..40).prop_map(|steps| {
        let mut time_ms = -100_000i64;
        steps
            .into_iter()
            .map(|(gap, value)| {
                // Half of the samples lie on whole seconds, on the edges of windows.
                time_ms += if gap % 2 == 0 { gap * 1_000 - time_ms.rem_euclid(1_000) } else { gap * 777 };
                (time_ms, value)
            })
            .collect()
    })
}

/// Start timestamps, told from sample to sample: none, as before, that of the sample before, or some time around.
fn starts(samples: &[(i64, f64)], told: &[(u8, i64)]) -> Starts {
    let mut starts = Starts::new();
    let (mut before_ms, mut as_before) = (None, None);
    for ((at_ms, _), (way, by_ms)) in samples.iter().zip(told) {
        as_before = match way {
            0 => None,
            1 => before_ms,
            2 => Some(at_ms - by_ms),
            _ => as_before,
        };
        before_ms = Some(*at_ms);
        starts.extend(as_before.map(|start_ms| (*at_ms, start_ms)));
    }
    starts
}

fn data() -> impl Strategy<Value = Data> {
    let told = prop::collection::vec(prop::collection::vec((0u8..6, -5_000i64..120_000), 40), 4);
    let told = prop_oneof![told, Just(Vec::new())];
    (series(), told).prop_map(|(samples, told)| {
        let with_told = told.into_iter().zip(&samples);
        let starts = with_told.map(|(told, (labels, own))| (labels.clone(), starts(own, &told))).collect();
        Data { samples, starts }
    })
}

fn series() -> impl Strategy<Value = Samples> {
    let names = [("1", "0"), ("1", "1"), ("2", "0"), ("3", "0")];
    prop::collection::vec(samples(), names.len()).prop_map(move |all| {
        let labels = |(id, cpu): (&str, &str)| {
            Labels::from([("kind", "m"), ("id", id), ("cpu", cpu)].map(|(a, b)| (a.to_owned(), b.to_owned())))
        };
        names.into_iter().map(labels).zip(all).collect()
    })
}

fn is_near(a: f64, b: f64) -> bool {
    a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

fn text_of(labels: &Labels) -> String {
    pharos_common::labels::Labels::from_pairs(labels.iter()).to_string()
}

/// What is different at one time, if anything.
fn difference(found: &[(String, f64)], want: &Vector) -> Option<String> {
    let mut found: Vec<_> = found.to_vec();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut want: Vec<_> = want.iter().map(|(labels, &value)| (text_of(labels), value)).collect();
    want.sort_by(|a, b| a.0.cmp(&b.0));
    let same =
        found.len() == want.len() && found.iter().zip(&want).all(|(a, b)| a.0 == b.0 && is_near(a.1, b.1));
    (!same).then(|| format!("found {found:?}, want {want:?}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_engine_agrees_with_a_naive_evaluation(
        data in data(), query in query::query(),
        start_ms in prop_oneof![(-100i64..700).prop_map(|second| second * 1_000), -100_000i64..700_000],
        step_ms in 1_000i64..90_000, steps in 0i64..6,
    ) {
        // Nobody is told starts that nobody uses.
        let use_start_timestamps = !data.starts.is_empty();
        let engine = Engine::new(EngineOptions { use_start_timestamps, ..EngineOptions::default() });
        let options = QueryOptions::default();
        let text = query.text();
        let times: Vec<i64> = (0..=steps).map(|step| start_ms + step * step_ms).collect();
        let wants: Vec<_> = times.iter().map(|&time_ms| evaluate(&query, &data, time_ms)).collect();
        // Between the windows of a subquery, what is inside may fail where no window reaches.
        let fails_between = |from_ms: i64, to_ms: i64| {
            let by_s = (to_ms - from_ms + 999) / 1_000;
            evaluate(&query.without_gaps(by_s), &data, to_ms).is_err()
        };
        let fail_between: Vec<bool> = times.iter().map(|&time_ms| fails_between(time_ms, time_ms)).collect();
        let range_fails_between = fails_between(start_ms, start_ms + steps * step_ms);
        let memory = Memory(data);
        for ((&time_ms, want), fails_between) in times.iter().zip(&wants).zip(fail_between) {
            let found = engine.instant(&memory, &text, time_ms, &options).map(|result| result.value);
            match (found, want) {
                (Ok(Value::Vector(found)), Ok(want)) => {
                    let found: Vec<(String, f64)> = found
                        .iter()
                        .map(|sample| match sample.value {
                            SampleValue::Float(value) => (sample.labels.to_string(), value),
                            SampleValue::Histogram(_) => panic!("{text}: a histogram"),
                        })
                        .collect();
                    let difference = difference(&found, want);
                    prop_assert!(difference.is_none(), "{text} at {time_ms}: {difference:?}");
                }
                (Err(_), Err(_)) => {}
                (Err(_), Ok(_)) if fails_between => {}
                (found, want) => prop_assert!(false, "{text} at {time_ms}: {found:?} for {want:?}"),
            }
        }
        // What fails at one time fails the range.
        let range = engine.range(&memory, &text, start_ms, start_ms + steps * step_ms, step_ms, &options);
        if wants.iter().any(Result::is_err) {
            prop_assert!(range.is_err(), "{text}: only instants fail");
            return Ok(());
        }
        let range = match range.map(|result| result.value) {
            Ok(Value::Matrix(range)) => range,
            Err(_) if range_fails_between => return Ok(()),
            other => panic!("{text}: {other:?}"),
        };
        for (&time_ms, want) in times.iter().zip(wants) {
            let found: Vec<(String, f64)> = range
                .iter()
                .flat_map(|series| series.floats.iter().map(move |sample| (series, sample)))
                .filter(|(_, sample)| sample.timestamp_ms == time_ms)
                .map(|(series, sample)| (series.labels.to_string(), sample.value))
                .collect();
            let difference = difference(&found, &want.unwrap());
            prop_assert!(difference.is_none(), "{text}, range, at {time_ms}: {difference:?}");
        }
    }
}
