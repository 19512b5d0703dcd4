//! Quantiles of the last ten minutes: what Prometheus' own summaries tell.
//!
//! Seconds flow in; a summary with quantiles 0.5, 0.9 and 0.99, their sum and count flows out. Values are kept
//! as counts in buckets that grow by a factor of 2^(1/8), so a quantile is right to 5 %, and memory is fixed.

use prometheus::proto;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Quantiles that are told.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Time after which a value no longer counts, in ages, and the length of one.
const AGES: usize = 5;
const AGE: Duration = Duration::from_secs(120);

/// Buckets from the least value (a tenth of a microsecond) on: to some hours.
const BUCKETS: usize = 300;
const LEAST_SECONDS: f64 = 1e-7;
const BUCKETS_PER_DOUBLING: f64 = 8.0;

/// Durations, and their quantiles.
#[derive(Debug)]
pub(crate) struct Quantiles {
    started: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// The newest age, counted from the start.
    newest: u64,
    ages: Vec<[u32; BUCKETS]>,
    sum_seconds: f64,
    count: u64,
}

impl Default for Quantiles {
    fn default() -> Self {
        let ages = vec![[0; BUCKETS]; AGES];
        let counts = Counts { newest: 0, ages, sum_seconds: 0.0, count: 0 };
        Quantiles { started: Instant::now(), counts: Mutex::new(counts) }
    }
}

impl Quantiles {
    pub(crate) fn observe(&self, time: Duration) {
        self.observe_at(time, self.started.elapsed());
    }

    fn observe_at(&self, time: Duration, since_start: Duration) {
        let seconds = time.as_secs_f64();
        let doublings = (seconds.max(LEAST_SECONDS) / LEAST_SECONDS).log2();
        let bucket = ((doublings * BUCKETS_PER_DOUBLING) as usize).min(BUCKETS - 1);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.grow_old(since_start);
        let slot = (counts.newest % AGES as u64) as usize;
        if let Some(count) = counts.ages.get_mut(slot).and_then(|age| age.get_mut(bucket)) {
            *count = count.saturating_add(1);
        }
        counts.sum_seconds += seconds;
        counts.count += 1;
    }

    /// As `/metrics` tells it.
    pub(crate) fn summary(&self) -> proto::Summary {
        self.summary_at(self.started.elapsed())
    }

    fn summary_at(&self, since_start: Duration) -> proto::Summary {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.grow_old(since_start);
        let mut summary = proto::Summary::default();
        summary.set_sample_sum(counts.sum_seconds);
        summary.set_sample_count(counts.count);
        let quantile = |wanted: f64| {
            let mut quantile = proto::Quantile::default();
            quantile.set_quantile(wanted);
            quantile.set_value(counts.quantile(wanted));
            quantile
        };
        summary.set_quantile(QUANTILES.map(quantile).to_vec());
        summary
    }
}

impl Counts {
    /// Forgets what is too old.
    fn grow_old(&mut self, since_start: Duration) {
        let now = (since_start.as_secs() / AGE.as_secs()).max(self.newest);
        for age in (self.newest + 1..=now).rev().take(AGES) {
            if let Some(counts) = self.ages.get_mut((age % AGES as u64) as usize) {
                counts.fill(0);
            }
        }
        self.newest = now;
    }

    /// The middle of the bucket that holds a quantile; NaN without any value.
    fn quantile(&self, wanted: f64) -> f64 {
        let total: u64 = self.ages.iter().flatten().map(|&count| u64::from(count)).sum();
        if total == 0 {
            return f64::NAN;
        }
        let rank = (wanted * total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for bucket in 0..BUCKETS {
            seen += self
                .ages
                .iter()
                .filter_map(|age| age.get(bucket))
                .map(|&count| u64::from(count))
                .sum::<u64>();
            if seen >= rank {
                return LEAST_SECONDS * ((bucket as f64 + 0.5) / BUCKETS_PER_DOUBLING).exp2();
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_and_grow_old() {
        let quantiles = Quantiles::default();
        assert!(quantiles.summary_at(Duration::ZERO).get_quantile()[0].value().is_nan());
        for millis in 1..=1_000 {
            quantiles.observe_at(Duration::from_millis(millis), Duration::from_secs(millis / 10));
        }
        let summary = quantiles.summary_at(Duration::from_secs(599));
        for (quantile, want) in summary.get_quantile().iter().zip([0.5, 0.9, 0.99]) {
            assert!((quantile.value() / want - 1.0).abs() < 0.05, "{quantile:?}");
        }
        assert_eq!(summary.sample_count(), 1_000);
        let summary = quantiles.summary_at(Duration::from_secs(800));
        assert!(summary.get_quantile()[0].value().is_nan());
        assert!((summary.sample_sum() - 500.5).abs() < 1e-6);
    }
}
