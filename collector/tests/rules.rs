//! Rules of a real collector: from a sample to an alert at a real listener, by a clock that tests move.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

#[path = "support/scene.rs"]
mod scene;
mod support;

use pharos_common::clock::{Clock, ManualClock};
use scene::{HOT, NOW_MS, Scene, options_with};
use serde_json::{Value, json};
use std::time::Duration;
use support::{AlertListener, TestCollector};

#[tokio::test]
async fn a_threshold_fires_when_its_sample_arrives_and_resolves_so_too() {
    let mut scene = Scene::open(HOT).await;
    scene.sample("gpu_temp{instance=\"n1\"} 91.27\ngpu_temp{instance=\"n2\"} 90\n").await;
    let alert = scene.alerts.next().await;
    assert_eq!(
        alert["labels"],
        json!({"alertname": "GpuHot", "instance": "n1", "severity": "critical", "where": "n1"})
    );
    let mut texts = alert["annotations"].clone();
    // When it came about. Whether it was durable by then depends on the disk.
    texts.as_object_mut().unwrap().remove("pharos_durable_at");
    for name in ["pharos_sampled_at", "pharos_received_at", "pharos_decided_at", "pharos_sent_at"] {
        let at = texts.as_object_mut().unwrap().remove(name).unwrap();
        // The clock stands still here, but what passes between arrival and decision is really measured.
        assert!(at.as_str().unwrap() <= "2023-11-14T22:13:20.000Z", "{name}: {at}");
    }
    assert_eq!(texts, json!({"summary": "GPU of n1 is at 91.3 C"}));
    assert_eq!(alert["startsAt"], "2023-11-14T22:13:20.000Z");
    let link = alert["generatorURL"].as_str().unwrap();
    assert!(link.ends_with("/graph?g0.expr=gpu_temp+%3E+90&g0.tab=1"), "{link}");
    assert_eq!(scene.states().await, ["firing"]);
    let rules = scene.collector.data("/api/v1/rules").await;
    let rule = &rules["groups"][0]["rules"][0];
    assert_eq!(
        (&rule["state"], &rule["health"], &rule["type"]),
        (&json!("firing"), &json!("ok"), &json!("alerting"))
    );
    assert_eq!(rule["alerts"][0]["value"], "9.127e+01");
    let series = "/api/v1/query?query=ALERTS{alertstate=%22firing%22}";
    scene.collector.until(series, |body| body["data"]["result"][0]["value"][1] == "1").await;

    scene.advance(1);
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    let resolved = scene.alerts.next().await;
    assert_eq!(resolved["labels"]["instance"], "n1");
    assert_eq!(resolved["endsAt"], "2023-11-14T22:13:21.000Z");
    scene.until_states(&[]).await;
    scene.collector.until(series, |body| body["data"]["result"] == json!([])).await;
    assert_eq!(scene.alerts.arrived(), Vec::<Value>::new());
    scene.collector.stop().await;
}

#[tokio::test]
async fn only_the_newest_sample_of_a_series_counts() {
    let mut scene = Scene::open(HOT).await;
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    // Sent twice: stored once, and neither judged again nor missed.
    scene.sample(&format!("gpu_temp{{instance=\"n1\"}} 95 {NOW_MS}\n")).await;
    // Older, older than the lookback, too far ahead: stored, not judged.
    scene.sample(&format!("gpu_temp{{instance=\"n1\"}} 95 {}\n", NOW_MS - 1_000)).await;
    scene.sample(&format!("gpu_temp{{instance=\"n2\"}} 95 {}\n", NOW_MS - 300_000)).await;
    scene.sample(&format!("gpu_temp{{instance=\"n3\"}} 95 {}\n", NOW_MS + 10_001)).await;
    // The last of them, so that the others were looked at when it fires.
    scene.sample(&format!("gpu_temp{{instance=\"n4\"}} 95 {}\n", NOW_MS + 10_000)).await;
    assert_eq!(scene.alerts.next().await["labels"]["instance"], "n4");
    assert_eq!(scene.states().await, ["firing"]);
    for line in [
        "pharos_collector_rule_samples_not_judged_total{reason=\"ahead\"} 1",
        "pharos_collector_rule_samples_not_judged_total{reason=\"late\"} 2",
        "pharos_collector_rule_samples_judged_total 2",
    ] {
        scene.collector.until("/metrics", |metrics| metrics.as_str().unwrap_or("").contains(line)).await;
    }
    scene.collector.stop().await;
}

