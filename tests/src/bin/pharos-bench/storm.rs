//! An alert storm: with thousands of threshold rules loaded a hundred thousand series breach within a second, and are
//! well again some seconds later.
//!
//! Each node sends a group of gauges in real time, each gauge watched by many rules of which one breaches. Who is
//! told is a receiver of this program in the place of an alertmanager, which counts what comes: each alert has to be
//! told that it fires and that it is over. Beside that: how late acknowledgements come, and the collector's memory.

use crate::agents::{BEFORE_FIRST_TICK, Pace};
use crate::feed::{add_readings, define, hello, now_ms, stream_id};
use crate::http::Http;
use crate::process::usage;
use crate::progress::Progress;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{AgentMessage, Lane, Tick};
use pharos_tests::data::{GroupSpec, SeriesSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Seconds before the breaches: every node is known by then.
const QUIET_SECONDS: u64 = 10;
/// Messages on their way to the server.
const IN_FLIGHT_MAX: usize = 64;
/// After its last tick a node waits so long for what is not acknowledged.
const LAST_ACKNOWLEDGEMENT_TIME_MAX: Duration = Duration::from_secs(60);
const CALM: f64 = 40.0;
/// Above the first of a gauge's thresholds and below the others.
const HOT: f64 = 90.5;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Gauges of a node
    #[arg(long, default_value_t = 200)]
    gauges: usize,
    /// How many of them breach
    #[arg(long, default_value_t = 100)]
    breaching: usize,
    /// Threshold rules, shared out among the gauges
    #[arg(long, default_value_t = 10_000)]
    rules: usize,
    /// Seconds that the breaches last
    #[arg(long, default_value_t = 15)]
    lasts: u64,
    /// Seconds of data after them
    #[arg(long, default_value_t = 25)]
    after: u64,
    /// How long the receiver takes to answer a request, milliseconds
    #[arg(long, default_value_t = 1)]
    answer_ms: u64,
    /// Folder for the server's data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-storm")]
    folder: PathBuf,
}

/// An alert as it is posted.
#[derive(Deserialize)]
struct Posted {
    labels: HashMap<String, String>,
    #[serde(rename = "endsAt")]
    ends_at: String,
}

/// What came of an alert.
#[derive(Clone, Copy, Default)]
struct Told {
    firing: Option<Instant>,
    resolved: Option<Instant>,
}

#[derive(Default)]
struct Received {
    alerts: HashMap<(String, String), Told>,
    requests: u64,
    notices: u64,
    per_request_max: usize,
}

