//! The ingest stream between a real gRPC client and a real collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_common::clock::{Clock, ManualClock};
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{self, agent_message, collector_message};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use support::{PATIENCE, TestCollector, options};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const NOW_MS: i64 = 1_700_000_000_000;
const STREAM: [u8; 16] = *b"one agent's life";

/// An agent that says what a test tells it to.
struct Agent {
    outbound: mpsc::Sender<v1::AgentMessage>,
    inbound: Streaming<v1::CollectorMessage>,
}

impl Agent {
    async fn connect(collector: &TestCollector) -> Self {
        let (outbound, messages) = mpsc::channel(64);
        let mut client = IngestClient::connect(collector.url.clone()).await.unwrap();
        let inbound = client.push(ReceiverStream::new(messages)).await.unwrap().into_inner();
        Agent { outbound, inbound }
    }

    /// Connects, says Hello, and returns the marks of Welcome.
    async fn welcome(collector: &TestCollector) -> (Self, (u64, u64)) {
        let mut agent = Agent::connect(collector).await;
        agent.hello().await;
        let collector_message::Message::Welcome(welcome) = agent.receive().await.unwrap() else {
            panic!("the first message is Welcome");
        };
        (agent, (welcome.live_durable, welcome.backfill_durable))
    }

    async fn say(&self, message: agent_message::Message) {
        self.outbound.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
    }

    async fn hello(&self) {
        let hello = v1::Hello { node: "n1".into(), version: "0.1".into(), stream_id: STREAM.to_vec().into() };
        self.say(agent_message::Message::Hello(hello)).await;
    }

    async fn receive(&mut self) -> Result<collector_message::Message, Status> {
        let message = tokio::time::timeout(PATIENCE, self.inbound.message()).await.expect("an answer");
        message.map(|message| message.and_then(|message| message.message).expect("a message"))
    }

    async fn acknowledged(&mut self) -> (v1::Lane, u64) {
        match self.receive().await.unwrap() {
            collector_message::Message::Acknowledge(ack) => (ack.lane(), ack.sequence),
            other => panic!("{other:?}"),
        }
    }

    async fn status(mut self) -> Status {
        loop {
            if let Err(status) = self.receive().await {
                return status;
            }
        }
    }

    async fn define(&self, group: u32, columns: &[(u32, &str)]) {
        let define = v1::DefineGroup {
            group,
            labels: vec![label("instance", "n1")],
            columns: columns.iter().map(|(id, name)| column(*id, name)).collect(),
        };
        self.say(agent_message::Message::DefineGroup(define)).await;
    }

    async fn tick(&self, lane: v1::Lane, sequence: u64, readings: Vec<v1::Reading>) {
        self.say(agent_message::Message::Tick(v1::Tick { lane: lane.into(), sequence, readings })).await;
    }
}

fn label(name: &str, value: &str) -> v1::Label {
    v1::Label { name: name.into(), value: value.into() }
}

fn column(id: u32, name: &str) -> v1::Column {
    v1::Column {
        id,
        name: name.into(),
        labels: vec![label("device", "d0")],
        r#type: v1::MetricType::Gauge.into(),
        unit: String::new(),
        help: format!("Help of {name}"),
    }
}

fn reading(group: u32, timestamp_ms: i64, values: &[f64]) -> v1::Reading {
    v1::Reading {
        group,
        timestamp_ms,
        interval_ms: 1_000,
        present: Default::default(),
        values: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
    }
}

async fn start(folder: &std::path::Path) -> TestCollector {
    TestCollector::start_with(options(folder), ManualClock::new(NOW_MS)).await
}

async fn values(collector: &TestCollector, query: &str) -> serde_json::Value {
    collector.query_at(query, "1700000000").await[0]["values"].take()
}

