//! Metrics of the agent about itself, `pharos_agent_*`.

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Why a frame never reached a collector; also the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The journal's thread was too far behind to take it.
    JournalBusy,
    /// It could neither be journalled nor sent.
    JournalFailed,
    /// The journal was full and it was the oldest in it.
    JournalFull,
    /// It was older than the journal's age limit.
    TooOld,
    /// Its place in the journal is damaged.
    Damaged,
    /// A collector refuses it for good; it is set aside.
    Refused,
}

impl LossReason {
    fn label(self) -> &'static str {
        match self {
            LossReason::JournalBusy => "journal_busy",
            LossReason::JournalFailed => "journal_failed",
            LossReason::JournalFull => "journal_full",
            LossReason::TooOld => "too_old",
            LossReason::Damaged => "damaged",
            LossReason::Refused => "refused",
        }
    }

    pub(crate) const ALL: [LossReason; 6] = [
        LossReason::JournalBusy,
        LossReason::JournalFailed,
        LossReason::JournalFull,
        LossReason::TooOld,
        LossReason::Damaged,
        LossReason::Refused,
    ];
}

/// All of them; cheap to clone, clones share the numbers.
#[derive(Clone, Debug)]
pub struct OwnMetrics {
    /// GPUs found.
    pub gpus: IntGauge,
    /// Samples taken.
    pub samples: IntCounter,
    /// Ticks that a sampler could not keep.
    pub missed_ticks: IntCounter,
    /// Samplers whose reading has outlasted its interval, by name.
    pub hung: IntGaugeVec,
    /// Frames written to the journal.
    pub frames: IntCounter,
    lost: IntCounterVec,
    /// Bytes of the journal's files.
    pub journal_bytes: IntGauge,
    /// Failed writes to the journal.
    pub journal_errors: IntCounter,
    /// Frames that wait to be backfilled.
    pub backfill_frames: IntGauge,
    /// Whether a collector takes frames now.
    pub connected: IntGauge,
    /// Connections made.
    pub connections: IntCounter,
    /// Connections that failed or broke.
    pub connection_failures: IntCounter,
    /// Frames acknowledged, by lane.
    pub acknowledged: IntCounterVec,
    /// Hints received.
    pub hints: IntCounter,
    /// Seconds from reading to reading, by sampler.
    pub intervals: GaugeVec,
    /// Changes of the interval, by sampler and reason.
    pub rate_changes: IntCounterVec,
    /// Share of a core that sampling and journal used lately.
    pub cpu_used: Gauge,
    /// Share of a core that they may use; 0 is no limit.
    pub cpu_budget: Gauge,
    /// Series ended because no reading came in time.
    pub expired: IntCounter,
    /// Steps of the wall clock, by direction.
    pub clock_steps: IntCounterVec,
    /// Times that the machine was suspended.
    pub suspends: IntCounter,
    /// Times that the node was found under another name than before.
    pub renames: IntCounter,
    /// Times that the flight recorder was shipped.
    pub recorder_dumps: IntCounter,
    /// Samples of the flight recorder shipped.
    pub recorder_samples: IntCounter,
    /// When the configuration was loaded last.
    pub config_loaded: Gauge,
    /// Whether the last load succeeded.
    pub config_ok: IntGauge,
}

