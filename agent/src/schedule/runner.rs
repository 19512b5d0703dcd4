//! The one wrapper around every sampler: success, duration, cost, last error, and publishing.

use super::Shared;
use crate::error::SampleError;
use crate::group::GroupSet;
use crate::kernel_files::ReadBuffer;
use crate::sampler::{SAMPLERS, Sampler, SamplerKind, SamplerOptions};
use crate::status::seconds;
use pharos_common::sample::TimestampMs;
use std::time::{Duration, Instant};

/// Place on the board of the group that tells how samplers fared; behind it come kinds that only tests know.
pub(super) const SCRAPE_SLOT: usize = SAMPLERS.len();

/// What a reading is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// Whether the series themselves get this reading.
    pub(super) on_grid: bool,
    /// Within which time the series are promised again.
    pub(super) grid_ms: u32,
    /// Interval of readings between grid points.
    pub(super) fast_ms: u32,
    /// Whether to look at the thread's processor time.
    pub(super) measure: bool,
}

/// How a reading went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) on_grid: bool,
    pub(super) error: Option<SampleError>,
    /// There was nothing to publish: no GPU, no sensors.
    pub(super) idle: bool,
    /// Values that differ from the reading before.
    pub(super) changed: u32,
    pub(super) timestamp_ms: TimestampMs,
    pub(super) duration: Duration,
    /// Processor time, if it was measured.
    pub(super) cpu: Option<Duration>,
    /// Interval at which the flight recorder wants readings.
    pub(super) recorder_ms: Option<u32>,
}

/// A sampler with its groups; moves between the scheduler and the threads that may be abandoned.
pub(super) struct Runner {
    pub(super) kind: &'static SamplerKind,
    pub(super) slot: usize,
    sampler: Box<dyn Sampler>,
    pub(super) groups: GroupSet,
    /// Which groups are published between grid points, by place; the scheduler fills it in.
    pub(super) urgent: Vec<bool>,
    failing: bool,
}

impl Runner {
    pub(super) fn new(kind: &'static SamplerKind, options: &SamplerOptions) -> Self {
        let slot = SAMPLERS.iter().position(|other| other.name == kind.name).unwrap_or(SCRAPE_SLOT + 1);
        let sampler = (kind.build)(options);
        Runner { kind, slot, sampler, groups: GroupSet::default(), urgent: Vec::new(), failing: false }
    }

    /// Whether the next reading is to be taken where it can be abandoned.
    pub(super) fn may_hang(&mut self) -> bool {
        self.sampler.may_hang()
    }

    /// Takes a reading and publishes it.
    pub(super) fn run(&mut self, buffer: &mut ReadBuffer, shared: &Shared, order: Order) -> Outcome {
        let (started, cpu) = (Instant::now(), order.measure.then(CpuClock::start));
        self.groups.begin();
        let error = self.sampler.sample(buffer, &mut self.groups).err();
        // The sampling window belongs to the read: stamped once, when it has ended.
        let timestamp_ms = shared.clock.now_ms();
        let (mut changed, mut recorder_ms) = (0, None);
        if error.is_none() {
            let samples: usize = self.groups.iter().map(|group| group.present().len()).sum();
            shared.metrics.samples.inc_by(samples as u64);
            recorder_ms = shared.recorder.record(self.slot, &self.groups, timestamp_ms, &shared.board);
            if order.on_grid {
                changed = shared.board.publish(self.slot, &mut self.groups, timestamp_ms, order.grid_ms);
            } else {
                // Twice the interval, for at grid points there is no such sample.
                let (urgent, promised_ms) = (&self.urgent, 2 * order.fast_ms);
                shared.board.publish_fast(self.slot, &self.groups, urgent, timestamp_ms, promised_ms);
            }
        }
        self.log_change(error.as_ref());
        Outcome {
            on_grid: order.on_grid,
            error,
            idle: self.kind.may_block && self.groups.iter().next().is_none(),
            changed,
            timestamp_ms,
            duration: started.elapsed(),
            cpu: cpu.map(|clock| clock.elapsed()),
            recorder_ms,
        }
    }

    /// Notes for people how a reading went. `weight` is how many readings the measured cost stands for.
    pub(super) fn report(&self, outcome: &Outcome, weight: u32, shared: &Shared) {
        shared.statuses.update(self.kind.name, |status| {
            status.idle = outcome.idle;
            status.readings += 1;
            status.last_duration_seconds = seconds(outcome.duration);
            if let Some(cpu) = outcome.cpu {
                status.cpu_seconds_total += seconds(cpu) * f64::from(weight);
            }
            status.succeeded = outcome.error.is_none();
            if let Some(error) = &outcome.error {
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
    pub(super) fn end(&mut self, shared: &Shared) {
        self.groups.begin();
        self.groups.end_all();
        shared.board.publish(self.slot, &mut self.groups, shared.clock.now_ms(), 1_000);
    }
}

/// Processor time of the calling thread: one system call a look.
pub(crate) struct CpuClock {
    start: Duration,
}

impl CpuClock {
    pub(crate) fn start() -> Self {
        CpuClock { start: Self::now() }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now().saturating_sub(self.start)
    }

    /// Processor time of this thread since it started.
    pub(crate) fn now() -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
    }
}
