//! Pharos beside its peers: the same data, the same machine, one run; ratios.
//!
//! Each server lives twice on the same data, from an empty folder. In its first life it writes everything out
//! after the push, is measured on disk, killed and started again. In its second it is killed with SIGKILL the
//! moment the last sample is acknowledged, and started again: how long until it is ready, how long until it
//! answers the last sample of every node, and what it has lost of what it acknowledged.

use crate::answer::timestamps;
use crate::feed::{Load, now_ms};
use crate::http::Http;
use crate::process::{Usage, usage};
use crate::push::Choice;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use pharos_proto::v1::Lane;
use pharos_tests::data::instance;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A server that does not answer the last samples by then has lost them.
const ANSWERED_TIME_MAX: Duration = Duration::from_secs(15);
const ASKED_EVERY: Duration = Duration::from_millis(5);

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Seconds of data, one sample a second; the default makes 30 million samples
    #[arg(long, default_value_t = 540)]
    seconds: usize,
    /// What is sent
    #[arg(long, value_enum, default_value = "model")]
    data: Choice,
    /// Who takes part, and by which protocol
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Contestant::ALL)]
    servers: Vec<Contestant>,
    /// Folder for the servers' data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-compare")]
    folder: PathBuf,
}

/// A server and the protocol it is fed by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Contestant {
    /// By remote write
    VictoriaMetrics,
    /// By remote write
    Prometheus,
    /// By remote write
    PharosRemoteWrite,
    /// By the native stream
    PharosNative,
}

impl Contestant {
    const ALL: [Contestant; 4] = [
        Contestant::VictoriaMetrics,
        Contestant::Prometheus,
        Contestant::PharosRemoteWrite,
        Contestant::PharosNative,
    ];

    fn kind(self) -> Kind {
        match self {
            Contestant::VictoriaMetrics => Kind::VictoriaMetrics,
            Contestant::Prometheus => Kind::Prometheus,
            Contestant::PharosRemoteWrite | Contestant::PharosNative => Kind::Pharos,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Contestant::VictoriaMetrics => "victoria-metrics",
            Contestant::Prometheus => "prometheus",
            Contestant::PharosRemoteWrite => "pharos-remote-write",
            Contestant::PharosNative => "pharos-native",
        }
    }
}

impl std::fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is compared, and how it reads in the table.
const FIGURES: [(&str, &str); 10] = [
    ("samples_per_cpu_second", "samples per server CPU second while pushing"),
    ("samples_per_cpu_second_with_flush", "the same, writing out included"),
    ("written_bytes_per_sample", "handed to the disk, bytes a sample"),
    ("disk_bytes_per_sample", "disk, bytes a sample, index included, reopened"),
    ("peak_memory_mib", "peak memory while pushing, MiB"),
    ("peak_memory_flush_mib", "peak memory, writing out included, MiB"),
    ("ready_seconds", "ready after SIGKILL, nothing flushed, s"),
    ("answered_seconds", "last acknowledged sample answered after it, s"),
    ("lost_samples", "acknowledged samples lost"),
    ("ready_flushed_seconds", "ready after SIGKILL, everything flushed, s"),
];

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let mut results = Map::new();
    for &contestant in &arguments.servers {
        eprintln!("{contestant}");
        let folder = arguments.folder.join(contestant.name());
        let measured = measure(contestant, &folder, arguments).context(contestant.name())?;
        results.insert(contestant.name().to_owned(), measured);
    }
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let mut ratios = Map::new();
    for ours in arguments.servers.iter().filter(|server| server.kind() == Kind::Pharos) {
        for theirs in arguments.servers.iter().filter(|server| server.kind() != Kind::Pharos) {
            let mut against = Map::new();
            for (figure, _) in FIGURES {
                let of = |server: &Contestant| results[server.name()][figure].as_f64();
                if let (Some(ours), Some(theirs)) = (of(ours), of(theirs).filter(|&theirs| theirs > 0.0)) {
                    against.insert(figure.to_owned(), json!((ours / theirs * 1_000.0).round() / 1_000.0));
                }
            }
            ratios.insert(format!("{ours} to {theirs}"), against.into());
        }
    }
    print_table(arguments, &results);
    let (nodes, seconds) = (arguments.nodes, arguments.seconds);
    Ok(
        json!({"bench": "compare", "data": format!("{:?}", arguments.data), "nodes": nodes, "seconds": seconds,
              "results": results, "ratios": ratios}),
    )
}

