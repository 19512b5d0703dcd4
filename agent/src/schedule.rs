//! The scheduler: gives every sampler its ticks and turns readings into frames.
//!
//! One thread runs the samplers that never wait, one after another; those that may hang run on a [`lane`]
//! beside it, which can be abandoned. Each sampler's [`pace`] says how fast it reads: on the grid that its
//! series are promised on, faster while a value moves or the collector hints at it (the samples in between
//! go to `<name>:fast`), slower where the CPU [`budget`] demands it. What a tick has read goes out as one
//! frame, a little later on each node, so that a thousand nodes do not push in the same moment.

mod budget;
mod lane;
mod pace;
mod rate;
mod runner;
mod scrape;
mod task;
mod trend;

pub use pace::Reason;
pub use rate::{Adaptive, Rate};

use crate::board::Board;
use crate::clock_watch::ClockWatch;
use crate::hints::HintInbox;
use crate::kernel_files::ReadBuffer;
use crate::own_metrics::OwnMetrics;
use crate::recorder::{Recorder, RecorderPlan};
use crate::sampler::{SamplerKind, SamplerOptions};
use crate::spool::SpoolHandle;
use crate::status::SamplerStatuses;
use budget::{Candidate, Verdict};
use lane::{Finished, Job, Lane};
use pharos_common::clock::SharedClock;
use pharos_common::sample::TimestampMs;
pub(crate) use runner::CpuClock;
use scrape::ScrapeGroup;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use task::Task;

/// What runs, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The samplers that are switched on.
    pub samplers: Vec<PlannedSampler>,
    /// Options of all samplers.
    pub options: SamplerOptions,
    /// Share of one core that sampling and journal may use; `None` sets no limit.
    pub cpu_budget: Option<f64>,
    /// Time between reading and sending, which spreads the nodes of a cluster.
    pub push_delay: Duration,
    /// What the flight recorder keeps.
    pub recorder: RecorderPlan,
}

/// One sampler of a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlannedSampler {
    /// Which.
    pub kind: &'static SamplerKind,
    /// How often it may read.
    pub rate: Rate,
}

/// What the scheduler's owner tells it.
#[derive(Debug)]
pub enum Control {
    /// Run this from now on.
    Reconfigure(Box<Plan>),
    /// Hints of the collector lie in the inbox.
    Hints,
    /// Take no more readings.
    Stop,
}

/// What the scheduler's parts share.
#[derive(Clone)]
pub struct Shared {
    /// Where readings are shown.
    pub board: Arc<Board>,
    /// Where each sampler's fate is noted.
    pub statuses: Arc<SamplerStatuses>,
    /// Metrics about the agent.
    pub metrics: OwnMetrics,
    /// The time.
    pub clock: SharedClock,
    /// Where hints of the collector arrive.
    pub hints: Arc<HintInbox>,
    /// The last minute, finely.
    pub recorder: Arc<Recorder>,
}

impl Shared {
    /// What a scheduler on this board and clock needs.
    pub fn new(board: Board, metrics: OwnMetrics, clock: SharedClock) -> Self {
        Shared {
            board: Arc::new(board),
            statuses: Arc::default(),
            metrics,
            clock,
            hints: Arc::default(),
            recorder: Arc::default(),
        }
    }
}