#[tokio::test]
async fn ticks_are_stored_acknowledged_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let (mut agent, marks) = Agent::welcome(&collector).await;
    assert_eq!(marks, (0, 0));
    agent.define(1, &[(0, "temp"), (1, "power")]).await;
    let mut sparse = reading(1, NOW_MS - 1_000, &[300.0]);
    sparse.present = vec![0b10].into();
    agent.tick(v1::Lane::Live, 1, vec![reading(1, NOW_MS - 2_000, &[90.0, 250.0])]).await;
    agent.tick(v1::Lane::Live, 2, vec![sparse]).await;
    while agent.acknowledged().await != (v1::Lane::Live, 2) {}
    assert_eq!(
        collector.query_at("temp", "1700000000").await,
        json!([{
            "metric": {"__name__": "temp", "device": "d0", "instance": "n1"},
            "value": [1700000000, "90"],
        }])
    );
    assert_eq!(values(&collector, "power[1m]").await, json!([[1699999998, "250"], [1699999999, "300"]]));
    let metadata = collector.data("/api/v1/metadata?metric=temp").await;
    assert_eq!(metadata["temp"][0]["help"], "Help of temp");
    collector.stop().await;
}

#[tokio::test]
async fn an_agent_is_told_which_series_come_near_a_threshold_and_leave_it() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yml");
    let text = "groups:\n  - name: a\n    rules:\n      - {alert: Hot, expr: temp > 100}\n      - {alert: Both, expr: power > 5 and flow < 1}\n";
    std::fs::write(&rules, text).unwrap();
    let clock = ManualClock::new(NOW_MS);
    let options =
        pharos_collector::Options { rule_files: vec![rules.display().to_string()], ..options(folder.path()) };
    let collector = TestCollector::start_with(options, clock.clone()).await;
    let (mut agent, _) = Agent::welcome(&collector).await;
    agent.define(4, &[(7, "temp"), (8, "power"), (9, "flow"), (10, "other")]).await;
    let mut sequence = 0;
    let mut told: BTreeMap<(u32, u32), f32> = BTreeMap::new();
    for (values, want) in [
        ([95.0, 0.0, 0.0, 1.0], vec![((4, 7), 0.5)]),
        ([101.0, 9.0, 0.0, 1.0], vec![((4, 7), 1.0), ((4, 8), 1.0), ((4, 9), 1.0)]),
    ] {
        // The judge decides beside the stream, so a hint comes with one of the next ticks.
        while told != BTreeMap::from_iter(want.clone()) {
            clock.advance(Duration::from_secs(1));
            sequence += 1;
            let at_ms = NOW_MS + 1_000 * sequence as i64;
            agent.tick(v1::Lane::Live, sequence, vec![reading(4, at_ms, &values)]).await;
            loop {
                match agent.receive().await.unwrap() {
                    collector_message::Message::Hints(hints) => {
                        told.extend(hints.hints.iter().map(|hint| ((hint.group, hint.column), hint.urgency)));
                    }
                    collector_message::Message::Acknowledge(ack) if ack.sequence == sequence => break,
                    _ => {}
                }
            }
        }
    }
    collector.stop().await;
}

#[tokio::test]
async fn a_frame_is_stored_once_across_reconnect_restart_and_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut collector = start(folder.path()).await;
    let (mut agent, _) = Agent::welcome(&collector).await;
    agent.define(1, &[(0, "temp")]).await;
    agent.tick(v1::Lane::Live, 7, vec![reading(1, NOW_MS - 5_000, &[1.0])]).await;
    assert_eq!(agent.acknowledged().await, (v1::Lane::Live, 7));
    drop(agent);
    for round in 0..3 {
        let (mut agent, marks) = Agent::welcome(&collector).await;
        assert_eq!(marks, (7, round));
        agent.define(1, &[(0, "temp")]).await;
        // The same frame with another content would be stored if it were taken again.
        agent.tick(v1::Lane::Live, 7, vec![reading(1, NOW_MS - 4_500, &[2.0])]).await;
        assert_eq!(agent.acknowledged().await, (v1::Lane::Live, 7));
        let at_ms = NOW_MS - 4_000 + round as i64 * 1_000;
        agent.tick(v1::Lane::Backfill, round + 1, vec![reading(1, at_ms, &[3.0])]).await;
        assert_eq!(agent.acknowledged().await, (v1::Lane::Backfill, round + 1));
        match round {
            0 => drop(agent),
            1 => {
                collector.stop().await;
                collector = start(folder.path()).await;
            }
            _ => {
                collector.kill().await;
                collector = start(folder.path()).await;
            }
        }
    }
    assert_eq!(
        values(&collector, "temp[1m]").await,
        json!([[1699999995, "1"], [1699999996, "3"], [1699999997, "3"], [1699999998, "3"]])
    );
    collector.stop().await;
}

