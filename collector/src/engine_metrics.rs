//! What the storage engine tells about itself, read when `/metrics` is asked.

use pharos_tsdb::{Database, Stats};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntCounterVec, Opts, Registry};

/// Refused series by who sends them.
const SERIES_REFUSED: (&str, &str) =
    ("pharos_tsdb_series_refused_total", "New series refused for a limit, by their metric and node");

type Read = fn(&Stats) -> f64;

/// Name, help, whether it is a counter, and where it stands.
const ENGINE_METRICS: &[(&str, &str, bool, Read)] = &[
    ("pharos_tsdb_head_series", "Series in the head", false, |s| s.head_series as f64),
    ("pharos_tsdb_head_groups", "Groups in the head", false, |s| s.head_groups as f64),
    ("pharos_tsdb_head_index_bytes", "Memory for names and indexes of the head's series", false, |s| {
        s.head_index_bytes as f64
    }),
    ("pharos_tsdb_head_sample_bytes", "Memory for samples that are not in blocks", false, |s| {
        s.head_sample_bytes as f64
    }),
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
    ("pharos_tsdb_checkpoint_bytes", "Bytes of checkpoints on disk", false, |s| s.checkpoint_bytes as f64),
    ("pharos_tsdb_checkpoint_written_bytes_total", "Bytes written to checkpoints", true, |s| {
        s.checkpoint_bytes_written as f64
    }),
    ("pharos_tsdb_blocks", "Blocks on disk", false, |s| s.blocks as f64),
    ("pharos_tsdb_block_bytes", "Bytes of blocks on disk", false, |s| s.block_bytes as f64),
    ("pharos_tsdb_block_written_bytes_total", "Bytes written to blocks", true, |s| {
        s.block_bytes_written as f64
    }),
    (
        "pharos_tsdb_index_cache_hits_total",
        "Times that the index of a block was wanted and was in memory",
        true,
        |s| s.index_cache_hits as f64,
    ),
    (
        "pharos_tsdb_index_cache_misses_total",
        "Times that the index of a block was wanted and had to be read",
        true,
        |s| s.index_cache_misses as f64,
    ),
    (
        "pharos_tsdb_index_cache_bytes",
        "Memory for indexes of blocks, beside those that queries are working with",
        false,
        |s| s.index_cache_bytes as f64,
    ),
    ("pharos_tsdb_compactions_total", "Blocks made or merged", true, |s| s.compactions as f64),
    ("pharos_tsdb_compactions_failed_total", "Compactions that failed", true, |s| {
        s.compactions_failed as f64
    }),
    (
        "pharos_tsdb_damaged_bytes",
        "Bytes of files found damaged, those in the folder damaged/ included until somebody removes them",
        false,
        |s| s.damaged_bytes as f64,
    ),
    (
        "pharos_tsdb_blocks_missing",
        "Blocks that are gone though nobody here removed them, until they are back or past retention",
        false,
        |s| s.blocks_missing as f64,
    ),
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
        ENGINE_METRICS.iter().filter_map(family).chain(self.series_refused()).flatten().collect()
    }
}

impl EngineMetrics {
    fn series_refused(&self) -> Option<Vec<MetricFamily>> {
        let (name, help) = SERIES_REFUSED;
        let counters = IntCounterVec::new(Opts::new(name, help), &["culprit"]).ok()?;
        for (culprit, count) in self.database.series_refused() {
            counters.with_label_values(&[&culprit]).inc_by(count);
        }
        Some(counters.collect())
    }
}

/// Adds the engine's metrics to a registry.
///
/// # Errors
/// If one cannot be registered, which no outside input can cause.
pub(crate) fn register(registry: &Registry, database: Database) -> prometheus::Result<()> {
    let plain = |name: &str, help: &str, labels: &[&str]| {
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
    };
    let descriptions = ENGINE_METRICS
        .iter()
        .map(|(name, help, ..)| plain(name, help, &[]))
        .chain([plain(SERIES_REFUSED.0, SERIES_REFUSED.1, &["culprit"])])
        .collect::<prometheus::Result<_>>()?;
    registry.register(Box::new(EngineMetrics { database, descriptions }))
}
