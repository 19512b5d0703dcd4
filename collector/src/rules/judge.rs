//! Judges threshold rules the moment their samples arrive.
//!
//! Samples flow in from the appender, alerts flow out to the notifier and as series. One task owns the
//! newest sample of every watched series. A rule over one selector is judged per series, a rule over
//! several per node, once for each batch. Deadlines (the end of `for` and `keep_firing_for`, a series
//! that goes silent) are kept in a heap, so nothing is polled.
//!
//! Only a sample newer than all before of its series is judged. One that is older than the lookback, or
//! more than 10 s ahead of the clock, is not, and is counted.

use super::alert_series;
use super::alert_state::{Breach, Change};
use super::context::RuleContext;
use super::newest::{Newest, NewestBySlot, NewestOf};
use super::rule::Rule;
use super::threshold::{NODE_LABEL, Threshold};
use super::watch::{Arrived, WatchIndex, WatchedSeries};
use crate::limits::JUDGED_AHEAD_MS_MAX;
use foldhash::{HashMap, HashSet};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_promql::{QueryOptions, Value};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The threshold rules that are loaded.
#[derive(Clone, Debug, Default)]
pub struct ThresholdTable {
    /// By the index that watched selectors name.
    pub rules: Vec<Arc<Rule>>,
    /// Of the watch index that was filled for them.
    pub generation: u64,
}

/// A rule and what of it is judged on its own: a series' slot, or the number of a node.
type Subject = (usize, u64);

/// The state of judging. [`super::judge_task`] drives it.
pub struct Judge {
    context: Arc<RuleContext>,
    watch: WatchIndex,
    lookback_ms: i64,
    table: ThresholdTable,
    newest: NewestBySlot,
    nodes: HashMap<String, u64>,
    /// Watched series of rules over several selectors, by rule and node.
    members: HashMap<Subject, Vec<u64>>,
    /// Subjects that have an alert.
    alerting: HashSet<Subject>,
    deadlines: BinaryHeap<Reverse<(TimestampMs, Subject)>>,
    /// The earliest deadline in the heap of each subject.
    scheduled: HashMap<Subject, TimestampMs>,
}

impl Judge {
    /// A judge without rules.
    pub fn new(context: Arc<RuleContext>, watch: WatchIndex, lookback_ms: i64) -> Self {
        Judge {
            context,
            watch,
            lookback_ms,
            table: ThresholdTable::default(),
            newest: NewestBySlot::default(),
            nodes: HashMap::default(),
            members: HashMap::default(),
            alerting: HashSet::default(),
            deadlines: BinaryHeap::new(),
            scheduled: HashMap::default(),
        }
    }

    /// Takes other rules, and the newest stored samples of what they watch. Everything is judged at once,
    /// so alerts of before a restart or reload go on without a gap.
    pub fn load(&mut self, table: ThresholdTable, stored: Vec<(Labels, TimestampMs, f64)>) {
        self.table = table;
        self.newest.clear();
        self.members.clear();
        self.alerting.clear();
        self.deadlines.clear();
        self.scheduled.clear();
        let mut touched = HashMap::default();
        for (labels, timestamp_ms, value) in stored {
            if let Some(series) = self.watch.series(&labels) {
                self.note(&series, timestamp_ms, value, &mut touched);
            }
        }
        self.adopt_alerts(&mut touched);
        let now_ms = self.context.clock.now_ms();
        for rule in &self.table.rules {
            // A rule whose series never came is as well as one whose series are fine.
            rule.state().evaluated(now_ms, Duration::ZERO, None);
        }
        self.judge_all(touched);
    }

