//! Life of a rule's alerts: pending, firing, resolved. Pure: time comes in as an argument.
//!
//! What an expression found flows in, per *subject* (the series or node that was judged; one subject for
//! rules that are evaluated as a whole). Changes of phase and alerts that are due to be sent flow out.
//! The rules are Prometheus': an alert fires once it has been active for `for`, stays while
//! `keep_firing_for` runs, and is remembered for 15 minutes after it resolved.

use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::HashMap;

/// How long a resolved alert is remembered and sent again.
pub const RESOLVED_RETENTION_MS: i64 = 15 * 60_000;

/// How often an alert is sent again.
pub const RESEND_DELAY_MS: i64 = 60_000;

/// How long a rule may keep an alert whose data is missing: as long as a lost node is expected back.
pub const MISSING_KEPT_MS_MAX: i64 = 24 * 3_600_000;

/// Subjects from here on are nobody's: alerts of before a restart or reload whose series are not there.
/// Whoever finds the same alert takes it over.
pub const ORPHANS_FROM: u64 = 1 << 63;

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// True, but not for long enough.
    Pending,
    /// True for long enough, or kept firing.
    Firing,
    /// Over.
    Resolved,
}

impl Phase {
    /// As in `ALERTS{alertstate=…}` and in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "pending",
            Phase::Firing => "firing",
            Phase::Resolved => "inactive",
        }
    }
}

/// The times of a rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Holds {
    /// `for`
    pub hold_ms: i64,
    /// `keep_firing_for`
    pub keep_firing_ms: i64,
}

/// One thing that an expression found to be true.
#[derive(Clone, Debug)]
pub struct Breach {
    /// The labels that the expression found, the metric's name among them where it has one.
    pub found: Labels,
    /// The alert's labels, `alertname` among them.
    pub labels: Labels,
    /// The alert's annotations, sorted by name.
    pub annotations: Vec<(String, String)>,
    /// The value found.
    pub value: f64,
}

/// When an alert's last change came about, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// When the sample was taken that decided it.
    pub sampled_ms: TimestampMs,
    /// When it arrived here; `None` if time decided and not a sample.
    pub received_ms: Option<TimestampMs>,
    /// When it was durable, once that is known.
    pub durable_ms: Option<TimestampMs>,
    /// When the rule was judged.
    pub decided_ms: TimestampMs,
}

/// One alert of a rule.
#[derive(Clone, Debug)]
pub struct Alert {
    /// The labels that the expression found, the metric's name among them where it has one.
    pub found: Labels,
    /// What names it.
    pub labels: Labels,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// Where it stands.
    pub phase: Phase,
    /// The value last found.
    pub value: f64,
    /// Since when the expression is true.
    pub active_at_ms: TimestampMs,
    /// Since when it fires.
    pub fired_at_ms: Option<TimestampMs>,
    /// When it resolved.
    pub resolved_at_ms: Option<TimestampMs>,
    /// Since when `keep_firing_for` alone keeps it.
    pub keep_firing_since_ms: Option<TimestampMs>,
    /// Since when its data is missing, of a rule that keeps such alerts.
    pub missing_since_ms: Option<TimestampMs>,
    /// How its last change of phase came about.
    pub timeline: Option<Timeline>,
    /// Whether the value changed since the annotations were written.
    pub texts_outdated: bool,
    last_sent_ms: Option<TimestampMs>,
    subject: u64,
}

impl Alert {
    /// Whether it is to be sent now: it fires or has just resolved, and was not sent for a minute.
    fn needs_sending(&self, now_ms: TimestampMs, resend_delay_ms: i64) -> bool {
        if self.phase == Phase::Pending {
            return false;
        }
        self.last_sent_ms.is_none_or(|sent| now_ms - sent >= resend_delay_ms)
    }
}

/// What is known of an alert from before a restart.
#[derive(Clone, Copy, Debug)]
pub struct Remembered {
    /// Since when it was active then.
    pub active_at_ms: TimestampMs,
    /// When that was last written down.
    pub seen_at_ms: TimestampMs,
    /// Whether several rules may have raised it, so that none of them alone can say that it is over.
    pub is_shared: bool,
}

