//! Pushes telemetry to a running server as fast as it takes it, and measures what that costs the server.

use crate::process::usage;
use anyhow::{Context, bail};
use pharos_proto::prometheus as remote;
use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{AgentMessage, Column, DefineGroup, Hello, Label, Lane, Reading, Tick};
use pharos_tests::telemetry::{GroupSpec, NodeValues, SERIES_PER_NODE, node_groups};
use prost::Message;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Ticks that one node has in flight.
const IN_FLIGHT_MAX: u64 = 32;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// By the native stream, one connection a node
    #[arg(long, conflicts_with = "remote_write")]
    native: bool,
    /// By remote write 1.0, one tick of one node a request
    #[arg(long)]
    remote_write: bool,
    /// Simulated nodes of 561 series
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Seconds of data, one sample a second
    #[arg(long, default_value_t = 120)]
    seconds: usize,
    /// Process whose CPU time and memory are measured
    #[arg(long)]
    server_pid: u32,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:9490")]
    address: String,
    /// Path that takes remote write
    #[arg(long, default_value = "/api/v1/write")]
    path: String,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    if arguments.native == arguments.remote_write {
        bail!("choose one of --native and --remote-write");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let before = usage(arguments.server_pid).context("--server-pid")?;
    let begin = Instant::now();
    runtime.block_on(async {
        if arguments.native { push_native(arguments).await } else { push_remote_write(arguments).await }
    })?;
    let wall = begin.elapsed().as_secs_f64();
    let after = usage(arguments.server_pid)?;
    let samples = (arguments.nodes * arguments.seconds * SERIES_PER_NODE) as f64;
    let cpu = after.cpu_seconds - before.cpu_seconds;
    Ok(serde_json::json!({
        "bench": "push",
        "protocol": if arguments.native { "native" } else { "remote-write" },
        "samples": samples,
        "wall_seconds": wall,
        "server_cpu_seconds": cpu,
        "samples_per_server_cpu_second": (samples / cpu).round(),
        "server_peak_memory_mib": after.peak_bytes >> 20,
        "server_written_bytes_per_sample": (after.written_bytes - before.written_bytes) as f64 / samples,
    }))
}

fn first_ms(arguments: &Arguments) -> anyhow::Result<i64> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    Ok(now_ms - arguments.seconds as i64 * 1_000)
}

async fn push_native(arguments: &Arguments) -> anyhow::Result<()> {
    let first_ms = first_ms(arguments)?;
    let mut tasks = Vec::new();
    for node in 0..arguments.nodes {
        let address = arguments.address.clone();
        let seconds = arguments.seconds as u64;
        tasks.push(tokio::spawn(async move { push_node(&address, node, seconds, first_ms).await }));
    }
    for (number, task) in tasks.into_iter().enumerate() {
        task.await??;
        eprint!("\r{} of {} nodes", number + 1, arguments.nodes);
    }
    eprintln!();
    Ok(())
}

async fn push_node(address: &str, node: usize, seconds: u64, first_ms: i64) -> anyhow::Result<()> {
    let mut client = IngestClient::connect(format!("http://{address}")).await?;
    let (send, messages) = mpsc::channel(IN_FLIGHT_MAX as usize);
    let layout = node_groups();
    let hello = Hello {
        node: format!("gpu-node-{node:04}"),
        version: "bench".to_owned(),
        stream_id: stream_id(node)?.to_vec().into(),
    };
    send.send(AgentMessage { message: Some(FromAgent::Hello(hello)) }).await?;
    let mut replies = client.push(ReceiverStream::new(messages)).await?.into_inner();
    let welcome = replies.message().await?.context("no Welcome")?;
    let Some(FromCollector::Welcome(_)) = welcome.message else { bail!("expected Welcome: {welcome:?}") };
    for (number, group) in layout.iter().enumerate() {
        let definition = define(number as u32, node, group);
        send.send(AgentMessage { message: Some(FromAgent::DefineGroup(definition)) }).await?;
    }
    let mut values = NodeValues::new(node as u64);
    let mut acknowledged = 0;
    for sequence in 1..=seconds {
        let timestamp_ms = first_ms + sequence as i64 * 1_000;
        let tick = tick(&layout, values.tick(), sequence, timestamp_ms);
        send.send(AgentMessage { message: Some(FromAgent::Tick(tick)) }).await?;
        while sequence - acknowledged >= IN_FLIGHT_MAX || (sequence == seconds && acknowledged < seconds) {
            let reply = replies.message().await?.context("the stream ended")?;
            if let Some(FromCollector::Acknowledge(reply)) = reply.message {
                acknowledged = reply.sequence;
            }
        }
    }
    Ok(())
}

