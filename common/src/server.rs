//! The one accept loop: HTTP/1.1, HTTP/2 and gRPC, in clear or over TLS, on one port.
//!
//! A connection's first byte tells TLS from clear text, its preface HTTP/2 from HTTP/1.1. Everything a
//! peer can hold open is bounded by [`ServerLimits`]: it is a program on a network, not in a laboratory.

mod chunked;
mod open_files;
mod paced_body;
mod request_gate;
mod request_head;
mod standard_routes;
mod tls;

pub use paced_body::{BodyPace, BodyTooSlow};
pub use standard_routes::{Readiness, Reload, StandardRoutes, accepts_coding, from_other_site};
pub use tls::{TlsError, TlsFiles, load_tls};

use crate::shutdown::Shutdown;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// What one server lets its peers hold.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Time for a TLS handshake, and for the first byte.
    pub handshake_time_max: Duration,
    /// Time for a request's header, and for which an HTTP/1.1 connection may lie idle.
    pub header_time_max: Duration,
    /// How fast a request's body has to come; streams of gRPC are left alone.
    pub body_pace: BodyPace,
    /// Time without any answer to a ping after which an HTTP/2 connection is dropped.
    pub ping_time_max: Duration,
    /// Connections from one address. Behind a proxy or on one machine many agents share an address.
    pub connections_per_peer_max: usize,
    /// Connections in all.
    pub connections_max: usize,
    /// Streams at once on one HTTP/2 connection.
    pub h2_streams_max: u32,
    /// Streams a peer may open and reset without waiting before its connection is dropped.
    pub h2_resets_max: usize,
    /// Time that requests in flight get at shutdown.
    pub drain_time_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        ServerLimits {
            handshake_time_max: Duration::from_secs(10),
            header_time_max: Duration::from_secs(60),
            body_pace: BodyPace::default(),
            ping_time_max: Duration::from_secs(20),
            connections_per_peer_max: 8_192,
            connections_max: 16_384,
            h2_streams_max: 250,
            h2_resets_max: 50,
            drain_time_max: Duration::from_secs(5),
        }
    }
}

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is no address.
    #[error(
        "{flag}: {address:?} is not an address to listen on (write HOST:PORT, for example 127.0.0.1:9490 or :9490)"
    )]
    Malformed {
        /// The flag it came from.
        flag: &'static str,
        /// What was written.
        address: String,
    },
    /// Another program listens there.
    #[error("{address} is in use by another program; choose another port with {flag}")]
    InUse {
        /// The flag that changes it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The system refuses for another reason.
    #[error("cannot listen on {address} ({flag}): {source}")]
    Refused {
        /// The flag that changes it.
        flag: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ListenError {
    /// What a program ends with: 2 for what its user wrote wrongly, 1 for what the machine refuses.
    pub fn exit_code(&self) -> u8 {
        match self {
            ListenError::Malformed { .. } => 2,
            ListenError::InUse { .. } | ListenError::Refused { .. } => 1,
        }
    }
}

/// Connections that wait to be accepted: as many as are served. After a restart all agents return while the
/// storage is being opened, and one that found no place would try again a second later. Linux cuts it to
/// `net.core.somaxconn` (4,096).
const BACKLOG: u32 = 16_384;

/// Opens a listening socket and logs `Listening on` with the address. Port 0 takes a free one; an address
/// without a host (`:9490`) listens on all.
///
/// # Errors
/// If the text is no address or the port is taken; the message names `flag`.
pub async fn listen(address: &str, flag: &'static str) -> Result<TcpListener, ListenError> {
    let malformed = || ListenError::Malformed { flag, address: address.to_owned() };
    // Without a host: all addresses of both families, or of the one that the kernel has.
    let candidates: Vec<SocketAddr> = match address.strip_prefix(':') {
        Some(port) => {
            let port: u16 = port.parse().map_err(|_| malformed())?;
            vec![(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
        }
        None => tokio::net::lookup_host(address).await.map_err(|_| malformed())?.take(1).collect(),
    };
    let mut outcome = Err(malformed());
    for socket in candidates {
        outcome = bind(socket).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { flag, address: socket },
            _ => ListenError::Refused { flag, address: address.to_owned(), source },
        });
        if !matches!(outcome, Err(ListenError::Refused { .. })) {
            break;
        }
    }
    let listener = outcome?;
    let refused = |source| ListenError::Refused { flag, address: address.to_owned(), source };
    let local = listener.local_addr().map_err(refused)?;
    tracing::info!(address = %local, "Listening on");
    Ok(listener)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        if address.is_ipv4() { tokio::net::TcpSocket::new_v4()? } else { tokio::net::TcpSocket::new_v6()? };
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How often a fault that repeats by the thousand is logged.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Serves `app` until `shutdown`, then lets requests in flight finish within the limit.
///
/// The peer's address is in the request's extensions as [`ConnectInfo<SocketAddr>`].
pub async fn serve(
    listener: TcpListener,
    app: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: ServerLimits,
    shutdown: Shutdown,
) {
    // On one of the runtime's threads, where it takes turns with the connections.
    if let Err(error) = tokio::spawn(accept(listener, app, tls, limits, shutdown)).await {
        tracing::error!(%error, "Accepting connections ended badly");
    }
}

async fn accept(
    listener: TcpListener,
    app: Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: ServerLimits,
    shutdown: Shutdown,
) {
    let mut limits = limits;
    let files = open_files::raise_limit();
    limits.connections_max = limits.connections_max.min(open_files::for_connections(files));
    let connections = Arc::new(Connections::default());
    let mut warned: Option<Instant> = None;
    let graceful = GracefulShutdown::new();
    let builder = connection_builder(&limits);
    let acceptor = tls.map(TlsAcceptor::from);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly. Spinning would not free any.
                if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, open_files_max = files, "Cannot accept connections; raise the limit of open files (ulimit -n) if this lasts");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = Connections::enter(&connections, peer.ip(), &limits) else {
            if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                warned = Some(Instant::now());
                tracing::warn!(%peer, connections_max = limits.connections_max, "Too many connections, refused");
            }
            continue;
        };
        let watcher = graceful.watcher();
        let (app, builder, acceptor, limits) =
            (app.clone(), builder.clone(), acceptor.clone(), limits.clone());
        tokio::spawn(async move {
            let _place = place;
            let handshake = tokio::time::timeout(limits.handshake_time_max, greet(stream, acceptor));
            let stream = match handshake.await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%peer, %error, "Handshake failed"),
                Err(_) => return tracing::debug!(%peer, "Handshake took too long"),
            };
            let gate = request_gate::RequestGate::new(stream, limits.header_time_max);
            let faults = gate.faults();
            let body_pace = limits.body_pace;
            let service =
                hyper::service::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                    let fault = faults.answer(&request);
                    request.extensions_mut().insert(ConnectInfo(peer));
                    let app = app.clone();
                    async move {
                        match fault {
                            Some(answer) => Ok(answer),
                            None => app.oneshot(paced(request, body_pace)).await,
                        }
                    }
                });
            let connection = builder.serve_connection_with_upgrades(TokioIo::new(gate), service);
            if let Err(error) = watcher.watch(connection.into_owned()).await {
                tracing::debug!(%peer, error = %error, "Connection ended");
            }
        });
        // Whoever was let in goes first: when a thousand agents return at once, each is served to its end sooner
        // than if all of them were greeted before the first is heard.
        tokio::task::yield_now().await;
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_time_max, graceful.shutdown()).await.is_err() {
        tracing::warn!("Some requests did not finish in time and were dropped");
    }
}

