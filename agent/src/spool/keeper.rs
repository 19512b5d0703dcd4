//! Lets samplers and network talk to the ledger at any moment, and runs the writer on a thread of its own.
//!
//! The ledger lies behind a lock that nobody holds over a file operation or a wait. What is to be written
//! goes to the writer's thread through a bounded queue, in the order of its sequences: orders are queued
//! while the ledger is locked. A disk that hangs fills the queue; then frames are no longer journalled, which
//! is counted if it costs them, and still go out live.

use super::backfill::BackfillFrame;
use super::ledger::{Ledger, LiveFrame, Unwritten};
use super::open::Opened;
use super::writer::{Found, Writer};
use super::{STREAM_ID_BYTES, SpoolLimits};
use crate::doorbell::Doorbell;
use crate::frame::FrameDraft;
use crate::own_metrics::LossReason;
use crate::schedule::CpuClock;
use pharos_common::clock::SharedClock;
use pharos_proto::v1::Lane;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// Orders that wait for the thread: four minutes of frames at one a second, and at 5 kB a frame a megabyte.
const ORDERS_MAX: usize = 256;
/// Between attempts to read a journal that failed.
const READ_RETRY: Duration = Duration::from_secs(1);
/// Bytes of frames read at a time, so that fresh frames wait little for the journal's thread.
const BATCH_BYTES: usize = 256 << 10;
/// A connection on which nothing in flight is acknowledged for so long is given up.
pub const ACKNOWLEDGE_TIME_MAX: Duration = Duration::from_secs(30);
/// Time that the end of the agent waits for a disk that hangs.
const SYNC_TIME_MAX: Duration = Duration::from_secs(5);

enum Order {
    Write(Unwritten),
    Assign(Vec<(u64, u64)>),
    Backfill { reply: oneshot::Sender<Vec<BackfillFrame>> },
    SetAside { sequence: u64 },
    Limits(SpoolLimits),
    Sync { done: oneshot::Sender<()> },
}

/// The way to the spool. The thread ends when all handles are gone.
#[derive(Clone, Debug)]
pub struct SpoolHandle {
    ledger: Arc<Mutex<Ledger>>,
    orders: mpsc::Sender<Order>,
    /// Whether there is something for the backfill lane.
    backfill_ready: Arc<watch::Sender<bool>>,
    /// Rings when live frames are to leave.
    bell: Arc<Doorbell>,
    /// Tells the push that its connection takes nothing.
    stalled: Arc<Notify>,
    /// Tells the push that a frame could not leave.
    kept: Arc<Notify>,
    stream_id: [u8; STREAM_ID_BYTES],
    clock: SharedClockDebug,
    cpu_nanos: Arc<AtomicU64>,
}

/// A clock that can stand in a struct with `Debug`.
#[derive(Clone)]
struct SharedClockDebug(SharedClock);

