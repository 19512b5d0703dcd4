//! From a hot CPU to a person's phone: the real programs watch this machine, a rule fires, a tier is
//! told, somebody acknowledges, and the next tier stays silent.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_tests::api::Api;
use pharos_tests::listener::Listener;
use pharos_tests::load::CpuBurn;
use pharos_tests::program::Program;
use pharos_tests::wait::until;
use serde_json::{Value, json};

fn alertmanager_config(listener: &Listener) -> String {
    let url = listener.url();
    format!(
        r##"
route:
  receiver: devops-slack
  group_by: [alertname, instance]
receivers:
  - name: devops-slack
    slack_configs:
      - {{api_url: "{url}/slack", channel: "#devops", send_resolved: true}}
  - name: devops-hook
    webhook_configs:
      - {{url: "{url}/tier1"}}
  - name: oncall-pagerduty
    pagerduty_configs:
      - {{routing_key: key, url: "{url}/v2/enqueue"}}
escalations:
  - name: critical
    match: ['severity="critical"']
    tiers:
      - {{receiver: devops-hook, after: 0s}}
      - {{receiver: oncall-pagerduty, after: 6s}}
    stop_on: [acknowledged, resolved, silenced]
remediations:
  - name: list-processes
    match: ['alertname="HostCpuSaturated"']
    mode: dry_run
    action: {{exec: {{command: ['/bin/ps', '{{{{ .Labels.instance }}}}'], timeout: 5s}}}}
    limits: {{cooldown: 10m, max_per_hour: 5, max_concurrent: 1, max_nodes_percent: 100}}
"##
    )
}

/// Where the escalation of an alert stands.
async fn escalation(alertmanager: &Api, alertname: &str) -> Option<Value> {
    let all = alertmanager.json("/api/v2/escalations", &[]).await?;
    let found = all.as_array()?.iter().find(|escalation| escalation.to_string().contains(alertname));
    found.cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cpu_burn_reaches_slack_and_an_acknowledgement_stops_the_ladder() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let listener = Listener::start().await;
    std::fs::write(path("alertmanager.yml"), alertmanager_config(&listener)).unwrap();
    let alertmanager_program = Program::start(
        "pharos-alertmanager",
        &[
            "--config.file",
            &path("alertmanager.yml"),
            "--storage.path",
            &path("alertmanager"),
            "--web.listen-address",
            "127.0.0.1:0",
        ],
        1,
    );
    let collector_program = Program::start(
        "pharos-collector",
        &[
            "--storage.path",
            &path("collector"),
            "--web.listen-address",
            "127.0.0.1:0",
            "--alertmanager.url",
            &alertmanager_program.url(),
        ],
        1,
    );
    let agent_program = Program::start(
        "pharos-agent",
        &[
            "--storage.path",
            &path("agent"),
            "--web.listen-address",
            "127.0.0.1:0",
            "--collector.address",
            &collector_program.address().to_string(),
            "--node.name",
            "this-machine",
        ],
        1,
    );
    let collector = Api::new(collector_program.url());
    let alertmanager = Api::new(alertmanager_program.url());

    // This machine is watched: real samples, in node_exporter's names, at one a second.
    let series = until("300 node_ series", async || {
        collector.value(r#"count({__name__=~"node_.+"})"#).await.filter(|&count| count >= 300.0)
    })
    .await;
    assert!(series >= 300.0);
    until("ten seconds of samples", async || {
        let samples = collector.value("sum(count_over_time(node_load1[15s]))").await?;
        (samples >= 10.0).then_some(())
    })
    .await;

    // Break the threshold.
    let burn = CpuBurn::start();
    let slack = until("a Slack message", async || {
        listener.mentioning("/slack", "HostCpuSaturated").into_iter().next()
    })
    .await;
    assert!(slack.body["channel"] == "#devops", "{:?}", slack.body);
    until("the first tier", async || listener.mentioning("/tier1", "HostCpuSaturated").into_iter().next())
        .await;

    // A second alert that nobody acknowledges shows that the ladder goes on.
    let control = json!([{"labels": {"alertname": "Control", "severity": "critical", "instance": "other"}}]);
    assert_eq!(alertmanager.post("/api/v2/alerts", &control).await.unwrap().0, 200);

    let alerts =
        alertmanager.json("/api/v2/alerts", &[("filter", "alertname=HostCpuSaturated")]).await.unwrap();
    let fingerprint = alerts[0]["fingerprint"].as_str().unwrap().to_owned();
    let acknowledge = json!({"by": "anna", "comment": "looking", "expires_in": "1h"});
    let path = format!("/api/v2/escalations/{fingerprint}/acknowledge");
    let (status, body) = alertmanager.post(&path, &acknowledge).await.unwrap();
    assert_eq!(status, 200, "{body}");
    let standing = escalation(&alertmanager, "HostCpuSaturated").await.unwrap();
    assert!(standing.to_string().contains("anna"), "{standing}");

    until("the control alert at the second tier", async || {
        let pages = listener.mentioning("/v2/enqueue", "Control");
        pages.into_iter().find(|page| page.body["event_action"] == "trigger")
    })
    .await;
    let paged: Vec<_> = listener
        .mentioning("/v2/enqueue", "HostCpuSaturated")
        .into_iter()
        .filter(|page| page.body["event_action"] == "trigger")
        .collect();
    assert!(paged.is_empty(), "the second tier was told although somebody had acknowledged: {paged:?}");

    // The remediation ran dry: decided and audited, nothing executed.
    let remediations = until("the remediation", async || {
        let all = alertmanager.json("/api/v2/remediations", &[]).await?;
        (!all.as_array()?.is_empty()).then_some(all)
    })
    .await;
    assert!(remediations.to_string().contains("dry_run"), "{remediations}");

    // Whether the machine gets idle again is not ours to decide, so resolving is tested elsewhere.
    drop(burn);
    assert!(agent_program.terminate().success());
    assert!(collector_program.terminate().success());
    assert!(alertmanager_program.terminate().success());
}
