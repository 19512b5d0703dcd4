//! What evaluating rules needs from the rest of the collector.

use super::alert_state::{Alert, Change, Phase};
use super::notify::{Notice, Notifier};
use super::rule::Rule;
use super::text;
use crate::ingest::appender::Source;
use crate::ingest::histogram_table::HistogramTable;
use crate::ingest::series_writer::{LoneSample, SeriesWriter};
use crate::metrics::Metrics;
use crate::queries::Queries;
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::histogram::HistogramSample;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::template::{FunctionError, Functions};
use pharos_promql::Value;
use pharos_tsdb::{CommitNumber, Database};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of series that wait to be written.
const OUTBOX_BATCHES_MAX: usize = 4_096;

/// A commit that alerts are based on.
struct AwaitedCommit {
    rule: Arc<Rule>,
    labels: Vec<Labels>,
    commit: CommitNumber,
    received_ms: TimestampMs,
    decided_ms: TimestampMs,
}

/// Commits of alerts that are waited for.
const COMMITS_AWAITED_MAX: usize = 4_096;

/// Shared by all rules.
pub struct RuleContext {
    /// Runs queries.
    pub queries: Queries,
    /// Sends alerts.
    pub notifier: Notifier,
    /// Tells the time.
    pub clock: SharedClock,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where people reach the collector.
    pub external_url: String,
    /// What templates may call.
    pub functions: Functions,
    external_labels: ArcSwap<Labels>,
    /// Whether alerts tell when they came about.
    tells_timeline: AtomicBool,
    writer: SeriesWriter,
    histograms: tokio::sync::Mutex<HistogramTable>,
    durable: mpsc::Sender<AwaitedCommit>,
    outbox: Mutex<Option<mpsc::Sender<Vec<LoneSample>>>>,
    writing: Mutex<Option<JoinHandle<()>>>,
}