/// Two things found have the same labels once the rule's labels are applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vector contains metrics with the same labelset after applying alert labels")]
pub struct DuplicateAlert(pub Labels);

/// An alert whose phase changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// What names it.
    pub labels: Labels,
    /// The phase it left; `None` if it is new.
    pub from: Option<Phase>,
    /// The phase it is in.
    pub to: Phase,
    /// Since when it is active.
    pub active_at_ms: TimestampMs,
}

/// All alerts of one rule.
#[derive(Clone, Debug, Default)]
pub struct ActiveAlerts {
    by_labels: HashMap<Labels, Alert>,
    by_subject: HashMap<u64, Vec<Labels>>,
    /// From before a restart, by the alert's labels; each is used once.
    remembered: HashMap<Labels, Remembered>,
}

impl ActiveAlerts {
    /// Gives what `ALERTS_FOR_STATE` tells of the time before a restart.
    pub fn remember(&mut self, labels: Labels, remembered: Remembered) {
        self.remembered.insert(labels, remembered);
    }

    /// Forgets what was remembered and not used by now. What fired then and was not found again has
    /// resolved meanwhile: it becomes a resolved alert, so that the alertmanagers learn of it.
    /// Those that another rule `has` go on there. Gives the alerts that ended.
    pub fn forget_remembered(
        &mut self,
        now_ms: TimestampMs,
        holds: Holds,
        has: impl Fn(&Labels) -> bool,
    ) -> Vec<Labels> {
        let mut ended = Vec::new();
        for (labels, before) in std::mem::take(&mut self.remembered) {
            if has(&labels) || self.by_labels.contains_key(&labels) {
                continue;
            }
            if self.insert_ended(&labels, before, now_ms, holds) {
                ended.push(labels);
            }
        }
        ended
    }

    /// Whether something is remembered that was neither found again nor ended.
    pub fn has_remembered(&self) -> bool {
        !self.remembered.is_empty()
    }

    /// What was remembered under these labels is over by now: if it fired, it becomes a resolved alert, so that
    /// the alertmanagers learn of it.
    pub fn end_remembered(&mut self, labels: &Labels, now_ms: TimestampMs, holds: Holds) {
        let Some(before) = self.remembered.remove(labels) else { return };
        if !before.is_shared && !self.by_labels.contains_key(labels) {
            self.insert_ended(labels, before, now_ms, holds);
        }
    }

    /// Puts a resolved alert in place of one of before the restart that fired; whether it did.
    fn insert_ended(
        &mut self,
        labels: &Labels,
        before: Remembered,
        now_ms: TimestampMs,
        holds: Holds,
    ) -> bool {
        if before.seen_at_ms - before.active_at_ms < holds.hold_ms {
            return false;
        }
        let subject = (ORPHANS_FROM..=u64::MAX).rev().find(|subject| !self.by_subject.contains_key(subject));
        let breach =
            Breach { found: labels.clone(), labels: labels.clone(), annotations: Vec::new(), value: 0.0 };
        self.insert(subject.unwrap_or(u64::MAX), breach, before.active_at_ms);
        if let Some(alert) = self.by_labels.get_mut(labels) {
            alert.phase = Phase::Resolved;
            alert.fired_at_ms = Some(before.active_at_ms + holds.hold_ms);
            alert.resolved_at_ms = Some(now_ms);
        }
        true
    }

    /// Makes what is remembered an alert again, as if its data were missing: for rules that keep alerts
    /// then. `subject` gives each its subject, `found` what the expression must have found.
    pub fn keep_remembered(
        &mut self,
        now_ms: TimestampMs,
        holds: Holds,
        subject: impl Fn(u64) -> u64,
        found: impl Fn(&Labels) -> Labels,
    ) {
        for (index, (labels, before)) in (0u64..).zip(std::mem::take(&mut self.remembered)) {
            if self.by_labels.contains_key(&labels) {
                continue;
            }
            let breach = Breach {
                found: found(&labels),
                labels: labels.clone(),
                annotations: Vec::new(),
                value: f64::NAN,
            };
            self.insert(subject(index), breach, before.active_at_ms);
            if let Some(alert) = self.by_labels.get_mut(&labels) {
                alert.missing_since_ms = Some(now_ms);
                alert.texts_outdated = true;
                if before.seen_at_ms - before.active_at_ms >= holds.hold_ms {
                    alert.phase = Phase::Firing;
                    alert.fired_at_ms = Some(before.active_at_ms + holds.hold_ms);
                }
            }
        }
    }

