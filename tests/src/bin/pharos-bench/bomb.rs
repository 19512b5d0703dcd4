//! A label bomb: somebody offers millions of new series while nodes go on sending theirs. Tells what that
//! costs the server in memory and time, whether the nodes lose anything, and whether the culprit has a name.

use crate::feed::{now_ms, write_request};
use crate::http::{Http, encode};
use crate::process::usage;
use crate::progress::Progress;
use crate::push::Choice;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use pharos_proto::prometheus as remote;
use pharos_tests::data::{Data, phase_ms};
use prost::Message;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Time for the nodes' series to be known before the first tick counts.
const BEFORE_FIRST_TICK_MS: i64 = 2_000;
/// How often a node tries a tick that is not taken.
const TRIES_MAX: u32 = 50;
/// Between two tries, as senders wait.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// New series that are offered
    #[arg(long, default_value_t = 5_000_000)]
    series: u64,
    /// Under so many values of `instance`
    #[arg(long, default_value_t = 1)]
    instances: u64,
    /// Series in one request
    #[arg(long, default_value_t = 2_000)]
    batch: u64,
    /// Connections that offer them
    #[arg(long, default_value_t = 4)]
    connections: u64,
    /// Simulated nodes that go on meanwhile, with 561 series each, once a second
    #[arg(long, default_value_t = 90)]
    nodes: usize,
    /// Seconds before the bomb, and after it
    #[arg(long, default_value_t = 15)]
    calm_seconds: u64,
    /// Flag of the collector (repeatable), e.g. --flag=--storage.head-memory-max=512MB
    #[arg(long = "flag", allow_hyphen_values = true)]
    flags: Vec<String>,
    /// Folder of the collector; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-bomb")]
    folder: PathBuf,
}

/// What all nodes share.
#[derive(Debug, Default)]
struct Nodes {
    end: AtomicBool,
    /// Whether the bomb is falling.
    bombed: AtomicBool,
    samples: AtomicU64,
    tries: AtomicU64,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let server = Server::start_with(Kind::Pharos, &arguments.folder, &arguments.flags)?;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(arguments, &server));
    drop(server);
    let _ = std::fs::remove_dir_all(&arguments.folder);
    result
}

async fn measure(arguments: &Arguments, server: &Server) -> anyhow::Result<Value> {
    let data = Choice::Model.data()?;
    let nodes = Arc::new(Nodes::default());
    let first_ms = now_ms()? / 1_000 * 1_000 + BEFORE_FIRST_TICK_MS;
    let mut sending = JoinSet::new();
    for node in 0..arguments.nodes {
        let url = format!("http://{}/api/v1/write", server.address);
        sending.spawn(send_node(url, node, data.clone(), first_ms, Arc::clone(&nodes)));
    }
    let calm = Duration::from_secs(arguments.calm_seconds);
    tokio::time::sleep(calm + Duration::from_millis(BEFORE_FIRST_TICK_MS as u64)).await;
    let before = usage(server.pid())?;
    let begin = Instant::now();
    nodes.bombed.store(true, Ordering::Relaxed);
    let answers = drop_bomb(arguments, &server.address).await?;
    nodes.bombed.store(false, Ordering::Relaxed);
    let bomb_seconds = begin.elapsed().as_secs_f64();
    let after = usage(server.pid())?;
    tokio::time::sleep(calm).await;
    nodes.end.store(true, Ordering::Relaxed);
    let mut latencies = [Vec::new(), Vec::new()];
    while let Some(seen) = sending.join_next().await {
        for (all, more) in latencies.iter_mut().zip(seen??) {
            all.extend(more);
        }
    }
    let sent = nodes.samples.load(Ordering::Relaxed);
    let query = "sum(count_over_time({instance=~\"gpu-node-.+\"}[1h]))";
    let stored = scalar(&mut server.http(), query)?;
    let status = get(&mut server.http(), "/api/v1/status/tsdb?limit=3")?;
    let milliseconds = |latencies: &mut Vec<Duration>, share: f64| {
        latencies.sort_unstable();
        let at = (latencies.len() as f64 * share) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map(|time| time.as_secs_f64() * 1_000.0)
    };
    let [calm, bombed] = &mut latencies;
    Ok(json!({
        "bench": "bomb",
        "offered": arguments.series,
        "bomb_seconds": bomb_seconds,
        "answers": answers.statuses,
        "first_refusal": answers.first_refusal,
        "server_cpu_seconds": after.cpu_seconds - before.cpu_seconds,
        "peak_memory_before_mib": before.peak_bytes >> 20,
        "peak_memory_mib": usage(server.pid())?.peak_bytes >> 20,
        "head_series": status["data"]["headStats"]["numSeries"],
        "head_index_mib": status["data"]["storage"]["headIndexBytes"].as_u64().unwrap_or(0) >> 20,
        "series_refused": status["data"]["seriesRefused"],
        "culprits": status["data"]["seriesRefusedBySender"],
        "label_values": status["data"]["labelValueCountByLabelName"],
        "good_series": arguments.nodes * data.series_per_node(),
        "good_samples_sent": sent,
        "good_samples_stored": stored,
        "good_samples_lost": sent as f64 - stored,
        "good_requests_tried_again": nodes.tries.load(Ordering::Relaxed),
        "good_latency_calm_p50_ms": milliseconds(calm, 0.5),
        "good_latency_calm_p99_ms": milliseconds(calm, 0.99),
        "good_latency_bombed_p50_ms": milliseconds(bombed, 0.5),
        "good_latency_bombed_p99_ms": milliseconds(bombed, 0.99),
    }))
}

