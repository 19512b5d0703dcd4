//! Prometheus' HTTP API over a real collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::ManualClock;
use serde_json::{Value, json};
use support::{TestCollector, options};

/// A time that the manual clock shows, and the same in seconds.
const NOW_MS: i64 = 1_700_000_000_000;

const SAMPLES: &str = "# HELP gpu_temp Temperature\n# TYPE gpu_temp gauge\n\
    gpu_temp{gpu=\"0\",node=\"a\"} 50 1699999980000\n\
    gpu_temp{gpu=\"0\",node=\"a\"} 60.5 1699999990000\n\
    gpu_temp{gpu=\"1\",node=\"a\"} NaN 1699999990000\n\
    {\"gpu.power\",\"pod.name\"=\"x\"} 1e22 1699999990000\n";

async fn collector(folder: &std::path::Path) -> TestCollector {
    collector_with(options(folder)).await
}

async fn collector_with(options: pharos_collector::Options) -> TestCollector {
    let collector = TestCollector::start_with(options, ManualClock::new(NOW_MS)).await;
    assert_eq!(collector.import(SAMPLES).await, 204);
    collector
}

#[tokio::test]
async fn instant_queries_have_prometheus_shape() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    // Grafana's health check.
    assert_eq!(
        collector.get("/api/v1/query?query=1%2B1&time=4").await,
        (200, json!({"status": "success", "data": {"resultType": "scalar", "result": [4, "2"]}}))
    );
    assert_eq!(
        collector.data("/api/v1/query?query=gpu_temp&unknown=parameter").await,
        json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "gpu_temp", "gpu": "0", "node": "a"}, "value": [1700000000, "60.5"]},
            {"metric": {"__name__": "gpu_temp", "gpu": "1", "node": "a"}, "value": [1700000000, "NaN"]},
        ]})
    );
    assert_eq!(
        collector.query_at("{\"gpu.power\"}", "1699999990.5").await,
        json!([{"metric": {"__name__": "gpu.power", "pod.name": "x"}, "value": [1699999990.5, "1e+22"]}])
    );
    let string = collector.query_at("\"text\"", "1").await;
    assert_eq!(string, json!([1, "text"]));
    let matrix = collector.query_at("gpu_temp{gpu=\"0\"}[1m]", "1700000000").await;
    assert_eq!(matrix[0]["values"], json!([[1699999980, "50"], [1699999990, "60.5"]]));
    collector.stop().await;
}

#[tokio::test]
async fn range_queries_have_prometheus_shape() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let form =
        [("query", "gpu_temp{gpu=\"0\"}"), ("start", "1699999979.5"), ("end", "1699999990"), ("step", "0.5")];
    let (status, body) = collector.post("/api/v1/query_range", &form).await;
    assert_eq!(status, 200);
    let values = body["data"]["result"][0]["values"].as_array().unwrap();
    assert_eq!(body["data"]["resultType"], "matrix");
    assert_eq!(values.len(), 21);
    assert_eq!(values[0], json!([1699999980, "50"]));
    assert_eq!(values[1], json!([1699999980.5, "50"]));
    assert_eq!(values[20], json!([1699999990, "60.5"]));
    collector.stop().await;
}

#[tokio::test]
async fn errors_have_prometheus_types_and_codes() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let cases = [
        ("/api/v1/query?query=sum(", 400, "bad_data", "invalid parameter \"query\": 1:5: parse error: "),
        ("/api/v1/query?query=up&time=x", 400, "bad_data", "invalid parameter \"time\": cannot parse \"x\""),
        ("/api/v1/query?query=up&timeout=-1", 503, "timeout", "query timed out"),
        ("/api/v1/query?query=up&timeout=-1s", 400, "bad_data", "invalid parameter \"timeout\""),
        ("/api/v1/query?query=up&limit=-1", 400, "bad_data", "invalid parameter \"limit\""),
        ("/api/v1/query_range?query=up&start=0&end=1", 400, "bad_data", "invalid parameter \"step\""),
        (
            "/api/v1/query_range?query=up&start=0&end=1&step=0",
            400,
            "bad_data",
            "invalid parameter \"step\": zero",
        ),
        (
            "/api/v1/query_range?query=up&start=2&end=1&step=1",
            400,
            "bad_data",
            "invalid parameter \"end\": end",
        ),
        (
            "/api/v1/query_range?query=up&start=0&end=11001&step=1",
            400,
            "bad_data",
            "exceeded maximum resolution",
        ),
        (
            "/api/v1/query_range?query=up[1m]&start=0&end=1&step=1",
            400,
            "bad_data",
            "invalid parameter \"query\"",
        ),
        ("/api/v1/query?query=gpu_temp%2Bon(node)gpu_temp", 422, "execution", "found duplicate series"),
        ("/api/v1/series", 400, "bad_data", "no match[] parameter provided"),
        ("/api/v1/series?match[]=sum(up)", 400, "bad_data", "invalid parameter \"match[]\""),
        ("/api/v1/rules?type=x", 400, "bad_data", "invalid parameter \"type\""),
        ("/api/v1/nothing", 404, "not_found", "path not found"),
    ];
    for (path, status, error_type, message) in cases {
        let (got_status, body) = collector.get(path).await;
        assert_eq!(got_status, status, "{path}: {body}");
        assert_eq!(body["status"], "error", "{path}");
        assert_eq!(body["errorType"], error_type, "{path}");
        let got = body["error"].as_str().unwrap();
        assert!(got.starts_with(message), "{path}: {got}");
    }
    // 11,000 steps are fine.
    collector.data("/api/v1/query_range?query=up&start=0&end=11000&step=1").await;
    collector.stop().await;
}

