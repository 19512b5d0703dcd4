//! Judges threshold rules the moment their samples arrive.
//!
//! Samples flow in from the appender, alerts flow out to the notifier and as series. One task owns the
//! newest sample of every watched series. A rule over one selector is judged per series; most samples lie
//! where none of a series' rules has anything to say, and cost two comparisons. A rule over several
//! selectors is judged per set of labels or node, once for each tick: when all of its series that are due
//! have come, or after a tenth of a second. Deadlines (the end of `for` and `keep_firing_for`, a series
//! that goes silent, a tick that stays incomplete) are kept in a heap, so nothing is polled.
//!
//! Only a sample newer than all before of its series is judged. One that is older than the lookback, or
//! more than 10 s ahead of the clock, is not, and is counted.

use super::alert_series;
use super::alert_state::{Change, MISSING_KEPT_MS_MAX, ORPHANS_FROM, Timeline};
use super::context::RuleContext;
use super::file::OnMissing;
use super::glance::Glance;
use super::judge_limit::{counts_by_subject, exceeded};
use super::judge_series::{Called, NewestOf, Noted, SeriesTable, joint_key};
use super::pointwise::Found;
use super::rule::{Rule, RuleState};
use super::threshold::Threshold;
use super::urgency;
use super::watch::{Arrived, WatchIndex};
use crate::limits::{JUDGED_AHEAD_MS_MAX, TICK_WAIT_MS_MAX};
use foldhash::{HashMap, HashSet};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_promql::{QueryOptions, Value};
use pharos_tsdb::CommitNumber;
use prometheus::local::LocalHistogram;
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

/// A rule and what of it is judged on its own: the slot of a series or the number of a joint.
pub(super) type Subject = (u32, u64);

/// When something is judged, and because of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) now_ms: TimestampMs,
    /// When the samples arrived, and what must be durable for them to be; `None` if time is the reason.
    arrival: Option<(TimestampMs, CommitNumber)>,
}

/// What the newest samples of a subject say.
pub(super) enum Finding {
    /// No breach.
    Nothing,
    /// These breaches.
    Breaches(Vec<(Labels, f64)>),
    /// No breach, and data that was there is not now, since `since_ms`.
    Missing { found: Labels, since_ms: TimestampMs },
    /// The data of an alert of before a restart has not come back.
    StillMissing,
    /// The expression cannot be evaluated.
    Failed(String),
}

/// The state of judging. [`super::judge_task`] drives it.
pub struct Judge {
    pub(super) context: Arc<RuleContext>,
    watch: WatchIndex,
    lookback_ms: i64,
    pub(super) table: ThresholdTable,
    /// By rule; `None` for those over several series.
    glances: Vec<Option<Glance>>,
    series: SeriesTable,
    called: Called,
    pub(super) changed: HashMap<u32, Vec<Change>>,
    /// Rules whose last judgement failed.
    failing: HashSet<u32>,
    /// Rules with alerts whose series are not there.
    orphaned: HashSet<u32>,
    /// Rules with alerts of before a restart that were not found again.
    pub(super) remembering: HashSet<u32>,
    /// Rules with more alerts than their limit, and how many each subject would have: they have none until there
    /// are few enough.
    pub(super) over_limit: HashMap<u32, HashMap<u64, usize>>,
    deadlines: BinaryHeap<Reverse<(TimestampMs, Subject)>>,
    /// The earliest deadline in the heap of each subject.
    scheduled: HashMap<Subject, TimestampMs>,
    /// The rule from which on reminders go out next.
    pub(super) remind_from: usize,
    /// Whether the last alerts used up the room at the alertmanagers.
    pub(super) is_crowded: bool,
    age: LocalHistogram,
}

impl Judge {
    /// A judge without rules.
    pub fn new(context: Arc<RuleContext>, watch: WatchIndex, lookback_ms: i64) -> Self {
        let age = context.metrics.decision_age.local();
        Judge {
            context,
            watch,
            lookback_ms,
            table: ThresholdTable::default(),
            glances: Vec::new(),
            series: SeriesTable::default(),
            called: Called::default(),
            changed: HashMap::default(),
            failing: HashSet::default(),
            orphaned: HashSet::default(),
            remembering: HashSet::default(),
            over_limit: HashMap::default(),
            deadlines: BinaryHeap::new(),
            scheduled: HashMap::default(),
            remind_from: 0,
            is_crowded: false,
            age,
        }
    }