/// A stream of its own for each run and node.
fn stream_id(node: usize) -> anyhow::Result<[u8; 16]> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&run.to_le_bytes());
    id[8..].copy_from_slice(&(node as u64).to_le_bytes());
    Ok(id)
}

fn define(number: u32, node: usize, group: &GroupSpec) -> DefineGroup {
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let columns = group.series.iter().enumerate().map(|(id, series)| Column {
        id: id as u32,
        name: series.name.clone(),
        labels: series.labels.iter().map(|(name, value)| label(name, value.clone())).collect(),
        ..Column::default()
    });
    DefineGroup {
        group: number,
        labels: vec![label("instance", format!("gpu-node-{node:04}")), label("job", "node".to_owned())],
        columns: columns.collect(),
    }
}

fn tick(layout: &[GroupSpec], values: &[f64], sequence: u64, timestamp_ms: i64) -> Tick {
    let mut at = 0;
    let readings = layout.iter().enumerate().map(|(number, group)| {
        let mine = &values[at..at + group.series.len()];
        at += mine.len();
        Reading {
            group: number as u32,
            timestamp_ms,
            interval_ms: 1_000,
            present: Vec::new().into(),
            values: mine.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        }
    });
    Tick { lane: Lane::Live as i32, sequence, readings: readings.collect() }
}

async fn push_remote_write(arguments: &Arguments) -> anyhow::Result<()> {
    let first_ms = first_ms(arguments)?;
    let layout = node_groups();
    let connections = 4;
    let mut tasks = Vec::new();
    for connection in 0..connections {
        let nodes: Vec<usize> = (connection..arguments.nodes).step_by(connections).collect();
        let url = format!("http://{}{}", arguments.address, arguments.path);
        let (layout, seconds) = (layout.clone(), arguments.seconds);
        tasks.push(tokio::spawn(async move { write_nodes(&url, &layout, &nodes, seconds, first_ms).await }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn write_nodes(
    url: &str,
    layout: &[GroupSpec],
    nodes: &[usize],
    seconds: usize,
    first_ms: i64,
) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut requests: Vec<remote::WriteRequest> =
        nodes.iter().map(|&node| write_request(layout, node)).collect();
    let mut values: Vec<NodeValues> = nodes.iter().map(|&node| NodeValues::new(node as u64)).collect();
    let mut encoder = snap::raw::Encoder::new();
    for second in 1..=seconds {
        for (request, values) in requests.iter_mut().zip(&mut values) {
            let timestamp = first_ms + second as i64 * 1_000;
            for (series, &value) in request.timeseries.iter_mut().zip(values.tick()) {
                series.samples = vec![remote::Sample { value, timestamp }];
            }
            let body = encoder.compress_vec(&request.encode_to_vec())?;
            let response = client
                .post(url)
                .header("content-type", "application/x-protobuf")
                .header("content-encoding", "snappy")
                .header("x-prometheus-remote-write-version", "0.1.0")
                .body(body)
                .send()
                .await?;
            if !response.status().is_success() {
                bail!("{url}: {} {}", response.status(), response.text().await?);
            }
        }
    }
    Ok(())
}

fn write_request(layout: &[GroupSpec], node: usize) -> remote::WriteRequest {
    let label = |name: &str, value: &str| remote::Label { name: name.to_owned(), value: value.to_owned() };
    let timeseries = layout.iter().flat_map(|group| &group.series).map(|series| {
        let mut labels = vec![
            label("__name__", &series.name),
            label("instance", &format!("gpu-node-{node:04}")),
            label("job", "node"),
        ];
        labels.extend(series.labels.iter().map(|(name, value)| label(name, value)));
        labels.sort_by(|left, right| left.name.cmp(&right.name));
        remote::TimeSeries { labels, samples: Vec::new() }
    });
    remote::WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }
}
