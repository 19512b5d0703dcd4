//! One sampler as the scheduler sees it: when it is due, at which pace, and whether its reading is still
//! going on somewhere.

use super::budget::Candidate;
use super::pace::{Decision, Pace};
use super::rate::Due;
use super::runner::{Order, Outcome, Runner};
use super::{PlannedSampler, Shared};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{SamplerKind, SamplerOptions};
use pharos_common::sample::TimestampMs;
use std::time::Instant;

/// Ticks that are skipped after a reading that found nothing: handing it to a lane costs more than it tells.
const IDLE_TICKS: u32 = 9;

pub(super) struct Task {
    pub(super) kind: &'static SamplerKind,
    pub(super) slot: usize,
    pub(super) due: Due,
    grid: Due,
    pub(super) pace: Pace,
    pub(super) decision: Decision,
    /// At home when no reading goes on.
    runner: Option<Runner>,
    /// Number of the lane that it runs on, if it may hang.
    pub(super) lane: Option<u64>,
    started: Instant,
    hung: bool,
    idle: bool,
    ticks_to_skip: u32,
    /// Readings since the last one whose cost was measured, that one included.
    pub(super) readings_unmeasured: u32,
    cpu_seconds: f64,
    changed: u64,
}

impl Task {
    pub(super) fn new(planned: PlannedSampler, options: &SamplerOptions, now_ms: TimestampMs) -> Self {
        let runner = Runner::new(planned.kind, options);
        let pace = Pace::new(planned.rate);
        let decision = pace.decide(now_ms);
        Task {
            kind: planned.kind,
            slot: runner.slot,
            due: Due::new(decision.interval_ms, now_ms),
            grid: Due::new(decision.grid_ms, now_ms),
            pace,
            // Differs from every real one, so that the first one is noted.
            decision: Decision { interval_ms: 0, ..decision },
            runner: Some(runner),
            lane: None,
            started: Instant::now(),
            hung: false,
            idle: false,
            ticks_to_skip: 0,
            readings_unmeasured: 0,
            cpu_seconds: 0.0,
            changed: 0,
        }
    }

    /// Whether a reading goes on.
    pub(super) fn is_away(&self) -> bool {
        self.runner.is_none()
    }

    /// If a reading is due and the last has ended, gives the sampler away to take it. A reading that has
    /// not ended is noted as hanging.
    pub(super) fn begin(
        &mut self,
        now_ms: TimestampMs,
        measure: bool,
        shared: &Shared,
    ) -> Option<(Runner, Order)> {
        let missed = self.due.take(now_ms)?;
        let on_grid = self.grid.take(now_ms).is_some();
        self.note_missed(missed, shared);
        let Some(mut runner) = self.runner.take() else {
            self.note_missed(1, shared);
            self.note_hang(shared);
            return None;
        };
        if self.idle && self.ticks_to_skip > 0 {
            self.ticks_to_skip -= 1;
            self.runner = Some(runner);
            return None;
        }
        self.ticks_to_skip = IDLE_TICKS;
        self.started = Instant::now();
        runner.urgent.clear();
        if !on_grid {
            let groups = runner.groups.iter().count();
            runner.urgent.extend((0..groups).map(|group| self.pace.is_urgent(group, now_ms)));
        }
        let fast_ms = self.decision.interval_ms.max(1);
        self.readings_unmeasured = self.readings_unmeasured.saturating_add(1);
        Some((runner, Order { on_grid, grid_ms: self.decision.grid_ms, fast_ms, measure }))
    }

    /// Takes a reading on the scheduler's own thread.
    pub(super) fn read_here(
        &mut self,
        mut runner: Runner,
        order: Order,
        buffer: &mut ReadBuffer,
        shared: &Shared,
    ) {
        let outcome = runner.run(buffer, shared, order);
        runner.report(&outcome, self.readings_unmeasured, shared);
        self.observe(&runner, &outcome);
        self.lane = None;
        self.come_home(runner);
    }

    /// Takes the sampler back.
    pub(super) fn come_home(&mut self, runner: Runner) {
        self.runner = Some(runner);
    }

    /// Learns from a reading.
    pub(super) fn observe(&mut self, runner: &Runner, outcome: &Outcome) {
        self.idle = outcome.idle;
        if let Some(cpu) = outcome.cpu {
            self.cpu_seconds += cpu.as_secs_f64() * f64::from(self.readings_unmeasured);
            self.readings_unmeasured = 0;
        }
        if outcome.error.is_some() {
            return;
        }
        self.pace.set_recorder(outcome.recorder_ms);
        self.changed += u64::from(outcome.changed);
        if outcome.on_grid {
            self.pace.observe(&runner.groups, outcome.changed, outcome.timestamp_ms);
        }
    }

    /// Moves to the interval that holds now, and tells people if it is another.
    pub(super) fn repace(&mut self, now_ms: TimestampMs, shared: &Shared) {
        let decision = self.pace.decide(now_ms);
        self.due.set_interval(decision.interval_ms, now_ms);
        self.grid.set_interval(decision.grid_ms, now_ms);
        if decision == self.decision {
            return;
        }
        let (before, name) = (std::mem::replace(&mut self.decision, decision), self.kind.name);
        let seconds = f64::from(decision.interval_ms) / 1_000.0;
        shared.metrics.intervals.with_label_values(&[name]).set(seconds);
        if before.interval_ms != 0 {
            shared.metrics.rate_changes.with_label_values(&[name, decision.reason.label()]).inc();
        }
        shared.statuses.update(name, |status| {
            status.interval_ms = decision.interval_ms.into();
            status.grid_ms = decision.grid_ms.into();
            status.reason = decision.reason;
        });
    }

    /// What the budget weighs; starts the next window.
    pub(super) fn candidate(&mut self, now_ms: TimestampMs) -> Candidate {
        Candidate {
            cpu_seconds: std::mem::take(&mut self.cpu_seconds),
            changed: std::mem::take(&mut self.changed),
            urgent: self.pace.urgency(now_ms).is_some(),
            fast: self.decision.interval_ms < self.pace.rate().grid_ms(),
            stretch: self.pace.stretch(),
            fast_denied: self.pace.fast_denied(),
        }
    }

    /// Ends the sampler's series, at once or when its reading ends.
    pub(super) fn end(mut self, shared: &Shared) {
        if let Some(mut runner) = self.runner.take() {
            runner.end(shared);
        }
        let _ = shared.metrics.intervals.remove_label_values(&[self.kind.name]);
        shared.statuses.retain(|name| name != self.kind.name);
    }

    /// Notes that the reading which hung has ended.
    pub(super) fn note_end_of_hang(&mut self, shared: &Shared) {
        if self.hung {
            tracing::info!(sampler = self.kind.name, "The reading that hung has ended");
            shared.metrics.hung.with_label_values(&[self.kind.name]).set(0);
            shared.statuses.update(self.kind.name, |status| status.hangs_for_seconds = None);
            self.hung = false;
        }
    }

    fn note_hang(&mut self, shared: &Shared) {
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
    }

    fn note_missed(&self, missed: u64, shared: &Shared) {
        if missed > 0 {
            shared.metrics.missed_ticks.inc_by(missed);
            shared.statuses.update(self.kind.name, |status| status.missed_ticks += missed);
        }
    }
}
