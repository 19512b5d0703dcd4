//! What flows to the collector on one connection: `Hello`, then frames of both lanes, each behind the
//! definitions that it needs. Live frames go first whenever there are any.

use super::codec::Wire;
use crate::directory::{Definition, DefinitionSet, change_message};
use crate::doorbell::Listener;
use crate::spool::{BackfillFrame, LiveFrame};
use bytes::Bytes;
use pharos_proto::v1::agent_message::Message;
use pharos_proto::v1::{AgentMessage, Hello, Lane};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

/// A frame of the backfill lane.
#[derive(Debug)]
pub(super) struct OutgoingFrame {
    sequence: u64,
    definitions: Arc<DefinitionSet>,
    readings: Bytes,
}

impl From<BackfillFrame> for OutgoingFrame {
    fn from(frame: BackfillFrame) -> Self {
        let BackfillFrame { sequence, definitions, readings } = frame;
        OutgoingFrame { sequence, definitions, readings }
    }
}

impl From<LiveFrame> for OutgoingFrame {
    fn from(frame: LiveFrame) -> Self {
        let LiveFrame { sequence, definitions, readings } = frame;
        OutgoingFrame { sequence, definitions, readings }
    }
}

/// The stream of messages.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: VecDeque<Wire>,
    /// Rings when live frames are to leave.
    bell: Listener,
    /// Whether it has rung since there was no live frame.
    rung: bool,
    live: mpsc::Receiver<LiveFrame>,
    backfill: mpsc::Receiver<OutgoingFrame>,
    backfill_open: bool,
    defined: Defined,
}

impl Outgoing {
    pub(super) fn new(
        hello: Hello,
        bell: Listener,
        live: mpsc::Receiver<LiveFrame>,
        backfill: mpsc::Receiver<OutgoingFrame>,
    ) -> Self {
        let queue = VecDeque::from([Wire::Message(AgentMessage { message: Some(Message::Hello(hello)) })]);
        let defined = Defined::default();
        Outgoing { queue, bell, rung: false, live, backfill, backfill_open: true, defined }
    }

    fn enqueue(&mut self, lane: Lane, frame: OutgoingFrame) {
        self.defined.update(&frame.definitions, &mut self.queue);
        let OutgoingFrame { sequence, readings, .. } = frame;
        self.queue.push_back(Wire::Frame { lane, sequence, readings });
    }

    /// The next message; `None` once the spool has let go of this connection, or nobody can be told of frames.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Wire>> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Poll::Ready(Some(message));
            }
            if self.rung {
                match self.live.try_recv() {
                    Ok(frame) => {
                        self.enqueue(Lane::Live, frame.into());
                        continue;
                    }
                    Err(TryRecvError::Disconnected) => return Poll::Ready(None),
                    Err(TryRecvError::Empty) => self.rung = false,
                }
            }
            match self.bell.poll_rung(context) {
                Poll::Ready(Ok(())) => {
                    self.rung = true;
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    tracing::error!(%error, "The push cannot hear of frames");
                    return Poll::Ready(None);
                }
                Poll::Pending => {}
            }
            if !self.backfill_open {
                return Poll::Pending;
            }
            match self.backfill.poll_recv(context) {
                Poll::Ready(Some(frame)) => self.enqueue(Lane::Backfill, frame),
                Poll::Ready(None) => self.backfill_open = false,
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// What the collector holds for each group at this point of the stream.
#[derive(Debug, Default)]
struct Defined {
    groups: HashMap<u32, Arc<Definition>>,
    last: Option<Arc<DefinitionSet>>,
}

impl Defined {
    /// Queues what brings the collector to `wanted`.
    fn update(&mut self, wanted: &Arc<DefinitionSet>, queue: &mut VecDeque<Wire>) {
        if self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, wanted)) {
            return;
        }
        for definition in &wanted.definitions {
            let known = self.groups.get(&definition.group());
            if known.is_some_and(|known| known.message == definition.message) {
                continue;
            }
            let message = change_message(known.map(|known| &**known), definition);
            queue.push_back(Wire::Message(AgentMessage { message: Some(message) }));
            self.groups.insert(definition.group(), Arc::clone(definition));
        }
        self.last = Some(Arc::clone(wanted));
    }
}