#[tokio::test]
async fn series_labels_and_metadata_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    assert_eq!(
        collector.data("/api/v1/series?match[]=gpu_temp&match[]={gpu=%221%22}").await,
        json!([
            {"__name__": "gpu_temp", "gpu": "0", "node": "a"},
            {"__name__": "gpu_temp", "gpu": "1", "node": "a"},
        ])
    );
    assert_eq!(collector.data("/api/v1/labels").await, json!(["__name__", "gpu", "node", "pod.name"]));
    assert_eq!(collector.data("/api/v1/label/gpu/values").await, json!(["0", "1"]));
    assert_eq!(collector.data("/api/v1/label/U__pod_2e_name/values").await, json!(["x"]));
    assert_eq!(collector.data("/api/v1/label/gpu/values?match[]=other").await, json!([]));
    let (_, limited) = collector.get("/api/v1/label/gpu/values?limit=1").await;
    assert_eq!(limited["data"], json!(["0"]));
    assert_eq!(limited["warnings"], json!(["results truncated due to limit"]));
    let metadata = collector.data("/api/v1/metadata?metric=gpu_temp").await;
    assert_eq!(metadata, json!({"gpu_temp": [{"type": "gauge", "help": "Temperature", "unit": ""}]}));
    collector.stop().await;
}

#[tokio::test]
async fn what_clients_probe_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    assert_eq!(
        collector.data("/api/v1/query_exemplars?query=test&start=1700000000000&end=1").await,
        json!([])
    );
    let build = collector.data("/api/v1/status/buildinfo").await;
    assert_eq!(build["version"], "3.14.0");
    assert_eq!(build["features"], Value::Null);
    assert_eq!(collector.data("/api/v1/status/tsdb").await["headStats"]["numSeries"], 3);
    assert_eq!(collector.data("/api/v1/status/flags").await["query.timeout"], "2m");
    assert_eq!(collector.data("/api/v1/status/runtimeinfo").await["storageRetention"], "30d");
    assert_eq!(collector.data("/api/v1/status/config").await["yaml"], "");
    assert_eq!(collector.data("/api/v1/format_query?query=sum(a)by(b)").await, "sum by (b) (a)");
    assert_eq!(collector.data("/api/v1/parse_query?query=sum(a)by(b)").await["type"], "aggregation");
    assert_eq!(collector.data("/api/v1/targets").await["activeTargets"], json!([]));
    assert_eq!(collector.data("/api/v1/rules").await["groups"], json!([]));
    let features = collector.data("/api/v1/features").await;
    assert_eq!(features["promql_functions"]["histogram_quantiles"], true, "{features}");
    assert_eq!(features["promql_operators"]["limit_ratio"], true);
    assert_eq!(features["prometheus"]["type_and_unit_labels"], false);
    assert_eq!(collector.data("/api/v1/notifications").await, json!([]));
    assert_eq!(collector.get("/api/v1/notifications/live").await.0, 204);
    assert_eq!(collector.data("/api/v1/status/tsdb/blocks").await["blocks"], json!([]));
    assert_eq!(collector.get("/api/v1/admin/tsdb/flush").await.0, 200);
    let blocks = collector.data("/api/v1/status/tsdb/blocks").await["blocks"].take();
    let block = &blocks.as_array().unwrap()[0];
    assert!(block["minTime"].as_i64() <= block["maxTime"].as_i64() && block["ulid"].is_string(), "{block}");
    let (_, page) = collector
        .get("/graph?g0.expr=gpu_temp&g0.range_input=1h&g0.end_input=2023-11-14+23:13:20&tz=Europe/Berlin")
        .await;
    let page = page.as_str().unwrap();
    assert!(page.contains("<ul class=legend>") && page.contains("2023-11-14 23:13:20 CET"), "{page}");
    assert!(
        page.contains("/graph?query=gpu_temp&amp;range=1h&amp;end=1700000000&amp;tz=Europe%2FBerlin"),
        "{page}"
    );
    let stats = collector.data("/api/v1/query?query=gpu_temp&stats=true").await;
    assert!(stats["stats"]["samples"]["totalQueryableSamples"].as_u64().unwrap() > 0);
    let (_, limited) = collector.get("/api/v1/query?query=gpu_temp&limit=1").await;
    assert_eq!(limited["data"]["result"].as_array().unwrap().len(), 1);
    for page in [
        "/",
        "/graph?query=gpu_temp",
        "/graph?query=sum(",
        "/graph?query=1&tz=x",
        "/rules",
        "/alerts",
        "/targets",
        "/metrics",
    ] {
        let (status, body) = collector.get(page).await;
        assert_eq!(status, 200, "{page}");
        assert!(body.as_str().unwrap().len() > 300, "{page}");
    }
    let (_, federated) = collector.get("/federate?match[]=gpu_temp").await;
    let federated = federated.as_str().unwrap();
    assert!(
        federated.contains("gpu_temp{gpu=\"0\",node=\"a\",instance=\"\"} 60.5 1699999990000"),
        "{federated}"
    );
    collector.stop().await;
}

