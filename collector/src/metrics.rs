//! What the collector tells about itself at `/metrics`.

use crate::query_metrics::QueryMetrics;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// All self metrics that code paths touch. Those of the storage engine are read when scraped
/// ([`crate::engine_metrics`]).
#[derive(Debug)]
pub struct Metrics {
    /// Samples stored, by the door they came through.
    pub samples: IntCounterVec,
    /// Samples refused, by reason.
    pub samples_refused: IntCounterVec,
    /// Frames of streams that were there already.
    pub frames_repeated: IntCounter,
    /// Frames of streams that were stored.
    pub frames: IntCounter,
    /// Streams that are connected.
    pub streams: IntGauge,
    /// Streams ended for a fault of the peer, by reason.
    pub streams_failed: IntCounterVec,
    /// Writes refused, by status code.
    pub writes_refused: IntCounterVec,
    /// Times a sender was held back for its rate of samples, by sender.
    pub rate_limited: IntCounterVec,
    /// Nodes that reported within the last day.
    pub nodes_seen: IntGauge,
    /// Failures to learn from Kubernetes which nodes there are.
    pub kubernetes_failures: IntCounter,
    /// Nodes that should report, of the file and of Kubernetes.
    pub nodes_expected: IntGauge,
    /// Nodes that report now.
    pub nodes_reporting: IntGauge,
    /// Samples looked at by threshold rules.
    pub samples_judged: IntCounter,
    /// Samples of watched series that were not judged, by reason.
    pub samples_not_judged: IntCounterVec,
    /// From a sample's timestamp to the decision on it.
    pub decision_age: Histogram,
    /// From a sample's arrival to the decision on it.
    pub decision_latency: Histogram,
    /// Rule evaluations, by outcome.
    pub rule_evaluations: IntCounterVec,
    /// Interval evaluations that were skipped since the one before was still running.
    pub rule_intervals_missed: IntCounter,
    /// Selections of interval rules answered by what another rule of the evaluation read.
    pub rule_reads_shared: IntCounter,
    /// Alerts sent, by alertmanager.
    pub alerts_sent: IntCounterVec,
    /// Requests to alertmanagers that failed, by alertmanager.
    pub alerts_failed: IntCounterVec,
    /// Alerts dropped since a queue was full.
    pub alerts_dropped: IntCounterVec,
    /// Alerts that wait, by alertmanager.
    pub alerts_queued: IntGaugeVec,
    /// Changes of a queue of alerts that are not on disk.
    pub alert_queue_errors: IntCounter,
    /// Time of a request to an alertmanager.
    pub alert_request_seconds: Histogram,
    /// From the arrival of the sample that decided an alert until it was durable.
    pub alert_durable: Histogram,
    /// From the decision on an alert until an alertmanager had taken it.
    pub alert_sent: Histogram,
    /// Hints sent to agents.
    pub hints_sent: IntCounter,
    /// Queries, by endpoint and outcome.
    pub queries: IntCounterVec,
    /// Queries that are evaluated now.
    pub queries_running: IntGauge,
    /// Time of a query with everything.
    pub query_seconds: Histogram,
    /// Whether the last reload succeeded.
    pub config_last_reload_successful: IntGauge,
    /// When the configuration was last loaded.
    pub config_last_reload_seconds: IntGauge,
    /// Those of the query engine under Prometheus' names.
    pub engine: QueryMetrics,
}