impl RuleContext {
    /// Puts it together.
    pub fn new(
        queries: Queries,
        notifier: Notifier,
        writer: SeriesWriter,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        external_url: String,
    ) -> Self {
        let (outbox, mut batches) = mpsc::channel::<Vec<LoneSample>>(OUTBOX_BATCHES_MAX);
        // The judge never waits for the storage: what it writes may itself be watched by rules.
        let of_judge = writer.clone();
        let (durable, awaited) = mpsc::channel(COMMITS_AWAITED_MAX);
        tokio::spawn(note_durable(
            writer.database().clone(),
            Arc::clone(&clock),
            Arc::clone(&metrics),
            awaited,
        ));
        let writing = tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                if let Err(error) = of_judge.write(&batch).await {
                    tracing::warn!(%error, "Series of rules cannot be stored");
                }
            }
        });
        let (of_query, at, of_now) = (queries.clone(), Arc::clone(&clock), Arc::clone(&clock));
        let functions = text::functions(
            &external_url,
            move || of_now.now_ms(),
            move |query| {
                let result = of_query
                    .run_small(query, at.now_ms())
                    .map_err(|error| FunctionError(format!("query {query:?} failed: {error}")))?;
                Ok(rows(result.value))
            },
        );
        let external_labels = ArcSwap::from_pointee(Labels::empty());
        RuleContext {
            queries,
            notifier,
            clock,
            metrics,
            external_url,
            functions,
            external_labels,
            tells_timeline: AtomicBool::new(true),
            writer,
            histograms: tokio::sync::Mutex::default(),
            durable,
            outbox: Mutex::new(Some(outbox)),
            writing: Mutex::new(Some(writing)),
        }
    }

    /// Labels of this collector.
    pub fn external_labels(&self) -> Labels {
        Labels::clone(&self.external_labels.load())
    }

    /// Replaces the labels of this collector.
    pub fn set_external_labels(&self, labels: Labels) {
        self.external_labels.store(Arc::new(labels));
    }

    /// The engine underneath.
    pub fn database(&self) -> &Database {
        self.writer.database()
    }

    /// How far back an instant selector looks.
    pub fn lookback_ms(&self) -> i64 {
        self.queries.engine().options().lookback_delta.as_millis() as i64
    }

    /// Whether alerts tell in annotations when they came about.
    pub fn set_tells_timeline(&self, tells: bool) {
        self.tells_timeline.store(tells, Ordering::Relaxed);
    }

    /// Writes series of a rule that the next rule of its group may read.
    pub async fn write_now(&self, samples: &[LoneSample]) {
        if let Err(error) = self.writer.write(samples).await {
            tracing::warn!(%error, "Series of rules cannot be stored");
        }
    }

    /// The same for native histograms.
    pub async fn write_histograms(&self, samples: &[(Labels, HistogramSample)]) {
        let mut table = self.histograms.lock().await;
        for (labels, sample) in samples {
            if let Err(error) = table.append(self.writer.appender(), labels, sample, 0, Source::Derived).await
            {
                tracing::warn!(%error, "Histograms of rules cannot be stored");
                return;
            }
        }
    }

    /// Has it noted when the commit is durable that changes of alerts are based on. Never waits; when too
    /// many are awaited, that alert tells nothing of it.
    pub fn await_durable(
        &self,
        rule: &Arc<Rule>,
        changes: &[Change],
        commit: CommitNumber,
        received_ms: TimestampMs,
        decided_ms: TimestampMs,
    ) {
        let labels: Vec<Labels> = changes
            .iter()
            .filter(|change| change.to != Phase::Pending)
            .map(|change| change.labels.clone())
            .collect();
        if !labels.is_empty() {
            let rule = Arc::clone(rule);
            let _ = self.durable.try_send(AwaitedCommit { rule, labels, commit, received_ms, decided_ms });
        }
    }

    /// Hands series over to be written.
    pub fn write(&self, samples: Vec<LoneSample>) {
        let outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(outbox) = outbox.as_ref().filter(|_| !samples.is_empty()) else { return };
        if outbox.try_send(samples).is_err() {
            tracing::warn!("Series of rules are dropped: the storage does not keep up");
        }
    }

    /// Writes what was handed over, and nothing after that.
    pub async fn close(&self) {
        drop(self.outbox.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writing) = writing
            && let Err(error) = writing.await
        {
            tracing::error!(%error, "Writing series of rules ended badly");
        }
    }

    /// Sends alerts of a rule.
    pub fn send(&self, rule: &Rule, due: Vec<Alert>, now_ms: TimestampMs) {
        self.notifier.send(self.notices(rule, due, now_ms));
    }

    /// What to tell of alerts of a rule.
    pub fn notices(&self, rule: &Rule, due: Vec<Alert>, now_ms: TimestampMs) -> Vec<Notice> {
        if due.is_empty() {
            return Vec::new();
        }
        let external = self.external_labels();
        let tells_timeline = self.tells_timeline.load(Ordering::Relaxed);
        let link = text::link(rule.definition.expr.query(), 1);
        due.into_iter()
            .map(|mut alert| {
                if !tells_timeline {
                    alert.timeline = None;
                }
                let url = format!("{}{link}", self.external_url);
                Notice::of(alert, &external, &url, rule.interval_ms, now_ms)
            })
            .collect()
    }
}

/// Notes for alerts when what they are based on was durable: the next time they are sent, they tell.
async fn note_durable(
    database: Database,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    mut awaited: mpsc::Receiver<AwaitedCommit>,
) {
    while let Some(AwaitedCommit { rule, labels, commit, received_ms, decided_ms }) = awaited.recv().await {
        if database.durable(commit).await.is_err() {
            continue;
        }
        let durable_ms = clock.now_ms();
        metrics.alert_durable.observe((durable_ms - received_ms).max(0) as f64 / 1e3);
        let mut state = rule.state();
        for labels in &labels {
            state.alerts.set_durable(labels, decided_ms, durable_ms);
        }
    }
}

fn rows(value: Value) -> Vec<text::QueryRow> {
    match value {
        Value::Vector(vector) => vector
            .into_iter()
            .filter_map(|sample| {
                Some(text::QueryRow { value: sample.value.as_float()?, labels: sample.labels })
            })
            .collect(),
        Value::Scalar(sample) => vec![text::QueryRow { labels: Labels::empty(), value: sample.value }],
        Value::String { .. } | Value::Matrix(_) => Vec::new(),
    }
}
