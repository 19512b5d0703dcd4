//! Simulated nodes in real time: each samples once a second at a phase of its own with some jitter, as
//! agents do, and is heard or not.
//!
//! By the native stream each node has a connection, and remembers what was acknowledged; what is stored
//! afterwards is counted against that. By remote write, which peers take too, each tick is one request.

use crate::feed::{add_readings, define, hello, now_ms, stream_id, write, write_request};
use crate::http::Http;
use crate::process::usage;
use crate::progress::Progress;
use crate::push::Choice;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use pharos_proto::prometheus as remote;
use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{AgentMessage, Lane, Tick};
use pharos_tests::data::{Data, instance, phase_ms};
use prost::Message;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Ticks that a node has in flight before it waits; an agent would journal.
const IN_FLIGHT_MAX: usize = 64;
/// A node that is not heard for so long after its last tick has lost what is not acknowledged.
const LAST_ACKNOWLEDGEMENT_TIME_MAX: Duration = Duration::from_secs(30);
/// All nodes are connected before the first tick is due.
pub(crate) const BEFORE_FIRST_TICK: Duration = Duration::from_secs(3);
/// VictoriaMetrics shows a sample some seconds after it took it.
const VISIBLE_TIME_MAX: Duration = Duration::from_secs(10);
/// How far from its phase a tick may be.
const JITTER_MS: u64 = 20;
/// Connections for remote write.
const WRITERS: usize = 8;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes
    #[arg(default_value_t = 100)]
    nodes: usize,
    /// How long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// By remote write instead of the native stream
    #[arg(long)]
    remote_write: bool,
    /// What is sent
    #[arg(long, value_enum, default_value = "model")]
    data: Choice,
    /// Starts this server on an empty folder and measures it, instead of one that runs
    #[arg(long, value_enum, conflicts_with_all = ["server_pid", "address"])]
    start: Option<Kind>,
    /// Process whose CPU time and memory are measured
    #[arg(long)]
    server_pid: Option<u32>,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:9490")]
    address: String,
    /// Folder for a server that is started; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-agents")]
    folder: PathBuf,
}

/// What one node saw.
#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    acknowledged: u64,
    /// From the read of a tick to its acknowledgement.
    latencies: Vec<Duration>,
    /// How long after its time a tick was handed over.
    latest: Duration,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let Some(kind) = arguments.start else {
        return measure(arguments, &arguments.address, arguments.server_pid);
    };
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let server = Server::start(kind, &arguments.folder)?;
    let result = measure(arguments, &server.address, Some(server.pid()));
    drop(server);
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let mut result = result?;
    result["server"] = kind.name().into();
    Ok(result)
}

