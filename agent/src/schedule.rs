//! The scheduler: gives every sampler its ticks and turns readings into frames.
//!
//! One thread runs the samplers that never wait, one after another; a sampler that may hang has a thread of
//! its own, which the scheduler only triggers. Ticks lie on the wall clock's grid (every second on the
//! second), so they do not drift and all nodes sample at the same moments.

mod worker;

use crate::board::Board;
use crate::error::SampleError;
use crate::frame::FrameDraft;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::own_metrics::{LossReason, OwnMetrics};
use crate::sampler::{SAMPLERS, Sampler, SamplerKind, SamplerOptions};
use crate::spool::SpoolHandle;
use crate::status::{SamplerStatuses, seconds};
use pharos_common::clock::SharedClock;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use worker::Worker;

/// What runs, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The samplers that are switched on.
    pub samplers: Vec<PlannedSampler>,
    /// Options of all samplers.
    pub options: SamplerOptions,
}

/// One sampler of a plan. Adaptive rates will have their place beside `interval_ms`.
#[derive(Clone, Copy, Debug)]
pub struct PlannedSampler {
    /// Which.
    pub kind: &'static SamplerKind,
    /// Milliseconds from reading to reading.
    pub interval_ms: u32,
}

/// What the scheduler's owner tells it.
#[derive(Debug)]
pub enum Control {
    /// Run this from now on.
    Reconfigure(Box<Plan>),
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
}

/// Runs samplers at their rates.
pub struct Scheduler {
    shared: Shared,
    /// Takes the frames; `None` in a plain exporter.
    spool: Option<SpoolHandle>,
    hot: Vec<Hot>,
    workers: Vec<Worker>,
    buffer: ReadBuffer,
    scrape: ScrapeGroup,
}

/// A sampler that never waits.
struct Hot {
    runner: Runner,
    due: Due,
}

impl Scheduler {
    /// A scheduler that runs `plan`.
    pub fn new(plan: &Plan, shared: Shared, spool: Option<SpoolHandle>) -> Self {
        let mut scheduler = Scheduler {
            shared,
            spool,
            hot: Vec::new(),
            workers: Vec::new(),
            buffer: ReadBuffer::default(),
            scrape: ScrapeGroup::default(),
        };
        scheduler.reconfigure(plan);
        scheduler
    }

    /// Runs until told to stop. Blocks, so it wants a thread.
    pub fn run(mut self, control: &Receiver<Control>) {
        loop {
            let now_ms = self.shared.clock.now_ms();
            let wait_ms = self.next_due_ms().saturating_sub(now_ms).clamp(0, MAX_WAIT_MS);
            match control.recv_timeout(Duration::from_millis(wait_ms as u64)) {
                Ok(Control::Reconfigure(plan)) => self.reconfigure(&plan),
                Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => self.tick(),
            }
        }
    }

    /// Takes all readings that are due now and sends them off as one frame.
    pub fn tick(&mut self) {
        let now_ms = self.shared.clock.now_ms();
        for worker in &mut self.workers {
            let missed = worker.due.take(now_ms);
            worker.run_if_due(missed, &self.shared);
        }
        let mut ran = false;
        let mut cpu = CpuClock::start();
        for hot in &mut self.hot {
            let Some(missed) = hot.due.take(now_ms) else { continue };
            ran = true;
            note_missed(&self.shared, hot.runner.kind.name, missed);
            hot.runner.run(&mut self.buffer, &self.shared, hot.due.interval_ms, &mut cpu, |_| {});
        }
        if ran {
            self.scrape.publish(&self.shared, self.grid_ms());
        }
        if let Some(spool) = &self.spool
            && let Some(draft) = self.shared.board.collect()
        {
            send(spool, draft, &self.shared);
        }
    }

