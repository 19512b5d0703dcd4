//! What evaluating rules needs from the rest of the collector.

use super::alert_series;
use super::alert_state::{Alert, Change};
use super::notify::{Notice, Notifier};
use super::rule::Rule;
use super::text;
use crate::ingest::series_writer::{LoneSample, SeriesWriter};
use crate::metrics::Metrics;
use crate::queries::Queries;
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::template::{FunctionError, Functions};
use pharos_promql::Value;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of series that wait to be written.
const OUTBOX_BATCHES_MAX: usize = 4_096;

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
        // Rules never wait for the storage: what they write may itself be watched by rules.
        let writing = tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                if let Err(error) = writer.write(&batch).await {
                    tracing::warn!(%error, "Series of rules cannot be stored");
                }
            }
        });
        let (of_query, at) = (queries.clone(), Arc::clone(&clock));
        let functions = text::functions(&external_url, move |query| {
            let result = of_query
                .run_small(query, at.now_ms())
                .map_err(|error| FunctionError(format!("query {query:?} failed: {error}")))?;
            Ok(rows(result.value))
        });
        let external_labels = ArcSwap::from_pointee(Labels::empty());
        RuleContext {
            queries,
            notifier,
            clock,
            metrics,
            external_url,
            functions,
            external_labels,
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

    /// Writes and sends what follows from changes of a rule's alerts.
    pub fn publish(&self, rule: &Rule, changes: &[Change], due: Vec<Alert>, now_ms: TimestampMs) {
        self.write(alert_series::of_changes(changes, now_ms));
        self.send(rule, due, now_ms);
    }

    /// Sends alerts of a rule.
    pub fn send(&self, rule: &Rule, due: Vec<Alert>, now_ms: TimestampMs) {
        if due.is_empty() {
            return;
        }
        let external = self.external_labels();
        let link = text::link(rule.definition.expr.query(), 1);
        let notices = due
            .into_iter()
            .map(|alert| {
                Notice::of(
                    alert,
                    &external,
                    &format!("{}{link}", self.external_url),
                    rule.interval_ms,
                    now_ms,
                )
            })
            .collect();
        self.notifier.send(notices);
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
