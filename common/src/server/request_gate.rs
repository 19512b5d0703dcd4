//! Between a connection and hyper: every head of HTTP/1 passes whole, mended and checked, or not at all.
//!
//! Bytes of a peer flow in, the same bytes flow out, but for targets ([`request_head`](super::request_head))
//! and for a head that is malformed, too large or too slow: in its place hyper gets a request with a method of
//! our own, which the service answers by what is wrong. hyper itself would answer with no text, or close the
//! connection. HTTP/2, and whatever is framed in a way that is not known here, passes untouched.

use super::chunked::Chunks;
use super::request_head::{self, Body, HeadFault};
use http::{Method, Request, Response, header};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes read at once while a head is not complete.
const READ_BYTES: usize = 4 << 10;

/// Bytes of a body read at once. They are zeroed first, which must not cost more than reading them.
const BODY_READ_BYTES_MAX: usize = 64 << 10;

/// What every connection of HTTP/2 begins with.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The request in place of one that cannot be read.
const FAULT_METHOD: &str = "FAULT";
const FAULT_HEAD: &[u8] = b"FAULT / HTTP/1.1\r\nconnection: close\r\n\r\n";

/// Bytes thrown away of a peer that goes on sending after a fault: it reads the answer only then.
const DISCARDED_BYTES_MAX: usize = 4 << 20;

/// What is wrong with the last head of a connection. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<OnceLock<HeadFault>>);

impl Faults {
    /// The answer to a request that stands for one that cannot be read.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Option<Response<axum::body::Body>> {
        let fault = self.0.get().filter(|_| is_stand_in(request.method()))?;
        let mut response = Response::new(axum::body::Body::from(fault.text()));
        *response.status_mut() = fault.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
        Some(response)
    }
}

fn is_stand_in(method: &Method) -> bool {
    method.as_str() == FAULT_METHOD
}

#[derive(Debug)]
enum State {
    /// At the start of the connection: HTTP/1 or HTTP/2.
    Start,
    /// Before or in a head.
    Head,
    /// In a body that goes on for so many bytes.
    Body(u64),
    Chunked(Chunks),
    /// All that follows passes.
    Open,
    /// Nothing more passes, but so many bytes are still thrown away.
    Ended {
        discard_left: usize,
    },
}

/// A connection whose requests are looked at before hyper sees them.
#[derive(Debug)]
pub(super) struct RequestGate<S> {
    inner: S,
    state: State,
    /// What was read but not looked at.
    input: Vec<u8>,
    /// How much of it was searched for the end of a head.
    searched: usize,
    /// What passed, and how much of it hyper has.
    output: Vec<u8>,
    handed_on: usize,
    /// Time for a head, and for which the connection may lie idle.
    head_time_max: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// A request passed and nothing of its answer was written yet: however long that takes, the connection is not
    /// idle, and hyper, which reads on meanwhile, must not take it for ended.
    is_awaited: bool,
    faults: Faults,
}

impl<S> RequestGate<S> {
    pub(super) fn new(inner: S, head_time_max: Duration) -> Self {
        RequestGate {
            inner,
            state: State::Start,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            handed_on: 0,
            head_time_max,
            timer: None,
            is_awaited: false,
            faults: Faults::default(),
        }
    }

    /// What the connection's service looks at.
    pub(super) fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Lets the first `count` bytes of the input pass.
    fn pass(&mut self, count: usize) {
        self.handed_on = 0;
        if count == self.input.len() {
            self.output.clear();
            std::mem::swap(&mut self.input, &mut self.output);
        } else {
            self.output.clear();
            self.output.extend(self.input.drain(..count));
        }
    }

    fn fail(&mut self, fault: HeadFault) {
        // The first is the only one: nothing passes after it.
        let _ = self.faults.0.set(fault);
        self.timer = None;
        self.input = Vec::new();
        self.handed_on = 0;
        self.output = FAULT_HEAD.to_vec();
        self.state = State::Ended { discard_left: DISCARDED_BYTES_MAX };
    }