    /// Whether alerts of nobody are among them.
    pub fn has_orphans(&self) -> bool {
        self.by_subject.keys().any(|&subject| subject >= ORPHANS_FROM)
    }

    /// The subject of nobody that has this alert.
    pub fn orphan(&self, labels: &Labels) -> Option<u64> {
        self.by_labels.get(labels).map(|alert| alert.subject).filter(|&subject| subject >= ORPHANS_FROM)
    }

    /// The usual case, cheaply: a subject's one alert goes on with this value. `false` if anything else is
    /// to be decided. `steady` tells that the alert's labels do not depend on the value.
    pub fn touch(
        &mut self,
        subject: u64,
        value: f64,
        steady: bool,
        now_ms: TimestampMs,
        holds: Holds,
    ) -> bool {
        let Some([labels]) = self.by_subject.get(&subject).map(Vec::as_slice) else { return false };
        let Some(alert) = self.by_labels.get_mut(labels) else { return false };
        let settled = match alert.phase {
            Phase::Pending => now_ms - alert.active_at_ms < holds.hold_ms,
            Phase::Firing => alert.keep_firing_since_ms.is_none(),
            Phase::Resolved => false,
        };
        let same = alert.value.to_bits() == value.to_bits();
        if !settled || alert.missing_since_ms.is_some() || !(same || steady) {
            return false;
        }
        if !same {
            alert.value = value;
            alert.texts_outdated = true;
        }
        true
    }

    /// Writes annotations again whose value changed.
    pub fn refresh_texts(&mut self, mut write: impl FnMut(&Labels, f64) -> Vec<(String, String)>) {
        for alert in self.by_labels.values_mut().filter(|alert| alert.texts_outdated) {
            alert.annotations = write(&alert.found, alert.value);
            alert.texts_outdated = false;
        }
    }

    /// Notes how changes of phase came about.
    pub fn set_timeline(&mut self, changes: &[Change], timeline: Timeline) {
        for change in changes.iter().filter(|change| change.to != Phase::Pending) {
            if let Some(alert) = self.by_labels.get_mut(&change.labels) {
                alert.timeline = Some(timeline);
            }
        }
    }

    /// Notes when the sample was durable that decided an alert.
    pub fn set_durable(&mut self, labels: &Labels, decided_ms: TimestampMs, durable_ms: TimestampMs) {
        let timeline = self.by_labels.get_mut(labels).and_then(|alert| alert.timeline.as_mut());
        if let Some(timeline) = timeline.filter(|timeline| timeline.decided_ms == decided_ms) {
            timeline.durable_ms = Some(durable_ms);
        }
    }

    /// Takes the alerts away from their subjects; each must be adopted again.
    pub fn take_subjects(&mut self) -> Vec<(u64, Labels)> {
        let subjects = std::mem::take(&mut self.by_subject);
        subjects
            .into_iter()
            .flat_map(|(subject, of)| of.into_iter().map(move |labels| (subject, labels)))
            .collect()
    }

    /// Gives all alerts to one subject.
    pub fn give_all_to(&mut self, subject: u64) {
        for (_, labels) in self.take_subjects() {
            self.adopt(subject, &labels);
        }
    }

    /// Has all annotations written again: there are others now.
    pub fn outdate_texts(&mut self) {
        self.by_labels.values_mut().for_each(|alert| alert.texts_outdated = true);
    }

    /// Gives an alert to a subject.
    pub fn adopt(&mut self, subject: u64, labels: &Labels) {
        if let Some(alert) = self.by_labels.get_mut(labels) {
            alert.subject = subject;
            self.by_subject.entry(subject).or_default().push(labels.clone());
        }
    }

    /// What the expression found when it raised an alert.
    pub fn found(&self, labels: &Labels) -> Option<Labels> {
        self.by_labels.get(labels).map(|alert| alert.found.clone())
    }

