//! Writes by HTTP that are too many, too large or do not come: refused so that a sender knows what to do, and
//! nobody else is kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_collector::limits::{
    ROWS_PER_APPEND_MAX, SAMPLES_PER_WRITE_MAX, SYMBOLS_PER_WRITE_MAX, WRITES_AT_ONCE_MAX,
};
use pharos_common::clock::ManualClock;
use pharos_proto::prometheus as wire;
use pharos_proto::prometheus_v2 as v2;
use prost::Message;
use std::io::Write;
use std::net::TcpStream;
use support::{TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;

async fn start(folder: &std::path::Path) -> TestCollector {
    TestCollector::start_with(options(folder), ManualClock::new(NOW_MS)).await
}

async fn write(collector: &TestCollector, message: &[u8], kind: &str) -> (u16, String) {
    let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
    let post = collector.client.post(format!("{}/api/v1/write", collector.url)).header("content-type", kind);
    let response = post.header("content-encoding", "snappy").body(body).send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

const ONE: &str = "application/x-protobuf";
const TWO: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

fn series(name: &str, column: usize, samples: Vec<wire::Sample>) -> wire::TimeSeries {
    let label = |name: &str, value: String| wire::Label { name: name.to_owned(), value };
    let labels = vec![label("__name__", name.to_owned()), label("column", format!("{column:03}"))];
    wire::TimeSeries { labels, samples, ..wire::TimeSeries::default() }
}

fn sample(timestamp: i64) -> wire::Sample {
    wire::Sample { timestamp, value: 1.0 }
}

#[tokio::test]
async fn who_sends_nothing_holds_no_place() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let address = collector.url.trim_start_matches("http://").to_owned();
    let idle: Vec<TcpStream> = (0..2 * WRITES_AT_ONCE_MAX)
        .map(|number| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let path = ["/api/v1/write", "/api/v1/import/prometheus", "/api/v1/read"][number % 3];
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\nsome of it");
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert_eq!(collector.import("up 1\n").await, 204);
    let message =
        wire::WriteRequest { timeseries: vec![series("x", 0, vec![sample(NOW_MS)])], metadata: vec![] };
    assert_eq!(write(&collector, &message.encode_to_vec(), ONE).await.0, 204);
    drop(idle);
    collector.stop().await;
}

#[tokio::test]
async fn a_long_series_of_a_wide_group_is_stored_whole() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let first: Vec<_> = (0..256).map(|column| series("wide", column, vec![sample(NOW_MS - 1)])).collect();
    let message = wire::WriteRequest { timeseries: first, metadata: vec![] };
    assert_eq!(write(&collector, &message.encode_to_vec(), ONE).await.0, 204);
    // Each of its samples takes a row of 256 values.
    let count = ROWS_PER_APPEND_MAX as i64 / 2;
    let samples = (0..count).map(|number| sample(NOW_MS + number)).collect();
    let message = wire::WriteRequest { timeseries: vec![series("wide", 7, samples)], metadata: vec![] };
    assert_eq!(write(&collector, &message.encode_to_vec(), ONE).await, (204, String::new()));
    let counted = collector.query_at("count_over_time(wide{column='007'}[1h])", "1700000100").await;
    assert_eq!(counted[0]["value"][1], (count + 1).to_string());
    collector.stop().await;
}

#[tokio::test]
async fn more_entries_than_are_taken_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    // Empty series take two bytes each.
    let mut message = Vec::new();
    for _ in 0..=SAMPLES_PER_WRITE_MAX {
        message.extend([0x0a, 0]);
    }
    let (status, text) = write(&collector, &message, ONE).await;
    assert_eq!(status, 413, "{text}");
    let text = "a 1\n".repeat(SAMPLES_PER_WRITE_MAX + 1);
    assert_eq!(collector.import(text).await, 400);
    assert_eq!(collector.data("/api/v1/labels").await, serde_json::json!([]));
    collector.stop().await;
}

#[tokio::test]
async fn a_table_of_texts_makes_no_more_of_a_message_than_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    // Field 4, empty: a text that takes two bytes on the wire.
    let symbols: Vec<u8> = [0x22, 0].repeat(SYMBOLS_PER_WRITE_MAX + 1);
    let (status, text) = write(&collector, &symbols, TWO).await;
    assert_eq!((status, text.contains("symbols")), (400, true), "{text}");

    let text = "x".repeat(16_000);
    let symbols = ["", "__name__", "a", text.as_str()].map(str::to_owned).to_vec();
    let named = || v2::TimeSeries {
        labels_refs: vec![1, 2],
        samples: vec![v2::Sample { value: 1.0, timestamp: NOW_MS, ..v2::Sample::default() }],
        ..v2::TimeSeries::default()
    };
    let check = async |series: v2::TimeSeries, wanted: &str| {
        let timeseries = vec![series; 100];
        let request = v2::Request { symbols: symbols.clone(), timeseries };
        let (status, text) = write(&collector, &request.encode_to_vec(), TWO).await;
        assert_eq!((status, text.contains(wanted)), (400, true), "{text}");
    };
    // A hundred times a hundred labels of sixteen kilobytes, in a message of some kilobytes.
    let many = [2, 3].repeat(100);
    check(
        v2::TimeSeries { labels_refs: [1, 2].into_iter().chain(many.clone()).collect(), ..named() },
        "written out",
    )
    .await;
    let exemplar = v2::Exemplar { labels_refs: many, value: 1.0, timestamp: NOW_MS };
    check(v2::TimeSeries { exemplars: vec![exemplar], ..named() }, "written out").await;
    let exemplar = v2::Exemplar { labels_refs: [2, 3].repeat(100_000), value: 1.0, timestamp: NOW_MS };
    check(v2::TimeSeries { exemplars: vec![exemplar], ..named() }, "labels").await;
    collector.stop().await;
}