    /// Alerts that came over from before a reload belong to subjects of the old numbering. They are
    /// judged again under the new one; those whose series are gone resolve.
    fn adopt_alerts(&mut self, touched: &mut HashMap<Subject, TimestampMs>) {
        let now_ms = self.context.clock.now_ms();
        let mut adopted = Vec::new();
        for (index, rule) in self.table.rules.iter().enumerate() {
            let orphans = rule.state().alerts.take_subjects();
            if orphans.is_empty() {
                continue;
            }
            let by_alert = self.subjects_by_alert(rule, index, touched.keys());
            let mut state = rule.state();
            for (old, alert) in orphans {
                // An alert whose series are gone gets a subject that nothing will ever touch again.
                let subject = match &rule.threshold {
                    Some(Threshold::Joined { .. }) => self.nodes.get(alert.get(NODE_LABEL).unwrap_or("")),
                    _ => by_alert.get(&alert),
                };
                let subject = subject.copied().unwrap_or(u64::MAX - old);
                state.alerts.adopt(subject, &alert);
                adopted.push((index, subject));
            }
        }
        for subject in adopted {
            self.alerting.insert(subject);
            touched.entry(subject).or_insert(now_ms);
        }
    }

    /// Which series of a rule over one selector would raise which alert.
    fn subjects_by_alert<'s>(
        &self,
        rule: &Rule,
        index: usize,
        touched: impl Iterator<Item = &'s Subject>,
    ) -> HashMap<Labels, u64> {
        touched
            .filter(|(of_rule, _)| *of_rule == index)
            .filter_map(|(_, slot)| {
                let newest = self.newest.get(slot)?;
                Some((rule.breach(&self.context, &newest.series.labels, newest.value).labels, *slot))
            })
            .collect()
    }

    /// Takes what one append brought.
    pub fn take(&mut self, arrived: &Arrived) {
        let now_ms = self.context.clock.now_ms();
        let mut touched: HashMap<Subject, TimestampMs> = HashMap::default();
        let (mut judged, mut ahead, mut late) = (0u64, 0u64, 0u64);
        for row in &arrived.rows {
            if row.interest.generation != self.table.generation {
                // Worked out for other rules; their newest samples were read from the storage.
                continue;
            }
            let values = arrived.values.get(row.first_value..).unwrap_or_default();
            for ((_, series), &value) in row.interest.columns.iter().zip(values) {
                if pharos_tsdb::is_absent(value) {
                    continue;
                }
                if row.timestamp_ms > now_ms + JUDGED_AHEAD_MS_MAX {
                    ahead += 1;
                } else if row.timestamp_ms <= now_ms - self.lookback_ms
                    || !self.note(series, row.timestamp_ms, value, &mut touched)
                {
                    late += 1;
                } else {
                    judged += 1;
                    let age_ms = (now_ms - row.timestamp_ms).max(0);
                    self.context.metrics.decision_age.observe(age_ms as f64 / 1e3);
                }
            }
        }
        self.judge_all(touched);
        let metrics = &self.context.metrics;
        metrics.decision_latency.observe(arrived.at.elapsed().as_secs_f64());
        metrics.samples_judged.inc_by(judged);
        for (reason, count) in [("ahead", ahead), ("late", late)] {
            if count > 0 {
                metrics.samples_not_judged.with_label_values(&[reason]).inc_by(count);
            }
        }
    }

    /// Remembers a sample if it is the newest of its series, and which subjects it touches.
    fn note(
        &mut self,
        series: &Arc<WatchedSeries>,
        timestamp_ms: TimestampMs,
        value: f64,
        touched: &mut HashMap<Subject, TimestampMs>,
    ) -> bool {
        match self.newest.get_mut(&series.slot) {
            Some(newest) if newest.timestamp_ms >= timestamp_ms => return false,
            Some(newest) => {
                newest.timestamp_ms = timestamp_ms;
                newest.value = value;
            }
            None => {
                self.newest.insert(series.slot, Newest { series: Arc::clone(series), timestamp_ms, value });
                self.join(series);
            }
        }
        for &rule in &series.rules {
            let Some(subject) = self.subject(rule, series) else { continue };
            let sampled_ms = touched.entry((rule, subject)).or_insert(timestamp_ms);
            *sampled_ms = timestamp_ms.max(*sampled_ms);
        }
        true
    }

    fn join(&mut self, series: &WatchedSeries) {
        for &rule in &series.rules {
            if let Some(Threshold::Joined { .. }) =
                self.table.rules.get(rule).and_then(|r| r.threshold.as_ref())
            {
                let node = self.node(series);
                self.members.entry((rule, node)).or_default().push(series.slot);
            }
        }
    }

    fn node(&mut self, series: &WatchedSeries) -> u64 {
        let name = series.labels.get(NODE_LABEL).unwrap_or("");
        if let Some(&node) = self.nodes.get(name) {
            return node;
        }
        let node = self.nodes.len() as u64;
        self.nodes.insert(name.to_owned(), node);
        node
    }

    fn subject(&mut self, rule: usize, series: &WatchedSeries) -> Option<u64> {
        match self.table.rules.get(rule)?.threshold.as_ref()? {
            Threshold::Single(_) => Some(series.slot),
            Threshold::Joined { .. } => Some(self.node(series)),
        }
    }

    fn judge_all(&mut self, touched: HashMap<Subject, TimestampMs>) {
        let now_ms = self.context.clock.now_ms();
        let mut changed: HashMap<usize, Vec<Change>> = HashMap::default();
        for (subject, sampled_ms) in touched {
            self.judge(subject, sampled_ms, now_ms, &mut changed);
        }
        for (index, changes) in changed {
            let Some(rule) = self.table.rules.get(index) else { continue };
            let due = rule.state().alerts.take_due(now_ms);
            self.context.publish(rule, &changes, due, now_ms);
        }
    }

    fn judge(
        &mut self,
        subject: Subject,
        sampled_ms: TimestampMs,
        now_ms: TimestampMs,
        changed: &mut HashMap<usize, Vec<Change>>,
    ) {
        let Some(rule) = self.table.rules.get(subject.0).cloned() else { return };
        let started = Instant::now();
        let found = match self.find(&rule, subject, sampled_ms.max(now_ms)) {
            Ok(found) => found,
            Err(error) => {
                rule.state().evaluated(now_ms, started.elapsed(), Some(error));
                return;
            }
        };
        if found.is_empty() && !self.alerting.contains(&subject) {
            let mut state = rule.state();
            state.evaluated(now_ms, started.elapsed(), None);
            return;
        }
        let mut state = rule.state();
        let outcome = state.alerts.judge(subject.1, found, sampled_ms, now_ms, rule.definition.holds());
        let mut failure = None;
        match outcome {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => changed.entry(subject.0).or_default().extend(changes),
            Err(duplicate) => failure = Some(duplicate.to_string()),
        }
        let active = state.alerts.active_count();
        if rule.limit > 0 && active > rule.limit {
            failure = Some(format!("exceeded limit of {} with {active} alerts", rule.limit));
            let dropped = state.alerts.clear();
            changed.remove(&subject.0);
            self.context.write(alert_series::of_dropped(&dropped, now_ms));
        }
        state.evaluated(now_ms, started.elapsed(), failure);
        let next_ms = state.alerts.next_deadline_ms(subject.1, rule.definition.holds());
        let has_alert = state.alerts.has_subject(subject.1);
        drop(state);
        if has_alert {
            self.alerting.insert(subject);
            let silent_ms = self.silent_at_ms(&rule, subject, now_ms);
            self.schedule(subject, next_ms.into_iter().chain(silent_ms).min());
        } else {
            self.alerting.remove(&subject);
        }
    }

    /// What the newest samples of a subject breach.
    fn find(&self, rule: &Rule, subject: Subject, at_ms: TimestampMs) -> Result<Vec<Breach>, String> {
        match &rule.threshold {
            Some(Threshold::Single(comparison)) => {
                let Some(newest) = self.newest.get(&subject.1) else { return Ok(Vec::new()) };
                let breached =
                    newest.live_value(at_ms, self.lookback_ms).filter(|&value| comparison.holds(value));
                Ok(breached
                    .map(|value| rule.breach(&self.context, &newest.series.labels, value))
                    .into_iter()
                    .collect())
            }
            Some(Threshold::Joined { .. }) => {
                let Some(slots) = self.members.get(&subject) else { return Ok(Vec::new()) };
                let storage = NewestOf::new(&self.newest, slots);
                let options = QueryOptions {
                    lookback_delta: Some(Duration::from_millis(self.lookback_ms.unsigned_abs())),
                    ..QueryOptions::default()
                };
                let engine = self.context.queries.engine();
                let result = engine
                    .instant_expr(&storage, &rule.definition.expr, at_ms, &options)
                    .map_err(|error| error.to_string())?;
                let Value::Vector(vector) = result.value else { return Ok(Vec::new()) };
                Ok(vector
                    .iter()
                    .filter_map(|sample| Some((&sample.labels, sample.value.as_float()?)))
                    .map(|(labels, value)| rule.breach(&self.context, labels, value))
                    .collect())
            }
            None => Ok(Vec::new()),
        }
    }

    /// When the first live series of a subject will have been silent for the lookback.
    fn silent_at_ms(&self, rule: &Rule, subject: Subject, now_ms: TimestampMs) -> Option<TimestampMs> {
        let own = [subject.1];
        let slots: &[u64] = match rule.threshold {
            Some(Threshold::Single(_)) => &own,
            _ => self.members.get(&subject).map(Vec::as_slice).unwrap_or_default(),
        };
        slots
            .iter()
            .filter_map(|slot| self.newest.get(slot))
            .filter(|newest| newest.live_value(now_ms, self.lookback_ms).is_some())
            .map(|newest| newest.timestamp_ms + self.lookback_ms)
            .min()
    }

    fn schedule(&mut self, subject: Subject, at_ms: Option<TimestampMs>) {
        let Some(at_ms) = at_ms else { return };
        if self.scheduled.get(&subject).is_none_or(|&known| at_ms < known) {
            self.scheduled.insert(subject, at_ms);
            self.deadlines.push(Reverse((at_ms, subject)));
        }
    }

    /// When to call [`Judge::deadline`].
    pub fn next_deadline_ms(&self) -> Option<TimestampMs> {
        self.deadlines.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Judges what is due without a sample.
    pub fn deadline(&mut self) {
        let now_ms = self.context.clock.now_ms();
        let mut touched = HashMap::default();
        while let Some(Reverse((at_ms, subject))) = self.deadlines.peek().copied()
            && at_ms <= now_ms
        {
            self.deadlines.pop();
            if self.scheduled.get(&subject) == Some(&at_ms) {
                self.scheduled.remove(&subject);
                touched.insert(subject, now_ms);
            }
        }
        if !touched.is_empty() {
            self.judge_all(touched);
        }
    }

    /// Keeps the series of alerts alive and sends alerts again that are due.
    pub fn refresh(&mut self, write_series: bool) {
        let now_ms = self.context.clock.now_ms();
        for rule in &self.table.rules {
            let (due, series) = {
                let mut state = rule.state();
                let series = if write_series {
                    alert_series::of_active(state.alerts.active(), now_ms)
                } else {
                    Vec::new()
                };
                (state.alerts.take_due(now_ms), series)
            };
            self.context.write(series);
            self.context.send(rule, due, now_ms);
        }
    }

    /// Forgets series that were silent for twice the lookback.
    pub fn purge(&mut self) {
        let now_ms = self.context.clock.now_ms();
        let horizon_ms = now_ms - 2 * self.lookback_ms;
        let newest = &mut self.newest;
        newest.retain(|_, of| of.timestamp_ms > horizon_ms);
        self.members.retain(|_, slots| {
            slots.retain(|slot| newest.contains_key(slot));
            !slots.is_empty()
        });
        self.watch.purge();
    }
}
