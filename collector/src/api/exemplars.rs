//! `/api/v1/query_exemplars`: exemplars of all series that a query selects.

use super::answer::{Answer, ApiError, success};
use super::parameters::Parameters;
use super::time::{EARLIEST_MS, LATEST_MS};
use crate::collector::Collector;
use axum::extract::State;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_promql::format_float;
use serde::Serialize;
use std::sync::Arc;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfSeries {
    series_labels: Labels,
    exemplars: Vec<Exemplar>,
}

#[derive(Serialize)]
struct Exemplar {
    labels: Labels,
    value: String,
    /// Seconds since the epoch.
    timestamp: f64,
}

/// `/api/v1/query_exemplars?query=…&start=…&end=…`
pub(crate) async fn query_exemplars(
    State(collector): State<Arc<Collector>>,
    parameters: Parameters,
) -> Answer {
    // Clients probe with times that make no sense: an end before the start finds nothing.
    let start_ms = parameters.time_or("start", EARLIEST_MS)?;
    let end_ms = parameters.time_or("end", LATEST_MS)?;
    let expr = pharos_promql::parse(parameters.get_or_empty("query"))
        .map_err(|error| ApiError::parameter("query", error))?;
    let selectors: Vec<Vec<Matcher>> = expr.selectors().map(|selector| selector.matchers.clone()).collect();
    let found = collector.database.exemplars(&selectors, start_ms, end_ms);
    let answer: Vec<OfSeries> = found
        .into_iter()
        .map(|(series_labels, exemplars)| OfSeries {
            series_labels,
            exemplars: exemplars
                .into_iter()
                .map(|exemplar| Exemplar {
                    labels: exemplar.labels,
                    value: format_float(exemplar.value),
                    timestamp: exemplar.timestamp_ms as f64 / 1_000.0,
                })
                .collect(),
        })
        .collect();
    success(&answer, parameters.encoding)
}
