//! Which nodes there are, and which of them report: the series `pharos_node_up`, and stale markers for
//! the series of those that do not.
//!
//! Once a second every stream is looked at. A node counts as up while one of its streams sent a live reading
//! within a few of its promised intervals. A node that was up within the last day is expected, also after a
//! restart of the collector; so are the nodes of a file ([`crate::expected_nodes`]) and of Kubernetes. One that
//! leaves Kubernetes and does not report is not expected any more: it was taken away.

use crate::expected_nodes::ExpectedNodes;
use crate::ingest::appender::Appender;
use crate::ingest::series_writer::{LoneSample, SeriesWriter};
use crate::ingest::stream_registry::StreamRegistry;
use crate::limits::NODE_FORGOTTEN_AFTER;
use crate::metrics::Metrics;
use pharos_common::clock::SharedClock;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::Matcher;
use pharos_common::sample::STALE_NAN;
use pharos_common::shutdown::Shutdown;
use pharos_tsdb::{Database, Metadata, MetricKind, TsdbError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The series by which rules learn that a node is gone.
pub const NODE_UP: &str = "pharos_node_up";

/// How often streams are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the series is written while nothing changes: well within the lookback of queries.
const WRITE_EVERY: Duration = Duration::from_secs(10);

/// What is known of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// Whether it reports.
    pub up: bool,
    /// The version of its agent.
    pub version: String,
    /// When it last reported, on the monotonic clock; never since the start if `None`.
    pub arrived: Option<Duration>,
    /// Series it has defined.
    pub series: usize,
    expected_since: Duration,
    /// Whether Kubernetes knows it no more.
    left: bool,
    written: Option<(Duration, bool)>,
}

/// All nodes. Clones share them.
#[derive(Clone)]
pub struct Coverage {
    nodes: Arc<Mutex<BTreeMap<String, Node>>>,
    streams: StreamRegistry,
    appender: Appender,
    writer: SeriesWriter,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    expected: Arc<Mutex<BTreeMap<Origin, Expected>>>,
}

/// Who says which nodes should report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A file.
    File,
    /// Kubernetes.
    Kubernetes,
}

/// The nodes that are expected by one origin, and what was written of them.
#[derive(Default)]
struct Expected {
    now: ExpectedNodes,
    written: ExpectedNodes,
    written_at: Option<Duration>,
}

