//! The program `pharos-agent` as people start it: flags, signals, exit codes, messages.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::collector::{Server, Store};
use support::eventually;

/// Longer than any of these steps takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Program {
    child: Child,
    lines: Receiver<String>,
    address: String,
    _storage: tempfile::TempDir,
}

impl Program {
    fn start(flags: &[&str]) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_pharos-agent"))
            .arg("--web.listen-address=127.0.0.1:0")
            .arg(format!("--storage.path={}", storage.path().display()))
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (out, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| out.send(line)));
        let mut program = Program { child, lines, address: String::new(), _storage: storage };
        let line = program.line_with("Listening on");
        program.address = line.split("address=").nth(1).unwrap().trim().to_owned();
        program
    }

    fn line_with(&self, text: &str) -> String {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{text:?} is never logged"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fails(flags: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_pharos-agent")).args(flags).output().unwrap();
    assert!(!output.status.success());
    output
}

#[test]
fn it_samples_this_machine_and_ends_cleanly_without_any_collector_to_talk_to() {
    // Nobody listens on port 1.
    let mut program = Program::start(&["--collector.address=127.0.0.1:1"]);
    program.line_with("No collector takes frames");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !program.request("GET", "/metrics").contains("\nnode_load1 ") {
        assert!(std::time::Instant::now() < deadline, "no sample is ever taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    program.signal("-TERM");
    assert!(program.child.wait().unwrap().success());
}

#[test]
fn a_broken_configuration_names_file_line_and_key_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yml");
    std::fs::write(&file, "samplers:\n  cpu:\n    fixed: soon\n").unwrap();
    let output = fails(&[&format!("--config.file={}", file.display())]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains(&format!("{}:3:", file.display())) && text.contains("samplers.cpu.fixed"),
        "{text}"
    );
    assert_eq!(fails(&["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(fails(&["--collector.vmstat.fields=("]).status.code(), Some(2));
}

#[test]
fn a_port_in_use_names_the_flag_that_changes_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = fails(&[&format!("--web.listen-address={address}"), "--collector.address=none"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("--web.listen-address") && text.contains("in use"), "{text}");
}

#[test]
fn a_reload_changes_what_runs_and_a_bad_file_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.yml");
    std::fs::write(&file, "samplers: {loadavg: {enabled: false}}\n").unwrap();
    let flag = format!("--config.file={}", file.display());
    let program = Program::start(&["--collector.address=none", &flag]);
    assert!(!program.request("GET", "/samplers").contains("\"loadavg\""));

    std::fs::write(&file, "samplers: {loadavg: {fixed: 5s}}\n").unwrap();
    program.signal("-HUP");
    program.line_with("Configuration loaded again");
    let deadline = std::time::Instant::now() + PATIENCE;
    while !program.request("GET", "/samplers").contains("\"name\":\"loadavg\",\"interval_ms\":5000") {
        assert!(std::time::Instant::now() < deadline, "the sampler never starts");
        std::thread::sleep(Duration::from_millis(10));
    }

    std::fs::write(&file, "samplers: {loadavg: {fixed: x}}\n").unwrap();
    let answer = program.request("POST", "/-/reload");
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("agent.yml:1:"), "{answer}");
    assert!(program.request("GET", "/samplers").contains("\"interval_ms\":5000"));
    let text = program.request("GET", "/metrics");
    assert!(text.contains("pharos_agent_config_last_reload_successful 0"), "{text}");
}

#[test]
fn metrics_are_where_the_web_flags_want_them_on_every_address() {
    let program = Program::start(&[
        "--web.listen-address=127.0.0.2:0",
        "--web.telemetry-path=/node",
        "--web.disable-exporter-metrics",
        "--collector.address=none",
    ]);
    let line = program.line_with("Listening on");
    let second = line.split("address=").nth(1).unwrap().trim().to_owned();
    assert!(second.starts_with("127.0.0.2:"), "{line}");
    let answer = program.request("GET", "/node");
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("process_open_fds"), "{answer}");
    assert!(program.request("GET", "/metrics").starts_with("HTTP/1.1 404"));
    assert!(program.request("GET", "/").contains("href=\"/node\""));
    let mut stream = TcpStream::connect(second).unwrap();
    stream.write_all(b"GET /node HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_scraper_may_ask_for_some_collectors_only() {
    let program = Program::start(&["--collector.address=none", "--no-collector.arp"]);
    let show = |query: &str| program.request("GET", &format!("/metrics{query}"));
    while !show("").contains("node_load1 ") || !show("").contains("node_memory_MemTotal_bytes ") {
        std::thread::yield_now();
    }
    let some = show("?collect%5B%5D=loadavg");
    assert!(some.contains("node_load1 ") && some.contains("process_open_fds"), "{some}");
    assert!(!some.contains("node_memory_MemTotal_bytes") && !some.contains("collector=\"meminfo\""));
    let others = show("?exclude[]=loadavg");
    assert!(!others.contains("node_load1 ") && others.contains("node_memory_MemTotal_bytes "));
    assert!(show("?collect[]=arp").contains("400 Bad Request"));
}

/// One who says Welcome and then takes nothing is no news each time he says it; that frames are taken is.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_only_greets_is_told_of_once_until_it_takes_frames() {
    let store = Store::default();
    store.lock().failing = true;
    let server = Server::start(store.clone(), None).await;
    let program = Program::start(&[&format!("--collector.address={}", server.address)]);
    eventually("connections", || store.lock().connections >= 3).await;
    store.lock().failing = false;
    eventually("frames", || !store.sequences().is_empty()).await;
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &String| !line.contains("takes frames again")) {
        lines.push(program.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{lines:?} is all")));
    }
    let greetings = lines.iter().filter(|line| line.contains("Connected to the collector"));
    assert_eq!(greetings.count(), 1, "{lines:?}");
    server.kill().await;
}
