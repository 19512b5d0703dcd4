//! What a query cost, as `stats` of an answer and the query log tell it: Prometheus' fields, and beside them
//! from where samples were read.

use pharos_common::sample::TimestampMs;
use pharos_promql::QueryStats;
use serde_json::{Value, json};
use std::time::Duration;

/// The cost of one query.
#[derive(Clone, Debug, Default)]
pub struct QueryCost {
    /// Time it waited for a place.
    pub queued: Duration,
    /// Time from then on.
    pub evaluated: Duration,
    /// What the engine counted.
    pub stats: QueryStats,
    /// Samples looked at, by the time of the step.
    pub samples_per_step: Vec<(TimestampMs, u64)>,
}

impl QueryCost {
    /// Time of the evaluation alone.
    pub fn inner(&self) -> Duration {
        self.evaluated.saturating_sub(self.stats.planned).saturating_sub(self.stats.sorted)
    }

    /// As `stats=true` wants it.
    pub fn to_json(&self) -> Value {
        let QueryStats { planned, sorted, peak_samples, summaries, reads, .. } = self.stats;
        let total: u64 = self.samples_per_step.iter().map(|(_, samples)| samples).sum();
        let seconds = |time: Duration| time.as_secs_f64();
        json!({
            "timings": {
                "evalTotalTime": seconds(self.evaluated),
                "resultSortTime": seconds(sorted),
                "queryPreparationTime": seconds(planned),
                "innerEvalTime": seconds(self.inner()),
                "execQueueTime": seconds(self.queued),
                "execTotalTime": seconds(self.queued + self.evaluated),
            },
            "samples": {"totalQueryableSamples": total, "peakSamples": peak_samples},
            "reads": {
                "series": self.stats.series_read,
                "headSamples": reads.head_samples,
                "blockSamples": reads.block_samples,
                "blocks": reads.blocks,
                "fiveMinuteBuckets": summaries.five_minute_buckets,
                "hourBuckets": summaries.hour_buckets,
            },
        })
    }

    /// As `stats=all` wants it: with the samples of every step.
    pub fn to_json_with_steps(&self) -> Value {
        let mut json = self.to_json();
        let steps = self.samples_per_step.iter();
        json["samples"]["totalQueryableSamplesPerStep"] =
            steps.map(|&(time_ms, samples)| json!([time_ms as f64 / 1e3, samples])).collect();
        json
    }
}
