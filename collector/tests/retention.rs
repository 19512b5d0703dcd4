//! What the flags of retention leave: roll-ups answer when their samples are gone, for as long as they are kept.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use clap::Parser;
use pharos_collector::Options;
use pharos_common::clock::ManualClock;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::TestCollector;

/// A full hour, seconds.
const START: i64 = 1_699_999_200;
const HOUR: i64 = 3_600;

fn parsed(folder: &Path, flags: &[&str]) -> Options {
    let storage = format!("--storage.path={}", folder.join("data").display());
    let always = ["pharos-collector", "--rules.shipped=false", storage.as_str()];
    Options::try_parse_from(always.iter().chain(flags)).unwrap()
}

/// Stores five hours of a counter, a sample each ten seconds, and lets twenty hours pass.
async fn old_samples(folder: &Path, flags: &[&str]) -> TestCollector {
    let clock = ManualClock::new((START + 5 * HOUR) * 1_000);
    let collector = TestCollector::start_with(parsed(folder, flags), Arc::clone(&clock) as _).await;
    let mut text = String::new();
    for at in (START + 10..=START + 5 * HOUR).step_by(10) {
        writeln!(text, "requests_total {} {}", at - START, at * 1_000).unwrap();
    }
    assert_eq!(collector.import(text).await, 204);
    assert_eq!(collector.post("/api/v1/admin/tsdb/flush", &[]).await.0, 200);
    clock.advance(Duration::from_secs(20 * 3_600));
    // Housekeeping looks once a second.
    let raw = format!("/api/v1/query?query=requests_total[5m]&time={}", START + 2 * HOUR + 7);
    collector.until(&raw, |answer| answer["data"]["result"].as_array().is_some_and(Vec::is_empty)).await;
    collector
}

#[tokio::test]
async fn roll_ups_answer_when_their_samples_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--storage.retention.time=10h", "--storage.rollup.retention.time=100d"];
    let collector = old_samples(folder.path(), &flags).await;
    for (query, want) in [
        ("max_over_time(requests_total[1h])", "7200"),
        ("increase(requests_total[1h])", "3600"),
        ("count_over_time(requests_total[90m])", "540"),
        ("avg_over_time(requests_total[1h])", "5405"),
    ] {
        let answer = collector.query_at(query, &(START + 2 * HOUR).to_string()).await;
        assert_eq!(answer[0]["value"][1], want, "{query}");
    }
    collector.stop().await;
}

#[tokio::test]
async fn roll_ups_that_are_to_be_kept_no_longer_go_with_their_samples() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--storage.retention.time=10h", "--storage.rollup.retention.time=1h"];
    let collector = old_samples(folder.path(), &flags).await;
    let query = "max_over_time(requests_total[1h])";
    let answer = collector.query_at(query, &(START + 2 * HOUR).to_string()).await;
    assert_eq!(answer.as_array().map(Vec::len), Some(0));
    collector.stop().await;
}