    /// Takes other rules, and the newest stored samples of what they watch. Everything is judged at once,
    /// so alerts of before a restart or reload go on without a gap.
    pub fn load(&mut self, table: ThresholdTable, stored: Vec<(Labels, TimestampMs, f64)>) {
        self.glances = table.rules.iter().map(|rule| Glance::of(rule)).collect();
        self.table = table;
        self.series.clear();
        self.called = Called::default();
        self.failing.clear();
        self.over_limit.clear();
        self.deadlines.clear();
        self.scheduled.clear();
        for (labels, timestamp_ms, value) in stored {
            if let Some(series) = self.watch.series(&labels) {
                self.series.note(&self.table.rules, &series, timestamp_ms, value, &mut self.called);
            }
        }
        let moment = Moment { now_ms: self.context.clock.now_ms(), arrival: None };
        let orphans = self.adopt_alerts(moment.now_ms);
        let rules = (0u32..).zip(&self.table.rules);
        self.remembering = rules
            .filter(|(_, rule)| rule.state().alerts.has_remembered())
            .map(|(number, _)| number)
            .collect();
        for rule in &self.table.rules {
            // A rule whose series never came is as well as one whose series are fine.
            rule.state().evaluated(moment.now_ms, Duration::ZERO, None);
        }
        for number in self.series.joint_numbers().collect::<Vec<_>>() {
            self.series.unqueue(number);
            self.judge_joint(number, moment);
        }
        self.called.joints.clear();
        for slot in self.series.slots().collect::<Vec<_>>() {
            self.judge_series(slot, moment);
        }
        self.called.slots.clear();
        for (rule, subject) in orphans {
            self.judge_orphan(rule, subject, moment);
        }
        self.publish(moment.now_ms);
        self.note_orphans();
    }

    /// Alerts that came over from before a restart or reload belong to subjects of the old numbering. They
    /// get those of the new one; for an alert whose series are not there that is a subject of nobody.
    fn adopt_alerts(&mut self, now_ms: TimestampMs) -> Vec<(u32, u64)> {
        let mut of_nobody = Vec::new();
        let rules: Vec<(u32, Arc<Rule>)> = (0u32..).zip(self.table.rules.iter().cloned()).collect();
        for (number, rule) in rules {
            let mut state = rule.state();
            if rule.definition.on_missing() != OnMissing::Resolve {
                rule.keep_remembered(&mut state, now_ms);
            }
            let before = state.alerts.take_subjects();
            if before.is_empty() {
                continue;
            }
            self.orphaned.insert(number);
            let mut by_found: Option<HashMap<Labels, u32>> = None;
            for (index, (_, labels)) in before.into_iter().enumerate() {
                let Some(found) = state.alerts.found(&labels) else { continue };
                let subject = match &rule.threshold {
                    Some(Threshold::Single(_)) => {
                        let by_found = by_found.get_or_insert_with(|| self.slots_by_found(number));
                        by_found.get(&found.without_name()).copied()
                    }
                    Some(threshold) => self.series.joint_of(number, &joint_key(threshold, &found)),
                    None => None,
                };
                let subject = match (subject, &rule.threshold) {
                    (Some(slot), Some(Threshold::Single(_))) => {
                        if let Some(newest) = self.series.get_mut(slot) {
                            newest.alerts.push(number);
                        }
                        u64::from(slot)
                    }
                    (Some(joint), _) => {
                        if let Some(joint) = self.series.joint_mut(joint) {
                            joint.has_alert = true;
                        }
                        u64::from(joint)
                    }
                    (None, _) => {
                        let subject = u64::MAX - index as u64;
                        of_nobody.push((number, subject));
                        subject
                    }
                };
                state.alerts.adopt(subject, &labels);
            }
        }
        of_nobody
    }

    /// Which series of a rule over one selector would be found under which labels.
    fn slots_by_found(&self, rule: u32) -> HashMap<Labels, u32> {
        self.series
            .slots()
            .filter_map(|slot| self.series.get(slot))
            .filter(|newest| newest.series.watchers.iter().any(|watcher| watcher.rule == rule))
            .map(|newest| (newest.series.labels.without_name(), newest.series.slot))
            .collect()
    }