impl std::fmt::Debug for SharedClockDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Starts the thread.
///
/// # Errors
/// If the system gives none, or no timer.
pub fn start(opened: Opened) -> io::Result<(SpoolHandle, std::thread::JoinHandle<()>)> {
    let Opened { ledger, mut writer, clock, stream_id, .. } = opened;
    let (orders, mut inbox) = mpsc::channel(ORDERS_MAX);
    let ready = Arc::new(watch::channel(ledger.backfill_ready()).0);
    let ledger = Arc::new(Mutex::new(ledger));
    let cpu_nanos = Arc::new(AtomicU64::new(0));
    let (shared, cpu) = (Arc::clone(&ledger), Arc::clone(&cpu_nanos));
    let show = Arc::clone(&ready);
    let thread = std::thread::Builder::new().name("pharos-journal".into()).spawn(move || {
        while let Some(order) = inbox.blocking_recv() {
            obey(&mut writer, &shared, order);
            show_ready(&show, &lock(&shared));
            cpu.store(CpuClock::now().as_nanos() as u64, Ordering::Relaxed);
        }
        // What still waited for its acknowledgement has lost its chance.
        let mut rest = Vec::new();
        lock(&shared).give_out(&mut rest);
        rest.into_iter().for_each(|unwritten| obey(&mut writer, &shared, Order::Write(unwritten)));
        writer.sync();
    })?;
    let (bell, stalled, kept) = (Arc::new(Doorbell::new()?), Arc::default(), Arc::default());
    let clock = SharedClockDebug(clock);
    let handle = SpoolHandle {
        ledger,
        orders,
        backfill_ready: ready,
        bell,
        stalled,
        kept,
        stream_id,
        clock,
        cpu_nanos,
    };
    Ok((handle, thread))
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show_ready(show: &watch::Sender<bool>, ledger: &Ledger) {
    let now = ledger.backfill_ready();
    show.send_if_modified(|ready| std::mem::replace(ready, now) != now);
}

/// Carries out an order. The ledger is locked only between file operations.
fn obey(writer: &mut Writer, ledger: &Mutex<Ledger>, order: Order) {
    // Whoever asked and went away does not need the answer.
    match order {
        Order::Write(unwritten) => {
            if !writer.write(&unwritten) {
                lock(ledger).not_written(unwritten.frame.sequence, LossReason::JournalFailed);
            }
            tidy(writer, ledger);
        }
        Order::Assign(ranges) => {
            writer.assign(&ranges);
            tidy(writer, ledger);
        }
        Order::Backfill { reply } => {
            let _ = reply.send(next_backfill(writer, ledger));
        }
        Order::SetAside { sequence } => writer.set_aside(sequence),
        Order::Limits(limits) => {
            writer.set_limits(limits);
            tidy(writer, ledger);
        }
        Order::Sync { done } => {
            writer.sync();
            tidy(writer, ledger);
            let _ = done.send(());
        }
    }
}

/// Frees what nobody needs and drops what is too much.
pub(super) fn tidy(writer: &mut Writer, ledger: &Mutex<Ledger>) {
    let lowest_needed = lock(ledger).lowest_needed();
    writer.free(lowest_needed);
    while let Some((last, reason)) = writer.enforce_limits() {
        lock(ledger).dropped_up_to(last, reason);
    }
}

/// The next frames for the backfill lane, in rising order; none if none may be sent now.
pub(super) fn next_backfill(writer: &mut Writer, ledger: &Mutex<Ledger>) -> Vec<BackfillFrame> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES {
        let wanted = {
            let ledger = lock(ledger);
            if !ledger.backfill_ready() {
                break;
            }
            ledger.next_pending()
        };
        let Some(wanted) = wanted else { break };
        match writer.read(wanted) {
            Ok(Found::Frame(frame)) => {
                let mut ledger = lock(ledger);
                // The connection, and with it the lane, may be another by now.
                if ledger.next_pending() != Some(wanted) {
                    break;
                }
                ledger.backfilled(frame.sequence, frame.readings.len());
                bytes += frame.readings.len();
                batch.push(frame);
            }
            Ok(Found::Missing(first, last)) => lock(ledger).missing(first, last),
            Ok(Found::NotYet) => break,
            Err(error) => {
                tracing::warn!(%error, "Cannot read the journal for backfill");
                break;
            }
        }
    }
    batch
}

impl SpoolHandle {
    /// The stream's identity.
    pub fn stream_id(&self) -> [u8; STREAM_ID_BYTES] {
        self.stream_id
    }

    /// Takes a fresh frame, which leaves live after `delay` if it can. Never waits; `false` if it should have
    /// gone to the journal and the journal's thread is too far behind.
    pub fn append(&self, draft: FrameDraft, next_group: u32, delay: Duration) -> bool {
        self.take(draft, next_group, Lane::Live, delay)
    }

    /// Takes a frame that is not fresh and must not delay those that are.
    pub fn append_backfill(&self, draft: FrameDraft, next_group: u32) -> bool {
        self.take(draft, next_group, Lane::Backfill, Duration::ZERO)
    }

    fn take(&self, draft: FrameDraft, next_group: u32, lane: Lane, delay: Duration) -> bool {
        let (mut out, now) = (Vec::new(), self.clock.0.monotonic());
        let mut ledger = self.lock();
        let is_live = ledger.append(draft, next_group, lane, now, now + delay, &mut out);
        let taken = self.write(&mut ledger, out);
        drop(ledger);
        if is_live {
            self.bell.ring_in(delay);
        } else {
            self.kept.notify_one();
        }
        taken
    }

