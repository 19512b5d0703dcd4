//! The storage engine alone, in this process: what appends cost, how many bytes a sample takes, what reads
//! cost.

use crate::process::usage;
use crate::progress::Progress;
use anyhow::Context;
use pharos_common::clock::SystemClock;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::storage_io::DiskIo;
use pharos_tests::telemetry::{NodeValues, SERIES_PER_NODE, node_groups};
use pharos_tsdb::{AppendBatch, Database, GroupId, Options, Row, Unlimited};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes of 561 series
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Seconds of data, one sample a second
    #[arg(long, default_value_t = 600)]
    seconds: usize,
    /// Folder for the data; removed before
    #[arg(long, default_value = "/tmp/pharos-bench-engine")]
    folder: PathBuf,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let open = || {
        let options = Options { retention_ms: None, ..Options::default() };
        Database::open(Arc::new(DiskIo), &arguments.folder, options, SystemClock::shared())
    };
    let (database, _) = open()?;
    let layout = node_groups();
    let mut groups: Vec<Vec<GroupId>> = Vec::new();
    for node in 0..arguments.nodes {
        let instance = format!("gpu-node-{node:04}");
        let mut ids = Vec::new();
        for group in &layout {
            let columns: Vec<Labels> = group
                .series
                .iter()
                .map(|series| {
                    let own = [("__name__", series.name.as_str()), ("instance", &instance), ("job", "node")];
                    let more = series.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
                    Labels::from_pairs(own.into_iter().chain(more))
                })
                .collect();
            ids.push(database.define_group(&columns)?);
        }
        groups.push(ids);
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let first_ms = (now_ms - arguments.seconds as i64 * 1_000) / 1_000 * 1_000;
    let mut nodes: Vec<NodeValues> = (0..arguments.nodes as u64).map(NodeValues::new).collect();
    let samples = arguments.nodes * arguments.seconds * SERIES_PER_NODE;
    let pid = std::process::id();

    let mut generating = 0.0;
    let before = usage(pid)?;
    let begin = Instant::now();
    let progress = Progress::new("seconds appended", arguments.seconds as u64);
    for second in 0..arguments.seconds {
        for (number, node) in nodes.iter_mut().enumerate() {
            let start = Instant::now();
            let values = node.tick();
            generating += start.elapsed().as_secs_f64();
            let timestamp_ms = first_ms + second as i64 * 1_000 + (number as i64 * 7) % 900;
            let mut at = 0;
            let rows: Vec<Row<'_>> = layout
                .iter()
                .zip(&groups[number])
                .map(|(group, &id)| {
                    let width = group.series.len();
                    at += width;
                    Row { group: id, timestamp_ms, values: &values[at - width..at] }
                })
                .collect();
            while let Err(error) = database.append(&AppendBatch { rows: &rows, mark: None }) {
                // The disk is slower than this loop; a server would push back on its peers.
                if !matches!(error, pharos_tsdb::TsdbError::Busy(_)) {
                    return Err(error.into());
                }
                std::thread::yield_now();
            }
        }
        progress.add(1);
    }
    drop(progress);
    let appended_wall = begin.elapsed().as_secs_f64();
    let cpu_append = usage(pid)?.cpu_seconds - before.cpu_seconds - generating;
    let stats = database.stats();
    let selects = measure_selects(&database, first_ms, now_ms)?;
    drop(database);
    let before_reopen = usage(pid)?;
    let start = Instant::now();
    let (database, report) = open()?;
    let reopen_seconds = start.elapsed().as_secs_f64();
    let before_flush = usage(pid)?;
    let start = Instant::now();
    database.flush()?;
    let flush_seconds = start.elapsed().as_secs_f64();
    let flushed = database.stats();
    let block_selects = measure_selects(&database, first_ms, now_ms)?;
    let after = usage(pid)?;
    Ok(serde_json::json!({
        "bench": "engine",
        "samples": samples,
        "samples_per_cpu_second": (samples as f64 / cpu_append).round(),
        "append_wall_seconds": appended_wall,
        "journal_bytes_per_sample": stats.journal_bytes_written as f64 / samples as f64,
        "checkpoint_bytes_per_sample": stats.checkpoint_bytes_written as f64 / samples as f64,
        "checkpoints": stats.checkpoints,
        "head_bytes_per_sample": (stats.head_index_bytes + stats.head_sample_bytes) as f64 / samples as f64,
        "head_select_ms": selects,
        "reopen_seconds": reopen_seconds,
        "reopen_cpu_seconds": before_flush.cpu_seconds - before_reopen.cpu_seconds,
        "checkpoint_samples": report.checkpoint_samples,
        "replayed_samples": report.replayed_samples,
        "flush_seconds": flush_seconds,
        "flush_samples_per_cpu_second":
            (samples as f64 / (after.cpu_seconds - before_flush.cpu_seconds)).round(),
        "block_bytes_per_sample": flushed.block_bytes as f64 / samples as f64,
        "block_select_ms": block_selects,
        "peak_memory_mib": after.peak_bytes >> 20,
        "written_bytes": after.written_bytes - before.written_bytes,
    }))
}

fn measure_selects(database: &Database, start_ms: i64, end_ms: i64) -> anyhow::Result<serde_json::Value> {
    let mut times = serde_json::Map::new();
    for (name, metric, window_ms) in [
        ("one_metric_5m", "DCGM_FI_DEV_GPU_UTIL", 300_000),
        ("one_metric_all", "DCGM_FI_DEV_POWER_USAGE", end_ms - start_ms),
        ("cpu_5m", "node_cpu_seconds_total", 300_000),
    ] {
        let matchers = [Matcher::equal("__name__", metric)];
        let mut best = f64::MAX;
        for _ in 0..5 {
            let begin = Instant::now();
            let series = database.select(&matchers, end_ms - window_ms, end_ms, &Unlimited)?;
            best = best.min(begin.elapsed().as_secs_f64() * 1_000.0);
            series.first().with_context(|| format!("{metric} is not there"))?;
        }
        times.insert(name.to_owned(), best.into());
    }
    Ok(times.into())
}
