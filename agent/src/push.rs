//! The push client: carries frames from the spool to a collector over `pharos.v1.Ingest`.
//!
//! It connects to the first collector that answers ([`failover`]), tells who it is, hears what is durable
//! there, and then sends live frames as they come and pending ones behind them. Whatever breaks, it backs off
//! and tries every address; the spool knows what is still to be sent. While frames go to a collector that
//! is not the preferred one, the preferred one is asked now and then, and gets them once it answers.

mod backoff;
mod carrier;
mod codec;
mod connection;
mod error;
mod failover;
mod outgoing;

use crate::hints::HintSender;
use crate::own_metrics::OwnMetrics;
use crate::spool::SpoolHandle;
pub use backoff::{Backoff, pause_without_haste};
pub use connection::is_address;
use connection::{Connection, Connector, Incoming};
use error::PushError;
use failover::{Failover, until_preferred};
use outgoing::OutgoingFrame;
use pharos_common::shutdown::Shutdown;
use pharos_proto::v1::collector_message::Message;
use pharos_proto::v1::{CollectorMessage, Lane};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Longest pause that a collector may ask for.
const THROTTLE_MAX: Duration = Duration::from_secs(300);
/// Time at shutdown for the collector to end its side.
const GOODBYE_TIME_MAX: Duration = Duration::from_millis(500);
/// Time at shutdown for the last frames to be acknowledged.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

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
    /// Time between two questions to the preferred collectors while another one takes the frames.
    pub return_interval: Duration,
}

/// How a connection ended.
enum End {
    /// The agent stops.
    Stopped,
    /// The configuration names other collectors now.
    OtherAddresses,
    /// A collector that is preferred answers again; its place and the connection.
    Preferred(usize, Box<Connection>),
    Failed(PushError),
}

impl Pusher {
    /// Connects, pushes, and reconnects, until `shutdown`; then waits a little for what is in flight.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (stream_id, bell) = (self.spool.stream_id(), self.spool.bell());
        let connector = Connector { node: self.node.clone(), stream_id, bell };
        let mut failover = Failover::new(self.addresses.borrow_and_update().clone());
        let mut answered = None;
        loop {
            let (at, connection) = match answered.take() {
                Some(connected) => connected,
                None => tokio::select! {
                    connected = failover.connect(&connector, &self.metrics) => connected,
                    () = changed(&mut self.addresses) => {
                        failover = Failover::new(self.addresses.borrow_and_update().clone());
                        continue;
                    }
                    () = shutdown.cancelled() => return,
                },
            };
            failover.connected(at, &connection.welcome.version);
            let preferred = failover.preferred_to(at);
            let preferred = until_preferred(connector.clone(), preferred, self.return_interval);
            let end = tokio::select! {
                end = self.push(connection, &shutdown, || failover.took_frames(at)) => end,
                (at, connection) = preferred => End::Preferred(at, Box::new(connection)),
            };
            self.metrics.connected.set(0);
            // Which frame is to blame can be told only while the lanes are as they were.
            if let End::Failed(error) = &end
                && error.is_refusal()
            {
                self.spool.refused();
            }
            self.spool.disconnected();
            match end {
                End::Stopped => return,
                End::OtherAddresses => {
                    failover = Failover::new(self.addresses.borrow_and_update().clone());
                }
                End::Preferred(at, connection) => answered = Some((at, *connection)),
                End::Failed(error) => {
                    failover.ended(at, &error, &self.metrics);
                    tokio::select! {
                        () = tokio::time::sleep(pause_without_haste()) => {}
                        () = self.spool.until_outstanding() => {}
                        () = shutdown.cancelled() => {}
                    }
                }
            }
        }
    }

    /// One connection, from `Welcome` to its end.
    async fn push(&mut self, connection: Connection, shutdown: &Shutdown, took_frames: impl FnMut()) -> End {
        let Connection { welcome, mut incoming, live, backfill, .. } = connection;
        self.spool.connected(welcome.live_durable, welcome.backfill_durable, live);
        self.metrics.connections.inc();
        self.metrics.connected.set(1);
        let (pause, paused) = watch::channel(Instant::now());
        // Ends with this connection, however that ends.
        let mut pump = JoinSet::new();
        pump.spawn(pump_backfill(self.spool.clone(), backfill, paused));
        match self.listen(&mut incoming, &pause, shutdown, took_frames).await {
            Ok(End::Stopped) => {
                // The collector hears that this was all, and not that a connection broke.
                self.spool.disconnected();
                self.spool.bell().ring_in(Duration::ZERO);
                let until_closed = async { while incoming.message().await.is_ok() {} };
                let _ = tokio::time::timeout(GOODBYE_TIME_MAX, until_closed).await;
                End::Stopped
            }
            Ok(end) => end,
            Err(error) => End::Failed(error),
        }
    }

    /// Takes what the collector says until the connection or the agent ends.
    async fn listen(
        &mut self,
        incoming: &mut Incoming,
        pause: &watch::Sender<Instant>,
        shutdown: &Shutdown,
        mut took_frames: impl FnMut(),
    ) -> Result<End, PushError> {
        let mut farewell: Option<Instant> = None;
        loop {
            let give_up = farewell.unwrap_or_else(|| Instant::now() + FAREWELL_TIME_MAX);
            if farewell.is_some() && self.spool.in_flight() == 0 {
                return Ok(End::Stopped);
            }
            tokio::select! {
                message = incoming.message() => {
                    let message = message?;
                    if let Some(Message::Acknowledge(_)) = &message.message {
                        took_frames();
                    }
                    self.obey(message, pause);
                }
                () = self.spool.until_stalled() => return Err(PushError::Unacknowledged),
                () = tokio::time::sleep_until(give_up), if farewell.is_some() => return Ok(End::Stopped),
                () = changed(&mut self.addresses) => return Ok(End::OtherAddresses),
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