#[tokio::test]
async fn large_answers_are_compressed_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let many: String = (0..2_000).map(|i| format!("many{{i=\"{i}\"}} {i} 1699999990000\n")).collect();
    assert_eq!(collector.import(many).await, 204);
    let response = collector
        .client
        .get(format!("{}/api/v1/query?query=many", collector.url))
        .header("Accept-Encoding", "gzip")
        .send()
        .await
        .unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["data"]["result"].as_array().unwrap().len(), 2_000);
    collector.stop().await;
}

#[tokio::test]
async fn a_browser_of_another_origin_may_read() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let url = format!("{}/api/v1/query?query=1", collector.url);
    let response = collector.client.get(url).header("Origin", "http://grafana").send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "http://grafana");
    collector.stop().await;
}

#[tokio::test]
async fn what_was_written_is_there_after_flush_restart_and_kill() {
    let folder = tempfile::tempdir().unwrap();
    let first = collector(folder.path()).await;
    assert_eq!(first.get("/api/v1/admin/tsdb/flush").await.0, 200);
    assert_eq!(first.import("after_flush 7 1699999995000").await, 204);
    first.stop().await;

    let second = TestCollector::start_with(options(folder.path()), ManualClock::new(NOW_MS)).await;
    let found =
        second.query_at("gpu_temp{gpu=\"0\"} + ignoring(gpu, node) group_left() after_flush", "1700000000");
    assert_eq!(found.await[0]["value"][1], "67.5");
    assert_eq!(second.import("after_restart 8 1699999996000").await, 204);
    second.kill().await;

    let third = TestCollector::start_with(options(folder.path()), ManualClock::new(NOW_MS)).await;
    assert_eq!(third.query_at("after_restart", "1700000000").await[0]["value"][1], "8");
    assert_eq!(third.data("/api/v1/metadata?metric=gpu_temp").await["gpu_temp"][0]["type"], "gauge");
    third.stop().await;
}

#[tokio::test]
async fn bad_text_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    assert_eq!(collector.import("fine 1\nbroken\n").await, 400);
    assert_eq!(collector.import(format!("ahead 1 {}", NOW_MS + 86_400_001)).await, 400);
    assert_eq!(collector.import(format!("fine 1\nold 1 {}", NOW_MS - 31 * 86_400_000)).await, 400);
    assert_eq!(collector.data("/api/v1/series?match[]=fine&match[]=ahead").await, json!([]));
    let (_, metrics) = collector.get("/metrics").await;
    let refused = "pharos_collector_samples_refused_total{reason=\"too_new\"} 1";
    assert!(metrics.as_str().unwrap().contains(refused));
    collector.stop().await;
}

