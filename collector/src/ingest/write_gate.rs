//! How much of the writes by HTTP is in memory at once: requests, bytes of their bodies, and what is made of them.
//!
//! A write passes three doors. Its body is charged as it comes, so whoever sends slowly holds no more than he has
//! sent. When it is there the write takes one of the places; when there is none the sender is asked to come back.
//! Then it waits for one of the few desks, at which bodies are decompressed and parsed, many times their size: there
//! are as many as processors.

use super::http_write::WriteRefusal;
use crate::limits::{
    WRITE_BODIES_BYTES_MAX, WRITE_BODY_BYTES_MAX, WRITE_ON_RUNTIME_BYTES_MAX, WRITES_AT_ONCE_MAX,
};
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use pharos_common::server::BodyTooSlow;
use std::future::Future;
use std::num::NonZero;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies are charged by kilobytes: a semaphore counts no further than 32 bits allow.
const CHARGED_BY: usize = 1 << 10;

/// See the module's documentation. Clones share it.
#[derive(Clone, Debug)]
pub struct WriteGate {
    bytes: Arc<Semaphore>,
    places: Arc<Semaphore>,
    desks: Arc<Semaphore>,
}

impl Default for WriteGate {
    fn default() -> Self {
        let desks = std::thread::available_parallelism().map_or(2, NonZero::get).max(2);
        WriteGate {
            bytes: Arc::new(Semaphore::new(WRITE_BODIES_BYTES_MAX / CHARGED_BY)),
            places: Arc::new(Semaphore::new(WRITES_AT_ONCE_MAX)),
            desks: Arc::new(Semaphore::new(desks)),
        }
    }
}

/// A body that is there whole. Its bytes are charged, and its place taken, until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// The body.
    pub body: Bytes,
    _bytes: Option<OwnedSemaphorePermit>,
    _place: OwnedSemaphorePermit,
}

