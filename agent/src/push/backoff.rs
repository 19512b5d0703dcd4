//! How long to wait before the next attempt: 0.5 s, growing by half up to 30 s, spread at random so that
//! ten thousand agents do not return in the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures and turns them into pauses.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// It works again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure: between half and all of the nominal time.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.pause(spread())
    }

    fn pause(&mut self, random: f64) -> Duration {
        let nominal = FIRST.as_secs_f64() * FACTOR.powi(self.failures.min(64) as i32);
        self.failures = self.failures.saturating_add(1);
        Duration::from_secs_f64(nominal.min(LONGEST.as_secs_f64()) * (0.5 + random / 2.0))
    }
}

/// A random number from 0 to 1. Hashing with fresh keys is randomness enough for spreading.
pub(super) fn spread() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.pause(1.0), Duration::from_millis(500));
        assert_eq!(backoff.pause(1.0), Duration::from_millis(750));
        assert_eq!(backoff.pause(0.0), Duration::from_micros(562_500));
        for _ in 0..100 {
            assert!(backoff.next_pause() <= LONGEST);
        }
        assert!(backoff.next_pause() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_pause() <= FIRST);
    }
}
