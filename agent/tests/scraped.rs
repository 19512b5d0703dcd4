//! `/metrics` as others read it: `promtool` finds nothing to refuse in either format, and Debian's Prometheus
//! scrapes it (OpenMetrics, gzip). Where they are not installed the tests say so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{fixtures, host_flags};

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The agent on the fake host, and where it listens.
fn agent(storage: &Path) -> (Process, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pharos-agent"))
        .args(["--web.listen-address=127.0.0.1:0", "--collector.address=none"])
        .arg(format!("--storage.path={}", storage.display()))
        .args(host_flags(&fixtures()))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = log.by_ref().find_map(|line| {
        let line = line.unwrap();
        line.contains("Listening on").then(|| line.split("address=").nth(1).unwrap().trim().to_owned())
    });
    // Somebody has to read on, or the agent waits for room in the pipe.
    std::thread::spawn(move || log.for_each(drop));
    (Process(child), address.expect("the agent listens"))
}

/// The body of an answer.
fn get(address: &str, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// Asks until there is an answer, for as long as a test may run.
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} never happens");
}

/// `/metrics` once samplers have run.
fn metrics(address: &str) -> String {
    until("the first readings", || {
        let text = get(address, "/metrics", "").unwrap();
        (text.contains("node_load1 ") && text.contains("node_md_state{")).then_some(text)
    })
}

#[test]
fn promtool_reads_every_line() {
    let storage = tempfile::tempdir().unwrap();
    let (_agent, address) = agent(storage.path());
    let text = metrics(&address);
    let checker = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checker) = checker else {
        eprintln!("promtool is not installed; nobody checks");
        return;
    };
    checker.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    // 3 is a matter of taste in names, which are node_exporter's; anything else is a text that cannot be read.
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {said}", output.status);
}

#[test]
fn prometheus_scrapes_it() {
    let storage = tempfile::tempdir().unwrap();
    let (_agent, address) = agent(storage.path());
    metrics(&address);
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: agent\n    static_configs: [{{targets: ['{address}']}}]\n"
    );
    std::fs::write(storage.path().join("prometheus.yml"), config).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", storage.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", storage.path().join("data").display()))
        .arg(format!("--web.listen-address={listen}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(prometheus) = prometheus else {
        eprintln!("prometheus is not installed; nobody scrapes");
        return;
    };
    let mut prometheus = Process(prometheus);
    let target = until("the first scrape", || {
        assert!(prometheus.0.try_wait().unwrap().is_none(), "Prometheus has ended");
        let targets = get(&listen, "/api/v1/targets", "")?;
        let known = ["up", "down"].iter().any(|health| targets.contains(&format!("\"health\":\"{health}\"")));
        known.then_some(targets)
    });
    assert!(target.contains("\"health\":\"up\""), "{target}");
    let query = "/api/v1/query?query=scrape_samples_scraped";
    let scraped = until("the scrape's samples", || {
        let answer = get(&listen, query, "")?;
        answer.rsplit('"').find_map(|word| word.parse::<u32>().ok())
    });
    assert!(scraped > 1_000, "{scraped} samples");
}
