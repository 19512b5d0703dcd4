//! A request's body that has to come: a sender that stalls, or drips a byte now and then, is given up.
//!
//! Wraps the body as it comes from the connection and hands it on unchanged; once its sender was too slow it ends
//! with [`BodyTooSlow`], so that whatever a handler holds meanwhile is free again. Costs nothing while bytes come
//! faster than they are read. Streams of gRPC, which live as long as their peers, are not wrapped.

use bytes::Buf;
use hyper::body::{Body, Frame, SizeHint};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// How fast a request's body has to come.
#[derive(Clone, Copy, Debug)]
pub struct BodyPace {
    /// The sender is looked at so often while it is waited for.
    pub window: Duration,
    /// Bytes that have to come in a window.
    pub bytes_per_window_min: u64,
    /// Time for a whole body, from the first time that it is waited for.
    pub time_max: Duration,
}

impl Default for BodyPace {
    /// A modem keeps this pace; the largest body that is taken comes in time over any network of a data centre.
    fn default() -> Self {
        BodyPace {
            window: Duration::from_secs(10),
            bytes_per_window_min: 16 << 10,
            time_max: Duration::from_secs(120),
        }
    }
}

/// A body did not come as fast as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body comes too slowly")]
pub struct BodyTooSlow;

impl BodyTooSlow {
    /// Whether this is what ended a body, under whatever names the error was handed on.
    pub fn caused(error: &(dyn Error + 'static)) -> bool {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.is::<BodyTooSlow>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct PacedBody<B> {
    body: B,
    pace: BodyPace,
    /// Since somebody waits for the sender.
    waiting: Option<Waiting>,
    /// When the whole body must be there, once it was waited for.
    deadline: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    window_ends: Pin<Box<Sleep>>,
    /// Bytes that came in this window.
    bytes: u64,
}

impl<B> PacedBody<B> {
    pub(super) fn new(body: B, pace: BodyPace) -> Self {
        PacedBody { body, pace, waiting: None, deadline: None }
    }

    /// Notes that bytes came.
    fn came(&mut self, bytes: u64) {
        if let Some(waiting) = &mut self.waiting {
            waiting.bytes = waiting.bytes.saturating_add(bytes);
            if waiting.bytes >= self.pace.bytes_per_window_min {
                self.waiting = None;
            }
        }
    }

    /// Ready when the sender was too slow. Called while nothing is there to be read.
    fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let pace = self.pace;
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + pace.time_max);
        let waiting = self.waiting.get_or_insert_with(|| {
            let window_ends = deadline.min(Instant::now() + pace.window);
            Waiting { window_ends: Box::pin(sleep_until(window_ends)), bytes: 0 }
        });
        // A window in which enough comes is ended by that.
        waiting.window_ends.as_mut().poll(context)
    }
}

impl<B> Body for PacedBody<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(frame) => {
                if let Some(Ok(frame)) = &frame {
                    let bytes = frame.data_ref().map_or(0, |data| Buf::remaining(data) as u64);
                    self.came(bytes);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => self.poll_too_slow(context).map(|()| Some(Err(BodyTooSlow.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Semaphore;

    /// Reads the body with the server's only place in hand.
    async fn handle(State(places): State<Arc<Semaphore>>, body: axum::body::Body) -> (StatusCode, String) {
        let Ok(_place) = places.try_acquire() else {
            return (StatusCode::SERVICE_UNAVAILABLE, String::new());
        };
        match axum::body::to_bytes(body, usize::MAX).await {
            Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
            Err(error) => (StatusCode::REQUEST_TIMEOUT, BodyTooSlow::caused(&error).to_string()),
        }
    }

    async fn start(pace: BodyPace) -> (String, Arc<Semaphore>) {
        let places = Arc::new(Semaphore::new(1));
        let app = Router::new().route("/", post(handle)).with_state(Arc::clone(&places));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let limits = super::super::ServerLimits { body_pace: pace, ..super::super::ServerLimits::default() };
        tokio::spawn(super::super::serve(listener, app, None, limits, crate::shutdown::Shutdown::new()));
        (address, places)
    }

    async fn answer(mut connection: TcpStream) -> String {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_gives_its_place_back() {
        let pace = BodyPace { window: Duration::from_millis(20), ..BodyPace::default() };
        let (address, places) = start(pace).await;
        for begun in ["", "some of it"] {
            let mut idle = TcpStream::connect(&address).await.unwrap();
            let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n";
            idle.write_all(format!("{head}{begun}").as_bytes()).await.unwrap();
            let answer = answer(idle).await;
            assert!(answer.starts_with("HTTP/1.1 408") && answer.ends_with("true"), "{answer}");
            assert_eq!(places.available_permits(), 1);
        }
    }

    #[tokio::test]
    async fn a_body_that_never_ends_gives_its_place_back() {
        let pace = BodyPace { time_max: Duration::from_millis(50), ..BodyPace::default() };
        let (address, places) = start(pace).await;
        let mut sender = TcpStream::connect(&address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
        sender.write_all(head.as_bytes()).await.unwrap();
        // Enough for every window, until nobody takes it any more.
        let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
        while sender.write_all(chunk.as_bytes()).await.is_ok() {}
        let _place = places.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_read_whole_whatever_lies_between_them() {
        let pace = BodyPace { bytes_per_window_min: 1, ..BodyPace::default() };
        let (address, _) = start(pace).await;
        let mut sender = TcpStream::connect(&address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100\r\n\r\n";
        sender.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..100 {
            sender.write_all(b"x").await.unwrap();
            tokio::task::yield_now().await;
        }
        let answer = answer(sender).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("100"), "{answer}");
    }
}