    /// Processor time that the journal's thread has used.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(self.cpu_nanos.load(Ordering::Relaxed))
    }

    /// Tells what a collector has, and where fresh frames go from now on.
    pub fn connected(&self, live_durable: u64, backfill_durable: u64, live: mpsc::Sender<LiveFrame>) {
        let mut out = Vec::new();
        let mut ledger = self.lock();
        // Frames are in the journal before a record there speaks of them.
        ledger.give_out(&mut out);
        self.write(&mut ledger, out);
        let assigned = ledger.connected(live_durable, backfill_durable, live);
        if !assigned.is_empty() {
            // Without this record an agent that is killed later looks at these frames as in doubt, which
            // the next connection settles as well.
            let _ = self.orders.try_send(Order::Assign(assigned));
        }
        show_ready(&self.backfill_ready, &ledger);
    }

    /// Tells that the connection is gone.
    pub fn disconnected(&self) {
        let mut out = Vec::new();
        let mut ledger = self.lock();
        ledger.disconnected(&mut out);
        self.write(&mut ledger, out);
        show_ready(&self.backfill_ready, &ledger);
    }

    /// Tells what is durable.
    pub fn acknowledged(&self, lane: Lane, sequence: u64) {
        let mut ledger = self.lock();
        ledger.acknowledged(lane, sequence);
        show_ready(&self.backfill_ready, &ledger);
    }

    /// Tells that the collector ended the stream because of what it got. A frame that is to blame is set
    /// aside, so that the others get through.
    pub fn refused(&self) {
        let culprit = self.lock().refused();
        if let Some(sequence) = culprit {
            let _ = self.orders.try_send(Order::SetAside { sequence });
        }
    }

    /// Looks after what the collector has not acknowledged in time: writes it, and after a while tells the push
    /// that this collector takes nothing. Called every few seconds by who is awake anyway.
    pub fn tend(&self) {
        let (mut out, now) = (Vec::new(), self.clock.0.monotonic());
        let mut ledger = self.lock();
        ledger.give_out_overdue(now, &mut out);
        self.write(&mut ledger, out);
        if self.stalls(&ledger, now) {
            self.stalled.notify_one();
        }
    }

    fn stalls(&self, ledger: &Ledger, now: Duration) -> bool {
        ledger.is_connected()
            && ledger.oldest_in_flight(now).is_some_and(|waited| waited >= ACKNOWLEDGE_TIME_MAX)
    }

    /// Waits until nothing that is in flight has been acknowledged for [`ACKNOWLEDGE_TIME_MAX`].
    pub async fn until_stalled(&self) {
        loop {
            self.stalled.notified().await;
            // It may have been told of the connection before.
            if self.stalls(&self.lock(), self.clock.0.monotonic()) {
                return;
            }
        }
    }

    /// Waits until there is a frame that no collector has made durable.
    pub async fn until_outstanding(&self) {
        while self.outstanding() == 0 {
            self.kept.notified().await;
        }
    }

    /// Live frames without acknowledgement.
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight()
    }

    /// Rings when live frames are to leave.
    pub fn bell(&self) -> Arc<Doorbell> {
        Arc::clone(&self.bell)
    }

    /// Frames that no collector has made durable yet.
    pub fn outstanding(&self) -> u64 {
        self.lock().outstanding()
    }

    /// The next frames to backfill. Waits a little if there are none although there should be.
    pub async fn backfill(&self) -> Vec<BackfillFrame> {
        let (reply, answer) = oneshot::channel();
        // The thread ends after the last handle, so it is there.
        let _ = self.orders.send(Order::Backfill { reply }).await;
        let frames = answer.await.unwrap_or_default();
        if frames.is_empty() && *self.backfill_ready.borrow() {
            tokio::time::sleep(READ_RETRY).await;
        }
        frames
    }

    /// Waits until there is something to backfill.
    pub async fn until_backfill(&self) {
        // The sender lives in `self`.
        let _ = self.backfill_ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Changes the journal's bounds.
    pub async fn set_limits(&self, limits: SpoolLimits) {
        let _ = self.orders.send(Order::Limits(limits)).await;
    }

    /// Waits until everything handed over so far is in the journal, safe from a power cut; not longer than a
    /// healthy disk takes.
    pub async fn sync(&self) {
        let (done, wait) = oneshot::channel();
        let work = async {
            let _ = self.orders.send(Order::Sync { done }).await;
            let _ = wait.await;
        };
        if tokio::time::timeout(SYNC_TIME_MAX, work).await.is_err() {
            tracing::warn!("The journal's disk does not answer");
        }
    }

    /// Queues frames for the writer, with the ledger locked so that their order is kept.
    fn write(&self, ledger: &mut Ledger, frames: Vec<Unwritten>) -> bool {
        let mut taken = true;
        for unwritten in frames {
            let sequence = unwritten.frame.sequence;
            if self.orders.try_send(Order::Write(unwritten)).is_err() {
                ledger.not_written(sequence, LossReason::JournalBusy);
                taken = false;
            }
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}
