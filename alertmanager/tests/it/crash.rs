//! The real program, killed with SIGKILL at bad moments.

use crate::support::{Program, Service};
use serde_json::json;

fn config(hook: &Service, oncall: &Service) -> String {
    format!(
        "route: {{receiver: hook, group_by: [alertname]}}\nreceivers:\n- name: hook\n  webhook_configs: [{{url: '{}'}}]\n- name: oncall\n  pagerduty_configs: [{{routing_key: k, url: '{}'}}]\n\
         escalations:\n- name: e\n  match: [severity=critical]\n  tiers: [{{receiver: oncall}}]\n",
        hook.url, oncall.url
    )
}

#[tokio::test]
async fn a_notice_in_flight_at_a_kill_is_sent_again_under_the_same_keys() {
    let (mut hook, mut oncall) = (Service::start().await, Service::start().await);
    // Neither answers, so neither delivery is written down.
    hook.plan(0, "");
    oncall.plan(0, "");
    let folder = tempfile::tempdir().unwrap();
    let config = config(&hook, &oncall);
    let mut program = Program::start(folder.path(), &config).await;
    program
        .post("/api/v2/alerts", &json!([{"labels": {"alertname": "GpuLost", "severity": "critical"}}]))
        .await;
    let (notice, page) = (hook.next().await, oncall.next().await);
    program.kill();

    let program = Program::start(folder.path(), &config).await;
    let (again, page_again) = (hook.next().await, oncall.next().await);
    assert_eq!(again.header("idempotency-key"), notice.header("idempotency-key"));
    assert_eq!(again.body["alerts"], notice.body["alerts"]);
    assert_eq!(page_again.body["dedup_key"], page.body["dedup_key"]);
    let metrics = program.wait_for("/metrics", |text| text.as_str().is_some()).await;
    assert!(metrics.as_str().unwrap().contains("pharos_alertmanager_notifications_in_doubt 2"));
}

#[tokio::test]
async fn what_was_answered_with_success_survives_and_what_was_delivered_is_not_sent_again() {
    let (mut hook, mut oncall) = (Service::start().await, Service::start().await);
    let folder = tempfile::tempdir().unwrap();
    let config = config(&hook, &oncall);
    let mut program = Program::start(folder.path(), &config).await;
    program
        .post("/api/v2/alerts", &json!([{"labels": {"alertname": "GpuLost", "severity": "critical"}}]))
        .await;
    hook.next().await;
    oncall.next().await;
    let told = |list: &serde_json::Value| list[0]["tiers"][0]["status"] == "told";
    let fingerprint =
        program.wait_for("/api/v2/escalations", told).await[0]["fingerprint"].as_str().unwrap().to_owned();
    let idle = |text: &serde_json::Value| {
        text.as_str().is_some_and(|text| text.contains("notifications_in_flight 0\n"))
    };
    program.wait_for("/metrics", idle).await;
    let silence = json!({
        "matchers": [{"name": "a", "value": "b", "isRegex": false}],
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2120-01-01T00:00:00Z", "createdBy": "me", "comment": "c",
    });
    let id = program.post("/api/v2/silences", &silence).await["silenceID"].as_str().unwrap().to_owned();
    program.post(&format!("/api/v2/escalations/{fingerprint}/acknowledge"), &json!({"by": "ada"})).await;
    program.kill();

    // Before the kill or after it, PagerDuty hears of the acknowledgement.
    let program = Program::start(folder.path(), &config).await;
    assert_eq!(oncall.next().await.body["event_action"], "acknowledge");
    let escalations = program.wait_for("/api/v2/escalations", |list| list.is_array()).await;
    assert_eq!(escalations[0]["acknowledgement"]["by"], "ada");
    assert_eq!(escalations[0]["tiers"][0]["status"], "told");
    program
        .wait_for(&format!("/api/v2/silence/{id}"), |silence| silence["status"]["state"] == "active")
        .await;
    // A new alert is told; the old one was not told again before it.
    program.post("/api/v2/alerts", &json!([{"labels": {"alertname": "Other"}}])).await;
    assert_eq!(hook.next().await.alerts(), ["firing Other"]);
}

#[tokio::test]
async fn an_action_in_doubt_after_a_kill_is_not_run_again() {
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("marks");
    let config = format!(
        "route: {{receiver: nobody}}\nreceivers:\n- name: nobody\n\
         remediations:\n- name: r\n  match: [alertname=GpuLost]\n  mode: auto\n  action: {{exec: {{command: [/bin/sh, -c, 'echo ran >> {}; exec sleep 60']}}}}\n  verify: {{resolved_within: 1h}}\n",
        marks.display()
    );
    let mut program = Program::start(folder.path(), &config).await;
    program.post("/api/v2/alerts", &json!([{"labels": {"alertname": "GpuLost"}}])).await;
    program.wait_for("/api/v2/remediations", |list| list[0]["state"] == "running" && marks.exists()).await;
    program.kill();

    let program = Program::start(folder.path(), &config).await;
    let list = program.wait_for("/api/v2/remediations", |list| list.is_array()).await;
    assert_eq!((&list[0]["state"], &list[0]["inDoubt"]), (&json!("verifying"), &json!(true)));
    program.post("/api/v2/alerts", &json!([{"labels": {"alertname": "GpuLost"}}])).await;
    assert_eq!(
        program.wait_for("/api/v2/remediations", |list| list.is_array()).await.as_array().unwrap().len(),
        1
    );
    assert_eq!(std::fs::read_to_string(&marks).unwrap(), "ran\n");
}

#[tokio::test]
async fn a_broken_configuration_names_its_place_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("am.yml"), "route:\n  receiver: a\n  group_wait: soon\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_pharos-alertmanager"))
        .current_dir(folder.path())
        .args(["--config.file=am.yml", "--web.listen-address=127.0.0.1:0"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("am.yml:3:15: route.group_wait"), "{text}");
}
