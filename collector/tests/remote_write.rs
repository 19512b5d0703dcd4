//! Remote write into a real collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_collector::Options;
use pharos_common::clock::ManualClock;
use pharos_proto::prometheus as wire;
use pharos_proto::prometheus_client::MetricFamily;
use pharos_proto::prometheus_v2 as v2;
use prost::Message;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use support::{TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;

/// Labels and samples of one series.
type Series<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, f64)]);

fn request(series: &[Series<'_>]) -> Vec<u8> {
    let timeseries = series
        .iter()
        .map(|(labels, samples)| wire::TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| wire::Label { name: (*name).into(), value: (*value).into() })
                .collect(),
            samples: samples.iter().map(|&(timestamp, value)| wire::Sample { timestamp, value }).collect(),
            ..wire::TimeSeries::default()
        })
        .collect();
    let metadata = vec![wire::MetricMetadata {
        r#type: 2,
        metric_family_name: "up".into(),
        help: "Whether it is up".into(),
        unit: String::new(),
    }];
    wire::WriteRequest { timeseries, metadata }.encode_to_vec()
}

async fn post(collector: &TestCollector, body: Vec<u8>, headers: &[(&str, &str)]) -> (u16, String) {
    let mut post = collector.client.post(format!("{}/api/v1/write", collector.url)).body(body);
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    let response = post.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

async fn write(collector: &TestCollector, message: &[u8]) -> (u16, String) {
    post(collector, snap::raw::Encoder::new().compress_vec(message).unwrap(), HEADERS).await
}

async fn start(folder: &std::path::Path) -> TestCollector {
    TestCollector::start_with(options(folder), ManualClock::new(NOW_MS)).await
}

#[tokio::test]
async fn what_was_answered_2xx_is_visible_and_durable() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let up: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    let message = request(&[(up, &[(NOW_MS - 2_000, 1.0), (NOW_MS - 1_000, 0.0)])]);
    // A sender that did not see the answer sends again.
    for _ in 0..2 {
        assert_eq!(write(&collector, &message).await, (204, String::new()));
    }
    let matrix = collector.query_at("up[1m]", "1700000000").await;
    assert_eq!(matrix[0]["values"], json!([[1699999998, "1"], [1699999999, "0"]]));
    assert_eq!(collector.data("/api/v1/metadata").await["up"][0]["help"], "Whether it is up");
    collector.kill().await;
    let collector = start(folder.path()).await;
    assert_eq!(collector.query_at("up", "1700000000").await[0]["value"][1], "0");
    collector.stop().await;
}

#[tokio::test]
async fn what_the_sender_must_drop_is_answered_400_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let good: &[(&str, &str)] = &[("__name__", "good")];
    let samples: &[(i64, f64)] = &[(NOW_MS, 1.0)];
    let bad: [&[(&str, &str)]; 3] = [
        &[("job", "no name")],
        &[("__name__", "twice"), ("a", "1"), ("a", "2")],
        &[("__name__", "x"), ("", "empty name")],
    ];
    for labels in bad {
        let (status, text) = write(&collector, &request(&[(labels, samples), (good, samples)])).await;
        assert_eq!(status, 400, "{text}");
    }
    let ahead: &[(i64, f64)] = &[(NOW_MS + 86_400_001, 1.0)];
    let (status, text) = write(&collector, &request(&[(good, ahead)])).await;
    assert_eq!((status, text.contains("24 h ahead")), (400, true));
    let old: &[(i64, f64)] = &[(NOW_MS - 31 * 86_400_000, 1.0)];
    assert_eq!(write(&collector, &request(&[(good, old)])).await.0, 400);
    assert_eq!(collector.query_at("good", "1700000000").await[0]["value"][1], "1");
    assert_eq!(collector.data("/api/v1/label/__name__/values").await, json!(["good"]));
    collector.stop().await;
}

#[tokio::test]
async fn malformed_bodies_are_refused_and_harm_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let labels: &[(&str, &str)] = &[("__name__", "cut")];
    let message = request(&[(labels, &[(NOW_MS, 1.0)])]);
    let series_end = 2 + usize::from(message[1]);
    for length in 1..message.len() {
        let (status, text) = write(&collector, &message[..length]).await;
        let want = if length == series_end { 204 } else { 400 };
        assert_eq!(status, want, "{length} bytes: {text}");
    }
    let compressed = snap::raw::Encoder::new().compress_vec(&message).unwrap();
    for length in 0..compressed.len() {
        assert_eq!(post(&collector, compressed[..length].to_vec(), HEADERS).await.0, 400, "{length} bytes");
    }
    // Claims to become 4 GiB.
    assert_eq!(post(&collector, vec![0xff, 0xff, 0xff, 0xff, 0x0f, 0], HEADERS).await.0, 413);
    assert_eq!(write(&collector, &message).await.0, 204);
    collector.stop().await;
}

