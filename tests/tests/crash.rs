//! Nothing acknowledged is ever lost: the collector is killed with SIGKILL under load, again and again,
//! and every sample that it called durable is there afterwards, once.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_proto::prometheus::{Label, Sample, TimeSeries, WriteRequest};
use pharos_tests::api::Api;
use pharos_tests::node::Node;
use pharos_tests::program::Program;
use pharos_tests::wait::until;
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const COLUMNS: usize = 40;
const KILLS: usize = 3;
/// Acknowledged frames a node must have gathered before the next kill.
const FRAMES_BEFORE_KILL: u64 = 150;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn start(folder: &Path) -> Program {
    let storage = folder.join("collector");
    let arguments = ["--storage.path", storage.to_str().unwrap(), "--web.listen-address", "127.0.0.1:0"];
    Program::start("pharos-collector", &arguments, 1)
}

/// Frames of one node that were acknowledged: sequence and timestamp.
type Acknowledged = BTreeMap<u64, i64>;

/// Sends frames as fast as they are acknowledged, until the connection breaks. What was sent and not
/// acknowledged is sent again on the next connection, as an agent does.
async fn push(
    program: &Program,
    name: &str,
    stream: [u8; 16],
    first_ms: i64,
    acknowledged: &mut Acknowledged,
    counter: &AtomicU64,
    stop: &AtomicBool,
) {
    let address = program.address();
    let Some(mut node) = Node::connect(address, name, stream, COLUMNS).await else { return };
    let mut next = acknowledged.keys().last().map_or(1, |last| last + 1);
    let timestamp = |sequence: u64| first_ms + sequence as i64 * 10;
    // The collector may have stored more than it got round to telling.
    let mut told = node.acknowledged;
    loop {
        for sequence in next..=told {
            acknowledged.insert(sequence, timestamp(sequence));
            counter.fetch_add(1, Ordering::Relaxed);
        }
        next = next.max(told + 1);
        if stop.load(Ordering::Relaxed) || node.send_durably(next, timestamp(next)).await.is_none() {
            return;
        }
        told = node.acknowledged;
    }
}