    /// The same of the one alert of a subject; `None` if it has none or several.
    pub fn found_alone(&self, subject: u64) -> Option<&Labels> {
        let [labels] = self.by_subject.get(&subject)?.as_slice() else { return None };
        self.by_labels.get(labels).map(|alert| &alert.found)
    }

    /// Whether there is no alert at all.
    pub fn is_empty(&self) -> bool {
        self.by_labels.is_empty()
    }

    /// Whether a subject has an alert, resolved ones included.
    pub fn has_subject(&self, subject: u64) -> bool {
        self.by_subject.contains_key(&subject)
    }

    /// All subjects that have an alert.
    pub fn subjects(&self) -> impl Iterator<Item = u64> {
        self.by_subject.keys().copied()
    }

    /// All alerts, resolved ones included.
    pub fn iter(&self) -> impl Iterator<Item = &Alert> {
        self.by_labels.values()
    }

    /// Alerts that are pending or fire.
    pub fn active(&self) -> impl Iterator<Item = &Alert> {
        self.iter().filter(|alert| alert.phase != Phase::Resolved)
    }

    /// The subject of each alert that is pending or fires.
    pub fn active_subjects(&self) -> impl Iterator<Item = u64> {
        self.active().map(|alert| alert.subject)
    }

    /// Number of alerts that are pending or fire.
    pub fn active_count(&self) -> usize {
        self.active().count()
    }

    /// Drops everything, as when a rule finds more than its limit.
    pub fn clear(&mut self) -> Vec<Labels> {
        self.by_subject.clear();
        self.by_labels.drain().map(|(labels, _)| labels).collect()
    }

    /// Takes what was found for a subject in data of `sampled_ms`, judged at `now_ms`. What the subject
    /// had before and is not among `breaches` is over.
    ///
    /// # Errors
    /// If two breaches have the same labels, or one belongs to another subject; nothing is changed then.
    pub fn judge(
        &mut self,
        subject: u64,
        breaches: Vec<Breach>,
        sampled_ms: TimestampMs,
        now_ms: TimestampMs,
        holds: Holds,
    ) -> Result<Vec<Change>, DuplicateAlert> {
        self.judge_unless_missing(subject, breaches, sampled_ms, now_ms, holds, |_| false)
    }

    /// The same for rules that keep an alert while its data is missing: what is not among `breaches` stays
    /// as it is where `is_missing`, for [`MISSING_KEPT_MS_MAX`].
    ///
    /// # Errors
    /// As [`ActiveAlerts::judge`].
    pub fn judge_unless_missing(
        &mut self,
        subject: u64,
        breaches: Vec<Breach>,
        sampled_ms: TimestampMs,
        now_ms: TimestampMs,
        holds: Holds,
        is_missing: impl Fn(&Alert) -> bool,
    ) -> Result<Vec<Change>, DuplicateAlert> {
        self.refuse_duplicates(subject, &breaches)?;
        let mut changes = Vec::new();
        let mut present: Vec<Labels> = Vec::with_capacity(breaches.len());
        for breach in breaches {
            present.push(breach.labels.clone());
            self.take_breach(subject, breach, sampled_ms.min(now_ms), now_ms, holds, &mut changes);
        }
        let Some(of_subject) = self.by_subject.get_mut(&subject) else { return Ok(changes) };
        let by_labels = &mut self.by_labels;
        of_subject.retain(|labels| {
            let Some(alert) = by_labels.get_mut(labels) else { return false };
            let from = alert.phase;
            let keep = if present.contains(labels) {
                alert.keep_firing_since_ms = None;
                alert.missing_since_ms = None;
                true
            } else if alert.phase != Phase::Resolved
                && is_missing(alert)
                && now_ms - *alert.missing_since_ms.get_or_insert(now_ms) < MISSING_KEPT_MS_MAX
            {
                return true;
            } else {
                absent(alert, now_ms, holds)
            };
            if alert.phase == Phase::Pending && now_ms - alert.active_at_ms >= holds.hold_ms && keep {
                alert.phase = Phase::Firing;
                alert.fired_at_ms.get_or_insert(now_ms);
                alert.last_sent_ms = None;
            }
            let to = if keep { alert.phase } else { Phase::Resolved };
            if from != to {
                changes.push(Change {
                    labels: labels.clone(),
                    from: Some(from),
                    to,
                    active_at_ms: alert.active_at_ms,
                });
            }
            if !keep {
                by_labels.remove(labels);
            }
            keep
        });
        if of_subject.is_empty() {
            self.by_subject.remove(&subject);
        }
        Ok(changes)
    }

