//! `/api/v2/alerts`: what Prometheus posts and people query.

use super::time::{self, rfc3339};
use super::{Api, ApiError, Parameters, all, filters, flag};
use crate::alert::{Alert, Fingerprint, label_map};
use crate::config::Settings;
use crate::engine::{ReceiveError, State};
use crate::limits::{LABEL_BYTES_MAX, LABELS_PER_ALERT_MAX};
use crate::route::muted_by_time;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode};
use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An alert as it is posted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PostableAlert {
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    starts_at: Option<String>,
    #[serde(default)]
    ends_at: Option<String>,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
}

/// An alert as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GettableAlert {
    annotations: BTreeMap<String, String>,
    ends_at: String,
    pub(crate) fingerprint: String,
    receivers: Vec<Name>,
    starts_at: String,
    pub(crate) status: AlertStatus,
    updated_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    pub(crate) labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Name {
    pub(crate) name: String,
}

/// Whether an alert is told of, and why not.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AlertStatus {
    inhibited_by: Vec<String>,
    pub(crate) muted_by: Vec<String>,
    silenced_by: Vec<String>,
    pub(crate) state: &'static str,
}

/// Which alerts are asked for.
#[derive(Debug)]
pub(crate) struct Selection {
    active: bool,
    silenced: bool,
    inhibited: bool,
    matchers: Vec<Matcher>,
    receiver: Option<Matcher>,
}

impl Selection {
    pub(crate) fn read(parameters: &[(String, String)]) -> Result<Self, ApiError> {
        let receiver = match all(parameters, "receiver").last() {
            None | Some(&"") => None,
            Some(pattern) => Some(Matcher::new("receiver", MatchOp::Regex, *pattern).map_err(|error| {
                ApiError::bad_request(format!("failed to parse receiver param: {error}"))
            })?),
        };
        // Every alert is processed when it arrives, so there are never unprocessed ones to select.
        flag(parameters, "unprocessed", true)?;
        Ok(Selection {
            active: flag(parameters, "active", true)?,
            silenced: flag(parameters, "silenced", true)?,
            inhibited: flag(parameters, "inhibited", true)?,
            matchers: filters(parameters, "filter")?,
            receiver,
        })
    }

    pub(crate) fn wants_receiver(&self, name: &str) -> bool {
        self.receiver.as_ref().is_none_or(|pattern| pattern.matches(name))
    }

    pub(crate) fn wants(&self, alert: &Alert, status: &AlertStatus, now_ms: TimestampMs) -> bool {
        !alert.is_resolved_at(now_ms)
            && (self.active || status.state != "active")
            && (self.silenced || status.silenced_by.is_empty())
            && (self.inhibited || status.inhibited_by.is_empty())
            && self.matchers.iter().all(|matcher| matcher.matches_labels(&alert.labels))
    }
}

/// How an alert stands.
pub(crate) fn status_of(state: &State, alert: &Alert, now_ms: TimestampMs) -> AlertStatus {
    let silenced_by = state.silences.silencing(&alert.labels, now_ms);
    let inhibitor = state.inhibitor.inhibiting(&alert.labels, &state.alerts, now_ms);
    let inhibited_by: Vec<String> = inhibitor.iter().map(Fingerprint::to_string).collect();
    let suppressed = !silenced_by.is_empty() || !inhibited_by.is_empty();
    AlertStatus {
        inhibited_by,
        muted_by: Vec::new(),
        silenced_by,
        state: if suppressed { "suppressed" } else { "active" },
    }
}

/// The names of the receivers that an alert's routes tell, and the intervals that keep them mute now.
fn routes_of(settings: &Settings, labels: &Labels, now_ms: TimestampMs) -> (Vec<Name>, Vec<String>) {
    let routes: Vec<_> =
        settings.routes.matching(labels).into_iter().filter_map(|id| settings.routes.get(id)).collect();
    let receivers: BTreeSet<Name> =
        routes.iter().map(|route| Name { name: route.receiver.clone() }).collect();
    let mut muted = BTreeSet::new();
    for route in routes {
        muted.extend(muted_by_time(route, &settings.intervals, now_ms));
    }
    (receivers.into_iter().collect(), muted.into_iter().collect())
}

pub(crate) fn shown(alert: &Alert, receivers: Vec<Name>, status: AlertStatus) -> GettableAlert {
    GettableAlert {
        annotations: alert.annotations.clone(),
        ends_at: rfc3339(alert.ends_at_ms),
        fingerprint: alert.fingerprint().to_string(),
        receivers,
        starts_at: rfc3339(alert.starts_at_ms),
        status,
        updated_at: rfc3339(alert.updated_at_ms),
        generator_url: alert.generator_url.clone(),
        labels: label_map(&alert.labels),
    }
}

