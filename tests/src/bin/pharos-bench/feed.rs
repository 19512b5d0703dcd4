//! Sends data to a server as fast as it takes them, by remote write or by the native stream. Every server
//! gets the same samples at the same timestamps.

use crate::progress::Progress;
use anyhow::{Context, bail};
use pharos_proto::prometheus as remote;
use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{AgentMessage, Column, DefineGroup, Hello, Label, Lane, Reading, Tick};
use pharos_tests::data::{Data, GroupSpec, instance, phase_ms};
use prost::Message;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

/// Ticks that one node has in flight, at most and if its frames hold many.
const IN_FLIGHT_MAX: usize = 32;
const LARGE_FRAMES_IN_FLIGHT: u64 = 4;
/// Connections that send remote write, each for its share of the nodes.
const CONNECTIONS: usize = 4;
/// Rows that one append of the collector takes.
const ROWS_PER_FRAME_MAX: usize = 16_384;

/// What is sent.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) data: Data,
    pub(crate) nodes: usize,
    /// Seconds of data, one sample a second.
    pub(crate) seconds: usize,
    /// The whole second behind which it begins: sample `n` of a node (from 1) is at this plus `n` seconds
    /// plus the node's phase, which is below a second.
    pub(crate) first_ms: i64,
    /// Ticks of a node that travel together: 1 as it is live, more to load the past. The past is sent in
    /// step, so that no node falls behind the time that a server still takes.
    pub(crate) batch: usize,
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> anyhow::Result<i64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64)
}

impl Load {
    /// All samples.
    pub(crate) fn samples(&self) -> u64 {
        (self.nodes * self.seconds * self.data.series_per_node()) as u64
    }

    /// When a node's sample number `second` was taken.
    pub(crate) fn timestamp_ms(&self, node: usize, second: usize) -> i64 {
        self.first_ms + second as i64 * 1_000 + phase_ms(node)
    }

    /// Sends all to the server at `address`; returns when all was taken.
    pub(crate) fn send(&self, native: Option<Lane>, address: &str) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let progress = Arc::new(Progress::new("samples sent", self.samples()));
        runtime.block_on(async {
            match native {
                Some(lane) => self.send_native(lane, address, &progress).await,
                None => self.send_remote_write(address, &progress).await,
            }
        })
    }

    async fn send_native(&self, lane: Lane, address: &str, progress: &Arc<Progress>) -> anyhow::Result<()> {
        let step = Arc::new(Barrier::new(self.nodes));
        let mut tasks = JoinSet::new();
        for node in 0..self.nodes {
            let (load, address) = (self.clone(), address.to_owned());
            let (step, progress) = (Arc::clone(&step), Arc::clone(progress));
            tasks.spawn(async move { load.send_node(lane, &address, node, &step, &progress).await });
        }
        // The first that fails ends all: the others may wait for it.
        while let Some(sent) = tasks.join_next().await {
            sent??;
        }
        Ok(())
    }

    async fn send_node(
        &self,
        lane: Lane,
        address: &str,
        node: usize,
        step: &Barrier,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let mut client = IngestClient::connect(format!("http://{address}")).await?;
        let (send, messages) = mpsc::channel(IN_FLIGHT_MAX);
        let layout = self.data.groups();
        send.send(hello(node, stream_id(node)?)).await?;
        let mut replies = client.push(ReceiverStream::new(messages)).await?.into_inner();
        let welcome = replies.message().await?.context("no Welcome")?;
        let Some(FromCollector::Welcome(_)) = welcome.message else { bail!("expected Welcome: {welcome:?}") };
        for (number, group) in layout.iter().enumerate() {
            let definition = define(number as u32, node, group);
            send.send(AgentMessage { message: Some(FromAgent::DefineGroup(definition)) }).await?;
        }
        let mut values = self.data.node(node);
        let batch = self.batch.min(ROWS_PER_FRAME_MAX / layout.len().max(1)).max(1);
        let frames = self.seconds.div_ceil(batch) as u64;
        let in_flight_max = (IN_FLIGHT_MAX as u64 / batch as u64).max(LARGE_FRAMES_IN_FLIGHT);
        let (mut acknowledged, mut second) = (0, 0);
        for sequence in 1..=frames {
            let mut readings = Vec::new();
            let ticks = batch.min(self.seconds - second);
            for _ in 0..ticks {
                second += 1;
                add_readings(&mut readings, &layout, values.tick(), self.timestamp_ms(node, second), 0);
            }
            progress.add((ticks * layout.iter().map(|group| group.series.len()).sum::<usize>()) as u64);
            if self.batch > 1 {
                step.wait().await;
            }
            let tick = Tick { lane: lane.into(), sequence, readings };
            send.send(AgentMessage { message: Some(FromAgent::Tick(tick)) }).await?;
            while sequence - acknowledged >= in_flight_max || (sequence == frames && acknowledged < frames) {
                let reply = replies.message().await?.context("the stream ended")?;
                if let Some(FromCollector::Acknowledge(reply)) = reply.message {
                    acknowledged = reply.sequence;
                }
            }
        }
        Ok(())
    }

    async fn send_remote_write(&self, address: &str, progress: &Arc<Progress>) -> anyhow::Result<()> {
        let connections = CONNECTIONS.min(self.nodes);
        let step = Arc::new(Barrier::new(connections));
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let nodes: Vec<usize> = (connection..self.nodes).step_by(connections).collect();
            let (load, step, progress) = (self.clone(), Arc::clone(&step), Arc::clone(progress));
            let url = format!("http://{address}/api/v1/write");
            tasks.spawn(async move { load.write_nodes(&url, &nodes, &step, &progress).await });
        }
        // The first that fails ends all: the others may wait for it.
        while let Some(sent) = tasks.join_next().await {
            sent??;
        }
        Ok(())
    }

    async fn write_nodes(
        &self,
        url: &str,
        nodes: &[usize],
        step: &Barrier,
        progress: &Progress,
    ) -> anyhow::Result<()> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        let layout = self.data.groups();
        let mut requests: Vec<_> = nodes.iter().map(|&node| write_request(&layout, node)).collect();
        let mut values: Vec<_> = nodes.iter().map(|&node| self.data.node(node)).collect();
        let mut encoder = snap::raw::Encoder::new();
        let mut second = 0;
        while second < self.seconds {
            let ticks = self.batch.clamp(1, self.seconds - second);
            for ((request, values), &node) in requests.iter_mut().zip(&mut values).zip(nodes) {
                request.timeseries.iter_mut().for_each(|series| series.samples.clear());
                for tick in 1..=ticks {
                    let timestamp = self.timestamp_ms(node, second + tick);
                    for (series, &value) in request.timeseries.iter_mut().zip(values.tick()) {
                        series.samples.push(remote::Sample { value, timestamp });
                    }
                }
                let body = encoder.compress_vec(&request.encode_to_vec())?;
                write(&client, url, body).await?;
                progress.add((ticks * request.timeseries.len()) as u64);
            }
            second += ticks;
            if self.batch > 1 {
                step.wait().await;
            }
        }
        Ok(())
    }
}

