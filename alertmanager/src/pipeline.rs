//! The path of a flush, as one list of stages.
//!
//! ```text
//! group -> inhibit -> active time -> mute time -> silence -> per integration: dedup -> delivery
//! ```
//!
//! Everything up to delivery is decided here, purely, from one view of the state; `delivery` then sends
//! with retries and writes the notification log.

use crate::alert::Fingerprint;
use crate::group::Group;
use crate::notification_log::{NotificationLog, NotifyKey};
use crate::notify::{Integration, Receiver};
use crate::stages::{self, Member, Reason, View, dedup::News};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A stage judges one alert of a flush.
type Stage = fn(&View<'_>, &Member) -> Result<(), Reason>;

/// The stages, in the order in which they judge.
const STAGES: [Stage; 4] =
    [stages::inhibit::keeps, stages::active_time::keeps, stages::mute_time::keeps, stages::silence::keeps];

/// What a flush came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// What is to be sent.
    pub(crate) sends: Vec<Send>,
    /// Integrations that do not want to hear that all is resolved: only the log learns it, so that the
    /// next firing is news again.
    pub(crate) ended_unsaid: Vec<(NotifyKey, BTreeSet<Fingerprint>)>,
    /// How many alerts each reason dropped.
    pub(crate) dropped: Vec<(Reason, usize)>,
    /// The resolved alerts of the group: it is done with them once everybody has been told.
    pub(crate) resolved: Vec<Member>,
}

/// One notice to one integration.
#[derive(Debug)]
pub(crate) struct Send {
    pub(crate) key: NotifyKey,
    pub(crate) integration: Arc<Integration>,
    pub(crate) news: News,
    /// What the notice tells of.
    pub(crate) members: Vec<Member>,
    /// What the log will say once it is delivered.
    pub(crate) firing: BTreeSet<Fingerprint>,
    pub(crate) resolved: BTreeSet<Fingerprint>,
}

/// Passes a group through the stages.
pub(crate) fn flush(
    group: &Group,
    receiver: &Receiver,
    view: &View<'_>,
    log: &NotificationLog,
    in_flight: impl Fn(&NotifyKey) -> bool,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept = Vec::new();
    for &fingerprint in &group.members {
        let Some(alert) = view.alerts.get(fingerprint) else { continue };
        let member = Member { fingerprint, alert: alert.clone() };
        if alert.is_resolved_at(view.now_ms) {
            outcome.resolved.push(member.clone());
        }
        match STAGES.iter().find_map(|stage| stage(view, &member).err()) {
            None => kept.push(member),
            Some(reason) => drop_for(&mut outcome, reason, 1),
        }
    }
    if kept.is_empty() {
        return outcome;
    }
    kept.sort_by(|a, b| a.alert.labels.cmp(&b.alert.labels));
    let set = |resolved: bool| -> BTreeSet<Fingerprint> {
        kept.iter()
            .filter(|member| member.alert.is_resolved_at(view.now_ms) == resolved)
            .map(|member| member.fingerprint)
            .collect()
    };
    let (firing, resolved) = (set(false), set(true));
    for integration in &receiver.integrations {
        let key = NotifyKey::new(&group.key, &receiver.name, integration);
        let known = log.get(&key);
        let wants_resolved = integration.send_resolved();
        let repeat = group.repeat_ms();
        match stages::dedup::news(known, &firing, &resolved, wants_resolved, repeat, view.now_ms) {
            Err(reason) => {
                if reason == Reason::ResolvedNotWanted && !in_flight(&key) {
                    outcome.ended_unsaid.push((key, resolved.clone()));
                }
                drop_for(&mut outcome, reason, kept.len());
            }
            Ok(_) if in_flight(&key) => drop_for(&mut outcome, Reason::InFlight, kept.len()),
            Ok(news) => {
                let told = |member: &&Member| wants_resolved || firing.contains(&member.fingerprint);
                outcome.sends.push(Send {
                    key,
                    integration: Arc::clone(integration),
                    news,
                    members: kept.iter().filter(told).cloned().collect(),
                    firing: firing.clone(),
                    resolved: resolved.clone(),
                });
            }
        }
    }
    outcome
}

fn drop_for(outcome: &mut Outcome, reason: Reason, alerts: usize) {
    match outcome.dropped.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += alerts,
        None => outcome.dropped.push((reason, alerts)),
    }
}
