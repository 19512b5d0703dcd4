//! One simulated node: a group of gauges once a second, one of which breaches. When its connection breaks it
//! tries again at the pauses of an agent, and sends again what was not acknowledged.

use super::Breaches;
use super::outage::{Return, Returns};
use crate::agents::Pace;
use crate::feed::{add_readings, define, hello, now_ms, stream_id, write, write_request};
use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use pharos_agent::push::{Backoff, pause_without_haste};
use pharos_proto::prometheus as remote;
use pharos_proto::v1::agent_message::Message as FromAgent;
use pharos_proto::v1::collector_message::Message as FromCollector;
use pharos_proto::v1::ingest_client::IngestClient;
use pharos_proto::v1::{AgentMessage, CollectorMessage, Lane, Reading, Tick};
use pharos_tests::data::{GroupSpec, SeriesSpec, instance};
use prost::Message;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Gauges of a node.
const COLUMNS: usize = 20;
/// Messages on their way to the server.
const IN_FLIGHT_MAX: usize = 64;
const CONNECTED_AGAIN_EVERY: Duration = Duration::from_millis(20);
/// A server that is away for longer ends the benchmark.
const AWAY_TIME_MAX: Duration = Duration::from_secs(60);
/// After its last tick a node waits so long for what is not acknowledged.
const LAST_ACKNOWLEDGEMENT_TIME_MAX: Duration = Duration::from_secs(30);

/// One node.
pub(super) struct Sender {
    pub(super) pace: Pace,
    pub(super) seconds: u64,
    pub(super) breach_at: Option<u64>,
    pub(super) breaches: Breaches,
    pub(super) returns: Returns,
    pub(super) address: SocketAddr,
}

/// A stream to the collector that has been welcomed and knows the node's group.
struct Connection {
    send: mpsc::Sender<AgentMessage>,
    replies: Streaming<CollectorMessage>,
    durable: u64,
    connected: Instant,
    welcomed: Instant,
}

/// The series of a node.
pub(super) fn layout() -> Vec<GroupSpec> {
    let series = |column: usize| SeriesSpec {
        name: if column == 0 { "bench_temperature".to_owned() } else { format!("bench_value{column}") },
        labels: Vec::new(),
    };
    vec![GroupSpec { series: (0..COLUMNS).map(series).collect() }]
}

/// Their values at a tick of a node that breaches then.
pub(super) fn values(second: u64, breach_at: Option<u64>) -> Vec<f64> {
    let hot = breach_at.is_some_and(|at| second >= at);
    let mut values: Vec<f64> =
        (0..COLUMNS).map(|column| ((second as usize * 7 + column * 13) % 50) as f64).collect();
    values[0] = if hot { 95.0 } else { 40.0 + values[0] / 10.0 };
    values
}

impl Sender {
    fn note(&self, second: u64, at: Instant) {
        if self.breach_at == Some(second) {
            let mut breaches = self.breaches.lock().unwrap_or_else(PoisonError::into_inner);
            breaches.insert(instance(self.pace.node), at);
        }
    }

    /// By the native stream.
    pub(super) async fn stream(&self) -> anyhow::Result<()> {
        let id = stream_id(self.pace.node)?;
        let mut unacknowledged: VecDeque<(u64, Vec<Reading>)> = VecDeque::new();
        let mut connection = self.connect(id).await?;
        let mut back = Instant::now();
        for second in 0..self.seconds {
            let mut broken = None;
            // Between two ticks the node listens.
            let due = self.pace.due(second);
            tokio::pin!(due);
            loop {
                tokio::select! {
                    _ = &mut due => break,
                    reply = connection.replies.message() => match reply {
                        Ok(Some(reply)) => forget_acknowledged(&reply, &mut unacknowledged),
                        _ => {
                            let lost = Instant::now();
                            // As the agent does: who has nothing to tell lets the others go first.
                            if unacknowledged.is_empty() {
                                tokio::select! {
                                    _ = &mut due => {
                                        broken = Some(lost);
                                        break;
                                    }
                                    () = tokio::time::sleep(pause_without_haste()) => {}
                                }
                            }
                            connection = self.back(id, lost, &mut unacknowledged).await?;
                            back = Instant::now();
                        }
                    },
                }
            }
            // A node samples also while there is nobody to send to.
            let due_at = self.pace.due_at(second);
            let at = if due_at < back { due_at } else { Instant::now() };
            let timestamp_ms = now_ms()? - at.elapsed().as_millis() as i64;
            let mut readings = Vec::new();
            add_readings(&mut readings, &layout(), &values(second, self.breach_at), timestamp_ms, 1_000);
            unacknowledged.push_back((second + 1, readings.clone()));
            self.note(second, at);
            if broken.is_none() && connection.send.send(live(second + 1, readings)).await.is_err() {
                broken = Some(Instant::now());
            }
            if let Some(lost) = broken {
                connection = self.back(id, lost, &mut unacknowledged).await?;
                back = Instant::now();
            }
        }
        let last = tokio::time::timeout(LAST_ACKNOWLEDGEMENT_TIME_MAX, async {
            while !unacknowledged.is_empty() {
                match connection.replies.message().await {
                    Ok(Some(reply)) => forget_acknowledged(&reply, &mut unacknowledged),
                    _ => connection = self.back(id, Instant::now(), &mut unacknowledged).await?,
                }
            }
            Ok(())
        });
        last.await.context("acknowledgements stay away")?
    }