#[tokio::test]
async fn a_newer_connection_ends_the_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let (mut older, _) = Agent::welcome(&collector).await;
    older.define(1, &[(0, "temp")]).await;
    older.tick(v1::Lane::Live, 3, vec![reading(1, NOW_MS, &[1.0])]).await;
    assert_eq!(older.acknowledged().await, (v1::Lane::Live, 3));
    let (_newer, marks) = Agent::welcome(&collector).await;
    assert_eq!(marks, (3, 0));
    assert_eq!(older.status().await.code(), Code::Aborted);
    collector.stop().await;
}

#[tokio::test]
async fn columns_that_go_end_with_a_stale_marker() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let (mut agent, _) = Agent::welcome(&collector).await;
    agent.define(1, &[(0, "temp"), (1, "power")]).await;
    agent.tick(v1::Lane::Live, 1, vec![reading(1, NOW_MS - 2_000, &[1.0, 2.0])]).await;
    let alter = v1::AlterGroup { group: 1, remove: vec![0], add: vec![column(2, "clock")] };
    agent.say(agent_message::Message::AlterGroup(alter)).await;
    agent.tick(v1::Lane::Live, 2, vec![reading(1, NOW_MS - 1_000, &[3.0, 4.0])]).await;
    while agent.acknowledged().await != (v1::Lane::Live, 2) {}
    assert_eq!(collector.query_at("temp", "1700000000").await, json!([]));
    assert_eq!(collector.query_at("power", "1700000000").await[0]["value"][1], "3");
    assert_eq!(collector.query_at("clock", "1700000000").await[0]["value"][1], "4");
    collector.stop().await;
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_how() {
    let folder = tempfile::tempdir().unwrap();
    let collector = start(folder.path()).await;
    let define = |columns: Vec<v1::Column>| {
        agent_message::Message::DefineGroup(v1::DefineGroup { group: 1, labels: Vec::new(), columns })
    };
    let tick = |lane: i32, readings: Vec<v1::Reading>| {
        agent_message::Message::Tick(v1::Tick { lane, sequence: 1, readings })
    };
    let one = || define(vec![column(0, "a")]);
    let mut cut = reading(1, NOW_MS, &[1.0]);
    cut.values = cut.values.slice(..7);
    let cases = [
        (vec![tick(0, vec![reading(1, NOW_MS, &[1.0])])], Code::FailedPrecondition, "not defined"),
        (vec![define(Vec::new())], Code::InvalidArgument, "1 to 256 columns"),
        (vec![define(vec![column(0, "a"), column(1, "a")])], Code::InvalidArgument, "same series"),
        (vec![define(vec![column(0, "a"), column(0, "b")])], Code::InvalidArgument, "used twice"),
        (vec![define(vec![column(65_536, "a")])], Code::InvalidArgument, "not below"),
        (vec![define(vec![column(0, "")])], Code::InvalidArgument, "no metric name"),
        (vec![define(vec![column(0, &"n".repeat(100_000))])], Code::InvalidArgument, "longer than"),
        (vec![one(), tick(9, Vec::new())], Code::InvalidArgument, "no lane"),
        (vec![one(), tick(0, vec![reading(1, NOW_MS, &[1.0, 2.0])])], Code::InvalidArgument, "2 values"),
        (vec![one(), tick(0, vec![cut])], Code::InvalidArgument, "whole doubles"),
        (
            vec![
                one(),
                agent_message::Message::AlterGroup(v1::AlterGroup { group: 1, remove: vec![5], add: vec![] }),
            ],
            Code::InvalidArgument,
            "not there",
        ),
    ];
    for (messages, code, text) in cases {
        let (agent, marks) = Agent::welcome(&collector).await;
        assert_eq!(marks, (0, 0), "nothing of a bad frame is stored");
        for message in messages {
            agent.say(message).await;
        }
        let status = agent.status().await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    let agent = Agent::connect(&collector).await;
    agent.say(one()).await;
    assert_eq!(agent.status().await.code(), Code::InvalidArgument);
    assert_eq!(collector.data("/api/v1/query?query=a").await["result"], json!([]));
    collector.stop().await;
}

#[tokio::test]
async fn a_node_that_stops_reporting_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW_MS);
    let collector = TestCollector::start_with(options(folder.path()), clock.clone()).await;
    let (mut agent, _) = Agent::welcome(&collector).await;
    agent.define(1, &[(0, "temp")]).await;
    agent.tick(v1::Lane::Live, 1, vec![reading(1, NOW_MS, &[1.0])]).await;
    assert_eq!(agent.acknowledged().await, (v1::Lane::Live, 1));
    let up = "/api/v1/query?query=pharos_node_up";
    let is =
        |value: &'static str| move |body: &serde_json::Value| body["data"]["result"][0]["value"][1] == value;
    clock.advance(Duration::from_secs(1));
    let answer = collector.until(up, is("1")).await;
    assert_eq!(answer["data"]["result"][0]["metric"]["instance"], "n1");
    assert_eq!(collector.data("/api/v1/targets").await["activeTargets"][0]["health"], "up");
    // Its series end when the promised interval has passed a few times, also while it stays connected.
    // A look at the nodes may be under way while the clock moves, so it moves until one has seen it.
    while !is("0")(&collector.get(up).await.1) {
        clock.advance(Duration::from_secs(1));
    }
    let gone = |body: &serde_json::Value| body["data"]["result"] == json!([]);
    collector.until("/api/v1/query?query=temp", gone).await;
    agent.tick(v1::Lane::Live, 2, vec![reading(1, clock.now_ms() + 1_000, &[2.0])]).await;
    assert_eq!(agent.acknowledged().await, (v1::Lane::Live, 2));
    clock.advance(Duration::from_secs(1));
    collector.until(up, is("1")).await;
    collector.stop().await;
}

