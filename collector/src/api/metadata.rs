//! `/metadata`: what metrics mean.

use super::answer::{Answer, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// `/api/v1/metadata`
pub(crate) async fn metadata(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let wanted = parameters.get("metric");
    let limit = parameters.limit()?.unwrap_or(usize::MAX);
    let metrics: Map<String, Value> = collector
        .database
        .metadata()
        .into_iter()
        .filter(|(metric, _)| wanted.is_none_or(|wanted| wanted == metric))
        .take(limit)
        .map(|(metric, about)| {
            (metric, json!([{"type": about.kind.as_str(), "help": about.help, "unit": about.unit}]))
        })
        .collect();
    success(&metrics, parameters.encoding)
}
