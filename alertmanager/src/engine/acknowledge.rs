//! Acknowledgements: somebody takes an alert. The ladders stand still, PagerDuty is told, Slack messages
//! that can be edited say so; nothing else happens.

use super::{Engine, State, Work};
use crate::alert::Fingerprint;
use crate::delivery::{Delivery, Origin, Outcome};
use crate::limits::TIER_DELIVERY_TIME_MAX;
use crate::notification_log::NotifyKey;
use crate::notify::notice::{Notice, NoticeAlert, NoticeKind, group_dedup_key};
use crate::state::{Kind, StateError};
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Somebody's word that they take care of an alert.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Acknowledgement {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) by: String,
    pub(crate) comment: String,
    pub(crate) at_ms: TimestampMs,
    /// Until when; `None` until the alert ends.
    pub(crate) expires_at_ms: Option<TimestampMs>,
    /// Whether everybody who shows it has been told. If not, the next tick or the next start sees to it.
    #[serde(default)]
    pub(crate) passed_on: bool,
}

/// Why an alert cannot be acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcknowledgeError {
    #[error("no firing alert has the fingerprint {0}")]
    NotFiring(Fingerprint),
    #[error("the alert {0} is not acknowledged")]
    NotAcknowledged(Fingerprint),
    #[error("this link is for an earlier firing of the alert")]
    OtherFiring,
    #[error(transparent)]
    State(#[from] StateError),
}

impl Engine {
    /// Acknowledges an alert; durable when this returns. `firing_ms` restricts it to one firing.
    pub(crate) async fn acknowledge(
        &self,
        acknowledgement: Acknowledgement,
        firing_ms: Option<TimestampMs>,
    ) -> Result<(), AcknowledgeError> {
        let now_ms = self.now_ms();
        let fingerprint = acknowledgement.fingerprint;
        {
            let mut state = self.lock();
            let known = state.alerts.get(fingerprint).cloned();
            let running = || {
                let own = |id: &String| id.starts_with(&fingerprint.to_string());
                state
                    .escalations
                    .iter()
                    .find(|(id, _)| own(id))
                    .map(|(_, escalation)| escalation.alert.clone())
            };
            let alert = known.or_else(running).filter(|alert| !alert.is_resolved_at(now_ms));
            let alert = alert.ok_or(AcknowledgeError::NotFiring(fingerprint))?;
            if firing_ms.is_some_and(|firing| firing != alert.starts_at_ms) {
                return Err(AcknowledgeError::OtherFiring);
            }
            self.store.put(Kind::Acknowledgements, fingerprint.to_string(), &acknowledgement);
            self.audit(
                now_ms,
                "acknowledged",
                &format!("{}[{fingerprint}]", alert.name()),
                &acknowledgement.by,
                &acknowledgement.comment,
            );
            tracing::info!(by = %acknowledgement.by, comment = %acknowledgement.comment, alert = %alert.labels, %fingerprint, "Acknowledged");
            self.metrics.acknowledgements.with_label_values(&["given"]).inc();
            state.acknowledgements.insert(fingerprint, acknowledgement);
            state.generation += 1;
        }
        self.wake();
        self.store.durable().await?;
        Ok(())
    }

    /// Takes an acknowledgement back; durable when this returns.
    pub(crate) async fn unacknowledge(
        &self,
        fingerprint: Fingerprint,
        by: &str,
    ) -> Result<(), AcknowledgeError> {
        let now_ms = self.now_ms();
        let removed = {
            let mut state = self.lock();
            state.generation += 1;
            state.acknowledgements.remove(&fingerprint)
        };
        removed.ok_or(AcknowledgeError::NotAcknowledged(fingerprint))?;
        self.store.remove(Kind::Acknowledgements, fingerprint.to_string());
        self.audit(now_ms, "acknowledgement_taken_back", &fingerprint.to_string(), by, "");
        tracing::info!(%by, %fingerprint, "An acknowledgement was taken back");
        self.metrics.acknowledgements.with_label_values(&["taken_back"]).inc();
        self.wake();
        self.store.durable().await?;
        Ok(())
    }

    /// Ends acknowledgements that have expired or whose alert is over.
    pub(super) fn end_acknowledgements(&self, state: &mut State, now_ms: TimestampMs, work: &mut Work) {
        let mut over = Vec::new();
        for (&fingerprint, acknowledgement) in &state.acknowledgements {
            let own = |id: &String| id.starts_with(&fingerprint.to_string());
            let fires = match state.alerts.get(fingerprint) {
                Some(alert) => !alert.is_resolved_at(now_ms),
                None => state
                    .escalations
                    .iter()
                    .any(|(id, escalation)| own(id) && !escalation.alert.is_resolved_at(now_ms)),
            };
            match acknowledgement.expires_at_ms {
                _ if !fires => over.push((fingerprint, "resolved")),
                Some(expires) if expires <= now_ms => over.push((fingerprint, "expired")),
                Some(expires) => work.wake_at(expires),
                None => {}
            }
        }
        for (fingerprint, event) in over {
            state.acknowledgements.remove(&fingerprint);
            state.generation += 1;
            self.store.remove(Kind::Acknowledgements, fingerprint.to_string());
            self.audit(now_ms, "acknowledgement_ended", &fingerprint.to_string(), "pharos", event);
            self.metrics.acknowledgements.with_label_values(&[event]).inc();
        }
    }

