//! Time as an argument: programs use [`SystemClock`], tests move a [`ManualClock`] by hand.

use crate::sample::TimestampMs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// A source of wall-clock time, and a way to wait for it.
pub trait Clock: Send + Sync + 'static {
    /// Wall-clock time in milliseconds since the epoch. May step backwards.
    fn now_ms(&self) -> TimestampMs;

    /// Time since an arbitrary origin; never steps.
    fn monotonic(&self) -> Duration;

    /// Resolves when [`Clock::monotonic`] has reached `deadline`.
    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.sleep_until(self.monotonic() + duration)
    }
}

/// A clock shared by the parts of a program.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    pub fn new() -> Self {
        SystemClock { origin: Instant::now() }
    }

    /// The same, ready to share.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep_until((self.origin + deadline).into()))
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    start_ms: TimestampMs,
    elapsed: watch::Sender<Duration>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn new(now_ms: TimestampMs) -> Arc<Self> {
        Arc::new(ManualClock { start_ms: now_ms, elapsed: watch::channel(Duration::ZERO).0 })
    }

    /// Moves both clocks forward and wakes whoever waited for a time up to then.
    pub fn advance(&self, by: Duration) {
        self.elapsed.send_modify(|elapsed| *elapsed += by);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimestampMs {
        self.start_ms + self.elapsed.borrow().as_millis() as i64
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.borrow()
    }

    fn sleep_until(&self, deadline: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut elapsed = self.elapsed.subscribe();
        Box::pin(async move {
            // The sender lives as long as `self`, so waiting cannot fail.
            let _ = elapsed.wait_for(|elapsed| *elapsed >= deadline).await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_sleepers_when_their_time_has_come() {
        let clock = ManualClock::new(1_000);
        let sleeper = tokio::spawn({
            let clock = Arc::clone(&clock);
            async move { clock.sleep_until(Duration::from_secs(2)).await }
        });
        clock.advance(Duration::from_secs(1));
        assert!(!sleeper.is_finished());
        clock.advance(Duration::from_secs(1));
        sleeper.await.unwrap();
        assert_eq!(clock.now_ms(), 3_000);
    }
}
