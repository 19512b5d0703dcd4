//! What queries cost once their samples are in memory: 1,000 series of one day at 15 s, 300 steps.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pharos_common::labels::Labels;
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, QueryOptions, parse};
use std::hint::black_box;
use std::sync::Arc;

const SERIES: usize = 1_000;
const SAMPLES: i64 = 5_760;
const INTERVAL_MS: i64 = 15_000;
const STEPS: i64 = 300;

struct Day {
    series: Vec<SeriesColumns>,
    timestamps: Arc<[i64]>,
}

impl Day {
    /// Counters with a reset now and then (`c_total`) and gauges with fractions (`g`), sampled together.
    fn new() -> Self {
        let timestamps: Arc<[i64]> = (0..SAMPLES).map(|index| index * INTERVAL_MS).collect::<Vec<_>>().into();
        let mut series = Vec::new();
        for index in 0..SERIES {
            let name = if index % 2 == 0 { "c_total" } else { "g" };
            let labels = Labels::from_pairs([
                ("__name__", name),
                ("node", &format!("node-{:03}", index / 20)),
                ("gpu", &format!("{}", index % 20)),
            ]);
            let mut counter = 0.0;
            let values = (0..SAMPLES)
                .map(|sample| {
                    if name == "g" {
                        return 40.0 + (sample as f64 * 0.01 + index as f64).sin() * 10.0;
                    }
                    counter = if sample % 3_001 == 3_000 { 0.0 } else { counter + 7.0 };
                    counter
                })
                .collect();
            series.push(SeriesColumns::floats(labels, Arc::clone(&timestamps), values));
        }
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        Day { series, timestamps }
    }
}

struct Streaming<'d> {
    day: &'d Day,
    matching: std::vec::IntoIter<usize>,
    first: usize,
    timestamps: Arc<[i64]>,
    budget: &'d Budget,
}

impl SeriesSet for Streaming<'_> {
    fn next_series(&mut self) -> Result<Option<SeriesColumns>, StorageError> {
        let Some(index) = self.matching.next() else { return Ok(None) };
        let series = &self.day.series[index];
        let range = self.first..self.first + self.timestamps.len();
        let values = series.values[range].to_vec();
        self.budget.take(values.len())?;
        Ok(Some(SeriesColumns::floats(series.labels.clone(), Arc::clone(&self.timestamps), values)))
    }
}

impl Day {
    fn parts<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
        parts: usize,
    ) -> Vec<Box<dyn SeriesSet + 's>> {
        let matches =
            |labels: &Labels| selection.matchers.iter().all(|matcher| matcher.matches_labels(labels));
        let matching: Vec<usize> =
            (0..self.series.len()).filter(|&index| matches(&self.series[index].labels)).collect();
        let first = self.timestamps.partition_point(|&time| time < selection.start_ms);
        let end = self.timestamps.partition_point(|&time| time <= selection.end_ms);
        let timestamps: Arc<[i64]> = self.timestamps[first..end.max(first)].into();
        let length = matching.len().div_ceil(parts).max(1);
        let streaming = |part: &[usize]| {
            let (matching, timestamps) = (Vec::from(part).into_iter(), Arc::clone(&timestamps));
            Box::new(Streaming { day: self, matching, first, timestamps, budget }) as Box<dyn SeriesSet + 's>
        };
        matching.chunks(length).map(streaming).collect()
    }
}

impl Storage for Day {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let mut parts = self.parts(selection, budget, 1);
        Ok(parts.pop().unwrap_or_else(|| Box::new(Vec::new().into_iter())))
    }

    fn select_parts<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
        parts: usize,
    ) -> Result<Vec<Box<dyn SeriesSet + 's>>, StorageError> {
        Ok(self.parts(selection, budget, parts))
    }
}

fn queries(criterion: &mut Criterion) {
    let day = Day::new();
    let engine = Engine::default();
    let end_ms = (SAMPLES - 1) * INTERVAL_MS;
    let step_ms = end_ms / STEPS;
    let mut group = criterion.benchmark_group("range");
    group.sample_size(10);
    for query in [
        "g",
        "rate(c_total[5m])",
        "sum by (node) (rate(c_total[5m]))",
        "max_over_time(g[1h])",
        "avg_over_time(g[5m])",
        "avg_over_time(g[1h])",
        "sum_over_time(c_total[1h])",
        "quantile_over_time(0.9, g[5m])",
        "g / on (node, gpu) group_left g",
        "topk(5, g)",
    ] {
        let expr = parse(query).ok();
        group.bench_with_input(BenchmarkId::from_parameter(query), &expr, |bencher, expr| {
            bencher.iter(|| {
                let expr = expr.as_ref()?;
                black_box(engine.range_expr(&day, expr, 0, end_ms, step_ms, &QueryOptions::default()).ok())
            });
        });
    }
    group.finish();
    let long = vec!["rate(c_total{node=~\"a.*\"}[5m]) > 0.5"; 1_000].join(" or ");
    criterion.bench_function("parse 1,000 terms", |bencher| bencher.iter(|| black_box(parse(&long).ok())));
}

criterion_group!(benches, queries);
criterion_main!(benches);
