//! The push client: carries frames from the spool to a collector over `pharos.v1.Ingest`.
//!
//! It connects to the first collector that answers, tells who it is, hears what is durable there, and then
//! sends live frames as they come and pending ones behind them. Whatever breaks, it backs off and tries
//! the next address; the spool knows what is still to be sent.

mod backoff;
mod codec;
mod outgoing;

use crate::hints::HintSender;
use crate::own_metrics::OwnMetrics;
use crate::spool::SpoolHandle;
use backoff::Backoff;
use codec::{AgentCodec, PUSH_PATH};
use http::uri::PathAndQuery;
use outgoing::{Outgoing, OutgoingFrame};
use pharos_common::shutdown::Shutdown;
use pharos_proto::v1::collector_message::Message;
use pharos_proto::v1::{CollectorMessage, Hello, Lane, Welcome};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{IntoStreamingRequest, Streaming};

/// Time for a connection to stand, and for the collector to say `Welcome`.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing in flight is acknowledged for so long is given up.
const ACKNOWLEDGE_TIME_MAX: Duration = Duration::from_secs(30);
/// Between looks at what waits for its acknowledgement.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Time without any sign of life, after which the peer is asked, and then dropped.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Live frames between spool and network.
const LIVE_QUEUE_FRAMES: usize = 64;
/// Backfilled frames between spool and network: few, so that a fresh frame waits for few.
const BACKFILL_QUEUE_FRAMES: usize = 8;
/// Longest pause that a collector may ask for.
const THROTTLE_MAX: Duration = Duration::from_secs(300);
/// Time at shutdown for the last frames to be acknowledged.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error("{0:?} is no address (write HOST:PORT or http://HOST:PORT)")]
    Address(String),
    #[error("{}", describe(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the collector closed the stream")]
    Closed,
    #[error("the configuration names other collectors now")]
    OtherAddresses,
    #[error("the collector did not say Welcome")]
    NoWelcome,
    #[error("no answer in time")]
    TimedOut,
    #[error("nothing was acknowledged for {} s", ACKNOWLEDGE_TIME_MAX.as_secs())]
    Unacknowledged,
}

impl PushError {
    /// Whether the collector ended the stream because of what it got, and will do so again.
    fn is_refusal(&self) -> bool {
        use tonic::Code;
        let codes = [Code::InvalidArgument, Code::FailedPrecondition, Code::OutOfRange];
        matches!(self, PushError::Status(status) if codes.contains(&status.code()))
    }
}

impl From<tonic::Status> for PushError {
    fn from(status: tonic::Status) -> Self {
        PushError::Status(Box::new(status))
    }
}

