//! One connection to a collector: from an address to its `Welcome`, and what it says from then on.
//!
//! gRPC is HTTP/2 with five bytes before each message, and the agent uses one method of it. It speaks HTTP/2
//! through `h2` itself: it does so once a second, when every layer on the way to the socket is a cold cache.

use super::carrier::carry;
use super::codec::Received;
use super::error::PushError;
use super::outgoing::{Outgoing, OutgoingFrame};
use crate::doorbell::{Doorbell, Listener};
use crate::spool::{LiveFrame, STREAM_ID_BYTES};
use h2::RecvStream;
use http::{Method, Request, StatusCode, Uri, header};
use pharos_proto::v1::collector_message::Message;
use pharos_proto::v1::{CollectorMessage, Hello, Welcome};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where `pharos.v1.Ingest/Push` is served.
const PUSH_PATH: &str = "/pharos.v1.Ingest/Push";
/// Time for a connection to stand, and for the collector to say `Welcome`.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Time that one of the addresses behind a name has, before the next is tried.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(3);
/// Time in which nothing that was sent reaches the peer, after which the kernel gives the connection up.
const UNREACHED_MS_MAX: u32 = 20_000;
/// Silence after which the kernel asks whether the peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Live frames between spool and network.
const LIVE_QUEUE_FRAMES: usize = 64;
/// Backfilled frames between spool and network: few, so that a fresh frame waits for few.
const BACKFILL_QUEUE_FRAMES: usize = 8;
/// Bytes of a collector's head: a few fields, and a message that says why not.
const HEAD_BYTES_MAX: u32 = 16 << 10;
const HTTP_PORT: u16 = 80;

/// A connection that stands; nothing has been sent on it but `Hello`. It ends when what it says is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) welcome: Welcome,
    pub(super) incoming: Incoming,
    pub(super) live: mpsc::Sender<LiveFrame>,
    pub(super) backfill: mpsc::Sender<OutgoingFrame>,
}

/// Who connects.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) node: String,
    pub(super) stream_id: [u8; STREAM_ID_BYTES],
    /// Rings when live frames are to leave.
    pub(super) bell: Arc<Doorbell>,
}

impl Connector {
    /// Connects and waits for `Welcome`, each not for ever.
    pub(super) async fn connect(&self, address: &str) -> Result<Connection, PushError> {
        timeout(CONNECT_TIME_MAX, self.greet(address)).await.map_err(|_| PushError::TimedOut)?
    }

    async fn greet(&self, address: &str) -> Result<Connection, PushError> {
        let uri = parse(address).ok_or_else(|| PushError::Address(address.to_owned()))?;
        let socket = open(&uri).await.map_err(PushError::Connect)?;
        // Nothing but one answer is expected: nobody can fill the agent with promises, heads or resets.
        let (mut requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_reset_streams(1)
            .handshake(socket)
            .await?;
        let (response, stream) = requests.send_request(request(&uri), false)?;
        let (live, live_out) = mpsc::channel(LIVE_QUEUE_FRAMES);
        let (backfill, backfill_out) = mpsc::channel(BACKFILL_QUEUE_FRAMES);
        let hello = Hello {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stream_id: self.stream_id.to_vec().into(),
        };
        let bell = Listener::new(&self.bell).map_err(PushError::Connect)?;
        let outgoing = Outgoing::new(hello, bell, live_out, backfill_out);
        let mut carrier = JoinSet::new();
        carrier.spawn(carry(connection, stream, outgoing));
        let (head, stream) = response.await?.into_parts();
        if head.status != StatusCode::OK {
            return Err(PushError::NoCollector(head.status));
        }
        if let Some(error) = PushError::of_status(&head.headers) {
            return Err(error);
        }
        let mut incoming = Incoming { stream, received: Received::default(), _carrier: carrier };
        match incoming.message().await?.message {
            Some(Message::Welcome(welcome)) => Ok(Connection { welcome, incoming, live, backfill }),
            _ => Err(PushError::NoWelcome),
        }
    }
}

/// What the collector says on a connection.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    received: Received,
    /// What carries the connection ends with it.
    _carrier: JoinSet<()>,
}

impl Incoming {
    /// Waits for the next message. Nothing is lost if nobody waits any more.
    ///
    /// # Errors
    /// Why there will be none.
    pub(super) async fn message(&mut self) -> Result<CollectorMessage, PushError> {
        loop {
            if let Some(message) = self.received.next()? {
                return Ok(message);
            }
            let Some(bytes) = self.stream.data().await else { break };
            let bytes = bytes?;
            self.stream.flow_control().release_capacity(bytes.len())?;
            self.received.push(&bytes);
        }
        let trailers = self.stream.trailers().await?;
        Err(trailers.and_then(|trailers| PushError::of_status(&trailers)).unwrap_or(PushError::Closed))
    }
}

fn request(uri: &Uri) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    let user_agent = concat!("pharos-agent/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, header::HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, header::HeaderValue::from_static(user_agent));
    request
}

/// A socket to the first of the name's addresses that answers.
async fn open(uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, uri.port_u16().unwrap_or(HTTP_PORT))).await? {
        match timeout(ADDRESS_TIME_MAX, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return prepare(socket),
            Ok(Err(error)) => failed = told(address, error),
            Err(_) => failed = told(address, io::ErrorKind::TimedOut.into()),
        }
    }
    Err(failed)
}

fn told(address: SocketAddr, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// Lets the kernel watch over the connection: it does so without waking anybody up.
fn prepare(socket: TcpStream) -> io::Result<TcpStream> {
    use rustix::net::sockopt;
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEP_ALIVE)?;
    sockopt::set_tcp_user_timeout(&socket, UNREACHED_MS_MAX)?;
    Ok(socket)
}

/// Where a collector's address leads; `None` if it is none.
fn parse(address: &str) -> Option<Uri> {
    let base = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let base: Uri = base.parse().ok()?;
    let mut parts = base.into_parts();
    if parts.scheme.as_ref()? != &http::uri::Scheme::HTTP {
        return None;
    }
    let authority = parts.authority.as_ref()?;
    let has_odd_port = authority.port_u16().is_none() && authority.as_str() != authority.host();
    if authority.host().is_empty() || has_odd_port {
        return None;
    }
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static(PUSH_PATH));
    Uri::from_parts(parts).ok()
}

/// Whether a text can be an address of a collector.
pub fn is_address(address: &str) -> bool {
    parse(address).is_some()
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses_are_with_or_without_a_scheme() {
        for good in ["127.0.0.1:9490", "http://collector:9490", "[::1]:9490", "collector.monitoring.svc:9490"]
        {
            assert!(super::is_address(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "http://",
            "::",
            "https://collector:9490",
            "unix:/run/collector",
            "collector:99999",
            "user@collector",
        ] {
            assert!(!super::is_address(bad), "{bad}");
        }
    }
}
