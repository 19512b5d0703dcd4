//! Rules that would have more alerts than their `limit:`.
//!
//! As in Prometheus such a rule fails and has no alerts at all. There all of it is evaluated anew each time; here a
//! sample at a time is judged, so how many alerts each subject would have is counted until there are few enough.

use super::alert_state::ActiveAlerts;
use super::judge::{Judge, Moment, Subject};
use super::rule::Rule;
use foldhash::HashMap;
use std::time::Duration;

/// Why a rule with too many alerts fails, in Prometheus' words.
pub(super) fn exceeded(rule: &Rule, active: usize) -> String {
    format!("exceeded limit of {} with {active} alerts", rule.limit)
}

/// How many alerts each subject has.
pub(super) fn counts_by_subject(alerts: &ActiveAlerts) -> HashMap<u64, usize> {
    let mut counts: HashMap<u64, usize> = HashMap::default();
    for subject in alerts.active_subjects() {
        *counts.entry(subject).or_default() += 1;
    }
    counts
}

impl Judge {
    /// What a finding means for a rule that has more alerts than its limit; `None` if it has not, or not any more.
    pub(super) fn stays_over_limit(
        &mut self,
        rule: &Rule,
        subject: Subject,
        found: usize,
        moment: Moment,
    ) -> Option<bool> {
        let counts = self.over_limit.get_mut(&subject.0)?;
        match found {
            0 => counts.remove(&subject.1),
            _ => counts.insert(subject.1, found),
        };
        let active: usize = counts.values().sum();
        if active > rule.limit {
            rule.state().evaluated(moment.now_ms, Duration::ZERO, Some(exceeded(rule, active)));
            return Some(found > 0);
        }
        // Few enough: the others have their alerts now, and this one after them.
        let others: Vec<u64> = counts.keys().copied().filter(|other| *other != subject.1).collect();
        self.over_limit.remove(&subject.0);
        for other in others {
            self.judge_subject((subject.0, other), moment);
        }
        None
    }
}