    fn note_orphans(&mut self) {
        let rules = &self.table.rules;
        self.orphaned
            .retain(|rule| rules.get(*rule as usize).is_some_and(|rule| rule.state().alerts.has_orphans()));
    }

    /// Takes what one append brought.
    pub fn take(&mut self, arrived: &Arrived) {
        let now_ms = self.context.clock.now_ms();
        let (mut judged, mut ahead, mut late) = (0u64, 0u64, 0u64);
        for row in &arrived.rows {
            if row.interest.generation != self.table.generation {
                // Worked out for other rules; their newest samples were read from the storage.
                continue;
            }
            let values = arrived.values.get(row.first_value..).unwrap_or_default();
            let present = row.interest.columns.iter().zip(values);
            let present = present.filter(|(_, value)| !pharos_tsdb::is_absent(**value));
            if row.timestamp_ms > now_ms + JUDGED_AHEAD_MS_MAX {
                ahead += present.count() as u64;
                continue;
            }
            if row.timestamp_ms <= now_ms - self.lookback_ms {
                late += present.count() as u64;
                continue;
            }
            let rules = &self.table.rules;
            let before = judged;
            for ((_, series), &value) in present {
                match self.series.note(rules, series, row.timestamp_ms, value, &mut self.called) {
                    Noted::Newest => judged += 1,
                    Noted::Older => late += 1,
                    // Stored once, and judged then.
                    Noted::Repeated => {}
                }
            }
            if judged > before {
                self.age.observe((now_ms - row.timestamp_ms).max(0) as f64 / 1e3);
            }
        }
        let waited_ms = arrived.at.elapsed().as_millis() as i64;
        self.judge_called(Moment { now_ms, arrival: Some((now_ms - waited_ms, arrived.commit)) });
        self.age.flush();
        let metrics = &self.context.metrics;
        metrics.decision_latency.observe(arrived.at.elapsed().as_secs_f64());
        metrics.samples_judged.inc_by(judged);
        for (reason, count) in [("ahead", ahead), ("late", late)] {
            if count > 0 {
                metrics.samples_not_judged.with_label_values(&[reason]).inc_by(count);
            }
        }
    }

    fn judge_called(&mut self, moment: Moment) {
        let mut called = std::mem::take(&mut self.called);
        for slot in called.slots.drain(..) {
            self.judge_series(slot, moment);
        }
        for number in called.joints.drain(..) {
            self.series.unqueue(number);
            let Some(joint) = self.series.joint(number) else { continue };
            if self.series.is_complete(joint) {
                self.judge_joint(number, moment);
            } else {
                let subject = (joint.rule, u64::from(number));
                self.schedule(subject, Some(moment.now_ms + TICK_WAIT_MS_MAX));
            }
        }
        self.called = called;
        self.publish(moment.now_ms);
    }

    /// Judges all rules over one series alone.
    fn judge_series(&mut self, slot: u32, moment: Moment) {
        let Some(newest) = self.series.get(slot) else { return };
        let series = Arc::clone(&newest.series);
        let live = newest.live_value(moment.now_ms.max(newest.timestamp_ms), self.lookback_ms);
        for watcher in &series.watchers {
            // Of a series near its thresholds most rules have nothing to say: that is told without the rule.
            let glance = self.glances.get(watcher.rule as usize).and_then(Option::as_ref);
            if glance.is_some_and(|glance| !glance.may_speak(live))
                && self.orphaned.is_empty()
                && self.remembering.is_empty()
                && self.series.get(slot).is_some_and(|newest| !newest.alerts.contains(&watcher.rule))
            {
                continue;
            }
            self.judge_single(watcher.rule, slot, moment);
        }
        self.set_urgency(slot, moment.now_ms);
    }