/// Flushes without a pause until the collector is gone, so that a kill meets blocks being cut, published and
/// compacted, and their journal being freed.
fn flush_all_the_time(program: &Program) -> tokio::task::JoinHandle<usize> {
    let api = Api::new(program.url());
    tokio::spawn(async move {
        let mut flushes = 0;
        while api.post_bytes("/api/v1/admin/tsdb/flush", &[], Vec::new()).await.is_some() {
            flushes += 1;
        }
        flushes
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_frame_is_lost_or_doubled_by_sigkill() {
    frames_survive(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_frame_is_lost_or_doubled_by_sigkill_while_blocks_are_cut() {
    frames_survive(true).await;
}

async fn frames_survive(flushing: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Arc::new(start(folder.path()));
    let names = ["node-a", "node-b", "node-c"];
    let first_ms = now_ms() - 600_000;
    let mut acknowledged: Vec<Acknowledged> = vec![Acknowledged::new(); names.len()];
    for _ in 0..KILLS {
        let stop = Arc::new(AtomicBool::new(false));
        let counter = Arc::new(AtomicU64::new(0));
        let flushes = flushing.then(|| flush_all_the_time(&program));
        let mut tasks = Vec::new();
        for (number, name) in names.into_iter().enumerate() {
            let mut mine = std::mem::take(&mut acknowledged[number]);
            let (program, counter, stop) = (Arc::clone(&program), Arc::clone(&counter), Arc::clone(&stop));
            tasks.push(tokio::spawn(async move {
                push(&program, name, [number as u8; 16], first_ms, &mut mine, &counter, &stop).await;
                mine
            }));
        }
        until("enough acknowledged frames", async || {
            (counter.load(Ordering::Relaxed) >= FRAMES_BEFORE_KILL * names.len() as u64).then_some(())
        })
        .await;
        // Without warning, with frames in flight.
        program.signal("KILL");
        for (number, task) in tasks.into_iter().enumerate() {
            acknowledged[number] = task.await.unwrap();
        }
        if let Some(flushes) = flushes {
            assert!(flushes.await.unwrap() > 0, "no flush came through before the kill");
        }
        program = Arc::new(start(folder.path()));
    }
    let api = Api::new(program.url());
    for (name, frames) in names.iter().zip(&acknowledged) {
        assert!(frames.len() as u64 >= FRAMES_BEFORE_KILL);
        for column in [0, 7, COLUMNS - 1] {
            let query = format!(r#"test_value{{instance="{name}",column="{column}"}}[20m]"#);
            let result = api.query(&query).await.unwrap();
            assert_eq!(result.len(), 1, "{query}");
            let stored: Vec<(i64, f64)> = result[0]["values"]
                .as_array()
                .unwrap()
                .iter()
                .map(|sample| {
                    let seconds = sample[0].as_f64().unwrap();
                    ((seconds * 1000.0).round() as i64, sample[1].as_str().unwrap().parse().unwrap())
                })
                .collect();
            assert!(stored.windows(2).all(|pair| pair[0].0 < pair[1].0), "{query}: a sample is there twice");
            let stored: BTreeMap<i64, f64> = stored.into_iter().collect();
            for (&sequence, timestamp_ms) in frames {
                let want = Node::value(sequence, column);
                assert_eq!(
                    stored.get(timestamp_ms),
                    Some(&want),
                    "{query}: frame {sequence} of {}",
                    frames.len()
                );
            }
        }
    }
}

fn write_request(number: u64, timestamp: i64) -> Vec<u8> {
    let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
    let series = (0..COLUMNS).map(|column| TimeSeries {
        labels: vec![label("__name__", "remote_value"), label("column", &column.to_string())],
        samples: vec![Sample { value: Node::value(number, column), timestamp }],
        ..TimeSeries::default()
    });
    let request = WriteRequest { timeseries: series.collect(), metadata: Vec::new() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_remote_write_that_was_answered_is_lost_by_sigkill() {
    remote_writes_survive(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_remote_write_that_was_answered_is_lost_by_sigkill_while_blocks_are_cut() {
    remote_writes_survive(true).await;
}

async fn remote_writes_survive(flushing: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = start(folder.path());
    let first_ms = now_ms() - 600_000;
    let timestamp = |number: u64| first_ms + number as i64 * 10;
    let mut answered = 0u64;
    for round in 0..KILLS as u64 {
        let goal = (round + 1) * FRAMES_BEFORE_KILL;
        let api = Api::new(program.url());
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        let flushes = flushing.then(|| flush_all_the_time(&program));
        // The write behind the goal is in flight when the kill comes.
        while answered < goal {
            let number = answered + 1;
            let status =
                api.post_bytes("/api/v1/write", &headers, write_request(number, timestamp(number))).await;
            assert_eq!(status, Some(204));
            answered = number;
        }
        let in_flight = tokio::spawn({
            let (api, body) = (api.clone(), write_request(answered + 1, timestamp(answered + 1)));
            async move { api.post_bytes("/api/v1/write", &headers, body).await }
        });
        program.signal("KILL");
        if in_flight.await.unwrap() == Some(204) {
            answered += 1;
        }
        drop(program);
        if let Some(flushes) = flushes {
            assert!(flushes.await.unwrap() > 0, "no flush came through before the kill");
        }
        program = start(folder.path());
    }
    let api = Api::new(program.url());
    let result = api.query("remote_value[20m]").await.unwrap();
    assert_eq!(result.len(), COLUMNS);
    for series in result {
        let column: usize = series["metric"]["column"].as_str().unwrap().parse().unwrap();
        let stored: BTreeMap<i64, f64> = series["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|sample| {
                let seconds = sample[0].as_f64().unwrap();
                ((seconds * 1000.0).round() as i64, sample[1].as_str().unwrap().parse().unwrap())
            })
            .collect();
        for number in 1..=answered {
            assert_eq!(stored.get(&timestamp(number)), Some(&Node::value(number, column)), "write {number}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_what_an_absent_collector_cannot_take() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path());
    let address = collector.address().to_string();
    let agent_folder = folder.path().join("agent");
    let agent = Program::start(
        "pharos-agent",
        &[
            "--storage.path",
            agent_folder.to_str().unwrap(),
            "--web.listen-address",
            "127.0.0.1:0",
            "--collector.address",
            &address,
            "--node.name",
            "n",
        ],
        1,
    );
    let api = Api::new(collector.url());
    let count = "count_over_time(node_load1[10m])";
    until("the first samples", async || api.value(count).await.filter(|&count| count >= 3.0)).await;
    let before = api.value("max_over_time(timestamp(node_load1)[10m:1s])").await;
    assert!(before.is_some());
    collector.kill();
    // The agent goes on sampling for itself.
    let own = Api::new(agent.url());
    let up_for = async || {
        let (_, text) = own.get("/metrics", &[]).await?;
        assert!(text.contains("node_load1 "), "the agent's own /metrics went away");
        Some(())
    };
    until("the agent without a collector", up_for).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let storage = folder.path().join("collector");
    let arguments = ["--storage.path", storage.to_str().unwrap(), "--web.listen-address", &address];
    let collector = Program::start("pharos-collector", &arguments, 1);
    let api = Api::new(collector.url());
    // No second is missing: neither of the outage nor around it.
    until("the seconds of the outage", async || {
        let result = api.query("node_load1[2m]").await?;
        let samples = result.first()?["values"].as_array()?.clone();
        let seconds: Vec<f64> = samples.iter().filter_map(|sample| sample[0].as_f64()).collect();
        let whole = seconds.windows(2).all(|pair| pair[1] - pair[0] < 1.9);
        (seconds.len() >= 10 && whole).then_some(())
    })
    .await;
    assert!(agent.terminate().success());
}
