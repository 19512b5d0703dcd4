//! One connection to a collector: from an address to its `Welcome`, and why it ended.

use super::codec::{AgentCodec, PUSH_PATH};
use super::outgoing::{Outgoing, OutgoingFrame};
use crate::spool::{LiveFrame, STREAM_ID_BYTES};
use http::uri::PathAndQuery;
use pharos_proto::v1::collector_message::Message;
use pharos_proto::v1::{CollectorMessage, Hello, Welcome};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{IntoStreamingRequest, Streaming};

/// Time for a connection to stand, and for the collector to say `Welcome`.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Time without any sign of life, after which the peer is asked, and then dropped.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Live frames between spool and network.
const LIVE_QUEUE_FRAMES: usize = 64;
/// Backfilled frames between spool and network: few, so that a fresh frame waits for few.
const BACKFILL_QUEUE_FRAMES: usize = 8;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    #[error("{0:?} is no address (write HOST:PORT or http://HOST:PORT)")]
    Address(String),
    #[error("{}", describe(.0))]
    Transport(#[from] tonic::transport::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the collector closed the stream")]
    Closed,
    #[error("the collector did not say Welcome")]
    NoWelcome,
    #[error("no answer in time")]
    TimedOut,
    #[error("nothing was acknowledged for {} s", super::ACKNOWLEDGE_TIME_MAX.as_secs())]
    Unacknowledged,
}

impl PushError {
    /// Whether the collector ended the stream because of what it got, and will do so again.
    pub(super) fn is_refusal(&self) -> bool {
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

/// A connection that stands; nothing has been sent on it but `Hello`.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) address: String,
    pub(super) welcome: Welcome,
    pub(super) incoming: Streaming<CollectorMessage>,
    pub(super) live: mpsc::Sender<LiveFrame>,
    pub(super) backfill: mpsc::Sender<OutgoingFrame>,
}

/// Who connects.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) node: String,
    pub(super) stream_id: [u8; STREAM_ID_BYTES],
}

impl Connector {
    /// Connects and waits for `Welcome`, each not for ever.
    pub(super) async fn connect(&self, address: &str) -> Result<Connection, PushError> {
        timeout(CONNECT_TIME_MAX, self.greet(address)).await.map_err(|_| PushError::TimedOut)?
    }

    async fn greet(&self, address: &str) -> Result<Connection, PushError> {
        let channel = endpoint(address)?.connect().await?;
        let hello = Hello {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stream_id: self.stream_id.to_vec().into(),
        };
        let (live, live_out) = mpsc::channel(LIVE_QUEUE_FRAMES);
        let (backfill, backfill_out) = mpsc::channel(BACKFILL_QUEUE_FRAMES);
        let mut client = Grpc::new(channel);
        client.ready().await?;
        let outgoing = Outgoing::new(hello, live_out, backfill_out).into_streaming_request();
        let path = PathAndQuery::from_static(PUSH_PATH);
        let mut incoming = client.streaming(outgoing, path, AgentCodec).await?.into_inner();
        match incoming.message().await?.and_then(|message| message.message) {
            Some(Message::Welcome(welcome)) => {
                Ok(Connection { address: address.to_owned(), welcome, incoming, live, backfill })
            }
            Some(_) => Err(PushError::NoWelcome),
            None => Err(PushError::Closed),
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