    fn refuse_duplicates(&self, subject: u64, breaches: &[Breach]) -> Result<(), DuplicateAlert> {
        let mut seen = std::collections::HashSet::with_capacity(breaches.len());
        for breach in breaches {
            let foreign = self.by_labels.get(&breach.labels).is_some_and(|alert| {
                alert.subject != subject && alert.phase != Phase::Resolved && alert.subject < ORPHANS_FROM
            });
            if foreign || !seen.insert(&breach.labels) {
                return Err(DuplicateAlert(breach.labels.clone()));
            }
        }
        Ok(())
    }

    fn take_breach(
        &mut self,
        subject: u64,
        breach: Breach,
        active_at_ms: TimestampMs,
        now_ms: TimestampMs,
        holds: Holds,
        changes: &mut Vec<Change>,
    ) {
        if let Some(alert) = self.by_labels.get_mut(&breach.labels)
            && alert.phase != Phase::Resolved
        {
            alert.value = breach.value;
            alert.found = breach.found;
            alert.annotations = breach.annotations;
            alert.texts_outdated = false;
            if alert.subject != subject {
                let orphan = std::mem::replace(&mut alert.subject, subject);
                self.disown(orphan, &breach.labels);
                self.by_subject.entry(subject).or_default().push(breach.labels);
            }
            return;
        }
        let mut fired_at_ms = None;
        let active_at_ms = match self.remembered.remove(&breach.labels) {
            None => active_at_ms,
            Some(before) if before.seen_at_ms - before.active_at_ms >= holds.hold_ms => {
                fired_at_ms = Some(before.active_at_ms + holds.hold_ms);
                before.active_at_ms
            }
            // It was pending. The time in between is not known to have been a breach, so it does not count.
            Some(before) => before.active_at_ms + (now_ms - before.seen_at_ms).max(0),
        };
        let labels = breach.labels.clone();
        self.insert(subject, breach, active_at_ms);
        if let Some(alert) = self.by_labels.get_mut(&labels) {
            // One that fired before a restart goes on under the same start, so nobody is told twice.
            alert.fired_at_ms = fired_at_ms;
        }
        changes.push(Change { labels, from: None, to: Phase::Pending, active_at_ms });
    }

    /// Puts a pending alert in place, also of one that has resolved.
    fn insert(&mut self, subject: u64, breach: Breach, active_at_ms: TimestampMs) {
        let before = self.by_labels.insert(
            breach.labels.clone(),
            Alert {
                found: breach.found,
                labels: breach.labels.clone(),
                annotations: breach.annotations,
                phase: Phase::Pending,
                value: breach.value,
                active_at_ms,
                fired_at_ms: None,
                resolved_at_ms: None,
                keep_firing_since_ms: None,
                missing_since_ms: None,
                timeline: None,
                texts_outdated: false,
                last_sent_ms: None,
                subject,
            },
        );
        if let Some(before) = before
            && before.subject != subject
        {
            self.disown(before.subject, &breach.labels);
        }
        let of_subject = self.by_subject.entry(subject).or_default();
        if !of_subject.contains(&breach.labels) {
            of_subject.push(breach.labels);
        }
    }

