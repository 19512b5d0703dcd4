//! A collector with rules and an alertmanager that listens, by a clock that tests move.
#![allow(dead_code, reason = "every test file uses its own part")]

use crate::support::{AlertListener, TestCollector, options};
use pharos_collector::Options;
use pharos_common::clock::ManualClock;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

pub(crate) struct Scene {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) collector: TestCollector,
    pub(crate) alerts: AlertListener,
}

pub(crate) fn options_with(folder: &Path, rules: &str, alertmanager: &str) -> Options {
    let file = folder.join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    Options {
        rule_files: vec![file.display().to_string()],
        alertmanager_urls: vec![alertmanager.to_owned()],
        ..options(folder)
    }
}

impl Scene {
    pub(crate) async fn open(rules: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(NOW_MS);
        let alerts = AlertListener::start().await;
        let options = options_with(folder.path(), rules, &alerts.url);
        let collector = TestCollector::start_with(options, clock.clone()).await;
        Scene { folder, clock, collector, alerts }
    }

    /// Stores samples of now.
    pub(crate) async fn sample(&self, text: &str) {
        assert_eq!(self.collector.import(text).await, 204);
    }

    /// Stores samples of now, all of them watched by threshold rules, and waits until they have been judged:
    /// else the clock might go on before them.
    pub(crate) async fn sample_judged(&self, text: &str) {
        let want = self.judged().await + text.lines().count() as u64;
        self.sample(text).await;
        while self.judged().await < want {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn judged(&self) -> u64 {
        let url = format!("{}/metrics", self.collector.url);
        let text = self.collector.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = |line: &str| {
            let of_judge = line.starts_with("pharos_collector_rule_samples_judged_total")
                || line.starts_with("pharos_collector_rule_samples_not_judged_total");
            line.rsplit_once(' ').filter(|_| of_judge)?.1.parse::<u64>().ok()
        };
        text.lines().filter_map(line).sum()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) async fn states(&self) -> Vec<String> {
        let data = self.collector.data("/api/v1/alerts").await;
        data["alerts"].as_array().unwrap().iter().map(|a| a["state"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the alerts' states are these.
    pub(crate) async fn until_states(&self, want: &[&str]) {
        let states = |body: &Value| {
            let alerts = body["data"]["alerts"].as_array().cloned().unwrap_or_default();
            alerts.iter().map(|alert| alert["state"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>()
        };
        self.collector.until("/api/v1/alerts", |body| states(body) == want).await;
    }
}

pub(crate) const HOT: &str = r#"
groups:
  - name: gpu
    # Thresholds do not wait for it.
    interval: 1h
    rules:
      - alert: GpuHot
        expr: gpu_temp > 90
        labels: {severity: critical, where: '{{ $labels.instance }}'}
        annotations:
          summary: 'GPU of {{ $labels.instance }} is at {{ $value | printf "%.1f" }} C'
"#;
