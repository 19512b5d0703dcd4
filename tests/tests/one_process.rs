//! `pharos`: everything in one process, as a stranger starts it.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_tests::api::Api;
use pharos_tests::program::Program;
use pharos_tests::repository;
use pharos_tests::wait::until;
use serde_json::Value;
use std::path::Path;

fn start(folder: &Path) -> Program {
    let storage = folder.join("data");
    let arguments = [
        "--storage.path",
        storage.to_str().unwrap(),
        "--agent.listen-address",
        "127.0.0.1:0",
        "--collector.listen-address",
        "127.0.0.1:0",
        "--alertmanager.listen-address",
        "127.0.0.1:0",
    ];
    Program::start("pharos", &arguments, 3)
}

/// The collector among the three addresses: the one that answers PromQL.
async fn collector(program: &Program) -> Api {
    until("the collector", async || {
        for address in program.addresses() {
            let api = Api::new(format!("http://{address}"));
            if api.value("vector(2)").await == Some(2.0) {
                return Some(api);
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_watches_this_machine_stops_cleanly_and_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path());
    let api = collector(&program).await;
    until("samples of this machine", async || api.value("node_load1").await).await;
    until("the shipped rules", async || {
        let rules = api.json("/api/v1/rules", &[("type", "alert")]).await?;
        let groups = rules["data"]["groups"].as_array()?;
        let count: usize = groups.iter().filter_map(|group| Some(group["rules"].as_array()?.len())).sum();
        (count >= 8).then_some(())
    })
    .await;
    let log = program.log();
    for mention in ["http://", "GPU"] {
        assert!(log.contains(mention), "the start should mention {mention}:\n{log}");
    }
    let first = until("a sample", async || {
        let result = api.query("node_load1[5m]").await?;
        result.first()?["values"].as_array()?.first().cloned()
    })
    .await;
    assert!(program.terminate().success());

    let program = start(folder.path());
    let api = collector(&program).await;
    let again = until("the sample from before the restart", async || {
        let result = api.query("node_load1[5m]").await?;
        result.first()?["values"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(again, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_the_dashboards_can_be_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let program = start(folder.path());
    let api = collector(&program).await;
    until("twenty seconds of samples", async || {
        api.value("count_over_time(node_load1[1m])").await.filter(|&count| count >= 20.0)
    })
    .await;
    let end = until("the time of the newest sample", async || api.value("timestamp(node_load1)").await).await;
    let mut empty = Vec::new();
    for name in ["node.json", "gpu.json"] {
        let text = std::fs::read_to_string(repository().join("dashboards").join(name)).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let expressions = expressions(&dashboard);
        assert!(!expressions.is_empty(), "{name} has panels");
        for (panel, expression) in expressions {
            let query = substitute(&expression);
            let range = [
                ("query", query.as_str()),
                ("start", &format!("{}", end - 10.0)),
                ("end", &format!("{end}")),
                ("step", "1"),
            ];
            let (status, body) = api.get("/api/v1/query_range", &range).await.unwrap();
            assert_eq!(status, 200, "{name}, {panel}: {query}: {body}");
            let answer: Value = serde_json::from_str(&body).unwrap();
            let drawn = answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty());
            if name == "node.json" && !drawn {
                empty.push(format!("{panel}: {query}"));
            }
        }
    }
    // What a machine has not, it cannot show: sensors, swap, errors counted by some drivers only.
    let hardware =
        ["hwmon", "thermal", "nf_conntrack", "infiniband", "nfs", "mdadm", "edac", "throttle", "nvme"];
    empty.retain(|panel| !hardware.iter().any(|word| panel.contains(word)));
    assert!(empty.is_empty(), "panels without data:\n{}", empty.join("\n"));
}

/// All queries below a JSON value, with the title of the panel they are in.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut panels: Vec<&Value> = dashboard["panels"].as_array().into_iter().flatten().collect();
    while let Some(panel) = panels.pop() {
        panels.extend(panel["panels"].as_array().into_iter().flatten());
        for target in panel["targets"].as_array().into_iter().flatten() {
            if let Some(expression) = target["expr"].as_str() {
                found.push((panel["title"].to_string(), expression.to_owned()));
            }
        }
    }
    found
}

/// Puts values in the place of Grafana's variables.
fn substitute(expression: &str) -> String {
    let mut query =
        expression.replace("$__rate_interval", "5s").replace("$__interval", "1s").replace("$__range", "1m");
    while let Some(start) = query.find('$') {
        let name = query[start + 1..].trim_start_matches('{');
        let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        let braces = query[start + 1..].starts_with('{');
        let end = start + 1 + length + if braces { 2 } else { 0 };
        query.replace_range(start..end, ".*");
    }
    query
}
