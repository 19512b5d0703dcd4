//! Beside the peers' real programs: their tools accept our files and understand our programs. Needs
//! Debian's `prometheus` and `prometheus-alertmanager`, and `helm` or npm.

#![cfg(feature = "peers")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_tests::api::Api;
use pharos_tests::program::Program;
use pharos_tests::repository;
use pharos_tests::wait::until;
use serde_json::json;
use std::path::Path;
use std::process::Command;

/// Runs a peer's tool to its end: whether it was content, and what it printed.
fn tool(name: &str, arguments: &[&str], folder: &Path) -> (bool, String) {
    let output = Command::new(name).args(arguments).current_dir(folder).output().unwrap_or_else(|error| {
        panic!("{name} does not start (apt-get install prometheus prometheus-alertmanager): {error}")
    });
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn files(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(repository().join(folder))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.ends_with(".yml"))
        .map(|name| format!("{folder}/{name}"))
        .collect();
    names.sort();
    names
}

#[test]
fn promtool_accepts_the_shipped_rules_and_their_tests_pass() {
    let rules = files("rules");
    let mut arguments = vec!["check", "rules"];
    arguments.extend(rules.iter().map(String::as_str));
    let (content, text) = tool("promtool", &arguments, &repository());
    assert!(content, "{text}");
    let tests = files("rules/tests");
    let mut arguments = vec!["test", "rules"];
    arguments.extend(tests.iter().map(String::as_str));
    let (content, text) = tool("promtool", &arguments, &repository());
    assert!(content, "{text}");
}

#[test]
fn helm_renders_the_chart() {
    let (content, text) = tool("sh", &["helm/render.sh"], &repository());
    assert!(content, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn amtool_queries_silences_and_reads_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("alertmanager.yml");
    std::fs::write(
        &config,
        "route:\n  receiver: a\nreceivers:\n  - name: a\nescalations:\n  - name: e\n    match: ['severity=\"critical\"']\n    tiers:\n      - {receiver: a, after: 0s}\n",
    )
    .unwrap();
    let storage = folder.path().join("storage");
    let program = Program::start(
        "pharos-alertmanager",
        &[
            "--config.file",
            config.to_str().unwrap(),
            "--storage.path",
            storage.to_str().unwrap(),
            "--web.listen-address",
            "127.0.0.1:0",
        ],
        1,
    );
    let url = format!("--alertmanager.url={}", program.url());
    let amtool = |arguments: &[&str]| {
        let mut all = vec![url.as_str()];
        all.extend_from_slice(arguments);
        let (content, text) = tool("amtool", &all, folder.path());
        assert!(content, "amtool {arguments:?}: {text}");
        text
    };
    let alert = json!([{"labels": {"alertname": "GpuHot", "severity": "critical", "instance": "n1"}}]);
    assert_eq!(Api::new(program.url()).post("/api/v2/alerts", &alert).await.unwrap().0, 200);
    assert!(amtool(&["alert", "query"]).contains("GpuHot"));
    amtool(&["alert", "add", "alertname=Added", "instance=n2"]);
    assert!(amtool(&["alert", "query", "alertname=Added"]).contains("Added"));
    let id =
        amtool(&["silence", "add", "alertname=GpuHot", "--comment=test", "--author=anna", "--duration=1h"]);
    assert!(amtool(&["silence", "query"]).contains("GpuHot"));
    until("the silence to take effect", async || {
        let text = amtool(&["alert", "query", "alertname=GpuHot"]);
        (!text.contains("GpuHot")).then_some(())
    })
    .await;
    amtool(&["silence", "expire", id.lines().next().unwrap()]);
    assert!(amtool(&["config", "show"]).contains("receiver"));
    assert!(amtool(&["config", "routes", "test", "alertname=GpuHot"]).contains('a'));
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_writes_to_the_collector_and_promtool_asks_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("collector");
    let collector = Program::start(
        "pharos-collector",
        &["--storage.path", storage.to_str().unwrap(), "--web.listen-address", "127.0.0.1:0"],
        1,
    );
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.path().join("prometheus.yml");
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n  - job_name: self\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\nremote_write:\n  - url: {}/api/v1/write\n    queue_config: {{batch_send_deadline: 1s}}\n",
            collector.url()
        ),
    )
    .unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.path().join("prometheus").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let api = Api::new(collector.url());
    let count = until("Prometheus' own metrics in the collector", async || {
        api.value(r#"count_over_time(prometheus_build_info{job="self"}[1m])"#)
            .await
            .filter(|&count| count >= 3.0)
    })
    .await;
    assert!(count >= 3.0);
    let theirs = Api::new(format!("http://127.0.0.1:{port}"));
    // The same question at the same second, once both have its samples.
    let time = theirs.value(r#"timestamp(up{job="self"})"#).await.unwrap();
    until("the collector to have caught up", async || {
        api.value(r#"timestamp(up{job="self"})"#).await.filter(|&newest| newest > time)
    })
    .await;
    for query in ["count(go_info)", "sum(prometheus_http_requests_total)", "count({job=\"self\"})"] {
        let at = [("query", query), ("time", &time.to_string())];
        let ours = api.json("/api/v1/query", &at).await.unwrap();
        let want = theirs.json("/api/v1/query", &at).await.unwrap();
        assert_eq!(ours["data"], want["data"], "{query}");
    }
    reads_from(&collector, &api, time, folder.path()).await;
    let (content, text) =
        tool("promtool", &["query", "instant", &collector.url(), "count(up)"], folder.path());
    assert!(content && text.contains("=> 1"), "{text}");
    let (content, text) = tool("promtool", &["query", "labels", &collector.url(), "job"], folder.path());
    assert!(content && text.contains("self"), "{text}");
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
}

/// Another Prometheus, without samples of its own, that reads ours of a time at which nothing changes any more.
async fn reads_from(collector: &Program, ours: &Api, time: f64, folder: &Path) {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = folder.join("reader.yml");
    let read = format!("remote_read:\n  - url: {}/api/v1/read\n    read_recent: true\n", collector.url());
    std::fs::write(&config, read).unwrap();
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("reader").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let theirs = Api::new(format!("http://127.0.0.1:{port}"));
    until("the reader to be ready", async || {
        theirs.get("/-/ready", &[]).await.filter(|(status, _)| *status == 200)
    })
    .await;
    let time = time.to_string();
    for query in [
        "count by (job) (go_info)",
        "sum(increase(prometheus_http_requests_total[30s]) >= bool 0)",
        "{__name__=~\"prometheus_tsdb_.*\", job!=\"other\"}",
        "prometheus_engine_query_duration_seconds{quantile=\"0.5\"}",
        "up[19s500ms]",
    ] {
        let at = [("query", query), ("time", time.as_str())];
        let want = ours.json("/api/v1/query", &at).await.unwrap();
        let read = theirs.json("/api/v1/query", &at).await.unwrap();
        assert_eq!(by_labels(&read), by_labels(&want), "{query}");
        assert!(!by_labels(&want).is_empty(), "{query}");
    }
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
}

/// The series of an answer in one order.
fn by_labels(answer: &serde_json::Value) -> Vec<String> {
    let mut series: Vec<String> =
        answer["data"]["result"].as_array().unwrap().iter().map(ToString::to_string).collect();
    series.sort();
    series
}
