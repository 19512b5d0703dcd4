//! The program itself: flags, exit codes, and an end that loses nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails panics, and one tells a time"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;
use support::AlertListener;

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pharos-collector"));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

#[test]
fn a_broken_configuration_exits_2_naming_file_line_column_and_key() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pharos.yml");
    std::fs::write(&file, "global:\n  evaluation_interval: often\n").unwrap();
    let output = program()
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}/data", folder.path().display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    let want = format!("{}:2:24: global.evaluation_interval: ", file.display());
    assert!(errors.contains(&want), "{errors}");
}

#[test]
fn it_says_where_it_listens_and_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = program()
        .arg(format!("--storage.path={}/data", folder.path().display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("Listening on")).unwrap();
    assert!(line.contains("address=127.0.0.1:"), "{line}");
    lines.find(|line| line.contains("Configuration in force")).unwrap();
    let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(lines.any(|line| line.contains("Collector ended")));
    assert!(child.wait().unwrap().success());
}

#[tokio::test]
async fn a_threshold_fires_with_its_sample_although_its_group_has_an_interval_of_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yml");
    std::fs::write(
        &rules,
        "groups:\n  - {name: gpu, interval: 1h, rules: [{alert: Hot, expr: gpu_temp > 90}]}\n",
    )
    .unwrap();
    let mut alerts = AlertListener::start().await;
    let mut child = program()
        .arg(format!("--storage.path={}/data", folder.path().display()))
        .arg("--web.listen-address=127.0.0.1:0")
        .arg(format!("--rules.file={}", rules.display()))
        .arg("--rules.shipped=false")
        .arg(format!("--alertmanager.url={}", alerts.url))
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("Listening on")).unwrap();
    let address = line.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    lines.find(|line| line.contains("Configuration in force")).unwrap();
    let drain = std::thread::spawn(move || lines.for_each(drop));
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let url = format!("http://{address}/api/v1/import/prometheus");
    let mut took_ms = Vec::new();
    for node in 0..50 {
        let sent = Instant::now();
        let body = format!("gpu_temp{{instance=\"n{node}\"}} 95\n");
        assert_eq!(client.post(&url).body(body).send().await.unwrap().status(), 204);
        let alert = alerts.next().await;
        took_ms.push(sent.elapsed().as_secs_f64() * 1e3);
        assert_eq!(alert["labels"]["instance"], format!("n{node}"));
    }
    took_ms.sort_by(f64::total_cmp);
    println!("sample sent to alert received: p50 {:.2} ms, worst {:.2} ms", took_ms[25], took_ms[49]);
    child.kill().unwrap();
    child.wait().unwrap();
    drain.join().unwrap();
}