    fn judge_single(&mut self, number: u32, slot: u32, moment: Moment) {
        let Some(rule) = self.table.rules.get(number as usize) else { return };
        let Some(Threshold::Single(comparison)) = &rule.threshold else { return };
        let Some(newest) = self.series.get(slot) else { return };
        let has_alert = newest.alerts.contains(&number);
        let on_missing = rule.definition.on_missing();
        let at_ms = moment.now_ms.max(newest.timestamp_ms);
        let live = newest.live_value(at_ms, self.lookback_ms);
        let orphaned = self.orphaned.contains(&number);
        let holds = live.filter(|&value| comparison.holds(value));
        let remembers = live.is_some() && self.remembering.contains(&number);
        if holds.is_none() && !has_alert && !orphaned && !remembers && on_missing != OnMissing::Fire {
            return;
        }
        let (rule, labels) = (Arc::clone(rule), newest.series.labels.clone());
        let (sampled_ms, value) = (newest.timestamp_ms, newest.value);
        let finding = match (holds, live) {
            (Some(value), _) => {
                let mut state = rule.state();
                let goes_on = has_alert
                    && state.alerts.touch(
                        u64::from(slot),
                        value,
                        rule.steady_labels,
                        moment.now_ms,
                        rule.definition.holds(),
                    );
                if goes_on {
                    drop(state);
                    if moment.arrival.is_none() {
                        self.schedule_silence((number, u64::from(slot)), &[slot], moment.now_ms);
                    }
                    return;
                }
                Finding::Breaches(vec![(labels, value)])
            }
            (None, Some(_)) => {
                if orphaned {
                    self.resolve_orphan(&rule, number, &labels, value, sampled_ms, moment);
                }
                if remembers {
                    self.end_remembered(&rule, number, &labels, value, moment);
                }
                Finding::Nothing
            }
            (None, None) => Finding::Missing { found: labels, since_ms: sampled_ms },
        };
        let has_alert = self.decide(&rule, (number, u64::from(slot)), finding, has_alert, sampled_ms, moment);
        if let Some(newest) = self.series.get_mut(slot) {
            newest.alerts.retain(|other| *other != number);
            if has_alert {
                newest.alerts.push(number);
            }
        }
        if has_alert || on_missing == OnMissing::Fire {
            self.schedule_silence((number, u64::from(slot)), &[slot], moment.now_ms);
        }
    }

    /// Judges a rule over several selectors for one set of labels.
    fn judge_joint(&mut self, number: u32, moment: Moment) {
        let Some(joint) = self.series.joint_mut(number) else { return };
        let tick_ms = joint.tick_ms.take().unwrap_or(moment.now_ms);
        joint.is_new = false;
        let (had_alert, of_rule, key) = (joint.has_alert, joint.rule, joint.key.clone());
        let Some(rule) = self.table.rules.get(of_rule as usize).cloned() else { return };
        let on_missing = rule.definition.on_missing();
        let finding = self.find(&rule, number, tick_ms.max(moment.now_ms));
        let orphaned = self.orphaned.contains(&of_rule);
        match &finding {
            Finding::Nothing => {
                if orphaned {
                    self.resolve_orphan(&rule, of_rule, &key, f64::NAN, tick_ms, moment);
                }
                // What is not all there yet has said nothing.
                if self.remembering.contains(&of_rule)
                    && self.series.is_live_throughout(number, tick_ms.max(moment.now_ms), self.lookback_ms)
                {
                    self.end_remembered(&rule, of_rule, &key, f64::NAN, moment);
                }
            }
            Finding::Breaches(breaches) if had_alert && breaches.len() == 1 => {
                let mut state = rule.state();
                let (id, holds) = (u64::from(number), rule.definition.holds());
                // Another series of the node may breach now, and another metric's name may stand.
                let goes_on = |(found, value): &(Labels, f64)| {
                    state.alerts.found_alone(id) == Some(found)
                        && state.alerts.touch(id, *value, rule.steady_labels, moment.now_ms, holds)
                };
                if breaches.first().is_some_and(goes_on) {
                    drop(state);
                    if moment.arrival.is_none() {
                        let slots = self.series.joint(number).map(|joint| joint.slots.clone());
                        self.schedule_silence((of_rule, id), &slots.unwrap_or_default(), moment.now_ms);
                    }
                    return;
                }
            }
            _ => {}
        }
        let subject = (of_rule, u64::from(number));
        let has_alert = self.decide(&rule, subject, finding, had_alert, tick_ms, moment);
        let mut slots = Vec::new();
        if let Some(joint) = self.series.joint_mut(number) {
            joint.has_alert = has_alert;
            if has_alert || had_alert || on_missing == OnMissing::Fire {
                slots.clone_from(&joint.slots);
            }
        }
        if has_alert != had_alert {
            for slot in &slots {
                self.set_urgency(*slot, moment.now_ms);
            }
        }
        if has_alert || on_missing == OnMissing::Fire {
            self.schedule_silence(subject, &slots, moment.now_ms);
        }
    }

