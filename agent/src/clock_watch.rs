//! Notices when the wall clock steps and when the machine was suspended.
//!
//! Both clocks flow in at every tick; what one has gained on the other beyond a threshold is counted and
//! logged. Ticks follow the wall clock in any case, so nothing has to be corrected.

use crate::own_metrics::OwnMetrics;
use pharos_common::sample::TimestampMs;
use std::time::Duration;

/// What clock discipline corrects slowly stays below this, milliseconds.
const STEP_MS_MIN: i64 = 500;

/// The clocks as they were at the last look.
#[derive(Debug)]
pub(crate) struct ClockWatch {
    wall_ms: TimestampMs,
    monotonic: Duration,
    asleep: Duration,
}

impl ClockWatch {
    pub(crate) fn new(wall_ms: TimestampMs, monotonic: Duration) -> Self {
        ClockWatch { wall_ms, monotonic, asleep: time_asleep() }
    }

    /// Compares the clocks with the last look.
    pub(crate) fn look(&mut self, wall_ms: TimestampMs, monotonic: Duration, metrics: &OwnMetrics) {
        let passed_ms = monotonic.saturating_sub(self.monotonic).as_millis() as i64;
        let step_ms = wall_ms - self.wall_ms - passed_ms;
        (self.wall_ms, self.monotonic) = (wall_ms, monotonic);
        if step_ms.abs() < STEP_MS_MIN {
            return;
        }
        let asleep = time_asleep();
        let slept = asleep.saturating_sub(std::mem::replace(&mut self.asleep, asleep));
        if slept.as_millis() as i64 >= STEP_MS_MIN {
            metrics.suspends.inc();
            tracing::warn!(?slept, "The machine was suspended; there are no samples of that time");
            return;
        }
        let direction = if step_ms > 0 { "forward" } else { "back" };
        metrics.clock_steps.with_label_values(&[direction]).inc();
        tracing::warn!(milliseconds = step_ms, "The wall clock was set; ticks follow it");
    }
}

/// How long the machine has been suspended since it started.
fn time_asleep() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |id| {
        let time = clock_gettime(id);
        Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
    };
    // In this order, so that the time between the two calls does not count as sleep's opposite.
    let awake = read(ClockId::Monotonic);
    read(ClockId::Boottime).saturating_sub(awake)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted_by_direction_and_slow_corrections_are_not() {
        let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
        let steps = |direction: &str| metrics.clock_steps.with_label_values(&[direction]).get();
        let second = Duration::from_secs;
        let mut watch = ClockWatch::new(1_000_000, second(10));
        watch.look(1_001_020, second(11), &metrics);
        watch.look(1_002_000, second(12), &metrics);
        assert_eq!((steps("forward"), steps("back")), (0, 0));
        watch.look(4_603_000, second(13), &metrics);
        assert_eq!((steps("forward"), steps("back")), (1, 0));
        watch.look(1_004_000, second(14), &metrics);
        assert_eq!((steps("forward"), steps("back")), (1, 1));
        watch.look(1_005_000, second(15), &metrics);
        assert_eq!((steps("forward"), steps("back")), (1, 1));
    }
}
