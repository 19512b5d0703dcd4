//! `/api/v2/escalations`: where each ladder stands, and taking an alert.

use super::time::rfc3339;
use super::{Api, ApiError, same_site};
use crate::alert::{Fingerprint, label_map};
use crate::engine::{AcknowledgeError, Acknowledgement, State};
use crate::escalation::ladder::{Circumstances, Escalation, Step};
use crate::escalation::policy::EscalationPolicy;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use pharos_common::duration::PrometheusDuration;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) async fn list(Shared(api): Shared<Api>) -> Json<Vec<Value>> {
    let now_ms = api.engine.now_ms();
    let settings = api.engine.settings.load_full();
    let state = api.engine.lock();
    let shown = state.escalations.values().map(|escalation| {
        let world = api.engine.circumstances(&state, &escalation.alert, now_ms);
        let policy = settings.escalations.iter().find(|policy| policy.name == escalation.policy);
        one(&state, escalation, policy.map(AsRef::as_ref), &world)
    });
    Json(shown.collect())
}

fn one(
    state: &State,
    escalation: &Escalation,
    policy: Option<&EscalationPolicy>,
    world: &Circumstances,
) -> Value {
    let fingerprint = escalation.fingerprint();
    let tiers = policy.map(|policy| policy.tiers.as_slice()).unwrap_or_default();
    let tiers: Vec<Value> = tiers
        .iter()
        .enumerate()
        .map(|(index, tier)| {
            let told = escalation.told.get(&index);
            let deliveries = || told.iter().flat_map(|told| told.integrations.values());
            let status = match told {
                None => "waiting",
                Some(told) if told.by_route => "told_by_route",
                Some(_) if deliveries().any(|delivery| delivery.delivered) => "told",
                Some(_) if deliveries().any(|delivery| delivery.error.is_some()) => "failed",
                Some(_) => "telling",
            };
            json!({
                "receiver": tier.receiver,
                "after": PrometheusDuration::from_millis(tier.after_ms.max(0) as u64).to_string(),
                "repeat": tier.repeat_ms.map(|ms| PrometheusDuration::from_millis(ms.max(0) as u64).to_string()),
                "status": status,
                "toldAt": told.map(|told| rfc3339(told.at_ms)),
                "times": told.map_or(0, |told| told.times),
                "errors": deliveries().filter_map(|delivery| delivery.error.clone()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let next_at = policy.and_then(|policy| match escalation.next(policy, world) {
        Step::Wait(at) => Some(rfc3339(at)),
        Step::Tell(_) => Some(rfc3339(world.now_ms)),
        Step::Hold | Step::End => None,
    });
    json!({
        "name": escalation.policy,
        "fingerprint": fingerprint.to_string(),
        "labels": label_map(&escalation.alert.labels),
        "annotations": escalation.alert.annotations,
        "state": escalation.state(world),
        "startedAt": rfc3339(escalation.started_at_ms),
        "tier": escalation.reached,
        "tiers": tiers,
        "nextAt": next_at,
        "acknowledgement": state.acknowledgements.get(&fingerprint).map(acknowledgement),
    })
}

fn acknowledgement(acknowledgement: &Acknowledgement) -> Value {
    json!({
        "by": acknowledgement.by,
        "comment": acknowledgement.comment,
        "at": rfc3339(acknowledgement.at_ms),
        "expiresAt": acknowledgement.expires_at_ms.map(rfc3339),
    })
}

/// Pharos' keys of the configuration, which `status` leaves out.
pub(super) async fn config(Shared(api): Shared<Api>) -> Json<Value> {
    Json(json!({"original": api.engine.settings.load().pharos_original}))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeBody {
    by: String,
    #[serde(default)]
    comment: String,
    #[serde(default)]
    expires_in: Option<PrometheusDuration>,
}

pub(super) async fn acknowledge(
    Shared(api): Shared<Api>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    same_site(&headers)?;
    let fingerprint = parse_fingerprint(&fingerprint)?;
    let body: AcknowledgeBody = super::json("acknowledgement", &body)?;
    let given = build(fingerprint, &body.by, &body.comment, body.expires_in, api.engine.now_ms())?;
    take(&api, given.clone(), None).await?;
    let mut answer = acknowledgement(&given);
    answer["fingerprint"] = json!(fingerprint.to_string());
    Ok(Json(answer))
}

/// Checks what is said in an acknowledgement.
pub(crate) fn build(
    fingerprint: Fingerprint,
    by: &str,
    comment: &str,
    expires_in: Option<PrometheusDuration>,
    now_ms: i64,
) -> Result<Acknowledgement, ApiError> {
    if by.trim().is_empty() {
        return Err(ApiError::bad_request("by must say who acknowledges"));
    }
    if by.len() + comment.len() > crate::limits::COMMENT_BYTES_MAX {
        return Err(ApiError::bad_request("by and comment are too long"));
    }
    if expires_in.is_some_and(|duration| duration.as_millis() == 0) {
        return Err(ApiError::bad_request("expires_in must be longer than 0"));
    }
    Ok(Acknowledgement {
        fingerprint,
        by: by.trim().to_owned(),
        comment: comment.to_owned(),
        at_ms: now_ms,
        expires_at_ms: expires_in.map(|duration| now_ms + duration.as_millis_i64()),
        passed_on: false,
    })
}

/// Acknowledges.
pub(crate) async fn take(api: &Api, given: Acknowledgement, firing_ms: Option<i64>) -> Result<(), ApiError> {
    match api.engine.acknowledge(given, firing_ms).await {
        Ok(()) => Ok(()),
        Err(AcknowledgeError::State(error)) => Err(error.into()),
        Err(error @ AcknowledgeError::OtherFiring) => Err(ApiError::conflict(error)),
        Err(error) => Err(ApiError::not_found(error)),
    }
}

pub(super) async fn unacknowledge(
    Shared(api): Shared<Api>,
    Path(fingerprint): Path<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    same_site(&headers)?;
    let fingerprint = parse_fingerprint(&fingerprint)?;
    match api.engine.unacknowledge(fingerprint, "api").await {
        Ok(()) => Ok((StatusCode::OK, [(header::CACHE_CONTROL, "no-store")])),
        Err(AcknowledgeError::State(error)) => Err(error.into()),
        Err(error) => Err(ApiError::not_found(error)),
    }
}

pub(crate) fn parse_fingerprint(text: &str) -> Result<Fingerprint, ApiError> {
    text.parse().map_err(|_| ApiError::bad_request(format!("{text:?} is no fingerprint")))
}
