//! Rates: what configuration allows a sampler, and when its next reading is due.
//!
//! Due times lie on the wall clock's grid, so they do not drift and all nodes sample at the same moments.

use pharos_common::sample::TimestampMs;

/// How often a sampler may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rate {
    /// Always at the same interval.
    Fixed {
        /// Milliseconds from reading to reading.
        interval_ms: u32,
    },
    /// As fast as what it reads deserves.
    Adaptive(Adaptive),
}

/// Bounds of an adaptive rate, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adaptive {
    /// Interval while a value moves, nears a threshold or an alert is pending.
    pub fastest_ms: u32,
    /// Interval at which the series themselves are promised.
    pub grid_ms: u32,
    /// Interval while nothing changes; `None` keeps the grid.
    pub slowest_ms: Option<u32>,
}

impl Rate {
    /// A fixed rate.
    pub const fn fixed(interval_ms: u32) -> Self {
        Rate::Fixed { interval_ms }
    }

    /// Interval at which the series are promised.
    pub fn grid_ms(self) -> u32 {
        match self {
            Rate::Fixed { interval_ms } => interval_ms.max(1),
            Rate::Adaptive(adaptive) => adaptive.grid_ms.max(1),
        }
    }

    /// Interval of samples between grid points, if there may be any.
    pub fn fastest_ms(self) -> Option<u32> {
        match self {
            Rate::Adaptive(adaptive) if adaptive.fastest_ms < adaptive.grid_ms => {
                Some(adaptive.fastest_ms.max(1))
            }
            _ => None,
        }
    }

    /// Interval while nothing changes.
    pub fn slowest_ms(self) -> Option<u32> {
        match self {
            Rate::Adaptive(adaptive) => adaptive.slowest_ms.filter(|slowest| *slowest > adaptive.grid_ms),
            Rate::Fixed { .. } => None,
        }
    }
}

/// When a sampler's next reading is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) interval_ms: u32,
    pub(super) at_ms: TimestampMs,
}

impl Due {
    pub(super) fn new(interval_ms: u32, now_ms: TimestampMs) -> Self {
        let interval_ms = interval_ms.max(1);
        Due { interval_ms, at_ms: next_on_grid(now_ms, interval_ms) }
    }

    pub(super) fn set_interval(&mut self, interval_ms: u32, now_ms: TimestampMs) {
        if interval_ms != self.interval_ms {
            *self = Due::new(interval_ms, now_ms);
        }
    }

    /// If the reading is due, moves on to the next grid point and says how many were missed in between.
    pub(super) fn take(&mut self, now_ms: TimestampMs) -> Option<u64> {
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

    #[test]
    fn only_adaptive_rates_leave_the_grid() {
        let adaptive = Rate::Adaptive(Adaptive { fastest_ms: 100, grid_ms: 1_000, slowest_ms: Some(5_000) });
        assert_eq!(
            (adaptive.grid_ms(), adaptive.fastest_ms(), adaptive.slowest_ms()),
            (1_000, Some(100), Some(5_000))
        );
        let fixed = Rate::fixed(2_000);
        assert_eq!((fixed.grid_ms(), fixed.fastest_ms(), fixed.slowest_ms()), (2_000, None, None));
    }
}
