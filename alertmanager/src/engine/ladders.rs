//! Escalations: they start with an alert, climb as their ladders say, and end with a word to everybody who
//! was told.
//!
//! What is to be sent follows from what is written down (rounds due against rounds done), so that after a
//! kill the next tick finds it again.

use super::{Engine, State, Work};
use crate::alert::{Alert, Fingerprint};
use crate::config::Settings;
use crate::delivery::{Delivery, Origin, Outcome};
use crate::escalation::ladder::{Circumstances, Escalation, Rest, Step, escalation_id};
use crate::escalation::policy::EscalationPolicy;
use crate::limits::TIER_DELIVERY_TIME_MAX;
use crate::notification_log::NotifyKey;
use crate::notify::Integration;
use crate::notify::notice::{Notice, NoticeAlert, NoticeKind, TierNote, tier_dedup_key};
use crate::stages::Reason;
use crate::state::Kind;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;

/// One tier's notice to one integration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TierKey {
    pub(crate) escalation: String,
    pub(crate) tier: usize,
    pub(crate) integration: String,
}

impl Engine {
    /// Starts the escalations that an alert calls for, or tells running ones its latest report.
    pub(super) fn start_ladders(
        &self,
        state: &mut State,
        settings: &Settings,
        alert: &Alert,
        now_ms: TimestampMs,
    ) {
        for policy in settings.escalations.iter().filter(|policy| policy.applies_to(&alert.labels)) {
            let id = escalation_id(&policy.name, alert.fingerprint());
            let fresh = || Escalation::new(&policy.name, alert.clone(), now_ms);
            let escalation = state.escalations.entry(id.clone()).or_insert_with(fresh);
            escalation.rest = None;
            if escalation.alert.starts_at_ms == alert.starts_at_ms {
                escalation.alert = alert.clone();
            } else {
                // A new firing starts at the first tier.
                *escalation = fresh();
            }
            self.store.put(Kind::Escalations, &id, escalation);
        }
    }

    /// Starts the escalations of an alert that was known before they were configured.
    pub(super) fn start_missing_ladders(
        &self,
        state: &mut State,
        settings: &Settings,
        fingerprint: Fingerprint,
        now_ms: TimestampMs,
    ) {
        let Some(alert) = state.alerts.get(fingerprint).cloned() else { return };
        for policy in settings.escalations.iter().filter(|policy| policy.applies_to(&alert.labels)) {
            let id = escalation_id(&policy.name, fingerprint);
            state.escalations.entry(id.clone()).or_insert_with(|| {
                let escalation = Escalation::new(&policy.name, alert.clone(), now_ms);
                self.store.put(Kind::Escalations, &id, &escalation);
                escalation
            });
        }
    }

    /// What the ladder of an alert has to know.
    pub(crate) fn circumstances(&self, state: &State, alert: &Alert, now_ms: TimestampMs) -> Circumstances {
        let latest = state.alerts.get(alert.fingerprint()).unwrap_or(alert);
        Circumstances {
            now_ms,
            acknowledged: state.acknowledgements.contains_key(&alert.fingerprint()),
            // What another alert explains is not told either.
            silenced: state.silences.silences(&alert.labels, now_ms)
                || state.inhibitor.inhibiting(&alert.labels, &state.alerts, now_ms).is_some(),
            resolved: latest.is_resolved_at(now_ms),
        }
    }

