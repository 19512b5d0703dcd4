//! `/features`: which of Prometheus' features there are, by its names, so that clients need not guess by the
//! version. `/status/buildinfo` says nothing of them: Grafana would take us for Mimir.

use super::answer::{Answer, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::ingest::type_labels;
use axum::extract::State;
use pharos_promql::ast::{AggregateOp, BinaryOp};
use pharos_promql::functions;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Words of the query language.
const KEYWORDS: &[&str] = &[
    "anchored",
    "at_modifier",
    "bool",
    "by",
    "delayed_name_removal",
    "duration_expr",
    "end",
    "fill",
    "fill_left",
    "fill_right",
    "group_left",
    "group_right",
    "ignoring",
    "negative_offset",
    "offset",
    "on",
    "per_query_lookback_delta",
    "per_step_stats",
    "range",
    "smoothed",
    "start",
    "step",
    "subqueries",
    "type_and_unit_labels",
    "without",
];

/// `/api/v1/features`
pub(crate) async fn features(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let on = |names: &mut dyn Iterator<Item = &'static str>| -> Map<String, Value> {
        names.map(|name| (name.to_owned(), true.into())).collect()
    };
    let options = &collector.options;
    let operators = BinaryOp::ALL.iter().map(|op| op.as_str());
    let aggregators = AggregateOp::ALL.iter().map(|op| op.as_str());
    let data = json!({
        "api": {
            "admin": options.enable_admin_api,
            "label_values_match": true,
            "lifecycle": options.enable_lifecycle,
            "otlp_write_receiver": false,
            "query_stats": true,
            "query_warnings": true,
            "remote_write_receiver": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "promql": on(&mut KEYWORDS.iter().copied()),
        "promql_functions": on(&mut functions::names()),
        "promql_operators": on(&mut operators.chain(aggregators)),
        "prometheus": {"type_and_unit_labels": type_labels::is_wanted(options)},
        "rules": {"keep_firing_for": true, "query_offset": true},
        "tsdb": {"exemplar_storage": true, "native_histograms": true, "delete_series": true, "snapshot": true},
    });
    success(&data, parameters.encoding)
}