fn get(http: &mut Http, path: &str) -> anyhow::Result<Value> {
    let (status, body) = http.get(path)?;
    serde_json::from_slice(&body).with_context(|| format!("{path}: {status}"))
}

/// The one value of a query.
fn scalar(http: &mut Http, query: &str) -> anyhow::Result<f64> {
    let answer = get(http, &format!("/api/v1/query?{}", encode(&[("query", query)])))?;
    let value = answer["data"]["result"][0]["value"][1].as_str().with_context(|| answer.to_string())?;
    Ok(value.parse()?)
}

/// One node's ticks until the end; times from a tick's first try to its answer, without and with the bomb.
async fn send_node(
    url: String,
    node: usize,
    data: Data,
    first_ms: i64,
    nodes: Arc<Nodes>,
) -> anyhow::Result<[Vec<Duration>; 2]> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = write_request(&data.groups(), node);
    let mut values = data.node(node);
    let mut encoder = snap::raw::Encoder::new();
    let mut latencies = [Vec::new(), Vec::new()];
    for second in 0.. {
        let timestamp = first_ms + second * 1_000 + phase_ms(node);
        let ahead_ms = u64::try_from(timestamp - now_ms()?).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(ahead_ms)).await;
        if nodes.end.load(Ordering::Relaxed) {
            break;
        }
        for (series, &value) in request.timeseries.iter_mut().zip(values.tick()) {
            series.samples = vec![remote::Sample { value, timestamp }];
        }
        let body = encoder.compress_vec(&request.encode_to_vec())?;
        let bombed = nodes.bombed.load(Ordering::Relaxed);
        let begin = Instant::now();
        let mut tries = 1;
        while let Err(error) = crate::feed::write(&client, &url, body.clone()).await {
            if tries == TRIES_MAX {
                bail!("node {node}: {error:#}");
            }
            tries += 1;
            nodes.tries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
        latencies[usize::from(bombed)].push(begin.elapsed());
        nodes.samples.fetch_add(request.timeseries.len() as u64, Ordering::Relaxed);
    }
    Ok(latencies)
}

/// What became of the bomb.
#[derive(Debug, Default)]
struct Answers {
    /// Requests by status code.
    statuses: BTreeMap<String, u64>,
    first_refusal: Option<String>,
}

async fn drop_bomb(arguments: &Arguments, address: &str) -> anyhow::Result<Answers> {
    let progress = Arc::new(Progress::new("series offered", arguments.series));
    let mut tasks = JoinSet::new();
    for connection in 0..arguments.connections {
        let (url, progress) = (format!("http://{address}/api/v1/write"), Arc::clone(&progress));
        let share = (connection, arguments.connections);
        tasks.spawn(offer(url, share, (arguments.series, arguments.instances, arguments.batch), progress));
    }
    let mut all = Answers::default();
    while let Some(answers) = tasks.join_next().await {
        let answers = answers??;
        for (status, count) in answers.statuses {
            *all.statuses.entry(status).or_default() += count;
        }
        all.first_refusal = all.first_refusal.or(answers.first_refusal);
    }
    Ok(all)
}

async fn offer(
    url: String,
    (connection, connections): (u64, u64),
    (series, instances, batch): (u64, u64, u64),
    progress: Arc<Progress>,
) -> anyhow::Result<Answers> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut encoder = snap::raw::Encoder::new();
    let mut answers = Answers::default();
    for first in (connection * batch..series).step_by((connections * batch) as usize) {
        let until = series.min(first + batch);
        let timestamp = now_ms()?;
        let timeseries = (first..until).map(|number| bomb_series(number, instances, timestamp)).collect();
        let request = remote::WriteRequest { timeseries, metadata: Vec::new() };
        let body = encoder.compress_vec(&request.encode_to_vec())?;
        let response = client.post(&url).body(body).send().await?;
        let status = response.status();
        *answers.statuses.entry(status.as_str().to_owned()).or_default() += 1;
        if !status.is_success() && answers.first_refusal.is_none() {
            answers.first_refusal = Some(response.text().await?.trim().to_owned());
        }
        progress.add(until - first);
    }
    Ok(answers)
}

/// A series that nobody sent before.
fn bomb_series(number: u64, instances: u64, timestamp: i64) -> remote::TimeSeries {
    let label = |name: &str, value: String| remote::Label { name: name.to_owned(), value };
    remote::TimeSeries {
        labels: vec![
            label("__name__", "requests_total".to_owned()),
            label("instance", format!("bomb-{:05}", number % instances.max(1))),
            label("job", "bomb".to_owned()),
            label("request_id", format!("{number:032x}")),
        ],
        samples: vec![remote::Sample { value: number as f64, timestamp }],
        ..remote::TimeSeries::default()
    }
}