/// A request whose body must come. One without a body costs nothing.
fn paced(request: http::Request<hyper::body::Incoming>, pace: BodyPace) -> axum::extract::Request {
    let content_type = request.headers().get(http::header::CONTENT_TYPE);
    let is_grpc = content_type.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc || request.body().is_end_stream() {
        return request.map(Body::new);
    }
    request.map(|body| Body::new(paced_body::PacedBody::new(body, pace)))
}

fn connection_builder(limits: &ServerLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // The gate before hyper keeps the limit; this is for connections that it does not look at.
    let header_time_max = limits.header_time_max * 2;
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_time_max).pipeline_flush(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        .max_pending_accept_reset_streams(limits.h2_resets_max)
        .keep_alive_interval(limits.ping_time_max)
        .keep_alive_timeout(limits.ping_time_max)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// First byte of a TLS handshake record; no HTTP method starts with it.
const TLS_HANDSHAKE: u8 = 0x16;

async fn greet(stream: TcpStream, acceptor: Option<TlsAcceptor>) -> io::Result<Box<dyn Stream>> {
    // Small answers must not wait for a delayed acknowledgement.
    stream.set_nodelay(true)?;
    let mut first = [0u8; 1];
    let peeked = stream.peek(&mut first).await?;
    match acceptor {
        Some(acceptor) => Ok(Box::new(acceptor.accept(stream).await?)),
        None if peeked == 1 && first[0] == TLS_HANDSHAKE => {
            Err(io::Error::other("the peer speaks TLS, but this server has no certificate"))
        }
        None => Ok(Box::new(stream)),
    }
}

#[derive(Debug, Default)]
struct Connections {
    by_peer: Mutex<HashMap<IpAddr, usize>>,
}

#[derive(Debug)]
struct Place {
    connections: Arc<Connections>,
    peer: IpAddr,
}

impl Connections {
    fn enter(this: &Arc<Self>, peer: IpAddr, limits: &ServerLimits) -> Option<Place> {
        let mut by_peer = this.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = by_peer.values().sum();
        let count = by_peer.entry(peer).or_insert(0);
        if *count >= limits.connections_per_peer_max || total >= limits.connections_max {
            return None;
        }
        *count += 1;
        Some(Place { connections: Arc::clone(this), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_peer = self.connections.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}
