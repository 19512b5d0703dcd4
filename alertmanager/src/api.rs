//! The HTTP interface: Alertmanager's API v2 as `amtool`, Grafana and Prometheus speak it, and Pharos'
//! escalations and remediations beside it.

mod alerts;
pub(crate) mod escalations;
mod groups;
mod receivers;
mod remediations;
mod silences;
pub(crate) mod site;
mod status;
pub(crate) mod time;

use crate::engine::Engine;
use crate::state::StateError;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pharos_common::matcher::Matcher;
use std::sync::Arc;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) engine: Arc<Engine>,
}

/// All routes under `/api/v2`.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/api/v2/status", get(status::status))
        .route("/api/v2/receivers", get(receivers::list))
        .route("/api/v2/alerts", get(alerts::list).post(alerts::receive))
        .route("/api/v2/alerts/groups", get(groups::list))
        .route("/api/v2/silences", get(silences::list).post(silences::set))
        .route("/api/v2/silence/{id}", get(silences::get).delete(silences::expire))
        .route("/api/v2/escalations", get(escalations::list))
        .route("/api/v2/escalations/config", get(escalations::config))
        .route(
            "/api/v2/escalations/{fingerprint}/acknowledge",
            post(escalations::acknowledge).delete(escalations::unacknowledge),
        )
        .route("/api/v2/remediations", get(remediations::list))
        .route("/api/v2/remediations/{id}", get(remediations::get))
        .route("/api/v2/remediations/{id}/approve", post(remediations::approve))
        .route("/api/v2/remediations/{id}/reject", post(remediations::reject))
        .route("/api/v2/audit", get(remediations::audit))
        .layer(DefaultBodyLimit::max(crate::limits::BODY_BYTES_MAX))
        .with_state(api)
}

/// An answer that is no success; the body is a JSON string, as Alertmanager's.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(crate) fn bad_request(message: impl std::fmt::Display) -> Self {
        ApiError { status: StatusCode::BAD_REQUEST, message: message.to_string() }
    }

    pub(crate) fn not_found(message: impl std::fmt::Display) -> Self {
        ApiError { status: StatusCode::NOT_FOUND, message: message.to_string() }
    }

    pub(crate) fn conflict(message: impl std::fmt::Display) -> Self {
        ApiError { status: StatusCode::CONFLICT, message: message.to_string() }
    }

    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        ApiError { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl std::fmt::Display) -> Self {
        ApiError { status: StatusCode::SERVICE_UNAVAILABLE, message: message.to_string() }
    }
}

impl From<StateError> for ApiError {
    fn from(error: StateError) -> Self {
        ApiError::unavailable(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.message)).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        }
        response
    }
}

/// Query parameters in order, repeated ones included.
pub(crate) type Parameters = axum::extract::Query<Vec<(String, String)>>;

/// The values of a parameter that may be repeated.
fn all<'a>(parameters: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    parameters.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

/// A boolean parameter.
fn flag(parameters: &[(String, String)], name: &str, default: bool) -> Result<bool, ApiError> {
    match all(parameters, name).last() {
        None => Ok(default),
        Some(&"") => Ok(default),
        Some(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" | "yes" | "on" | "ok" | "checked" | "enabled" => Ok(true),
            "false" | "0" | "f" | "no" | "off" => Ok(false),
            _ => Err(ApiError::bad_request(format!("{name} in query must be of type boolean: {text:?}"))),
        },
    }
}

/// The matchers of the `filter` parameters.
fn filters(parameters: &[(String, String)], name: &str) -> Result<Vec<Matcher>, ApiError> {
    let mut matchers = Vec::new();
    for text in all(parameters, name) {
        matchers.extend(crate::matchers::parse(text).map_err(ApiError::bad_request)?);
    }
    Ok(matchers)
}

/// Refuses requests that a page of another site made a browser send: a loopback listener is within reach
/// of every page that a person on this machine opens.
pub(crate) fn same_site(headers: &HeaderMap) -> Result<(), ApiError> {
    if pharos_common::server::from_other_site(headers) {
        return Err(ApiError {
            status: StatusCode::FORBIDDEN,
            message: "requests from other sites are not accepted".to_owned(),
        });
    }
    Ok(())
}

/// Reads a JSON body whatever its content type says.
fn json<T: serde::de::DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_request(format!("parsing {what} body failed, because {error}")))
}