    fn disown(&mut self, subject: u64, labels: &Labels) {
        if let Some(of_subject) = self.by_subject.get_mut(&subject) {
            of_subject.retain(|other| other != labels);
            if of_subject.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
    }

    /// When a subject must be judged again although no sample may come: the end of `for`, of
    /// `keep_firing_for`, or of the time for which a resolved alert is remembered.
    pub fn next_deadline_ms(&self, subject: u64, holds: Holds) -> Option<TimestampMs> {
        self.by_subject
            .get(&subject)?
            .iter()
            .filter_map(|labels| self.by_labels.get(labels))
            .filter_map(|alert| match alert.phase {
                Phase::Pending | Phase::Firing if alert.missing_since_ms.is_some() => {
                    alert.missing_since_ms.map(|since| since + MISSING_KEPT_MS_MAX)
                }
                Phase::Pending => Some(alert.active_at_ms + holds.hold_ms),
                Phase::Firing => alert.keep_firing_since_ms.map(|since| since + holds.keep_firing_ms),
                Phase::Resolved => alert.resolved_at_ms.map(|at| at + RESOLVED_RETENTION_MS + 1),
            })
            .min()
    }

    /// Alerts to send now, at most `room`: those of which nobody was told before those that are told again, and
    /// of these the longest ago. They count as sent; the others are due as before.
    pub fn take_due(&mut self, now_ms: TimestampMs, room: usize) -> Vec<Alert> {
        self.drop_remote(now_ms);
        self.take_due_of(now_ms, room, |_| true)
    }

    /// The same of those only whose last change nobody was told of.
    pub fn take_untold(&mut self, now_ms: TimestampMs, room: usize) -> Vec<Alert> {
        self.take_due_of(now_ms, room, |alert| alert.last_sent_ms.is_none())
    }

    fn take_due_of(&mut self, now_ms: TimestampMs, room: usize, of: impl Fn(&Alert) -> bool) -> Vec<Alert> {
        let is_due = |alert: &&mut Alert| of(alert) && alert.needs_sending(now_ms, RESEND_DELAY_MS);
        let mut due: Vec<&mut Alert> = self.by_labels.values_mut().filter(is_due).collect();
        if due.len() > room {
            due.sort_unstable_by_key(|alert| alert.last_sent_ms);
            due.truncate(room);
        }
        let mut due: Vec<Alert> = due
            .into_iter()
            .map(|alert| {
                alert.last_sent_ms = Some(now_ms);
                alert.clone()
            })
            .collect();
        due.sort_by(|a, b| a.labels.cmp(&b.labels));
        due
    }

    /// Drops resolved alerts that were told for long enough and whose subject nobody judges.
    fn drop_remote(&mut self, now_ms: TimestampMs) {
        let told = |alert: &Alert| alert.resolved_at_ms.is_some_and(|at| now_ms - at > RESOLVED_RETENTION_MS);
        let told: Vec<(u64, Labels)> = self
            .by_labels
            .values()
            .filter(|alert| alert.subject >= ORPHANS_FROM && told(alert))
            .map(|alert| (alert.subject, alert.labels.clone()))
            .collect();
        for (subject, labels) in told {
            self.by_labels.remove(&labels);
            self.disown(subject, &labels);
        }
    }

    /// Those among the changed ones that are to be sent now, at most `room`; they count as sent.
    pub fn take_changed(&mut self, changes: &[Change], now_ms: TimestampMs, room: usize) -> Vec<Alert> {
        let mut due = Vec::with_capacity(changes.len().min(room));
        for change in changes {
            if due.len() >= room {
                break;
            }
            due.extend(self.by_labels.get_mut(&change.labels).and_then(|alert| take_if_due(alert, now_ms)));
        }
        due
    }
}

fn take_if_due(alert: &mut Alert, now_ms: TimestampMs) -> Option<Alert> {
    alert.needs_sending(now_ms, RESEND_DELAY_MS).then(|| {
        alert.last_sent_ms = Some(now_ms);
        alert.clone()
    })
}

/// The expression is not true for this alert (any more). Says whether the alert stays in the list.
fn absent(alert: &mut Alert, now_ms: TimestampMs, holds: Holds) -> bool {
    match alert.phase {
        Phase::Pending => false,
        Phase::Firing => {
            if holds.keep_firing_ms > 0 {
                let since = *alert.keep_firing_since_ms.get_or_insert(now_ms);
                if now_ms - since < holds.keep_firing_ms {
                    return true;
                }
            }
            alert.phase = Phase::Resolved;
            alert.resolved_at_ms = Some(now_ms);
            alert.last_sent_ms = None;
            true
        }
        Phase::Resolved => alert.resolved_at_ms.is_some_and(|at| now_ms - at <= RESOLVED_RETENTION_MS),
    }
}

#[cfg(test)]
#[path = "alert_state_tests.rs"]
mod tests;
