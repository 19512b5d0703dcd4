//! More alerts at once than an alertmanager's queue holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

mod support;

use pharos_collector::Options;
use pharos_collector::limits::ALERTS_QUEUED_MAX;
use pharos_common::clock::{Clock, ManualClock};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;
use support::{AlertListener, TestCollector, options};

const NOW_MS: i64 = 1_700_000_000_000;
const RULES: &str = "groups: [{name: storm, interval: 1h, rules: [{alert: Hot, expr: temperature > 90}]}]";
/// A fifth more than there is room for.
const ALERTS: usize = ALERTS_QUEUED_MAX * 6 / 5;

fn samples(value: u32, timestamp_ms: i64) -> String {
    (0..ALERTS).fold(String::new(), |mut text, node| {
        writeln!(text, "temperature{{instance=\"n{node}\"}} {value} {timestamp_ms}").unwrap();
        text
    })
}

/// Takes what is told until it is every alert; how many notices that took. Time goes on with what has come, by less
/// than the minute after which alerts are told again.
async fn until_all_told(alerts: &mut AlertListener, clock: &ManualClock, over: bool) -> usize {
    let (mut told, mut notices) = (HashSet::new(), 0);
    while told.len() < ALERTS {
        let alert = alerts.next().await;
        assert_eq!(alert["endsAt"].as_str().unwrap() < "2023-11-14T22:14:20", over, "{alert}");
        told.insert(alert["labels"]["instance"].as_str().unwrap().to_owned());
        notices += 1;
        if notices % 1_000 == 0 {
            clock.advance(Duration::from_secs(1));
        }
    }
    notices
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_that_find_no_room_in_the_queue_are_told_when_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, RULES).unwrap();
    let mut alerts = AlertListener::start().await;
    let clock = ManualClock::new(NOW_MS);
    let collector = TestCollector::start_with(
        Options {
            rule_files: vec![file.display().to_string()],
            alertmanager_urls: vec![alerts.url.clone()],
            ..options(folder.path())
        },
        clock.clone(),
    )
    .await;
    assert_eq!(collector.import(&samples(95, NOW_MS)).await, 204);
    assert_eq!(until_all_told(&mut alerts, &clock, false).await, ALERTS, "each is told once");
    assert_eq!(collector.import(&samples(50, clock.now_ms())).await, 204);
    assert_eq!(until_all_told(&mut alerts, &clock, true).await, ALERTS);
    let metrics = collector.client.get(format!("{}/metrics", collector.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let dropped = metrics.lines().find(|line| line.starts_with("pharos_collector_alerts_dropped_total"));
    assert!(dropped.unwrap().ends_with(" 0"), "{dropped:?}");
    collector.stop().await;
}
