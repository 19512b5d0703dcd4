//! Rules whose series meet within a node: when they are judged, which alert they raise and how its texts name it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

#[path = "support/scene.rs"]
mod scene;
mod support;

use scene::{HOT, Scene};
use serde_json::Value;
use std::time::Duration;

#[tokio::test]
async fn a_rule_over_several_selectors_is_judged_within_a_node() {
    let rules = HOT.replace("gpu_temp > 90", "mem_free < 10 and mem_size > 100");
    let mut scene = Scene::open(&rules).await;
    scene.sample("mem_free{instance=\"n1\"} 5\nmem_size{instance=\"n2\"} 200\n").await;
    scene.sample("mem_free{instance=\"n2\"} 50\nmem_size{instance=\"n1\"} 50\n").await;
    assert_eq!(scene.states().await, Vec::<String>::new());
    scene.advance(1);
    scene.sample("mem_size{instance=\"n1\"} 200\n").await;
    scene.clock.advance(Duration::from_millis(100));
    assert_eq!(scene.alerts.next().await["labels"]["instance"], "n1");
    scene.advance(1);
    // The other series of the node is due too: it is waited for, but not for long.
    scene.sample("mem_free{instance=\"n1\"} 11\n").await;
    assert_eq!(scene.states().await, ["firing"]);
    scene.clock.advance(Duration::from_millis(100));
    scene.until_states(&[]).await;
    scene.collector.stop().await;
}

#[tokio::test]
async fn a_rule_over_several_selectors_is_judged_once_per_tick_when_all_of_it_is_in() {
    let rules = HOT.replace("gpu_temp > 90", "queued > 5 unless workers > 0");
    let mut scene = Scene::open(&rules).await;
    // Seen for the first time: the tick's other group may be on its way, and is.
    scene.sample_judged("queued{instance=\"n1\"} 9\nqueued{instance=\"n2\"} 9\n").await;
    scene.sample_judged("workers{instance=\"n1\"} 3\n").await;
    scene.clock.advance(Duration::from_millis(100));
    assert_eq!(scene.alerts.next().await["labels"]["instance"], "n2");
    for _ in 0..3 {
        scene.advance(1);
        // Between the two appends the newest samples are of different ticks and would breach.
        scene.sample_judged("workers{instance=\"n1\"} 0\n").await;
        scene.sample_judged("queued{instance=\"n1\"} 0\n").await;
        scene.advance(1);
        scene.sample_judged("queued{instance=\"n1\"} 9\n").await;
        scene.sample_judged("workers{instance=\"n1\"} 3\n").await;
    }
    assert_eq!(scene.states().await, ["firing"]);
    assert!(scene.alerts.arrived().iter().all(|alert| alert["labels"]["instance"] == "n2"));
    scene.collector.stop().await;
}

#[tokio::test]
async fn another_series_of_the_node_that_breaches_instead_is_another_alert() {
    let rules = HOT.replace("gpu_temp > 90", "gpu_temp > 90 and on (instance) busy");
    let mut scene = Scene::open(&rules).await;
    let temps = |a: i32, b: i32| {
        let gpu = |gpu: i32, temp: i32| format!("gpu_temp{{instance=\"n1\",gpu=\"{gpu}\"}} {temp}\n");
        format!("{}{}busy{{instance=\"n1\"}} 1\n", gpu(0, a), gpu(1, b))
    };
    scene.sample_judged(&temps(91, 50)).await;
    scene.clock.advance(Duration::from_millis(100));
    assert_eq!(scene.alerts.next().await["labels"]["gpu"], "0");
    scene.advance(1);
    scene.sample_judged(&temps(50, 92)).await;
    scene.clock.advance(Duration::from_millis(100));
    assert_eq!(scene.alerts.next().await["labels"]["gpu"], "1");
    scene.collector.stop().await;
}

#[tokio::test]
async fn texts_may_name_the_metric_that_the_alert_itself_does_not_name() {
    let rules = HOT.replace("interval: 1h", "interval: 10s").replace("GPU of", "{{ $labels.__name__ }}");
    let summary = |alert: &Value| alert["annotations"]["summary"].as_str().unwrap().to_owned();
    for (expr, want) in [
        ("gpu_temp > 90", "gpu_temp n1 is at 91.0 C"),
        ("gpu_temp > 90 unless idle > 0", "gpu_temp n1 is at 91.0 C"),
        ("idle > 0 or gpu_temp > 90", "gpu_temp n1 is at 91.0 C"),
        ("gpu_temp > 90 unless on (instance) idle > 0", "gpu_temp n1 is at 91.0 C"),
        ("last_over_time(gpu_temp[1m]) > 90", "gpu_temp n1 is at 91.0 C"),
        ("gpu_temp - idle > 90", " n1 is at 91.0 C"),
    ] {
        let mut scene = Scene::open(&rules.replace("gpu_temp > 90", expr)).await;
        scene.sample("gpu_temp{instance=\"n1\"} 91\nidle{instance=\"n1\"} 0\n").await;
        scene.advance(10);
        let alert = scene.alerts.next().await;
        assert_eq!(summary(&alert), want, "{expr}");
        assert_eq!(alert["labels"].get("__name__"), None, "{expr}");
        scene.collector.stop().await;
    }
}