#[tokio::test]
async fn other_types_are_answered_415() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let v3 = "application/x-protobuf;proto=io.prometheus.write.v3.Request";
    let cases = [
        ("application/json", "snappy", 415),
        (v3, "snappy", 415),
        ("application/x-protobuf", "gzip", 415),
        ("application/x-protobuf;proto=prometheus.WriteRequest", "snappy", 204),
    ];
    let empty = snap::raw::Encoder::new().compress_vec(&[]).unwrap();
    for (content_type, encoding, want) in cases {
        let headers = [("Content-Type", content_type), ("Content-Encoding", encoding)];
        assert_eq!(post(&collector, empty.clone(), &headers).await.0, want, "{content_type} {encoding}");
    }
    collector.stop().await;
}

/// However a sender cuts its requests, nothing that series of a group share may cost a sample.
#[tokio::test]
async fn series_that_came_together_may_come_apart_later() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let names = ["a", "b", "c"];
    let labels: Vec<Vec<(&str, &str)>> =
        names.iter().map(|name| vec![("__name__", "m"), ("job", "j"), ("n", *name)]).collect();
    let turned: Vec<(&str, &str)> = vec![("n", "b"), ("job", "j"), ("__name__", "m")];
    let at = |second: i64| NOW_MS - 60_000 + second * 1_000;
    let requests = [
        // Together; one label set is told twice, in different orders.
        request(&[
            (&labels[0], &[(at(1), 1.0)]),
            (&labels[1], &[(at(1), 1.0)]),
            (&turned, &[(at(2), 2.0)]),
            (&labels[2], &[(at(1), 1.0)]),
        ]),
        // One tick in two requests, one of them twice.
        request(&[(&labels[0], &[(at(3), 3.0)])]),
        request(&[(&labels[1], &[(at(3), 3.0)]), (&labels[2], &[(at(3), 3.0)])]),
        request(&[(&labels[1], &[(at(3), 3.0)]), (&labels[2], &[(at(3), 3.0)])]),
        // A backlog, series by series, of different length.
        request(&[
            (&labels[2], &[(at(4), 4.0), (at(5), 5.0), (at(6), 6.0)]),
            (&labels[0], &[(at(5), 5.0), (at(6), 6.0)]),
            (&labels[1], &[(at(4), 4.0), (at(6), 6.0)]),
        ]),
    ];
    for message in &requests {
        assert_eq!(write(&collector, message).await, (204, String::new()));
    }
    let want = [("a", vec![1, 3, 5, 6]), ("b", vec![1, 2, 3, 4, 6]), ("c", vec![1, 3, 4, 5, 6])];
    let check = async |collector: &TestCollector| {
        for (name, seconds) in &want {
            let matrix = collector.query_at(&format!(r#"m{{n="{name}"}}[2m]"#), "1700000000").await;
            let values: Vec<_> =
                seconds.iter().map(|second| json!([at(*second) / 1_000, second.to_string()])).collect();
            assert_eq!(matrix[0]["values"], json!(values), "{name}");
        }
    };
    check(&collector).await;
    collector.kill().await;
    let collector = start(folder.path()).await;
    check(&collector).await;
    collector.stop().await;
}

#[tokio::test]
async fn exemplars_are_kept_over_a_kill_and_answered_by_the_series_a_query_selects() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let label = |name: &str, value: &str| wire::Label { name: name.into(), value: value.into() };
    let series = wire::TimeSeries {
        labels: vec![label("__name__", "hits"), label("job", "a")],
        samples: vec![wire::Sample { value: 1.0, timestamp: NOW_MS }],
        exemplars: vec![wire::Exemplar {
            labels: vec![label("trace_id", "4bf9")],
            value: 0.25,
            timestamp: NOW_MS - 500,
        }],
        ..wire::TimeSeries::default()
    };
    let message = wire::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
    for _ in 0..2 {
        assert_eq!(write(&collector, &message).await, (204, String::new()));
    }
    collector.kill().await;
    let collector = start(folder.path()).await;
    let ask = async |query: &str, start: &str| {
        collector.data(&format!("/api/v1/query_exemplars?query={query}&start={start}&end=1700000000")).await
    };
    let want = json!([{
        "seriesLabels": {"__name__": "hits", "job": "a"},
        "exemplars": [{"labels": {"trace_id": "4bf9"}, "value": "0.25", "timestamp": 1699999999.5}],
    }]);
    assert_eq!(ask("rate(hits[1m])%2Bup", "1699999990").await, want);
    assert_eq!(ask("hits", "1699999999.9").await, json!([]));
    assert_eq!(ask("test", "0").await, json!([]));
    collector.stop().await;
}

