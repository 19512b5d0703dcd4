//! One group of alerts of one route: who is in it and when it is looked at next.
//!
//! Pure: time is an argument. Timers that the configuration writes are Alertmanager's exactly. Where it
//! writes none, seconds matter: the first notice goes at once, alerts that join follow after a gathering
//! window of 1 s that doubles up to 30 s, and the interval applies to a group that does not change.

use crate::alert::Fingerprint;
use crate::limits::{GATHER_WINDOW_FIRST, GATHER_WINDOW_MAX};
use crate::route::{RouteId, Timers};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeSet;
use std::time::Duration;

/// A group.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) route: RouteId,
    pub(crate) receiver: String,
    /// `{route}:{labels}`, as in Alertmanager: what notification log and dedup keys go by.
    pub(crate) key: String,
    pub(crate) labels: Labels,
    pub(crate) members: BTreeSet<Fingerprint>,
    timers: Timers,
    next_look_ms: TimestampMs,
    looked_before: bool,
    gather_window: Duration,
    gathering: bool,
}

impl Group {
    /// A group that its first alert just opened.
    pub(crate) fn new(
        route: RouteId,
        route_key: &str,
        receiver: &str,
        labels: Labels,
        timers: Timers,
        now_ms: TimestampMs,
    ) -> Self {
        Group {
            route,
            receiver: receiver.to_owned(),
            key: group_key(route_key, &labels),
            labels,
            members: BTreeSet::new(),
            timers,
            next_look_ms: now_ms + timers.group_wait_ms.unwrap_or(0),
            looked_before: false,
            gather_window: GATHER_WINDOW_FIRST,
            gathering: false,
        }
    }

    /// When the group is to be looked at next.
    pub(crate) fn next_look_ms(&self) -> TimestampMs {
        self.next_look_ms
    }

    /// Not before this time: what `--dispatch.start-delay` asks for.
    pub(crate) fn hold_until(&mut self, at_ms: TimestampMs) {
        self.next_look_ms = self.next_look_ms.max(at_ms);
    }

    /// An alert was reported. `changed` says whether it began or stopped to fire.
    pub(crate) fn reported(
        &mut self,
        fingerprint: Fingerprint,
        starts_at_ms: TimestampMs,
        changed: bool,
        now_ms: TimestampMs,
    ) {
        let joins = self.members.insert(fingerprint);
        if !self.looked_before {
            // An alert that has fired for longer than the wait need not wait again.
            if self.timers.group_wait_ms.is_some_and(|wait| starts_at_ms + wait < now_ms) {
                self.next_look_ms = self.next_look_ms.min(now_ms);
            }
            return;
        }
        if (joins || changed) && self.timers.group_interval_ms.is_none() && !self.gathering {
            self.gathering = true;
            let soon = now_ms + self.gather_window.as_millis() as i64;
            self.next_look_ms = self.next_look_ms.min(soon);
        }
    }

    /// Something outside the group changed what is to be told (a delivery ended, an alert timed out).
    pub(crate) fn look_by(&mut self, at_ms: TimestampMs) {
        self.next_look_ms = self.next_look_ms.min(at_ms);
    }

    /// An alert of the group will count as resolved at this time. With a written interval that is found
    /// at the next look, as in Alertmanager; without one, at once.
    pub(crate) fn ends_at(&mut self, at_ms: TimestampMs) {
        if self.timers.group_interval_ms.is_none() && self.looked_before {
            self.look_by(at_ms);
        }
    }

    /// The group is being looked at: sets the time of the next look.
    pub(crate) fn looked(&mut self, now_ms: TimestampMs) {
        if self.gathering {
            self.gather_window = (self.gather_window * 2).min(GATHER_WINDOW_MAX);
        } else if self.looked_before {
            // A whole interval without a change: the next change is news again.
            self.gather_window = GATHER_WINDOW_FIRST;
        }
        self.gathering = false;
        self.looked_before = true;
        self.next_look_ms = now_ms + self.timers.interval_ms();
    }

    /// For how long a notice of this group is retried.
    pub(crate) fn delivery_time_ms(&self) -> i64 {
        self.timers.interval_ms().max(crate::limits::DELIVERY_TIME_MIN.as_millis() as i64)
    }

    /// After how long an unchanged group is told again.
    pub(crate) fn repeat_ms(&self) -> i64 {
        self.timers.repeat_ms()
    }
}

/// `{route matchers}:{group labels}` as Alertmanager writes it.
pub(crate) fn group_key(route_key: &str, labels: &Labels) -> String {
    let mut key = format!("{route_key}:{{");
    for (index, (name, value)) in labels.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        key.push_str(&format!("{separator}{name}={}", pharos_common::labels::Quoted(value)));
    }
    key.push('}');
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(timers: Timers) -> Group {
        Group::new(RouteId(0), "{}", "a", Labels::from_pairs([("alertname", "A")]), timers, 0)
    }

    #[test]
    fn the_key_is_alertmanagers() {
        assert_eq!(group(Timers::default()).key, r#"{}:{alertname="A"}"#);
    }

    #[test]
    fn without_written_timers_the_first_notice_goes_at_once_and_joiners_gather() {
        let mut group = group(Timers::default());
        group.reported(Fingerprint(1), 0, true, 0);
        assert_eq!(group.next_look_ms(), 0);
        group.looked(0);
        assert_eq!(group.next_look_ms(), 300_000);
        let mut now = 10_000;
        for (fingerprint, window) in
            [(2, 1_000), (3, 2_000), (4, 4_000), (5, 8_000), (6, 16_000), (7, 30_000), (8, 30_000)]
        {
            group.reported(Fingerprint(fingerprint), now, true, now);
            assert_eq!(group.next_look_ms(), now + window);
            // A second joiner within the window does not move it.
            group.reported(Fingerprint(fingerprint + 100), now + 1, true, now + 1);
            assert_eq!(group.next_look_ms(), now + window);
            now += window;
            group.looked(now);
        }
        now = group.next_look_ms();
        group.looked(now);
        group.reported(Fingerprint(9), now, true, now);
        assert_eq!(group.next_look_ms(), now + 1_000);
    }

    #[test]
    fn a_resend_that_changes_nothing_moves_nothing() {
        let mut group = group(Timers::default());
        group.reported(Fingerprint(1), 0, true, 0);
        group.looked(0);
        group.reported(Fingerprint(1), 0, false, 60_000);
        assert_eq!(group.next_look_ms(), 300_000);
    }

    #[test]
    fn written_timers_are_kept_exactly() {
        let mut group = group(Timers {
            group_wait_ms: Some(30_000),
            group_interval_ms: Some(60_000),
            repeat_interval_ms: None,
        });
        group.reported(Fingerprint(1), 0, true, 0);
        assert_eq!(group.next_look_ms(), 30_000);
        group.looked(30_000);
        group.reported(Fingerprint(2), 31_000, true, 31_000);
        assert_eq!(group.next_look_ms(), 90_000);
    }

    #[test]
    fn an_alert_older_than_the_wait_does_not_wait() {
        let mut group = group(Timers { group_wait_ms: Some(30_000), ..Timers::default() });
        group.reported(Fingerprint(1), -40_000, true, 0);
        assert_eq!(group.next_look_ms(), 0);
    }
}