impl Metrics {
    /// Makes and registers all.
    ///
    /// # Errors
    /// If one cannot be registered, which no outside input can cause.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name: &str, help: &str, label: &str| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let gauges = |name: &str, help: &str, label: &str| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let seconds = |name: &str, help: &str| -> prometheus::Result<Histogram> {
            let buckets = vec![
                0.000_1, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
                60.0,
            ];
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Metrics {
            samples: counters(
                "pharos_collector_samples_total",
                "Samples stored, by the door they came through",
                "source",
            )?,
            samples_refused: counters(
                "pharos_collector_samples_refused_total",
                "Samples refused, by reason",
                "reason",
            )?,
            frames: counter("pharos_collector_frames_total", "Frames of agents stored")?,
            frames_repeated: counter(
                "pharos_collector_frames_repeated_total",
                "Frames of agents that were stored already",
            )?,
            streams: gauge("pharos_collector_streams", "Agents connected")?,
            streams_failed: counters(
                "pharos_collector_streams_failed_total",
                "Agent streams ended for a fault, by status code",
                "code",
            )?,
            writes_refused: counters(
                "pharos_collector_writes_refused_total",
                "Writes by HTTP refused, by status code",
                "code",
            )?,
            rate_limited: counters(
                "pharos_collector_rate_limited_total",
                "Times a sender was held back for sending more samples a second than permitted",
                "sender",
            )?,
            nodes_seen: gauge("pharos_collector_nodes_seen", "Nodes that reported within the last day")?,
            nodes_expected: gauge(
                "pharos_collector_nodes_expected",
                "Nodes that should report, of the file and of Kubernetes",
            )?,
            kubernetes_failures: counter(
                "pharos_collector_kubernetes_failures_total",
                "Failures to learn from Kubernetes which nodes there are",
            )?,
            nodes_reporting: gauge("pharos_collector_nodes_reporting", "Nodes that report now")?,
            samples_judged: counter(
                "pharos_collector_rule_samples_judged_total",
                "Samples judged by threshold rules when they arrived",
            )?,
            samples_not_judged: counters(
                "pharos_collector_rule_samples_not_judged_total",
                "Samples of watched series that were stored but not judged, by reason",
                "reason",
            )?,
            decision_age: seconds(
                "pharos_collector_rule_decision_age_seconds",
                "Time from a sample's timestamp to the decision on it",
            )?,
            decision_latency: seconds(
                "pharos_collector_rule_decision_latency_seconds",
                "Time from a sample's arrival to the decision on it",
            )?,
            rule_evaluations: counters(
                "pharos_collector_rule_evaluations_total",
                "Rule evaluations on the interval, by outcome",
                "outcome",
            )?,
            rule_intervals_missed: counter(
                "pharos_collector_rule_group_iterations_missed_total",
                "Group intervals skipped since the evaluation before was still running",
            )?,
            rule_reads_shared: counter(
                "pharos_collector_rule_reads_shared_total",
                "Selections of interval rules answered by what another rule of the same evaluation had read",
            )?,
            alerts_sent: counters(
                "pharos_collector_alerts_sent_total",
                "Alerts taken by an alertmanager",
                "alertmanager",
            )?,
            alerts_failed: counters(
                "pharos_collector_alert_requests_failed_total",
                "Requests to an alertmanager that failed",
                "alertmanager",
            )?,
            alerts_dropped: counters(
                "pharos_collector_alerts_dropped_total",
                "Alerts dropped since the queue of an alertmanager was full",
                "alertmanager",
            )?,
            alerts_queued: gauges(
                "pharos_collector_alerts_queued",
                "Alerts that wait for an alertmanager to take them",
                "alertmanager",
            )?,
            alert_queue_errors: counter(
                "pharos_collector_alert_queue_errors_total",
                "Changes of a queue of alerts that could not be written to disk",
            )?,
            alert_request_seconds: seconds(
                "pharos_collector_alert_request_seconds",
                "Time of a request to an alertmanager",
            )?,
            alert_durable: seconds(
                "pharos_collector_alert_durable_seconds",
                "Time from the arrival of the sample that decided an alert until it was durable",
            )?,
            alert_sent: seconds(
                "pharos_collector_alert_sent_seconds",
                "Time from the decision on an alert until an alertmanager had taken it",
            )?,
            hints_sent: counter(
                "pharos_collector_hints_sent_total",
                "Hints sent to agents: series that came near a threshold or left it",
            )?,
            queries: counters("pharos_collector_queries_total", "Queries, by outcome", "outcome")?,
            queries_running: gauge("pharos_collector_queries_running", "Queries that are evaluated now")?,
            query_seconds: seconds("pharos_collector_query_seconds", "Time of a query, waiting included")?,
            config_last_reload_successful: gauge(
                "pharos_collector_config_last_reload_successful",
                "Whether the last load of the configuration succeeded",
            )?,
            config_last_reload_seconds: gauge(
                "pharos_collector_config_last_reload_success_timestamp_seconds",
                "When the configuration was last loaded",
            )?,
            engine: QueryMetrics::register(registry)?,
        })
    }
}
