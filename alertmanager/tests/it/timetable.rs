//! Timetables: at this time that happens, by that time this is told.

use crate::support::{Alertmanager, Service};
use serde_json::json;
use std::slice::from_ref;

fn one_webhook(service: &Service, more: &str) -> String {
    format!(
        "route:\n  receiver: hook\n  group_by: [cluster]\n{more}receivers:\n- name: hook\n  webhook_configs: [{{url: '{}/hook'}}]\n",
        service.url
    )
}

#[tokio::test]
async fn at_0_s_an_alert_fires_and_is_told_at_once_and_joiners_follow_after_a_second() {
    let mut hook = Service::start().await;
    let am = Alertmanager::start(&one_webhook(&hook, "")).await;
    am.fire(&[json!({"alertname": "A"}), json!({"alertname": "B"})]).await;
    let first = am.next(&mut hook).await;
    assert_eq!(first.alerts(), ["firing A", "firing B"]);
    assert_eq!(first.body["notification_reason"], "first_notification");

    // Two join within the gathering window and are told together.
    am.fire(&[json!({"alertname": "C"})]).await;
    am.fire(&[json!({"alertname": "D"})]).await;
    am.seconds(1);
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A", "firing B", "firing C", "firing D"]);

    // The window has doubled; a resolve is news too.
    am.resolve(&[json!({"alertname": "A"})]).await;
    am.seconds(2);
    let third = am.next(&mut hook).await;
    assert_eq!(third.alerts(), ["firing B", "firing C", "firing D", "resolved A"]);

    let rest = [json!({"alertname": "B"}), json!({"alertname": "C"}), json!({"alertname": "D"})];
    am.resolve(&rest).await;
    am.seconds(4);
    let last = am.next(&mut hook).await;
    assert_eq!(last.body["status"], "resolved");
    assert_eq!(last.alerts(), ["resolved B", "resolved C", "resolved D"]);
}

#[tokio::test]
async fn written_timers_are_alertmanagers() {
    let mut hook = Service::start().await;
    let timers = "  group_wait: 30s\n  group_interval: 2m\n  repeat_interval: 10m\n";
    let am = Alertmanager::start(&one_webhook(&hook, timers)).await;
    let start = am.time(0);
    am.fire(&[json!({"alertname": "A"})]).await;
    am.seconds(29);
    am.fire(&[json!({"alertname": "B"})]).await;
    am.seconds(1);
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A", "firing B"]);
    am.seconds(5);
    am.fire(&[json!({"alertname": "C"})]).await;
    am.seconds(115);
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A", "firing B", "firing C"]);
    // Nothing changes any more: the next notice is the repeat.
    for _ in 0..6 {
        am.minutes(2);
        am.wait_for("/metrics", |_| true).await;
    }
    let repeat = am.next(&mut hook).await;
    assert_eq!(repeat.body["notification_reason"], "repeat_interval");
    assert_eq!(repeat.body["alerts"][0]["startsAt"], start.replace(".000", ""));
}

#[tokio::test]
async fn an_alert_that_nobody_reports_again_is_resolved_when_its_time_is_over() {
    let mut hook = Service::start().await;
    let am = Alertmanager::start(&one_webhook(&hook, "")).await;
    am.post_ok("/api/v2/alerts", &json!([{"labels": {"alertname": "A"}}])).await;
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A"]);
    am.minutes(5);
    assert_eq!(am.next(&mut hook).await.alerts(), ["resolved A"]);
}

