//! `pharos.v1.Ingest`: ticks of agents in, acknowledgements of what is durable out.
//!
//! A connection is two tasks. One reads messages and appends ticks in the order they come; the other
//! waits for their commits and acknowledges. Between them lies a bounded queue, so many ticks share one
//! `fsync`. A peer that breaks the protocol ends its stream with a status that says how, and nothing else.

use super::appender::Appender;
use super::rate_limit::RateLimits;
use super::stream_groups::StreamFault;
use super::stream_hints::HintBook;
use super::stream_registry::{About, StreamEntry, StreamRegistry, Turn};
use crate::limits::{
    RATE_WAIT_MAX, STREAM_HEAD_TIME_MAX, STREAM_HELLO_TIME_MAX, STREAM_MESSAGE_BYTES_MAX,
    STREAM_REPLIES_QUEUED_MAX, STREAM_ROOM_TIME_MAX, STREAM_TICKS_IN_FLIGHT_MAX,
};
use crate::metrics::Metrics;
use pharos_common::clock::SharedClock;
use pharos_common::shutdown::Shutdown;
use pharos_proto::v1::ingest_server::{Ingest, IngestServer};
use pharos_proto::v1::{self, agent_message, collector_message};
use pharos_tsdb::{CommitNumber, Lane, StreamId, StreamMark, TsdbError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// Length of a node's name that is taken.
const NODE_NAME_BYTES_MAX: usize = 253;

type Replies = mpsc::Sender<Result<v1::CollectorMessage, Status>>;

/// The gRPC service.
#[derive(Clone)]
pub struct IngestService {
    appender: Appender,
    registry: StreamRegistry,
    rates: RateLimits,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
}

impl IngestService {
    /// Puts it together. `shutdown` ends all streams once what they sent is acknowledged.
    pub fn new(
        appender: Appender,
        registry: StreamRegistry,
        rates: RateLimits,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Self {
        IngestService { appender, registry, rates, clock, metrics, shutdown }
    }

    /// The service as a gRPC server takes it.
    pub fn into_server(self) -> IngestServer<Self> {
        IngestServer::new(self).max_decoding_message_size(STREAM_MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type PushStream = ReceiverStream<Result<v1::CollectorMessage, Status>>;

    async fn push(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let (replies, outbound) = mpsc::channel(STREAM_REPLIES_QUEUED_MAX);
        let (greeted, welcomed) = oneshot::channel();
        let service = self.clone();
        tokio::spawn(async move {
            service.metrics.streams.inc();
            let outcome = service.converse(request.into_inner(), &replies, greeted).await;
            service.metrics.streams.dec();
            if let Err(status) = outcome {
                let code = format!("{:?}", status.code());
                service.metrics.streams_failed.with_label_values(&[code.as_str()]).inc();
                tracing::warn!(code, reason = status.message(), "Agent stream ended");
                let _ = replies.send(Err(status)).await;
            }
        });
        // An agent's Hello comes with the head of its request, so the Welcome can leave with the head of the answer:
        // one write less for each of the thousand that return after a restart.
        let _ = tokio::time::timeout(STREAM_HEAD_TIME_MAX, welcomed).await;
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// A tick that is stored and waits to be durable.
struct InFlight {
    lane: Lane,
    sequence: u64,
    commit: CommitNumber,
    samples: u64,
}

impl IngestService {
    async fn converse(
        &self,
        mut inbound: Streaming<v1::AgentMessage>,
        replies: &Replies,
        greeted: oneshot::Sender<()>,
    ) -> Result<(), Status> {
        let hello = tokio::time::timeout(STREAM_HELLO_TIME_MAX, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(agent_message::Message::Hello(hello)) = hello.and_then(|message| message.message) else {
            return Err(Status::invalid_argument("the first message of a stream is Hello"));
        };
        let (stream, about) = self.check_hello(hello)?;
        let entry = self.registry.entry(stream);
        let turn = entry
            .take_over()
            .await
            .ok_or_else(|| Status::unavailable("the older connection of this stream does not end"))?;
        tracing::info!(node = about.node, version = about.version, "Agent connected");
        entry.set_about(about);
        self.welcome(stream, &entry, replies).await?;
        drop(greeted);
        entry.groups.lock().await.begin_connection();

        let (in_flight, waiting) = mpsc::channel(STREAM_TICKS_IN_FLIGHT_MAX);
        let acknowledge = tokio::spawn(acknowledge(self.appender.clone(), waiting, replies.clone()));
        let outcome = self.read(&mut inbound, stream, &entry, &turn, in_flight, replies).await;
        // What was stored is acknowledged also when the stream ends, however it ends.
        let acknowledged = acknowledge.await.unwrap_or(Ok(()));
        drop(turn);
        tracing::info!(node = entry.about().node, "Agent disconnected");
        outcome.and(acknowledged)
    }

    fn check_hello(&self, hello: v1::Hello) -> Result<(StreamId, About), Status> {
        let stream: StreamId = hello
            .stream_id
            .as_ref()
            .try_into()
            .map_err(|_| Status::invalid_argument("Hello.stream_id is not 16 bytes"))?;
        if hello.node.is_empty() || hello.node.len() > NODE_NAME_BYTES_MAX {
            return Err(Status::invalid_argument(format!("Hello.node has 1 to {NODE_NAME_BYTES_MAX} bytes")));
        }
        let version = super::stream_groups::shortened(&hello.version, 64).to_owned();
        Ok((stream, About { node: hello.node, version, spoke: self.clock.monotonic() }))
    }

    async fn welcome(&self, stream: StreamId, entry: &StreamEntry, replies: &Replies) -> Result<(), Status> {
        let database = self.appender.database();
        // Only this stream's own frames: when a thousand agents return at once, none waits for the syncs that
        // the others cause.
        let newest = entry.groups.lock().await.newest_commit();
        if let Some(commit) = newest {
            database.durable(commit).await.map_err(|error| storage_status(&error))?;
        }
        let (live_durable, backfill_durable) = database.stream_marks(&stream);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let welcome = v1::Welcome { version, live_durable, backfill_durable };
        send(replies, collector_message::Message::Welcome(welcome)).await
    }

    async fn read(
        &self,
        inbound: &mut Streaming<v1::AgentMessage>,
        stream: StreamId,
        entry: &StreamEntry,
        turn: &Turn,
        in_flight: mpsc::Sender<InFlight>,
        replies: &Replies,
    ) -> Result<(), Status> {
        let mut hints = HintBook::default();
        loop {
            let message = tokio::select! {
                biased;
                () = turn.taken_over() => return Err(Status::aborted("a newer connection of this stream took over")),
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the collector shuts down")),
                message = inbound.message() => message?,
            };
            let Some(message) = message else { return Ok(()) };
            let Some(message) = message.message else {
                return Err(Status::invalid_argument("an empty message"));
            };
            if let Some(stored) = self.take(message, stream, entry).await? {
                let (lane, samples) = (stored.lane, stored.samples);
                if in_flight.send(stored).await.is_err() {
                    // The acknowledging task ended; its status tells why.
                    return Ok(());
                }
                self.hold_back(entry, lane, samples, replies).await;
                if lane == Lane::Backfill {
                    self.wait_for_room(replies).await;
                }
            }
            self.hint(entry, &mut hints, replies).await;
        }
    }

    /// Slows an agent down that sends more than it may.
    async fn hold_back(&self, entry: &StreamEntry, lane: Lane, samples: u64, replies: &Replies) {
        if self.rates.is_off() {
            return;
        }
        let (node, now) = (entry.about().node, self.clock.monotonic());
        let backfill = lane == Lane::Backfill;
        let bucket = if backfill { format!("{node} (backfill)") } else { node };
        let Some(wait) = self.rates.charge(&bucket, samples, now) else { return };
        self.rates.note(&bucket, now);
        if backfill {
            let pause_backfill_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
            let reason = "more samples a second than permitted".to_owned();
            let is_told = throttle(replies, v1::Throttle { pause_backfill_ms, reason });
            if is_told && wait < RATE_WAIT_MAX {
                return;
            }
        }
        tokio::select! {
            () = self.clock.sleep(wait.min(RATE_WAIT_MAX)) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Slows an agent down that loads the past faster than it is written into blocks.
    async fn wait_for_room(&self, replies: &Replies) {
        let database = self.appender.database();
        if database.room(Duration::ZERO).await.is_ok() {
            return;
        }
        let pause_backfill_ms = STREAM_ROOM_TIME_MAX.as_millis() as u32;
        let reason = "the past comes faster than it is written into blocks".to_owned();
        throttle(replies, v1::Throttle { pause_backfill_ms, reason });
        tokio::select! {
            _ = database.room(STREAM_ROOM_TIME_MAX) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    /// Tells the agent which series came near a threshold or left it. What finds no room in the queue of
    /// replies follows later: hints are told again.
    async fn hint(&self, entry: &StreamEntry, book: &mut HintBook, replies: &Replies) {
        let Ok(permit) = replies.try_reserve() else { return };
        let hints = book.take(&*entry.groups.lock().await, self.clock.monotonic());
        if !hints.is_empty() {
            self.metrics.hints_sent.inc_by(hints.len() as u64);
            let message = collector_message::Message::Hints(v1::Hints { hints });
            permit.send(Ok(v1::CollectorMessage { message: Some(message) }));
        }
    }

    async fn take(
        &self,
        message: agent_message::Message,
        stream: StreamId,
        entry: &StreamEntry,
    ) -> Result<Option<InFlight>, Status> {
        let now = self.clock.monotonic();
        match message {
            agent_message::Message::Hello(_) => Err(Status::invalid_argument("a second Hello")),
            agent_message::Message::DefineGroup(define) => {
                let mut groups = entry.groups.lock().await;
                groups.define(&self.appender, define, now).await.map_err(|fault| status(&fault))?;
                Ok(None)
            }
            agent_message::Message::AlterGroup(alter) => {
                let mut groups = entry.groups.lock().await;
                groups.alter(&self.appender, alter, now).await.map_err(|fault| status(&fault))?;
                Ok(None)
            }
            agent_message::Message::Tick(tick) => self.store(tick, stream, entry, now).await.map(Some),
        }
    }

    async fn store(
        &self,
        tick: v1::Tick,
        stream: StreamId,
        entry: &StreamEntry,
        now: Duration,
    ) -> Result<InFlight, Status> {
        let lane = match v1::Lane::try_from(tick.lane) {
            Ok(v1::Lane::Live) => Lane::Live,
            Ok(v1::Lane::Backfill) => Lane::Backfill,
            Err(_) => return Err(Status::invalid_argument(format!("there is no lane {}", tick.lane))),
        };
        let sequence = tick.sequence;
        let mark = StreamMark { stream, lane, sequence };
        let mut groups = entry.groups.lock().await;
        let (appended, left_out) = groups
            .append(&self.appender, &tick.readings, mark, lane == Lane::Live, now)
            .await
            .map_err(|fault| status(&fault))?;
        drop(groups);
        if appended.repeated {
            self.metrics.frames_repeated.inc();
        } else {
            self.metrics.frames.inc();
        }
        if left_out > 0 {
            self.metrics.samples_refused.with_label_values(&["series_limit"]).inc_by(left_out as u64);
        }
        let commit = if appended.repeated { self.appender.database().last_commit() } else { appended.commit };
        Ok(InFlight { lane, sequence, commit, samples: appended.samples + appended.duplicates })
    }
}

/// Waits for commits in their order; one wait serves all ticks of the same commit.
async fn acknowledge(
    appender: Appender,
    mut waiting: mpsc::Receiver<InFlight>,
    replies: Replies,
) -> Result<(), Status> {
    // Of thousands of streams few ever have more than one.
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, STREAM_TICKS_IN_FLIGHT_MAX).await > 0 {
        let mut ready = batch.drain(..).peekable();
        while let Some(first) = ready.next() {
            // The agent sends on without waiting for this.
            let durable = appender.database().durable_unhurried(first.commit).await;
            durable.map_err(|error| storage_status(&error))?;
            let (mut live, mut backfill) = (None, None);
            let mut note = |tick: &InFlight| match tick.lane {
                Lane::Live => live = live.max(Some(tick.sequence)),
                Lane::Backfill => backfill = backfill.max(Some(tick.sequence)),
            };
            note(&first);
            while let Some(also) = ready.next_if(|tick| tick.commit <= first.commit) {
                note(&also);
            }
            for (lane, sequence) in [(v1::Lane::Live, live), (v1::Lane::Backfill, backfill)] {
                let Some(sequence) = sequence else { continue };
                let message = v1::Acknowledge { lane: lane.into(), sequence };
                send(&replies, collector_message::Message::Acknowledge(message)).await?;
            }
        }
    }
    Ok(())
}

/// Asks the agent to pause; `false` if too much waits to be sent to it.
fn throttle(replies: &Replies, throttle: v1::Throttle) -> bool {
    let message = v1::CollectorMessage { message: Some(collector_message::Message::Throttle(throttle)) };
    replies.try_send(Ok(message)).is_ok()
}

async fn send(replies: &Replies, message: collector_message::Message) -> Result<(), Status> {
    let message = v1::CollectorMessage { message: Some(message) };
    replies.send(Ok(message)).await.map_err(|_| Status::cancelled("the agent is gone"))
}

fn status(fault: &StreamFault) -> Status {
    match fault {
        StreamFault::Storage(error) => storage_status(error),
        StreamFault::Undefined(_) => Status::failed_precondition(fault.to_string()),
        StreamFault::Definition { .. } | StreamFault::Labels { .. } | StreamFault::Reading { .. } => {
            Status::invalid_argument(fault.to_string())
        }
    }
}

fn storage_status(error: &TsdbError) -> Status {
    match error {
        TsdbError::RowWidth { .. } | TsdbError::GroupWidth(_) => Status::invalid_argument(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}
