//! A sampler with a thread of its own, because its readings may hang.

use super::{CpuClock, Due, Runner, Shared, note_missed};
use crate::kernel_files::ReadBuffer;
use crate::sampler::SamplerKind;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Instant;

/// Samplers keep little on the stack; a node may have several threads that wait for ever.
const STACK_BYTES: usize = 512 << 10;

/// Ticks that are skipped after a reading that found nothing: waking a thread costs more than most readings.
const IDLE_TICKS: u32 = 9;

/// The scheduler's end of such a thread.
pub(super) struct Worker {
    pub(super) kind: &'static SamplerKind,
    pub(super) due: Due,
    orders: SyncSender<Order>,
    busy: Arc<AtomicBool>,
    /// Set by a reading that found nothing: no GPU, no sensors.
    idle: Arc<AtomicBool>,
    ticks_to_skip: u32,
    started: Instant,
    hung: bool,
}

enum Order {
    Read { interval_ms: u32 },
    End,
}

impl Worker {
    pub(super) fn start(mut runner: Runner, due: Due, shared: Shared) -> io::Result<Self> {
        let kind = runner.kind;
        let (orders, inbox) = sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let idle = Arc::new(AtomicBool::new(false));
        let (done, found_nothing) = (Arc::clone(&busy), Arc::clone(&idle));
        std::thread::Builder::new()
            .name(format!("pharos-{}", kind.name).chars().take(15).collect())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let mut buffer = ReadBuffer::default();
                while let Ok(order) = inbox.recv() {
                    match order {
                        Order::Read { interval_ms } => {
                            runner.run(&mut buffer, &shared, interval_ms, &mut CpuClock::start(), |idle| {
                                found_nothing.store(idle, Ordering::Relaxed);
                                done.store(false, Ordering::Release);
                            });
                        }
                        Order::End => return runner.end(&shared),
                    }
                }
            })?;
        Ok(Worker { kind, due, orders, busy, idle, ticks_to_skip: 0, started: Instant::now(), hung: false })
    }

    /// Triggers a reading if one is due (`missed` ticks late) and the last has ended; otherwise notes that
    /// it hangs. Never waits.
    pub(super) fn run_if_due(&mut self, missed: Option<u64>, shared: &Shared) {
        let Some(missed) = missed else { return };
        note_missed(shared, self.kind.name, missed);
        if self.busy.load(Ordering::Acquire) {
            note_missed(shared, self.kind.name, 1);
            let since = self.started.elapsed();
            if !self.hung {
                tracing::warn!(sampler = self.kind.name, ?since, "A reading hangs; the other samplers go on");
                shared.metrics.hung.with_label_values(&[self.kind.name]).set(1);
                self.hung = true;
            }
            shared.statuses.update(self.kind.name, |status| {
                status.hangs_for_seconds = Some(since.as_secs_f64());
                // Readings that never ended count as failed.
                status.readings = status.readings.max(1);
            });
            return;
        }
        if self.idle.load(Ordering::Relaxed) && self.ticks_to_skip > 0 {
            self.ticks_to_skip -= 1;
            return;
        }
        self.ticks_to_skip = IDLE_TICKS;
        if self.hung {
            tracing::info!(sampler = self.kind.name, "The reading that hung has ended");
            shared.metrics.hung.with_label_values(&[self.kind.name]).set(0);
            shared.statuses.update(self.kind.name, |status| status.hangs_for_seconds = None);
            self.hung = false;
        }
        self.busy.store(true, Ordering::Release);
        self.started = Instant::now();
        if self.orders.try_send(Order::Read { interval_ms: self.due.interval_ms }).is_err() {
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Ends the sampler's series, once it is not busy.
    pub(super) fn end(self) {
        // A thread that hangs ends when its channel closes behind the hanging call.
        let _ = self.orders.try_send(Order::End);
    }
}
