//! How many samples a sender may send in a second: who sends more is held back, counted and named.
//!
//! Each sender has a bucket that fills at the permitted rate and holds some seconds of it. What was stored is
//! taken out of it, and may leave it in debt: then a remote write is answered 429 until the debt is paid, and
//! an agent's stream is not read on, which its connection's flow control tells it. Backfill has a bucket of
//! its own, and its agent is asked to pause it, so that it never holds up live samples.

use crate::limits::{RATE_BURST, RATE_SENDERS_MAX};
use crate::metrics::Metrics;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Senders that are named in metrics; further ones are counted together.
const NAMED_MAX: usize = 100;
/// The name of those.
const OTHERS: &str = "others";
/// A sender that is held back is logged this often.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// The limits of all senders. Clones share them.
#[derive(Clone, Debug)]
pub struct RateLimits {
    /// Samples a second; 0 limits nobody.
    per_second: u64,
    senders: Arc<Mutex<HashMap<String, Sender>>>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Sender {
    bucket: Bucket,
    named: bool,
    logged: Option<Duration>,
}

/// Fills by time, empties by samples.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    /// Samples that may be sent at once; below zero it is a debt.
    level: f64,
    /// When it had that level, on the monotonic clock.
    at: Duration,
}

impl Bucket {
    fn full(per_second: u64, now: Duration) -> Bucket {
        Bucket { level: per_second as f64 * RATE_BURST.as_secs_f64(), at: now }
    }

    fn fill(&mut self, per_second: u64, now: Duration) {
        let more = per_second as f64 * now.saturating_sub(self.at).as_secs_f64();
        self.level = (self.level + more).min(Bucket::full(per_second, now).level);
        self.at = now;
    }

    /// Until there is something in it.
    fn empty_for(&self, per_second: u64) -> Option<Duration> {
        (self.level < 0.0).then(|| Duration::from_secs_f64(-self.level / per_second as f64))
    }
}

impl RateLimits {
    /// So many samples a second for each; 0 limits nobody.
    pub fn new(per_second: u64, metrics: Arc<Metrics>) -> Self {
        RateLimits { per_second, senders: Arc::default(), metrics }
    }

    /// Whether nobody is limited.
    pub fn is_off(&self) -> bool {
        self.per_second == 0
    }

    /// Takes `samples` (none to ask only) out of a sender's bucket. How long it is in debt after that.
    pub fn charge(&self, sender: &str, samples: u64, now: Duration) -> Option<Duration> {
        if self.is_off() {
            return None;
        }
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let known = find(&mut senders, sender, self.per_second, now);
        known.bucket.fill(self.per_second, now);
        known.bucket.level -= samples as f64;
        known.bucket.empty_for(self.per_second)
    }

    /// Counts that a sender is held back, and says so now and then.
    pub fn note(&self, sender: &str, now: Duration) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let room = senders.values().filter(|sender| sender.named).count() < NAMED_MAX;
        let known = find(&mut senders, sender, self.per_second, now);
        known.named |= room;
        let name = if known.named { sender } else { OTHERS };
        self.metrics.rate_limited.with_label_values(&[name]).inc();
        if known.logged.is_none_or(|at| now.saturating_sub(at) >= LOGGED_EVERY) {
            known.logged = Some(now);
            tracing::warn!(
                sender,
                per_second_max = self.per_second,
                "More samples than permitted, held back"
            );
        }
    }
}

/// Finds or makes a sender. When they are too many, those with a full bucket are forgotten: a new one is the
/// same. When nobody is, new ones share a bucket.
fn find<'a>(
    senders: &'a mut HashMap<String, Sender>,
    sender: &str,
    per_second: u64,
    now: Duration,
) -> &'a mut Sender {
    if senders.len() >= RATE_SENDERS_MAX && !senders.contains_key(sender) {
        let full = Bucket::full(per_second, now);
        senders.retain(|_, sender| {
            sender.bucket.fill(per_second, now);
            sender.bucket != full
        });
    }
    let crowded = senders.len() >= RATE_SENDERS_MAX && !senders.contains_key(sender);
    let name = if crowded { OTHERS } else { sender };
    let fresh = || Sender { bucket: Bucket::full(per_second, now), named: false, logged: None };
    senders.entry(name.to_owned()).or_insert_with(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(per_second: u64) -> RateLimits {
        RateLimits::new(per_second, Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap()))
    }

    #[test]
    fn a_sender_may_burst_and_then_pays_its_debt_and_others_do_not() {
        let limits = limits(100);
        let burst = 100 * RATE_BURST.as_secs();
        assert_eq!(limits.charge("a", burst, SECOND), None);
        assert_eq!(limits.charge("a", 50, SECOND), Some(SECOND / 2));
        assert_eq!(limits.charge("a", 0, SECOND), Some(SECOND / 2));
        assert_eq!(limits.charge("b", 0, SECOND), None);
        assert_eq!(limits.charge("a", 0, SECOND * 3 / 2), None);
        assert_eq!(limits.charge("a", 100, SECOND * 5 / 2), None);
        assert_eq!(limits.charge("a", 1, SECOND * 5 / 2), Some(SECOND / 100));
        // A long silence saves no more than a burst.
        assert_eq!(limits.charge("a", burst + 1, SECOND * 100_000), Some(SECOND / 100));
    }

    #[test]
    fn nobody_is_limited_without_a_limit() {
        assert_eq!(limits(0).charge("a", u64::MAX, SECOND), None);
    }

    #[test]
    fn senders_are_bounded_in_memory_and_in_metrics() {
        let limits = limits(100);
        for number in 0..RATE_SENDERS_MAX + 200 {
            let sender = number.to_string();
            limits.charge(&sender, 100_000, SECOND);
            limits.note(&sender, SECOND);
        }
        assert!(limits.senders.lock().unwrap().len() <= RATE_SENDERS_MAX + 1);
        let named = prometheus::core::Collector::collect(&limits.metrics.rate_limited);
        assert!(named[0].get_metric().len() <= NAMED_MAX + 1);
        assert!(limits.metrics.rate_limited.with_label_values(&["0"]).get() == 1);
    }
}