    /// What the newest samples of a joint say.
    fn find(&self, rule: &Rule, number: u32, at_ms: TimestampMs) -> Finding {
        let Some(joint) = self.series.joint(number) else { return Finding::Nothing };
        let breaches: Vec<(Labels, f64)> = match &rule.threshold {
            Some(Threshold::Pointwise(pointwise)) if !joint.ambiguous => {
                let value = |selector| self.series.column(joint, selector, at_ms, self.lookback_ms);
                let named = |found: Found| (self.series.named(joint, found.named_by), found.value);
                pointwise.evaluate(value).map(named).into_iter().collect()
            }
            _ => {
                let storage = NewestOf::new(&self.series, &joint.slots);
                let options = QueryOptions {
                    lookback_delta: Some(Duration::from_millis(self.lookback_ms.unsigned_abs())),
                    ..QueryOptions::default()
                };
                let engine = self.context.queries.engine();
                match engine.instant_expr(&storage, &rule.definition.expr, at_ms, &options) {
                    Err(error) => return Finding::Failed(error.to_string()),
                    Ok(result) => match result.value {
                        Value::Vector(vector) => vector
                            .into_iter()
                            .filter_map(|sample| Some((sample.labels, sample.value.as_float()?)))
                            .collect(),
                        _ => Vec::new(),
                    },
                }
            }
        };
        if !breaches.is_empty() {
            return Finding::Breaches(breaches);
        }
        if rule.definition.on_missing() != OnMissing::Resolve
            && self.series.is_missing(&joint.slots, at_ms, self.lookback_ms)
        {
            let newest = joint.slots.iter().filter_map(|slot| self.series.get(*slot));
            let since_ms = newest.map(|newest| newest.timestamp_ms).max().unwrap_or(at_ms);
            return Finding::Missing { found: joint.key.clone(), since_ms };
        }
        Finding::Nothing
    }

    /// Lets a finding take effect. Says whether the subject has an alert now, resolved ones included.
    pub(super) fn decide(
        &mut self,
        rule: &Arc<Rule>,
        subject: Subject,
        finding: Finding,
        has_alert: bool,
        sampled_ms: TimestampMs,
        moment: Moment,
    ) -> bool {
        let started = Instant::now();
        let now_ms = moment.now_ms;
        let (found, missing) = match finding {
            Finding::Failed(error) => {
                self.failing.insert(subject.0);
                rule.state().evaluated(now_ms, started.elapsed(), Some(error));
                return has_alert;
            }
            Finding::Nothing => (Vec::new(), false),
            Finding::StillMissing => (Vec::new(), true),
            Finding::Breaches(breaches) => (breaches, false),
            Finding::Missing { found, since_ms } => match rule.definition.on_missing() {
                OnMissing::Resolve => (Vec::new(), false),
                OnMissing::Keep => (Vec::new(), true),
                OnMissing::Fire if now_ms - since_ms < MISSING_KEPT_MS_MAX => {
                    (vec![(found, f64::NAN)], false)
                }
                OnMissing::Fire => (Vec::new(), false),
            },
        };
        if let Some(outcome) = self.stays_over_limit(rule, subject, found.len(), moment) {
            return outcome;
        }
        let was_failing = !self.failing.is_empty() && self.failing.remove(&subject.0);
        if found.is_empty() && !has_alert {
            if was_failing {
                rule.state().evaluated(now_ms, started.elapsed(), None);
            }
            return false;
        }
        let breaches =
            found.iter().map(|(labels, value)| rule.breach(&self.context, labels, *value)).collect();
        let (id, holds) = (subject.1, rule.definition.holds());
        let mut state = rule.state();
        let outcome = state.alerts.judge_unless_missing(id, breaches, sampled_ms, now_ms, holds, |_| missing);
        let mut failure = None;
        match outcome {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => self.take_changes(rule, &mut state, subject.0, changes, sampled_ms, moment),
            Err(duplicate) => failure = Some(duplicate.to_string()),
        }
        if rule.limit > 0 {
            let active = state.alerts.active_count();
            if active > rule.limit {
                failure = Some(exceeded(rule, active));
                self.over_limit.insert(subject.0, counts_by_subject(&state.alerts));
                let dropped = state.alerts.clear();
                self.changed.remove(&subject.0);
                self.context.write(alert_series::of_dropped(&dropped, now_ms));
            }
        }
        if failure.is_some() {
            self.failing.insert(subject.0);
        }
        state.evaluated(now_ms, started.elapsed(), failure);
        let next_ms = state.alerts.next_deadline_ms(id, holds);
        // What is over the limit is looked at like an alert.
        let has_alert = state.alerts.has_subject(id) || self.over_limit.contains_key(&subject.0);
        drop(state);
        self.schedule(subject, next_ms);
        has_alert
    }