/// Transport errors hide what happened in their sources.
fn describe(error: &tonic::transport::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Pushes until told to stop.
#[derive(Debug)]
pub struct Pusher {
    /// The node's name.
    pub node: String,
    /// Where frames come from.
    pub spool: SpoolHandle,
    /// Collectors, the preferred first. May change.
    pub addresses: watch::Receiver<Vec<String>>,
    /// Metrics about the agent.
    pub metrics: OwnMetrics,
    /// Where hints of the collector go.
    pub hints: HintSender,
}

impl Pusher {
    /// Connects, pushes, and reconnects, until `shutdown`; then waits a little for what is in flight.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::default();
        let mut turn = 0;
        loop {
            let addresses = self.addresses.borrow_and_update().clone();
            let Some(address) = addresses.get(turn % addresses.len().max(1)).cloned() else {
                tokio::select! {
                    () = changed(&mut self.addresses) => {}
                    () = shutdown.cancelled() => return,
                }
                continue;
            };
            let outcome = self.push_to(&address, &shutdown, &mut backoff).await;
            self.metrics.connected.set(0);
            // Which frame is to blame can be told only while the lanes are as they were.
            if outcome.as_ref().is_err_and(PushError::is_refusal) {
                self.spool.refused();
            }
            self.spool.disconnected();
            let Err(error) = outcome else { return };
            if matches!(error, PushError::OtherAddresses) {
                turn = 0;
                continue;
            }
            self.metrics.connection_failures.inc();
            if backoff.failures() == 0 || backoff.failures().is_power_of_two() {
                tracing::warn!(collector = address, %error, "No collector takes frames; the journal keeps them");
            }
            turn += 1;
            // Each address gets its chance before the agent waits longer.
            let pause = if turn % addresses.len() == 0 { backoff.next_pause() } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = changed(&mut self.addresses) => turn = 0,
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One connection, from start to end. `Ok` means that the agent stops.
    async fn push_to(
        &mut self,
        address: &str,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), PushError> {
        let connection = tokio::select! {
            connection = timeout(CONNECT_TIME_MAX, self.connect(address)) => connection,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Connection { welcome, mut incoming, live, backfill } =
            connection.map_err(|_| PushError::TimedOut)??;
        tracing::info!(collector = address, version = welcome.version, "Connected to the collector");
        self.spool.connected(welcome.live_durable, welcome.backfill_durable, live);
        self.metrics.connections.inc();
        self.metrics.connected.set(1);
        let (pause, paused) = watch::channel(Instant::now());
        let pump = tokio::spawn(pump_backfill(self.spool.clone(), backfill, paused));
        let outcome = self.listen(&mut incoming, &pause, shutdown, backoff).await;
        pump.abort();
        outcome
    }

    async fn connect(&self, address: &str) -> Result<Connection, PushError> {
        let channel = endpoint(address)?.connect().await?;
        let hello = Hello {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stream_id: self.spool.stream_id().to_vec().into(),
        };
        let (live, live_out) = mpsc::channel(LIVE_QUEUE_FRAMES);
        let (backfill, backfill_out) = mpsc::channel(BACKFILL_QUEUE_FRAMES);
        let mut client = Grpc::new(channel);
        client.ready().await?;
        let outgoing = Outgoing::new(hello, live_out, backfill_out).into_streaming_request();
        let path = PathAndQuery::from_static(PUSH_PATH);
        let mut incoming = client.streaming(outgoing, path, AgentCodec).await?.into_inner();
        match incoming.message().await?.and_then(|message| message.message) {
            Some(Message::Welcome(welcome)) => Ok(Connection { welcome, incoming, live, backfill }),
            Some(_) => Err(PushError::NoWelcome),
            None => Err(PushError::Closed),
        }
    }

    /// Takes what the collector says until the connection or the agent ends.
    async fn listen(
        &mut self,
        incoming: &mut Streaming<CollectorMessage>,
        pause: &watch::Sender<Instant>,
        shutdown: &Shutdown,
        backoff: &mut Backoff,
    ) -> Result<(), PushError> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut farewell: Option<Instant> = None;
        loop {
            let give_up = farewell.unwrap_or_else(|| Instant::now() + FAREWELL_TIME_MAX);
            if farewell.is_some() && self.spool.in_flight().0 == 0 {
                return Ok(());
            }
            tokio::select! {
                message = incoming.message() => {
                    let message = message?.ok_or(PushError::Closed)?;
                    if let Some(Message::Acknowledge(_)) = &message.message {
                        backoff.reset();
                    }
                    self.obey(message, pause);
                }
                _ = look.tick() => {
                    self.spool.write_overdue();
                    if self.spool.in_flight().1.is_some_and(|waited| waited >= ACKNOWLEDGE_TIME_MAX) {
                        return Err(PushError::Unacknowledged);
                    }
                }
                () = tokio::time::sleep_until(give_up), if farewell.is_some() => return Ok(()),
                () = changed(&mut self.addresses) => return Err(PushError::OtherAddresses),
                () = shutdown.cancelled(), if farewell.is_none() => {
                    farewell = Some(Instant::now() + FAREWELL_TIME_MAX);
                }
            }
        }
    }

    fn obey(&self, message: CollectorMessage, pause: &watch::Sender<Instant>) {
        match message.message {
            Some(Message::Acknowledge(acknowledge)) => {
                if let Ok(lane) = Lane::try_from(acknowledge.lane) {
                    self.spool.acknowledged(lane, acknowledge.sequence);
                }
            }
            Some(Message::Throttle(throttle)) => {
                let wait = Duration::from_millis(throttle.pause_backfill_ms.into()).min(THROTTLE_MAX);
                tracing::debug!(
                    ?wait,
                    reason = throttle.reason,
                    "The collector asks for a pause of backfill"
                );
                pause.send_replace(Instant::now() + wait);
            }
            Some(Message::Hints(hints)) => {
                self.metrics.hints.inc_by(hints.hints.len() as u64);
                self.hints.send(hints.hints);
            }
            Some(Message::Welcome(_)) | None => {}
        }
    }
}

/// Resolves when the addresses change. When the agent stops nobody can change them any more.
async fn changed(addresses: &mut watch::Receiver<Vec<String>>) {
    if addresses.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

struct Connection {
    welcome: Welcome,
    incoming: Streaming<CollectorMessage>,
    live: mpsc::Sender<crate::spool::LiveFrame>,
    backfill: mpsc::Sender<OutgoingFrame>,
}

/// Moves pending frames to the connection, as fast as it takes them.
async fn pump_backfill(
    spool: SpoolHandle,
    out: mpsc::Sender<OutgoingFrame>,
    mut paused: watch::Receiver<Instant>,
) {
    loop {
        spool.until_backfill().await;
        for frame in spool.backfill().await {
            loop {
                let until = *paused.borrow_and_update();
                if until <= Instant::now() {
                    break;
                }
                tokio::time::sleep_until(until).await;
            }
            if out.send(OutgoingFrame::from(frame)).await.is_err() {
                return;
            }
        }
    }
}

fn endpoint(address: &str) -> Result<Endpoint, PushError> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|_| PushError::Address(address.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIME_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// Whether a text can be an address of a collector.
pub fn is_address(address: &str) -> bool {
    endpoint(address).is_ok_and(|endpoint| endpoint.uri().host().is_some_and(|host| !host.is_empty()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_are_with_or_without_a_scheme() {
        for good in ["127.0.0.1:9490", "http://collector:9490", "[::1]:9490", "collector.monitoring.svc:9490"]
        {
            assert!(super::is_address(good), "{good}");
        }
        for bad in ["", "a b", "http://", "::"] {
            assert!(!super::is_address(bad), "{bad}");
        }
    }
}