    /// Looks at the input as far as it goes. `false` if more must be read first.
    fn look(&mut self) -> bool {
        match &mut self.state {
            State::Start => {
                let seen = self.input.len().min(H2_PREFACE.len());
                if self.input[..seen] != H2_PREFACE[..seen] {
                    self.state = State::Head;
                    return true;
                }
                if seen == H2_PREFACE.len() {
                    self.state = State::Open;
                    self.timer = None;
                    return true;
                }
                false
            }
            State::Head => self.look_for_head(),
            State::Body(0) => {
                self.state = State::Head;
                true
            }
            State::Body(left) => {
                let count = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                self.pass(count);
                count > 0
            }
            State::Chunked(chunks) => {
                let Some(seen) = chunks.advance(&self.input) else {
                    // hyper says what is wrong.
                    self.state = State::Open;
                    return true;
                };
                if chunks.is_complete() {
                    self.state = State::Head;
                }
                self.pass(seen);
                seen > 0
            }
            State::Open => {
                self.pass(self.input.len());
                !self.output.is_empty()
            }
            State::Ended { .. } => false,
        }
    }

    fn look_for_head(&mut self) -> bool {
        // Some clients send an empty line after a body.
        let blank = self.input.iter().take_while(|&&byte| matches!(byte, b'\r' | b'\n')).count();
        if blank > 0 && self.searched == 0 {
            self.input.drain(..blank);
        }
        let Some(end) = request_head::find_end(&self.input, self.searched) else {
            self.searched = self.input.len();
            let fault = request_head::fault_of_part(&self.input);
            if let Some(fault) = fault {
                self.fail(fault);
            }
            return fault.is_some();
        };
        self.searched = 0;
        self.timer = None;
        self.is_awaited = true;
        self.pass(end);
        match request_head::mend(&mut self.output) {
            Ok(Body::Length(length)) => self.state = State::Body(length),
            Ok(Body::Chunked) => self.state = State::Chunked(Chunks::default()),
            Ok(Body::Unknown) => self.state = State::Open,
            Err(fault) => self.fail(fault),
        }
        true
    }

    /// Something is written. Behind a request that is whole it is the answer (before, a word to go on), and the
    /// connection lies idle only from its last part on.
    fn note_written(&mut self) {
        self.timer = None;
        if matches!(self.state, State::Head) {
            self.is_awaited = false;
        }
    }

