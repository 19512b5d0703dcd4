//! `/api/v2/receivers`.

use super::{Api, ApiError, Parameters, filters};
use axum::Json;
use axum::extract::State as Shared;
use pharos_common::labels::Labels;
use serde_json::{Value, json};

pub(super) async fn list(
    Shared(api): Shared<Api>,
    parameters: Parameters,
) -> Result<Json<Vec<Value>>, ApiError> {
    let mut matchers = filters(&parameters, "receiver_matchers")?;
    matchers.extend(filters(&parameters, "receiver_matchers[]")?);
    let settings = api.engine.settings.load();
    let wanted = settings.receivers.values().filter(|receiver| {
        let labels = Labels::from_pairs(&receiver.labels);
        matchers.iter().all(|matcher| matcher.matches_labels(&labels))
    });
    let shown = wanted.map(|receiver| {
        let mut entry = json!({"name": receiver.name});
        if !receiver.labels.is_empty() {
            entry["labels"] = json!(receiver.labels);
        }
        entry
    });
    Ok(Json(shown.collect()))
}
