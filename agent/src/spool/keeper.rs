//! Runs a [`Spool`] on a thread of its own, so that neither sampling nor the network ever waits for a disk.

use super::{BackfillFrame, LiveFrame, STREAM_ID_BYTES, Spool, SpoolLimits};
use crate::frame::FrameDraft;
use crate::schedule::CpuClock;
use pharos_proto::v1::Lane;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Orders that wait for the thread. A disk that hangs for longer than this many ticks costs frames.
const ORDERS_MAX: usize = 256;
/// Between attempts to read a journal that failed.
const READ_RETRY: Duration = Duration::from_secs(1);

/// Processor time is looked at on one order in this many: a look is a system call.
const ORDERS_PER_MEASUREMENT: u64 = 8;

/// What a connection needs to know of the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolView {
    /// Whether there is something to send on the backfill lane now.
    pub backfill_ready: bool,
    /// Frames that no collector has made durable.
    pub outstanding: u64,
    /// Live frames without acknowledgement.
    pub in_flight: usize,
}

enum Order {
    Append {
        draft: FrameDraft,
        next_group: u32,
        lane: Lane,
    },
    Connected {
        live_durable: u64,
        backfill_durable: u64,
        live: mpsc::Sender<LiveFrame>,
        done: oneshot::Sender<()>,
    },
    Disconnected,
    Acknowledged {
        lane: Lane,
        sequence: u64,
    },
    Backfill {
        reply: oneshot::Sender<Vec<BackfillFrame>>,
    },
    Limits(SpoolLimits),
    Sync {
        done: oneshot::Sender<()>,
    },
}

/// The way to the spool's thread. The thread ends when all handles are gone.
#[derive(Clone, Debug)]
pub struct SpoolHandle {
    orders: mpsc::Sender<Order>,
    view: watch::Receiver<SpoolView>,
    stream_id: [u8; STREAM_ID_BYTES],
    cpu_nanos: Arc<AtomicU64>,
}

/// Starts the thread.
///
/// # Errors
/// If the system gives none.
pub fn start(mut spool: Spool) -> io::Result<(SpoolHandle, std::thread::JoinHandle<()>)> {
    let (orders, mut inbox) = mpsc::channel(ORDERS_MAX);
    let (show, view) = watch::channel(view_of(&spool));
    let stream_id = spool.stream_id();
    let cpu_nanos = Arc::new(AtomicU64::new(0));
    let cpu = Arc::clone(&cpu_nanos);
    let thread = std::thread::Builder::new().name("pharos-journal".into()).spawn(move || {
        let mut orders = 0u64;
        while let Some(order) = inbox.blocking_recv() {
            obey(&mut spool, order);
            orders += 1;
            if orders.is_multiple_of(ORDERS_PER_MEASUREMENT) {
                cpu.store(CpuClock::now().as_nanos() as u64, Ordering::Relaxed);
            }
            let now = view_of(&spool);
            show.send_if_modified(|view| std::mem::replace(view, now) != now);
        }
        spool.sync();
    })?;
    Ok((SpoolHandle { orders, view, stream_id, cpu_nanos }, thread))
}

fn view_of(spool: &Spool) -> SpoolView {
    SpoolView {
        backfill_ready: spool.backfill_ready(),
        outstanding: spool.outstanding(),
        in_flight: spool.in_flight(),
    }
}

fn obey(spool: &mut Spool, order: Order) {
    // Whoever asked and went away does not need the answer.
    match order {
        Order::Append { draft, next_group, lane } => spool.append(draft, next_group, lane),
        Order::Connected { live_durable, backfill_durable, live, done } => {
            spool.connected(live_durable, backfill_durable, live);
            let _ = done.send(());
        }
        Order::Disconnected => spool.disconnected(),
        Order::Acknowledged { lane, sequence } => spool.acknowledged(lane, sequence),
        Order::Backfill { reply } => {
            let frames = spool.next_backfill().unwrap_or_else(|error| {
                tracing::warn!(%error, "Cannot read the journal for backfill");
                Vec::new()
            });
            let _ = reply.send(frames);
        }
        Order::Limits(limits) => spool.set_limits(limits),
        Order::Sync { done } => {
            spool.sync();
            let _ = done.send(());
        }
    }
}

impl SpoolHandle {
    /// The stream's identity.
    pub fn stream_id(&self) -> [u8; STREAM_ID_BYTES] {
        self.stream_id
    }

    /// Hands a frame over; `false` if the thread is too far behind to take it. Never waits.
    pub fn append(&self, draft: FrameDraft, next_group: u32) -> bool {
        self.orders.try_send(Order::Append { draft, next_group, lane: Lane::Live }).is_ok()
    }

    /// Hands a frame over that is not fresh and must not delay those that are. Waits until the thread
    /// takes it, so it is nothing for a thread that samples.
    pub fn append_backfill(&self, draft: FrameDraft, next_group: u32) -> bool {
        self.orders.try_send(Order::Append { draft, next_group, lane: Lane::Backfill }).is_ok()
    }

    /// Processor time that the thread has used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(Ordering::Relaxed))
    }

    /// Tells what a collector has, and where fresh frames go from now on.
    pub async fn connected(&self, live_durable: u64, backfill_durable: u64, live: mpsc::Sender<LiveFrame>) {
        let (done, wait) = oneshot::channel();
        self.send(Order::Connected { live_durable, backfill_durable, live, done }).await;
        let _ = wait.await;
    }

    /// Tells that the connection is gone.
    pub async fn disconnected(&self) {
        self.send(Order::Disconnected).await;
    }

    /// Tells what is durable.
    pub async fn acknowledged(&self, lane: Lane, sequence: u64) {
        self.send(Order::Acknowledged { lane, sequence }).await;
    }

    /// The next frames to backfill. Waits a little if there are none although there should be.
    pub async fn backfill(&self) -> Vec<BackfillFrame> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Backfill { reply }).await;
        let frames = answer.await.unwrap_or_default();
        if frames.is_empty() && self.view.borrow().backfill_ready {
            tokio::time::sleep(READ_RETRY).await;
        }
        frames
    }

    /// Changes the journal's bounds.
    pub async fn set_limits(&self, limits: SpoolLimits) {
        self.send(Order::Limits(limits)).await;
    }

    /// Waits until everything handed over so far is in the journal, safe from a power cut.
    pub async fn sync(&self) {
        let (done, wait) = oneshot::channel();
        self.send(Order::Sync { done }).await;
        let _ = wait.await;
    }

    /// The spool as it is now, and its changes.
    pub fn view(&self) -> watch::Receiver<SpoolView> {
        self.view.clone()
    }

    async fn send(&self, order: Order) {
        // The thread ends after the last handle, so it is there.
        let _ = self.orders.send(order).await;
    }
}
