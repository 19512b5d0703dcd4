//! Remediations: what they may do, when, and how often.

use crate::support::{Alertmanager, Service};
use serde_json::{Value, json};
use std::path::Path;

fn config(hook: &str, mode: &str, command: &str, more: &str) -> String {
    format!(
        "route: {{receiver: nobody}}\nreceivers:\n- name: nobody\n- name: first\n  webhook_configs: [{{url: '{hook}/first'}}]\n- name: second\n  webhook_configs: [{{url: '{hook}/second'}}]\n\
         escalations:\n- name: e\n  match: [severity=critical]\n  tiers: [{{receiver: first}}, {{receiver: second, after: 1h}}]\n\
         remediations:\n- name: fix\n  match: [alertname=GpuLost]\n  mode: {mode}\n  action: {{exec: {{command: {command}}}}}\n{more}"
    )
}

/// A command that writes a line to a file.
fn marks(folder: &Path) -> String {
    format!(
        "[/bin/sh, -c, 'echo \"$1\" >> {}', sh, '{{{{ .Labels.node }}}}']",
        folder.join("marks").display()
    )
}

fn lines(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("marks")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn lost(node: &str) -> Value {
    json!({"alertname": "GpuLost", "severity": "critical", "node": node})
}

fn states(list: &Value) -> Vec<String> {
    let mut states: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {}", one["node"].as_str().unwrap(), one["state"].as_str().unwrap()))
        .collect();
    states.sort();
    states
}

#[tokio::test]
async fn a_dry_run_runs_nothing_and_writes_down_what_it_would_do() {
    let folder = tempfile::tempdir().unwrap();
    let am = Alertmanager::start(&config(
        "http://127.0.0.1:1",
        "dry_run",
        &marks(folder.path()),
        "  limits: {cooldown: 10m}\n",
    ))
    .await;
    am.fire(&[lost("n1; touch /tmp/x")]).await;
    let list = am.get("/api/v2/remediations?state=dry_run").await;
    assert_eq!(list[0]["reason"], "would run now");
    assert_eq!(list[0]["command"][4], "n1; touch /tmp/x");
    let audit = am.get("/api/v2/audit").await;
    assert!(audit.as_array().unwrap().iter().any(|entry| entry["event"] == "remediation_dry_run"));
    // Another firing on the same node would come too early.
    am.seconds(5);
    am.resolve(&[lost("n1; touch /tmp/x")]).await;
    am.seconds(5);
    am.fire(&[lost("n1; touch /tmp/x")]).await;
    let list =
        am.wait_for("/api/v2/remediations", |list| list.as_array().is_some_and(|list| list.len() == 2)).await;
    assert!(list[0]["reason"].as_str().unwrap().starts_with("would be refused: cooldown"), "{list}");
    assert!(lines(folder.path()).is_empty());
}

#[tokio::test]
async fn auto_acts_once_for_each_firing_within_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let mut am = Alertmanager::start(&config(
        "http://127.0.0.1:1",
        "auto",
        &marks(folder.path()),
        "  limits: {cooldown: 10m, max_per_hour: 2}\n",
    ))
    .await;
    am.fire(&[lost("n1")]).await;
    am.wait_for("/api/v2/remediations", |list| states(list) == ["n1 succeeded"]).await;
    // Reports of the same firing change nothing, nor does a restart.
    am.fire(&[lost("n1")]).await;
    am.restart().await;
    am.fire(&[lost("n1")]).await;
    am.fire(&[lost("n2"), lost("n3")]).await;
    am.wait_for("/api/v2/remediations", |list| {
        list.is_array() && states(list).len() == 3 && !list.to_string().contains("running")
    })
    .await;
    let list = am.get("/api/v2/remediations?state=refused").await;
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert!(list[0]["reason"].as_str().unwrap().starts_with("max_per_hour"));
    let mut done = lines(folder.path());
    done.sort();
    assert_eq!(done.len(), 2);
    assert_eq!(done[0], "n1");
}