    fn take_changes(
        &mut self,
        rule: &Arc<Rule>,
        state: &mut RuleState,
        number: u32,
        changes: Vec<Change>,
        sampled_ms: TimestampMs,
        moment: Moment,
    ) {
        let timeline = Timeline {
            sampled_ms,
            received_ms: moment.arrival.map(|(received_ms, _)| received_ms),
            durable_ms: None,
            decided_ms: moment.now_ms,
        };
        state.alerts.set_timeline(&changes, timeline);
        if let Some((received_ms, commit)) = moment.arrival {
            self.context.await_durable(rule, &changes, commit, received_ms, moment.now_ms);
        }
        self.changed.entry(number).or_default().extend(changes);
    }

    /// Tells the series' agent, by way of its stream, how near it is to a threshold.
    fn set_urgency(&mut self, slot: u32, now_ms: TimestampMs) {
        let Some(newest) = self.series.get(slot) else { return };
        let joined = |joint: &u32| self.series.joint(*joint).is_some_and(|joint| joint.has_alert);
        let live = newest.live_value(now_ms.max(newest.timestamp_ms), self.lookback_ms);
        let level = if !newest.alerts.is_empty() || newest.joints.iter().any(joined) {
            urgency::ALERTING
        } else if live.is_some_and(|value| !value.is_nan() && !newest.quiet.contains(value)) {
            urgency::NEAR
        } else {
            urgency::FAR
        };
        if let Some(newest) = self.series.get_mut(slot) {
            newest.near = level == urgency::NEAR;
            newest.series.urgency.set(level);
        }
    }

    /// Schedules a look at a subject for when the first of its live series will have been silent for the
    /// lookback, or when missing ones no longer count.
    fn schedule_silence(&mut self, subject: Subject, slots: &[u32], now_ms: TimestampMs) {
        let newest = slots.iter().filter_map(|slot| self.series.get(*slot));
        let at_ms = newest
            .map(|newest| match newest.live_value(now_ms, self.lookback_ms) {
                Some(_) => newest.timestamp_ms + self.lookback_ms,
                None => newest.timestamp_ms + MISSING_KEPT_MS_MAX,
            })
            .filter(|at_ms| *at_ms > now_ms)
            .min();
        self.schedule(subject, at_ms);
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
        let moment = Moment { now_ms, arrival: None };
        while let Some(Reverse((at_ms, subject))) = self.deadlines.peek().copied()
            && at_ms <= now_ms
        {
            self.deadlines.pop();
            if self.scheduled.get(&subject) != Some(&at_ms) {
                continue;
            }
            self.scheduled.remove(&subject);
            self.judge_subject(subject, moment);
        }
        self.publish(now_ms);
    }

    pub(super) fn judge_subject(&mut self, (number, id): Subject, moment: Moment) {
        let threshold = self.table.rules.get(number as usize).and_then(|rule| rule.threshold.as_ref());
        match threshold {
            _ if id >= ORPHANS_FROM => self.judge_orphan(number, id, moment),
            Some(Threshold::Single(_)) => {
                self.judge_single(number, id as u32, moment);
                self.set_urgency(id as u32, moment.now_ms);
            }
            Some(_) => self.judge_joint(id as u32, moment),
            None => {}
        }
    }

    /// Forgets series that were silent for twice the lookback.
    pub fn purge(&mut self) {
        let now_ms = self.context.clock.now_ms();
        self.series.forget_before(now_ms - 2 * self.lookback_ms);
        self.watch.purge();
        self.note_orphans();
    }
}
