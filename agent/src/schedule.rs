//! The scheduler: gives every sampler its ticks and turns readings into frames.
//!
//! One thread runs the samplers that never wait, one after another; those that may hang run on a [`lane`]
//! beside it, which can be abandoned. Each sampler's [`pace`] says how fast it reads: on the grid that its
//! series are promised on, faster while a value moves or the collector hints at it (the samples in between
//! go to `<name>:fast`), slower where the CPU [`budget`] demands it. What a tick has read goes out as one
//! frame, a little later on each node, so that a thousand nodes do not push in the same moment.

mod budget;
mod lane;
mod lanes;
mod pace;
mod plan;
mod rate;
mod runner;
mod scrape;
mod shared;
mod task;
mod trend;

pub use pace::Reason;
pub use plan::{Control, Plan, PlannedSampler};
pub use rate::{Adaptive, Rate};
pub use shared::Shared;

use crate::clock_watch::ClockWatch;
use crate::frame::FrameDraft;
use crate::kernel_files::ReadBuffer;
use crate::sampler::SamplerKind;
use crate::spool::SpoolHandle;
use budget::{Candidate, Verdict};
use lanes::Lanes;
use pharos_common::sample::TimestampMs;
pub(crate) use runner::CpuClock;
use scrape::ScrapeGroup;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use task::Task;

/// Longest sleep, so that a clock that was set back does not silence the agent, and what no collector has
/// acknowledged is looked after.
const MAX_WAIT_MS: i64 = 5_000;
/// Time that a frame waits for readings which may hang; what comes later goes into the next.
const GATHER_TIME_MAX: Duration = Duration::from_millis(50);
/// Readings between grid points wait no longer for a grid point, if no threshold is near.
const FRAME_WAIT_MS_MAX: i64 = 1_000;
/// Processor time is looked at on one tick in this many: a look is a system call.
const TICKS_PER_MEASUREMENT: u64 = 8;
/// An alert that stays asks for the recording once in this time.
const DUMP_INTERVAL: Duration = Duration::from_secs(60);

/// Runs samplers at their rates.
pub struct Scheduler {
    shared: Shared,
    /// Takes the frames; `None` in a plain exporter.
    spool: Option<SpoolHandle>,
    /// The samplers: first those that never wait, each kind in the order of their names.
    tasks: Vec<Task>,
    lanes: Lanes,
    buffer: ReadBuffer,
    scrape: ScrapeGroup,
    ticks: u64,
    clocks: ClockWatch,
    cpu_budget: Option<f64>,
    window_start: Duration,
    cpu_at_start: Duration,
    /// Processor time of the scheduler's own thread; not what a caller of [`Scheduler::tick`] does besides.
    cpu_own: Duration,
    push_delay: Duration,
    last_dump: Option<Duration>,
    /// What has been read and not handed over, and since when.
    frame: Option<(TimestampMs, FrameDraft)>,
}

impl Scheduler {
    /// A scheduler that runs `plan`.
    pub fn new(plan: &Plan, shared: Shared, spool: Option<SpoolHandle>) -> Self {
        let window_start = shared.clock.monotonic();
        let clocks = ClockWatch::new(shared.clock.now_ms(), window_start);
        let mut scheduler = Scheduler {
            shared,
            spool,
            tasks: Vec::new(),
            lanes: Lanes::default(),
            buffer: ReadBuffer::default(),
            scrape: ScrapeGroup::default(),
            ticks: 0,
            clocks,
            cpu_budget: plan.cpu_budget,
            window_start,
            cpu_at_start: Duration::ZERO,
            cpu_own: Duration::ZERO,
            push_delay: plan.push_delay,
            last_dump: None,
            frame: None,
        };
        scheduler.reconfigure(plan);
        scheduler
    }

    /// Runs until told to stop. Blocks, so it wants a thread.
    pub fn run(mut self, control: &Receiver<Control>) {
        self.cpu_at_start = self.cpu();
        let clock = CpuClock::start();
        loop {
            let wait = self.time_to_next_turn();
            match control.recv_timeout(wait) {
                Ok(Control::Reconfigure(plan)) => self.reconfigure(&plan),
                Ok(Control::Hints) => self.take_hints(),
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.send_frame(Duration::ZERO);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => self.turn(),
            }
            self.cpu_own = clock.elapsed();
        }
    }

