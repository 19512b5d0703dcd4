//! `/admin/tsdb/*`: work on the storage that somebody asks for.

use super::answer::{Answer, ApiError, success};
use super::encoding::Encoding;
use super::parameters::Parameters;
use super::series::selectors;
use crate::collector::Collector;
use axum::extract::State;
use axum::http::StatusCode;
use pharos_tsdb::TsdbError;
use serde_json::Value;
use std::sync::Arc;

/// `/api/v1/admin/tsdb/flush`: seals the head into blocks; all is durable when it answers.
pub(crate) async fn flush(State(collector): State<Arc<Collector>>) -> Answer {
    let database = collector.database.clone();
    run(move || database.flush()).await?;
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
    run(move || database.snapshot(&name)).await?;
    success(&answer, Encoding::Identity)
}

/// `/api/v1/admin/tsdb/delete_series`: the samples of the selected series in a range are never seen again.
pub(crate) async fn delete_series(
    State(collector): State<Arc<Collector>>,
    parameters: Parameters,
) -> Result<StatusCode, ApiError> {
    if !collector.options.enable_admin_api {
        return Err(disabled());
    }
    parameters.insist_on_all()?;
    let selectors = selectors(&parameters)?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let (start_ms, end_ms) = parameters.search_range()?;
    let database = collector.database.clone();
    run(move || selectors.iter().try_for_each(|matchers| database.delete_series(matchers, start_ms, end_ms)))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `/api/v1/admin/tsdb/clean_tombstones`: writes blocks anew without what was deleted.
pub(crate) async fn clean_tombstones(
    State(collector): State<Arc<Collector>>,
) -> Result<StatusCode, ApiError> {
    if !collector.options.enable_admin_api {
        return Err(disabled());
    }
    let database = collector.database.clone();
    let blocks = run(move || database.clean_tombstones()).await?;
    tracing::info!(blocks, "Deleted samples were removed from disk");
    Ok(StatusCode::NO_CONTENT)
}

/// Runs work on the storage on a thread that may block.
async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TsdbError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(ApiError::internal)?.map_err(|error| match error {
        TsdbError::Busy(_) => ApiError::unavailable(error.to_string()),
        error => ApiError::internal(error),
    })
}

fn disabled() -> ApiError {
    ApiError::unavailable("admin APIs disabled; start with --web.enable-admin-api")
}