#[tokio::test]
async fn queries_end_at_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    let options = pharos_collector::Options {
        query: pharos_collector::QueryFlags { samples_max: 10, ..Default::default() },
        ..options(folder.path())
    };
    let collector = TestCollector::start_with(options, ManualClock::new(NOW_MS)).await;
    let many: String = (0..20).map(|i| format!("many{{i=\"{i}\"}} {i} 1699999990000\n")).collect();
    assert_eq!(collector.import(many).await, 204);
    let (status, body) = collector.get("/api/v1/query?query=many").await;
    assert_eq!((status, &body["errorType"]), (422, &json!("execution")), "{body}");
    assert!(body["error"].as_str().unwrap().contains("too many samples"), "{body}");
    let (status, body) = collector.get("/api/v1/query?query=many&timeout=0.000001").await;
    assert_eq!((status, &body["errorType"]), (503, &json!("timeout")), "{body}");
    // What one query held is free again for the next.
    assert_eq!(collector.query_at("many{i=\"7\"}", "1700000000").await[0]["value"][1], "7");
    collector.stop().await;
}

#[tokio::test]
async fn a_query_ends_when_its_client_goes() {
    let folder = tempfile::tempdir().unwrap();
    let options = pharos_collector::Options {
        query: pharos_collector::QueryFlags { concurrency_max: 1, ..Default::default() },
        ..options(folder.path())
    };
    let collector = TestCollector::start_with(options, ManualClock::new(NOW_MS)).await;
    let long: String = (0..2_000).map(|i| format!("long {i} {}\n", NOW_MS - i * 1_000)).collect();
    assert_eq!(collector.import(long).await, 204);
    // Minutes of work in small steps, if nobody stops it.
    let term = |factor: i32| format!("double_exponential_smoothing(long[2000s], 0.{factor}, 0.5)");
    let query = (100..900).map(term).collect::<Vec<_>>().join(" + ");
    let url = format!("{}/api/v1/query_range", collector.url);
    let form = [("query", query.as_str()), ("start", "1699998000"), ("end", "1700000000"), ("step", "1")];
    let request = tokio::spawn(collector.client.post(url).form(&form).send());
    let running = |count: &'static str| {
        let line = format!("pharos_collector_queries_running {count}\n");
        move |metrics: &Value| metrics.as_str().unwrap_or("").contains(&line)
    };
    collector.until("/metrics", running("1")).await;
    request.abort();
    collector.until("/metrics", running("0")).await;
    // Its place is free.
    assert_eq!(collector.query_at("1", "1").await[1], "1");
    collector.stop().await;
}

#[tokio::test]
async fn promtool_queries_us() {
    if std::process::Command::new("promtool").arg("--version").output().is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let collector = collector(folder.path()).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new("promtool");
        command.args(["query"]).args(arguments);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let url = collector.url.as_str();
    let instant = run(&["instant", "--time=1700000000", url, "gpu_temp > 50"]).await;
    assert_eq!(instant.trim(), "gpu_temp{gpu=\"0\", node=\"a\"} => 60.5 @[1700000000]");
    let range =
        ["range", "--start=1699999990", "--end=1700000000", "--step=10s", url, "sum(gpu_temp{gpu=\"0\"})"];
    assert_eq!(run(&range).await.trim(), "{} =>\n60.5 @[1699999990]\n60.5 @[1700000000]");
    let series = ["series", "--match=gpu_temp", "--start=1699999900", "--end=1700000000", url];
    assert_eq!(run(&series).await.lines().count(), 2);
    assert_eq!(run(&["labels", "--start=1699999900", "--end=1700000000", url, "gpu"]).await, "0\n1\n");
    collector.stop().await;
}

#[tokio::test]
async fn series_bear_type_and_unit_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let feature = vec!["native-histograms".to_owned(), "type-and-unit-labels".to_owned()];
    let options = pharos_collector::Options { enable_feature: feature, ..options(folder.path()) };
    let collector = collector_with(options).await;
    let found = collector.query_at("gpu_temp{__type__=\"gauge\",gpu=\"0\"}", "1700000000").await;
    assert_eq!(found[0]["metric"]["__type__"], "gauge", "{found}");
    // They go where the name goes.
    let sum = collector.query_at("gpu_temp{gpu=\"0\"} * 2", "1700000000").await;
    assert_eq!(sum[0]["metric"], json!({"gpu": "0", "node": "a"}));
    collector.stop().await;
}
