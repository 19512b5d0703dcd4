//! The first line of a connection, with what a request's target may not hold percent-encoded.
//!
//! `curl 'http://.../api/v1/query?query=up{job="node"}'` sends its quotes and braces as they are. Go's servers
//! take them, so scripts written for Prometheus rely on it; hyper answers 400 with an empty body. Clients
//! that keep a connection for many requests encode their targets, so only the first line is looked at and
//! everything behind it passes untouched. The preface of HTTP/2 is a first line without such bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A longer first line is left as it is: hyper refuses targets over 64 KiB.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Bytes read at once while the line is not complete.
const READ_BYTES: usize = 4 << 10;

/// A connection whose first line is mended.
#[derive(Debug)]
pub(super) struct MendedRequestLine<S> {
    inner: S,
    /// What was read but not yet handed on.
    held: Vec<u8>,
    handed_on: usize,
    /// Whether the line is complete, or will not be looked at.
    done: bool,
}

impl<S> MendedRequestLine<S> {
    pub(super) fn new(inner: S) -> Self {
        MendedRequestLine { inner, held: Vec::new(), handed_on: 0, done: false }
    }
}

impl<S: AsyncRead + Unpin> MendedRequestLine<S> {
    /// Waits for the first line, so that the time for it can be limited.
    pub(super) async fn read_line(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_line(context)).await
    }

    /// Reads until the line is complete, and mends it.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.done {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
            let seen = self.held.len();
            self.held.extend_from_slice(read.filled());
            let end = self.held[seen..].iter().position(|&byte| byte == b'\n').map(|at| seen + at);
            if let Some(end) = end {
                mend(&mut self.held, end);
            }
            self.done = end.is_some() || read.filled().is_empty() || self.held.len() > LINE_BYTES_MAX;
        }
        Poll::Ready(Ok(()))
    }
}

/// Encodes what the target of the request line that ends at `end` may not hold.
fn mend(bytes: &mut Vec<u8>, end: usize) {
    let line = &bytes[..end];
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return;
    };
    if !version.starts_with(b"HTTP/1.") || !target.iter().any(|&byte| is_illegal(byte)) {
        return;
    }
    let mut encoded = Vec::with_capacity(target.len() * 2);
    for &byte in target {
        if is_illegal(byte) {
            encoded.push(b'%');
            encoded.extend([byte >> 4, byte & 15].map(|digit| b"0123456789ABCDEF"[usize::from(digit)]));
        } else {
            encoded.push(byte);
        }
    }
    let start = method.len() + 1;
    let range = start..start + target.len();
    bytes.splice(range, encoded);
}

/// Bytes that a URI may not hold, and that are no white space or control characters either.
fn is_illegal(byte: u8) -> bool {
    matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x80..)
}

impl<S: AsyncRead + Unpin> AsyncRead for MendedRequestLine<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_line(context))?;
        if this.handed_on < this.held.len() {
            let rest = &this.held[this.handed_on..];
            let length = rest.len().min(out.remaining());
            out.put_slice(&rest[..length]);
            this.handed_on += length;
            if this.handed_on == this.held.len() {
                (this.held, this.handed_on) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_read(context, out)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MendedRequestLine<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// What arrives of bytes that are sent in pieces.
    async fn pass(bytes: &[u8], piece: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut mended = MendedRequestLine::new(server);
        let sent = bytes.to_vec();
        let sender = async move {
            for piece in sent.chunks(piece) {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            client.shutdown().await.unwrap();
        };
        let mut arrived = Vec::new();
        let (_, read) = tokio::join!(sender, mended.read_to_end(&mut arrived));
        read.unwrap();
        arrived
    }

    #[tokio::test]
    async fn the_first_target_is_encoded_and_nothing_else() {
        for piece in [1, 3, 1_000] {
            let check = async |sent: &[u8], want: &[u8]| {
                let arrived = pass(sent, piece).await;
                assert_eq!(String::from_utf8_lossy(&arrived), String::from_utf8_lossy(want));
            };
            check(
                b"GET /q?query=up{job=\"node\"} HTTP/1.1\r\nx: {}\r\n\r\n{\"body\"}\nGET {",
                b"GET /q?query=up%7Bjob=%22node%22%7D HTTP/1.1\r\nx: {}\r\n\r\n{\"body\"}\nGET {",
            )
            .await;
            check("GET /ä HTTP/1.1\r\n".as_bytes(), b"GET /%C3%A4 HTTP/1.1\r\n").await;
            check(b"GET /a%7B HTTP/1.1\n", b"GET /a%7B HTTP/1.1\n").await;
            // What is no request line of HTTP/1 stays as it is, for hyper to judge.
            check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{").await;
            check(b"GET /a{ b} HTTP/1.1\r\n", b"GET /a{ b} HTTP/1.1\r\n").await;
            check(b"{", b"{").await;
            check(b"", b"").await;
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_not_held() {
        let line = vec![b'{'; 3 * LINE_BYTES_MAX];
        assert_eq!(pass(&line, 50_000).await, line);
    }
}
