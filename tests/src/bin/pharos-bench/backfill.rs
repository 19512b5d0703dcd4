//! Loads days of past data into a running server as fast as it takes them, in time order.

use crate::feed::{Load, now_ms};
use crate::process::usage;
use crate::server::wait_for_flush;
use anyhow::{Context, bail};
use pharos_proto::v1::Lane;
use pharos_tests::data::Data;
use pharos_tests::telemetry::Part;
use serde_json::json;
use std::time::Instant;

const DAY_SECONDS: usize = 86_400;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Days of data at one sample a second, up to now
    #[arg(long, default_value_t = 30.0)]
    days: f64,
    /// Series at least; nodes are added until there are as many
    #[arg(long, default_value_t = 1_000)]
    series: usize,
    /// Series of this metric alone, so that one query reads them all; without it, all 561 of a node
    #[arg(long)]
    metric: Option<String>,
    /// By remote write instead of the native stream's backfill lane
    #[arg(long)]
    remote_write: bool,
    /// Seconds of a node that travel together
    #[arg(long, default_value_t = 300)]
    batch: usize,
    /// Process whose CPU time and memory are measured
    #[arg(long)]
    server_pid: Option<u32>,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:9490")]
    address: String,
    /// Has the collector write its blocks at the end
    #[arg(long)]
    flush: bool,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    let data = Data::Model(Part { histogram: false, only: arguments.metric.clone() });
    let per_node = data.series_per_node();
    if per_node == 0 {
        bail!("no node has a metric {:?}", arguments.metric);
    }
    let nodes = arguments.series.div_ceil(per_node);
    let seconds = (arguments.days * DAY_SECONDS as f64) as usize;
    let first_ms = now_ms()? / 1_000 * 1_000 - (seconds as i64 + 1) * 1_000;
    let load = Load { data, nodes, seconds, first_ms, batch: arguments.batch };
    let measure = || arguments.server_pid.map(usage).transpose().context("--server-pid");
    let before = measure()?;
    let begin = Instant::now();
    load.send((!arguments.remote_write).then_some(Lane::Backfill), &arguments.address)?;
    let sent_seconds = begin.elapsed().as_secs_f64();
    if arguments.flush {
        wait_for_flush(&arguments.address)?;
    }
    let after = measure()?;
    let samples = load.samples() as f64;
    let mut result = json!({
        "bench": "backfill",
        "samples": samples,
        "series": nodes * per_node,
        "nodes": nodes,
        "first_ms": first_ms,
        "last_ms": load.timestamp_ms(nodes - 1, seconds),
        "sent_seconds": sent_seconds,
        "samples_per_second": (samples / sent_seconds).round(),
        "seconds_with_flush": begin.elapsed().as_secs_f64(),
    });
    if let (Some(before), Some(after)) = (before, after) {
        let cpu = after.cpu_seconds - before.cpu_seconds;
        result["samples_per_server_cpu_second"] = json!((samples / cpu).round());
        result["server_peak_memory_mib"] = json!(after.peak_bytes >> 20);
        result["server_written_bytes_per_sample"] =
            json!((after.written_bytes - before.written_bytes) as f64 / samples);
    }
    Ok(result)
}