impl Coverage {
    /// Starts from the nodes that the stored series speak of.
    ///
    /// # Errors
    /// If the storage cannot be read.
    pub fn new(
        database: &Database,
        streams: StreamRegistry,
        appender: Appender,
        writer: SeriesWriter,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, TsdbError> {
        let kind = MetricKind::Gauge;
        let help = "Whether the node's agent reports (1) or its promised interval has passed (0)".to_owned();
        database.set_metadata(NODE_UP, Metadata { kind, unit: String::new(), help });
        let now_ms = clock.now_ms();
        let since_ms = now_ms - NODE_FORGOTTEN_AFTER.as_millis() as i64;
        let known = database.series(&[Matcher::equal(METRIC_NAME, NODE_UP)], since_ms, now_ms)?;
        let expected_since = clock.monotonic();
        let nodes = known
            .iter()
            .filter_map(|labels| labels.get("instance"))
            .map(|node| (node.to_owned(), Node { expected_since, ..Node::default() }))
            .collect();
        let (nodes, expected) = (Arc::new(Mutex::new(nodes)), Arc::default());
        Ok(Coverage { nodes, streams, appender, writer, clock, metrics, expected })
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> BTreeMap<String, Node> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the nodes that should report whether or not they ever did.
    pub fn expect(&self, origin: Origin, nodes: ExpectedNodes) {
        let mut all = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = all.entry(origin).or_default();
        let before = std::mem::replace(&mut expected.now, nodes);
        expected.written_at = None;
        if origin == Origin::Kubernetes {
            let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
            for name in before.nodes.union(&expected.now.nodes) {
                if let Some(node) = known.get_mut(name) {
                    node.left = !expected.now.nodes.contains(name);
                }
            }
        }
        let names: BTreeSet<&String> = all.values().flat_map(|expected| &expected.now.nodes).collect();
        self.metrics.nodes_expected.set(names.len() as i64);
    }

    fn expected_samples(&self, now: Duration, now_ms: i64) -> Vec<LoneSample> {
        let mut all = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let mut samples = Vec::new();
        for expected in all.values_mut() {
            if expected.written_at.is_some_and(|at| now.saturating_sub(at) < WRITE_EVERY) {
                continue;
            }
            samples.extend(expected.now.samples(&expected.written, now_ms));
            expected.written = expected.now.clone();
            expected.written_at = Some(now);
        }
        samples
    }

    /// Looks at the streams once a second until shutdown.
    pub async fn run(self, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = self.clock.sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "Node coverage cannot be written");
            }
        }
    }

    /// Looks at all streams now.
    ///
    /// # Errors
    /// If markers or samples cannot be stored.
    pub async fn look(&self) -> Result<(), TsdbError> {
        let now = self.clock.monotonic();
        let now_ms = self.clock.now_ms();
        let mut reports: BTreeMap<String, Node> = BTreeMap::new();
        for entry in self.streams.entries() {
            let mut groups = entry.groups.lock().await;
            groups.end_overdue(&self.appender, now, now_ms).await?;
            let Some(freshness) = groups.freshness() else { continue };
            let about = entry.about();
            let up = now.saturating_sub(freshness.arrived) <= freshness.patience;
            let report = reports.entry(about.node).or_default();
            report.up |= up;
            report.series += if up { groups.series() } else { 0 };
            report.arrived = report.arrived.max(Some(freshness.arrived));
            report.version = about.version;
        }
        self.streams.forget_silent(now);
        let mut samples = self.settle(reports, now, now_ms);
        samples.extend(self.expected_samples(now, now_ms));
        self.writer.write(&samples).await?;
        Ok(())
    }

    /// Takes what the streams tell and says what to write.
    fn settle(&self, reports: BTreeMap<String, Node>, now: Duration, now_ms: i64) -> Vec<LoneSample> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        for node in nodes.values_mut() {
            node.up = false;
        }
        for (name, report) in reports {
            let node = nodes.entry(name).or_insert_with(|| Node { expected_since: now, ..Node::default() });
            node.up = report.up;
            node.version = report.version;
            node.arrived = node.arrived.max(report.arrived);
            node.series = report.series;
        }
        let mut samples = Vec::new();
        nodes.retain(|name, node| {
            let last = node.arrived.unwrap_or(node.expected_since);
            let silent = now.saturating_sub(last);
            node.left &= !node.up;
            let forgotten = !node.up && (node.left || silent > NODE_FORGOTTEN_AFTER);
            // After a restart of the collector agents get time to come back before they count as gone.
            let undecided = node.arrived.is_none() && silent < super::limits::MISSED_TIME_MIN * 2;
            let due =
                node.written.is_none_or(|(at, up)| up != node.up || now.saturating_sub(at) >= WRITE_EVERY);
            if forgotten || (due && !undecided) {
                let value = if forgotten { STALE_NAN } else { f64::from(u8::from(node.up)) };
                let labels = Labels::from_pairs([(METRIC_NAME, NODE_UP), ("instance", name)]);
                samples.push(LoneSample { labels, timestamp_ms: now_ms, value });
                if node.written.is_some_and(|(_, up)| up && !node.up) {
                    tracing::warn!(node = name, "Node stopped reporting");
                }
                node.written = Some((now, node.up));
            }
            !forgotten
        });
        self.metrics.nodes_seen.set(nodes.len() as i64);
        self.metrics.nodes_reporting.set(nodes.values().filter(|node| node.up).count() as i64);
        samples
    }
}
