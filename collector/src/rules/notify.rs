//! Alerts out: to every alertmanager over a connection that is kept open, without ever holding up the
//! rules.
//!
//! Each alertmanager has a task of its own with its [`Outbox`], on disk. Requests that fail are tried
//! again until they are answered; what an alertmanager refuses for good is dropped and counted, alone
//! where a request had several alerts.

use super::alert_state::{Alert, RESEND_DELAY_MS};
use super::outbox::{Outbox, Waiting};
use crate::limits::{ALERT_REQUEST_TIME_MAX, ALERTS_PER_REQUEST_MAX, ALERTS_QUEUED_MAX};
use crate::metrics::Metrics;
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::storage_io::{DiskIo, StorageIo};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// First wait before a request is tried again; each wait is half as long again.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait between tries.
const RETRY_LONGEST: Duration = Duration::from_secs(1);
/// Failures of one alertmanager in a row of which each is logged; after that one in so many.
const FAILURES_LOGGED: u32 = 60;
/// Time that queues get to empty at shutdown.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// An alert as Alertmanager's API takes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// What names it.
    #[serde(deserialize_with = "labels_of_map")]
    pub labels: Labels,
    /// What it says.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    #[serde(rename = "startsAt")]
    pub starts_at: String,
    /// Until when it counts as firing, or when it resolved; written when it is sent.
    #[serde(rename = "endsAt")]
    pub ends_at: String,
    /// Where to see its expression.
    #[serde(rename = "generatorURL")]
    pub generator_url: String,
    /// [`Notice::ends_at`] in milliseconds. This and what follows is for us; Alertmanager ignores what it
    /// does not know.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ends_ms: TimestampMs,
    /// Whether it tells that the alert is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resolved: bool,
    /// When the alert was decided, if this is the first to tell of it.
    #[serde(skip)]
    pub decided_ms: Option<TimestampMs>,
    /// Whether it tells when it was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_timeline: bool,
}

fn is_zero(millis: &TimestampMs) -> bool {
    *millis == 0
}

fn labels_of_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    BTreeMap::<String, String>::deserialize(deserializer).map(Labels::from_pairs)
}

/// Annotations that tell how an alert came about. They are in what is sent and not in
/// `/api/v1/alerts`: Alertmanager tells alerts apart by their labels alone.
const SAMPLED_AT: &str = "pharos_sampled_at";
const RECEIVED_AT: &str = "pharos_received_at";
const DURABLE_AT: &str = "pharos_durable_at";
const DECIDED_AT: &str = "pharos_decided_at";
const SENT_AT: &str = "pharos_sent_at";

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
        let mut annotations: BTreeMap<String, String> = alert.annotations.into_iter().collect();
        if let Some(timeline) = alert.timeline {
            let times = [
                (SAMPLED_AT, Some(timeline.sampled_ms)),
                (RECEIVED_AT, timeline.received_ms),
                (DURABLE_AT, timeline.durable_ms),
                (DECIDED_AT, Some(timeline.decided_ms)),
            ];
            for (name, at_ms) in times {
                annotations.extend(at_ms.map(|at_ms| (name.to_owned(), rfc3339(at_ms))));
            }
        }
        Notice {
            labels: labels.build(),
            annotations,
            starts_at: rfc3339(alert.fired_at_ms.unwrap_or(alert.active_at_ms)),
            ends_at: rfc3339(ends_ms),
            generator_url: generator_url.to_owned(),
            ends_ms,
            resolved: alert.resolved_at_ms.is_some(),
            decided_ms: alert.timeline.map(|timeline| timeline.decided_ms).filter(|at_ms| now_ms <= *at_ms),
            tells_timeline: alert.timeline.is_some(),
        }
    }

    /// As it goes out at `now_ms`. One that waited long still says that its alert fires.
    fn leaving(mut self, now_ms: TimestampMs) -> Self {
        if !self.resolved && self.ends_ms <= now_ms + RESEND_DELAY_MS {
            self.ends_at = rfc3339(now_ms + 4 * RESEND_DELAY_MS);
        }
        if self.tells_timeline {
            self.annotations.insert(SENT_AT.to_owned(), rfc3339(now_ms));
        }
        Notice { ends_ms: 0, resolved: false, tells_timeline: false, ..self }
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
    /// What the rules handed over and the task has not put into its box yet.
    incoming: Mutex<Vec<Notice>>,
    /// How many the task has put into its box and not got rid of.
    waiting: AtomicUsize,
    wake: Notify,
    /// Cancelled when the target leaves the configuration, or at shutdown.
    stop: CancellationToken,
}