#[tokio::test]
async fn version_2_is_stored_as_version_1_and_counted_in_the_answer() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let headers = [
        ("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "2.0.0"),
    ];
    let symbols = ["", "__name__", "up", "job", "a", "latency", "Whether it is up"];
    let request = v2::Request {
        symbols: symbols.map(str::to_owned).into(),
        timeseries: vec![
            v2::TimeSeries {
                labels_refs: vec![1, 2, 3, 4],
                samples: vec![v2::Sample { value: 2.0, timestamp: NOW_MS, start_timestamp: 0 }],
                metadata: Some(v2::Metadata { r#type: 2, help_ref: 6, unit_ref: 0 }),
                ..v2::TimeSeries::default()
            },
            v2::TimeSeries {
                labels_refs: vec![1, 5, 3, 4],
                histograms: vec![native_histogram(9, NOW_MS)],
                ..v2::TimeSeries::default()
            },
        ],
    };
    let send = async |message: Vec<u8>, want: u16, counts: [&str; 2]| {
        let body = snap::raw::Encoder::new().compress_vec(&message).unwrap();
        let mut post = collector.client.post(format!("{}/api/v1/write", collector.url)).body(body);
        for (name, value) in headers {
            post = post.header(name, value);
        }
        let response = post.send().await.unwrap();
        assert_eq!(response.status().as_u16(), want);
        for (kind, count) in ["samples", "histograms"].into_iter().zip(counts) {
            let name = format!("x-prometheus-remote-write-{kind}-written");
            assert_eq!(response.headers()[name.as_str()], count, "{kind}");
        }
    };
    // The second time nothing is new, and yet all of it is written.
    for _ in 0..2 {
        send(request.encode_to_vec(), 204, ["1", "1"]).await;
    }
    // The same series by version 1.0 is the same series.
    let up: &[(&str, &str)] = &[("__name__", "up"), ("job", "a")];
    assert_eq!(write(&collector, &self::request(&[(up, &[(NOW_MS - 1_000, 1.0)])])).await.0, 204);
    let matrix = collector.query_at("up[1m]", "1700000000").await;
    assert_eq!(matrix[0]["values"], json!([[1699999999, "1"], [1700000000, "2"]]));
    let found = collector.query_at("histogram_count(latency)", "1700000000").await;
    assert_eq!(found[0]["value"][1], "9");
    let mut broken = request.clone();
    broken.timeseries[0].labels_refs[0] = 77;
    send(broken.encode_to_vec(), 400, ["0", "0"]).await;
    collector.stop().await;
}

#[tokio::test]
async fn start_timestamps_are_kept_and_count_as_no_samples() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let symbols = ["", "__name__", "hits_total", "latency"];
    // First without start timestamps, as from a sender that learns to tell them later.
    for (step, start_timestamp) in [(0, 0), (1, NOW_MS - 70_000), (2, NOW_MS - 5_000)] {
        let at_ms = NOW_MS - 10_000 + step * 5_000;
        let mut histogram = native_histogram(9, at_ms).encode_to_vec();
        histogram.extend([0x88, 0x01]);
        prost::encoding::encode_varint(start_timestamp as u64, &mut histogram);
        let counter = v2::TimeSeries {
            labels_refs: vec![1, 2],
            samples: vec![v2::Sample { value: step as f64, timestamp: at_ms, start_timestamp }],
            ..v2::TimeSeries::default()
        };
        let mut message =
            v2::Request { symbols: symbols.map(str::to_owned).into(), timeseries: vec![counter] }
                .encode_to_vec();
        // By hand, since the message has no field for the start of a histogram.
        let mut native = [0x0a, 0x02, 0x01, 0x03, 0x1a].to_vec();
        prost::encoding::encode_varint(histogram.len() as u64, &mut native);
        native.extend(histogram);
        message.push(0x2a);
        prost::encoding::encode_varint(native.len() as u64, &mut message);
        message.extend(native);
        let response = collector
            .client
            .post(format!("{}/api/v1/write", collector.url))
            .header("Content-Type", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
            .header("Content-Encoding", "snappy")
            .body(snap::raw::Encoder::new().compress_vec(&message).unwrap())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 204);
        assert_eq!(response.headers()["x-prometheus-remote-write-samples-written"], "1");
        assert_eq!(response.headers()["x-prometheus-remote-write-histograms-written"], "1");
    }
    let text = "# TYPE a counter\na_total 5 1700000000000\na_created 1600000000.5\n";
    assert_eq!(collector.import(text).await, 204);
    let names = collector.data("/api/v1/labels").await;
    assert_eq!(names, json!(["__name__"]));
    let active = collector.data("/api/v1/status/tsdb").await;
    assert_eq!(active["headStats"]["numSeries"], 4, "{active}");
    // Queries see them at once and after a restart, and functions of counters use them where that is wanted.
    let at_now = |value: &str| json!([{"metric": {}, "value": [1_700_000_000, value]}]);
    let mut running = Some(collector);
    for (features, resets, irate) in
        [("", "0", "0.2"), ("", "0", "0.2"), ("native-histograms,use-start-timestamps", "1", "0.4")]
    {
        let collector = match running.take() {
            Some(collector) => collector,
            None => {
                let enable_feature = features.split(',').map(str::to_owned).collect();
                let options = pharos_collector::Options { enable_feature, ..options(folder.path()) };
                TestCollector::start_with(options, ManualClock::new(NOW_MS)).await
            }
        };
        let ask = async |query: &str| collector.query_at(query, "1700000000").await;
        for metric in ["hits_total", "latency"] {
            assert_eq!(ask(&format!("start_timestamp({metric})")).await, at_now("1699999995"));
            assert_eq!(ask(&format!("start_timestamp({metric} offset 5s)")).await, at_now("1699999930"));
            assert_eq!(ask(&format!("start_timestamp({metric} offset 10s)")).await, at_now("0"));
            assert_eq!(ask(&format!("resets({metric}[1m])")).await, at_now(resets), "{metric}");
        }
        assert_eq!(ask("start_timestamp(a_total)").await, at_now("1600000000.5"));
        assert_eq!(ask("irate(hits_total[1m])").await, at_now(irate));
        collector.stop().await;
    }
    let clock: Arc<ManualClock> = ManualClock::new(NOW_MS);
    let (database, _) = pharos_tsdb::Database::open(
        Arc::new(pharos_common::storage_io::DiskIo),
        &folder.path().join("data"),
        pharos_tsdb::Options::default(),
        clock,
    )
    .unwrap();
    let starts = |metric: &str| {
        let matchers = [pharos_common::matcher::Matcher::equal("__name__", metric)];
        let found = database.selection_with_starts(&matchers, 0, NOW_MS, &pharos_tsdb::Unlimited).unwrap();
        let mut found = found;
        let series = found.next_series(&pharos_tsdb::Unlimited).unwrap().unwrap();
        series.starts.runs().iter().map(|run| (run.first_ms, run.start_ms)).collect::<Vec<_>>()
    };
    let want =
        [(NOW_MS - 10_000, None), (NOW_MS - 5_000, Some(NOW_MS - 70_000)), (NOW_MS, Some(NOW_MS - 5_000))];
    assert_eq!(starts("hits_total"), want);
    assert_eq!(starts("latency"), want);
    assert_eq!(starts("a_total"), [(NOW_MS, Some(1_600_000_000_500))]);
}

/// A histogram of observations 1 to `observations`, in the buckets (0.5, 1], (1, 2], (2, 4] and so on.
fn native_histogram(observations: u64, timestamp: i64) -> wire::Histogram {
    let bucket = |value: u64| value.next_power_of_two().trailing_zeros() as usize;
    let mut counts = vec![0i64; bucket(observations) + 1];
    (1..=observations).for_each(|value| counts[bucket(value)] += 1);
    let before = std::iter::once(0).chain(counts.iter().copied());
    wire::Histogram {
        count: Some(wire::histogram::Count::CountInt(observations)),
        sum: (observations * (observations + 1) / 2) as f64,
        zero_threshold: 1e-128,
        positive_spans: vec![wire::BucketSpan { offset: 0, length: counts.len() as u32 }],
        positive_deltas: counts.iter().zip(before).map(|(count, before)| count - before).collect(),
        timestamp,
        ..wire::Histogram::default()
    }
}

fn histogram_request(labels: &[(&str, &str)], histograms: Vec<wire::Histogram>) -> Vec<u8> {
    let labels =
        labels.iter().map(|(name, value)| wire::Label { name: (*name).into(), value: (*value).into() });
    let series = wire::TimeSeries { labels: labels.collect(), histograms, ..wire::TimeSeries::default() };
    wire::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec()
}

#[tokio::test]
async fn native_histograms_are_stored_whole_and_survive_a_kill_and_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let labels: &[(&str, &str)] = &[("__name__", "latency"), ("node", "a")];
    // They grow: new buckets come, so the series goes on in wider groups.
    let histograms: Vec<wire::Histogram> = (0..60)
        .map(|second| native_histogram(1 + second * 10, NOW_MS - 59_000 + second as i64 * 1_000))
        .collect();
    for part in histograms.chunks(7) {
        assert_eq!(write(&collector, &histogram_request(labels, part.to_vec())).await, (204, String::new()));
    }
    let check = async |collector: &TestCollector| {
        let newest = collector.query_at("latency", "1700000000").await;
        assert_eq!(newest[0]["metric"], json!({"__name__": "latency", "node": "a"}));
        let histogram = &newest[0]["histogram"][1];
        assert_eq!((&histogram["count"], &histogram["sum"]), (&json!("591"), &json!("174936")));
        assert_eq!(histogram["buckets"][2], json!([0, "2", "4", "2"]));
        let value = async |query: &str| collector.query_at(query, "1700000000").await[0]["value"][1].clone();
        assert_eq!(value("histogram_count(rate(latency[30s]))").await, "10");
        assert_eq!(value("count_over_time(latency[1m])").await, "60");
        assert_eq!(value("histogram_quantile(1, latency)").await, "1024");
        assert_eq!(value(r#"count({__name__=~".+", node="a"})"#).await, "1");
        assert_eq!(collector.data("/api/v1/labels").await, json!(["__name__", "node"]));
        // What its parts are called inside is nobody's business.
        let hidden = collector.query_at(r#"{"~histogram"!="", __name__=~".+"}"#, "1700000000").await;
        assert_eq!(hidden, json!([]));
        assert_eq!(value(r#"count({"~histogram"="", node="a"})"#).await, "1");
        let series = collector.data("/api/v1/series?match[]=latency").await;
        assert_eq!(series, json!([{"__name__": "latency", "node": "a"}]));
    };
    check(&collector).await;
    collector.kill().await;
    let collector = start(folder.path()).await;
    check(&collector).await;
    assert_eq!(collector.post("/api/v1/admin/tsdb/flush", &[]).await.0, 200);
    check(&collector).await;
    collector.stop().await;
}

#[tokio::test]
async fn a_native_histogram_is_federated_to_scrapers_that_take_protobuf() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let labels: &[(&str, &str)] = &[("__name__", "latency"), ("node", "a")];
    let histogram = histogram_request(labels, vec![native_histogram(9, NOW_MS)]);
    assert_eq!(write(&collector, &histogram).await.0, 204);
    assert_eq!(write(&collector, &request(&[(&[("__name__", "up")], &[(NOW_MS, 1.0)])])).await.0, 204);
    let ask = async |accept: &str| {
        let url = format!("{}/federate?match[]={{__name__=~\".%2B\"}}", collector.url);
        let response = collector.client.get(url).header("Accept", accept).send().await.unwrap();
        response.bytes().await.unwrap()
    };
    let text = ask("text/plain").await;
    assert_eq!(text, format!("# TYPE up untyped\nup{{instance=\"\"}} 1 {NOW_MS}\n"));
    let mut families =
        ask("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
            .await;
    let first = MetricFamily::decode_length_delimited(&mut families).unwrap();
    let second = MetricFamily::decode_length_delimited(&mut families).unwrap();
    assert_eq!((first.name(), first.r#type(), second.name(), second.r#type()), ("latency", 4, "up", 3));
    let sent = first.metric[0].histogram.as_ref().unwrap();
    assert_eq!((sent.sample_count_float(), sent.sample_sum()), (9.0, 45.0));
    assert_eq!(sent.positive_count, [1.0, 1.0, 2.0, 4.0, 1.0]);
    collector.stop().await;
}

#[tokio::test]
async fn histograms_that_make_no_sense_are_answered_400_and_the_rest_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let labels: &[(&str, &str)] = &[("__name__", "latency")];
    let mut bad = native_histogram(9, NOW_MS - 1_000);
    bad.schema = 77;
    let request = histogram_request(labels, vec![bad, native_histogram(9, NOW_MS)]);
    let (status, text) = write(&collector, &request).await;
    assert_eq!((status, text.contains("unknown histogram schema 77")), (400, true), "{text}");
    let found = collector.query_at("histogram_count(latency)", "1700000000").await;
    assert_eq!(found[0]["value"][1], "9");
    let reserved: &[(&str, &str)] = &[("__name__", "latency"), ("~histogram", "0/n/0;0")];
    let (status, text) =
        write(&collector, &histogram_request(reserved, vec![native_histogram(9, NOW_MS)])).await;
    assert_eq!((status, text.contains("reserved")), (400, true), "{text}");
    collector.stop().await;
}

async fn metrics(collector: &TestCollector) -> String {
    collector.client.get(format!("{}/metrics", collector.url)).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_sender_over_its_rate_is_told_to_come_back_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW_MS);
    let limited = Options { samples_per_second_max: 10, ..options(folder.path()) };
    let collector = TestCollector::start_with(limited, Arc::clone(&clock) as _).await;
    let up: &[(&str, &str)] = &[("__name__", "up")];
    let samples: Vec<(i64, f64)> = (0..120).map(|at| (NOW_MS - 120 + at, 1.0)).collect();
    // A burst of ten seconds is taken, and what it exceeds them by is paid off at the permitted rate.
    assert_eq!(write(&collector, &request(&[(up, &samples)])).await.0, 204);
    let again: &[(i64, f64)] = &[(NOW_MS, 2.0)];
    let (status, text) = write(&collector, &request(&[(up, again)])).await;
    assert_eq!((status, text.contains("127.0.0.1")), (429, true), "{text}");
    assert!(
        metrics(&collector).await.contains("pharos_collector_rate_limited_total{sender=\"127.0.0.1\"} 1")
    );
    clock.advance(Duration::from_secs(2));
    assert_eq!(write(&collector, &request(&[(up, again)])).await.0, 204);
    assert_eq!(collector.query_at("count_over_time(up[1m])", "1700000000").await[0]["value"][1], "121");
    collector.stop().await;
}

#[tokio::test]
async fn a_label_bomb_costs_nobody_but_its_sender() {
    let folder = tempfile::tempdir().unwrap();
    let limited = Options { series_per_node_max: 50, ..options(folder.path()) };
    let collector = TestCollector::start_with(limited, ManualClock::new(NOW_MS)).await;
    let good: &[(&str, &str)] = &[("__name__", "good"), ("instance", "n1")];
    for round in 0..20 {
        let at = NOW_MS - 20 + round;
        let ids: Vec<String> = (0..20).map(|id| (round * 20 + id).to_string()).collect();
        let bombs: Vec<[(&str, &str); 3]> =
            ids.iter().map(|id| [("__name__", "bomb"), ("id", id.as_str()), ("instance", "n2")]).collect();
        let sample = [(at, 1.0)];
        let mut series: Vec<Series<'_>> = bombs.iter().map(|labels| (&labels[..], &sample[..])).collect();
        series.push((good, &sample));
        let (status, text) = write(&collector, &request(&series)).await;
        let refused = text.contains("limit of 50 active series with instance=\"n2\"");
        assert_eq!((status, refused), if round < 2 { (204, false) } else { (400, true) }, "{round}: {text}");
    }
    assert_eq!(collector.query_at("count_over_time(good[1m])", "1700000000").await[0]["value"][1], "20");
    assert_eq!(collector.query_at("count(bomb)", "1700000000").await[0]["value"][1], "50");
    let status = collector.data("/api/v1/status/tsdb").await;
    assert_eq!(status["seriesRefusedBySender"][0], json!({"name": "bomb{instance=\"n2\"}", "value": 350}));
    let line = "pharos_tsdb_series_refused_total{culprit=\"bomb{instance=\\\"n2\\\"}\"} 350";
    assert!(metrics(&collector).await.contains(line));
    collector.stop().await;
}
