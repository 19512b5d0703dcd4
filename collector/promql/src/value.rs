//! What a query gives back.

use crate::storage::{HistogramSample, ReadStats};
use crate::summaries::SummaryStats;
use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_common::sample::{Sample, TimestampMs};
use std::sync::Arc;
use std::time::Duration;

/// The answer to a query.
#[derive(Clone, Debug)]
pub struct QueryResult {
    /// The value.
    pub value: Value,
    /// Texts that begin `PromQL warning: `.
    pub warnings: Vec<String>,
    /// Texts that begin `PromQL info: `.
    pub infos: Vec<String>,
    /// What it cost.
    pub stats: QueryStats,
    /// Samples that each step looked at, as Prometheus counts them; empty if nobody wanted to know. A sample
    /// counts at every step and for every selector that sees it.
    pub samples_per_step: Vec<(TimestampMs, u64)>,
}

/// What a query cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryStats {
    /// Samples read from the storage.
    pub samples_read: usize,
    /// The most samples held in memory at once.
    pub peak_samples: usize,
    /// Series read from the storage.
    pub series_read: usize,
    /// What was read for summaries of samples.
    pub summaries: SummaryStats,
    /// From where samples were read, as far as the storage tells.
    pub reads: ReadStats,
    /// Time to plan the query.
    pub planned: Duration,
    /// Time to sort the result.
    pub sorted: Duration,
}

/// A value of the language.
#[derive(Clone, Debug)]
pub enum Value {
    /// One number at one time.
    Scalar(Sample),
    /// A text.
    String {
        /// The evaluation time.
        timestamp_ms: TimestampMs,
        /// The text.
        text: String,
    },
    /// One sample per series, all at the evaluation time.
    Vector(Vec<VectorSample>),
    /// Many samples per series.
    Matrix(Vec<MatrixSeries>),
}

/// A series of an instant vector.
#[derive(Clone, Debug)]
pub struct VectorSample {
    /// What names it.
    pub labels: Labels,
    /// The evaluation time.
    pub timestamp_ms: TimestampMs,
    /// Its value.
    pub value: SampleValue,
}

/// A float or a native histogram.
#[derive(Clone, Debug)]
pub enum SampleValue {
    /// A number.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<FloatHistogram>),
}

impl SampleValue {
    /// The number, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            SampleValue::Float(value) => Some(*value),
            SampleValue::Histogram(_) => None,
        }
    }
}

/// A series of a matrix.
#[derive(Clone, Debug, Default)]
pub struct MatrixSeries {
    /// What names it.
    pub labels: Labels,
    /// Its floats, in time order.
    pub floats: Vec<Sample>,
    /// Its native histograms, in time order.
    pub histograms: Vec<HistogramSample>,
}
