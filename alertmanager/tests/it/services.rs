//! What services receive, and what happens when they fail.

use crate::support::{Alertmanager, Service};
use serde_json::{Value, json};
use std::slice::from_ref;

async fn with_receiver(service: &Service, receiver: &str) -> Alertmanager {
    let receiver = receiver.replace("URL", &service.url);
    let config = format!(
        "route: {{receiver: r, group_by: [alertname], group_interval: 1m}}\nreceivers:\n- name: r\n{receiver}"
    );
    Alertmanager::start(&config).await
}

#[tokio::test]
async fn slack_gets_an_attachment_and_says_ok() {
    let mut slack = Service::start().await;
    let am = with_receiver(
        &slack,
        "  slack_configs:\n  - api_url: URL/services/T/B\n    channel: '#gpu'\n    send_resolved: true\n    text: '{{ range .Alerts }}{{ .Annotations.summary }} on {{ .Labels.node }}{{ end }}'\n    fields: [{title: Node, value: '{{ .CommonLabels.node }}', short: true}]\n",
    )
    .await;
    let labels = json!({"alertname": "GpuHot", "node": "n1"});
    am.fire(from_ref(&labels)).await;
    let message = am.next(&mut slack).await;
    assert_eq!(message.path, "/services/T/B");
    assert_eq!(
        message.body,
        json!({
            "channel": "#gpu",
            "username": "Alertmanager",
            "attachments": [{
                "title": "[FIRING:1] GpuHot (n1)",
                "title_link": format!("{}/#/alerts?receiver=r", am.url),
                "text": "it broke on n1",
                "fallback": format!("[FIRING:1] GpuHot (n1) | {}/#/alerts?receiver=r", am.url),
                "color": "danger",
                "mrkdwn_in": ["fallback", "pretext", "text"],
                "fields": [{"title": "Node", "value": "n1", "short": true}],
            }],
        })
    );
    am.resolve(&[labels]).await;
    am.minutes(1);
    assert_eq!(am.next(&mut slack).await.body["attachments"][0]["color"], "good");
}

