//! Roll-ups: what functions over long ranges need of a series, summed up ahead of time.
//!
//! The samples of a series flow in when a block is written ([`Buckets::build`]); out come two levels of
//! buckets, aligned to the epoch and open on the left as PromQL's windows are: bucket `k` of width `w` holds
//! the samples at `k*w < t <= (k+1)*w`, so windows that end on the grid are whole buckets and nothing else.
//! [`record`] turns the buckets of one series into bytes, [`columns`] bytes into what is added up. Nothing here
//! does I/O.
//!
//! A bucket speaks of the samples of its own block only. Whoever reads sees to it that no other source has
//! samples in between.

pub(crate) mod columns;
pub(crate) mod record;
mod total;

use pharos_common::sample::TimestampMs;
use pharos_common::summary::{Summary, SummaryFields};

/// Widths of the levels, in milliseconds; each is a multiple of the one before.
pub(crate) const LEVELS_MS: [i64; 2] = [300_000, 3_600_000];

/// The bucket that a sample belongs to.
#[inline]
pub(crate) fn bucket_of(timestamp_ms: TimestampMs, width_ms: i64) -> i64 {
    timestamp_ms.saturating_sub(1).div_euclid(width_ms)
}

/// One bucket of one series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    /// It holds what comes after `number * width` up to `(number + 1) * width`.
    pub(crate) number: i64,
    pub(crate) summary: Summary,
}

/// The buckets of one series, by level. Kept from series to series for their memory.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    pub(crate) levels: [Vec<Bucket>; LEVELS_MS.len()],
}

impl Buckets {
    /// Sums up a series whole. The coarse level is made of the fine one, which is exact: sums are kept in
    /// twice a double's width until they are written.
    pub(crate) fn build(&mut self, timestamps: &[TimestampMs], values: &[f64]) {
        for level in &mut self.levels {
            level.clear();
        }
        let [fine, coarse] = &mut self.levels;
        let mut from = 0;
        while let Some(&first_ms) = timestamps.get(from) {
            let number = bucket_of(first_ms, LEVELS_MS[0]);
            let end_ms = (number + 1).saturating_mul(LEVELS_MS[0]);
            let to = from + timestamps[from..].partition_point(|&timestamp| timestamp <= end_ms);
            let to = to.max(from + 1);
            let mut summary = Summary::default();
            summary.append_run(&timestamps[from..to], &values[from..to], SummaryFields::ALL);
            let outer = bucket_of(first_ms, LEVELS_MS[1]);
            match coarse.last_mut() {
                Some(bucket) if bucket.number == outer => bucket.summary.append(&summary),
                _ => coarse.push(Bucket { number: outer, summary: summary.clone() }),
            }
            fine.push(Bucket { number, summary });
            from = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_on_the_grid_ends_its_bucket() {
        #[track_caller]
        fn check(timestamp_ms: i64, want: i64) {
            assert_eq!(bucket_of(timestamp_ms, 300_000), want, "{timestamp_ms}");
        }
        check(0, -1);
        check(1, 0);
        check(300_000, 0);
        check(300_001, 1);
        check(-300_000, -2);
        check(-299_999, -1);
    }

    #[test]
    fn levels_tile_the_series() {
        let timestamps: Vec<i64> = (0..10_000).map(|second| second * 1_000).collect();
        let values: Vec<f64> = (0..10_000).map(f64::from).collect();
        let mut buckets = Buckets::default();
        buckets.build(&timestamps, &values);
        let numbers: Vec<i64> = buckets.levels[0].iter().map(|bucket| bucket.number).collect();
        assert_eq!(numbers, (-1..34).collect::<Vec<_>>());
        let counts: Vec<u64> = buckets.levels[1].iter().map(|bucket| bucket.summary.count).collect();
        assert_eq!(counts, [1, 3600, 3600, 2799]);
        for level in &buckets.levels {
            assert_eq!(level.iter().map(|bucket| bucket.summary.sum).sum::<f64>(), 49_995_000.0);
        }
    }
}
