//! pharos-agent beside node_exporter on this machine, at the same time: CPU time a second and a sample, memory,
//! system calls by name, and what each of the agent's samplers costs.
//!
//! Three phases, each with an agent of its own: every default sampler once a second; the flight recorder on at 10 Hz
//! for what moves; the recorder on for every series of the host. node_exporter is scraped once a second in all of
//! them. The agent journals and pushes to a collector, which is not measured; node_exporter is scraped by this
//! program, which is not measured either. System calls are counted apart from the time, if `perf` can.

mod calls;
mod samplers;

use crate::http::Http;
use crate::process::{scheduled_seconds, usage};
use crate::progress::Progress;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use calls::Calls;
use samplers::Costs;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Both have read everything once and have settled.
const WARM_UP_SECONDS: u32 = 10;
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long CPU time is measured in each phase
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How long system calls are counted in each phase; 0 does not
    #[arg(long, default_value_t = 10)]
    trace_seconds: u32,
    /// Only these phases: 1s, recorder, recorder-all
    #[arg(long, value_delimiter = ',')]
    phases: Vec<String>,
    /// Folder for journal and data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-agent")]
    folder: PathBuf,
}

/// How an agent is configured.
struct Phase {
    name: &'static str,
    /// Series that the flight recorder keeps, as the configuration takes them.
    recorded: &'static str,
}

/// Pressure stays at 1 s, so that a phase is what it says whatever else this machine does.
const PHASES: [Phase; 3] = [
    Phase { name: "1s", recorded: "" },
    Phase {
        name: "recorder",
        recorded: "node_cpu_seconds_total, node_pressure_.*, node_memory_MemAvailable_bytes, \
                   node_network_(receive|transmit)_bytes_total, node_disk_io_time_seconds_total",
    },
    Phase { name: "recorder-all", recorded: "node_.*" },
];

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process had used.
#[derive(Clone, Copy)]
struct Used {
    exact_seconds: f64,
    tick_seconds: f64,
}

impl Used {
    fn by(pid: u32) -> anyhow::Result<Used> {
        Ok(Used { exact_seconds: scheduled_seconds(pid)?, tick_seconds: usage(pid)?.cpu_seconds })
    }
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    for name in &arguments.phases {
        if PHASES.iter().all(|phase| phase.name != name) {
            bail!("--phases {name}: 1s, recorder or recorder-all");
        }
    }
    let exporter_address = free_address()?;
    let mut exporter = Command::new("prometheus-node-exporter");
    exporter.arg(format!("--web.listen-address={exporter_address}"));
    let exporter = Exporter { running: spawn(exporter, &exporter_address, "/")?, address: exporter_address };
    let mut phases = serde_json::Map::new();
    for phase in PHASES {
        if arguments.phases.is_empty() || arguments.phases.iter().any(|name| name == phase.name) {
            phases.insert(phase.name.to_owned(), measure(&phase, &exporter, arguments).context(phase.name)?);
        }
    }
    let _ = std::fs::remove_dir_all(&arguments.folder);
    print_table(&phases);
    Ok(json!({"bench": "agent", "phases": phases}))
}

struct Exporter {
    running: Running,
    address: String,
}

impl Exporter {
    /// Scrapes it once a second; samples of a scrape.
    fn scrape(&self, seconds: u32, what: String) -> anyhow::Result<usize> {
        let mut http = Http::new(&self.address);
        let progress = Progress::new(what, u64::from(seconds));
        let begin = Instant::now();
        let mut samples = 0;
        for second in 0..seconds {
            let due = begin + Duration::from_secs(u64::from(second));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (status, body) = http.get("/metrics")?;
            if status != 200 {
                bail!("node_exporter answers {status}");
            }
            samples =
                body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#').count();
            progress.add(1);
        }
        let end = begin + Duration::from_secs(u64::from(seconds));
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        Ok(samples)
    }
}