    /// Tells whoever shows acknowledgements of those they have not heard of.
    pub(super) fn pass_on_acknowledgements(&self, state: &mut State, now_ms: TimestampMs, work: &mut Work) {
        let new: Vec<Acknowledgement> = state
            .acknowledgements
            .values()
            .filter(|given| {
                !given.passed_on && !state.acknowledgements_in_flight.contains_key(&given.fingerprint)
            })
            .cloned()
            .collect();
        for given in new {
            let deliveries = self.acknowledge_notices(state, &given, now_ms);
            if deliveries.is_empty() {
                self.passed_on(state, given.fingerprint);
            } else {
                state.acknowledgements_in_flight.insert(given.fingerprint, deliveries.len());
                work.deliveries.extend(deliveries);
            }
        }
    }

    /// One notice of an acknowledgement was delivered or given up.
    pub(crate) fn acknowledgement_delivered(&self, fingerprint: Fingerprint, outcome: Outcome) {
        let mut state = self.lock();
        let left = state.acknowledgements_in_flight.get(&fingerprint).map_or(0, |count| count - 1);
        match outcome {
            // The next start tells it.
            Outcome::Interrupted => return,
            Outcome::GivenUp(error) => {
                tracing::warn!(%fingerprint, %error, "An acknowledgement could not be passed on")
            }
            Outcome::Delivered(_) => {}
        }
        if left > 0 {
            state.acknowledgements_in_flight.insert(fingerprint, left);
        } else {
            state.acknowledgements_in_flight.remove(&fingerprint);
            self.passed_on(&mut state, fingerprint);
        }
    }

    fn passed_on(&self, state: &mut State, fingerprint: Fingerprint) {
        if let Some(given) = state.acknowledgements.get_mut(&fingerprint) {
            given.passed_on = true;
            self.store.put(Kind::Acknowledgements, fingerprint.to_string(), given);
        }
    }

    /// Whom to tell that an alert is taken: tiers that were told of it, and the routes of groups of which
    /// every firing alert is taken now.
    fn acknowledge_notices(
        &self,
        state: &State,
        acknowledgement: &Acknowledgement,
        now_ms: TimestampMs,
    ) -> Vec<Delivery> {
        let settings = self.settings.load_full();
        let fingerprint = acknowledgement.fingerprint;
        let words = (acknowledgement.by.clone(), acknowledgement.comment.clone());
        let mut deliveries = Vec::new();
        let mut add = |receiver: &str, integration: &Arc<crate::notify::Integration>, mut notice: Notice| {
            notice.acknowledged = Some(words.clone());
            deliveries.push(Delivery {
                origin: Origin::Acknowledge { fingerprint },
                receiver: receiver.to_owned(),
                integration: Arc::clone(integration),
                notice,
                time_max_ms: TIER_DELIVERY_TIME_MAX.as_millis() as i64,
            });
        };
        let own = state.escalations.values().filter(|escalation| escalation.fingerprint() == fingerprint);
        for escalation in own {
            for (&tier, told) in escalation.told.iter().filter(|(_, told)| !told.by_route) {
                let Some(receiver) = settings.receivers.get(&told.receiver) else { continue };
                for integration in &receiver.integrations {
                    let Some(delivery) = told.integrations.get(&integration.name()) else { continue };
                    if integration.can_acknowledge(&delivery.receipt)
                        && (delivery.delivered || delivery.done < told.times)
                    {
                        let receipt = delivery.receipt.clone();
                        let kind = NoticeKind::Acknowledged;
                        let notice =
                            self.tier_notice(escalation, &receiver.name, tier, kind, 0, receipt, now_ms);
                        add(&receiver.name, integration, notice);
                    }
                }
            }
        }
        for group in state.groups.values().filter(|group| group.members.contains(&fingerprint)) {
            let firing: Vec<_> = group
                .members
                .iter()
                .filter_map(|&member| state.alerts.get(member))
                .filter(|alert| !alert.is_resolved_at(now_ms))
                .collect();
            if !firing.iter().all(|alert| state.acknowledgements.contains_key(&alert.fingerprint())) {
                continue;
            }
            let Some(receiver) = settings.receivers.get(&group.receiver) else { continue };
            for integration in &receiver.integrations {
                let key = NotifyKey::new(&group.key, &receiver.name, integration);
                let known = state.log.get(&key).filter(|entry| entry.firing.contains(&fingerprint));
                let flies = state.in_flight.contains_key(&key);
                let receipt = known.and_then(|entry| entry.receipt.clone());
                if (known.is_none() && !flies) || !integration.can_acknowledge(&receipt) {
                    continue;
                }
                let alerts =
                    firing.iter().map(|alert| NoticeAlert { alert: (*alert).clone(), resolved: false });
                let notice = Notice {
                    kind: NoticeKind::Acknowledged,
                    receiver: receiver.name.clone(),
                    group_key: group.key.clone(),
                    group_labels: group.labels.clone(),
                    dedup_key: group_dedup_key(&group.key),
                    alerts: alerts.collect(),
                    reason: "acknowledged",
                    tier: None,
                    receipt,
                    acknowledged: None,
                    sequence: acknowledgement.at_ms,
                };
                add(&receiver.name, integration, notice);
            }
        }
        deliveries
    }
}