impl OwnMetrics {
    /// Creates and registers them.
    ///
    /// # Errors
    /// If one is registered already, which no outside input can cause.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let counters = |name: &str, help: &str, label: &str| {
            let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let hung = IntGaugeVec::new(
            Opts::new(
                "pharos_agent_sampler_hung",
                "Whether a reading of the sampler has outlasted its interval.",
            ),
            &["sampler"],
        )?;
        registry.register(Box::new(hung.clone()))?;
        let config_loaded = Gauge::new(
            "pharos_agent_config_last_reload_success_timestamp_seconds",
            "When the configuration was last loaded without an error.",
        )?;
        registry.register(Box::new(config_loaded.clone()))?;
        let intervals = GaugeVec::new(
            Opts::new(
                "pharos_agent_sampler_interval_seconds",
                "Seconds from reading to reading of the sampler.",
            ),
            &["sampler"],
        )?;
        registry.register(Box::new(intervals.clone()))?;
        let rate_changes = IntCounterVec::new(
            Opts::new(
                "pharos_agent_sampler_rate_changes_total",
                "Changes of the sampler's interval, by the reason for the new one.",
            ),
            &["sampler", "reason"],
        )?;
        registry.register(Box::new(rate_changes.clone()))?;
        let float = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            prometheus::Result::Ok(gauge)
        };
        let metrics = OwnMetrics {
            intervals,
            rate_changes,
            cpu_used: float(
                "pharos_agent_cpu_used_ratio",
                "Share of a core that sampling and journal used in the last seconds.",
            )?,
            cpu_budget: float(
                "pharos_agent_cpu_budget_ratio",
                "Share of a core that sampling and journal may use; 0 is no limit.",
            )?,
            expired: counter(
                "pharos_agent_expired_series_total",
                "Series that were ended because no reading came in time.",
            )?,
            clock_steps: counters(
                "pharos_agent_clock_steps_total",
                "Steps of the wall clock, by direction.",
                "direction",
            )?,
            suspends: counter("pharos_agent_suspends_total", "Times that the machine was suspended.")?,
            renames: counter(
                "pharos_agent_node_renames_total",
                "Times that the node was found under another name than before.",
            )?,
            recorder_dumps: counter(
                "pharos_agent_recorder_dumps_total",
                "Times that the flight recorder was shipped.",
            )?,
            recorder_samples: counter(
                "pharos_agent_recorder_samples_total",
                "Samples of the flight recorder that were shipped.",
            )?,
            gpus: gauge("pharos_agent_gpus", "GPUs found on this node.")?,
            samples: counter("pharos_agent_samples_total", "Samples taken.")?,
            missed_ticks: counter(
                "pharos_agent_missed_ticks_total",
                "Ticks that samplers could not keep because a reading took too long or the machine stood still.",
            )?,
            hung,
            frames: counter("pharos_agent_journal_frames_total", "Frames written to the journal.")?,
            lost: counters(
                "pharos_agent_frames_lost_total",
                "Frames that no collector will get, by reason.",
                "reason",
            )?,
            journal_bytes: gauge("pharos_agent_journal_bytes", "Size of the journal's files.")?,
            journal_errors: counter(
                "pharos_agent_journal_errors_total",
                "Failed operations on the journal.",
            )?,
            backfill_frames: gauge(
                "pharos_agent_backfill_frames",
                "Frames in the journal that wait to be sent on the backfill lane.",
            )?,
            connected: gauge("pharos_agent_connected", "Whether a collector takes frames now.")?,
            connections: counter("pharos_agent_connections_total", "Connections to collectors made.")?,
            connection_failures: counter(
                "pharos_agent_connection_failures_total",
                "Connections to collectors that could not be made or broke.",
            )?,
            acknowledged: counters(
                "pharos_agent_frames_acknowledged_total",
                "Frames that a collector has made durable, by lane.",
                "lane",
            )?,
            hints: counter(
                "pharos_agent_hints_total",
                "Hints from collectors about series near a threshold.",
            )?,
            config_loaded,
            config_ok: gauge(
                "pharos_agent_config_last_reload_successful",
                "Whether the last attempt to load the configuration succeeded.",
            )?,
        };
        // Counters that are there from the start can be alerted on.
        for reason in LossReason::ALL {
            metrics.lost.with_label_values(&[reason.label()]);
        }
        for direction in ["forward", "back"] {
            metrics.clock_steps.with_label_values(&[direction]);
        }
        for lane in ["live", "backfill"] {
            metrics.acknowledged.with_label_values(&[lane]);
        }
        Ok(metrics)
    }

    /// Counts frames that no collector will get.
    pub fn lose(&self, reason: LossReason, frames: u64) {
        if frames > 0 {
            self.lost.with_label_values(&[reason.label()]).inc_by(frames);
        }
    }

    /// Frames lost so far for a reason.
    pub fn lost(&self, reason: LossReason) -> u64 {
        self.lost.with_label_values(&[reason.label()]).get()
    }
}