    /// Moves to another plan: samplers that stay keep their open files, those that go end their series.
    pub fn reconfigure(&mut self, plan: &Plan) {
        let now_ms = self.shared.clock.now_ms();
        let wanted = |kind: &SamplerKind| plan.samplers.iter().find(|planned| planned.kind.name == kind.name);
        for mut hot in std::mem::take(&mut self.hot) {
            match wanted(hot.runner.kind) {
                Some(planned) => {
                    hot.due.set_interval(planned.interval_ms, now_ms);
                    self.hot.push(hot);
                }
                None => hot.runner.end(&self.shared),
            }
        }
        for mut worker in std::mem::take(&mut self.workers) {
            match wanted(worker.kind) {
                Some(planned) => {
                    worker.due.set_interval(planned.interval_ms, now_ms);
                    self.workers.push(worker);
                }
                None => worker.end(),
            }
        }
        for planned in &plan.samplers {
            let name = planned.kind.name;
            let runs = self.hot.iter().any(|hot| hot.runner.kind.name == name)
                || self.workers.iter().any(|worker| worker.kind.name == name);
            if !runs {
                self.start(*planned, &plan.options, now_ms);
            }
            self.shared.statuses.update(name, |status| {
                status.interval_ms = planned.interval_ms.into();
                status.own_thread = planned.kind.may_block;
            });
        }
        self.shared.statuses.retain(|name| plan.samplers.iter().any(|planned| planned.kind.name == name));
    }

    fn start(&mut self, planned: PlannedSampler, options: &SamplerOptions, now_ms: TimestampMs) {
        let due = Due::new(planned.interval_ms, now_ms);
        let runner = Runner::new(planned.kind, options);
        if !planned.kind.may_block {
            self.hot.push(Hot { runner, due });
            return;
        }
        match Worker::start(runner, due, self.shared.clone()) {
            Ok(worker) => self.workers.push(worker),
            Err(error) => {
                tracing::error!(sampler = planned.kind.name, %error, "Cannot start the sampler's thread");
            }
        }
    }

    fn next_due_ms(&self) -> TimestampMs {
        let hot = self.hot.iter().map(|hot| hot.due.at_ms);
        let workers = self.workers.iter().map(|worker| worker.due.at_ms);
        hot.chain(workers).min().unwrap_or(TimestampMs::MAX)
    }

    /// The shortest interval: that of the group that tells how samplers fared.
    fn grid_ms(&self) -> u32 {
        self.hot.iter().map(|hot| hot.due.interval_ms).min().unwrap_or(1_000)
    }
}

/// Longest sleep, so that a clock that was set back does not silence the agent.
const MAX_WAIT_MS: i64 = 10_000;

fn send(spool: &SpoolHandle, draft: FrameDraft, shared: &Shared) {
    if !spool.append(draft, shared.board.next_group()) {
        shared.metrics.lose(LossReason::JournalBusy, 1);
    }
}

fn note_missed(shared: &Shared, name: &'static str, missed: u64) {
    if missed > 0 {
        shared.metrics.missed_ticks.inc_by(missed);
        shared.statuses.update(name, |status| status.missed_ticks += missed);
    }
}

/// When a sampler's next reading is due.
#[derive(Clone, Copy, Debug)]
struct Due {
    interval_ms: u32,
    at_ms: TimestampMs,
}

impl Due {
    fn new(interval_ms: u32, now_ms: TimestampMs) -> Self {
        let interval_ms = interval_ms.max(1);
        Due { interval_ms, at_ms: next_on_grid(now_ms, interval_ms) }
    }

    fn set_interval(&mut self, interval_ms: u32, now_ms: TimestampMs) {
        if interval_ms != self.interval_ms {
            *self = Due::new(interval_ms, now_ms);
        }
    }

    /// If the reading is due, moves on to the next grid point and says how many were missed in between.
    fn take(&mut self, now_ms: TimestampMs) -> Option<u64> {
        let interval = i64::from(self.interval_ms);
        if now_ms < self.at_ms {
            // The clock was set back: waiting for the old time would silence the sampler.
            if self.at_ms - now_ms > interval {
                self.at_ms = next_on_grid(now_ms, self.interval_ms);
            }
            return None;
        }
        let missed = (now_ms - self.at_ms) / interval;
        self.at_ms = next_on_grid(now_ms, self.interval_ms);
        Some(missed as u64)
    }
}

fn next_on_grid(now_ms: TimestampMs, interval_ms: u32) -> TimestampMs {
    let interval = i64::from(interval_ms);
    (now_ms.div_euclid(interval) + 1) * interval
}

