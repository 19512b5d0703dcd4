//! `/api/v2/remediations`, approvals, and the audit record.

use super::time::rfc3339;
use super::{Api, ApiError, Parameters, all, same_site};
use crate::alert::label_map;
use crate::engine::DecideError;
use crate::remediate::audit::AuditEntry;
use crate::remediate::record::Remediation;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

const STATES: [&str; 10] = [
    "dry_run",
    "pending",
    "waiting",
    "running",
    "verifying",
    "succeeded",
    "failed",
    "refused",
    "rejected",
    "expired",
];
/// Audit entries shown when no limit is asked for.
const AUDIT_SHOWN: usize = 200;

pub(super) async fn list(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<Value>>, ApiError> {
    let wanted = all(&parameters, "state");
    if let Some(unknown) = wanted.iter().find(|state| !STATES.contains(state)) {
        return Err(ApiError::bad_request(format!(
            "unknown state {unknown:?}: one of {}",
            STATES.join(", ")
        )));
    }
    let state = api.engine.lock();
    let mut repairs: Vec<&Remediation> = state
        .remediations
        .values()
        .filter(|repair| wanted.is_empty() || wanted.contains(&repair.state.as_str()))
        .collect();
    repairs.sort_by_key(|repair| (-repair.created_at_ms, repair.id.clone()));
    Ok(Json(repairs.into_iter().map(shown).collect()))
}

pub(super) async fn get(Shared(api): Shared<Api>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let state = api.engine.lock();
    let repair = state.remediations.get(&id).ok_or_else(|| ApiError::not_found(DecideError::NotFound(id)))?;
    Ok(Json(shown(repair)))
}

fn shown(repair: &Remediation) -> Value {
    json!({
        "id": repair.id,
        "policy": repair.policy,
        "mode": repair.mode,
        "state": repair.state,
        "reason": repair.reason,
        "fingerprint": repair.alert.fingerprint().to_string(),
        "labels": label_map(&repair.alert.labels),
        "node": repair.node,
        "command": repair.arguments,
        "createdAt": rfc3339(repair.created_at_ms),
        "updatedAt": rfc3339(repair.updated_at_ms),
        "actedAt": repair.acted_at_ms.map(rfc3339),
        "verifyUntil": repair.verify_until_ms.map(rfc3339),
        "decidedBy": repair.decided_by,
        "comment": repair.comment,
        "inDoubt": repair.in_doubt,
        "outcome": repair.outcome,
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Decision {
    by: String,
    comment: String,
}

pub(super) async fn approve(
    api: Shared<Api>,
    id: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    decide(api, id, &headers, &body, true).await
}

pub(super) async fn reject(
    api: Shared<Api>,
    id: Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    decide(api, id, &headers, &body, false).await
}

async fn decide(
    Shared(api): Shared<Api>,
    Path(id): Path<String>,
    headers: &HeaderMap,
    body: &[u8],
    approve: bool,
) -> Result<Json<Value>, ApiError> {
    same_site(headers)?;
    let decision: Decision = super::json("decision", body)?;
    if decision.by.trim().is_empty() {
        return Err(ApiError::bad_request("by must say who decides"));
    }
    if decision.by.len() + decision.comment.len() > crate::limits::COMMENT_BYTES_MAX {
        return Err(ApiError::bad_request("by and comment are too long"));
    }
    match api.engine.decide(&id, approve, &decision.by, &decision.comment).await {
        Ok(()) => {
            let state = api.engine.lock();
            Ok(Json(state.remediations.get(&id).map(shown).unwrap_or_default()))
        }
        Err(DecideError::State(error)) => Err(error.into()),
        Err(error @ DecideError::NotFound(_)) => Err(ApiError::not_found(error)),
        Err(error @ DecideError::NotPending(..)) => Err(ApiError::conflict(error)),
    }
}

pub(super) async fn audit(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<Value>>, ApiError> {
    let limit = match all(&parameters, "limit").last() {
        None => AUDIT_SHOWN,
        Some(text) => text.parse().map_err(|_| ApiError::bad_request(format!("{text:?} is no limit")))?,
    };
    let entries: Vec<AuditEntry> = api.engine.store.newest_audit(limit.min(crate::limits::AUDIT_RECORDS_MAX));
    let shown = entries.into_iter().map(|entry| {
        json!({
            "at": rfc3339(entry.at_ms),
            "event": entry.event,
            "subject": entry.subject,
            "actor": entry.actor,
            "detail": entry.detail,
        })
    });
    Ok(Json(shown.collect()))
}