#[tokio::test]
async fn what_a_silence_or_another_alert_covers_is_not_told() {
    let mut hook = Service::start().await;
    let rules = "inhibit_rules:\n- source_matchers: [alertname=NodeDown]\n  target_matchers: [severity=warning]\n  equal: [node]\n";
    let am = Alertmanager::start(&format!("{}{rules}", one_webhook(&hook, ""))).await;
    am.silence("alertname", "Quiet", 60).await;
    am.fire(&[
        json!({"alertname": "NodeDown", "node": "n1"}),
        json!({"alertname": "GpuHot", "node": "n1", "severity": "warning"}),
        json!({"alertname": "GpuHot", "node": "n2", "severity": "warning"}),
        json!({"alertname": "Quiet"}),
    ])
    .await;
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing GpuHot", "firing NodeDown"]);
    let alerts = am.get("/api/v2/alerts?silenced=false&inhibited=false").await;
    assert_eq!(alerts.as_array().unwrap().len(), 2);
    let suppressed = am.get("/api/v2/alerts?active=false").await;
    assert_eq!(suppressed.as_array().unwrap().len(), 2);
    let metrics = am.get("/metrics").await;
    assert!(
        metrics.as_str().unwrap().contains("pharos_alertmanager_alerts_dropped_total{reason=\"silenced\"} 1")
    );
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("pharos_alertmanager_alerts_dropped_total{reason=\"inhibited\"} 1")
    );
}

#[tokio::test]
async fn a_route_is_mute_at_its_mute_times() {
    let mut hook = Service::start().await;
    // It is Friday noon.
    let config = format!(
        "route:\n  receiver: hook\n  routes:\n  - matchers: [team=day]\n    mute_time_intervals: [lunch]\n  - matchers: [team=night]\n    active_time_intervals: [night]\n\
         time_intervals:\n- name: lunch\n  time_intervals: [{{times: [{{start_time: '12:00', end_time: '13:00'}}], weekdays: [friday]}}]\n- name: night\n  time_intervals: [{{times: [{{start_time: '20:00', end_time: '24:00'}}]}}]\n\
         receivers:\n- name: hook\n  webhook_configs: [{{url: '{}'}}]\n",
        hook.url
    );
    let am = Alertmanager::start(&config).await;
    am.fire(&[
        json!({"alertname": "A", "team": "day"}),
        json!({"alertname": "B", "team": "night"}),
        json!({"alertname": "C"}),
    ])
    .await;
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing C"]);
    let muted = am.get("/api/v2/alerts").await;
    let muted_by: Vec<&str> =
        muted.as_array().unwrap().iter().filter_map(|alert| alert["status"]["mutedBy"][0].as_str()).collect();
    assert_eq!(muted_by.len(), 2);
    am.minutes(61);
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A"]);
}

fn ladder(devops: &Service, oncall: &Service, leads: &Service) -> String {
    format!(
        "route: {{receiver: nobody}}\nreceivers:\n- name: nobody\n\
         - name: devops\n  webhook_configs: [{{url: '{}/devops'}}]\n\
         - name: oncall\n  pagerduty_configs: [{{routing_key: key, url: '{}/v2/enqueue'}}]\n\
         - name: leads\n  webhook_configs: [{{url: '{}/leads'}}]\n\
         escalations:\n- name: gpu-critical\n  match: ['severity=\"critical\"']\n  tiers:\n  - {{receiver: devops, after: 0s}}\n  - {{receiver: oncall, after: 5m}}\n  - {{receiver: leads, after: 15m, repeat: 10m}}\n  stop_on: [acknowledged, resolved, silenced]\n",
        devops.url, oncall.url, leads.url
    )
}

#[tokio::test]
async fn at_0_s_a_gpu_falls_off_and_each_tier_is_paged_in_its_time_until_it_is_resolved() {
    let (mut devops, mut oncall, mut leads) =
        (Service::start().await, Service::start().await, Service::start().await);
    let am = Alertmanager::start(&ladder(&devops, &oncall, &leads)).await;
    am.fire(&[json!({"alertname": "GpuLost", "severity": "critical"})]).await;
    let first = am.next(&mut devops).await;
    assert_eq!(first.body["escalation"]["tier"], 1);
    am.minutes(5);
    let page = am.next(&mut oncall).await;
    assert_eq!(page.body["event_action"], "trigger");
    am.minutes(10);
    assert_eq!(am.next(&mut leads).await.body["escalation"]["tier"], 3);
    am.minutes(10);
    assert_eq!(am.next(&mut leads).await.body["escalation"]["tier"], 3);
    am.wait_for("/api/v2/escalations", |list| list[0]["tiers"][2]["times"] == 2).await;

    am.resolve(&[json!({"alertname": "GpuLost", "severity": "critical"})]).await;
    assert_eq!(am.next(&mut devops).await.body["status"], "resolved");
    let resolve = am.next(&mut oncall).await;
    assert_eq!(resolve.body["event_action"], "resolve");
    assert_eq!(resolve.body["dedup_key"], page.body["dedup_key"]);
    assert_eq!(am.next(&mut leads).await.body["status"], "resolved");
    am.wait_for("/api/v2/escalations", |list| list == &json!([])).await;
}