#[derive(Clone)]
struct Receiver {
    received: Arc<Mutex<Received>>,
    answer_time: Duration,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    if arguments.rules < arguments.gauges || arguments.gauges < arguments.breaching {
        bail!("--rules is no less than --gauges, and that no less than --breaching");
    }
    let _ = std::fs::remove_dir_all(&arguments.folder);
    std::fs::create_dir_all(&arguments.folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(arguments));
    let _ = std::fs::remove_dir_all(&arguments.folder);
    result
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Value> {
    let received = Arc::new(Mutex::new(Received::default()));
    let answer_time = Duration::from_millis(arguments.answer_ms);
    let receiver = listen(Receiver { received: Arc::clone(&received), answer_time })?;
    let rules = arguments.folder.join("rules.yml");
    std::fs::write(&rules, rules_text(arguments))?;
    let more = [format!("--rules.file={}", rules.display()), format!("--alertmanager.url=http://{receiver}")];
    let server = Server::start_with(Kind::Pharos, &arguments.folder.join("server"), &more)?;

    let seconds = QUIET_SECONDS + arguments.lasts + arguments.after;
    let progress = Arc::new(Progress::new("ticks sent", arguments.nodes as u64 * seconds));
    let first = Instant::now() + BEFORE_FIRST_TICK;
    let (rise, fall) = (first + Duration::from_secs(QUIET_SECONDS), {
        first + Duration::from_secs(QUIET_SECONDS + arguments.lasts)
    });
    let mut tasks = Vec::new();
    for node in 0..arguments.nodes {
        let pace = Pace { node, first, progress: Arc::clone(&progress) };
        let (address, gauges) = (server.address.clone(), (arguments.gauges, arguments.breaching));
        let lasts = arguments.lasts;
        tasks.push(tokio::spawn(async move { send(&pace, &address, gauges, lasts, seconds).await }));
    }
    tokio::time::sleep_until(rise.into()).await;
    let before = usage(server.pid())?;
    let mut latencies = vec![Vec::new(); 2];
    for task in tasks {
        for (second, latency) in (0u64..).zip(task.await??) {
            let stormy = (QUIET_SECONDS..QUIET_SECONDS + arguments.lasts + 5).contains(&second);
            if stormy || second >= QUIET_SECONDS / 2 {
                latencies[usize::from(stormy)].push(latency.as_secs_f64() * 1_000.0);
            }
        }
    }
    let after = usage(server.pid())?;
    let (_, metrics) = Http::new(&server.address).get("/metrics")?;
    drop(server);
    let received = received.lock().unwrap_or_else(PoisonError::into_inner);
    let since = |from: Instant, at: fn(&Told) -> Option<Instant>| {
        let times = received.alerts.values().filter_map(at);
        spread(times.map(|at| at.saturating_duration_since(from).as_secs_f64() * 1_000.0).collect())
    };
    let count = |told: fn(&Told) -> bool| received.alerts.values().filter(|alert| told(alert)).count();
    let breaching = arguments.nodes * arguments.breaching;
    let counter = |name: &str| counter(&String::from_utf8_lossy(&metrics), name);
    let calm = spread(std::mem::take(&mut latencies[0]));
    Ok(json!({
        "bench": "storm",
        "nodes": arguments.nodes,
        "rules": arguments.rules,
        "breaches": breaching,
        "firing_lost": breaching - count(|told| told.firing.is_some()),
        "resolved_lost": breaching - count(|told| told.resolved.is_some()),
        "told_firing_ms": since(rise, |told| told.firing),
        "told_resolved_ms": since(fall, |told| told.resolved),
        "requests": received.requests,
        "notices": received.notices,
        "notices_per_request_max": received.per_request_max,
        "notices_dropped": counter("pharos_collector_alerts_dropped_total"),
        "samples_not_judged": counter("pharos_collector_rule_samples_not_judged_total"),
        "acknowledged_ms": {"calm": calm, "storm": spread(latencies.remove(1))},
        "server_peak_memory_mib": {"before": before.peak_bytes >> 20, "after": after.peak_bytes >> 20},
        "server_cpu_seconds": after.cpu_seconds - before.cpu_seconds,
    }))
}

/// One rule in a hundred, say, can fire; the others lie above what a gauge reaches.
fn rules_text(arguments: &Arguments) -> String {
    let rule = |rule: usize| {
        let (gauge, step) = (rule % arguments.gauges, rule / arguments.gauges);
        let bound = 90.0 + step as f64;
        format!(
            "      - alert: A{gauge}x{step}\n        expr: bench_storm{gauge} > {bound}\n        \
             labels: {{severity: warning}}\n        \
             annotations: {{summary: '{{{{ $labels.instance }}}} is at {{{{ $value }}}}'}}\n"
        )
    };
    let rules: String = (0..arguments.rules).map(rule).collect();
    format!("groups:\n  - name: storm\n    interval: 1h\n    rules:\n{rules}")
}

/// Takes alerts on a thread of its own.
fn listen(receiver: Receiver) -> anyhow::Result<SocketAddr> {
    let app = Router::new().fallback(take).layer(DefaultBodyLimit::disable()).with_state(receiver);
    let socket = TcpListener::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(socket)?, app).await })
    });
    Ok(address)
}