    /// Takes all readings that are due now and sends them off as one frame.
    pub fn tick(&mut self) {
        // The caller's thread has other work, which the budget must not charge to the samplers.
        let clock = CpuClock::start();
        self.read_due();
        self.gather(GATHER_TIME_MAX);
        self.take_frame();
        self.send_frame(Duration::ZERO);
        self.cpu_own += clock.elapsed();
    }

    fn turn(&mut self) {
        let on_grid = self.read_due();
        self.gather(GATHER_TIME_MAX);
        self.take_frame();
        if self.is_urgent() {
            self.send_frame(Duration::ZERO);
        } else if on_grid || self.frame_is_late() {
            self.send_frame(self.push_delay);
        }
        if let Some(spool) = &self.spool {
            spool.tend();
        }
    }

    /// Takes the readings that are due, starts those that may hang; whether any was on its grid.
    fn read_due(&mut self) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.clocks.look(now_ms, self.shared.clock.monotonic(), &self.shared.metrics);
        self.lanes.take_home(&mut self.tasks, &self.shared);
        self.lanes.tend(&mut self.tasks, &self.shared);
        let (mut on_grid, mut ran) = (false, false);
        let measure = self.ticks.is_multiple_of(TICKS_PER_MEASUREMENT);
        // Those that may hang come first, so that they work beside the others.
        for task in self.tasks.iter_mut().filter(|task| task.kind.may_block) {
            let Some((mut runner, order)) = task.begin(now_ms, measure, &self.shared) else { continue };
            on_grid |= order.on_grid;
            if runner.may_hang() {
                self.lanes.send(task, runner, order);
            } else {
                ran |= order.on_grid;
                task.read_here(runner, order, &mut self.buffer, &self.shared);
            }
        }
        self.lanes.wake();
        for task in self.tasks.iter_mut().filter(|task| !task.kind.may_block) {
            let Some((runner, order)) = task.begin(now_ms, measure, &self.shared) else { continue };
            ran |= order.on_grid;
            task.read_here(runner, order, &mut self.buffer, &self.shared);
        }
        if ran {
            self.scrape.publish(&self.shared, self.grid_ms());
        }
        if ran || on_grid {
            self.ticks += 1;
        }
        self.mind_the_budget();
        self.repace(now_ms);
        ran || on_grid
    }

    /// Waits a little for the readings that may hang.
    fn gather(&mut self, time: Duration) {
        self.lanes.wait(time);
        if self.lanes.take_home(&mut self.tasks, &self.shared) {
            self.repace(self.shared.clock.now_ms());
        }
    }

    /// Takes what is new into the frame that leaves next.
    fn take_frame(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let expired = self.shared.board.expire(now_ms);
        if expired > 0 {
            self.shared.metrics.expired.inc_by(expired);
        }
        if self.spool.is_none() {
            return;
        }
        let Some(draft) = self.shared.board.collect() else { return };
        match &mut self.frame {
            Some((_, frame)) if Arc::ptr_eq(&frame.definitions, &draft.definitions) => frame.join(&draft),
            _ => {
                // Another shape of the groups is another frame.
                self.send_frame(Duration::ZERO);
                self.frame = Some((now_ms, draft));
            }
        }
    }

    /// Whether a series is near a threshold: then a reading between grid points leaves at once. Where a value
    /// only moves, these wait for the grid's, for a frame costs more than a reading does.
    fn is_urgent(&self) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.tasks.iter().any(|task| task.pace.urgency(now_ms) == Some(Reason::Hint))
    }

    fn frame_is_late(&self) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.frame.as_ref().is_some_and(|(since_ms, _)| now_ms - since_ms >= FRAME_WAIT_MS_MAX)
    }

    /// Hands the frame over, to leave after `delay`.
    fn send_frame(&mut self, delay: Duration) {
        let Some(spool) = &self.spool else { return };
        if let Some((_, frame)) = self.frame.take() {
            // What is lost because the journal is too far behind is counted there.
            spool.append(frame, self.shared.board.next_group(), delay);
        }
    }

    /// Gives every sampler the interval that it deserves now.
    fn repace(&mut self, now_ms: TimestampMs) {
        for task in &mut self.tasks {
            task.repace(now_ms, &self.shared);
        }
    }

    fn take_hints(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let mut dump = false;
        for hint in self.shared.hints.take() {
            let Some((slot, group)) = self.shared.board.locate(hint.group) else { continue };
            if let Some(task) = self.tasks.iter_mut().find(|task| task.slot == slot) {
                task.pace.hint(group, hint.urgency, hint.valid_ms, now_ms);
            }
            dump |= hint.urgency >= 1.0;
        }
        self.repace(now_ms);
        let now = self.shared.clock.monotonic();
        let due = self.last_dump.is_none_or(|last| now.saturating_sub(last) >= DUMP_INTERVAL);
        if dump
            && due
            && let Some(spool) = &self.spool
        {
            self.last_dump = Some(now);
            self.shared.recorder.dump(&self.shared.board, spool, &self.shared.metrics);
        }
    }

    fn mind_the_budget(&mut self) {
        let now = self.shared.clock.monotonic();
        let window = now.saturating_sub(self.window_start);
        if window < budget::WINDOW {
            return;
        }
        let cpu = self.cpu();
        let used = cpu.saturating_sub(self.cpu_at_start).as_secs_f64() / window.as_secs_f64();
        (self.window_start, self.cpu_at_start) = (now, cpu);
        self.shared.metrics.cpu_used.set(used);
        self.shared.metrics.cpu_budget.set(self.cpu_budget.unwrap_or(0.0));
        let now_ms = self.shared.clock.now_ms();
        let candidates: Vec<Candidate> = self.tasks.iter_mut().map(|task| task.candidate(now_ms)).collect();
        let Some(limit) = self.cpu_budget else { return };
        let (at, change): (usize, fn(&mut Task)) = match budget::decide(used, limit, &candidates) {
            Verdict::Keep => return,
            Verdict::DenyFast(at) => (at, |task| task.pace.deny_fast(true)),
            Verdict::AllowFast(at) => (at, |task| task.pace.deny_fast(false)),
            Verdict::Slow(at) => (at, |task| task.pace.set_stretch(task.pace.stretch() * 2)),
            Verdict::Restore(at) => (at, |task| task.pace.set_stretch(task.pace.stretch() / 2)),
        };
        if let Some(task) = self.tasks.get_mut(at) {
            change(task);
            tracing::info!(sampler = task.kind.name, used, budget = limit, "The CPU budget changes a rate");
        }
    }

    /// Processor time of sampling and journal so far.
    fn cpu(&self) -> Duration {
        let journal = self.spool.as_ref().map_or(Duration::ZERO, SpoolHandle::cpu);
        self.cpu_own + self.lanes.cpu() + journal
    }

    /// Moves to another plan: samplers that stay keep their open files, those that go end their series.
    pub fn reconfigure(&mut self, plan: &Plan) {
        let now_ms = self.shared.clock.now_ms();
        self.cpu_budget = plan.cpu_budget;
        self.push_delay = plan.push_delay;
        self.shared.recorder.configure(&plan.recorder);
        let wanted = |kind: &SamplerKind| plan.samplers.iter().find(|planned| planned.kind.name == kind.name);
        for mut task in std::mem::take(&mut self.tasks) {
            match wanted(task.kind) {
                Some(planned) => {
                    task.pace.set_rate(planned.rate);
                    self.tasks.push(task);
                }
                None => task.end(&self.shared),
            }
        }
        for planned in &plan.samplers {
            if self.tasks.iter().all(|task| task.kind.name != planned.kind.name) {
                self.tasks.push(Task::new(*planned, &plan.options, now_ms));
            }
            self.shared.statuses.update(planned.kind.name, |status| {
                status.own_thread = planned.kind.may_block;
            });
        }
        self.tasks.sort_by_key(|task| (task.kind.may_block, task.kind.name));
        self.shared.statuses.retain(|name| plan.samplers.iter().any(|planned| planned.kind.name == name));
        self.lanes.start(&self.tasks, &self.shared);
        self.repace(now_ms);
    }

    fn time_to_next_turn(&self) -> Duration {
        let next = self.tasks.iter().map(|task| task.due.at_ms).min().unwrap_or(TimestampMs::MAX);
        let wait_ms = next.saturating_sub(self.shared.clock.now_ms()).clamp(0, MAX_WAIT_MS);
        let wait = Duration::from_millis(wait_ms as u64);
        self.lanes.look_again_in().map_or(wait, |look| wait.min(look))
    }

    /// The shortest grid: that of the group that tells how samplers fared.
    fn grid_ms(&self) -> u32 {
        let hot = self.tasks.iter().filter(|task| !task.kind.may_block);
        hot.map(|task| task.decision.grid_ms).min().unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests;