#[tokio::test]
async fn an_acknowledgement_keeps_the_next_tier_silent_and_tells_pagerduty() {
    let (mut devops, mut oncall, mut leads) =
        (Service::start().await, Service::start().await, Service::start().await);
    let am = Alertmanager::start(&ladder(&devops, &oncall, &leads)).await;
    let labels = json!({"alertname": "GpuLost", "severity": "critical"});
    am.fire(from_ref(&labels)).await;
    am.next(&mut devops).await;
    am.minutes(5);
    let page = am.next(&mut oncall).await;
    let fingerprint = am.fingerprint().await;
    am.wait_for("/api/v2/escalations", |list| list[0]["tiers"][1]["status"] == "told").await;
    let path = format!("/api/v2/escalations/{fingerprint}/acknowledge");
    am.post_ok(&path, &json!({"by": "ada", "comment": "on it", "expires_in": "1h"})).await;
    let event = am.next(&mut oncall).await;
    assert_eq!(event.body["event_action"], "acknowledge");
    assert_eq!(event.body["dedup_key"], page.body["dedup_key"]);
    let shown = am.get("/api/v2/escalations").await;
    assert_eq!(
        (&shown[0]["state"], &shown[0]["acknowledgement"]["by"]),
        (&json!("acknowledged"), &json!("ada"))
    );

    // Half an hour later nobody was told; taking it back lets the ladder go on where it stood.
    am.minutes(30);
    assert_eq!(am.delete(&path).await.0, 200);
    am.wait_for("/api/v2/escalations", |list| {
        list[0]["state"] == "escalating" && !list[0]["nextAt"].is_null()
    })
    .await;
    assert!(leads.is_quiet());
    am.minutes(10);
    am.next(&mut leads).await;

    // Acknowledged again, this time it expires by itself; a resolve ends everything.
    am.post_ok(&path, &json!({"by": "ada", "expires_in": "1m"})).await;
    am.next(&mut oncall).await;
    am.wait_for("/api/v2/escalations", |list| list[0]["state"] == "acknowledged").await;
    am.minutes(1);
    am.wait_for("/api/v2/escalations", |list| list[0]["state"] == "escalating").await;
    am.resolve(from_ref(&labels)).await;
    am.wait_for("/api/v2/escalations", |list| list == &json!([])).await;
    // A new firing starts at tier 1.
    am.next(&mut devops).await;
    am.seconds(30);
    am.fire(&[labels]).await;
    assert_eq!(am.next(&mut devops).await.body["escalation"]["tier"], 1);
}

#[tokio::test]
async fn a_silence_holds_the_ladder_and_its_end_lets_it_go_on_where_it_stood() {
    let (mut devops, mut oncall, leads) =
        (Service::start().await, Service::start().await, Service::start().await);
    let am = Alertmanager::start(&ladder(&devops, &oncall, &leads)).await;
    am.fire(&[json!({"alertname": "GpuLost", "severity": "critical"})]).await;
    am.next(&mut devops).await;
    am.minutes(3);
    am.silence("alertname", "GpuLost", 60).await;
    am.wait_for("/api/v2/escalations", |list| list[0]["state"] == "silenced" && list[0]["nextAt"].is_null())
        .await;
    am.minutes(60);
    am.wait_for("/api/v2/escalations", |list| list[0]["state"] == "escalating").await;
    assert!(oncall.is_quiet());
    am.minutes(2);
    assert_eq!(am.next(&mut oncall).await.body["event_action"], "trigger");
}

