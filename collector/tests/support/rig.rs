//! Rules with everything they need and nothing around them: samples go in by hand, at times of a clock that
//! is moved by hand, and what was decided can be looked at. Rule tests and benchmarks drive it.
#![allow(dead_code, reason = "every user takes its own part")]

use pharos_collector::ingest::appender::{Appender, Source};
use pharos_collector::ingest::series_writer::{LoneSample, SeriesWriter};
use pharos_collector::metrics::Metrics;
use pharos_collector::queries::Queries;
use pharos_collector::rules::context::RuleContext;
use pharos_collector::rules::evaluate::evaluate_group;
use pharos_collector::rules::file::GroupDefinition;
use pharos_collector::rules::judge::{Judge, ThresholdTable};
use pharos_collector::rules::manager::watched_selectors;
use pharos_collector::rules::notify::{self, Notifier};
use pharos_collector::rules::rule::{Group, Rule};
use pharos_collector::rules::watch::{Arrived, WatchIndex};
use pharos_common::clock::{Clock, ManualClock, SharedClock};
use pharos_common::shutdown::Shutdown;
use pharos_common::storage_io::MemoryIo;
use pharos_promql::EngineOptions;
use pharos_tsdb::Database;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Queries look back this far.
pub(crate) const LOOKBACK_MS: i64 = 300_000;

pub(crate) struct Rig {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) context: Arc<RuleContext>,
    pub(crate) watch: WatchIndex,
    pub(crate) groups: Vec<Arc<Group>>,
    pub(crate) judge: Judge,
    pub(crate) generation: u64,
    writer: SeriesWriter,
    arrivals: mpsc::Receiver<Arrived>,
}

impl Rig {
    /// With these rules, at `now_ms`. Needs a runtime.
    pub(crate) fn new(definitions: Vec<GroupDefinition>, now_ms: i64) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = ManualClock::new(now_ms);
        let shared: SharedClock = clock.clone();
        let options = pharos_tsdb::Options { retention_ms: None, ..pharos_tsdb::Options::default() };
        let (database, _) =
            Database::open(Arc::new(MemoryIo::new()), Path::new("/data"), options, Arc::clone(&shared))
                .unwrap();
        let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
        let watch = WatchIndex::default();
        let (sender, arrivals) = mpsc::channel(4_096);
        let appender = Appender::new(database.clone(), watch.clone(), sender, Arc::clone(&metrics));
        let writer = SeriesWriter::new(appender, Source::Derived);
        let queries = Queries::new(
            database,
            EngineOptions::default(),
            4,
            Arc::clone(&metrics),
            Arc::clone(&shared),
            Shutdown::new(),
        );
        let notifier =
            Notifier::new(notify::client().unwrap(), Arc::clone(&metrics), Arc::clone(&shared), None);
        let context = Arc::new(RuleContext::new(
            queries,
            notifier,
            writer.clone(),
            shared,
            metrics,
            "http://pharos".to_owned(),
        ));
        let groups: Vec<Arc<Group>> =
            definitions.into_iter().map(|definition| Arc::new(Group::new(definition, None))).collect();
        let rules: Vec<Arc<Rule>> = groups
            .iter()
            .flat_map(|group| group.rules.iter().cloned())
            .filter(|rule| rule.threshold.is_some())
            .collect();
        let generation = watch.replace(watched_selectors(&rules));
        let mut judge = Judge::new(Arc::clone(&context), watch.clone(), LOOKBACK_MS);
        judge.load(ThresholdTable { rules, generation }, Vec::new());
        Rig { clock, context, watch, groups, judge, generation, writer, arrivals }
    }

    /// Moves the clock; what is due on the way is judged when it is due.
    pub(crate) fn advance_to(&mut self, at_ms: i64) {
        while let Some(due_ms) = self.judge.next_deadline_ms().filter(|due_ms| *due_ms <= at_ms) {
            self.advance_clock_to(due_ms);
            self.judge.deadline();
        }
        self.advance_clock_to(at_ms);
    }

    fn advance_clock_to(&self, at_ms: i64) {
        let ahead_ms = u64::try_from(at_ms - self.clock.now_ms()).unwrap_or(0);
        self.clock.advance(Duration::from_millis(ahead_ms));
    }

    /// Stores samples, and judges them as they arrive.
    pub(crate) async fn sample(&mut self, samples: &[LoneSample]) {
        self.writer.write(samples).await.unwrap();
        self.judge_arrived();
    }

    fn judge_arrived(&mut self) {
        while let Ok(arrived) = self.arrivals.try_recv() {
            self.judge.take(&arrived);
        }
    }

    /// Evaluates the groups whose interval is up, and judges what they record.
    pub(crate) async fn evaluate(&mut self, at_ms: i64) {
        for group in self.groups.clone() {
            if group.has_interval_rules() && at_ms % group.interval_ms == 0 {
                evaluate_group(&self.context, &group, at_ms).await;
                self.judge_arrived();
            }
        }
    }
}
