//! Carries one connection: frames flow from the spool into HTTP/2, and bytes between HTTP/2 and the socket.

use super::codec::encode;
use super::outgoing::Outgoing;
use bytes::{Bytes, BytesMut};
use h2::SendStream;
use h2::client::Connection;
use std::future::poll_fn;
use tokio::net::TcpStream;

/// Works until the connection has ended. Why it ended is heard by who reads from it.
pub(super) async fn carry(connection: Connection<TcpStream>, stream: SendStream<Bytes>, outgoing: Outgoing) {
    // In one task: a frame is on its way to the socket without waking anybody else.
    let (sent, ended) = tokio::join!(send(stream, outgoing), connection);
    if let Err(error) = sent.and(ended) {
        tracing::debug!(%error, "A connection to a collector has ended");
    }
}

/// Sends one message after the other, as far as the collector gives room.
async fn send(mut stream: SendStream<Bytes>, mut outgoing: Outgoing) -> Result<(), h2::Error> {
    let mut buffer = BytesMut::new();
    while let Some(wire) = poll_fn(|context| outgoing.poll_next(context)).await {
        encode(wire, &mut buffer);
        let mut message = buffer.split().freeze();
        while !message.is_empty() {
            stream.reserve_capacity(message.len());
            let Some(room) = poll_fn(|context| stream.poll_capacity(context)).await else { return Ok(()) };
            stream.send_data(message.split_to(room?.min(message.len())), false)?;
        }
    }
    stream.send_data(Bytes::new(), true)
}
