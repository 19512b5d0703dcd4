//! `/admin/tsdb/*`: work on the storage that somebody asks for.

use super::answer::{Answer, ApiError, success};
use super::encoding::Encoding;
use crate::collector::Collector;
use axum::extract::{Path, State};
use serde_json::Value;
use std::sync::Arc;

/// `/api/v1/admin/tsdb/flush`: seals the head into blocks; all is durable when it answers.
pub(crate) async fn flush(State(collector): State<Arc<Collector>>) -> Answer {
    let database = collector.database.clone();
    tokio::task::spawn_blocking(move || database.flush())
        .await
        .map_err(ApiError::internal)?
        .map_err(ApiError::internal)?;
    success(&Value::Null, Encoding::Identity)
}

/// `/api/v1/admin/tsdb/snapshot`: a copy of the storage by hard links, named by the time.
pub(crate) async fn snapshot(State(collector): State<Arc<Collector>>) -> Answer {
    if !collector.options.enable_admin_api {
        return Err(disabled());
    }
    let database = collector.database.clone();
    let name = chrono::Utc::now().format("%Y%m%dT%H%M%S%3fZ").to_string();
    let answer = serde_json::json!({ "name": name });
    tokio::task::spawn_blocking(move || database.snapshot(&name))
        .await
        .map_err(ApiError::internal)?
        .map_err(ApiError::internal)?;
    success(&answer, Encoding::Identity)
}

fn disabled() -> ApiError {
    ApiError::unavailable("admin APIs disabled; start with --web.enable-admin-api")
}

/// What is not there yet, or not allowed.
pub(crate) async fn refused(State(collector): State<Arc<Collector>>, Path(action): Path<String>) -> ApiError {
    match action.as_str() {
        "delete_series" | "clean_tombstones" if collector.options.enable_admin_api => {
            ApiError::unavailable(format!("{action} is not supported yet"))
        }
        "delete_series" | "clean_tombstones" => disabled(),
        _ => ApiError::new(axum::http::StatusCode::NOT_FOUND, "not_found", "path not found"),
    }
}