/// Longest sleep, so that a clock that was set back does not silence the agent.
const MAX_WAIT_MS: i64 = 10_000;
/// Time that a frame waits for readings which may hang; what comes later goes into the next.
const GATHER_TIME_MAX: Duration = Duration::from_millis(50);
/// A reading on a shared lane that takes longer than this is left alone there.
const LANE_TIME_MAX: Duration = Duration::from_millis(250);
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
    /// Threads for readings that may hang. The first is shared; the others are left to one sampler each.
    lanes: Vec<(u64, Lane)>,
    next_lane: u64,
    finished: Vec<Finished>,
    buffer: ReadBuffer,
    scrape: ScrapeGroup,
    ticks: u64,
    clocks: ClockWatch,
    cpu_budget: Option<f64>,
    window_start: Duration,
    cpu_at_start: Duration,
    /// Processor time of the scheduler's own thread; not what a caller of [`Scheduler::tick`] does besides.
    cpu_own: Duration,
    /// Processor time of lanes that are no more.
    cpu_ended: Duration,
    push_delay: Duration,
    last_dump: Option<Duration>,
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
            lanes: Vec::new(),
            next_lane: 0,
            finished: Vec::new(),
            buffer: ReadBuffer::default(),
            scrape: ScrapeGroup::default(),
            ticks: 0,
            clocks,
            cpu_budget: plan.cpu_budget,
            window_start,
            cpu_at_start: Duration::ZERO,
            cpu_own: Duration::ZERO,
            cpu_ended: Duration::ZERO,
            push_delay: plan.push_delay,
            last_dump: None,
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
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => return,
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
        self.send_frame();
        self.cpu_own += clock.elapsed();
    }

    fn turn(&mut self) {
        let on_grid = self.read_due();
        // Frames between grid points are urgent, and few nodes send them.
        if on_grid && self.spool.is_some() && !self.push_delay.is_zero() {
            std::thread::sleep(self.push_delay);
        }
        self.gather(GATHER_TIME_MAX.saturating_sub(self.push_delay));
        self.send_frame();
    }

    /// Takes the readings that are due, starts those that may hang; whether any was on its grid.
    fn read_due(&mut self) -> bool {
        let now_ms = self.shared.clock.now_ms();
        self.clocks.look(now_ms, self.shared.clock.monotonic(), &self.shared.metrics);
        self.take_home();
        self.end_idle_lanes();
        self.leave_hanging_lanes();
        let mut on_grid = false;
        let measure = self.ticks.is_multiple_of(TICKS_PER_MEASUREMENT);
        for task in self.tasks.iter_mut().filter(|task| task.kind.may_block) {
            let Some((runner, order)) = task.begin(now_ms, measure, &self.shared) else { continue };
            on_grid |= order.on_grid;
            let lane = task.lane.and_then(|of| self.lanes.iter().find(|(number, _)| *number == of));
            match lane.or(self.lanes.first()) {
                Some((number, lane)) => {
                    lane.send(Job { runner, order, weight: task.readings_unmeasured });
                    task.lane = Some(*number);
                }
                None => task.come_home(runner),
            }
        }
        self.lanes.iter().for_each(|(_, lane)| lane.wake());
        let mut ran = false;
        for task in self.tasks.iter_mut().filter(|task| !task.kind.may_block) {
            let Some((mut runner, order)) = task.begin(now_ms, measure, &self.shared) else { continue };
            ran |= order.on_grid;
            let outcome = runner.run(&mut self.buffer, &self.shared, order);
            runner.report(&outcome, task.readings_unmeasured, &self.shared);
            task.observe(&runner, &outcome);
            task.come_home(runner);
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
        // Lanes that were left to one sampler are waited for by nobody, until its readings are short again.
        if let Some((_, lane)) = self.lanes.first() {
            lane.wait(time);
        }
        if self.take_home() {
            self.repace(self.shared.clock.now_ms());
        }
    }

    fn send_frame(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        let expired = self.shared.board.expire(now_ms);
        if expired > 0 {
            self.shared.metrics.expired.inc_by(expired);
        }
        if let Some(spool) = &self.spool
            && let Some(draft) = self.shared.board.collect()
        {
            // What is lost because the journal is too far behind is counted there.
            spool.append(draft, self.shared.board.next_group());
        }
    }

    /// Takes finished readings back; whether there were any.
    fn take_home(&mut self) -> bool {
        let mut finished = std::mem::take(&mut self.finished);
        for (_, lane) in &self.lanes {
            lane.take_home(&mut finished);
        }
        let any = !finished.is_empty();
        for Finished { mut runner, outcome } in finished.drain(..) {
            match self.tasks.iter_mut().find(|task| task.slot == runner.slot) {
                Some(task) if task.is_away() => {
                    task.observe(&runner, &outcome);
                    task.come_home(runner);
                    task.note_end_of_hang(&self.shared);
                    if outcome.duration < LANE_TIME_MAX {
                        // Back to the shared lane, for on its own the readings would come a frame late.
                        task.lane = None;
                    }
                }
                // It was switched off and on again meanwhile; the series are its successor's.
                Some(_) => {}
                None => {
                    runner.end(&self.shared);
                    self.shared.statuses.retain(|name| name != runner.kind.name);
                }
            }
        }
        self.finished = finished;
        any
    }

    /// Leaves a lane to the sampler whose reading hangs there; the others move to a new one.
    fn leave_hanging_lanes(&mut self) {
        let Some((number, lane)) = self.lanes.first() else { return };
        let Some((slot, since)) = lane.running() else { return };
        let due_again = |task: &Task| task.due.at_ms <= self.shared.clock.now_ms();
        let hangs = since >= LANE_TIME_MAX
            || self.tasks.iter().any(|task| task.slot == slot && task.is_away() && due_again(task));
        if !hangs {
            return;
        }
        let (number, behind) = (*number, lane.take_back());
        let fresh = match Lane::start(self.shared.clone()) {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::error!(%error, "Cannot start a thread for samplers that may hang");
                behind.into_iter().for_each(|job| lane.send(job));
                return;
            }
        };
        behind.into_iter().for_each(|job| fresh.send(job));
        fresh.wake();
        self.next_lane += 1;
        for task in self.tasks.iter_mut().filter(|task| task.lane == Some(number) && task.slot != slot) {
            task.lane = Some(self.next_lane);
        }
        self.lanes.insert(0, (self.next_lane, fresh));
    }

    /// Ends the lanes, other than the shared one, on which no sampler reads any more.
    fn end_idle_lanes(&mut self) {
        let Some(shared) = self.lanes.first().map(|(number, _)| *number) else { return };
        let (tasks, cpu_ended) = (&self.tasks, &mut self.cpu_ended);
        self.lanes.retain(|(number, lane)| {
            let is_needed =
                *number == shared || tasks.iter().any(|task| task.lane == Some(*number)) || !lane.is_empty();
            if !is_needed {
                *cpu_ended += lane.cpu();
            }
            is_needed
        });
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
        let lanes: Duration = self.lanes.iter().map(|(_, lane)| lane.cpu()).sum();
        let journal = self.spool.as_ref().map_or(Duration::ZERO, SpoolHandle::cpu);
        self.cpu_own + self.cpu_ended + lanes + journal
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
        if self.lanes.is_empty() && self.tasks.iter().any(|task| task.kind.may_block) {
            match Lane::start(self.shared.clone()) {
                Ok(lane) => self.lanes.push((self.next_lane, lane)),
                Err(error) => {
                    tracing::error!(%error, "Cannot start the thread of the samplers that may hang");
                }
            }
        }
        self.repace(now_ms);
    }

    fn time_to_next_turn(&self) -> Duration {
        let next = self.tasks.iter().map(|task| task.due.at_ms).min().unwrap_or(TimestampMs::MAX);
        let wait_ms = next.saturating_sub(self.shared.clock.now_ms()).clamp(0, MAX_WAIT_MS);
        let wait = Duration::from_millis(wait_ms as u64);
        // A lane at work is looked after, so that what waits behind a reading that hangs waits little.
        match self.lanes.first().and_then(|(_, lane)| lane.running()) {
            Some((_, since)) => wait.min(LANE_TIME_MAX.saturating_sub(since) + Duration::from_millis(1)),
            None => wait,
        }
    }

    /// The shortest grid: that of the group that tells how samplers fared.
    fn grid_ms(&self) -> u32 {
        let hot = self.tasks.iter().filter(|task| !task.kind.may_block);
        hot.map(|task| task.decision.grid_ms).min().unwrap_or(1_000)
    }
}

#[cfg(test)]
mod tests;
