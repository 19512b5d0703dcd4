//! pharos-agent beside node_exporter on this machine, at the same time, both at once a second: CPU time a
//! second and a sample, memory, system calls.
//!
//! The agent journals and pushes to a collector, which is not measured; node_exporter is scraped by this
//! program, which is not measured either. System calls are counted in a phase of their own, if `perf` can.

use crate::http::Http;
use crate::process::{scheduled_seconds, usage};
use crate::progress::Progress;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
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
    /// How long CPU time is measured
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How long system calls are counted; 0 does not
    #[arg(long, default_value_t = 10)]
    trace_seconds: u32,
    /// Folder for journal and data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-agent")]
    folder: PathBuf,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let collector = Server::start(Kind::Pharos, &arguments.folder.join("collector"))?;
    let agent_address = free_address()?;
    let agent = std::env::current_exe()?.with_file_name("pharos-agent");
    let mut agent = Command::new(agent);
    agent.arg("--collector.address").arg(&collector.address).args(["--node.name", "bench-agent"]);
    agent.arg("--storage.path").arg(arguments.folder.join("agent"));
    agent.arg("--web.listen-address").arg(&agent_address);
    let agent = spawn(agent, &agent_address, "/-/ready")?;
    let exporter_address = free_address()?;
    let mut exporter = Command::new("prometheus-node-exporter");
    exporter.arg(format!("--web.listen-address={exporter_address}"));
    let exporter = spawn(exporter, &exporter_address, "/")?;

    let mut http = Http::new(&exporter_address);
    let mut scrape = |seconds: u32, what: &str| -> anyhow::Result<usize> {
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
    };
    scrape(WARM_UP_SECONDS, "warming up")?;
    let (agent_pid, exporter_pid) = (agent.0.id(), exporter.0.id());
    let used =
        |pid: u32| -> anyhow::Result<(f64, f64)> { Ok((scheduled_seconds(pid)?, usage(pid)?.cpu_seconds)) };
    let (agent_before, exporter_before) = (used(agent_pid)?, used(exporter_pid)?);
    let begin = Instant::now();
    let exporter_samples = scrape(arguments.seconds, "seconds measured")?;
    let wall = begin.elapsed().as_secs_f64();
    let (agent_after, exporter_after) = (used(agent_pid)?, used(exporter_pid)?);
    let agent_samples = pushed_samples(&collector)?;

    let traced = if arguments.trace_seconds > 0 {
        let seconds = arguments.trace_seconds;
        let counters = [count_calls(agent_pid, seconds), count_calls(exporter_pid, seconds)];
        scrape(seconds, "counting system calls")?;
        counters.map(|counter| counter.and_then(|counter| counted(counter, seconds)))
    } else {
        [None, None]
    };
    let figures = |before: (f64, f64), after: (f64, f64), samples: f64, pid: u32, calls: Option<f64>| {
        // Threads that ended take their exact times with them; the coarser count of ticks has them all.
        let (exact, ticks) = (after.0 - before.0, after.1 - before.1);
        let cpu = if exact > 0.0 { exact } else { ticks };
        Ok::<Value, anyhow::Error>(json!({
            "cpu_ms_per_second": cpu / wall * 1_000.0,
            "cpu_ms_per_second_by_ticks": ticks / wall * 1_000.0,
            "samples_per_second": samples,
            "cpu_us_per_sample": cpu / wall / samples * 1e6,
            "resident_peak_mib": usage(pid)?.peak_bytes as f64 / f64::from(1 << 20),
            "system_calls_per_second": calls,
        }))
    };
    let agent = figures(agent_before, agent_after, agent_samples, agent_pid, traced[0])?;
    let exporter =
        figures(exporter_before, exporter_after, exporter_samples as f64, exporter_pid, traced[1])?;
    drop(collector);
    let _ = std::fs::remove_dir_all(&arguments.folder);
    let ratio = |name: &str| match (agent[name].as_f64(), exporter[name].as_f64()) {
        (Some(ours), Some(theirs)) => json!(theirs / ours),
        _ => Value::Null,
    };
    Ok(json!({"bench": "agent", "seconds": wall, "node_exporter_by_agent": {
            "cpu": ratio("cpu_ms_per_second"), "cpu_per_sample": ratio("cpu_us_per_sample"),
            "resident": ratio("resident_peak_mib"), "system_calls": ratio("system_calls_per_second")},
        "pharos-agent": agent, "node_exporter": exporter}))
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

/// Starts counting a process' system calls.
fn count_calls(pid: u32, seconds: u32) -> Option<Child> {
    Command::new("perf")
        .args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string(), "--", "sleep"])
        .arg(seconds.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()
}

/// Calls a second; `None` if perf may not count them here.
fn counted(counter: Child, seconds: u32) -> Option<f64> {
    let output = counter.wait_with_output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("raw_syscalls"))?;
    Some(line.split(',').next()?.parse::<f64>().ok()? / f64::from(seconds))
}
