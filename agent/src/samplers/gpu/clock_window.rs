//! Clock events of the last minutes, as dcgm-exporter counts them: in how many of the window's readings each
//! reason held the clocks down, one reading a second at most.
//!
//! Pure: a mask and the time go in. Memory is fixed: what is older than the window leaves bucket by bucket.

use super::derived::CLOCK_REASONS;

/// dcgm-exporter's default window.
pub(super) const WINDOW_SECONDS: u32 = 300;
/// What leaves the window at once.
const BUCKET_SECONDS: u32 = 5;
const BUCKETS: usize = (WINDOW_SECONDS / BUCKET_SECONDS) as usize;

/// Values of the label `clock_event`, in the order of [`CLOCK_REASONS`]; two of them have other names than
/// NVML's now.
pub(super) const EVENTS: [&str; CLOCK_REASONS.len()] = [
    "gpu_idle",
    "clocks_setting",
    "power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal",
    "hw_thermal",
    "hw_power_brake",
    "display_clocks",
];

/// The window of one GPU.
#[derive(Clone, Debug)]
pub(super) struct ClockWindow {
    /// Readings of each bucket in which each reason held.
    buckets: [[u8; CLOCK_REASONS.len()]; BUCKETS],
    /// The second of the newest reading.
    newest: Option<i64>,
}

impl Default for ClockWindow {
    fn default() -> Self {
        ClockWindow { buckets: [[0; CLOCK_REASONS.len()]; BUCKETS], newest: None }
    }
}

impl ClockWindow {
    /// Takes a reading's mask in.
    pub(super) fn update(&mut self, reasons: u64, now_seconds: f64) {
        let now = now_seconds.floor() as i64;
        let bucket = |second: i64| second.div_euclid(i64::from(BUCKET_SECONDS));
        match self.newest {
            Some(newest) if newest == now => return,
            // A clock that was set back starts anew.
            Some(newest) if newest > now => *self = ClockWindow::default(),
            Some(newest) => {
                let passed = (bucket(now) - bucket(newest)).min(BUCKETS as i64);
                for step in 0..passed {
                    self.buckets[Self::place(bucket(now) - step)] = [0; CLOCK_REASONS.len()];
                }
            }
            None => {}
        }
        self.newest = Some(now);
        let counts = &mut self.buckets[Self::place(bucket(now))];
        for (count, (bit, _)) in counts.iter_mut().zip(CLOCK_REASONS) {
            *count += u8::from(reasons & bit != 0);
        }
    }

    fn place(bucket: i64) -> usize {
        bucket.rem_euclid(BUCKETS as i64) as usize
    }

    /// Readings within the window in which the reason at a place held.
    pub(super) fn count(&self, reason: usize) -> f64 {
        self.buckets.iter().filter_map(|counts| counts.get(reason)).map(|count| f64::from(*count)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_counts_once_and_leaves_with_the_window() {
        let mut window = ClockWindow::default();
        let cap = 0x04;
        for tenth in 0..100 {
            window.update(cap, f64::from(tenth) / 10.0);
        }
        assert_eq!((window.count(2), window.count(0)), (10.0, 0.0));
        window.update(0, 304.0);
        assert_eq!(window.count(2), 5.0, "the first bucket is gone");
        window.update(0, 10_000.0);
        assert_eq!(window.count(2), 0.0);
        window.update(cap, 10_001.0);
        window.update(cap, 3.0);
        assert_eq!(window.count(2), 1.0, "the clock was set back");
    }
}