/// The one wrapper around every sampler: success, duration, last error, and publishing.
struct Runner {
    kind: &'static SamplerKind,
    slot: usize,
    sampler: Box<dyn Sampler>,
    groups: GroupSet,
    failing: bool,
}

impl Runner {
    fn new(kind: &'static SamplerKind, options: &SamplerOptions) -> Self {
        let slot = SAMPLERS.iter().position(|other| other.name == kind.name).unwrap_or(SAMPLERS.len());
        let sampler = (kind.build)(options);
        Runner { kind, slot, sampler, groups: GroupSet::default(), failing: false }
    }

    /// Takes a reading. `finished` hears whether there was nothing to publish; whoever sees the reading
    /// counted sees what it did, too.
    fn run(
        &mut self,
        buffer: &mut ReadBuffer,
        shared: &Shared,
        interval_ms: u32,
        cpu: &mut CpuClock,
        finished: impl FnOnce(bool),
    ) {
        let started = Instant::now();
        self.groups.begin();
        let outcome = self.sampler.sample(buffer, &mut self.groups);
        // The sampling window belongs to the read: stamped once, when it has ended.
        let timestamp_ms = shared.clock.now_ms();
        if outcome.is_ok() {
            let samples: usize = self.groups.iter().map(|group| group.present().len()).sum();
            shared.metrics.samples.inc_by(samples as u64);
            shared.board.publish(self.slot, &mut self.groups, timestamp_ms, interval_ms);
        }
        let cpu = cpu.lap();
        let duration = started.elapsed();
        self.log_change(outcome.as_ref().err());
        shared.statuses.update(self.kind.name, |status| {
            status.idle = self.kind.may_block && self.groups.iter().next().is_none();
            finished(status.idle);
            status.readings += 1;
            status.last_duration_seconds = seconds(duration);
            status.cpu_seconds_total += seconds(cpu);
            status.succeeded = outcome.is_ok();
            if let Err(error) = outcome {
                status.failures += 1;
                status.last_error = Some(error.to_string());
            }
        });
    }

    fn log_change(&mut self, error: Option<&SampleError>) {
        let sampler = self.kind.name;
        match (self.failing, error) {
            (false, Some(SampleError::Absent(why))) => tracing::info!(sampler, why, "Nothing to sample"),
            (false, Some(error)) => tracing::warn!(sampler, %error, "The sampler fails; it goes on trying"),
            (true, None) => tracing::info!(sampler, "The sampler works again"),
            _ => {}
        }
        self.failing = error.is_some();
    }

    /// Ends all series of the sampler.
    fn end(&mut self, shared: &Shared) {
        self.groups.begin();
        self.groups.end_all();
        shared.board.publish(self.slot, &mut self.groups, shared.clock.now_ms(), 1_000);
        shared.statuses.retain(|name| name != self.kind.name);
    }
}

/// Processor time of the calling thread, from one reading to the next: one system call each.
struct CpuClock {
    last: Duration,
}

impl CpuClock {
    fn start() -> Self {
        CpuClock { last: Self::now() }
    }

    /// Time since the start or the last lap.
    fn lap(&mut self) -> Duration {
        let now = Self::now();
        now.saturating_sub(std::mem::replace(&mut self.last, now))
    }

    fn now() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
    }
}

/// `node_scrape_collector_*`: how each sampler fared.
#[derive(Debug, Default)]
struct ScrapeGroup {
    groups: GroupSet,
    names: Vec<&'static str>,
    handle: Option<GroupHandle>,
}

