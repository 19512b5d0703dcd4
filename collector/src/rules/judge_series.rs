//! What the judge knows of watched series: the newest sample of each, and which of them are judged
//! together.
//!
//! A *joint* is a rule over several selectors for one set of labels (or one node, where the rule says on
//! which labels series meet). It is judged once per tick: when all its series that are due have come.

use super::quiet::Quiet;
use super::rule::Rule;
use super::threshold::{NODE_LABEL, Threshold};
use super::urgency;
use super::watch::WatchedSeries;
use foldhash::HashMap;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::{TimestampMs, is_stale_nan};
use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use std::cmp::Ordering;
use std::sync::Arc;

/// A series that missed this many of its intervals is not waited for any more.
const INTERVALS_WAITED_MAX: i64 = 3;

/// The newest sample of a series, and who is to be asked about it.
#[derive(Debug)]
pub(crate) struct Newest {
    pub(crate) series: Arc<WatchedSeries>,
    pub(crate) timestamp_ms: TimestampMs,
    /// May be the stale marker.
    pub(crate) value: f64,
    /// Between the two newest samples; 0 until there were two.
    pub(crate) interval_ms: i64,
    /// Values on which no rule over this series alone has anything to say.
    pub(crate) quiet: Quiet,
    /// Rules over this series alone that have an alert of it.
    pub(crate) alerts: Vec<u32>,
    /// Whether its agent was told that it is near a threshold.
    pub(crate) near: bool,
    /// Joints it is part of.
    pub(crate) joints: Box<[u32]>,
    /// Whether its first sample was passed on.
    noted: bool,
}

impl Newest {
    /// The value, unless the series has ended or is silent for longer than the lookback.
    pub(crate) fn live_value(&self, at_ms: TimestampMs, lookback_ms: i64) -> Option<f64> {
        let is_live = !is_stale_nan(self.value) && self.timestamp_ms > at_ms - lookback_ms;
        is_live.then_some(self.value)
    }

    /// Whether its sample of the tick at `tick_ms` is still to come. Of a series that had one sample nobody
    /// knows.
    fn is_due(&self, tick_ms: TimestampMs) -> bool {
        let behind_ms = tick_ms - self.timestamp_ms;
        if behind_ms <= 0 || is_stale_nan(self.value) {
            return false;
        }
        self.interval_ms == 0
            || (2 * behind_ms >= self.interval_ms && behind_ms < INTERVALS_WAITED_MAX * self.interval_ms)
    }
}

/// A rule over several selectors, for one set of labels.
#[derive(Debug)]
pub(crate) struct Joint {
    pub(crate) rule: u32,
    /// The labels that its series share.
    pub(crate) key: Labels,
    /// The series of each selector, where there is at most one.
    pub(crate) columns: Box<[Option<u32>]>,
    /// All its series.
    pub(crate) slots: Vec<u32>,
    /// Two series of one selector share the labels: only the query engine knows what that means.
    pub(crate) ambiguous: bool,
    pub(crate) has_alert: bool,
    /// It was not judged yet, so more series may be on their way.
    pub(crate) is_new: bool,
    /// A sample came that was not judged yet, of this time.
    pub(crate) tick_ms: Option<TimestampMs>,
    /// Whether it is in the list of those to look at.
    queued: bool,
}

/// What samples have called for.
#[derive(Debug, Default)]
pub(crate) struct Called {
    /// Series that a rule over them alone may have to say something about.
    pub(crate) slots: Vec<u32>,
    /// Joints that got a sample.
    pub(crate) joints: Vec<u32>,
}

/// What a sample is to its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// The newest: it is judged.
    Newest,
    /// Of the same time as the newest: sent twice, and stored once.
    Repeated,
    /// Older than the newest.
    Older,
}

/// All watched series and joints.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    newest: Vec<Option<Newest>>,
    joints: Vec<Option<Joint>>,
    free_joints: Vec<u32>,
    by_key: HashMap<(u32, Labels), u32>,
}