#[tokio::test]
async fn approve_waits_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let am = Alertmanager::start(&config("http://127.0.0.1:1", "approve", &marks(folder.path()), "")).await;
    am.fire(&[lost("n1"), lost("n2"), lost("n3")]).await;
    let pending = am.get("/api/v2/remediations?state=pending").await;
    let id = |node: &str| {
        let list = pending.as_array().unwrap();
        list.iter().find(|one| one["node"] == node).unwrap()["id"].as_str().unwrap().to_owned()
    };
    am.post_ok(&format!("/api/v2/remediations/{}/reject", id("n2")), &json!({"by": "ada", "comment": "no"}))
        .await;
    am.post_ok(&format!("/api/v2/remediations/{}/approve", id("n1")), &json!({"by": "ada"})).await;
    assert_eq!(
        am.post(&format!("/api/v2/remediations/{}/approve", id("n1")), &json!({"by": "eve"})).await.0,
        409
    );
    am.resolve(&[lost("n3")]).await;
    am.wait_for("/api/v2/remediations", |list| states(list) == ["n1 succeeded", "n2 rejected", "n3 expired"])
        .await;
    assert_eq!(lines(folder.path()), ["n1"]);
}

#[tokio::test]
async fn an_action_that_does_not_help_tells_the_next_tier_at_once() {
    let mut hook = Service::start().await;
    let more = "  verify: {resolved_within: 5m, otherwise: escalate}\n";
    let am = Alertmanager::start(&config(&hook.url, "auto", "[/bin/true]", more)).await;
    am.fire(&[lost("n1")]).await;
    assert_eq!(am.next(&mut hook).await.path, "/first");
    am.wait_for("/api/v2/remediations?state=verifying", |list| !list[0].is_null()).await;
    am.minutes(5);
    assert_eq!(am.next(&mut hook).await.path, "/second");
    let list = am.get("/api/v2/remediations").await;
    assert_eq!(
        (&list[0]["state"], &list[0]["reason"]),
        (&json!("failed"), &json!("the alert did not end in time"))
    );
}

#[tokio::test]
async fn an_action_that_fails_escalates_and_one_that_helps_is_done() {
    let mut hook = Service::start().await;
    let more = "  verify: {resolved_within: 5m, otherwise: escalate}\n";
    let command = "[/bin/sh, -c, 'test \"$1\" = good', sh, '{{ .Labels.node }}']";
    let am = Alertmanager::start(&config(&hook.url, "auto", command, more)).await;
    am.fire(&[lost("good")]).await;
    assert_eq!(am.next(&mut hook).await.path, "/first");
    am.wait_for("/api/v2/remediations?state=verifying", |list| !list[0].is_null()).await;
    am.seconds(30);
    am.resolve(&[lost("good")]).await;
    am.wait_for("/api/v2/remediations", |list| states(list) == ["good succeeded"]).await;
    assert_eq!(am.next(&mut hook).await.body["status"], "resolved");
    am.fire(&[lost("bad")]).await;
    let mut paths = [am.next(&mut hook).await.path, am.next(&mut hook).await.path];
    paths.sort();
    assert_eq!(paths, ["/first", "/second"]);
}

#[tokio::test]
async fn acting_needs_a_loopback_listener() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("am.yml");
    std::fs::write(&file, config("http://127.0.0.1:1", "auto", "[/bin/true]", "")).unwrap();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let arguments = [
        "pharos-alertmanager".to_owned(),
        format!("--config.file={}", file.display()),
        format!("--storage.path={}", folder.path().join("state").display()),
    ];
    let options = <pharos_alertmanager::Options as clap::Parser>::try_parse_from(arguments).unwrap();
    let error = pharos_alertmanager::run(options, listener, pharos_common::shutdown::Shutdown::new())
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("remediations[0].mode"), "{error}");
}
