//! `/api/v2/silences` and `/api/v2/silence/{id}`.

use super::time::{self, rfc3339};
use super::{Api, ApiError, Parameters, filters, flag, same_site};
use crate::silence::{Silence, SilenceError, SilenceMatcher, SilenceState};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostableSilence {
    #[serde(default)]
    id: Option<String>,
    matchers: Vec<SilenceMatcher>,
    starts_at: String,
    ends_at: String,
    created_by: String,
    comment: String,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GettableSilence {
    id: String,
    status: Value,
    updated_at: String,
    comment: String,
    created_by: String,
    ends_at: String,
    matchers: Vec<SilenceMatcher>,
    starts_at: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

fn shown(silence: &Silence, now_ms: TimestampMs) -> GettableSilence {
    GettableSilence {
        id: silence.id.clone(),
        status: json!({"state": silence.state_at(now_ms).as_str()}),
        updated_at: rfc3339(silence.updated_at_ms),
        comment: silence.comment.clone(),
        created_by: silence.created_by.clone(),
        ends_at: rfc3339(silence.ends_at_ms),
        matchers: silence.matchers.clone(),
        starts_at: rfc3339(silence.starts_at_ms),
        annotations: silence.annotations.clone(),
    }
}

pub(super) async fn list(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<GettableSilence>>, ApiError> {
    let matchers = filters(&parameters, "filter")?;
    let wanted = [
        (SilenceState::Active, flag(&parameters, "active", true)?),
        (SilenceState::Pending, flag(&parameters, "pending", true)?),
        (SilenceState::Expired, flag(&parameters, "expired", true)?),
    ];
    let now_ms = api.engine.now_ms();
    let state = api.engine.lock();
    let mut silences: Vec<&Silence> = state
        .silences
        .iter()
        .filter(|silence| wanted.contains(&(silence.state_at(now_ms), true)))
        .filter(|silence| {
            // A filter compares with what the silence's own matchers say of a label.
            let own =
                Labels::from_pairs(silence.matchers.iter().map(|matcher| (&matcher.name, &matcher.value)));
            matchers.iter().all(|matcher| matcher.matches_labels(&own))
        })
        .collect();
    // Active ones by their end, then pending ones by their start, then expired ones, the latest first.
    silences.sort_by_key(|silence| match silence.state_at(now_ms) {
        SilenceState::Active => (0, silence.ends_at_ms),
        SilenceState::Pending => (1, silence.starts_at_ms),
        SilenceState::Expired => (2, -silence.ends_at_ms),
    });
    Ok(Json(silences.into_iter().map(|silence| shown(silence, now_ms)).collect()))
}

pub(super) async fn get(
    Shared(api): Shared<Api>,
    Path(id): Path<String>,
) -> Result<Json<GettableSilence>, ApiError> {
    let now_ms = api.engine.now_ms();
    let state = api.engine.lock();
    let silence = state.silences.get(&id).ok_or_else(|| ApiError::not_found(SilenceError::NotFound(id)))?;
    Ok(Json(shown(silence, now_ms)))
}

pub(super) async fn set(
    Shared(api): Shared<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    same_site(&headers)?;
    let posted: PostableSilence = super::json("silence", &body)?;
    let now_ms = api.engine.now_ms();
    let time = |name: &str, text: &str| {
        time::parse(text)
            .map_err(ApiError::bad_request)?
            .ok_or_else(|| ApiError::bad_request(format!("{name} in body is required")))
    };
    let (starts_at_ms, ends_at_ms) = (time("startsAt", &posted.starts_at)?, time("endsAt", &posted.ends_at)?);
    if ends_at_ms <= starts_at_ms {
        return Err(ApiError::bad_request("failed to create silence: start time must be before end time"));
    }
    if ends_at_ms < now_ms {
        return Err(ApiError::bad_request("failed to create silence: end time can't be in the past"));
    }
    let silence = Silence {
        id: posted.id.unwrap_or_default(),
        matchers: posted.matchers,
        starts_at_ms,
        ends_at_ms,
        updated_at_ms: now_ms,
        created_by: posted.created_by,
        comment: posted.comment,
        annotations: posted.annotations.unwrap_or_default(),
    };
    match api.engine.set_silence(silence).await? {
        Ok(id) => Ok(Json(json!({"silenceID": id}))),
        Err(error @ SilenceError::NotFound(_)) => Err(ApiError::not_found(error)),
        Err(error) => Err(ApiError::bad_request(error)),
    }
}

pub(super) async fn expire(
    Shared(api): Shared<Api>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    same_site(&headers)?;
    match api.engine.expire_silence(&id).await? {
        Ok(()) => Ok(StatusCode::OK),
        Err(error @ SilenceError::NotFound(_)) => Err(ApiError::not_found(error)),
        Err(error) => Err(ApiError::internal(error)),
    }
}
