//! What a day of one node takes on disk and in CPU time: our agent's series in our collector, node_exporter's in the
//! peers. Recordings of both, made on one machine at the same time, are walked through back and forth
//! (`pharos_tests::recording::Walk`) until they last a day.
//!
//! Every tick is a request of its own, or a frame, as it is live. The day is a whole day of UTC, as most days of
//! a month are when they have come to rest: each server has written everything out, and merged it, before it is
//! measured, and every sample is asked for. A second run of ours takes node_exporter's very series, so that the
//! bytes of a sample can be compared with nothing else between.

use crate::compare::stored;
use crate::feed::{Load, now_ms};
use crate::process::usage;
use crate::server::{Kind, Server, folder_bytes};
use anyhow::{Context, bail};
use pharos_proto::v1::Lane;
use pharos_tests::data::Data;
use pharos_tests::recording::Recording;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const HOUR_SECONDS: usize = 3_600;
const DAY_MS: i64 = 86_400_000;
const DAY_HOURS: f64 = 24.0;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long the recordings are made to last, up to the midnight before now
    #[arg(long, default_value_t = DAY_HOURS)]
    hours: f64,
    /// Recording of node_exporter
    #[arg(long, default_value = "tests/data/node_exporter-hour.rec")]
    node_exporter: PathBuf,
    /// Recording of the agent's page, made at the same time
    #[arg(long, default_value = "tests/data/agent-hour.rec")]
    agent: PathBuf,
    /// Who takes part
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Contestant::ALL)]
    servers: Vec<Contestant>,
    /// Folder for the servers' data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-node-day")]
    folder: PathBuf,
}

/// A server, and whose series it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Contestant {
    /// node_exporter's series by remote write
    VictoriaMetrics,
    /// node_exporter's series by remote write
    Prometheus,
    /// The agent's series by the native stream
    Pharos,
    /// node_exporter's series by the native stream
    PharosSameSeries,
}

impl Contestant {
    const ALL: [Contestant; 4] = [
        Contestant::VictoriaMetrics,
        Contestant::Prometheus,
        Contestant::Pharos,
        Contestant::PharosSameSeries,
    ];

    fn kind(self) -> Kind {
        match self {
            Contestant::VictoriaMetrics => Kind::VictoriaMetrics,
            Contestant::Prometheus => Kind::Prometheus,
            Contestant::Pharos | Contestant::PharosSameSeries => Kind::Pharos,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Contestant::VictoriaMetrics => "victoria-metrics",
            Contestant::Prometheus => "prometheus",
            Contestant::Pharos => "pharos",
            Contestant::PharosSameSeries => "pharos-same-series",
        }
    }
}

impl std::fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is compared, and how it reads in the table.
const FIGURES: [(&str, &str); 8] = [
    ("series", "series"),
    ("samples", "samples"),
    ("data_mb_per_node_day", "data and index, MB a node and day"),
    ("folder_mb_per_node_day", "all of its folder, MB"),
    ("data_bytes_per_sample", "data and index, bytes a sample"),
    ("written_bytes_per_sample", "handed to the disk, bytes a sample"),
    ("cpu_seconds_per_node_day", "CPU, s a node and day, writing out and merging included"),
    ("peak_memory_mib", "peak memory, MiB"),
];

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let read = |path: &Path| -> anyhow::Result<Arc<Recording>> {
        let file = std::fs::read(path).with_context(|| path.display().to_string())?;
        Ok(Arc::new(Recording::read(&file).with_context(|| path.display().to_string())?))
    };
    let (exporter, agent) = (read(&arguments.node_exporter)?, read(&arguments.agent)?);
    let mut results = Map::new();
    for (number, &contestant) in arguments.servers.iter().enumerate() {
        eprintln!("{} of {}: {contestant}", number + 1, arguments.servers.len());
        let recording = if contestant == Contestant::Pharos { &agent } else { &exporter };
        let measured = measure(contestant, recording, arguments).context(contestant.name())?;
        results.insert(contestant.name().to_owned(), measured);
    }
    let _ = std::fs::remove_dir_all(&arguments.folder);
    print_table(&results);
    Ok(json!({"bench": "node-day", "hours": arguments.hours, "recorded_seconds": exporter.seconds(),
        "results": results, "pharos_by_victoria_metrics": ratios(&results, "victoria-metrics"),
        "pharos_by_prometheus": ratios(&results, "prometheus")}))
}

