//! Keeps the loaded rules: starts and stops their evaluation, and exchanges them on a reload.

use super::alert_series;
use super::alert_state::Remembered;
use super::context::RuleContext;
use super::evaluate::run_group;
use super::file::{GroupDefinition, OnMissing};
use super::judge::{Judge, ThresholdTable};
use super::judge_task::{self, Load, StoredNewest};
use super::rule::{Group, Rule};
use super::watch::{Arrived, WatchIndex, WatchedSelector};
use arc_swap::ArcSwap;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::shutdown::Shutdown;
use pharos_tsdb::Database;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

/// After a start, how long an alert of before counts as going on when it is found again.
const TAKE_UP_TIME_MAX: Duration = Duration::from_secs(120);

/// Groups of rules, in the order of their files. Clones share them.
#[derive(Clone)]
pub struct RuleManager {
    context: Arc<RuleContext>,
    watch: WatchIndex,
    database: Database,
    groups: Arc<ArcSwap<Vec<Arc<Group>>>>,
    loads: mpsc::Sender<Load>,
    /// Stops the evaluation of the groups that are loaded.
    running: Arc<Mutex<Shutdown>>,
    shutdown: Shutdown,
}

impl RuleManager {
    /// A manager without rules; its judge runs until `shutdown`.
    pub fn start(
        context: Arc<RuleContext>,
        watch: WatchIndex,
        database: Database,
        lookback_ms: i64,
        arrivals: mpsc::Receiver<Arrived>,
        shutdown: Shutdown,
    ) -> Self {
        let (loads, incoming) = mpsc::channel(1);
        let judge = Judge::new(Arc::clone(&context), watch.clone(), lookback_ms);
        let clock = Arc::clone(&context.clock);
        let stored = StoredNewest { database: database.clone(), lookback_ms };
        tokio::spawn(judge_task::run(judge, stored, clock, arrivals, incoming, shutdown.clone()));
        RuleManager {
            context,
            watch,
            database,
            groups: Arc::default(),
            loads,
            running: Arc::new(Mutex::new(shutdown.child_token())),
            shutdown,
        }
    }

    /// The loaded groups.
    pub fn groups(&self) -> Arc<Vec<Arc<Group>>> {
        self.groups.load_full()
    }

    /// What evaluation needs.
    pub fn context(&self) -> &Arc<RuleContext> {
        &self.context
    }

    /// Puts other rules in force. Rules that did not change keep their alerts. On the first call alerts
    /// of before a restart are taken up again.
    pub async fn load(&self, definitions: Vec<GroupDefinition>) {
        let mut running = self.running.lock().await;
        running.cancel();
        *running = self.shutdown.child_token();

        let before = self.groups.load_full();
        let groups: Vec<Arc<Group>> = definitions
            .into_iter()
            .map(|definition| {
                let same = |old: &&Arc<Group>| old.file == definition.file && old.name == definition.name;
                let old = before.iter().find(same).map(Arc::as_ref);
                Arc::new(Group::new(definition.clone(), old))
            })
            .collect();
        let rules: Vec<Arc<Rule>> = groups.iter().flat_map(|group| group.rules.iter().cloned()).collect();
        if before.is_empty() {
            self.take_up_alerts(&rules).await;
        }
        let thresholds: Vec<Arc<Rule>> = rules.into_iter().filter(|rule| rule.threshold.is_some()).collect();
        self.watch_for(thresholds).await;
        for group in groups.iter().filter(|group| group.has_interval_rules()) {
            tokio::spawn(run_group(Arc::clone(&self.context), Arc::clone(group), running.clone()));
        }
        self.groups.store(Arc::new(groups));
    }

    async fn take_up_alerts(&self, rules: &[Arc<Rule>]) {
        let (database, now_ms) = (self.database.clone(), self.context.clock.now_ms());
        let read = tokio::task::spawn_blocking(move || alert_series::remembered(&database, now_ms)).await;
        let alerts: HashMap<Labels, Remembered> = match read {
            Ok(Ok(alerts)) => alerts,
            Ok(Err(error)) => return tracing::warn!(%error, "Alerts of before the restart cannot be read"),
            Err(error) => return tracing::warn!(%error, "Alerts of before the restart cannot be read"),
        };
        for (labels, remembered) in &alerts {
            let may_have: Vec<&Arc<Rule>> =
                rules.iter().filter(|rule| rule.may_have_raised(labels)).collect();
            let remembered = Remembered { is_shared: may_have.len() > 1, ..*remembered };
            for rule in may_have {
                rule.state().alerts.remember(labels.clone(), remembered);
            }
        }
        // Those of rules that arriving samples decide are kept by the judge.
        for rule in rules.iter().filter(|rule| rule.threshold.is_none()) {
            if rule.definition.on_missing() == OnMissing::Keep {
                rule.keep_remembered(&mut rule.state(), now_ms);
            }
        }
        // An alert may be found again once its rule was evaluated.
        let mut waits: BTreeMap<i64, Vec<Arc<Rule>>> = BTreeMap::new();
        for rule in rules.iter().filter(|_| !alerts.is_empty()) {
            let interval_ms = if rule.threshold.is_some() { 0 } else { rule.interval_ms };
            waits.entry(interval_ms).or_default().push(Arc::clone(rule));
        }
        for (interval_ms, waiting) in waits {
            let (all, clock, end) = (rules.to_vec(), self.context.clock.clone(), self.shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = clock.sleep(TAKE_UP_TIME_MAX + Duration::from_millis(interval_ms.unsigned_abs())) => {}
                    () = end.cancelled() => return,
                }
                forget_remembered(&all, &waiting, clock.now_ms());
            });
        }
    }

    async fn watch_for(&self, rules: Vec<Arc<Rule>>) {
        let selectors = watched_selectors(&rules);
        // What arrives from here on is watched for the new rules. The judge reads what came before from the
        // storage before it goes on with what arrived, so no sample falls between the two.
        let generation = self.watch.replace(selectors.clone());
        let (done, in_force) = oneshot::channel();
        let load = Load { table: ThresholdTable { rules, generation }, selectors, done };
        if self.loads.send(load).await.is_ok() {
            let _ = in_force.await;
        }
    }
}

/// What these threshold rules watch.
pub fn watched_selectors(rules: &[Arc<Rule>]) -> Vec<WatchedSelector> {
    rules
        .iter()
        .enumerate()
        .filter_map(|(index, rule)| Some((index, rule.threshold.as_ref()?)))
        .flat_map(|(rule, threshold)| {
            let selectors = threshold.selectors().into_iter().enumerate();
            selectors.map(move |(selector, matchers)| WatchedSelector { rule, selector, matchers })
        })
        .collect()
}

/// Ends what was remembered of rules and not found again, unless another rule has the alert.
fn forget_remembered(all: &[Arc<Rule>], waiting: &[Arc<Rule>], now_ms: TimestampMs) {
    let mut known: HashSet<Labels> = HashSet::new();
    for rule in all {
        known.extend(rule.state().alerts.active().map(|alert| alert.labels.clone()));
    }
    for rule in waiting {
        let mut state = rule.state();
        let ended =
            state.alerts.forget_remembered(now_ms, rule.definition.holds(), |labels| known.contains(labels));
        known.extend(ended);
    }
}