    /// Lets every ladder take its steps.
    pub(super) fn tick_ladders(
        &self,
        state: &mut State,
        settings: &Settings,
        now_ms: TimestampMs,
        work: &mut Work,
    ) {
        let generation = state.generation;
        let mut ids = Vec::new();
        for (id, escalation) in &state.escalations {
            match escalation.rests_until(generation, now_ms) {
                Some(until) => work.wake_at(until),
                None => ids.push(id.clone()),
            }
        }
        for id in ids {
            let Some(mut escalation) = state.escalations.remove(&id) else { continue };
            let policy = settings.escalations.iter().find(|policy| policy.name == escalation.policy);
            let Some(policy) = policy else {
                // The configuration no longer has it.
                self.store.remove(Kind::Escalations, &id);
                continue;
            };
            let world = self.circumstances(state, &escalation.alert, now_ms);
            let mut changed = escalation.adjust(policy, &world);
            let mut ended = false;
            let mut until_ms = TimestampMs::MAX;
            loop {
                match escalation.next(policy, &world) {
                    Step::Tell(tier) => {
                        changed = true;
                        self.tell(state, settings, policy, &mut escalation, tier, now_ms);
                    }
                    Step::Wait(at) => {
                        until_ms = at;
                        break;
                    }
                    Step::Hold => break,
                    Step::End => {
                        ended = true;
                        break;
                    }
                }
            }
            if !ended {
                let alert = state.alerts.get(escalation.fingerprint()).unwrap_or(&escalation.alert);
                // One that is over although a resolve does not end its ladder has no later end to wait for.
                if alert.ends_at_ms > now_ms {
                    until_ms = until_ms.min(alert.ends_at_ms);
                }
                work.wake_at(until_ms);
            }
            let open = self.collect_tier_notices(state, settings, &mut escalation, ended, now_ms, work);
            if ended && !open {
                self.store.remove(Kind::Escalations, &id);
                self.audit(now_ms, "escalation_ended", &id, "pharos", "resolved");
                continue;
            }
            if changed {
                self.store.put(Kind::Escalations, &id, &escalation);
            }
            // While it ends, every delivery that comes back is looked at.
            escalation.rest = (!ended).then_some(Rest { generation, until_ms });
            state.escalations.insert(id, escalation);
        }
    }

    fn tell(
        &self,
        state: &State,
        settings: &Settings,
        policy: &EscalationPolicy,
        escalation: &mut Escalation,
        tier: usize,
        now_ms: TimestampMs,
    ) {
        let Some(receiver) = policy.tiers.get(tier).map(|tier| tier.receiver.clone()) else { return };
        let first = !escalation.told.contains_key(&tier);
        // An escalation that was configured later begins after the alert: the route may have told it before.
        let firing_since_ms = escalation.started_at_ms.min(escalation.alert.starts_at_ms);
        let by_route =
            tier == 0 && first && route_tells(state, settings, &receiver, &escalation.alert, firing_since_ms);
        if by_route {
            self.metrics.dropped(Reason::ToldByRoute, 1);
        }
        escalation.tell(tier, &receiver, by_route, now_ms);
        let detail = format!("tier {} ({receiver})", tier + 1);
        let event = if by_route { "tier_told_by_route" } else { "tier_due" };
        self.audit(now_ms, event, &escalation.id(), "pharos", &detail);
        tracing::info!(escalation = %escalation.policy, alert = %escalation.alert.labels, tier = tier + 1, %receiver, by_route, "Escalation reached a tier");
    }

    /// Makes deliveries of whatever is due and not on its way. Returns whether anything is still open.
    fn collect_tier_notices(
        &self,
        state: &mut State,
        settings: &Settings,
        escalation: &mut Escalation,
        ended: bool,
        now_ms: TimestampMs,
        work: &mut Work,
    ) -> bool {
        let id = escalation.id();
        let mut open = false;
        let mut due = Vec::new();
        for (&tier, told) in &mut escalation.told {
            if told.by_route {
                continue;
            }
            let Some(receiver) = settings.receivers.get(&told.receiver) else { continue };
            for integration in &receiver.integrations {
                let name = integration.name();
                let delivery = told.integrations.entry(name.clone()).or_default();
                let tells_end = delivery.delivered && !delivery.end_told && integration.tier_resolved();
                let kind = match ended {
                    true if tells_end => NoticeKind::Resolved,
                    false if delivery.done < told.times => NoticeKind::Firing,
                    _ => {
                        let key = TierKey { escalation: id.clone(), tier, integration: name };
                        open |= state.tiers_in_flight.contains(&key);
                        continue;
                    }
                };
                open = true;
                let key = TierKey { escalation: id.clone(), tier, integration: name };
                if state.tiers_in_flight.insert(key.clone()) {
                    due.push((key, Arc::clone(integration), kind, told.times, delivery.receipt.clone()));
                }
            }
        }
        for (key, integration, kind, round, receipt) in due {
            let delivery = self.tier_delivery(escalation, key, integration, kind, round, receipt, now_ms);
            work.deliveries.push(delivery);
        }
        open
    }