/// The client for [`Notifier::new`]. Blocks for some milliseconds: it reads the system's certificates.
///
/// # Errors
/// If it cannot be built.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .timeout(ALERT_REQUEST_TIME_MAX)
        .tcp_nodelay(true)
        .pool_idle_timeout(None)
        .user_agent(concat!("Pharos/", env!("CARGO_PKG_VERSION")))
        .build()
}

/// Sends alerts. Clones share the queues.
#[derive(Clone)]
pub struct Notifier {
    targets: Arc<ArcSwap<Vec<Arc<Target>>>>,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    /// Where the queues are kept; `None` keeps them in memory.
    folder: Option<PathBuf>,
    tasks: tokio_util::task::TaskTracker,
}

impl Notifier {
    /// A notifier that knows no alertmanager yet. Its queues are below `folder`.
    pub fn new(
        client: reqwest::Client,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        folder: Option<PathBuf>,
    ) -> Self {
        let tasks = tokio_util::task::TaskTracker::new();
        Notifier { targets: Arc::default(), client, metrics, clock, folder, tasks }
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
            incoming: Mutex::default(),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
            stop: CancellationToken::new(),
        });
        let outbox = self.open_outbox(url);
        target.waiting.store(outbox.len(), Ordering::Relaxed);
        let door = Door {
            url: url.to_owned(),
            client: self.client.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: Arc::clone(&self.clock),
            endpoint: format!("{}/api/v2/alerts", url.trim_end_matches('/')),
        };
        let delivery = Delivery {
            target: Arc::clone(&target),
            door: Arc::new(door),
            outbox,
            batch_max: ALERTS_PER_REQUEST_MAX,
        };
        // The series are there from the start, so that a rule sees the first failure.
        self.metrics.alerts_failed.with_label_values(&[url]).inc_by(0);
        self.metrics.alerts_dropped.with_label_values(&[url]).inc_by(0);
        self.tasks.spawn(delivery.run());
        target
    }

    /// The queue of an alertmanager, in a folder named after its URL.
    fn open_outbox(&self, url: &str) -> Outbox {
        let Some(folder) = &self.folder else { return Outbox::in_memory(ALERTS_QUEUED_MAX) };
        let name = format!("{:016x}", Labels::from_pairs([("url", url)]).fingerprint());
        let folder: &Path = &folder.join(name);
        let io: Arc<dyn StorageIo> = Arc::new(DiskIo);
        Outbox::open(io, folder, ALERTS_QUEUED_MAX, self.clock.now_ms()).unwrap_or_else(|error| {
            tracing::error!(alertmanager = url, %error, "The queue of alerts is in memory only");
            Outbox::in_memory(ALERTS_QUEUED_MAX)
        })
    }

    /// How many alerts the alertmanager with the shortest queue has room for: one that does not answer must not
    /// hold up the others.
    pub fn room(&self) -> usize {
        let room = |target: &Arc<Target>| {
            let incoming = target.incoming.lock().unwrap_or_else(PoisonError::into_inner).len();
            ALERTS_QUEUED_MAX.saturating_sub(incoming + target.waiting.load(Ordering::Relaxed))
        };
        self.targets.load().iter().map(room).max().unwrap_or(usize::MAX)
    }

    /// Queues alerts for every alertmanager. Never waits.
    pub fn send(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        for target in self.targets.load().iter() {
            let mut incoming = target.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            let room = ALERTS_QUEUED_MAX.saturating_sub(incoming.len());
            incoming.extend(notices.iter().take(room).cloned());
            drop(incoming);
            let refused = notices.len().saturating_sub(room) as u64;
            self.metrics.alerts_dropped.with_label_values(&[target.url.as_str()]).inc_by(refused);
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
            tracing::warn!("Some alerts were not sent before the end; they are sent after a start");
        }
    }
}

