//! Pharos beside VictoriaMetrics: the same data, the same machine, one run; ratios.
//!
//! Each server gets the same pushes on an empty folder, is asked to write everything out, is measured, and
//! is killed with SIGKILL and started again. What Debian's package of the peer is called stands in
//! [`PEER`].

use crate::process::{Usage, usage};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PEER: &str = "victoria-metrics";

const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Instant queries that dashboards ask; the newest sample's time is put in.
const QUERIES: [(&str, &str); 8] = [
    ("single", r#"node_load1{instance="gpu-node-0003"}"#),
    ("sum_by_instance", "sum by (instance) (DCGM_FI_DEV_POWER_USAGE)"),
    ("rate_all_cores", r#"sum by (mode) (rate(node_cpu_seconds_total[1m]))"#),
    ("avg_over_time", "avg(avg_over_time(DCGM_FI_DEV_GPU_UTIL[1m]))"),
    ("topk", "topk(5, DCGM_FI_DEV_GPU_TEMP)"),
    ("quantile", "quantile(0.95, DCGM_FI_DEV_POWER_USAGE)"),
    ("regex", r#"count({__name__=~"node_disk_field1.*_total"})"#),
    ("count_all", r#"count({__name__=~".+"})"#),
];

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes of 561 series
    #[arg(long, default_value_t = 100)]
    nodes: usize,
    /// Seconds of data, one sample a second
    #[arg(long, default_value_t = 120)]
    seconds: usize,
    /// Folder for the servers' data; removed before
    #[arg(long, default_value = "/tmp/pharos-bench-compare")]
    folder: PathBuf,
}

struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    native: bool,
    peer: bool,
}

const KINDS: [Kind; 3] = [
    Kind { name: "victoria-metrics", native: false, peer: true },
    Kind { name: "pharos-remote-write", native: false, peer: false },
    Kind { name: "pharos-native", native: true, peer: false },
];

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let mut results = serde_json::Map::new();
    for kind in KINDS {
        eprintln!("{}", kind.name);
        let folder = arguments.folder.join(kind.name);
        std::fs::create_dir_all(&folder)?;
        results.insert(kind.name.to_owned(), measure(kind, &folder, arguments).context(kind.name)?);
    }
    let mut ratios = serde_json::Map::new();
    for name in ["pharos-remote-write", "pharos-native"] {
        let mut against = serde_json::Map::new();
        for figure in [
            "samples_per_cpu_second",
            "disk_bytes_per_sample",
            "written_bytes_per_sample",
            "peak_memory_mib",
            "ready_seconds",
            "query_ms_geomean",
        ] {
            let (ours, theirs) = (results[name][figure].as_f64(), results[PEER][figure].as_f64());
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                against.insert(figure.to_owned(), json!((ours / theirs * 1_000.0).round() / 1_000.0));
            }
        }
        ratios.insert(name.to_owned(), against.into());
    }
    Ok(json!({"bench": "compare", "nodes": arguments.nodes, "seconds": arguments.seconds,
              "results": results, "ratios_to_victoria_metrics": ratios}))
}

fn measure(kind: Kind, folder: &Path, arguments: &Arguments) -> anyhow::Result<Value> {
    let mut server = start(kind, folder)?;
    let before = usage(server.child.id())?;
    let begin = Instant::now();
    let first_ms = crate::feed::now_ms()? - arguments.seconds as i64 * 1_000;
    let data = pharos_tests::data::Data::Model(Default::default());
    let load =
        crate::feed::Load { data, nodes: arguments.nodes, seconds: arguments.seconds, first_ms, batch: 1 };
    load.send(kind.native.then_some(pharos_proto::v1::Lane::Live), &server.address)?;
    let push_seconds = begin.elapsed().as_secs_f64();
    let pushed = usage(server.child.id())?;
    flush(kind, &server)?;
    let queries = measure_queries(&server)?;
    let flushed = usage(server.child.id())?;
    let samples = (arguments.nodes * arguments.seconds * pharos_tests::telemetry::SERIES_PER_NODE) as f64;
    server.child.kill()?;
    server.child.wait()?;
    let disk = folder_bytes(folder)?;
    let begin = Instant::now();
    let server = start(kind, folder)?;
    let ready_seconds = begin.elapsed().as_secs_f64();
    drop(server);
    let cpu = |from: &Usage, to: &Usage| to.cpu_seconds - from.cpu_seconds;
    let times: Vec<f64> = queries.values().filter_map(Value::as_f64).collect();
    let geomean = (times.iter().map(|time| time.ln()).sum::<f64>() / times.len() as f64).exp();
    Ok(json!({
        "samples": samples,
        "push_seconds": push_seconds,
        "samples_per_cpu_second": (samples / cpu(&before, &pushed)).round(),
        "samples_per_cpu_second_with_flush": (samples / cpu(&before, &flushed)).round(),
        "disk_bytes_per_sample": disk as f64 / samples,
        "written_bytes_per_sample": (flushed.written_bytes - before.written_bytes) as f64 / samples,
        "peak_memory_mib": flushed.peak_bytes >> 20,
        "ready_seconds": ready_seconds,
        "query_ms": queries,
        "query_ms_geomean": geomean,
    }))
}

fn start(kind: Kind, folder: &Path) -> anyhow::Result<Server> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("127.0.0.1:{port}");
    let storage = folder.join("data");
    let mut command = if kind.peer {
        let mut command = Command::new(PEER);
        command.arg(format!("-storageDataPath={}", storage.display()));
        command.arg(format!("-httpListenAddr={address}"));
        command.arg("-retentionPeriod=1y");
        command
    } else {
        let program = std::env::current_exe()?.with_file_name("pharos-collector");
        let mut command = Command::new(program);
        command.arg("--storage.path").arg(&storage).arg("--web.listen-address").arg(&address);
        command.arg("--rules.shipped=false");
        command
    };
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting the server")?;
    let server = Server { child, address };
    let begin = Instant::now();
    while !ready(&server.address, if kind.peer { "/health" } else { "/-/ready" }) {
        if begin.elapsed() > START_TIME_MAX {
            bail!("it does not become ready");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}

/// One request over a connection of its own; status and body.
fn request(method: &str, address: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, answer))
}

fn ready(address: &str, path: &str) -> bool {
    request("GET", address, path, "").is_ok_and(|(status, _)| status == 200)
}

fn flush(kind: Kind, server: &Server) -> anyhow::Result<()> {
    let path = if kind.peer { "/internal/force_flush" } else { "/api/v1/admin/tsdb/flush" };
    let (status, answer) = request(if kind.peer { "GET" } else { "POST" }, &server.address, path, "")?;
    if !(200..300).contains(&status) {
        bail!("{path}: {answer}");
    }
    if kind.peer {
        // Its parts are written by background merges; there is nothing to wait for but time.
        std::thread::sleep(Duration::from_secs(10));
    }
    Ok(())
}

fn measure_queries(server: &Server) -> anyhow::Result<serde_json::Map<String, Value>> {
    let mut times = serde_json::Map::new();
    for (name, query) in QUERIES {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!("query={encoded}");
        let mut best = f64::MAX;
        for _ in 0..7 {
            let begin = Instant::now();
            let (status, answer) = request("POST", &server.address, "/api/v1/query", &body)?;
            best = best.min(begin.elapsed().as_secs_f64() * 1_000.0);
            if status != 200 || answer.contains("\"result\":[]") {
                bail!("{query}: {answer}");
            }
        }
        times.insert(name.to_owned(), best.into());
    }
    Ok(times)
}

fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { folder_bytes(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}