fn measure(
    contestant: Contestant,
    recording: &Arc<Recording>,
    arguments: &Arguments,
) -> anyhow::Result<Value> {
    let seconds = (arguments.hours * HOUR_SECONDS as f64) as usize;
    let midnight_ms = now_ms()? / DAY_MS * DAY_MS;
    // The node's phase is a millisecond: its first sample is behind the whole second, its last before midnight.
    let first_ms = midnight_ms - (seconds as i64 + 1) * 1_000;
    let load = Load { data: Data::Walk(Arc::clone(recording)), nodes: 1, seconds, first_ms, batch: 1 };
    let samples = load.samples() as f64;
    let folder = arguments.folder.join(contestant.name());
    let server = Server::start(contestant.kind(), &folder)?;
    let before = usage(server.pid())?;
    let begin = Instant::now();
    load.send((contestant.kind() == Kind::Pharos).then_some(Lane::Live), &server.address)?;
    let pushed = usage(server.pid())?;
    let push_seconds = begin.elapsed().as_secs_f64();
    server.flush()?;
    let dense_bytes = server.dense_bytes()?;
    let after = usage(server.pid())?;
    let there = stored(&mut server.http(), &load)?;
    if there != load.samples() {
        bail!("{there} of {samples} samples are stored");
    }
    let data = folder.join("data");
    let data_bytes = match contestant.kind() {
        Kind::Pharos => folder_bytes(&data.join("blocks"))?,
        Kind::VictoriaMetrics => folder_bytes(&data.join("data"))? + folder_bytes(&data.join("indexdb"))?,
        Kind::Prometheus => dense_bytes,
    };
    let days = arguments.hours / DAY_HOURS;
    let whole = server.stored_bytes()?;
    drop(server);
    std::fs::remove_dir_all(&folder)?;
    Ok(json!({
        "series": load.data.series_per_node(),
        "samples": samples,
        "push_seconds": push_seconds,
        "data_bytes": data_bytes,
        "data_mb_per_node_day": data_bytes as f64 / days / 1e6,
        "folder_mb_per_node_day": whole as f64 / days / 1e6,
        "data_bytes_per_sample": data_bytes as f64 / samples,
        "written_bytes_per_sample": (after.written_bytes - before.written_bytes) as f64 / samples,
        "cpu_seconds_pushing": pushed.cpu_seconds - before.cpu_seconds,
        "cpu_seconds_per_node_day": (after.cpu_seconds - before.cpu_seconds) / days,
        "peak_memory_mib": after.peak_bytes >> 20,
    }))
}

/// Ours by a peer's: the agent's series per node and day, and both of ours per sample.
fn ratios(results: &Map<String, Value>, peer: &str) -> Value {
    let of = |server: Contestant, figure: &str| {
        let (ours, theirs) = (results.get(server.name())?, results.get(peer)?);
        Some((ours[figure].as_f64()? / theirs[figure].as_f64()? * 1_000.0).round() / 1_000.0)
    };
    json!({
        "data_per_node_day": of(Contestant::Pharos, "data_mb_per_node_day"),
        "data_per_sample": of(Contestant::Pharos, "data_bytes_per_sample"),
        "data_per_sample_same_series": of(Contestant::PharosSameSeries, "data_bytes_per_sample"),
        "cpu_per_node_day": of(Contestant::Pharos, "cpu_seconds_per_node_day"),
    })
}

/// For people, as Markdown on stderr.
fn print_table(results: &Map<String, Value>) {
    let head: String = results.keys().map(|name| format!(" {name} |")).collect();
    eprintln!("| |{head}\n|---|{}", "---|".repeat(results.len()));
    for (figure, text) in FIGURES {
        let mut line = format!("| {text} |");
        for measured in results.values() {
            line += &match measured[figure].as_f64() {
                Some(value) if value.fract() == 0.0 => format!(" {value} |"),
                Some(value) => format!(" {value:.3} |"),
                None => " - |".to_owned(),
            };
        }
        eprintln!("{line}");
    }
}
