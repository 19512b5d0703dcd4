//! What a query cost, where it is told: in answers, in the query log and in metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::ManualClock;
use serde_json::{Value, json};
use std::path::Path;
use support::{TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;

/// Two series with a sample every ten seconds for ten minutes.
fn samples() -> String {
    let at = |age: i64| NOW_MS - age * 10_000;
    (0..60).map(|age| format!("m{{i=\"0\"}} 1 {0}\nm{{i=\"1\"}} 2 {0}\n", at(age))).collect()
}

async fn collector(options: pharos_collector::Options) -> TestCollector {
    let collector = TestCollector::start_with(options, ManualClock::new(NOW_MS)).await;
    assert_eq!(collector.import(samples()).await, 204);
    collector
}

async fn stats(collector: &TestCollector, query: &str, more: &[(&str, &str)]) -> Value {
    let (endpoint, time) = match more {
        [] => ("query", vec![("time", "1700000000")]),
        more => ("query_range", more.to_vec()),
    };
    let form: Vec<_> = [("query", query), ("stats", "all")].into_iter().chain(time).collect();
    let (status, mut body) = collector.post(&format!("/api/v1/{endpoint}"), &form).await;
    assert_eq!(status, 200, "{body}");
    body["data"]["stats"].take()
}

#[tokio::test]
async fn samples_are_counted_by_the_step_as_prometheus_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(options(folder.path())).await;
    let range = [("start", "1699999880"), ("end", "1700000000"), ("step", "60")];
    let check = async |query: &str, want: [u64; 3]| {
        let stats = stats(&collector, query, &range).await;
        let samples = &stats["samples"];
        let steps = [1_699_999_880, 1_699_999_940, 1_700_000_000];
        let want: Vec<Value> =
            steps.iter().zip(want).map(|(step, count)| json!([*step as f64, count])).collect();
        assert_eq!(samples["totalQueryableSamplesPerStep"], json!(want), "{query}");
    };
    check("m", [2, 2, 2]).await;
    check("sum(rate(m[1m])) + count(m)", [14, 14, 14]).await;
    check("timestamp(m{i=\"0\"})", [1, 1, 1]).await;
    check("m @ 1700000000", [2, 2, 2]).await;
    check("vector(1) + time()", [0, 0, 0]).await;
    // A subquery's samples count where the function around it looks at them.
    check("max_over_time(m[1m:20s])", [6, 6, 6]).await;
    let instant = stats(&collector, "m[1m:20s]", &[]).await;
    assert_eq!(instant["samples"]["totalQueryableSamplesPerStep"], json!([[1_700_000_000.0, 6]]));
    let instant = stats(&collector, "m[1m]", &[]).await;
    assert_eq!(instant["samples"]["totalQueryableSamples"], 12);
    for slice in ["evalTotalTime", "resultSortTime", "queryPreparationTime", "innerEvalTime", "execQueueTime"]
    {
        assert!(instant["timings"][slice].as_f64().is_some_and(|seconds| seconds >= 0.0), "{slice}");
    }
    collector.stop().await;
}

#[tokio::test]
async fn every_sample_is_decoded_once_however_often_a_query_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(options(folder.path())).await;
    let range = [("start", "1699999700"), ("end", "1700000000"), ("step", "10")];
    let once = stats(&collector, "rate(m[4m])", &range).await["reads"].clone();
    // Of 60 samples of either series all but the oldest are wanted; pages are decoded whole.
    let samples = |reads: &Value, from: &str| reads[from].as_u64().unwrap();
    assert!((108..=120).contains(&samples(&once, "headSamples")), "{once}");
    let query = "sum(rate(m[4m])) / count(m) + max(max_over_time(m[2m])) + scalar(sum(m offset 1m)) + \
        quantile(0.5, avg_over_time(m[3m]))";
    let reads = stats(&collector, query, &range).await["reads"].clone();
    assert!((108..=120).contains(&samples(&reads, "headSamples")), "{reads}");
    // The same from a block.
    assert_eq!(collector.get("/api/v1/admin/tsdb/flush").await.0, 200);
    let reads = stats(&collector, query, &range).await["reads"].clone();
    assert_eq!((samples(&reads, "headSamples"), &reads["series"]), (0, &json!(2)), "{reads}");
    assert!((108..=120).contains(&samples(&reads, "blockSamples")), "{reads}");
    assert!(samples(&reads, "blocks") > 0, "{reads}");
    collector.stop().await;
}

/// The lines of a log once there are so many.
async fn lines(path: &Path, count: usize) -> Vec<Value> {
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.ends_with('\n') && text.lines().count() >= count {
            return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn queries_are_logged_with_who_asked_and_what_it_cost() {
    let folder = tempfile::tempdir().unwrap();
    let (log, moved) = (folder.path().join("query.log"), folder.path().join("query.log.1"));
    let options = pharos_collector::Options {
        query: pharos_collector::QueryFlags { log_file: Some(log.clone()), ..Default::default() },
        ..options(folder.path())
    };
    let collector = collector(options).await;
    collector.data("/api/v1/query?query=m&time=1700000000").await;
    assert_eq!(collector.get("/api/v1/query?query=m%2Bon()m").await.0, 422);
    let logged = lines(&log, 2).await;
    assert_eq!(
        logged[0]["params"],
        json!({"query": "m", "start": "2023-11-14T22:13:20.000Z", "end": "2023-11-14T22:13:20.000Z", "step": 0})
    );
    assert_eq!(
        logged[0]["httpRequest"],
        json!({"clientIP": "127.0.0.1", "method": "GET", "path": "/api/v1/query"})
    );
    assert_eq!(logged[0]["ts"], "2023-11-14T22:13:20.000Z");
    assert_eq!(logged[0]["stats"]["samples"]["totalQueryableSamples"], 2);
    assert!(logged[1]["error"].as_str().unwrap().contains("found duplicate series"), "{}", logged[1]);
    // Rotation: move it away, reload.
    std::fs::rename(&log, &moved).unwrap();
    let reload = collector.client.post(format!("{}/-/reload", collector.url)).send().await.unwrap();
    assert_eq!(reload.status(), 200);
    collector.data("/api/v1/query?query=1").await;
    assert_eq!(lines(&log, 1).await[0]["params"]["query"], "1");
    assert_eq!(lines(&moved, 2).await.len(), 2);
    collector.stop().await;
}

#[tokio::test]
async fn the_engine_tells_of_itself_under_prometheus_names() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(options(folder.path())).await;
    collector.data("/api/v1/query?query=m").await;
    let (_, metrics) = collector.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "prometheus_engine_queries 0",
        "prometheus_engine_queries_concurrent_max 20",
        "prometheus_engine_query_samples_total 2",
        "prometheus_engine_query_log_enabled 0",
        "prometheus_engine_query_log_failures_total 0",
        "prometheus_engine_query_duration_seconds_count{slice=\"inner_eval\"} 1",
        "prometheus_engine_query_duration_seconds{slice=\"queue_time\",quantile=\"0.99\"} ",
        "prometheus_engine_query_duration_histogram_seconds_count{slice=\"result_sort\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found.starts_with(line)), "{line}");
    }
    collector.stop().await;
}