fn measure(phase: &Phase, exporter: &Exporter, arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let collector = Server::start(Kind::Pharos, &arguments.folder.join("collector"))?;
    let config = arguments.folder.join("agent.yml");
    let recorded = phase.recorded;
    let text = format!("samplers: {{pressure: {{fixed: 1s}}}}\nrecorder: {{series: [{recorded}]}}\n");
    std::fs::write(&config, text)?;
    let address = free_address()?;
    let mut agent = Command::new(std::env::current_exe()?.with_file_name("pharos-agent"));
    agent.arg("--collector.address").arg(&collector.address).args(["--node.name", "bench-agent"]);
    agent.arg("--storage.path").arg(arguments.folder.join("agent"));
    agent.arg("--web.listen-address").arg(&address).arg("--config.file").arg(&config);
    let agent = spawn(agent, &address, "/-/ready")?;

    let step = |what: &str| format!("{}: {what}", phase.name);
    exporter.scrape(WARM_UP_SECONDS, step("warming up"))?;
    let (agent_pid, exporter_pid) = (agent.0.id(), exporter.running.0.id());
    let costs_before = Costs::of(&address)?;
    let before = (Used::by(agent_pid)?, Used::by(exporter_pid)?);
    let begin = Instant::now();
    let exporter_samples = exporter.scrape(arguments.seconds, step("seconds measured"))?;
    let wall = begin.elapsed().as_secs_f64();
    let after = (Used::by(agent_pid)?, Used::by(exporter_pid)?);
    let costs = Costs::of(&address)?.since(&costs_before, wall);
    let agent_samples = pushed_samples(&collector)?;

    let calls = if arguments.trace_seconds > 0 {
        let counting = [agent_pid, exporter_pid].map(|pid| Calls::count(pid, arguments.trace_seconds));
        exporter.scrape(arguments.trace_seconds, step("counting system calls"))?;
        counting.map(|counting| counting.and_then(Calls::counted))
    } else {
        [None, None]
    };
    let [agent_calls, exporter_calls] = calls;
    let figures = |before: Used, after: Used, samples: f64, pid: u32, calls: Option<Calls>| {
        // Threads that ended take their exact times with them; the coarser count of ticks has them all.
        let (exact, ticks) =
            (after.exact_seconds - before.exact_seconds, after.tick_seconds - before.tick_seconds);
        let cpu = if exact > 0.0 { exact } else { ticks };
        Ok::<Value, anyhow::Error>(json!({
            "cpu_ms_per_second": cpu / wall * 1_000.0,
            "cpu_ms_per_second_by_ticks": ticks / wall * 1_000.0,
            "samples_per_second": samples,
            "cpu_us_per_sample": cpu / wall / samples * 1e6,
            "resident_peak_mib": usage(pid)?.peak_bytes as f64 / f64::from(1 << 20),
            "system_calls_per_second": calls.as_ref().map(|calls| calls.per_second),
            "system_calls_by_name": calls.map(|calls| calls.by_name),
        }))
    };
    let mut ours = figures(before.0, after.0, agent_samples, agent_pid, agent_calls)?;
    let theirs = figures(before.1, after.1, exporter_samples as f64, exporter_pid, exporter_calls)?;
    // The second's tick and, with the recorder on, nine more between.
    let ticks = costs.fastest_per_second.max(1.0);
    ours["ticks_per_second"] = json!(ticks);
    ours["readings_per_second"] = json!(costs.readings_per_second);
    ours["system_calls_per_tick"] =
        json!(ours["system_calls_per_second"].as_f64().map(|calls| calls / ticks));
    ours["samplers_ms_per_second"] = json!(costs.ms_per_second);
    ours["samplers"] = costs.samplers;
    let ratio = |name: &str| match (ours[name].as_f64(), theirs[name].as_f64()) {
        (Some(ours), Some(theirs)) => json!(theirs / ours),
        _ => Value::Null,
    };
    Ok(json!({"seconds": wall, "recorded": recorded, "node_exporter_by_agent": {
            "cpu": ratio("cpu_ms_per_second"), "cpu_per_sample": ratio("cpu_us_per_sample"),
            "resident": ratio("resident_peak_mib"), "system_calls": ratio("system_calls_per_second")},
        "pharos-agent": ours, "node_exporter": theirs}))
}

/// For people, as Markdown on stderr.
fn print_table(phases: &serde_json::Map<String, Value>) {
    const FIGURES: [(&str, &str); 8] = [
        ("cpu_ms_per_second", "CPU, ms a second"),
        ("cpu_us_per_sample", "CPU, us a sample pushed"),
        ("samples_per_second", "samples a second"),
        ("readings_per_second", "samplers' readings a second"),
        ("samplers_ms_per_second", "samplers' part, ms a second"),
        ("system_calls_per_second", "system calls a second"),
        ("system_calls_per_tick", "system calls a tick"),
        ("resident_peak_mib", "resident at most, MiB"),
    ];
    let head: String = phases.keys().map(|name| format!(" agent, {name} | node_exporter |")).collect();
    eprintln!("| |{head}\n|---|{}", "---|---|".repeat(phases.len()));
    for (figure, text) in FIGURES {
        let mut line = format!("| {text} |");
        for phase in phases.values() {
            for who in ["pharos-agent", "node_exporter"] {
                line +=
                    &phase[who][figure].as_f64().map_or(" - |".to_owned(), |value| format!(" {value:.2} |"));
            }
        }
        eprintln!("{line}");
    }
    samplers::print_table(phases);
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn spawn(mut command: Command, address: &str, path: &str) -> anyhow::Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().with_context(|| format!("{:?}", command.get_program()))?);
    let begin = Instant::now();
    let mut http = Http::new(address);
    while !http.get(path).is_ok_and(|(status, _)| status == 200) {
        if begin.elapsed() > START_TIME_MAX {
            bail!("{:?} does not become ready", command.get_program());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(running)
}

/// What the agent delivers in a second, its own metrics included, as the collector has it.
fn pushed_samples(collector: &Server) -> anyhow::Result<f64> {
    let query = r#"sum(count_over_time({instance="bench-agent",__name__=~".+"}[10s])) / 10"#;
    let (_, body) = collector.http().post("/api/v1/query", &[("query", query)])?;
    let answer: Value = serde_json::from_slice(&body)?;
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.with_context(|| format!("{query}: {answer}"))?.parse()?)
}