/// Posts a remote write; an error if it is refused.
pub(crate) async fn write(client: &reqwest::Client, url: &str, body: Vec<u8>) -> anyhow::Result<()> {
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
    Ok(())
}

/// The first message of a node's stream.
pub(crate) fn hello(node: usize, stream_id: [u8; 16]) -> AgentMessage {
    let hello =
        Hello { node: instance(node), version: "bench".to_owned(), stream_id: stream_id.to_vec().into() };
    AgentMessage { message: Some(FromAgent::Hello(hello)) }
}

/// A stream of its own for each run and node.
pub(crate) fn stream_id(node: usize) -> anyhow::Result<[u8; 16]> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut id = [0; 16];
    id[..8].copy_from_slice(&run.to_le_bytes());
    id[8..].copy_from_slice(&(node as u64).to_le_bytes());
    Ok(id)
}

/// The definition of a node's group.
pub(crate) fn define(number: u32, node: usize, group: &GroupSpec) -> DefineGroup {
    let label = |name: &str, value: String| Label { name: name.to_owned(), value };
    let columns = group.series.iter().enumerate().map(|(id, series)| Column {
        id: id as u32,
        name: series.name.clone(),
        labels: series.labels.iter().map(|(name, value)| label(name, value.clone())).collect(),
        ..Column::default()
    });
    DefineGroup {
        group: number,
        labels: vec![label("instance", instance(node)), label("job", "node".to_owned())],
        columns: columns.collect(),
    }
}

/// Adds one tick of a node: a reading per group. `interval_ms` is what live nodes promise; whoever loads the
/// past promises nothing (0), or its end would be marked stale while things are measured.
pub(crate) fn add_readings(
    readings: &mut Vec<Reading>,
    layout: &[GroupSpec],
    values: &[f64],
    timestamp_ms: i64,
    interval_ms: u32,
) {
    let mut rest = values;
    for (number, group) in layout.iter().enumerate() {
        let (mine, behind) = rest.split_at(group.series.len());
        rest = behind;
        readings.push(Reading {
            group: number as u32,
            timestamp_ms,
            interval_ms,
            present: Vec::new().into(),
            values: mine.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
        });
    }
}

/// A node's series without samples.
pub(crate) fn write_request(layout: &[GroupSpec], node: usize) -> remote::WriteRequest {
    let label = |name: &str, value: &str| remote::Label { name: name.to_owned(), value: value.to_owned() };
    let instance = instance(node);
    let timeseries = layout.iter().flat_map(|group| &group.series).map(|series| {
        let mut labels =
            vec![label("__name__", &series.name), label("instance", &instance), label("job", "node")];
        labels.extend(series.labels.iter().map(|(name, value)| label(name, value)));
        labels.sort_by(|left, right| left.name.cmp(&right.name));
        remote::TimeSeries { labels, ..remote::TimeSeries::default() }
    });
    remote::WriteRequest { timeseries: timeseries.collect(), metadata: Vec::new() }
}