fn measure(arguments: &Arguments, address: &str, server_pid: Option<u32>) -> anyhow::Result<Value> {
    let measure = || server_pid.map(usage).transpose().context("--server-pid");
    let data = arguments.data.data()?;
    let per_node = data.series_per_node();
    let before = measure()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let begin = Instant::now();
    let seen = runtime.block_on(send_all(arguments, &data, address))?;
    // The last tick is sent at the end of the last second, not behind it.
    let wall = begin.elapsed().saturating_sub(BEFORE_FIRST_TICK).as_secs_f64().max(arguments.seconds as f64);
    let after = measure()?;
    let sent: u64 = seen.iter().map(|node| node.sent).sum();
    let acknowledged: u64 = seen.iter().map(|node| node.acknowledged).sum();
    let mut latencies: Vec<f64> =
        seen.iter().flat_map(|node| &node.latencies).map(|time| time.as_secs_f64() * 1_000.0).collect();
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies.get(((latencies.len().max(1) - 1) as f64 * share) as usize).copied();
    let latest = seen.iter().map(|node| node.latest.as_millis()).max();
    let ended = Instant::now();
    let (lost, doubled) = loop {
        let stored = stored_ticks(arguments, address)?;
        let (mut lost, mut doubled) = (0, 0);
        for (node, seen) in seen.iter().enumerate() {
            let found = stored.iter().find(|(name, _)| *name == instance(node));
            let stored = found.map_or(0, |(_, count)| *count);
            lost += seen.acknowledged.saturating_sub(stored);
            doubled += stored.saturating_sub(seen.sent);
        }
        if lost == 0 || ended.elapsed() > VISIBLE_TIME_MAX {
            break (lost, doubled);
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let mut result = json!({
        "bench": "agents",
        "protocol": if arguments.remote_write { "remote-write" } else { "native" },
        "nodes": arguments.nodes,
        "series": arguments.nodes * per_node,
        "seconds": arguments.seconds,
        "samples_per_second_wanted": arguments.nodes * per_node,
        "samples_per_second": (sent as f64 * per_node as f64 / wall).round(),
        "ticks_sent": sent,
        "ticks_acknowledged": acknowledged,
        "ticks_lost": lost,
        "ticks_doubled": doubled,
        "acknowledged_ms_p50": at(0.5),
        "acknowledged_ms_p99": at(0.99),
        "acknowledged_ms_max": latencies.last(),
        "tick_late_ms_max": latest.map(|ms| ms as u64),
    });
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = after.cpu_seconds - before.cpu_seconds;
        result["server_cpu_percent"] = json!(cpu / wall * 100.0);
        result["samples_per_server_cpu_second"] = json!((sent as f64 * per_node as f64 / cpu).round());
        result["server_peak_memory_mib"] = json!(after.peak_bytes >> 20);
        result["server_written_bytes_per_sample"] = json!(
            (after.written_bytes - before.written_bytes) as f64 / (sent as f64 * per_node as f64).max(1.0)
        );
    }
    Ok(result)
}

async fn send_all(arguments: &Arguments, data: &Data, address: &str) -> anyhow::Result<Vec<Seen>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let clients: Vec<reqwest::Client> = (0..WRITERS)
        .map(|_| reqwest::Client::builder().no_proxy().build())
        .collect::<Result<_, reqwest::Error>>()?;
    let progress = Arc::new(Progress::new("ticks sent", arguments.nodes as u64 * arguments.seconds));
    let first = Instant::now() + BEFORE_FIRST_TICK;
    let mut tasks = Vec::new();
    for node in 0..arguments.nodes {
        let pace = Pace { node, first, progress: Arc::clone(&progress) };
        let paced = Paced { pace, node, seconds: arguments.seconds };
        let (data, address) = (data.clone(), address.to_owned());
        let client = clients[node % WRITERS].clone();
        let remote_write = arguments.remote_write;
        tasks.push(tokio::spawn(async move {
            if remote_write {
                paced.write(&data, &client, &address).await
            } else {
                paced.stream(&data, &address).await
            }
        }));
    }
    let mut seen = Vec::new();
    for task in tasks {
        seen.push(task.await??);
    }
    Ok(seen)
}

/// When a node's ticks are due.
pub(crate) struct Pace {
    pub(crate) node: usize,
    pub(crate) first: Instant,
    pub(crate) progress: Arc<Progress>,
}

impl Pace {
    /// When a tick is due.
    pub(crate) fn due_at(&self, second: u64) -> Instant {
        let jitter_ms = (self.node as u64 * 31 + second * 17) % JITTER_MS;
        let phase = Duration::from_millis(phase_ms(self.node) as u64 + jitter_ms);
        self.first + Duration::from_secs(second) + phase
    }

    /// Waits until a tick is due; how late it is.
    pub(crate) async fn due(&self, second: u64) -> Duration {
        let due = self.due_at(second);
        tokio::time::sleep_until(due.into()).await;
        self.progress.add(1);
        due.elapsed()
    }
}

struct Paced {
    pace: Pace,
    node: usize,
    seconds: u64,
}