#[tokio::test]
async fn tier_1_does_not_tell_again_whom_the_route_has_just_told() {
    let mut hook = Service::start().await;
    let config = format!(
        "{}escalations:\n- name: e\n  match: [alertname=A]\n  tiers: [{{receiver: hook}}, {{receiver: hook, after: 1m}}]\n",
        one_webhook(&hook, "")
    );
    let am = Alertmanager::start(&config).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    assert!(am.next(&mut hook).await.body["escalation"].is_null());
    am.wait_for("/api/v2/escalations", |list| list[0]["tiers"][0]["status"] == "told_by_route").await;
    am.minutes(1);
    assert_eq!(am.next(&mut hook).await.body["escalation"]["tier"], 2);
}

#[tokio::test]
async fn an_escalation_configured_later_starts_with_the_program_and_does_not_repeat_the_route() {
    let mut hook = Service::start().await;
    let mut late = Service::start().await;
    let plain =
        format!("{}- name: late\n  webhook_configs: [{{url: '{}'}}]\n", one_webhook(&hook, ""), late.url);
    let mut am = Alertmanager::start(&plain).await;
    am.fire(&[json!({"alertname": "A"})]).await;
    assert_eq!(am.next(&mut hook).await.alerts(), ["firing A"]);
    am.seconds(30);
    let ladder = "escalations:\n- name: e\n  match: [alertname=A]\n  tiers: [{receiver: hook}, {receiver: late, after: 1m}]\n";
    std::fs::write(am.config_file(), format!("{plain}{ladder}")).unwrap();
    am.restart().await;
    // Nobody has reported the alert again.
    am.wait_for("/api/v2/escalations", |list| list[0]["tiers"][0]["status"] == "told_by_route").await;
    am.minutes(1);
    assert_eq!(am.next(&mut late).await.body["escalation"]["tier"], 2);
    am.settle().await;
    assert!(hook.is_quiet());
}

#[tokio::test]
async fn opening_a_signed_link_changes_nothing_and_its_button_acknowledges() {
    let (mut devops, oncall, leads) =
        (Service::start().await, Service::start().await, Service::start().await);
    let am = Alertmanager::start(&ladder(&devops, &oncall, &leads)).await;
    am.fire(&[json!({"alertname": "Gpu<b>Lost", "severity": "critical"})]).await;
    let link = am.next(&mut devops).await.body["escalation"]["acknowledgeURL"].as_str().unwrap().to_owned();
    let (status, page) = am.answer(am.http.get(&link)).await;
    assert_eq!(status, 200);
    assert!(page.as_str().unwrap().contains("Gpu&lt;b&gt;Lost"));
    assert_eq!(am.get("/api/v2/escalations").await[0]["state"], "escalating");
    let (path, query) = link.split_once('?').unwrap();
    assert_eq!(
        am.answer(
            am.http
                .post(path)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(format!("{query}0&by=eve"))
        )
        .await
        .0,
        403
    );
    let form = format!("{query}&by=ada");
    let request = am.http.post(path).header("content-type", "application/x-www-form-urlencoded").body(form);
    assert_eq!(am.answer(request).await.0, 200);
    let shown = am.get("/api/v2/escalations").await;
    assert_eq!(shown[0]["acknowledgement"]["by"], "ada");
    let home = am.get("/").await;
    assert!(home.as_str().unwrap().contains("acknowledged by ada"));
}

#[tokio::test]
async fn a_receiver_that_wants_no_resolves_hears_of_the_next_firing() {
    let mut hook = Service::start().await;
    let config = format!(
        "route: {{receiver: hook, group_by: [alertname]}}\nreceivers:\n- name: hook\n  webhook_configs: [{{url: '{}', send_resolved: false}}]\n",
        hook.url
    );
    let am = Alertmanager::start(&config).await;
    let labels = json!({"alertname": "A"});
    for _ in 0..3 {
        am.fire(from_ref(&labels)).await;
        assert_eq!(am.next(&mut hook).await.alerts(), ["firing A"]);
        am.seconds(30);
        am.resolve(from_ref(&labels)).await;
        am.wait_for("/api/v2/alerts", |list| list == &json!([])).await;
        am.seconds(30);
        // The group is over when its last look has passed.
        let over = |text: &serde_json::Value| {
            text.as_str().is_some_and(|text| text.contains("alertmanager_dispatcher_aggregation_groups 0\n"))
        };
        am.wait_for("/metrics", over).await;
    }
}