    #[expect(clippy::too_many_arguments, reason = "all of them are what one notice is made of")]
    fn tier_delivery(
        &self,
        escalation: &Escalation,
        key: TierKey,
        integration: Arc<Integration>,
        kind: NoticeKind,
        round: u32,
        receipt: Option<String>,
        now_ms: TimestampMs,
    ) -> Delivery {
        let receiver = escalation.told.get(&key.tier).map(|told| told.receiver.clone()).unwrap_or_default();
        Delivery {
            notice: self.tier_notice(escalation, &receiver, key.tier, kind, round, receipt, now_ms),
            origin: Origin::Tier { key, round, kind },
            receiver,
            integration,
            time_max_ms: TIER_DELIVERY_TIME_MAX.as_millis() as i64,
        }
    }

    /// A notice of one tier about its alert.
    #[expect(clippy::too_many_arguments, reason = "all of them are what one notice is made of")]
    pub(super) fn tier_notice(
        &self,
        escalation: &Escalation,
        receiver: &str,
        tier: usize,
        kind: NoticeKind,
        round: u32,
        receipt: Option<String>,
        now_ms: TimestampMs,
    ) -> Notice {
        let alert = &escalation.alert;
        let identity = Labels::from_pairs([("alertname", alert.name())]);
        Notice {
            kind,
            receiver: receiver.to_owned(),
            group_key: escalation.id(),
            group_labels: identity,
            dedup_key: tier_dedup_key(&escalation.policy, escalation.fingerprint()),
            alerts: vec![NoticeAlert { alert: alert.clone(), resolved: kind == NoticeKind::Resolved }],
            reason: "escalation",
            tier: Some(TierNote {
                escalation: escalation.policy.clone(),
                tier,
                acknowledge_url: self.links.acknowledge(alert, now_ms),
            }),
            receipt,
            acknowledged: None,
            sequence: i64::from(round) * 100 + tier as i64,
        }
    }

    /// A tier's notice was delivered or given up.
    pub(crate) fn tier_delivered(&self, key: &TierKey, round: u32, kind: NoticeKind, outcome: Outcome) {
        let mut state = self.lock();
        state.tiers_in_flight.remove(key);
        if let Some(escalation) = state.escalations.get_mut(&key.escalation) {
            escalation.rest = None;
            let told = escalation.told.get_mut(&key.tier);
            if let Some(delivery) = told.and_then(|told| told.integrations.get_mut(&key.integration)) {
                if kind == NoticeKind::Resolved {
                    delivery.end_told = !matches!(outcome, Outcome::Interrupted);
                } else {
                    delivery.done = delivery.done.max(round);
                    match outcome {
                        Outcome::Delivered(receipt) => {
                            delivery.delivered = true;
                            delivery.error = None;
                            delivery.receipt = receipt.or(delivery.receipt.take());
                        }
                        Outcome::GivenUp(error) => delivery.error = Some(error),
                        Outcome::Interrupted => delivery.done = delivery.done.min(round - 1),
                    }
                }
            }
            self.store.put(Kind::Escalations, &key.escalation, escalation);
        }
        drop(state);
        self.wake();
    }
}

/// Whether a route has told a receiver of an alert since it fires, or is telling it now.
fn route_tells(
    state: &State,
    settings: &Settings,
    receiver: &str,
    alert: &Alert,
    since_ms: TimestampMs,
) -> bool {
    let Some(receiver) = settings.receivers.get(receiver) else { return false };
    let fingerprint = alert.fingerprint();
    settings.routes.matching(&alert.labels).into_iter().filter_map(|id| settings.routes.get(id)).any(
        |route| {
            if route.receiver != receiver.name {
                return false;
            }
            let labels = route.group_by.group_labels(&alert.labels);
            let group = crate::group::group_key(&route.key, &labels);
            receiver.integrations.iter().any(|integration| {
                let key = NotifyKey::new(&group, &receiver.name, integration);
                let flies =
                    state.in_flight.get(&key).is_some_and(|entry| entry.firing.contains(&fingerprint));
                let told = state
                    .log
                    .get(&key)
                    .is_some_and(|entry| entry.at_ms >= since_ms && entry.firing.contains(&fingerprint));
                flies || told
            })
        },
    )
}
