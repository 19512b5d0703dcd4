//! What the judge tells: series of alerts to be written, and alerts to be sent while the alertmanagers have room.
//!
//! Changes flow in as samples and deadlines bring them about. An alert that finds no room is not dropped: it stays due
//! where it is kept anyway, so a storm takes no more memory for waiting, and goes out when there is room.

use super::alert_series;
use super::alert_state::Alert;
use super::judge::Judge;
use super::rule::Rule;
use pharos_common::sample::TimestampMs;

/// Samples of series of alerts that are written together, about.
const SERIES_PER_BATCH: usize = 4_096;

impl Judge {
    /// Writes and sends what follows from changes. What finds no room at the alertmanagers stays due.
    pub(super) fn publish(&mut self, now_ms: TimestampMs) {
        if self.changed.is_empty() {
            return;
        }
        let (mut series, mut notices) = (Vec::new(), Vec::new());
        let room = self.context.notifier.room();
        for (number, changes) in self.changed.drain() {
            let Some(rule) = self.table.rules.get(number as usize) else { continue };
            series.extend(alert_series::of_changes(&changes, now_ms));
            let due = rule.state().alerts.take_changed(&changes, now_ms, room - notices.len());
            notices.extend(self.context.notices(rule, due, now_ms));
        }
        self.is_crowded |= room > 0 && notices.len() == room;
        self.context.write(series);
        self.context.notifier.send(notices);
    }

    /// Keeps the series of alerts alive and sends what is due: first what nobody was told of, then reminders, each
    /// time from the rule on that found no room the time before.
    pub fn refresh(&mut self, write_series: bool) {
        let now_ms = self.context.clock.now_ms();
        let mut room = self.context.notifier.room();
        // One that takes nothing is asked no more often than else.
        let is_open = room > 0;
        let mut series = Vec::new();
        for rule in &self.table.rules {
            let mut state = rule.state();
            if state.last_error.is_empty() {
                // What arrived by now was judged, also where nothing was to be said.
                state.last_evaluation_ms = Some(now_ms);
            }
            if state.alerts.is_empty() {
                continue;
            }
            if write_series {
                series.extend(alert_series::of_active(state.alerts.active(), now_ms));
            }
            let due = state.alerts.take_untold(now_ms, room);
            drop(state);
            room -= due.len();
            self.send(rule, due, now_ms);
            if series.len() >= SERIES_PER_BATCH {
                self.context.write(std::mem::take(&mut series));
            }
        }
        self.context.write(series);
        self.is_crowded = is_open && room == 0;
        let count = self.table.rules.len();
        let first = std::mem::take(&mut self.remind_from);
        for at in (first..count).chain(0..first.min(count)) {
            if room == 0 {
                self.remind_from = at;
                break;
            }
            let Some(rule) = self.table.rules.get(at) else { continue };
            let mut state = rule.state();
            if state.alerts.is_empty() {
                continue;
            }
            let due = state.alerts.take_due(now_ms, room);
            drop(state);
            room -= due.len();
            self.send(rule, due, now_ms);
        }
    }

    /// Whether the room at the alertmanagers was used up, so that [`Judge::refresh`] is wanted soon.
    pub fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    fn send(&self, rule: &Rule, mut due: Vec<Alert>, now_ms: TimestampMs) {
        for alert in &mut due {
            rule.write_texts(&self.context, alert);
        }
        self.context.send(rule, due, now_ms);
    }
}