impl Paced {
    async fn stream(&self, data: &Data, address: &str) -> anyhow::Result<Seen> {
        let mut client = IngestClient::connect(format!("http://{address}")).await?;
        let (send, messages) = mpsc::channel(IN_FLIGHT_MAX);
        send.send(hello(self.node, stream_id(self.node)?)).await?;
        let mut replies = client.push(ReceiverStream::new(messages)).await?.into_inner();
        let welcome = replies.message().await?.context("no Welcome")?;
        let Some(FromCollector::Welcome(_)) = welcome.message else { bail!("expected Welcome: {welcome:?}") };
        let layout = data.groups();
        for (number, group) in layout.iter().enumerate() {
            let definition = define(number as u32, self.node, group);
            send.send(AgentMessage { message: Some(FromAgent::DefineGroup(definition)) }).await?;
        }
        // When each tick was read, by sequence.
        let read_at: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let seconds = self.seconds;
        let listening = tokio::spawn({
            let read_at = Arc::clone(&read_at);
            async move {
                let (mut acknowledged, mut latencies) = (0u64, Vec::new());
                while acknowledged < seconds {
                    let Ok(Some(reply)) = replies.message().await else { break };
                    let Some(FromCollector::Acknowledge(reply)) = reply.message else { continue };
                    let read_at = read_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    for sequence in acknowledged..reply.sequence {
                        latencies.extend(read_at.get(sequence as usize).map(Instant::elapsed));
                    }
                    acknowledged = reply.sequence;
                }
                (acknowledged, latencies)
            }
        });
        let mut values = data.node(self.node);
        let mut seen = Seen::default();
        let mut timestamp = 0;
        for second in 0..self.seconds {
            let late = self.pace.due(second).await;
            seen.latest = seen.latest.max(late);
            // A node that is late for two ticks sends them within the same millisecond.
            timestamp = now_ms()?.max(timestamp + 1);
            let mut readings = Vec::new();
            add_readings(&mut readings, &layout, values.tick(), timestamp, 1_000);
            read_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Instant::now());
            let tick = Tick { lane: Lane::Live.into(), sequence: second + 1, readings };
            if send.send(AgentMessage { message: Some(FromAgent::Tick(tick)) }).await.is_err() {
                break;
            }
            seen.sent += 1;
        }
        let heard = tokio::time::timeout(LAST_ACKNOWLEDGEMENT_TIME_MAX, listening).await;
        (seen.acknowledged, seen.latencies) = heard.context("acknowledgements stay away")??;
        Ok(seen)
    }

    async fn write(&self, data: &Data, client: &reqwest::Client, address: &str) -> anyhow::Result<Seen> {
        let url = format!("http://{address}/api/v1/write");
        let mut request = write_request(&data.groups(), self.node);
        let mut values = data.node(self.node);
        let mut seen = Seen::default();
        let mut encoder = snap::raw::Encoder::new();
        let mut timestamp = 0;
        for second in 0..self.seconds {
            let late = self.pace.due(second).await;
            seen.latest = seen.latest.max(late);
            timestamp = now_ms()?.max(timestamp + 1);
            for (series, &value) in request.timeseries.iter_mut().zip(values.tick()) {
                series.samples = vec![remote::Sample { value, timestamp }];
            }
            let read_at = Instant::now();
            seen.sent += 1;
            write(client, &url, encoder.compress_vec(&request.encode_to_vec())?).await?;
            seen.acknowledged += 1;
            seen.latencies.push(read_at.elapsed());
        }
        Ok(seen)
    }
}

/// How many ticks of each node are stored.
fn stored_ticks(arguments: &Arguments, address: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let window = arguments.seconds + 120;
    let query = format!("count_over_time(node_load1{{job=\"node\"}}[{window}s])");
    let form = [("query", query.as_str()), ("nocache", "1")];
    let (status, body) = Http::new(address).post("/api/v1/query", &form)?;
    let answer: Value = serde_json::from_slice(&body)?;
    if status != 200 {
        bail!("{query}: {answer}");
    }
    let result = answer["data"]["result"].as_array().context("no result")?;
    let count = |item: &Value| {
        let count: f64 = item["value"][1].as_str()?.parse().ok()?;
        Some((item["metric"]["instance"].as_str()?.to_owned(), count as u64))
    };
    Ok(result.iter().filter_map(count).collect())
}