    /// Whether the time for a head is over. Asked only while it is waited for.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_awaited && self.input.is_empty() {
            return Poll::Pending;
        }
        let time_max = self.head_time_max;
        let timer =
            self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + time_max)));
        timer.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> RequestGate<S> {
    /// Reads more to look at; how many bytes.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; READ_BYTES];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Throws away what a peer still sends after a fault. Never ready: the answer ends the connection.
    fn discard(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; READ_BYTES];
        while let State::Ended { discard_left } = &mut self.state {
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(context, &mut read))?;
            *discard_left = discard_left.saturating_sub(read.filled().len());
            if read.filled().is_empty() || *discard_left == 0 {
                break;
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestGate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(rest) = this.output.get(this.handed_on..).filter(|rest| !rest.is_empty()) {
                let count = rest.len().min(out.remaining());
                out.put_slice(&rest[..count]);
                this.handed_on += count;
                return Poll::Ready(Ok(()));
            }
            if this.look() {
                continue;
            }
            match &mut this.state {
                State::Open => {
                    // Such connections last: agents' streams are among them.
                    (this.input, this.output) = (Vec::new(), Vec::new());
                    return Pin::new(&mut this.inner).poll_read(context, out);
                }
                State::Ended { .. } => return this.discard(context),
                // The rest of a body needs no copy.
                State::Body(left) => {
                    let count = out.remaining().min(BODY_READ_BYTES_MAX);
                    let count = count.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let mut part = ReadBuf::new(out.initialize_unfilled_to(count));
                    ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
                    let count = part.filled().len();
                    out.advance(count);
                    *left -= count as u64;
                    return Poll::Ready(Ok(()));
                }
                State::Chunked(_) => {
                    if ready!(this.poll_more(context))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Start | State::Head => match this.poll_more(context)? {
                    Poll::Ready(0) if this.input.is_empty() => return Poll::Ready(Ok(())),
                    Poll::Ready(0) => this.fail(HeadFault::Malformed("it ends within its head")),
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        ready!(this.poll_late(context));
                        if this.input.is_empty() {
                            // An idle connection ends without a word.
                            return Poll::Ready(Ok(()));
                        }
                        this.fail(HeadFault::TimedOut);
                    }
                },
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for RequestGate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.note_written();
        Poll::Ready(Ok(written))
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
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, buffers))?;
        self.note_written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const TIME_MAX: Duration = Duration::from_secs(60);

    /// What passes of bytes that are sent in pieces.
    async fn pass(bytes: &[u8], piece: usize) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut gate = RequestGate::new(server, TIME_MAX);
        let sent = bytes.to_vec();
        let sender = async move {
            for piece in sent.chunks(piece) {
                // The reader may have gone after a fault.
                let _ = client.write_all(piece).await;
                tokio::task::yield_now().await;
            }
            let _ = client.shutdown().await;
        };
        let reader = async move {
            let mut arrived = Vec::new();
            let mut bytes = [0; 7];
            while !arrived.ends_with(FAULT_HEAD) {
                match gate.read(&mut bytes).await.unwrap() {
                    0 => break,
                    count => arrived.extend_from_slice(&bytes[..count]),
                }
            }
            arrived
        };
        tokio::join!(sender, reader).1
    }

    #[tokio::test]
    async fn every_target_of_a_connection_is_mended_and_no_body() {
        let raw = "GET /q?query=up{a=\"b\"} HTTP/1.1\r\nx: {}\r\n\r\n";
        let mended = "GET /q?query=up%7Ba=%22b%22%7D HTTP/1.1\r\nx: {}\r\n\r\n";
        let form = "POST /{ HTTP/1.1\r\ncontent-length: 13\r\n\r\nGET {} HTTP/1\r\n";
        let sent_form = "POST /%7B HTTP/1.1\r\ncontent-length: 13\r\n\r\nGET {} HTTP/1";
        let chunks =
            "POST /| HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;a=b\r\nGET {\r\n0\r\nt: {\r\n\r\n";
        let sent_chunks = chunks.replacen("/|", "/%7C", 1);
        let sent = [raw, form, raw, chunks, raw, raw].concat();
        let want = [mended, sent_form, mended, &sent_chunks, mended, mended].concat();
        for piece in [1, 3, 50, 10_000] {
            let arrived = pass(sent.as_bytes(), piece).await;
            assert_eq!(String::from_utf8_lossy(&arrived), want, "{piece}");
        }
    }

    #[tokio::test]
    async fn other_protocols_pass_untouched() {
        for piece in [1, 3, 1_000] {
            for bytes in [
                &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{\"\n\n"[..],
                b"GET / HTTP/1.1\r\nupgrade: x\r\n\r\nGET /{ HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\ntransfer-encoding: odd\r\n\r\nGET /{ HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nno number\r\nGET /{ HTTP/1.1\r\n\r\n",
                b"",
            ] {
                assert_eq!(pass(bytes, piece).await, bytes);
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_replaced_and_ends_the_connection() {
        let fine = "GET / HTTP/1.1\r\n\r\n";
        for piece in [1, 1_000] {
            for bad in [
                "nonsense\r\n\r\n",
                "GET / HTTP/1.1\r\nbroken\r\n\r\n",
                "GET / HT",
                "PRI * HTTP/2.0\r\n\r\nXX",
            ] {
                let sent = [fine, bad, fine].concat();
                let want = [fine.as_bytes(), FAULT_HEAD].concat();
                let end = sent.len() - if bad.ends_with('\n') { 0 } else { fine.len() };
                assert_eq!(pass(&sent.as_bytes()[..end], piece).await, want, "{bad}");
            }
        }
        let endless = vec![b'{'; 3 * request_head::HEAD_BYTES_MAX];
        assert_eq!(pass(&endless, 50_000).await, FAULT_HEAD);
    }

    #[tokio::test]
    async fn a_connection_is_not_idle_while_an_answer_is_awaited() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let mut gate = RequestGate::new(server, Duration::from_millis(1));
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut bytes = [0; 100];
        assert!(gate.read(&mut bytes).await.unwrap() > 0);
        let early = tokio::time::timeout(Duration::from_millis(50), gate.read(&mut bytes)).await;
        assert!(early.is_err(), "taken for ended before it was answered");
        gate.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        assert_eq!(gate.read(&mut bytes).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_slow_head_is_told_so_and_an_idle_connection_just_ends() {
        let (mut client, server) = tokio::io::duplex(1 << 10);
        let soon = Duration::from_millis(1);
        let mut gate = RequestGate::new(server, soon);
        let faults = gate.faults();
        client.write_all(b"GET / HTTP").await.unwrap();
        let mut bytes = [0; 100];
        let count = gate.read(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..count], FAULT_HEAD);
        let request = Request::builder().method(FAULT_METHOD).body(()).unwrap();
        assert_eq!(faults.answer(&request).unwrap().status(), 408);
        assert!(faults.answer(&Request::new(())).is_none());

        let (_client, server) = tokio::io::duplex(1 << 10);
        assert_eq!(RequestGate::new(server, soon).read(&mut bytes).await.unwrap(), 0);
    }
}
