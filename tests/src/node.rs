//! A simulated agent: speaks the real ingest protocol and knows what was acknowledged.

use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{
    AgentMessage, CollectorMessage, Column, DefineGroup, Hello, Label, Lane, MetricType, Reading, Tick,
};
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Frames that may be in flight.
const IN_FLIGHT_MAX: usize = 64;

/// One connection of a simulated node with one group of gauges.
#[derive(Debug)]
pub struct Node {
    send: mpsc::Sender<AgentMessage>,
    replies: Streaming<CollectorMessage>,
    columns: usize,
    /// Highest live sequence that the collector called durable.
    pub acknowledged: u64,
}

impl Node {
    /// Connects as node `name`. `None` if there is nobody, or the collector refuses.
    pub async fn connect(
        collector: SocketAddr,
        name: &str,
        stream: [u8; 16],
        columns: usize,
    ) -> Option<Node> {
        let mut client = IngestClient::connect(format!("http://{collector}")).await.ok()?;
        let (send, messages) = mpsc::channel(IN_FLIGHT_MAX);
        let hello =
            Hello { node: name.to_owned(), version: "test".to_owned(), stream_id: stream.to_vec().into() };
        send.send(AgentMessage { message: Some(FromAgent::Hello(hello)) }).await.ok()?;
        let mut replies = client.push(ReceiverStream::new(messages)).await.ok()?.into_inner();
        let welcome = match replies.message().await.ok()??.message? {
            FromCollector::Welcome(welcome) => welcome,
            other => panic!("expected Welcome, not {other:?}"),
        };
        let label = |name: &str, value: String| Label { name: name.to_owned(), value };
        let group = DefineGroup {
            group: 1,
            labels: vec![label("instance", name.to_owned()), label("job", "test".to_owned())],
            columns: (0..columns)
                .map(|column| Column {
                    id: column as u32,
                    name: "test_value".to_owned(),
                    labels: vec![label("column", column.to_string())],
                    r#type: MetricType::Gauge as i32,
                    unit: String::new(),
                    help: "A value of the tests".to_owned(),
                })
                .collect(),
        };
        send.send(AgentMessage { message: Some(FromAgent::DefineGroup(group)) }).await.ok()?;
        Some(Node { send, replies, columns, acknowledged: welcome.live_durable })
    }

    /// The value of a column in a frame: any sample can be checked without remembering it.
    pub fn value(sequence: u64, column: usize) -> f64 {
        sequence as f64 + column as f64 / 100.0
    }

    /// Sends a live frame. `None` if the connection is gone.
    pub async fn send(&mut self, sequence: u64, timestamp_ms: i64) -> Option<()> {
        let values: Vec<u8> =
            (0..self.columns).flat_map(|column| Node::value(sequence, column).to_le_bytes()).collect();
        let reading = Reading {
            group: 1,
            timestamp_ms,
            interval_ms: 1_000,
            present: Vec::new().into(),
            values: values.into(),
        };
        let tick = Tick { lane: Lane::Live as i32, sequence, readings: vec![reading] };
        self.send.send(AgentMessage { message: Some(FromAgent::Tick(tick)) }).await.ok()
    }

    /// Waits for the next reply. `None` if the connection is gone.
    pub async fn receive(&mut self) -> Option<()> {
        if let FromCollector::Acknowledge(acknowledge) = self.replies.message().await.ok()??.message?
            && acknowledge.lane == Lane::Live as i32
        {
            self.acknowledged = self.acknowledged.max(acknowledge.sequence);
        }
        Some(())
    }

    /// Sends a live frame and waits until it is durable.
    pub async fn send_durably(&mut self, sequence: u64, timestamp_ms: i64) -> Option<()> {
        self.send(sequence, timestamp_ms).await?;
        while self.acknowledged < sequence {
            self.receive().await?;
        }
        Some(())
    }
}