fn measure(contestant: Contestant, folder: &Path, arguments: &Arguments) -> anyhow::Result<Value> {
    let first_ms = now_ms()? / 1_000 * 1_000 - (arguments.seconds as i64 + 1) * 1_000;
    let (nodes, seconds) = (arguments.nodes, arguments.seconds);
    let load = Load { data: arguments.data.data()?, nodes, seconds, first_ms, batch: 1 };
    let samples = load.samples() as f64;

    let lane = (contestant == Contestant::PharosNative).then_some(Lane::Live);

    let life = folder.join("flushed");
    let server = Server::start(contestant.kind(), &life)?;
    let fresh = usage(server.pid())?;
    let begin = Instant::now();
    load.send(lane, &server.address)?;
    let push_seconds = begin.elapsed().as_secs_f64();
    let pushed = usage(server.pid())?;
    server.flush()?;
    let flushed = usage(server.pid())?;
    let dense_bytes = server.dense_bytes()?;
    server.kill()?;
    let begin = Instant::now();
    let server = Server::start(contestant.kind(), &life)?;
    let ready_flushed_seconds = begin.elapsed().as_secs_f64();
    // What opening leaves behind counts, and what it tidies up does not.
    let disk_bytes = if server.kind == Kind::Prometheus { dense_bytes } else { server.stored_bytes()? };
    let stored = stored(&mut server.http(), &load)?;
    if stored != load.samples() {
        bail!("{stored} of {samples} samples are stored, without any crash");
    }
    drop(server);
    std::fs::remove_dir_all(&life)?;

    let life = folder.join("killed");
    let server = Server::start(contestant.kind(), &life)?;
    load.send(lane, &server.address)?;
    server.kill()?;
    let begin = Instant::now();
    let server = Server::start(contestant.kind(), &life)?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    let newest = newest_answered(&mut server.http(), &load)?;
    let answered_seconds = (newest == load.nodes).then(|| begin.elapsed().as_secs_f64());
    let restarted = usage(server.pid())?;
    let lost = load.samples() as i64 - self::stored(&mut server.http(), &load)? as i64;
    drop(server);
    std::fs::remove_dir_all(&life)?;

    let cpu_between = |from: &Usage, to: &Usage| to.cpu_seconds - from.cpu_seconds;
    Ok(json!({
        "samples": samples,
        "push_seconds": push_seconds,
        "samples_per_cpu_second": (samples / cpu_between(&fresh, &pushed)).round(),
        "samples_per_cpu_second_with_flush": (samples / cpu_between(&fresh, &flushed)).round(),
        "written_bytes_per_sample": (flushed.written_bytes - fresh.written_bytes) as f64 / samples,
        "written_while_pushing_bytes_per_sample": (pushed.written_bytes - fresh.written_bytes) as f64 / samples,
        "disk_bytes_per_sample": disk_bytes as f64 / samples,
        "disk_before_reopening_bytes_per_sample": dense_bytes as f64 / samples,
        "peak_memory_mib": pushed.peak_bytes >> 20,
        "peak_memory_flush_mib": flushed.peak_bytes >> 20,
        "peak_memory_restart_mib": restarted.peak_bytes >> 20,
        "ready_seconds": ready_seconds,
        "answered_seconds": answered_seconds,
        "nodes_answering_their_last_sample": newest,
        "lost_samples": lost,
        "ready_flushed_seconds": ready_flushed_seconds,
    }))
}

/// Asks until every node's last sample is answered; how many nodes' are at the end.
fn newest_answered(http: &mut Http, load: &Load) -> anyhow::Result<usize> {
    let begin = Instant::now();
    let time = (load.first_ms / 1_000 + load.seconds as i64 + 1).to_string();
    loop {
        let form = [("query", "timestamp(node_load1)"), ("time", &time), ("nocache", "1")];
        let (status, body) = http.post("/api/v1/query", &form)?;
        let stamps = if status == 200 { timestamps(&body)? } else { Vec::new() };
        let there = (0..load.nodes)
            .filter(|&node| stamps.contains(&(instance(node), load.timestamp_ms(node, load.seconds))))
            .count();
        if there == load.nodes || begin.elapsed() > ANSWERED_TIME_MAX {
            return Ok(there);
        }
        std::thread::sleep(ASKED_EVERY);
    }
}

/// How many of the samples are there. Asked name by name: no server has to read all at once.
pub(crate) fn stored(http: &mut Http, load: &Load) -> anyhow::Result<u64> {
    let names: BTreeSet<String> =
        load.data.groups().into_iter().flat_map(|group| group.series).map(|series| series.name).collect();
    let time = (load.first_ms / 1_000 + load.seconds as i64 + 1).to_string();
    let window = load.seconds + 2;
    let mut total = 0.0;
    for name in names {
        let query = format!("sum(count_over_time({name}[{window}s]))");
        let form = [("query", query.as_str()), ("time", &time), ("nocache", "1")];
        let (status, body) = http.post("/api/v1/query", &form)?;
        let answer: Value = serde_json::from_slice(&body)?;
        if status != 200 {
            bail!("{query}: {answer}");
        }
        let value = answer["data"]["result"][0]["value"][1].as_str();
        total += value.map_or(Ok(0.0), str::parse::<f64>)?;
    }
    Ok(total as u64)
}

/// For people, as Markdown on stderr.
fn print_table(arguments: &Arguments, results: &Map<String, Value>) {
    let servers = &arguments.servers;
    let peers = servers.iter().filter(|server| server.kind() != Kind::Pharos);
    let ours = servers.iter().filter(|server| server.kind() == Kind::Pharos);
    let pairs: Vec<_> = peers.flat_map(|peer| ours.clone().map(move |ours| (*ours, *peer))).collect();
    let head: String = servers.iter().map(|server| format!(" {server} |")).collect();
    let ratios: String = pairs.iter().map(|(ours, peer)| format!(" {ours} : {peer} |")).collect();
    eprintln!("| |{head}{ratios}");
    eprintln!("|---|{}", "---|".repeat(servers.len() + pairs.len()));
    for (figure, text) in FIGURES {
        let of = |server: &Contestant| results[server.name()][figure].as_f64();
        let mut line = format!("| {text} |");
        for server in servers {
            line += &match of(server) {
                Some(value) if value.abs() >= 1e6 => format!(" {:.2} M |", value / 1e6),
                Some(value) if value.fract() == 0.0 => format!(" {value} |"),
                Some(value) => format!(" {value:.3} |"),
                None => " never |".to_owned(),
            };
        }
        for (ours, peer) in &pairs {
            line += &match (of(ours), of(peer)) {
                (Some(ours), Some(theirs)) if theirs > 0.0 => format!(" {:.2}x |", ours / theirs),
                _ => " - |".to_owned(),
            };
        }
        eprintln!("{line}");
    }
}
