//! Remediations: alerts set them off, the guard judges them, actions run at most once, and what did not
//! help climbs the ladder.

use super::{Engine, State, Work};
use crate::actions::exec;
use crate::alert::{Alert, Fingerprint};
use crate::config::{Mode, Otherwise, Settings};
use crate::limits::REMEDIATIONS_KEPT_MAX;
use crate::remediate::guard::{self, Verdict};
use crate::remediate::policy::RemediationPolicy;
use crate::remediate::record::{ActionOutcome, Remediation, RemediationState, remediation_id};
use crate::state::{Kind, StateError};
use pharos_common::sample::TimestampMs;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a remediation cannot be approved or rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error("remediation {0} not found")]
    NotFound(String),
    #[error("remediation {0} is {1}, not pending")]
    NotPending(String, &'static str),
    #[error(transparent)]
    State(#[from] StateError),
}

impl Engine {
    /// Opens the remediations that a firing alert calls for, one for each firing.
    pub(super) fn consider_repairs(
        &self,
        state: &mut State,
        settings: &Settings,
        alert: &Alert,
        now_ms: TimestampMs,
    ) {
        for policy in settings.remediations.iter().filter(|policy| policy.applies_to(&alert.labels)) {
            let id = remediation_id(&policy.name, alert);
            if state.remediations.contains_key(&id) {
                continue;
            }
            let mut repair = Remediation {
                id: id.clone(),
                policy: policy.name.clone(),
                mode: policy.mode,
                alert: alert.clone(),
                node: policy.node_of(&alert.labels),
                state: RemediationState::Waiting,
                reason: None,
                created_at_ms: now_ms,
                updated_at_ms: now_ms,
                decided_by: None,
                comment: None,
                arguments: Vec::new(),
                acted_at_ms: None,
                outcome: None,
                verify_until_ms: None,
                in_doubt: false,
            };
            match policy.arguments(alert, &settings.renderer) {
                Err(error) => {
                    self.move_to(&mut repair, RemediationState::Refused, Some(error.to_string()), now_ms)
                }
                Ok(arguments) => {
                    repair.arguments = arguments;
                    match policy.mode {
                        Mode::Auto => self.move_to(&mut repair, RemediationState::Waiting, None, now_ms),
                        Mode::Approve => self.move_to(&mut repair, RemediationState::Pending, None, now_ms),
                        Mode::DryRun => {
                            let verdict = self.judge(state, policy, &repair, now_ms);
                            let reason = match verdict {
                                Verdict::Go => "would run now".to_owned(),
                                Verdict::Wait => "would wait for another action".to_owned(),
                                Verdict::Refuse(refusal) => format!("would be refused: {refusal}"),
                            };
                            repair.acted_at_ms = Some(now_ms);
                            self.move_to(&mut repair, RemediationState::DryRun, Some(reason), now_ms);
                        }
                    }
                }
            }
            state.remediations.insert(id, repair);
        }
    }

    /// Starts what may start, and ends what has waited long enough.
    pub(super) fn tick_repairs(
        &self,
        state: &mut State,
        settings: &Settings,
        now_ms: TimestampMs,
        work: &mut Work,
    ) {
        let open: Vec<String> = state
            .remediations
            .values()
            .filter(|repair| !repair.state.is_final())
            .map(|repair| repair.id.clone())
            .collect();
        for id in open {
            let Some(mut repair) = state.remediations.remove(&id) else { continue };
            let policy = settings.remediations.iter().find(|policy| policy.name == repair.policy);
            let latest = state.alerts.get(repair.alert.fingerprint());
            let over = match latest {
                Some(alert) => {
                    alert.is_resolved_at(now_ms) || alert.starts_at_ms != repair.alert.starts_at_ms
                }
                None => repair.alert.is_resolved_at(now_ms),
            };
            match repair.state {
                RemediationState::Pending | RemediationState::Waiting if over => {
                    let reason = Some("the alert ended before anything was done".to_owned());
                    self.move_to(&mut repair, RemediationState::Expired, reason, now_ms);
                }
                RemediationState::Waiting => match policy {
                    None => {
                        let reason = Some("its policy is no longer configured".to_owned());
                        self.move_to(&mut repair, RemediationState::Refused, reason, now_ms);
                    }
                    Some(policy) => self.try_to_start(state, policy, &mut repair, now_ms, work),
                },
                RemediationState::Verifying if over => {
                    self.move_to(&mut repair, RemediationState::Succeeded, None, now_ms);
                }
                RemediationState::Verifying => {
                    let until = repair.verify_until_ms.unwrap_or(now_ms);
                    if until <= now_ms {
                        let reason = Some("the alert did not end in time".to_owned());
                        self.fail(state, policy, &mut repair, reason, now_ms);
                    } else {
                        work.wake_at(until);
                    }
                }
                _ => {}
            }
            state.remediations.insert(id, repair);
        }
    }

    fn try_to_start(
        &self,
        state: &State,
        policy: &RemediationPolicy,
        repair: &mut Remediation,
        now_ms: TimestampMs,
        work: &mut Work,
    ) {
        // A silence mostly means maintenance: nothing is done behind people's backs meanwhile.
        if state.silences.silences(&repair.alert.labels, now_ms) {
            return;
        }
        match self.judge(state, policy, repair, now_ms) {
            Verdict::Wait => {}
            Verdict::Refuse(refusal) => {
                self.metrics.remediations_refused.with_label_values(&[&policy.name, refusal.as_str()]).inc();
                self.move_to(repair, RemediationState::Refused, Some(refusal.to_string()), now_ms);
            }
            Verdict::Go => {
                repair.acted_at_ms = Some(now_ms);
                self.move_to(repair, RemediationState::Running, None, now_ms);
                work.actions.push(repair.clone());
            }
        }
    }

    fn judge(
        &self,
        state: &State,
        policy: &RemediationPolicy,
        repair: &Remediation,
        now_ms: TimestampMs,
    ) -> Verdict {
        let nodes: BTreeSet<String> =
            state.alerts.iter().filter_map(|(_, alert)| policy.node_of(&alert.labels)).collect();
        let known = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        guard::judge(&policy.limits, repair, state.remediations.values(), known, now_ms)
    }

    /// Runs an action whose state is `Running`, once that is on disk.
    pub(super) async fn act(self: Arc<Self>, repair: Remediation) {
        let settings = self.settings.load_full();
        let policy = settings.remediations.iter().find(|policy| policy.name == repair.policy);
        let outcome = match (self.store.durable().await, policy) {
            (Err(error), _) => {
                ActionOutcome { error: Some(format!("not run: {error}")), ..Default::default() }
            }
            (Ok(()), None) => {
                ActionOutcome { error: Some("not run: its policy is gone".to_owned()), ..Default::default() }
            }
            (Ok(()), Some(policy)) => {
                let environment = [
                    ("PHAROS_ALERT", repair.alert.name().to_owned()),
                    ("PHAROS_FINGERPRINT", repair.alert.fingerprint().to_string()),
                    ("PHAROS_REMEDIATION", repair.id.clone()),
                ];
                exec::run(&repair.arguments, &environment, policy.timeout).await
            }
        };
        self.acted(&repair.id, outcome);
        if let Err(error) = self.store.durable().await {
            tracing::error!(%error, remediation = %repair.id, "The end of an action cannot be written down");
        }
    }

    fn acted(&self, id: &str, outcome: ActionOutcome) {
        let now_ms = self.now_ms();
        let settings = self.settings.load_full();
        let mut state = self.lock();
        if let Some(mut repair) = state.remediations.remove(id) {
            let policy = settings.remediations.iter().find(|policy| policy.name == repair.policy);
            let succeeded = outcome.succeeded();
            let error = outcome.error.clone();
            let exit_code = outcome.exit_code;
            repair.outcome = Some(outcome);
            match (succeeded, policy.and_then(|policy| policy.verify)) {
                (true, Some(verify)) => {
                    repair.verify_until_ms = Some(now_ms + verify.resolved_within_ms);
                    self.move_to(&mut repair, RemediationState::Verifying, None, now_ms);
                }
                (true, None) => self.move_to(&mut repair, RemediationState::Succeeded, None, now_ms),
                (false, _) => {
                    let code = || format!("the action ended with exit code {}", exit_code.unwrap_or(-1));
                    let reason = Some(error.unwrap_or_else(code));
                    self.fail(&mut state, policy, &mut repair, reason, now_ms);
                }
            }
            state.remediations.insert(id.to_owned(), repair);
        }
        drop(state);
        self.wake();
    }

    /// It failed or did not help: the next tier is told at once, if the policy says so.
    fn fail(
        &self,
        state: &mut State,
        policy: Option<&Arc<RemediationPolicy>>,
        repair: &mut Remediation,
        reason: Option<String>,
        now_ms: TimestampMs,
    ) {
        self.move_to(repair, RemediationState::Failed, reason, now_ms);
        let otherwise = policy.and_then(|policy| policy.verify).map(|verify| verify.otherwise);
        if otherwise == Some(Otherwise::Escalate) {
            self.hurry(state, repair.alert.fingerprint(), &repair.id, now_ms);
        }
    }

    fn hurry(&self, state: &mut State, fingerprint: Fingerprint, repair: &str, now_ms: TimestampMs) {
        let mut found = false;
        for (id, escalation) in &mut state.escalations {
            if escalation.fingerprint() == fingerprint {
                escalation.hurried = true;
                escalation.rest = None;
                found = true;
                self.store.put(Kind::Escalations, id, escalation);
            }
        }
        let detail =
            if found { "the next tier is told at once" } else { "no escalation runs for this alert" };
        self.audit(now_ms, "remediation_escalates", repair, "pharos", detail);
    }

    /// Approves or rejects a pending remediation; durable when this returns.
    pub(crate) async fn decide(
        &self,
        id: &str,
        approve: bool,
        by: &str,
        comment: &str,
    ) -> Result<(), DecideError> {
        let now_ms = self.now_ms();
        {
            let mut state = self.lock();
            let repair =
                state.remediations.get_mut(id).ok_or_else(|| DecideError::NotFound(id.to_owned()))?;
            if repair.state != RemediationState::Pending {
                return Err(DecideError::NotPending(id.to_owned(), repair.state.as_str()));
            }
            repair.decided_by = Some(by.to_owned());
            repair.comment = Some(comment.to_owned());
            let event = if approve { "remediation_approved" } else { "remediation_rejected" };
            self.audit(now_ms, event, id, by, comment);
            let next = if approve { RemediationState::Waiting } else { RemediationState::Rejected };
            self.move_to(repair, next, None, now_ms);
        }
        self.wake();
        self.store.durable().await?;
        Ok(())
    }

    /// Actions that a crash caught are never run again: they may have happened. They are verified.
    pub(super) fn judge_doubtful_repairs(&self, state: &mut State, settings: &Settings, now_ms: TimestampMs) {
        let doubtful: Vec<String> = state
            .remediations
            .values()
            .filter(|repair| repair.state == RemediationState::Running)
            .map(|repair| repair.id.clone())
            .collect();
        for id in doubtful {
            let Some(repair) = state.remediations.get_mut(&id) else { continue };
            let policy = settings.remediations.iter().find(|policy| policy.name == repair.policy);
            let within =
                policy.and_then(|policy| policy.verify).map_or(0, |verify| verify.resolved_within_ms);
            repair.in_doubt = true;
            repair.verify_until_ms = Some(now_ms + within);
            let reason = Some("the program was killed while it ran; it is not run again".to_owned());
            self.move_to(repair, RemediationState::Verifying, reason, now_ms);
            tracing::warn!(remediation = %id, policy = %repair.policy, "An action was in doubt after a crash; it is verified, not run again");
        }
    }

    fn move_to(
        &self,
        repair: &mut Remediation,
        to: RemediationState,
        reason: Option<String>,
        now_ms: TimestampMs,
    ) {
        repair.state = to;
        repair.updated_at_ms = now_ms;
        repair.reason = reason;
        self.store.put(Kind::Remediations, &repair.id, repair);
        self.metrics.remediations.with_label_values(&[&repair.policy, to.as_str()]).inc();
        let detail = format!(
            "{} for {}: {} {}",
            repair.policy,
            repair.alert.labels,
            repair.arguments.join(" "),
            repair.reason.as_deref().unwrap_or("")
        );
        let event = format!("remediation_{}", to.as_str());
        self.audit(
            now_ms,
            &event,
            &repair.id,
            repair.decided_by.as_deref().unwrap_or("pharos"),
            detail.trim(),
        );
        tracing::info!(remediation = %repair.id, policy = %repair.policy, state = to.as_str(), alert = %repair.alert.labels, reason = repair.reason.as_deref().unwrap_or(""), "Remediation");
    }

    /// Forgets the oldest that are over when there are too many.
    pub(super) fn clean_repairs(&self, state: &mut State) {
        let too_many = state.remediations.len().saturating_sub(REMEDIATIONS_KEPT_MAX);
        if too_many == 0 {
            return;
        }
        let mut over: Vec<(TimestampMs, String)> = state
            .remediations
            .values()
            .filter(|repair| repair.state.is_final())
            .map(|repair| (repair.updated_at_ms, repair.id.clone()))
            .collect();
        over.sort();
        for (_, id) in over.into_iter().take(too_many) {
            state.remediations.remove(&id);
            self.store.remove(Kind::Remediations, &id);
        }
    }
}
