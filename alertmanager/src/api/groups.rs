//! `/api/v2/alerts/groups`.

use super::alerts::{GettableAlert, Name, Selection, shown, status_of};
use super::{Api, ApiError, Parameters, flag};
use crate::alert::{Alert, label_map};
use crate::route::muted_by_time;
use axum::Json;
use axum::extract::State as Shared;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AlertGroup {
    alerts: Vec<GettableAlert>,
    labels: BTreeMap<String, String>,
    receiver: Name,
}

pub(super) async fn list(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<AlertGroup>>, ApiError> {
    let selection = Selection::read(&parameters)?;
    let muted = flag(&parameters, "muted", true)?;
    let now_ms = api.engine.now_ms();
    let settings = api.engine.settings.load_full();
    let state = api.engine.lock();
    let mut groups = Vec::new();
    for group in state.groups.values() {
        if !selection.wants_receiver(&group.receiver) {
            continue;
        }
        let muted_by = settings
            .routes
            .get(group.route)
            .map(|route| muted_by_time(route, &settings.intervals, now_ms))
            .unwrap_or_default();
        if !muted && !muted_by.is_empty() {
            continue;
        }
        let receiver = Name { name: group.receiver.clone() };
        let mut members: Vec<&Alert> =
            group.members.iter().filter_map(|&member| state.alerts.get(member)).collect();
        members.sort_by(|a, b| a.labels.cmp(&b.labels));
        let alerts: Vec<GettableAlert> = members
            .into_iter()
            .filter_map(|alert| {
                let mut status = status_of(&state, alert, now_ms);
                status.muted_by.clone_from(&muted_by);
                selection.wants(alert, &status, now_ms).then(|| shown(alert, vec![receiver.clone()], status))
            })
            .collect();
        if !alerts.is_empty() {
            groups.push(AlertGroup { alerts, labels: label_map(&group.labels), receiver });
        }
    }
    groups.sort_by(|a, b| (&a.labels, &a.receiver).cmp(&(&b.labels, &b.receiver)));
    Ok(Json(groups))
}
