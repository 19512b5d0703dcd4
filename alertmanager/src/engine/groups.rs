//! Groups: alerts join them, due ones pass the pipeline, deliveries report back.

use super::{Engine, InFlight, State, Work};
use crate::alert::Alert;
use crate::config::Settings;
use crate::delivery::{Delivery, Origin, Outcome};
use crate::group::Group;
use crate::limits;
use crate::notification_log::{LogEntry, NotifyKey};
use crate::notify::notice::{Notice, NoticeAlert, NoticeKind, group_dedup_key};
use crate::pipeline::{self, Send};
use crate::route::RouteId;
use crate::stages::{Reason, View};
use crate::state::Kind;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;

impl Engine {
    /// Puts an alert into the groups of its routes.
    pub(super) fn join_groups(
        &self,
        state: &mut State,
        settings: &Settings,
        alert: &Alert,
        changed: bool,
        now_ms: TimestampMs,
    ) {
        let resolved = alert.is_resolved_at(now_ms);
        for id in settings.routes.matching(&alert.labels) {
            let Some(route) = settings.routes.get(id) else { continue };
            let place = (id, route.group_by.group_labels(&alert.labels));
            if !state.groups.contains_key(&place) {
                // An alert that is over opens no group, unless somebody was told that it fires.
                if resolved && !was_told(state, route.key.as_str(), &place.1, alert) {
                    continue;
                }
                if state.groups.len() >= limits::GROUPS_MAX {
                    tracing::error!(groups = state.groups.len(), alert = %alert.labels, "Too many groups: an alert is not told of");
                    continue;
                }
                let mut group =
                    Group::new(id, &route.key, &route.receiver, place.1.clone(), route.timers, now_ms);
                group.hold_until(self.quiet_until_ms);
                state.groups.insert(place.clone(), group);
            }
            if let Some(group) = state.groups.get_mut(&place) {
                group.reported(alert.fingerprint(), alert.starts_at_ms, changed, now_ms);
                if !resolved {
                    group.ends_at(alert.ends_at_ms);
                }
            }
        }
    }

    /// Passes the groups that are due through the pipeline.
    pub(super) fn tick_groups(
        &self,
        state: &mut State,
        settings: &Settings,
        now_ms: TimestampMs,
        work: &mut Work,
    ) {
        let due: Vec<(RouteId, Labels)> = state
            .groups
            .iter()
            .filter(|(_, group)| group.next_look_ms() <= now_ms)
            .map(|(place, _)| place.clone())
            .collect();
        for place in due {
            self.look_at(state, settings, &place, now_ms, work);
        }
        for group in state.groups.values() {
            work.wake_at(group.next_look_ms());
        }
    }

    fn look_at(
        &self,
        state: &mut State,
        settings: &Settings,
        place: &(RouteId, Labels),
        now_ms: TimestampMs,
        work: &mut Work,
    ) {
        let Some(outcome) = flush(state, settings, place, now_ms) else { return };
        for (reason, alerts) in &outcome.dropped {
            self.metrics.dropped(*reason, *alerts);
        }
        let passed_over = outcome.dropped.iter().any(|(reason, _)| *reason == Reason::InFlight);
        if passed_over {
            let key = state.groups.get(place).map(|group| group.key.clone()).unwrap_or_default();
            for (_, entry) in state.in_flight.iter_mut().filter(|(known, _)| known.group == key) {
                entry.passed_over = true;
            }
        }
        let quiet = outcome.sends.is_empty() && !passed_over;
        for (key, resolved) in outcome.ended_unsaid {
            let Some(mut entry) = state.log.get(&key).cloned() else { continue };
            entry.firing.clear();
            entry.resolved = resolved;
            self.store.put(Kind::NotificationLog, key.to_bytes(), &entry);
            state.log.put(key, entry);
        }
        for send in outcome.sends {
            let Some(group) = state.groups.get(place) else { continue };
            let delivery = self.route_delivery(group, &send, state.log.get(&send.key), now_ms);
            let entry = InFlight { firing: send.firing, passed_over: false };
            state.in_flight.insert(send.key, entry);
            work.deliveries.push(delivery);
        }
        let ends: Option<TimestampMs> = state.groups.get(place).and_then(|group| {
            let members = group.members.iter().filter_map(|&member| state.alerts.get(member));
            members.map(|alert| alert.ends_at_ms).filter(|&end| end > now_ms).min()
        });
        if let Some(group) = state.groups.get_mut(place) {
            group.looked(now_ms);
            if let Some(end) = ends {
                group.ends_at(end);
            }
        }
        if quiet {
            prune(state, place, &outcome.resolved);
        }
    }