#[tokio::test]
async fn an_agent_over_its_rate_is_asked_to_pause_its_backfill() {
    let folder = tempfile::tempdir().unwrap();
    let limited = pharos_collector::Options { samples_per_second_max: 1, ..options(folder.path()) };
    let collector = TestCollector::start_with(limited, ManualClock::new(NOW_MS)).await;
    let (mut agent, _) = Agent::welcome(&collector).await;
    agent.define(1, &[(1, "up")]).await;
    let past = (0..13).map(|second| reading(1, NOW_MS - 60_000 + second * 1_000, &[1.0])).collect();
    agent.tick(v1::Lane::Backfill, 1, past).await;
    let mut seen = (false, false);
    while seen != (true, true) {
        match agent.receive().await.unwrap() {
            collector_message::Message::Throttle(throttle) => {
                assert_eq!(throttle.pause_backfill_ms, 3_000);
                seen.0 = true;
            }
            collector_message::Message::Acknowledge(ack) => {
                assert_eq!((ack.lane(), ack.sequence), (v1::Lane::Backfill, 1));
                seen.1 = true;
            }
            other => panic!("{other:?}"),
        }
    }
    // What is live goes on.
    agent.tick(v1::Lane::Live, 1, vec![reading(1, NOW_MS, &[2.0])]).await;
    assert_eq!(agent.acknowledged().await, (v1::Lane::Live, 1));
    collector.stop().await;
}