impl SeriesTable {
    pub(crate) fn clear(&mut self) {
        *self = SeriesTable::default();
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Newest> {
        self.newest.get(slot as usize)?.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Newest> {
        self.newest.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn joint(&self, joint: u32) -> Option<&Joint> {
        self.joints.get(joint as usize)?.as_ref()
    }

    /// Whether each selector of a joint has a series with a live value.
    pub(crate) fn is_live_throughout(&self, joint: u32, at_ms: TimestampMs, lookback_ms: i64) -> bool {
        let is_live = |slot: &Option<u32>| {
            let newest = slot.and_then(|slot| self.get(slot));
            newest.is_some_and(|newest| newest.live_value(at_ms, lookback_ms).is_some())
        };
        self.joint(joint).is_some_and(|joint| !joint.ambiguous && joint.columns.iter().all(is_live))
    }

    pub(crate) fn joint_mut(&mut self, joint: u32) -> Option<&mut Joint> {
        self.joints.get_mut(joint as usize)?.as_mut()
    }

    /// Remembers a sample if it is the newest of its series, and what it calls for.
    #[inline]
    pub(crate) fn note(
        &mut self,
        rules: &[Arc<Rule>],
        series: &Arc<WatchedSeries>,
        timestamp_ms: TimestampMs,
        value: f64,
        called: &mut Called,
    ) -> Noted {
        let slot = series.slot;
        if self.get(slot).is_none() {
            self.add(rules, series, timestamp_ms, value);
            called.slots.push(slot);
        }
        let SeriesTable { newest, joints, .. } = self;
        let Some(newest) = newest.get_mut(slot as usize).and_then(Option::as_mut) else {
            return Noted::Older;
        };
        if newest.noted {
            match newest.timestamp_ms.cmp(&timestamp_ms) {
                Ordering::Less => {}
                Ordering::Equal => return Noted::Repeated,
                Ordering::Greater => return Noted::Older,
            }
            newest.interval_ms = timestamp_ms - newest.timestamp_ms;
            newest.timestamp_ms = timestamp_ms;
            newest.value = value;
            if !newest.quiet.contains(value) || newest.near || !newest.alerts.is_empty() {
                called.slots.push(slot);
            }
        }
        newest.noted = true;
        for &number in &newest.joints {
            let Some(joint) = joints.get_mut(number as usize).and_then(Option::as_mut) else { continue };
            joint.tick_ms = joint.tick_ms.max(Some(timestamp_ms));
            if !joint.queued {
                joint.queued = true;
                called.joints.push(number);
            }
        }
        Noted::Newest
    }

    /// Takes a joint off the list of those to look at.
    pub(crate) fn unqueue(&mut self, joint: u32) {
        if let Some(joint) = self.joint_mut(joint) {
            joint.queued = false;
        }
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.newest.iter().flatten().map(|newest| newest.series.slot)
    }

    pub(crate) fn joint_numbers(&self) -> impl Iterator<Item = u32> {
        (0u32..).zip(&self.joints).filter(|(_, joint)| joint.is_some()).map(|(number, _)| number)
    }

    /// Takes in a series that was not there.
    fn add(
        &mut self,
        rules: &[Arc<Rule>],
        series: &Arc<WatchedSeries>,
        timestamp_ms: TimestampMs,
        value: f64,
    ) {
        let threshold = |rule: u32| rules.get(rule as usize).and_then(|rule| rule.threshold.as_ref());
        let singles = series.watchers.iter().filter_map(|watcher| match threshold(watcher.rule) {
            Some(Threshold::Single(comparison)) => Some(comparison),
            _ => None,
        });
        let quiet = Quiet::of(singles);
        let mut joints: Vec<u32> = Vec::new();
        for watcher in &series.watchers {
            let (key, selectors) = match threshold(watcher.rule) {
                Some(Threshold::Pointwise(pointwise)) => {
                    (series.labels.without_name(), pointwise.selectors.len())
                }
                Some(Threshold::Joined { .. }) => (series.labels.filtered(|name| name == NODE_LABEL), 0),
                _ => continue,
            };
            let number = self.join(watcher.rule, key, selectors);
            let Some(joint) = self.joint_mut(number) else { continue };
            match joint.columns.get_mut(watcher.selector as usize) {
                Some(column @ None) => *column = Some(series.slot),
                Some(Some(other)) if *other != series.slot => joint.ambiguous = true,
                _ => {}
            }
            if !joint.slots.contains(&series.slot) {
                joint.slots.push(series.slot);
            }
            if joints.last() != Some(&number) {
                joints.push(number);
            }
        }
        let slot = series.slot as usize;
        if self.newest.len() <= slot {
            self.newest.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.newest.get_mut(slot) {
            *place = Some(Newest {
                series: Arc::clone(series),
                timestamp_ms,
                value,
                interval_ms: 0,
                quiet,
                alerts: Vec::new(),
                near: false,
                joints: joints.into(),
                noted: false,
            });
        }
    }

    fn join(&mut self, rule: u32, key: Labels, selectors: usize) -> u32 {
        if let Some(&known) = self.by_key.get(&(rule, key.clone())) {
            return known;
        }
        let joint = Joint {
            rule,
            key: key.clone(),
            columns: vec![None; selectors].into(),
            slots: Vec::new(),
            ambiguous: false,
            has_alert: false,
            is_new: true,
            tick_ms: None,
            queued: false,
        };
        let number = self.free_joints.pop().unwrap_or(self.joints.len() as u32);
        match self.joints.get_mut(number as usize) {
            Some(place) => *place = Some(joint),
            None => self.joints.push(Some(joint)),
        }
        self.by_key.insert((rule, key), number);
        number
    }

    /// The joint of a rule for these labels.
    pub(crate) fn joint_of(&self, rule: u32, key: &Labels) -> Option<u32> {
        self.by_key.get(&(rule, key.clone())).copied()
    }

    /// Whether all series of a joint that are due have come in its tick.
    pub(crate) fn is_complete(&self, joint: &Joint) -> bool {
        let Some(tick_ms) = joint.tick_ms else { return true };
        let expected = joint.is_new && joint.columns.iter().any(Option::is_none);
        !expected
            && !joint.slots.iter().filter_map(|slot| self.get(*slot)).any(|newest| newest.is_due(tick_ms))
    }

    /// The value of a selector's series in a joint.
    pub(crate) fn column(
        &self,
        joint: &Joint,
        selector: usize,
        at_ms: TimestampMs,
        lookback_ms: i64,
    ) -> Option<f64> {
        self.get((*joint.columns.get(selector)?)?)?.live_value(at_ms, lookback_ms)
    }

    /// The labels of a joint with the name of a selector's series.
    pub(crate) fn named(&self, joint: &Joint, selector: Option<usize>) -> Labels {
        let slot = selector.and_then(|selector| *joint.columns.get(selector)?);
        let series = slot.and_then(|slot| self.get(slot)).map(|newest| &newest.series);
        // They share all other labels.
        series.map_or(&joint.key, |series| &series.labels).clone()
    }

    /// Whether a series of these was there and is not now.
    pub(crate) fn is_missing(&self, slots: &[u32], at_ms: TimestampMs, lookback_ms: i64) -> bool {
        slots
            .iter()
            .any(|slot| self.get(*slot).is_none_or(|newest| newest.live_value(at_ms, lookback_ms).is_none()))
    }

    /// Forgets series whose newest sample is older, unless an alert is about them.
    pub(crate) fn forget_before(&mut self, horizon_ms: TimestampMs) {
        let mut parted: Vec<(u32, Box<[u32]>)> = Vec::new();
        for index in 0..self.newest.len() {
            let Some(Some(newest)) = self.newest.get(index) else { continue };
            let in_alert = |joint: &u32| self.joint(*joint).is_some_and(|joint| joint.has_alert);
            if newest.timestamp_ms > horizon_ms
                || !newest.alerts.is_empty()
                || newest.joints.iter().any(in_alert)
            {
                continue;
            }
            newest.series.urgency.set(urgency::FAR);
            if let Some(gone) = self.newest.get_mut(index).and_then(Option::take) {
                parted.push((gone.series.slot, gone.joints));
            }
        }
        for (slot, joints) in parted {
            for number in joints {
                let Some(joint) = self.joint_mut(number) else { continue };
                joint.slots.retain(|other| *other != slot);
                for column in joint.columns.iter_mut().filter(|column| **column == Some(slot)) {
                    *column = None;
                }
                if joint.slots.is_empty()
                    && let Some(joint) = self.joints.get_mut(number as usize).and_then(Option::take)
                {
                    self.by_key.remove(&(joint.rule, joint.key));
                    self.free_joints.push(number);
                }
            }
        }
    }
}

/// The newest samples of some series, as a query sees them.
pub(crate) struct NewestOf<'a> {
    table: &'a SeriesTable,
    slots: &'a [u32],
}

impl<'a> NewestOf<'a> {
    pub(crate) fn new(table: &'a SeriesTable, slots: &'a [u32]) -> Self {
        NewestOf { table, slots }
    }
}

impl Storage for NewestOf<'_> {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let wanted = |newest: &&Newest| {
            (selection.start_ms..=selection.end_ms).contains(&newest.timestamp_ms)
                && selection.matchers.iter().all(|matcher| matcher.matches_labels(&newest.series.labels))
        };
        let mut found: Vec<&Newest> =
            self.slots.iter().filter_map(|slot| self.table.get(*slot)).filter(wanted).collect();
        found.sort_unstable_by(|a, b| a.series.labels.cmp(&b.series.labels));
        budget.take(found.len())?;
        let columns: Vec<SeriesColumns> = found
            .into_iter()
            .map(|newest| {
                let timestamps = Arc::from([newest.timestamp_ms]);
                SeriesColumns::floats(newest.series.labels.clone(), timestamps, vec![newest.value])
            })
            .collect();
        Ok(Box::new(columns.into_iter()))
    }
}

/// The labels that series of a joint share, of alerts that are taken over.
pub(crate) fn joint_key(threshold: &Threshold, found: &Labels) -> Labels {
    match threshold {
        Threshold::Joined { .. } => found.filtered(|name| name == NODE_LABEL),
        _ => found.filtered(|name| name != METRIC_NAME),
    }
}
