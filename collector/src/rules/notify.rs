//! Alerts out: to every alertmanager over a connection that is kept open, without ever holding up the
//! rules.
//!
//! Each alertmanager has a bounded queue and a task of its own. What does not fit pushes the oldest out;
//! an alert that still fires comes again within a minute anyway.

use super::alert_state::{Alert, RESEND_DELAY_MS};
use crate::limits::{ALERT_REQUEST_TIME_MAX, ALERTS_PER_REQUEST_MAX, ALERTS_QUEUED_MAX};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// First wait before a request is tried again; each wait is half as long again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// Tries of one request. Afterwards the alerts' next resend has to do.
const TRIES_MAX: u32 = 60;
/// Time that queues get to empty at shutdown.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// An alert as Alertmanager's API takes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Notice {
    /// What names it.
    pub labels: Labels,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
    /// Until when it counts as firing, or when it resolved.
    #[serde(rename = "endsAt")]
    pub ends_at: String,
    /// Where to see its expression.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
}

impl Notice {
    /// What to say of an alert now.
    pub fn of(
        alert: Alert,
        external: &Labels,
        generator_url: &str,
        interval_ms: i64,
        now_ms: TimestampMs,
    ) -> Self {
        let ends_ms = alert.resolved_at_ms.unwrap_or(now_ms + 4 * interval_ms.max(RESEND_DELAY_MS));
        let mut labels = alert.labels.to_builder();
        for (name, value) in external.iter() {
            if alert.labels.get(name).is_none() {
                labels.set(name, value);
            }
        }
        Notice {
            labels: labels.build(),
            annotations: alert.annotations.into_iter().collect(),
            starts_at: rfc3339(alert.fired_at_ms.unwrap_or(alert.active_at_ms)),
            ends_at: rfc3339(ends_ms),
            generator_url: generator_url.to_owned(),
        }
    }
}