/// What became of a request.
enum Outcome {
    Taken,
    /// Never to be taken, with what the alertmanager says.
    Refused(String),
    /// To be tried again.
    Failed(String),
}

/// Where one alertmanager takes alerts.
struct Door {
    url: String,
    client: reqwest::Client,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    endpoint: String,
}

/// The task of one alertmanager.
struct Delivery {
    target: Arc<Target>,
    door: Arc<Door>,
    outbox: Outbox,
    /// 1 while the refused alert of a request is looked for.
    batch_max: usize,
}

impl Delivery {
    async fn run(mut self) {
        let mut wait = RETRY_FIRST;
        let mut failures = 0u32;
        loop {
            self.take_in();
            let batch = self.outbox.oldest(self.batch_max);
            if batch.is_empty() {
                if self.target.stop.is_cancelled() {
                    return;
                }
                self.batch_max = ALERTS_PER_REQUEST_MAX;
                tokio::select! {
                    () = self.target.wake.notified() => {}
                    () = self.target.stop.cancelled() => {}
                }
                continue;
            }
            let failure = match self.post(&batch).await {
                Outcome::Taken => {
                    (wait, failures) = (RETRY_FIRST, 0);
                    self.settle(&batch);
                    continue;
                }
                Outcome::Refused(reason) => {
                    self.refused(&batch, &reason);
                    continue;
                }
                Outcome::Failed(failure) => failure,
            };
            failures = failures.saturating_add(1);
            if failures == 1 || failures.is_multiple_of(FAILURES_LOGGED) {
                let waiting = self.outbox.len();
                tracing::warn!(
                    alertmanager = self.door.url,
                    failures,
                    waiting,
                    error = failure,
                    "Alerts could not be sent"
                );
            }
            if let Err(error) = self.outbox.sync().await {
                self.not_on_disk(&error);
            }
            if self.rest(wait).await.is_break() {
                return;
            }
            wait = (wait * 3 / 2).min(RETRY_LONGEST);
        }
    }

    /// Sends a request. What is handed over meanwhile goes into the box at once, for the alertmanager may hang and
    /// the collector be killed.
    async fn post(&mut self, batch: &[Waiting]) -> Outcome {
        let (door, target) = (Arc::clone(&self.door), Arc::clone(&self.target));
        let outcome = door.post(batch);
        tokio::pin!(outcome);
        loop {
            tokio::select! {
                outcome = &mut outcome => return outcome,
                () = target.wake.notified() => self.take_in(),
            }
        }
    }

    /// Waits before the next attempt, taking in what is handed over; breaks off if there is to be none.
    async fn rest(&mut self, time: Duration) -> ControlFlow<()> {
        let target = Arc::clone(&self.target);
        let rested = tokio::time::sleep(time);
        tokio::pin!(rested);
        loop {
            tokio::select! {
                () = &mut rested => return ControlFlow::Continue(()),
                () = target.wake.notified() => self.take_in(),
                () = target.stop.cancelled() => {
                    self.take_in();
                    return ControlFlow::Break(());
                }
            }
        }
    }

    /// Puts what was handed over into the box. Its few kilobytes go to the page cache, which is quicker
    /// than asking another thread to do it.
    fn take_in(&mut self) {
        let incoming = {
            let mut incoming = self.target.incoming.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody shall see them in neither place.
            self.target.waiting.fetch_add(incoming.len(), Ordering::Relaxed);
            std::mem::take(&mut *incoming)
        };
        if incoming.is_empty() {
            return;
        }
        match self.outbox.put(incoming) {
            Ok(0) => {}
            Ok(refused) => {
                self.door
                    .metrics
                    .alerts_dropped
                    .with_label_values(&[self.door.url.as_str()])
                    .inc_by(refused as u64);
            }
            Err(error) => self.not_on_disk(&error),
        }
        self.note_length();
    }

    fn settle(&mut self, batch: &[Waiting]) {
        if let Err(error) = self.outbox.sent(batch) {
            self.not_on_disk(&error);
        }
        self.note_length();
    }

