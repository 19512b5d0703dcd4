//! Random queries over random samples, asked of our collector and of Debian's Prometheus. More than 99.9 % of
//! the answers agree; every class of difference is named and explained in `compare` and `generator`.
//!
//! `PHAROS_RANDOM_QUERIES=5000` asks more, `PHAROS_RANDOM_SEED=7` others; a failure prints the seed.

#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failed step fails the test")]

mod compare;
mod data;
mod generator;
mod random;

use compare::Outcome;
use generator::{Query, Times};
use pharos_tests::api::Api;
use pharos_tests::program::Program;
use pharos_tests::wait::until;
use random::Random;
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use tokio::task::JoinSet;

/// Queries of a run that nobody asked to be longer: some seconds.
const QUERIES: u64 = 1_000;
/// Differences that are printed.
const PRINTED_MAX: usize = 20;
/// Queries at once.
const AT_ONCE: usize = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Debian's Prometheus, killed when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_prometheus(folder: &std::path::Path) -> (Peer, String) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.join("prometheus.yml");
    std::fs::write(&config, "").unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y"])
        // Its lookback is closed on the left, ours is open.
        .arg("--query.lookback-delta=4m59s999ms")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("prometheus does not start (apt-get install prometheus): {error}"));
    (Peer(child), format!("http://127.0.0.1:{port}"))
}

async fn ask(api: &Api, query: &str, times: Times) -> (u16, String) {
    let seconds = |millis: i64| format!("{}.{:03}", millis / 1_000, millis % 1_000);
    let answer = match times {
        Times::At(at_ms) => api.get("/api/v1/query", &[("query", query), ("time", &seconds(at_ms))]).await,
        Times::Range { start_ms, end_ms, step_ms } => {
            let (start, end, step) = (seconds(start_ms), seconds(end_ms), seconds(step_ms));
            let form = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
            api.get("/api/v1/query_range", &form).await
        }
    };
    answer.unwrap_or_else(|| panic!("no answer to {query}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_are_answered_as_by_prometheus() {
    let (seed, count) = (setting("PHAROS_RANDOM_SEED", 1), setting("PHAROS_RANDOM_QUERIES", QUERIES));
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("collector");
    let collector = Program::start(
        "pharos-collector",
        &[
            "--storage.path",
            storage.to_str().unwrap(),
            "--web.listen-address",
            "127.0.0.1:0",
            "--storage.retention.time",
            "0",
        ],
        1,
    );
    let (_prometheus, url) = start_prometheus(folder.path());
    let (ours, theirs) = (Api::new(collector.url()), Api::new(url));
    let mut random = Random::new(seed);
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    for api in [&ours, &theirs] {
        until("readiness", async || api.get("/-/ready", &[]).await.filter(|(status, _)| *status == 200))
            .await;
    }
    for body in data::writes(&mut random) {
        for api in [&ours, &theirs] {
            let status = api.post_bytes("/api/v1/write", &headers, body.clone()).await;
            assert!(status.is_some_and(|status| status / 100 == 2), "{status:?}");
        }
    }

    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let mut different = Vec::new();
    let mut running: JoinSet<(u64, Query, Outcome)> = JoinSet::new();
    for number in 0..count {
        let query = generator::query(&mut random);
        let (ours, theirs) = (ours.clone(), theirs.clone());
        running.spawn(async move {
            let answers =
                (ask(&ours, &query.ours, query.times).await, ask(&theirs, &query.theirs, query.times).await);
            let outcome = compare::compare(&query.ours, &answers.0, &answers.1);
            (number, query, outcome)
        });
        while running.len() >= AT_ONCE || (number + 1 == count && !running.is_empty()) {
            let (number, query, outcome) = running.join_next().await.unwrap().unwrap();
            let class = match outcome {
                Outcome::Same => "same".to_owned(),
                Outcome::Known(difference) => format!("{difference:?}"),
                Outcome::Different(what) => {
                    different.push((number, query, what));
                    "different".to_owned()
                }
            };
            *outcomes.entry(class).or_default() += 1;
        }
    }
    eprintln!("seed {seed}, {count} queries: {outcomes:?}");
    for (number, query, what) in different.iter().take(PRINTED_MAX) {
        eprintln!(
            "query {number} {:?}\n  ours   {}\n  theirs {}\n  {what}",
            query.times, query.ours, query.theirs
        );
    }
    assert!(different.len() as u64 * 1_000 <= count, "{} of {count} differ", different.len());
}