#[tokio::test]
async fn for_ends_by_a_timer_without_a_sample() {
    let mut scene = Scene::open(&HOT.replace("labels: {sev", "for: 5s\n        labels: {sev")).await;
    scene.sample_judged("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.until_states(&["pending"]).await;
    scene.advance(4);
    scene.until_states(&["pending"]).await;
    assert_eq!(scene.alerts.arrived(), Vec::<Value>::new());
    scene.advance(1);
    assert_eq!(scene.alerts.next().await["startsAt"], "2023-11-14T22:13:25.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_series_that_goes_silent_or_stale_resolves_its_alert() {
    let mut scene = Scene::open(HOT).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.alerts.next().await;
    scene.advance(299);
    scene.until_states(&["firing"]).await;
    scene.advance(1);
    scene.until_states(&[]).await;
    let resolved = loop {
        let alert = scene.alerts.next().await;
        if alert["endsAt"] == "2023-11-14T22:18:20.000Z" {
            break alert;
        }
    };
    assert_eq!(resolved["labels"]["instance"], "n1");
    scene.collector.stop().await;
}

/// The line of a rule's annotations that says what missing data means.
fn on_missing(policy: &str) -> String {
    HOT.replace("summary:", &format!("pharos_on_missing: {policy}\n          summary:"))
}

#[tokio::test]
async fn an_alert_is_kept_while_its_data_is_missing_if_its_rule_says_so() {
    let mut scene = Scene::open(&on_missing("keep")).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\ngpu_temp{instance=\"n2\"} 50\n").await;
    let alert = scene.alerts.next().await;
    assert_eq!(alert["annotations"]["pharos_on_missing"], Value::Null, "it is an instruction");
    // Silent for longer than the lookback, and over a restart.
    scene.advance(400);
    scene.until_states(&["firing"]).await;
    scene.collector.until("/api/v1/query?query=time()", |_| true).await;
    let Scene { folder, clock, collector, alerts } = scene;
    collector.stop().await;
    let options = options_with(folder.path(), &on_missing("keep"), &alerts.url);
    let collector = TestCollector::start_with(options, clock.clone()).await;
    let mut scene = Scene { folder, clock, collector, alerts };
    scene.until_states(&["firing"]).await;
    scene.advance(1);
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    scene.until_states(&[]).await;
    let resolved = loop {
        let alert = scene.alerts.next().await;
        if alert["endsAt"] == "2023-11-14T22:20:01.000Z" {
            break alert;
        }
    };
    assert_eq!(resolved["labels"]["instance"], "n1");
    scene.collector.stop().await;
}

#[tokio::test]
async fn missing_data_fires_if_the_rule_says_so() {
    let mut scene = Scene::open(&on_missing("fire")).await;
    scene.sample("gpu_temp{instance=\"n1\"} 50\ngpu_temp{instance=\"n2\"} 95\n").await;
    // They are judged together, so when the alert of one is there the other has been judged.
    assert_eq!(scene.alerts.next().await["labels"]["instance"], "n2");
    scene.advance(300);
    let missing = loop {
        let alert = scene.alerts.next().await;
        if alert["labels"]["instance"] == "n1" {
            break alert;
        }
    };
    assert_eq!(missing["annotations"]["summary"], "GPU of n1 is at NaN C");
    scene.sample("gpu_temp{instance=\"n1\"} 51\ngpu_temp{instance=\"n2\"} 51\n").await;
    scene.until_states(&[]).await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn an_interval_rule_keeps_its_alerts_too() {
    let rules = on_missing("keep").replace("gpu_temp > 90", "max by (instance) (gpu_temp) > 90");
    let mut scene = Scene::open(&rules.replace("interval: 1h", "interval: 10s")).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\ngpu_temp{instance=\"n2\"} 95\n").await;
    scene.advance(10);
    scene.alerts.next().await;
    scene.until_states(&["firing", "firing"]).await;
    scene.advance(290);
    scene.sample("gpu_temp{instance=\"n2\"} 50\n").await;
    scene.advance(20);
    // One has no data any more, the other has resolved.
    scene.until_states(&["firing"]).await;
    let data = scene.collector.data("/api/v1/alerts").await;
    assert_eq!(data["alerts"][0]["labels"]["instance"], "n1");
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_rule_sees_what_the_rule_before_it_in_its_group_recorded() {
    let rules = r#"
groups:
  - name: host
    rules:
      - record: instance:load:max
        expr: max by (instance) (load)
      - record: instance:load:twice
        expr: sum by (instance) (2 * instance:load:max)
"#;
    let scene = Scene::open(rules).await;
    scene.sample("load{instance=\"n1\"} 4\n").await;
    scene.advance(1);
    let twice = "/api/v1/query?query=instance:load:twice";
    scene
        .collector
        .until(twice, |body| body["data"]["result"][0]["value"] == json!([1_700_000_001, "8"]))
        .await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn other_rules_are_evaluated_on_their_interval() {
    let rules = r#"
groups:
  - name: host
    rules:
      - record: instance:load:avg
        expr: avg by (instance) (load)
        labels: {kind: recorded}
      - alert: LoadHigh
        expr: avg by (instance) (load) > 4
        for: 2s
      - alert: RecordedHigh
        expr: instance:load:avg > 4
"#;
    let mut scene = Scene::open(rules).await;
    scene.sample("load{instance=\"n1\",cpu=\"0\"} 4\nload{instance=\"n1\",cpu=\"1\"} 6\n").await;
    assert_eq!(scene.states().await, Vec::<String>::new());
    scene.advance(1);
    // A threshold over a recorded series fires as soon as that is written.
    let alert = scene.alerts.next().await;
    assert_eq!(alert["labels"], json!({"alertname": "RecordedHigh", "instance": "n1", "kind": "recorded"}));
    scene.until_states(&["pending", "firing"]).await;
    scene.advance(1);
    scene
        .collector
        .until("/api/v1/query?query=instance:load:avg", |b| b["data"]["result"][0]["value"][1] == "5")
        .await;
    scene.advance(1);
    let fired = loop {
        let alert = scene.alerts.next().await;
        if alert["labels"]["alertname"] == "LoadHigh" {
            break alert;
        }
    };
    assert_eq!(fired["startsAt"], "2023-11-14T22:13:23.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn rules_of_a_group_read_a_shared_selector_once_per_evaluation() {
    let rules = r#"
groups:
  - name: host
    rules:
      - {record: load:max, expr: max(load)}
      - {record: load:min, expr: min(load)}
      - {record: load:spread, expr: load:max - load:min}
      - {record: load:twice, expr: load:max * 2}
"#;
    let scene = Scene::open(rules).await;
    scene.sample("load{instance=\"n1\"} 4\nload{instance=\"n2\"} 6\n").await;
    scene.advance(1);
    let value = |query: &str| format!("/api/v1/query?query={query}");
    scene.collector.until(&value("load:twice"), |body| body["data"]["result"][0]["value"][1] == "12").await;
    scene.collector.until(&value("load:spread"), |body| body["data"]["result"][0]["value"][1] == "2").await;
    // What the group records itself is read again.
    let shared = "pharos_collector_rule_reads_shared_total 1\n";
    scene.collector.until("/metrics", |metrics| metrics.as_str().unwrap_or("").contains(shared)).await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn alerts_are_sent_again_every_minute() {
    let mut scene = Scene::open(HOT).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    let first = scene.alerts.next().await;
    assert_eq!(first["endsAt"], "2023-11-15T02:13:20.000Z", "four intervals of an hour");
    scene.advance(60);
    let again = scene.alerts.next().await;
    assert_eq!(again["startsAt"], first["startsAt"]);
    assert_eq!(again["endsAt"], "2023-11-15T02:14:20.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_timers_and_alerts() {
    let rules = HOT.replace("labels: {sev", "for: 10s\n        labels: {sev");
    let scene = Scene::open(&rules).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.until_states(&["pending"]).await;
    scene.advance(6);
    scene.sample("gpu_temp{instance=\"n1\"} 96\n").await;
    let written = "/api/v1/query?query=timestamp(ALERTS_FOR_STATE)";
    scene.collector.until(written, |body| body["data"]["result"][0]["value"][1] == "1700000006").await;
    let Scene { folder, clock, collector, mut alerts } = scene;
    collector.kill().await;

    // Two seconds of outage do not count; what was spent pending does.
    clock.advance(Duration::from_secs(2));
    let options = options_with(folder.path(), &rules, &alerts.url);
    let collector = TestCollector::start_with(options.clone(), clock.clone()).await;
    let data = collector.data("/api/v1/alerts").await;
    assert_eq!(data["alerts"][0]["state"], "pending");
    assert_eq!(data["alerts"][0]["activeAt"], "2023-11-14T22:13:22.000Z");
    clock.advance(Duration::from_secs(4));
    assert_eq!(alerts.next().await["startsAt"], "2023-11-14T22:13:32.000Z");
    let firing = "/api/v1/query?query=ALERTS{alertstate=%22firing%22}";
    collector.until(firing, |body| body["data"]["result"][0]["value"][1] == "1").await;
    collector.stop().await;

    // And one that fired goes on firing.
    let collector = TestCollector::start_with(options, clock.clone()).await;
    assert_eq!(collector.data("/api/v1/alerts").await["alerts"][0]["state"], "firing");
    collector.stop().await;
}

#[tokio::test]
async fn an_alert_keeps_its_start_to_the_millisecond_over_a_restart() {
    let mut scene = Scene::open(HOT).await;
    scene.clock.advance(Duration::from_millis(123));
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    let first = scene.alerts.next().await;
    assert_eq!(first["startsAt"], "2023-11-14T22:13:20.123Z");
    let written = "/api/v1/query?query=ALERTS_FOR_STATE";
    scene.collector.until(written, |body| body["data"]["result"][0]["value"][1] == "1700000000.123").await;
    let Scene { folder, clock, collector, mut alerts } = scene;
    collector.stop().await;
    let options = options_with(folder.path(), HOT, &alerts.url);
    let collector = TestCollector::start_with(options, clock.clone()).await;
    clock.advance(Duration::from_secs(60));
    assert_eq!(alerts.next().await["startsAt"], first["startsAt"]);
    collector.stop().await;
}

#[tokio::test]
async fn a_group_with_a_query_offset_sees_and_records_the_past() {
    let rules = r#"
groups:
  - name: late
    interval: 1s
    query_offset: 3s
    rules:
      - record: load:late
        expr: load * 10
      - alert: LoadHigh
        expr: load > 4
"#;
    let mut scene = Scene::open(rules).await;
    scene.sample(&format!("load 1 {}\nload 5 {}\n", NOW_MS - 1_000, NOW_MS)).await;
    // For three seconds the rules see what was before; also what an arriving sample could decide waits.
    scene.advance(2);
    let recorded = |at: &str| format!("/api/v1/query?query=load:late&time={at}");
    scene.collector.until(&recorded("1699999999"), |b| b["data"]["result"][0]["value"][1] == "10").await;
    assert_eq!(scene.states().await, Vec::<String>::new());
    scene.advance(1);
    assert_eq!(scene.alerts.next().await["startsAt"], "2023-11-14T22:13:23.000Z");
    scene.collector.until(&recorded("1700000000"), |b| b["data"]["result"][0]["value"][1] == "50").await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change_and_a_broken_one_changes_nothing() {
    let mut scene = Scene::open(HOT).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.alerts.next().await;
    let file = scene.folder.path().join("rules.yml");
    let reload = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let url = format!("{}/-/reload", scene.collector.url);
        let response = scene.collector.client.post(url).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, text) = reload("groups:\n  - name: gpu\n    rulez: []\n").await;
    assert_eq!(status, 500);
    assert!(text.contains("rules.yml:3:5: groups[0].rulez: "), "{text}");
    assert_eq!(scene.states().await, ["firing"]);

    let more = format!("{HOT}      - alert: Cold\n        expr: gpu_temp < 5\n");
    assert_eq!(reload(&more).await.0, 200);
    assert_eq!(scene.states().await, ["firing"]);
    scene.advance(1);
    scene.sample("gpu_temp{instance=\"n2\"} 1\n").await;
    assert_eq!(scene.alerts.next().await["labels"]["alertname"], "Cold");
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    let resolved = scene.alerts.next().await;
    assert_eq!(resolved["labels"]["alertname"], "GpuHot");
    assert_eq!(resolved["startsAt"], "2023-11-14T22:13:20.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn an_alert_goes_on_when_its_rule_says_something_else_under_the_same_name_and_labels() {
    let rules = HOT.replace("labels: {sev", "for: 5s\n        labels: {sev");
    let mut scene = Scene::open(&rules).await;
    scene.sample_judged("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.advance(5);
    assert_eq!(scene.alerts.next().await["startsAt"], "2023-11-14T22:13:25.000Z");
    let file = scene.folder.path().join("rules.yml");
    let reload = async |text: &str| {
        std::fs::write(&file, text).unwrap();
        let url = format!("{}/-/reload", scene.collector.url);
        assert_eq!(scene.collector.client.post(url).send().await.unwrap().status().as_u16(), 200);
    };
    // Another text, another threshold, one that only an evaluation on the interval can judge, and back.
    let texts = [
        rules.replace("summary: '", "summary: 'again: "),
        rules.replace("> 90", "> 91"),
        rules.replace("gpu_temp > 90", "max without (gpu) (gpu_temp) > 90").replace("1h", "1s"),
        rules.replace("> 90", "> 92"),
    ];
    for text in texts {
        reload(&text).await;
        let fires = |body: &Value| {
            let alerts = body["data"]["alerts"].as_array().unwrap();
            alerts.len() == 1
                && alerts[0]["state"] == "firing"
                && alerts[0]["activeAt"] == "2023-11-14T22:13:20.000Z"
                && (!text.contains("again")
                    || alerts[0]["annotations"]["summary"].as_str().unwrap().starts_with("again"))
        };
        let body = scene.collector.data("/api/v1/alerts").await;
        assert!(fires(&json!({"data": body})), "{text}\n{body}");
    }
    scene.advance(1);
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    let resolved = scene.alerts.next().await;
    assert_eq!(resolved["startsAt"], "2023-11-14T22:13:25.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn keep_firing_for_bridges_a_gap() {
    let rules = HOT.replace("labels: {sev", "keep_firing_for: 10s\n        labels: {sev");
    let mut scene = Scene::open(&rules).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.alerts.next().await;
    scene.advance(1);
    scene.sample("gpu_temp{instance=\"n1\"} 50\n").await;
    let kept = |body: &Value| body["data"]["alerts"][0]["keepFiringSince"] == "2023-11-14T22:13:21.000Z";
    scene.collector.until("/api/v1/alerts", kept).await;
    scene.advance(10);
    assert_eq!(scene.alerts.next().await["endsAt"], "2023-11-14T22:13:31.000Z");
    scene.collector.stop().await;
}

#[tokio::test]
async fn more_alerts_than_the_limit_are_an_error_of_the_rule() {
    let rules = HOT.replace("interval: 1h", "interval: 1h\n    limit: 1");
    let scene = Scene::open(&rules).await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\ngpu_temp{instance=\"n2\"} 95\n").await;
    let failed = |body: &Value| body["data"]["groups"][0]["rules"][0]["health"] == "err";
    let rules = scene.collector.until("/api/v1/rules", failed).await;
    let rule = &rules["data"]["groups"][0]["rules"][0];
    assert_eq!(rule["lastError"], "exceeded limit of 1 with 2 alerts");
    assert_eq!(rule["alerts"], json!([]));
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_rule_over_its_limit_has_no_alerts_until_there_are_few_enough() {
    let rules = HOT.replace("interval: 1h", "interval: 1h\n    limit: 2");
    let mut scene = Scene::open(&rules).await;
    let temperatures = |values: [u32; 3]| {
        (1..)
            .zip(values)
            .map(|(node, value)| format!("gpu_temp{{instance=\"n{node}\"}} {value}\n"))
            .collect::<String>()
    };
    // Whoever comes first may have been told of: the third makes them too many.
    scene.sample_judged(&temperatures([95, 50, 50])).await;
    scene.alerts.next().await;
    for second in 0..5 {
        scene.advance(1);
        scene.sample_judged(&temperatures([95 + second, 95 + second, 95])).await;
        let rules = scene.collector.data("/api/v1/rules").await;
        let rule = &rules["groups"][0]["rules"][0];
        assert_eq!(rule["lastError"], "exceeded limit of 2 with 3 alerts");
        assert_eq!(rule["alerts"], json!([]));
    }
    // Of the tick that was one too many, two may have been told before the third was judged; afterwards nobody.
    assert!(scene.alerts.arrived().len() <= 2);
    scene.advance(1);
    scene.sample_judged(&temperatures([95, 50, 95])).await;
    scene.until_states(&["firing", "firing"]).await;
    let told = [scene.alerts.next().await, scene.alerts.next().await];
    assert!(told.iter().all(|alert| alert["labels"]["instance"] != "n2"), "{told:?}");
    scene.collector.stop().await;
}

/// A collector of which the clock went on while it was away, and which knows no sample that still counts.
async fn after_an_outage(scene: Scene, rules: &str) -> Scene {
    let written = "/api/v1/query?query=timestamp(ALERTS_FOR_STATE)";
    let now = |body: &Value| body["data"]["result"][0]["value"][1] != Value::Null;
    scene.collector.until(written, now).await;
    let Scene { folder, clock, collector, alerts } = scene;
    collector.kill().await;
    clock.advance(Duration::from_secs(600));
    let options = options_with(folder.path(), rules, &alerts.url);
    let collector = TestCollector::start_with(options, clock.clone()).await;
    Scene { folder, clock, collector, alerts }
}

#[tokio::test]
async fn a_breach_after_samples_without_one_is_another_than_that_of_before_the_restart() {
    let rules = HOT.replace("labels: {sev", "for: 10s\n        labels: {sev");
    let mut scene = Scene::open(&rules).await;
    scene.sample_judged("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.advance(10);
    assert_eq!(scene.alerts.next().await["startsAt"], "2023-11-14T22:13:30.000Z");
    let mut scene = after_an_outage(scene, &rules).await;
    scene.sample_judged("gpu_temp{instance=\"n1\"} 50\n").await;
    scene.advance(1);
    let over = scene.alerts.next().await;
    assert_eq!(
        (&over["startsAt"], &over["endsAt"]),
        (&json!("2023-11-14T22:13:30.000Z"), &json!("2023-11-14T22:23:30.000Z"))
    );
    scene.sample_judged("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.until_states(&["pending"]).await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn an_alert_of_missing_data_is_not_resolved_by_a_restart() {
    let rules = HOT.replace("summary: '", "pharos_on_missing: fire\n          summary: '");
    let mut scene = Scene::open(&rules).await;
    scene.sample_judged("gpu_temp{instance=\"n1\"} 95\n").await;
    scene.alerts.next().await;
    let scene = after_an_outage(scene, &rules).await;
    scene.until_states(&["firing"]).await;
    // Longer than alerts are looked for after a start.
    for _ in 0..5 {
        scene.advance(60);
        scene.sample_judged("gpu_temp{instance=\"n2\"} 5\n").await;
        assert_eq!(scene.states().await, ["firing"]);
    }
    scene.collector.stop().await;
}

#[tokio::test]
async fn annotations_may_ask_queries() {
    let text = r#"'{{ with query "node_info" }}{{ . | first | label "rack" }}{{ end }}'"#;
    let rules = HOT.replace("summary: '", &format!("rack: {text}\n          summary: '"));
    let mut scene = Scene::open(&rules).await;
    scene.sample("node_info{rack=\"r7\"} 1\n").await;
    scene.sample("gpu_temp{instance=\"n1\"} 95\n").await;
    assert_eq!(scene.alerts.next().await["annotations"]["rack"], "r7");
    scene.collector.stop().await;
}

#[tokio::test]
async fn an_alertmanager_that_is_down_loses_no_alert() {
    let folder = tempfile::tempdir().unwrap();
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let options = options_with(folder.path(), HOT, &format!("http://{address}"));
    let collector = TestCollector::start_with(options, ManualClock::new(NOW_MS)).await;
    assert_eq!(collector.import("gpu_temp{instance=\"n1\"} 95\n").await, 204);
    let failed = "pharos_collector_alert_requests_failed_total";
    collector.until("/metrics", |metrics| metrics.as_str().unwrap_or("").contains(failed)).await;
    let mut alerts = AlertListener::start_on(&address.to_string()).await;
    assert_eq!(alerts.next().await["labels"]["instance"], "n1");
    collector.stop().await;
}

#[tokio::test]
async fn what_no_alertmanager_took_survives_a_kill() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    survives_a_kill(address, None).await;
}

#[tokio::test]
async fn what_waits_behind_a_request_that_hangs_survives_a_kill() {
    // The system takes the connection; nobody ever answers.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hanging.local_addr().unwrap();
    survives_a_kill(address, Some(hanging)).await;
}

/// An alert that fires and ends while the alertmanager takes nothing is told after the collector was killed.
async fn survives_a_kill(address: std::net::SocketAddr, hanging: Option<tokio::net::TcpListener>) {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(NOW_MS);
    let options = options_with(folder.path(), HOT, &format!("http://{address}"));
    let collector = TestCollector::start_with(options.clone(), clock.clone()).await;
    let queued =
        |count| format!("pharos_collector_alerts_queued{{alertmanager=\"http://{address}\"}} {count}\n");
    let shows = |line: String| move |metrics: &Value| metrics.as_str().unwrap_or("").contains(&line);
    assert_eq!(collector.import("gpu_temp{instance=\"n1\"} 95\n").await, 204);
    collector.until("/metrics", shows(queued(1))).await;
    clock.advance(Duration::from_secs(1));
    assert_eq!(collector.import("gpu_temp{instance=\"n1\"} 50\n").await, 204);
    collector.until("/metrics", shows(queued(2))).await;
    collector.kill().await;
    drop(hanging);

    // Nothing breaches any more, so only the queue knows.
    let collector = TestCollector::start_with(options, clock.clone()).await;
    let mut alerts = AlertListener::start_on(&address.to_string()).await;
    assert_eq!(alerts.next().await["startsAt"], "2023-11-14T22:13:20.000Z");
    assert_eq!(alerts.next().await["endsAt"], "2023-11-14T22:13:21.000Z");
    collector.until("/metrics", shows(queued(0))).await;
    collector.stop().await;
}

#[tokio::test]
async fn every_alertmanager_gets_every_alert() {
    let mut scene = Scene::open(HOT).await;
    let mut second = AlertListener::start().await;
    let config = scene.folder.path().join("pharos.yml");
    let target = second.url.trim_start_matches("http://");
    std::fs::write(
        &config,
        format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{target}']}}]}}]}}"),
    )
    .unwrap();
    let mut options = options_with(scene.folder.path(), HOT, &scene.alerts.url);
    options.config.config_file = Some(config);
    options.storage_path = scene.folder.path().join("second");
    let both = TestCollector::start_with(options, scene.clock.clone()).await;
    assert_eq!(both.import("gpu_temp{instance=\"n1\"} 95\n").await, 204);
    assert_eq!(scene.alerts.next().await["labels"]["instance"], "n1");
    assert_eq!(second.next().await["labels"]["instance"], "n1");
    both.stop().await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn expected_nodes_and_network_coverage_become_series() {
    let folder = tempfile::tempdir().unwrap();
    let (config, nodes) = (folder.path().join("pharos.yml"), folder.path().join("nodes.txt"));
    std::fs::write(&config, "pharos: {expected_nodes_file: nodes.txt}\n").unwrap();
    std::fs::write(&nodes, "n1\nn2\n").unwrap();
    let clock = ManualClock::new(NOW_MS);
    let mut options = options_with(folder.path(), HOT, "http://127.0.0.1:1");
    options.config.config_file = Some(config);
    let collector = TestCollector::start_with(options, clock.clone()).await;
    // A look may be under way while the clock moves, so it moves until one has seen what is wanted.
    let until = async |query: &str, want: &str| {
        while collector.get(&format!("/api/v1/query?query={query}")).await.1["data"]["result"][0]["value"][1]
            != want
        {
            clock.advance(Duration::from_secs(1));
        }
    };
    until("count(pharos_node_expected{source=%22nodes.txt%22})", "2").await;
    std::fs::write(&nodes, "n1\n").unwrap();
    let reload = collector.client.post(format!("{}/-/reload", collector.url)).send().await.unwrap();
    assert_eq!(reload.status(), 200);
    until("count(pharos_node_expected)", "1").await;

    let mut text = String::new();
    let now_ms = clock.now_ms();
    for second in 0..60 {
        for (device, bytes) in [("eth0", 3 * second), ("docker0", second), ("lo", 100 * second)] {
            for direction in ["receive", "transmit"] {
                let at_ms = now_ms - 1_000 * (59 - second);
                text +=
                    &format!("node_network_{direction}_bytes_total{{device=\"{device}\"}} {bytes} {at_ms}\n");
            }
        }
    }
    assert_eq!(collector.import(text).await, 204);
    until("pharos_network_coverage_ratio", "0.75").await;
    collector.stop().await;
}

#[tokio::test]
async fn the_collector_stores_its_own_metrics() {
    let scene = Scene::open(HOT).await;
    let own = "/api/v1/query?query=pharos_build_info{job=%22pharos-collector%22}";
    let is_stored = |body: &Value| {
        // Again and again: whoever stores them may not have looked at the clock yet.
        scene.advance(5);
        body["data"]["result"][0]["value"][1] == "1"
    };
    scene.collector.until(own, is_stored).await;
    scene.collector.stop().await;
}