    fn route_delivery(
        &self,
        group: &Group,
        send: &Send,
        known: Option<&LogEntry>,
        now_ms: TimestampMs,
    ) -> Delivery {
        let resolved = send.firing.is_empty();
        let alerts = send.members.iter().map(|member| NoticeAlert {
            resolved: member.alert.is_resolved_at(now_ms),
            alert: member.alert.clone(),
        });
        let notice = Notice {
            kind: if resolved { NoticeKind::Resolved } else { NoticeKind::Firing },
            receiver: group.receiver.clone(),
            group_key: group.key.clone(),
            group_labels: group.labels.clone(),
            dedup_key: group_dedup_key(&group.key),
            alerts: alerts.collect(),
            reason: send.news.as_str(),
            tier: None,
            receipt: known.and_then(|entry| entry.receipt.clone()),
            acknowledged: None,
            sequence: known.map_or(0, |entry| entry.at_ms),
        };
        let entry = LogEntry {
            firing: send.firing.clone(),
            resolved: send.resolved.clone(),
            at_ms: now_ms,
            expires_at_ms: now_ms + 2 * group.repeat_ms().max(self.retention_ms / 2),
            receipt: known.and_then(|entry| entry.receipt.clone()),
        };
        Delivery {
            origin: Origin::Route {
                place: (group.route, group.labels.clone()),
                key: send.key.clone(),
                entry,
            },
            receiver: group.receiver.clone(),
            integration: send.integration.clone(),
            notice,
            time_max_ms: group.delivery_time_ms(),
        }
    }

    /// A route's notice was delivered or given up.
    pub(crate) fn route_delivered(
        &self,
        place: &(RouteId, Labels),
        key: NotifyKey,
        mut entry: LogEntry,
        outcome: Outcome,
    ) {
        let now_ms = self.now_ms();
        let settings = self.settings.load_full();
        let mut state = self.lock();
        let in_flight = state.in_flight.remove(&key);
        if let Outcome::Delivered(receipt) = outcome {
            entry.receipt = receipt.or(entry.receipt);
            self.store.put(Kind::NotificationLog, key.to_bytes(), &entry);
            state.log.put(key, entry);
        }
        if in_flight.is_some_and(|entry| entry.passed_over) {
            if let Some(group) = state.groups.get_mut(place) {
                group.look_by(now_ms);
            }
        } else if let Some(outcome) = flush(&state, &settings, place, now_ms) {
            let busy = outcome.dropped.iter().any(|(reason, _)| *reason == Reason::InFlight);
            if !outcome.ended_unsaid.is_empty() {
                if let Some(group) = state.groups.get_mut(place) {
                    group.look_by(now_ms);
                }
            } else if outcome.sends.is_empty() && !busy {
                prune(&mut state, place, &outcome.resolved);
            }
        }
        drop(state);
        self.wake();
    }
}

/// Shows a group and the world to the pipeline.
fn flush(
    state: &State,
    settings: &Settings,
    place: &(RouteId, Labels),
    now_ms: TimestampMs,
) -> Option<pipeline::Outcome> {
    let group = state.groups.get(place)?;
    let route = settings.routes.get(group.route)?;
    let receiver = settings.receivers.get(&group.receiver)?;
    let view = View {
        now_ms,
        route,
        alerts: &state.alerts,
        silences: &state.silences,
        inhibitor: &state.inhibitor,
        intervals: &settings.intervals,
    };
    Some(pipeline::flush(group, receiver, &view, &state.log, |key| state.in_flight.contains_key(key)))
}

/// The group is done with alerts that are over and of which everybody knows.
fn prune(state: &mut State, place: &(RouteId, Labels), resolved: &[crate::stages::Member]) {
    let Some(group) = state.groups.get_mut(place) else { return };
    for member in resolved {
        group.members.remove(&member.fingerprint);
    }
    if group.members.is_empty() {
        state.groups.remove(place);
    }
}

/// Whether some integration still believes that an alert of this group fires.
fn was_told(state: &State, route_key: &str, labels: &Labels, alert: &Alert) -> bool {
    let key = crate::group::group_key(route_key, labels);
    let fingerprint = alert.fingerprint();
    state.log.of_group(&key).any(|entry| entry.firing.contains(&fingerprint))
}
