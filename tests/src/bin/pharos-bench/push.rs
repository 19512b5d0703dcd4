//! Pushes telemetry to a running server as fast as it takes it, and measures what that costs the server.

use crate::feed::{Load, now_ms};
use crate::process::usage;
use anyhow::{Context, bail};
use pharos_proto::v1::Lane;
use pharos_tests::data::Data;
use pharos_tests::recording::Recording;
use pharos_tests::telemetry::Part;
use std::time::Instant;

/// What is sent.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Choice {
    /// A GPU node by arithmetic, 561 series
    Model,
    /// node_exporter on a real machine, replayed
    Recording,
}

impl Choice {
    /// The data.
    pub(crate) fn data(self) -> anyhow::Result<Data> {
        Ok(match self {
            Choice::Model => Data::Model(Part::default()),
            Choice::Recording => Data::Recording(Recording::shipped().context("the recording")?),
        })
    }
}

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// By the native stream, one connection a node
    #[arg(long, conflicts_with = "remote_write")]
    native: bool,
    /// By remote write 1.0, one tick of one node a request
    #[arg(long)]
    remote_write: bool,
    /// What is sent
    #[arg(long, value_enum, default_value = "model")]
    data: Choice,
    /// Simulated nodes
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Seconds of data, one sample a second, up to now
    #[arg(long, default_value_t = 120)]
    seconds: usize,
    /// Process whose CPU time and memory are measured
    #[arg(long)]
    server_pid: u32,
    /// Where the server listens
    #[arg(long, default_value = "127.0.0.1:9490")]
    address: String,
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<serde_json::Value> {
    if arguments.native == arguments.remote_write {
        bail!("choose one of --native and --remote-write");
    }
    let first_ms = now_ms()? / 1_000 * 1_000 - (arguments.seconds as i64 + 1) * 1_000;
    let (nodes, seconds) = (arguments.nodes, arguments.seconds);
    let load = Load { data: arguments.data.data()?, nodes, seconds, first_ms, batch: 1 };
    let before = usage(arguments.server_pid).context("--server-pid")?;
    let begin = Instant::now();
    load.send(arguments.native.then_some(Lane::Live), &arguments.address)?;
    let wall = begin.elapsed().as_secs_f64();
    let after = usage(arguments.server_pid)?;
    let samples = load.samples() as f64;
    let cpu = after.cpu_seconds - before.cpu_seconds;
    Ok(serde_json::json!({
        "bench": "push",
        "protocol": if arguments.native { "native" } else { "remote-write" },
        "samples": samples,
        "wall_seconds": wall,
        "samples_per_second": (samples / wall).round(),
        "server_cpu_seconds": cpu,
        "samples_per_server_cpu_second": (samples / cpu).round(),
        "server_peak_memory_mib": after.peak_bytes >> 20,
        "server_written_bytes_per_sample": (after.written_bytes - before.written_bytes) as f64 / samples,
    }))
}
