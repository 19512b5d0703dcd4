//! The real program on a disk that is full for a while: reads go on, writes are to be sent again, all doors take
//! them again by themselves, and nothing that was acknowledged is lost, whatever happens to the program then.
//!
//! The disk is full for the program alone: the system lets it extend no file (`RLIMIT_FSIZE`), which needs no root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_proto::prometheus as wire;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{self, agent_message, collector_message};
use prost::Message;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};
use support::PATIENCE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

struct Program {
    child: Child,
    url: String,
    client: reqwest::Client,
}

impl Program {
    fn start(folder: &Path) -> Program {
        // Who is told that a file grew too large would end by it if it did not look away.
        let mut child = Command::new("sh")
            .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#, env!("CARGO_BIN_EXE_pharos-collector")])
            .arg(format!("--storage.path={}/data", folder.display()))
            .args(["--web.listen-address=127.0.0.1:0", "--rules.shipped=false"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("Listening on")).unwrap();
        let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let url = format!("http://{address}");
        std::thread::spawn(move || lines.for_each(drop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        Program { child, url, client: reqwest::Client::new() }
    }

    fn set_full(&self, full: bool) {
        let pid = Pid::from_raw(self.child.id() as i32);
        let current = if full { Some(0) } else { None };
        prlimit(pid, Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Status, and whether it says when to come back.
    async fn post(&self, path: &str, body: Vec<u8>) -> (u16, bool) {
        let response = self.client.post(format!("{}{path}", self.url)).body(body).send().await.unwrap();
        (response.status().as_u16(), response.headers().contains_key("retry-after"))
    }

    async fn remote_write(&self, at_ms: i64) -> (u16, bool) {
        let labels = vec![wire::Label { name: "__name__".into(), value: "by_remote_write".into() }];
        let samples = vec![wire::Sample { timestamp: at_ms, value: at_ms as f64 }];
        let series = wire::TimeSeries { labels, samples, ..wire::TimeSeries::default() };
        let message = wire::WriteRequest { timeseries: vec![series], metadata: Vec::new() }.encode_to_vec();
        self.post("/api/v1/write", snap::raw::Encoder::new().compress_vec(&message).unwrap()).await
    }

    async fn import(&self, at_ms: i64) -> (u16, bool) {
        let text = format!("by_text {at_ms} {at_ms}\n");
        self.post("/api/v1/import/prometheus", text.into_bytes()).await
    }

    /// How many samples of a metric there are.
    async fn count(&self, metric: &str) -> u64 {
        let query = [("query", format!("count_over_time({metric}[1h])"))];
        let asked = self.client.post(format!("{}/api/v1/query", self.url)).form(&query).send().await.unwrap();
        assert_eq!(asked.status(), 200);
        let answer: serde_json::Value = asked.json().await.unwrap();
        let value = answer["data"]["result"][0]["value"][1].as_str().unwrap_or("0");
        value.parse().unwrap()
    }
}

/// An agent with one series.
struct Agent {
    outbound: mpsc::Sender<v1::AgentMessage>,
    inbound: tonic::Streaming<v1::CollectorMessage>,
    /// What is durable.
    mark: u64,
}

impl Agent {
    /// `None` if the collector does not take it now.
    async fn connect(program: &Program) -> Option<Agent> {
        let (outbound, messages) = mpsc::channel(64);
        let mut client = IngestClient::connect(program.url.clone()).await.unwrap();
        let say = async |message| outbound.send(v1::AgentMessage { message: Some(message) }).await.unwrap();
        let (node, version) = ("n1".to_owned(), "0.1".to_owned());
        let hello = v1::Hello { node, version, stream_id: b"one agent's life".to_vec().into() };
        say(agent_message::Message::Hello(hello)).await;
        let column = v1::Column { name: "by_stream".into(), ..v1::Column::default() };
        let define = v1::DefineGroup { group: 1, columns: vec![column], ..v1::DefineGroup::default() };
        say(agent_message::Message::DefineGroup(define)).await;
        let mut inbound = client.push(ReceiverStream::new(messages)).await.unwrap().into_inner();
        match inbound.message().await {
            Ok(Some(v1::CollectorMessage {
                message: Some(collector_message::Message::Welcome(welcome)),
            })) => Some(Agent { outbound, inbound, mark: welcome.live_durable }),
            _ => None,
        }
    }

    /// Sends a tick; whether it is acknowledged before the stream ends.
    async fn tick(&mut self, at_ms: i64) -> bool {
        let reading = v1::Reading {
            group: 1,
            timestamp_ms: at_ms,
            interval_ms: 1_000,
            values: (at_ms as f64).to_le_bytes().to_vec().into(),
            ..v1::Reading::default()
        };
        let sequence = self.mark + 1;
        let tick = v1::Tick { lane: v1::Lane::Live.into(), sequence, readings: vec![reading] };
        let message = Some(agent_message::Message::Tick(tick));
        if self.outbound.send(v1::AgentMessage { message }).await.is_err() {
            return false;
        }
        loop {
            match self.inbound.message().await {
                Ok(Some(v1::CollectorMessage {
                    message: Some(collector_message::Message::Acknowledge(told)),
                })) if told.sequence == sequence => {
                    self.mark = sequence;
                    return true;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// Tries until it is taken.
async fn until_taken(mut attempt: impl AsyncFnMut() -> bool) {
    let tried = tokio::time::timeout(PATIENCE, async {
        while !attempt().await {
            tokio::task::yield_now().await;
        }
    });
    tried.await.expect("writes are taken again");
}

const METRICS: [&str; 3] = ["by_stream", "by_remote_write", "by_text"];

#[tokio::test]
async fn a_full_disk_is_waited_for_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let program = Program::start(folder.path());
    let mut at_ms = now_ms() - 60_000;
    let mut agent = Agent::connect(&program).await.unwrap();
    for _ in 0..5 {
        at_ms += 1;
        assert!(agent.tick(at_ms).await);
        assert_eq!(program.remote_write(at_ms).await.0, 204);
        assert_eq!(program.import(at_ms).await.0, 204);
    }
    program.set_full(true);
    at_ms += 1;
    // Not acknowledged, and to be sent again.
    assert_eq!(program.remote_write(at_ms).await, (503, true));
    assert_eq!(program.import(at_ms).await, (503, true));
    assert!(!agent.tick(at_ms).await);
    for metric in METRICS {
        assert!(program.count(metric).await >= 5, "{metric} can be read while the disk is full");
    }
    program.set_full(false);
    until_taken(async || program.remote_write(at_ms).await.0 == 204).await;
    until_taken(async || program.import(at_ms).await.0 == 204).await;
    until_taken(async || match Agent::connect(&program).await {
        Some(again) => {
            agent = again;
            // What was stored while nobody could be told is told now.
            agent.mark == 6 || agent.tick(at_ms).await
        }
        None => false,
    })
    .await;
    at_ms += 1;
    assert!(agent.tick(at_ms).await);
    program.kill();

    let program = Program::start(folder.path());
    for (metric, samples) in METRICS.into_iter().zip([7, 6, 6]) {
        assert_eq!(program.count(metric).await, samples, "{metric}");
    }
    program.kill();
}