impl WriteGate {
    /// Reads a body whole and takes a place for it.
    ///
    /// # Errors
    /// If it is too large, breaks off, or comes too slowly, or there is no room for it now.
    pub async fn admit(&self, mut body: Body) -> Result<Admitted, WriteRefusal> {
        let too_large =
            || WriteRefusal::TooLarge(format!("the body is larger than {WRITE_BODY_BYTES_MAX} bytes"));
        // What says so itself need not come first.
        if body.size_hint().lower() > WRITE_BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        let mut whole = BytesMut::new();
        let mut only = None;
        let (mut length, mut charged) = (0, None);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match BodyTooSlow::caused(&error) {
                // Not 408: senders drop what is answered that.
                true => WriteRefusal::Unavailable(BodyTooSlow.to_string()),
                false => WriteRefusal::Bad(format!("the body broke off: {error}")),
            })?;
            let Ok(data) = frame.into_data() else { continue };
            length += data.len();
            if length > WRITE_BODY_BYTES_MAX {
                return Err(too_large());
            }
            self.charge(&mut charged, length)?;
            // Most bodies come in one piece, which is taken as it is.
            match only.take() {
                None if whole.is_empty() => only = Some(data),
                first => {
                    if let Some(first) = first {
                        whole.extend_from_slice(&first);
                    }
                    whole.extend_from_slice(&data);
                }
            }
        }
        let body = only.unwrap_or_else(|| whole.freeze());
        let place = Arc::clone(&self.places).try_acquire_owned();
        // Not 429: Prometheus drops what is answered that unless it is told otherwise.
        let place = place.map_err(|_| WriteRefusal::Unavailable("too many writes at once".to_owned()))?;
        Ok(Admitted { body, _bytes: charged, _place: place })
    }

    fn charge(&self, charged: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), WriteRefusal> {
        let held = charged.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.div_ceil(CHARGED_BY).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.bytes)
            .try_acquire_many_owned(more)
            .map_err(|_| WriteRefusal::Unavailable("too many bytes of writes at once".to_owned()))?;
        match charged {
            Some(held) => held.merge(more),
            None => *charged = Some(more),
        }
        Ok(())
    }

    /// Does what a body of this length asks for, at a desk; a large one off the runtime's threads, which answer
    /// queries and judge rules meanwhile.
    ///
    /// # Errors
    /// What the work says.
    pub async fn work<T: Send + 'static>(
        &self,
        body_bytes: usize,
        work: impl Future<Output = Result<T, WriteRefusal>> + Send + 'static,
    ) -> Result<T, WriteRefusal> {
        let ended = |_| WriteRefusal::Unavailable("the collector shuts down".to_owned());
        let desk = Arc::clone(&self.desks).acquire_owned().await.map_err(ended)?;
        if body_bytes <= WRITE_ON_RUNTIME_BYTES_MAX {
            let outcome = work.await;
            drop(desk);
            return outcome;
        }
        let runtime = tokio::runtime::Handle::current();
        let working = tokio::task::spawn_blocking(move || {
            let _desk = desk;
            runtime.block_on(work)
        });
        working.await.map_err(|error| WriteRefusal::Unavailable(error.to_string()))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::mpsc;
    use std::time::Duration;

    fn status(refusal: WriteRefusal) -> u16 {
        let metrics = crate::metrics::Metrics::register(&prometheus::Registry::new()).unwrap();
        refusal.into_response(&metrics).status().as_u16()
    }

    /// A body in pieces.
    fn pieces(pieces: &[usize]) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|&bytes| Ok::<_, Infallible>(vec![b'x'; bytes])).collect();
        Body::from_stream(tokio_stream::iter(pieces))
    }

    #[tokio::test]
    async fn a_body_comes_back_as_it_was_sent_and_its_room_is_free_behind_it() {
        let gate = WriteGate::default();
        for parts in [&[][..], &[10], &[1, 2, 3], &[4_000, 0, 5_000]] {
            let admitted = gate.admit(pieces(parts)).await.unwrap();
            assert_eq!(admitted.body.len(), parts.iter().sum::<usize>());
            let charged = WRITE_BODIES_BYTES_MAX / CHARGED_BY - gate.bytes.available_permits();
            assert_eq!(charged, admitted.body.len().div_ceil(CHARGED_BY));
            drop(admitted);
            assert_eq!(gate.bytes.available_permits(), WRITE_BODIES_BYTES_MAX / CHARGED_BY);
            assert_eq!(gate.places.available_permits(), WRITES_AT_ONCE_MAX);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_told_so_before_it_is_there() {
        let gate = WriteGate::default();
        let endless = tokio_stream::iter(std::iter::repeat_with(|| Ok::<_, Infallible>(vec![0; 1 << 20])));
        assert_eq!(status(gate.admit(Body::from_stream(endless)).await.unwrap_err()), 413);
        assert_eq!(gate.bytes.available_permits(), WRITE_BODIES_BYTES_MAX / CHARGED_BY);
    }

    #[tokio::test]
    async fn writes_at_once_are_as_many_as_there_are_places() {
        let gate = WriteGate::default();
        let mut held = Vec::new();
        for _ in 0..WRITES_AT_ONCE_MAX {
            held.push(gate.admit(pieces(&[1])).await.unwrap());
        }
        assert_eq!(status(gate.admit(pieces(&[1])).await.unwrap_err()), 503);
        held.pop();
        gate.admit(pieces(&[1])).await.unwrap();
    }

    #[tokio::test]
    async fn bytes_of_bodies_at_once_are_bounded_also_of_those_that_are_not_there_yet() {
        let gate = WriteGate::default();
        let mut coming = Vec::new();
        for _ in 0..WRITE_BODIES_BYTES_MAX / WRITE_BODY_BYTES_MAX {
            let (sender, stream) = tokio::sync::mpsc::channel(1);
            let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
            let (body, gate) = (Body::from_stream(stream), gate.clone());
            let reading = tokio::spawn(async move { gate.admit(body).await.map(drop) });
            sender.send(Ok::<_, Infallible>(vec![0; WRITE_BODY_BYTES_MAX])).await.unwrap();
            coming.push((sender, reading));
        }
        while gate.bytes.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(status(gate.admit(pieces(&[1])).await.unwrap_err()), 503);
        for (sender, reading) in coming {
            drop(sender);
            reading.await.unwrap().unwrap();
        }
        gate.admit(pieces(&[1])).await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_to_be_sent_again() {
        let body = Body::from_stream(tokio_stream::iter([Ok("x"), Err(BodyTooSlow)]));
        assert_eq!(status(WriteGate::default().admit(body).await.unwrap_err()), 503);
        let body = Body::from_stream(tokio_stream::iter([Ok("x"), Err(std::io::Error::other("gone"))]));
        assert_eq!(status(WriteGate::default().admit(body).await.unwrap_err()), 400);
    }

    /// Far longer than anything takes: only a test that fails waits for it.
    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn the_runtime_goes_on_while_a_large_write_is_worked_on() {
        let gate = WriteGate::default();
        let (sender, receiver) = mpsc::channel();
        // On this runtime's only thread nobody could send meanwhile.
        let work = async move {
            receiver.recv_timeout(PATIENCE).map_err(|error| WriteRefusal::Bad(error.to_string()))
        };
        let working = tokio::spawn({
            let gate = gate.clone();
            async move { gate.work(WRITE_ON_RUNTIME_BYTES_MAX + 1, work).await }
        });
        let mut small = 0;
        while gate.desks.available_permits() == std::thread::available_parallelism().unwrap().get().max(2) {
            tokio::task::yield_now().await;
        }
        while small < 10 {
            let here = std::thread::current().id();
            let work = async { Ok(std::thread::current().id()) };
            assert_eq!(gate.work(100, work).await.unwrap(), here);
            small += 1;
        }
        sender.send(small).unwrap();
        assert_eq!(working.await.unwrap().unwrap(), 10);
    }
}