#[tokio::test]
async fn a_slack_message_posted_by_the_api_is_edited_when_somebody_acknowledges() {
    let mut slack = Service::start().await;
    slack.plan(200, r#"{"ok":true,"channel":"C1","ts":"123.456"}"#);
    let am = with_receiver(
        &slack,
        "  slack_configs: [{app_token: xoxb, app_url: 'URL/api/chat.postMessage', channel: '#gpu'}]\n",
    )
    .await;
    am.fire(&[json!({"alertname": "GpuHot"})]).await;
    let posted = am.next(&mut slack).await;
    assert_eq!(
        (posted.path.as_str(), posted.header("authorization")),
        ("/api/chat.postMessage", "Bearer xoxb")
    );
    let fingerprint = am.fingerprint().await;
    am.wait_for("/api/v2/audit", |list| list[0]["event"] == "notification_sent").await;
    am.post_ok(&format!("/api/v2/escalations/{fingerprint}/acknowledge"), &json!({"by": "ada"})).await;
    let edit = am.next(&mut slack).await;
    assert_eq!(edit.path, "/api/chat.update");
    assert_eq!((&edit.body["channel"], &edit.body["ts"]), (&json!("C1"), &json!("123.456")));
    assert_eq!(edit.body["attachments"][0]["footer"], "Acknowledged by ada");
}

#[tokio::test]
async fn pagerduty_gets_trigger_and_resolve_under_alertmanagers_dedup_key() {
    let mut pagerduty = Service::start().await;
    pagerduty.plan(202, r#"{"status":"success"}"#);
    let am = with_receiver(
        &pagerduty,
        "  pagerduty_configs:\n  - routing_key: abc\n    url: URL/v2/enqueue\n    severity: '{{ .CommonLabels.severity }}'\n    details: {node: '{{ .CommonLabels.node }}'}\n",
    )
    .await;
    let labels = json!({"alertname": "GpuLost", "node": "n1", "severity": "critical"});
    am.fire(from_ref(&labels)).await;
    let trigger = am.next(&mut pagerduty).await.body;
    // sha256 of `{}:{alertname="GpuLost"}`.
    assert_eq!(trigger["dedup_key"], "9ffb268570798f98b80c7a9e4f153f5c98473c6d5e6c94473ad027cfbede1c2e");
    assert_eq!(trigger["event_action"], "trigger");
    assert_eq!(trigger["routing_key"], "abc");
    assert_eq!(trigger["payload"]["summary"], "[FIRING:1] GpuLost (n1 critical)");
    assert_eq!(trigger["payload"]["severity"], "critical");
    assert_eq!(trigger["payload"]["source"], "Alertmanager");
    assert_eq!(trigger["payload"]["custom_details"]["node"], "n1");
    assert_eq!(trigger["payload"]["custom_details"]["num_firing"], "1");
    am.resolve(&[labels]).await;
    am.minutes(1);
    let resolve = am.next(&mut pagerduty).await.body;
    assert_eq!((&resolve["event_action"], &resolve["dedup_key"]), (&json!("resolve"), &trigger["dedup_key"]));
    assert_eq!(resolve["payload"]["custom_details"]["num_resolved"], "1");
}

#[tokio::test]
async fn opsgenie_and_teams_get_their_formats() {
    let mut service = Service::start().await;
    let am = with_receiver(
        &service,
        "  opsgenie_configs: [{api_key: k, api_url: 'URL/', priority: P1, tags: 'a, b', responders: [{name: ops, type: team}]}]\n",
    )
    .await;
    let labels = json!({"alertname": "GpuHot", "node": "n1"});
    am.fire(from_ref(&labels)).await;
    let created = am.next(&mut service).await;
    assert_eq!((created.path.as_str(), created.header("authorization")), ("/v2/alerts", "GenieKey k"));
    assert_eq!(created.body["tags"], json!(["a", "b"]));
    assert_eq!(created.body["details"]["node"], "n1");
    am.resolve(from_ref(&labels)).await;
    am.minutes(1);
    let closed = am.next(&mut service).await;
    let alias = created.body["alias"].as_str().unwrap();
    assert_eq!(closed.path, format!("/v2/alerts/{alias}/close?identifierType=alias"));

    let am = with_receiver(&service, "  msteamsv2_configs: [{webhook_url: 'URL/flow'}]\n").await;
    am.fire(&[labels]).await;
    let card = am.next(&mut service).await.body;
    assert_eq!(card["attachments"][0]["contentType"], "application/vnd.microsoft.card.adaptive");
    assert_eq!(card["attachments"][0]["content"]["body"][0]["text"], "[FIRING:1] GpuHot (n1)");
}

#[tokio::test]
async fn a_webhook_gets_version_4_with_its_authorization() {
    let mut hook = Service::start().await;
    let am = with_receiver(
        &hook,
        "  webhook_configs: [{url: 'URL/x', max_alerts: 1, http_config: {authorization: {credentials: tok}, http_headers: {X-Team: {values: [gpu]}}}}]\n",
    )
    .await;
    am.fire(&[json!({"alertname": "A", "i": "1"}), json!({"alertname": "A", "i": "2"})]).await;
    let request = hook.next().await;
    assert_eq!((request.header("authorization"), request.header("x-team")), ("Bearer tok", "gpu"));
    assert_eq!(request.header("idempotency-key").len(), 64);
    let body = &request.body;
    assert_eq!((&body["version"], &body["truncatedAlerts"]), (&json!("4"), &json!(1)));
    assert_eq!(body["groupKey"], r#"{}:{alertname="A"}"#);
    assert_eq!(body["groupLabels"], json!({"alertname": "A"}));
    assert_eq!(body["commonLabels"], json!({"alertname": "A"}));
    assert_eq!(body["alerts"][0]["endsAt"], "0001-01-01T00:00:00Z");
}

const HOOK: &str = "  webhook_configs: [{url: 'URL/x'}]\n";

#[tokio::test]
async fn passing_failures_are_retried_under_the_same_key() {
    let mut hook = Service::start().await;
    for status in [500, 429, 503] {
        hook.plan(status, "not now");
    }
    let am = with_receiver(&hook, HOOK).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    let first = hook.next().await;
    for _ in 0..3 {
        let again = hook.next_while(&am.clock).await;
        assert_eq!(again.header("idempotency-key"), first.header("idempotency-key"));
    }
    am.wait_for("/api/v2/audit", |list| list[0]["event"] == "notification_sent").await;
}

#[tokio::test]
async fn a_refusal_is_not_retried_but_the_next_interval_tries_again() {
    let mut hook = Service::start().await;
    hook.plan(400, "bad");
    let am = with_receiver(&hook, HOOK).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    am.next(&mut hook).await;
    let failed = |list: &Value| list[0]["event"] == "notification_failed";
    let audit = am.wait_for("/api/v2/audit", failed).await;
    assert!(audit[0]["detail"].as_str().unwrap().contains("400"));
    let metrics = am.get("/metrics").await;
    let want = r#"alertmanager_notifications_failed_total{integration="webhook",reason="refused",receiver_name="r"} 1"#;
    assert!(metrics.as_str().unwrap().contains(want), "{metrics}");
    am.seconds(59);
    am.get("/api/v2/status").await;
    assert!(hook.is_quiet());
    am.seconds(1);
    hook.next().await;
}

#[tokio::test]
async fn a_service_that_hangs_delays_nobody_else() {
    let mut hanging = Service::start().await;
    let mut other = Service::start().await;
    hanging.plan(0, "");
    let config = format!(
        "route: {{receiver: both, group_by: [alertname]}}\nreceivers:\n- name: both\n  webhook_configs: [{{url: '{}'}}, {{url: '{}'}}]\n",
        hanging.url, other.url
    );
    let am = Alertmanager::start(&config).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    hanging.next().await;
    assert_eq!(other.next().await.alerts(), ["firing A"]);
    // The same group goes on for the healthy one while the other hangs.
    am.fire(&[json!({"alertname": "A", "i": "2"})]).await;
    am.seconds(1);
    assert_eq!(other.next().await.alerts(), ["firing A", "firing A"]);
    // When the attempt is given up, the next one tells what was passed over.
    loop {
        if hanging.next_while(&am.clock).await.alerts().len() == 2 {
            break;
        }
    }
}

/// Speaks SMTP with one client and returns what it said.
async fn one_mail(listener: tokio::net::TcpListener) -> String {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let (stream, _) = listener.accept().await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 test\r\n").await.unwrap();
    let (mut said, mut in_data) = (String::new(), false);
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push_str(&line);
        said.push('\n');
        let answer = match line.as_str() {
            "." => {
                in_data = false;
                "250 taken"
            }
            _ if in_data => continue,
            "DATA" => {
                in_data = true;
                "354 go on"
            }
            "QUIT" => break,
            _ => "250 ok",
        };
        writer.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
        if answer == "250 taken" {
            break;
        }
    }
    said
}

#[tokio::test]
async fn an_email_goes_out_by_smtp_with_escaped_html() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let smarthost = listener.local_addr().unwrap();
    let mail = tokio::spawn(one_mail(listener));
    let config = format!(
        "global: {{smtp_smarthost: '{smarthost}', smtp_from: am@example.org, smtp_require_tls: false}}\n\
         route: {{receiver: ops, group_by: [alertname]}}\nreceivers:\n- name: ops\n  email_configs: [{{to: 'ops@example.org, gpu@example.org', headers: {{X-Team: gpu}}}}]\n"
    );
    let am = Alertmanager::start(&config).await;
    am.fire(&[json!({"alertname": "Gpu<b>", "node": "n1"})]).await;
    let said = mail.await.unwrap();
    for want in [
        "MAIL FROM:<am@example.org>",
        "RCPT TO:<ops@example.org>",
        "RCPT TO:<gpu@example.org>",
        "X-Team: gpu",
        "Subject: [FIRING:1] Gpu<b> (n1)",
        "Gpu&lt;b&gt;",
    ] {
        assert!(said.contains(want), "{want} is missing in {said}");
    }
}
