//! Metrics of the alertmanager about itself: Alertmanager's names where it has them, `pharos_` for the
//! rest. Every reason for which something is not told is a label value.

use crate::stages::Reason;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) alerts: IntGaugeVec,
    pub(crate) alerts_received: IntCounterVec,
    pub(crate) alerts_invalid: IntCounterVec,
    pub(crate) silences: IntGaugeVec,
    pub(crate) groups: IntGauge,
    pub(crate) notifications: IntCounterVec,
    pub(crate) notifications_failed: IntCounterVec,
    pub(crate) attempts: IntCounterVec,
    pub(crate) latency: Histogram,
    pub(crate) dropped: IntCounterVec,
    pub(crate) escalations: IntGaugeVec,
    pub(crate) acknowledgements: IntCounterVec,
    pub(crate) remediations: IntCounterVec,
    pub(crate) remediations_refused: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) in_doubt: IntGauge,
    pub(crate) config_ok: IntGauge,
    pub(crate) config_time: IntGauge,
    pub(crate) state_set_aside: IntGauge,
    pub(crate) state_damaged_records: IntGauge,
    pub(crate) state_failed_writes: IntGauge,
    pub(crate) state_refuses: IntGauge,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok(counters)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let latency = Histogram::with_opts(
            HistogramOpts::new(
                "alertmanager_notification_latency_seconds",
                "Time from the decision to send a notification to its delivery",
            )
            .buckets(vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0]),
        )?;
        registry.register(Box::new(latency.clone()))?;
        Ok(Metrics {
            alerts: gauges("alertmanager_alerts", "Alerts by state", &["state"])?,
            alerts_received: counters(
                "alertmanager_alerts_received_total",
                "Alerts received",
                &["status", "version"],
            )?,
            alerts_invalid: counters(
                "alertmanager_alerts_invalid_total",
                "Alerts received that were invalid",
                &["version"],
            )?,
            silences: gauges("alertmanager_silences", "Silences by state", &["state"])?,
            groups: gauge("alertmanager_dispatcher_aggregation_groups", "Active groups")?,
            notifications: counters(
                "alertmanager_notifications_total",
                "Notifications that were to be delivered",
                &["integration", "receiver_name"],
            )?,
            notifications_failed: counters(
                "alertmanager_notifications_failed_total",
                "Notifications that were given up, by reason",
                &["integration", "receiver_name", "reason"],
            )?,
            attempts: counters(
                "alertmanager_notification_requests_total",
                "Attempts to deliver, retries included",
                &["integration", "receiver_name"],
            )?,
            latency,
            dropped: counters(
                "pharos_alertmanager_alerts_dropped_total",
                "Alerts that a flush did not tell, by reason",
                &["reason"],
            )?,
            escalations: gauges(
                "pharos_alertmanager_escalations",
                "Running escalations by state",
                &["state"],
            )?,
            acknowledgements: counters(
                "pharos_alertmanager_acknowledgements_total",
                "Acknowledgements given, taken back, expired or ended by a resolve",
                &["event"],
            )?,
            remediations: counters(
                "pharos_alertmanager_remediations_total",
                "Remediations by policy and the state they came to",
                &["policy", "state"],
            )?,
            remediations_refused: counters(
                "pharos_alertmanager_remediations_refused_total",
                "Remediations that a limit forbade",
                &["policy", "limit"],
            )?,
            in_flight: gauge(
                "pharos_alertmanager_notifications_in_flight",
                "Notifications that are being delivered, waiting for their turn or another attempt included",
            )?,
            in_doubt: gauge(
                "pharos_alertmanager_notifications_in_doubt",
                "Notifications that were in flight when the program was last killed",
            )?,
            config_ok: gauge(
                "alertmanager_config_last_reload_successful",
                "Whether the last attempt to load the configuration succeeded",
            )?,
            config_time: gauge(
                "alertmanager_config_last_reload_success_timestamp_seconds",
                "When the configuration was last loaded",
            )?,
            state_set_aside: gauge(
                "pharos_alertmanager_state_set_aside",
                "Whether the state folder was damaged and set aside at the start",
            )?,
            state_damaged_records: gauge(
                "pharos_alertmanager_state_damaged_records",
                "Records of the state folder that cannot be read",
            )?,
            state_refuses: gauge(
                "pharos_alertmanager_state_refuses_writes",
                "Whether nothing can be made durable at present",
            )?,
            state_failed_writes: gauge(
                "pharos_alertmanager_state_failed_writes",
                "Writes that the state folder refused",
            )?,
        })
    }

    pub(crate) fn dropped(&self, reason: Reason, alerts: usize) {
        self.dropped.with_label_values(&[reason.as_str()]).inc_by(alerts as u64);
    }
}