pub(super) async fn list(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<GettableAlert>>, ApiError> {
    let selection = Selection::read(&parameters)?;
    let now_ms = api.engine.now_ms();
    let settings = api.engine.settings.load_full();
    let state = api.engine.lock();
    let mut alerts: Vec<GettableAlert> = state
        .alerts
        .iter()
        .filter_map(|(_, alert)| {
            let (receivers, muted_by) = routes_of(&settings, &alert.labels, now_ms);
            if !receivers.iter().any(|receiver| selection.wants_receiver(&receiver.name)) {
                return None;
            }
            let mut status = status_of(&state, alert, now_ms);
            status.muted_by = muted_by;
            selection.wants(alert, &status, now_ms).then(|| shown(alert, receivers, status))
        })
        .collect();
    alerts.sort_by(|a, b| a.fingerprint.cmp(&b.fingerprint));
    Ok(Json(alerts))
}

pub(super) async fn receive(
    Shared(api): Shared<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    super::same_site(&headers)?;
    let posted: Vec<PostableAlert> = super::json("alerts", &body)?;
    let now_ms = api.engine.now_ms();
    let resolve_timeout_ms = api.engine.settings.load().resolve_timeout_ms;
    let mut alerts = Vec::with_capacity(posted.len());
    let mut faults = Vec::new();
    for alert in posted {
        match taken(alert, now_ms, resolve_timeout_ms) {
            Ok(alert) => {
                let status = if alert.is_resolved_at(now_ms) { "resolved" } else { "firing" };
                api.engine.metrics.alerts_received.with_label_values(&[status, "v2"]).inc();
                alerts.push(alert);
            }
            Err(fault) => {
                api.engine.metrics.alerts_invalid.with_label_values(&["v2"]).inc();
                faults.push(fault);
            }
        }
    }
    match api.engine.receive(alerts).await {
        Ok(()) if faults.is_empty() => Ok(StatusCode::OK),
        // The others were taken in.
        Ok(()) => Err(ApiError::bad_request(faults.join("; "))),
        Err(error @ (ReceiveError::Full(_) | ReceiveError::State(_))) => Err(ApiError::unavailable(error)),
    }
}

/// A posted alert as it is kept, or what is wrong with it.
fn taken(posted: PostableAlert, now_ms: TimestampMs, resolve_timeout_ms: i64) -> Result<Alert, String> {
    let time = |text: &Option<String>| match text.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => time::parse(text),
    };
    let (starts_at, ends_at) = (time(&posted.starts_at)?, time(&posted.ends_at)?);
    let starts_at_ms = starts_at.or(ends_at).unwrap_or(now_ms);
    let ends_at_ms = ends_at.unwrap_or(now_ms + resolve_timeout_ms);
    if ends_at.is_some_and(|end| end < starts_at_ms) {
        return Err("start time must be before end time".to_owned());
    }
    let labels = Labels::from_pairs(&posted.labels);
    if labels.is_empty() {
        return Err("at least one label pair required".to_owned());
    }
    let annotations = posted.annotations.unwrap_or_default();
    for (what, map) in [("label", &posted.labels), ("annotation", &annotations)] {
        if map.len() > LABELS_PER_ALERT_MAX {
            return Err(format!("more than {LABELS_PER_ALERT_MAX} {what}s"));
        }
        for (name, value) in map {
            if name.is_empty() {
                return Err(format!("invalid {what} set: invalid name \"\""));
            }
            if name.len() + value.len() > LABEL_BYTES_MAX {
                return Err(format!(
                    "{what} {:?} is longer than {LABEL_BYTES_MAX} bytes",
                    crate::notify::truncate(name, 60)
                ));
            }
        }
    }
    Ok(Alert {
        labels,
        annotations,
        starts_at_ms,
        ends_at_ms,
        updated_at_ms: now_ms,
        timeout: ends_at.is_none(),
        generator_url: posted.generator_url.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_written_is_filled_in_as_alertmanager_does() {
        #[track_caller]
        fn check(json: &str, want: Result<(i64, i64, bool), &str>) {
            let posted = serde_json::from_str(json).unwrap();
            let got = taken(posted, 1_000, 300_000)
                .map(|alert| (alert.starts_at_ms, alert.ends_at_ms, alert.timeout));
            assert_eq!(got, want.map_err(str::to_owned), "{json}");
        }
        check(r#"{"labels":{"a":"b"}}"#, Ok((1_000, 301_000, true)));
        check(r#"{"labels":{"a":"b"},"startsAt":"1970-01-01T00:00:00.5Z"}"#, Ok((500, 301_000, true)));
        check(r#"{"labels":{"a":"b"},"endsAt":"1970-01-01T00:00:02Z"}"#, Ok((2_000, 2_000, false)));
        check(
            r#"{"labels":{"a":"b"},"startsAt":"0001-01-01T00:00:00Z","endsAt":"0001-01-01T00:00:00Z"}"#,
            Ok((1_000, 301_000, true)),
        );
        check(r#"{"labels":{"a":""}}"#, Err("at least one label pair required"));
        check(
            r#"{"labels":{"a":"b"},"startsAt":"1970-01-01T00:00:09Z","endsAt":"1970-01-01T00:00:02Z"}"#,
            Err("start time must be before end time"),
        );
    }
}