/// A time as JSON of Prometheus has it.
pub fn rfc3339(millis: TimestampMs) -> String {
    chrono::DateTime::from_timestamp_millis(millis)
        .unwrap_or_default()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[derive(Debug)]
struct Target {
    url: String,
    queue: Mutex<VecDeque<Notice>>,
    wake: Notify,
    /// Cancelled when the target leaves the configuration, or at shutdown.
    stop: CancellationToken,
}

/// Sends alerts. Clones share the queues.
#[derive(Clone, Debug)]
pub struct Notifier {
    targets: Arc<ArcSwap<Vec<Arc<Target>>>>,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    tasks: tokio_util::task::TaskTracker,
}

impl Notifier {
    /// A notifier that knows no alertmanager yet.
    ///
    /// # Errors
    /// If the HTTP client cannot be built.
    pub fn new(metrics: Arc<Metrics>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(ALERT_REQUEST_TIME_MAX)
            .tcp_nodelay(true)
            .pool_idle_timeout(None)
            .user_agent(concat!("Pharos/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Notifier { targets: Arc::default(), client, metrics, tasks: tokio_util::task::TaskTracker::new() })
    }

    /// Sends to these base URLs from now on. Queues of those that stay are kept.
    pub fn set_urls(&self, urls: &[String]) {
        let before = self.targets.load_full();
        let mut targets: Vec<Arc<Target>> = Vec::with_capacity(urls.len());
        for url in urls {
            if targets.iter().any(|target| target.url == *url) {
                continue;
            }
            match before.iter().find(|target| target.url == *url) {
                Some(target) => targets.push(Arc::clone(target)),
                None => targets.push(self.start(url)),
            }
        }
        for gone in before.iter().filter(|old| !targets.iter().any(|target| Arc::ptr_eq(target, old))) {
            gone.stop.cancel();
        }
        self.targets.store(Arc::new(targets));
    }

    /// The base URLs.
    pub fn urls(&self) -> Vec<String> {
        self.targets.load().iter().map(|target| target.url.clone()).collect()
    }

    fn start(&self, url: &str) -> Arc<Target> {
        let target = Arc::new(Target {
            url: url.to_owned(),
            queue: Mutex::default(),
            wake: Notify::new(),
            stop: CancellationToken::new(),
        });
        let (client, metrics, of_task) =
            (self.client.clone(), Arc::clone(&self.metrics), Arc::clone(&target));
        self.tasks.spawn(async move { deliver(&of_task, &client, &metrics).await });
        target
    }

    /// Queues alerts for every alertmanager. Never waits.
    pub fn send(&self, notices: Vec<Notice>) {
        for target in self.targets.load().iter() {
            let mut queue = target.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.extend(notices.iter().cloned());
            let excess = queue.len().saturating_sub(ALERTS_QUEUED_MAX);
            if excess > 0 {
                queue.drain(..excess);
                self.metrics.alerts_dropped.with_label_values(&[target.url.as_str()]).inc_by(excess as u64);
            }
            drop(queue);
            target.wake.notify_one();
        }
    }

    /// Ends the tasks; what is queued gets a few seconds to leave.
    pub async fn close(&self) {
        for target in self.targets.load().iter() {
            target.stop.cancel();
        }
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!("Some alerts were not sent before the end; they are sent again after a start");
        }
    }
}

fn take_batch(target: &Target) -> Vec<Notice> {
    let mut queue = target.queue.lock().unwrap_or_else(PoisonError::into_inner);
    let count = queue.len().min(ALERTS_PER_REQUEST_MAX);
    queue.drain(..count).collect()
}

async fn deliver(target: &Target, client: &reqwest::Client, metrics: &Metrics) {
    let endpoint = format!("{}/api/v2/alerts", target.url.trim_end_matches('/'));
    loop {
        let batch = take_batch(target);
        if !batch.is_empty() {
            send_batch(target, client, metrics, &endpoint, &batch).await;
        } else if target.stop.is_cancelled() {
            return;
        } else {
            tokio::select! {
                () = target.wake.notified() => {}
                () = target.stop.cancelled() => {}
            }
        }
    }
}

async fn send_batch(
    target: &Target,
    client: &reqwest::Client,
    metrics: &Metrics,
    endpoint: &str,
    batch: &[Notice],
) {
    let mut wait = RETRY_FIRST;
    for attempt in 1..=TRIES_MAX {
        let failure = match client.post(endpoint).json(batch).send().await {
            Ok(response) if response.status().is_success() => {
                metrics.alerts_sent.with_label_values(&[target.url.as_str()]).inc_by(batch.len() as u64);
                return;
            }
            Ok(response) => {
                let status = response.status();
                let text = response.text().await.unwrap_or_default();
                let text: String = text.chars().take(200).collect();
                if status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS {
                    metrics.alerts_failed.with_label_values(&[target.url.as_str()]).inc();
                    tracing::error!(alertmanager = target.url, %status, text, "Alerts refused");
                    return;
                }
                format!("{status}: {text}")
            }
            Err(error) => error.to_string(),
        };
        metrics.alerts_failed.with_label_values(&[target.url.as_str()]).inc();
        tracing::warn!(alertmanager = target.url, attempt, error = failure, "Alerts could not be sent");
        if target.stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = target.stop.cancelled() => {}
        }
        wait = (wait * 3 / 2).min(RETRY_LONGEST);
    }
    let dropped = batch.len() as u64;
    metrics.alerts_dropped.with_label_values(&[target.url.as_str()]).inc_by(dropped);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_what_alertmanager_wants_to_know() {
        let mut alerts = super::super::alert_state::ActiveAlerts::default();
        let breach = super::super::alert_state::Breach {
            labels: Labels::from_pairs([("alertname", "Hot"), ("cluster", "own")]),
            annotations: vec![("summary".into(), "hot".into())],
            value: 91.0,
        };
        alerts.judge(1, vec![breach], 1_000, 1_000, Default::default()).unwrap();
        let alert = alerts.take_due(1_000).remove(0);
        let external = Labels::from_pairs([("cluster", "eu"), ("region", "west")]);
        let notice = Notice::of(alert, &external, "http://c/graph", 1_000, 1_000);
        let json = serde_json::to_value(&notice).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "labels": {"alertname": "Hot", "cluster": "own", "region": "west"},
                "annotations": {"summary": "hot"},
                "startsAt": "1970-01-01T00:00:01.000Z",
                "endsAt": "1970-01-01T00:04:01.000Z",
                "generatorURL": "http://c/graph",
            })
        );
    }
}
