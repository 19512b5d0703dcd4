//! Requests as clients really send them: raw targets, encodings, deletions, times that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step fails the test")]

mod support;

use pharos_common::clock::SystemClock;
use serde_json::json;
use support::{TestCollector, options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the server answers to bytes.
async fn answer(collector: &TestCollector, bytes: &[u8]) -> String {
    let address = collector.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn quotes_and_braces_in_a_target_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        pharos_collector::Options { retention_time: "0s".parse().unwrap(), ..options(folder.path()) };
    let collector = TestCollector::start_with(options, SystemClock::shared()).await;
    assert_eq!(collector.import("up{job=\"node\"} 7 4000\n").await, 204);
    let target = r#"/api/v1/query?time=5&query=sum({__name__="up",job=~"n.*|x"}>1)"#;
    let request = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = answer(&collector, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(r#""result":[{"metric":{},"value":[5,"7"]}]}}"#), "{answer}");
    collector.stop().await;
}

#[tokio::test]
async fn answers_are_compressed_as_the_client_wants() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TestCollector::start(folder.path()).await;
    let url = format!("{}/api/v1/query_range?query=time()&start=0&end=1000&step=1", collector.url);
    for (accepted, used) in [("zstd, gzip", Some("zstd")), ("identity", None)] {
        let response = collector.client.get(&url).header("accept-encoding", accepted).send().await.unwrap();
        let encoding =
            response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(encoding.as_deref(), used);
        let bytes = response.bytes().await.unwrap();
        if used == Some("zstd") {
            let plain = zstd::decode_all(&bytes[..]).unwrap();
            assert!(plain.starts_with(br#"{"status":"success""#) && plain.len() > bytes.len());
        }
    }
    collector.stop().await;
}

#[tokio::test]
async fn deleted_samples_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let options = pharos_collector::Options { enable_admin_api: true, ..options(folder.path()) };
    let collector = TestCollector::start_with(options, SystemClock::shared()).await;
    let now = pharos_common::clock::Clock::now_ms(&*SystemClock::shared());
    let text = format!("a{{x=\"1\"}} 1 {now}\na{{x=\"2\"}} 2 {now}\n");
    assert_eq!(collector.import(text).await, 204);
    let post = |path: &'static str| {
        let url = format!("{}/api/v1/admin/tsdb/{path}", collector.url);
        let client = collector.client.clone();
        async move { client.post(url).send().await.unwrap().status().as_u16() }
    };
    assert_eq!(post("delete_series").await, 400);
    assert_eq!(post("delete_series?match[]={").await, 400);
    assert_eq!(post("delete_series?match[]=a{x=%221%22}").await, 204);
    let left = collector.query_at("a", &(now / 1_000 + 1).to_string()).await;
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["metric"]["x"], "2");
    assert_eq!(post("clean_tombstones").await, 204);
    assert_eq!(post("nothing").await, 404);
    collector.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_said_as_prometheus_says_it() {
    let folder = tempfile::tempdir().unwrap();
    let collector = TestCollector::start(folder.path()).await;
    for (path, status, error_type) in [
        ("/api/v1/label/%ff/values", 400, "bad_data"),
        ("/api/v1/query_exemplars?query=x%7B&start=1&end=2", 400, "bad_data"),
        ("/api/v1/query?query=1&timeout=x", 400, "bad_data"),
        ("/api/v1/query?query=1&timeout=0", 503, "timeout"),
        ("/api/v1/query?query=1&timeout=-1s", 400, "bad_data"),
        ("/api/v1/targets/metadata?limit=x", 400, "bad_data"),
        ("/api/v1/targets/metadata?match_target=%7B", 400, "bad_data"),
        ("/api/v1/nosuch", 404, "not_found"),
    ] {
        let (got, body) = collector.get(path).await;
        assert_eq!((got, body["errorType"].as_str()), (status, Some(error_type)), "{path}: {body}");
    }
    assert_eq!(collector.data("/api/v1/targets/metadata").await, json!([]));
    let response = collector.client.post(format!("{}/api/v1/admin/tsdb/clean_tombstones", collector.url));
    assert_eq!(response.send().await.unwrap().status(), 503);
    collector.stop().await;
}
