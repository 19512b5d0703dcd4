//! What the collector tells about its query engine under Prometheus' names, for dashboards and alerts that
//! were written for Prometheus.

use crate::quantiles::Quantiles;
use crate::query_cost::QueryCost;
use prometheus::core::{Collector, Desc};
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry, proto};
use std::sync::Arc;
use std::time::Duration;

const DURATION: &str = "prometheus_engine_query_duration_seconds";
const DURATION_HELP: &str = "Query timings";
const SLICE: &str = "slice";

/// Parts of a query's time.
const SLICES: [&str; 4] = ["inner_eval", "prepare_time", "queue_time", "result_sort"];

/// The engine's metrics.
#[derive(Debug)]
pub struct QueryMetrics {
    /// Queries that run or wait.
    pub queries: IntGauge,
    /// Queries that may run at once.
    pub concurrent_max: IntGauge,
    /// Samples read by all queries.
    pub samples: IntCounter,
    /// Whether queries are logged.
    pub log_enabled: IntGauge,
    /// Queries that could not be logged.
    pub log_failures: IntCounter,
    durations: Arc<[Quantiles; 4]>,
    histogram: HistogramVec,
}

impl QueryMetrics {
    /// Makes and registers all.
    ///
    /// # Errors
    /// If one cannot be registered, which no outside input can cause.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let durations = Arc::<[Quantiles; 4]>::default();
        let description = Desc::new(
            DURATION.to_owned(),
            DURATION_HELP.to_owned(),
            vec![SLICE.to_owned()],
            Default::default(),
        )?;
        registry.register(Box::new(Durations { slices: Arc::clone(&durations), description }))?;
        let opts = HistogramOpts::new(
            "prometheus_engine_query_duration_histogram_seconds",
            "The duration of various parts of PromQL query execution.",
        );
        let histogram = HistogramVec::new(opts.buckets(vec![0.01, 0.1, 1.0, 10.0]), &[SLICE])?;
        registry.register(Box::new(histogram.clone()))?;
        Ok(QueryMetrics {
            queries: gauge(
                "prometheus_engine_queries",
                "The current number of queries being executed or waiting.",
            )?,
            concurrent_max: gauge(
                "prometheus_engine_queries_concurrent_max",
                "The max number of concurrent queries.",
            )?,
            samples: counter(
                "prometheus_engine_query_samples_total",
                "The total number of samples loaded by all queries.",
            )?,
            log_enabled: gauge("prometheus_engine_query_log_enabled", "State of the query log.")?,
            log_failures: counter(
                "prometheus_engine_query_log_failures_total",
                "The number of query log failures.",
            )?,
            durations,
            histogram,
        })
    }

    /// Counts a query that gave an answer.
    pub fn observe(&self, cost: &QueryCost) {
        self.samples.inc_by(cost.stats.samples_read as u64);
        let times: [Duration; 4] = [cost.inner(), cost.stats.planned, cost.queued, cost.stats.sorted];
        for ((quantiles, slice), time) in self.durations.iter().zip(SLICES).zip(times) {
            quantiles.observe(time);
            self.histogram.with_label_values(&[slice]).observe(time.as_secs_f64());
        }
    }
}

struct Durations {
    slices: Arc<[Quantiles; 4]>,
    description: Desc,
}

impl Collector for Durations {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let mut family = proto::MetricFamily::default();
        family.set_name(DURATION.to_owned());
        family.set_help(DURATION_HELP.to_owned());
        family.set_field_type(proto::MetricType::SUMMARY);
        for (slice, quantiles) in SLICES.iter().zip(self.slices.iter()) {
            let mut label = proto::LabelPair::default();
            label.set_name(SLICE.to_owned());
            label.set_value((*slice).to_owned());
            let mut metric = proto::Metric::default();
            metric.set_label(vec![label]);
            metric.set_summary(quantiles.summary());
            family.mut_metric().push(metric);
        }
        vec![family]
    }
}
