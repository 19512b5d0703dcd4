//! Native histograms: counts of observations in exponential or custom buckets.

use crate::sample::TimestampMs;
use std::sync::Arc;

/// Schema of histograms whose bucket bounds are listed in [`FloatHistogram::custom_values`].
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;

/// What a histogram says about a reset of its counters since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CounterResetHint {
    /// Nothing: the two must be compared.
    #[default]
    Unknown,
    /// There was one.
    Reset,
    /// There was none.
    NotReset,
    /// It is a gauge: resets mean nothing.
    Gauge,
}

/// A run of consecutive buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketSpan {
    /// Gap to the end of the span before; the index of the first bucket for the first span.
    pub offset: i32,
    /// Number of buckets.
    pub length: u32,
}

/// A native histogram with float counts.
#[derive(Clone, Debug, Default)]
pub struct FloatHistogram {
    /// Whether counters were reset before it.
    pub counter_reset_hint: CounterResetHint,
    /// Resolution: a bucket is `2^(2^-schema)` times the one below; or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// Observations up to this distance from zero are in the zero bucket.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// Observations in all.
    pub count: f64,
    /// Sum of all observations; the stale marker marks a stale histogram.
    pub sum: f64,
    /// Which buckets above zero `positive_buckets` holds.
    pub positive_spans: Vec<BucketSpan>,
    /// Which buckets below zero `negative_buckets` holds.
    pub negative_spans: Vec<BucketSpan>,
    /// Counts of buckets above zero, not cumulative.
    pub positive_buckets: Vec<f64>,
    /// Counts of buckets below zero, not cumulative.
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of custom buckets, without the last one, which is `+Inf`.
    pub custom_values: Vec<f64>,
}

/// A native histogram and when it was taken.
#[derive(Clone, Debug)]
pub struct HistogramSample {
    /// When.
    pub timestamp_ms: TimestampMs,
    /// What was observed; shared, since selections and plans pass it on.
    pub histogram: Arc<FloatHistogram>,
}

impl FloatHistogram {
    /// Whether the buckets' bounds are listed instead of following from the schema.
    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_BUCKETS_SCHEMA
    }

    /// Samples that it counts for: its size over that of a float with its timestamp.
    pub fn cost_in_samples(&self) -> usize {
        let buckets = self.positive_buckets.len() + self.negative_buckets.len();
        let spans = self.positive_spans.len() + self.negative_spans.len();
        (8 + 168 + 8 * (buckets + spans + self.custom_values.len())) / 16
    }

    /// Whether it marks its series as gone.
    pub fn is_stale(&self) -> bool {
        crate::sample::is_stale_nan(self.sum)
    }
}
