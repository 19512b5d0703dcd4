//! A lane: one thread that takes the readings which may hang, one after another.
//!
//! Jobs flow in, finished jobs flow out, each with its sampler. A lane whose reading hangs is left to that
//! sampler alone; the scheduler takes the jobs behind it back ([`Lane::take_back`]) and gives them to
//! another lane. Nothing here ever waits for a reading for longer than it is told.

use super::Shared;
use super::runner::{CpuClock, Order, Outcome, Runner};
use crate::kernel_files::ReadBuffer;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Samplers keep little on the stack; a node may have several threads that wait for ever.
const STACK_BYTES: usize = 512 << 10;

/// A reading to take.
pub(super) struct Job {
    pub(super) runner: Runner,
    pub(super) order: Order,
    /// Readings that a measured cost stands for.
    pub(super) weight: u32,
}

/// A reading that was taken.
pub(super) struct Finished {
    pub(super) runner: Runner,
    pub(super) outcome: Outcome,
}

/// The scheduler's end of the thread.
pub(super) struct Lane {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    work: Condvar,
    rest: Condvar,
    /// Processor time that the thread has used, nanoseconds.
    cpu_nanos: AtomicU64,
}

#[derive(Default)]
struct State {
    /// At most one a sampler.
    jobs: VecDeque<Job>,
    running: Option<(usize, Instant)>,
    home: Vec<Finished>,
    closed: bool,
}

impl Lane {
    pub(super) fn start(shared: Shared) -> io::Result<Self> {
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            work: Condvar::new(),
            rest: Condvar::new(),
            cpu_nanos: AtomicU64::new(0),
        });
        let thread = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("pharos-lane".into())
            .stack_size(STACK_BYTES)
            .spawn(move || thread.work_off(&shared))?;
        Ok(Lane { inner })
    }

    pub(super) fn send(&self, job: Job) {
        self.inner.lock().jobs.push_back(job);
    }

    /// Lets the thread begin with what was sent, if anything was.
    pub(super) fn wake(&self) {
        if !self.inner.lock().jobs.is_empty() {
            self.inner.work.notify_one();
        }
    }

    /// Waits until all jobs are done, or for `time`.
    pub(super) fn wait(&self, time: Duration) {
        let state = self.inner.lock();
        let busy = |state: &mut State| state.running.is_some() || !state.jobs.is_empty();
        let _ = self.inner.rest.wait_timeout_while(state, time, busy).map_err(PoisonError::into_inner);
    }

    pub(super) fn take_home(&self, into: &mut Vec<Finished>) {
        into.append(&mut self.inner.lock().home);
    }

    /// The sampler (by slot) whose reading goes on now, and for how long it has.
    pub(super) fn running(&self) -> Option<(usize, Duration)> {
        self.inner.lock().running.map(|(slot, since)| (slot, since.elapsed()))
    }

    /// Takes back the jobs that have not begun.
    pub(super) fn take_back(&self) -> VecDeque<Job> {
        std::mem::take(&mut self.inner.lock().jobs)
    }

    /// Whether it has nothing to do and nothing to give back.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.inner.lock();
        state.running.is_none() && state.jobs.is_empty() && state.home.is_empty()
    }

    pub(super) fn cpu(&self) -> Duration {
        Duration::from_nanos(self.inner.cpu_nanos.load(Ordering::Relaxed))
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A thread that hangs ends when the call does.
        self.inner.lock().closed = true;
        self.inner.work.notify_one();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_off(&self, shared: &Shared) {
        let mut buffer = ReadBuffer::default();
        let mut state = self.lock();
        loop {
            let Some(mut job) = state.jobs.pop_front() else {
                self.rest.notify_one();
                if state.closed {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running = Some((job.runner.slot, Instant::now()));
            drop(state);
            let outcome = job.runner.run(&mut buffer, shared, job.order);
            if job.order.measure {
                self.cpu_nanos.store(CpuClock::now().as_nanos() as u64, Ordering::Relaxed);
            }
            state = self.lock();
            state.running = None;
            // Whoever sees the reading counted finds the sampler at home, too.
            job.runner.report(&outcome, job.weight, shared);
            state.home.push(Finished { runner: job.runner, outcome });
        }
    }
}
