//! What the storage engine tells about itself, read when `/metrics` is asked.

use pharos_tsdb::{Database, Stats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Registry};

type Read = fn(&Stats) -> f64;

/// Name, help, whether it is a counter, and where it stands.
const ENGINE_METRICS: &[(&str, &str, bool, Read)] = &[
    ("pharos_tsdb_head_series", "Series in the head", false, |s| s.head_series as f64),
    ("pharos_tsdb_head_groups", "Groups in the head", false, |s| s.head_groups as f64),
    ("pharos_tsdb_samples_appended_total", "Samples stored", true, |s| s.samples_appended as f64),
    (
        "pharos_tsdb_samples_late_total",
        "Samples stored that were older than their series' newest",
        true,
        |s| s.samples_late as f64,
    ),
    ("pharos_tsdb_samples_duplicate_total", "Samples that were there already", true, |s| {
        s.samples_duplicate as f64
    }),
    ("pharos_tsdb_samples_too_old_total", "Samples refused for being older than retention", true, |s| {
        s.samples_too_old as f64
    }),
    ("pharos_tsdb_samples_too_new_total", "Samples refused for being too far ahead", true, |s| {
        s.samples_too_new as f64
    }),
    ("pharos_tsdb_journal_bytes", "Bytes of journal on disk", false, |s| s.journal_bytes as f64),
    ("pharos_tsdb_journal_written_bytes_total", "Bytes written to the journal", true, |s| {
        s.journal_bytes_written as f64
    }),
    ("pharos_tsdb_journal_syncs_total", "Times the journal was synced", true, |s| s.journal_syncs as f64),
    ("pharos_tsdb_checkpoints_total", "Checkpoints written", true, |s| s.checkpoints as f64),
    ("pharos_tsdb_checkpoint_written_bytes_total", "Bytes written to checkpoints", true, |s| {
        s.checkpoint_bytes_written as f64
    }),
    ("pharos_tsdb_blocks", "Blocks on disk", false, |s| s.blocks as f64),
    ("pharos_tsdb_block_bytes", "Bytes of blocks on disk", false, |s| s.block_bytes as f64),
    ("pharos_tsdb_block_written_bytes_total", "Bytes written to blocks", true, |s| {
        s.block_bytes_written as f64
    }),
    ("pharos_tsdb_compactions_total", "Blocks made or merged", true, |s| s.compactions as f64),
    ("pharos_tsdb_compactions_failed_total", "Compactions that failed", true, |s| {
        s.compactions_failed as f64
    }),
    ("pharos_tsdb_damaged_bytes", "Bytes of journal or blocks found damaged", false, |s| {
        s.damaged_bytes as f64
    }),
];

struct EngineMetrics {
    database: Database,
    descriptions: Vec<Desc>,
}

impl Collector for EngineMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let stats = self.database.stats();
        let family = |&(name, help, is_counter, read): &(&str, &str, bool, Read)| {
            let value = read(&stats);
            if is_counter {
                let counter = Counter::new(name, help).ok()?;
                counter.inc_by(value.max(0.0));
                Some(counter.collect())
            } else {
                let gauge = Gauge::new(name, help).ok()?;
                gauge.set(value);
                Some(gauge.collect())
            }
        };
        ENGINE_METRICS.iter().filter_map(family).flatten().collect()
    }
}

/// Adds the engine's metrics to a registry.
///
/// # Errors
/// If one cannot be registered, which no outside input can cause.
pub(crate) fn register(registry: &Registry, database: Database) -> prometheus::Result<()> {
    let descriptions = ENGINE_METRICS
        .iter()
        .map(|(name, help, ..)| {
            Desc::new((*name).to_owned(), (*help).to_owned(), Vec::new(), Default::default())
        })
        .collect::<prometheus::Result<_>>()?;
    registry.register(Box::new(EngineMetrics { database, descriptions }))
}