async fn take(State(receiver): State<Receiver>, body: Bytes) {
    let (now, now_ms) = (Instant::now(), chrono::Utc::now());
    let posted: Vec<Posted> = serde_json::from_slice(&body).unwrap_or_default();
    {
        let mut received = receiver.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.requests += 1;
        received.notices += posted.len() as u64;
        received.per_request_max = received.per_request_max.max(posted.len());
        for mut alert in posted {
            let mut label = |name: &str| alert.labels.remove(name).unwrap_or_default();
            let told = received.alerts.entry((label("alertname"), label("instance"))).or_default();
            let over = chrono::DateTime::parse_from_rfc3339(&alert.ends_at).is_ok_and(|at| at <= now_ms);
            if over { &mut told.resolved } else { &mut told.firing }.get_or_insert(now);
        }
    }
    tokio::time::sleep(receiver.answer_time).await;
}

/// One node; when each of its ticks was acknowledged, counted from when it was due.
async fn send(
    pace: &Pace,
    address: &str,
    (gauges, breaching): (usize, usize),
    lasts: u64,
    seconds: u64,
) -> anyhow::Result<Vec<Duration>> {
    let series =
        (0..gauges).map(|gauge| SeriesSpec { name: format!("bench_storm{gauge}"), labels: Vec::new() });
    let layout = [GroupSpec { series: series.collect() }];
    let mut client = IngestClient::connect(format!("http://{address}")).await?;
    let (sender, messages) = mpsc::channel(IN_FLIGHT_MAX);
    sender.send(hello(pace.node, stream_id(pace.node)?)).await?;
    let mut replies = client.push(ReceiverStream::new(messages)).await?.into_inner();
    let welcome = replies.message().await?.context("no Welcome")?;
    let Some(FromCollector::Welcome(_)) = welcome.message else { bail!("expected Welcome: {welcome:?}") };
    let definition = define(0, pace.node, &layout[0]);
    sender.send(AgentMessage { message: Some(FromAgent::DefineGroup(definition)) }).await?;
    let due: Vec<Instant> = (0..seconds).map(|second| pace.due_at(second)).collect();
    let listening = tokio::spawn(async move {
        let mut latencies = Vec::with_capacity(due.len());
        while latencies.len() < due.len() {
            let reply = replies.message().await?.context("the stream ended")?;
            let Some(FromCollector::Acknowledge(reply)) = reply.message else { continue };
            let (from, to) = (latencies.len(), due.len().min(reply.sequence as usize));
            latencies.extend(due.get(from..to).unwrap_or_default().iter().map(Instant::elapsed));
        }
        anyhow::Ok(latencies)
    });
    let mut timestamp = 0;
    for second in 0..seconds {
        pace.due(second).await;
        timestamp = now_ms()?.max(timestamp + 1);
        let hot = (QUIET_SECONDS..QUIET_SECONDS + lasts).contains(&second);
        let mut readings = Vec::new();
        let mut values = vec![CALM; gauges];
        if hot {
            // No two seconds alike.
            values[..breaching].fill(HOT + (second % 5) as f64 / 100.0);
        }
        add_readings(&mut readings, &layout, &values, timestamp, 1_000);
        let tick = Tick { lane: Lane::Live.into(), sequence: second + 1, readings };
        sender.send(AgentMessage { message: Some(FromAgent::Tick(tick)) }).await?;
    }
    tokio::time::timeout(LAST_ACKNOWLEDGEMENT_TIME_MAX, listening)
        .await
        .context("acknowledgements stay away")??
}

/// The sum of a counter's series.
fn counter(metrics: &str, name: &str) -> f64 {
    let of = |line: &&str| line.split(['{', ' ']).next() == Some(name);
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    metrics.lines().filter(of).filter_map(value).sum()
}

fn spread(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((times.len().max(1) - 1) as f64 * share).round() as usize;
        times.get(index).map(|time| (time * 10.0).round() / 10.0)
    };
    json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}
