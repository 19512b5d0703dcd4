//! How long to wait before the next attempt: at first so little that a collector which restarts is found
//! again at once, then 0.5 s, growing by half up to 30 s. Who has nothing to send lets the others go first. All of it is spread at random, so that ten thousand
//! agents do not return in the same moment.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// The first pauses while nobody answers. An attempt at a port that nobody listens on costs both machines a
/// packet, and what an agent samples meanwhile cannot raise an alert.
const AT_ONCE: [Duration; 6] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];
const FIRST: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
const LONGEST: Duration = Duration::from_secs(30);

/// Time over which those return to a collector that was lost who have nothing to tell it.
const WITHOUT_HASTE: Duration = Duration::from_millis(400);

/// Counts failures and turns them into pauses.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// Pauses taken so far, or skipped.
    steps: u32,
}

impl Backoff {
    /// Failures since it last worked.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It works again.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }

    /// The pause after one more failure to reach anybody: between half and all of the nominal time.
    pub fn next_pause(&mut self) -> Duration {
        self.pause(spread())
    }

    /// The same after a failure of somebody who was reached, and who would be no better in a moment.
    pub fn next_long_pause(&mut self) -> Duration {
        self.steps = self.steps.max(AT_ONCE.len() as u32);
        self.pause(spread())
    }

    fn pause(&mut self, random: f64) -> Duration {
        let nominal = match AT_ONCE.get(self.steps as usize) {
            Some(pause) => pause.as_secs_f64(),
            None => {
                let grown = self.steps.saturating_sub(AT_ONCE.len() as u32).min(64);
                (FIRST.as_secs_f64() * FACTOR.powi(grown as i32)).min(LONGEST.as_secs_f64())
            }
        };
        self.failures = self.failures.saturating_add(1);
        self.steps = self.steps.saturating_add(1);
        Duration::from_secs_f64(nominal * (0.5 + random / 2.0))
    }
}

/// How long to wait, before the first attempt, when a connection broke and nothing waits to be sent. A thousand nodes
/// lose a collector in the same moment; a return costs it a quarter of a millisecond, and those whose frames may
/// raise an alert are not to queue behind those that have none.
pub fn pause_without_haste() -> Duration {
    WITHOUT_HASTE.mul_f64(spread())
}

/// A random number from 0 to 1. Hashing with fresh keys is randomness enough for spreading.
pub(super) fn spread() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_at_once_and_then_ever_more_rarely() {
        let mut backoff = Backoff::default();
        for pause in AT_ONCE {
            assert_eq!(backoff.pause(1.0), pause);
        }
        assert_eq!(backoff.pause(1.0), Duration::from_millis(500));
        assert_eq!(backoff.pause(1.0), Duration::from_millis(750));
        assert_eq!(backoff.pause(0.0), Duration::from_micros(562_500));
        for _ in 0..100 {
            assert!(backoff.next_pause() <= LONGEST);
        }
        assert!(backoff.next_pause() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_pause() <= AT_ONCE[0]);
        assert_eq!(backoff.failures(), 1);
    }

    #[test]
    fn who_answers_with_an_error_is_left_alone_for_longer() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_long_pause() >= FIRST / 2);
        assert!(backoff.next_pause() >= FIRST.mul_f64(FACTOR / 2.0), "also if nobody answers then");
        assert_eq!(backoff.failures(), 2);
    }
}