    fn note_length(&self) {
        let waiting = self.outbox.len();
        self.target.waiting.store(waiting, Ordering::Relaxed);
        self.door.metrics.alerts_queued.with_label_values(&[self.door.url.as_str()]).set(waiting as i64);
    }

    fn not_on_disk(&self, error: &dyn std::error::Error) {
        self.door.metrics.alert_queue_errors.inc();
        tracing::error!(alertmanager = self.door.url, %error, "The queue of alerts is not on disk");
    }

    fn refused(&mut self, batch: &[Waiting], reason: &str) {
        if batch.len() > 1 {
            // One of them is at fault; the others must not go with it.
            self.batch_max = 1;
            return;
        }
        tracing::error!(alertmanager = self.door.url, reason, "An alert was refused and is dropped");
        self.door.metrics.alerts_dropped.with_label_values(&[self.door.url.as_str()]).inc();
        self.settle(batch);
    }
}

impl Door {
    async fn post(&self, batch: &[Waiting]) -> Outcome {
        let now_ms = self.clock.now_ms();
        let notices: Vec<Notice> =
            batch.iter().map(|waiting| waiting.notice.clone().leaving(now_ms)).collect();
        let started = Instant::now();
        let answer = self.client.post(&self.endpoint).json(&notices).send().await;
        let url = [self.url.as_str()];
        self.metrics.alert_request_seconds.observe(started.elapsed().as_secs_f64());
        let outcome = match answer {
            Ok(response) if response.status().is_success() => {
                self.metrics.alerts_sent.with_label_values(&url).inc_by(batch.len() as u64);
                let done_ms = self.clock.now_ms();
                for decided_ms in batch.iter().filter_map(|waiting| waiting.notice.decided_ms) {
                    self.metrics.alert_sent.observe((done_ms - decided_ms).max(0) as f64 / 1e3);
                }
                return Outcome::Taken;
            }
            Ok(response) => {
                let status = response.status();
                let text: String = response.text().await.unwrap_or_default().chars().take(200).collect();
                let reason = format!("{status}: {text}");
                if status.is_client_error() && status != reqwest::StatusCode::TOO_MANY_REQUESTS {
                    Outcome::Refused(reason)
                } else {
                    Outcome::Failed(reason)
                }
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.metrics.alerts_failed.with_label_values(&url).inc();
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_what_alertmanager_wants_to_know() {
        let mut alerts = super::super::alert_state::ActiveAlerts::default();
        let breach = super::super::alert_state::Breach {
            found: Labels::empty(),
            labels: Labels::from_pairs([("alertname", "Hot"), ("cluster", "own")]),
            annotations: vec![("summary".into(), "hot".into())],
            value: 91.0,
        };
        alerts.judge(1, vec![breach], 1_000, 1_000, Default::default()).unwrap();
        let alert = alerts.take_due(1_000, usize::MAX).remove(0);
        let external = Labels::from_pairs([("cluster", "eu"), ("region", "west")]);
        let notice = Notice::of(alert, &external, "http://c/graph", 1_000, 1_000).leaving(1_000);
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

    #[test]
    fn a_notice_that_waited_long_still_says_that_its_alert_fires() {
        let notice = Notice { ends_ms: 241_000, ends_at: rfc3339(241_000), ..Notice::default() };
        assert_eq!(notice.clone().leaving(100_000).ends_at, "1970-01-01T00:04:01.000Z");
        assert_eq!(notice.clone().leaving(1_000_000).ends_at, "1970-01-01T00:20:40.000Z");
        let over = Notice { resolved: true, ..notice };
        assert_eq!(over.leaving(1_000_000).ends_at, "1970-01-01T00:04:01.000Z");
    }

    #[test]
    fn the_journal_keeps_all_of_a_notice_but_its_first_time() {
        let notice = Notice {
            labels: Labels::from_pairs([("alertname", "Hot")]),
            ends_ms: 7,
            resolved: true,
            tells_timeline: true,
            ..Notice::default()
        };
        let json = serde_json::to_string(&notice).unwrap();
        assert_eq!(serde_json::from_str::<Notice>(&json).unwrap(), notice);
    }
}