impl ScrapeGroup {
    fn publish(&mut self, shared: &Shared, interval_ms: u32) {
        self.groups.begin();
        shared.statuses.with(|statuses| {
            // What has not run yet has neither failed nor succeeded.
            let ran = || statuses.iter().filter(|status| status.readings > 0);
            if !ran().map(|status| status.name).eq(self.names.iter().copied()) {
                self.names = ran().map(|status| status.name).collect();
                let columns = self.names.iter().flat_map(|name| {
                    ["node_scrape_collector_duration_seconds", "node_scrape_collector_success"]
                        .map(|metric| ColumnSpec::plain(metric).with("collector", *name))
                });
                let columns = columns.collect();
                match self.handle {
                    Some(handle) => self.groups.redefine(handle, columns),
                    None => self.handle = Some(self.groups.define("scrape", Vec::new(), columns)),
                }
            }
            let Some(group) = self.handle.and_then(|handle| self.groups.group(handle)) else { return };
            for (at, status) in ran().enumerate() {
                let hangs = status.hangs_for_seconds;
                group.put(2 * at, hangs.unwrap_or(status.last_duration_seconds));
                group.put(2 * at + 1, f64::from(u8::from(status.succeeded && hangs.is_none())));
            }
        });
        shared.board.publish(SAMPLERS.len(), &mut self.groups, shared.clock.now_ms(), interval_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_on_the_grid_and_survive_clock_steps() {
        let mut due = Due::new(1_000, 10_400);
        assert_eq!(due.at_ms, 11_000);
        assert_eq!(due.take(10_999), None);
        assert_eq!(due.take(11_003), Some(0));
        assert_eq!(due.at_ms, 12_000);
        // The machine stood still for three seconds.
        assert_eq!(due.take(15_500), Some(3));
        assert_eq!(due.at_ms, 16_000);
        // The clock was set back by an hour.
        assert_eq!(due.take(-3_584_500), None);
        assert_eq!(due.at_ms, -3_584_000);
        due.set_interval(10_000, 3_200);
        assert_eq!(due.at_ms, 10_000);
    }

    /// A sampler that hangs until the test lets go.
    struct Hanging;

    static HOLD: std::sync::Mutex<()> = std::sync::Mutex::new(());

    impl Sampler for Hanging {
        fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
            let _held = HOLD.lock().unwrap();
            if groups.iter().next().is_none() {
                groups.define("hanging", Vec::new(), vec![ColumnSpec::plain("node_load1")]);
            }
            Ok(())
        }
    }

    #[test]
    fn a_hanging_sampler_is_named_and_delays_nobody() {
        use crate::directory::Directory;
        use pharos_common::clock::{Clock as _, ManualClock};
        static KIND: SamplerKind =
            SamplerKind { name: "hanging", default_on: true, may_block: true, build: |_| Box::new(Hanging) };
        let options = crate::AgentOptions::default().load().unwrap().plan.options;
        let loadavg = crate::sampler::find("loadavg").unwrap();
        let samplers = [&KIND, loadavg].map(|kind| PlannedSampler { kind, interval_ms: 1_000 });
        let clock = ManualClock::new(500);
        let shared = Shared {
            board: Arc::new(Board::new(Directory::new("n", 0, []))),
            statuses: Arc::default(),
            metrics: OwnMetrics::register(&prometheus::Registry::new()).unwrap(),
            clock: Arc::clone(&clock) as SharedClock,
        };
        let plan = Plan { samplers: samplers.into(), options };
        let mut scheduler = Scheduler::new(&plan, shared.clone(), None);
        let status = |name: &str| {
            shared.statuses.list().into_iter().find(|status| status.name == name).unwrap_or_default()
        };
        let hung = || shared.metrics.hung.with_label_values(&["hanging"]).get();

        let held = HOLD.lock().unwrap();
        for second in 1..=5 {
            clock.advance(Duration::from_secs(1));
            scheduler.tick();
            assert_eq!(status("loadavg").readings, second);
        }
        assert_eq!(hung(), 1);
        assert!(status("hanging").hangs_for_seconds.is_some());
        assert_eq!(status("hanging").missed_ticks, 4);
        let latest = shared.board.latest(clock.now_ms());
        let failed = latest.iter().any(|posted| {
            let columns = posted.definition.message.columns.iter().zip(&posted.values);
            columns.into_iter().any(|(column, value)| {
                column.name == "node_scrape_collector_success"
                    && column.labels.iter().any(|label| label.value == "hanging")
                    && *value == 0.0
            })
        });
        assert!(failed, "a hanging sampler has not succeeded");

        drop(held);
        while hung() == 1 || status("hanging").readings < 3 {
            clock.advance(Duration::from_secs(1));
            scheduler.tick();
            std::thread::yield_now();
        }
    }
}