    /// Connects again and sends what the server has not.
    async fn back(
        &self,
        id: [u8; 16],
        lost: Instant,
        unacknowledged: &mut VecDeque<(u64, Vec<Reading>)>,
    ) -> anyhow::Result<Connection> {
        let mut backoff = Backoff::default();
        loop {
            tokio::time::sleep(backoff.next_pause()).await;
            match self.connect(id).await {
                Ok(connection) => {
                    unacknowledged.retain(|(sequence, _)| *sequence > connection.durable);
                    for (sequence, readings) in unacknowledged.iter() {
                        connection.send.send(live(*sequence, readings.clone())).await?;
                    }
                    let Connection { connected, welcomed, .. } = connection;
                    let way =
                        Return { node: self.pace.node, lost, connected, welcomed, sent: Instant::now() };
                    self.returns.lock().unwrap_or_else(PoisonError::into_inner).push(way);
                    return Ok(connection);
                }
                Err(error) if lost.elapsed() > AWAY_TIME_MAX => return Err(error),
                Err(_) => {}
            }
        }
    }

    async fn connect(&self, id: [u8; 16]) -> anyhow::Result<Connection> {
        // On the loopback interface it is taken or refused at once. A refused attempt costs no more than its packets:
        // a thousand nodes share this machine.
        let socket = std::net::TcpStream::connect(self.address)?;
        let connected = Instant::now();
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let socket = TcpStream::from_std(socket)?;
        let mut socket = Some(TokioIo::new(socket));
        let connector = tower::service_fn(move |_| {
            let socket = socket.take().ok_or_else(|| std::io::Error::other("connects once"));
            std::future::ready(socket)
        });
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let mut client = IngestClient::new(endpoint.connect_with_connector(connector).await?);
        let (send, messages) = mpsc::channel(IN_FLIGHT_MAX);
        send.send(hello(self.pace.node, id)).await?;
        let mut replies = client.push(ReceiverStream::new(messages)).await?.into_inner();
        let welcome = replies.message().await?.context("no Welcome")?;
        let Some(FromCollector::Welcome(welcome)) = welcome.message else {
            bail!("expected Welcome: {welcome:?}")
        };
        let welcomed = Instant::now();
        let definition = define(0, self.pace.node, &layout()[0]);
        send.send(AgentMessage { message: Some(FromAgent::DefineGroup(definition)) }).await?;
        Ok(Connection { send, replies, durable: welcome.live_durable, connected, welcomed })
    }

    /// By remote write.
    pub(super) async fn write(&self, client: &reqwest::Client) -> anyhow::Result<()> {
        let url = format!("http://{}/api/v1/write", self.address);
        let mut request = write_request(&layout(), self.pace.node);
        let mut encoder = snap::raw::Encoder::new();
        let mut timestamp = 0;
        for second in 0..self.seconds {
            self.pace.due(second).await;
            // A node that is late for two ticks sends them within the same millisecond.
            timestamp = now_ms()?.max(timestamp + 1);
            for (series, value) in request.timeseries.iter_mut().zip(values(second, self.breach_at)) {
                series.samples = vec![remote::Sample { value, timestamp }];
            }
            let body = encoder.compress_vec(&request.encode_to_vec())?;
            let begin = Instant::now();
            self.note(second, begin);
            while let Err(error) = write(client, &url, body.clone()).await {
                if begin.elapsed() > AWAY_TIME_MAX {
                    return Err(error);
                }
                tokio::time::sleep(CONNECTED_AGAIN_EVERY).await;
            }
        }
        Ok(())
    }
}

fn live(sequence: u64, readings: Vec<Reading>) -> AgentMessage {
    let tick = Tick { lane: Lane::Live.into(), sequence, readings };
    AgentMessage { message: Some(FromAgent::Tick(tick)) }
}

fn forget_acknowledged(reply: &CollectorMessage, unacknowledged: &mut VecDeque<(u64, Vec<Reading>)>) {
    if let Some(FromCollector::Acknowledge(reply)) = &reply.message {
        while unacknowledged.front().is_some_and(|(sequence, _)| *sequence <= reply.sequence) {
            unacknowledged.pop_front();
        }
    }
}
