//! Routes every program has: `/metrics`, `/-/healthy`, `/-/ready`, `/-/reload` and `/-/quit`.

use crate::self_metrics;
use crate::shutdown::Shutdown;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use prometheus::Registry;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

/// Whether a program can do its work, and if not, why. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    reason: Arc<RwLock<Option<String>>>,
}

impl Readiness {
    /// Not ready yet.
    pub fn starting() -> Self {
        Readiness { reason: Arc::new(RwLock::new(Some("starting".to_owned()))) }
    }

    /// Ready from now on.
    pub fn set_ready(&self) {
        *self.reason.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Not ready, for the reason given.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        *self.reason.write().unwrap_or_else(PoisonError::into_inner) = Some(reason.into());
    }

    /// Why the program is not ready, or `None`.
    pub fn reason(&self) -> Option<String> {
        self.reason.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

type ReloadFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Reads the configuration again. Clones share it.
#[derive(Clone)]
pub struct Reload {
    run: Arc<dyn Fn() -> ReloadFuture + Send + Sync>,
}

impl Reload {
    /// Wraps a function that reloads, or says why it kept the old configuration.
    pub fn new<F, Fut>(run: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        Reload { run: Arc::new(move || Box::pin(run())) }
    }

    /// Reloads now and logs the outcome.
    ///
    /// # Errors
    /// Why the old configuration stays.
    pub async fn run(&self) -> Result<(), String> {
        let outcome = (self.run)().await;
        match &outcome {
            Ok(()) => tracing::info!("Configuration loaded again"),
            Err(error) => tracing::error!(%error, "Configuration kept as it was: the new one is broken"),
        }
        outcome
    }
}

/// The parts behind the standard routes.
#[derive(Clone)]
pub struct StandardRoutes {
    /// The program as people know it, e.g. `Pharos collector`.
    pub program: &'static str,
    /// What `/metrics` serves; `None` if the program serves it itself.
    pub registry: Option<Registry>,
    /// What `/-/ready` tells.
    pub readiness: Readiness,
    /// What `/-/reload` does.
    pub reload: Reload,
    /// What `/-/quit` cancels; `None` switches it off.
    pub quit: Option<Shutdown>,
}

impl StandardRoutes {
    /// The routes as a router to merge into the program's own.
    pub fn router(self) -> Router {
        let mut router = Router::new()
            .route("/-/healthy", get(healthy))
            .route("/-/ready", get(ready))
            .route("/-/reload", post(reload).put(reload))
            .route("/-/quit", post(quit).put(quit));
        if self.registry.is_some() {
            router = router.route("/metrics", get(metrics));
        }
        router.with_state(self)
    }
}

async fn healthy(State(routes): State<StandardRoutes>) -> String {
    format!("{} is Healthy.\n", routes.program)
}

async fn ready(State(routes): State<StandardRoutes>) -> Response {
    match routes.readiness.reason() {
        None => format!("{} is Ready.\n", routes.program).into_response(),
        Some(reason) => {
            let text = format!("{} is not ready: {reason}\n", routes.program);
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

/// Whether a page of another site made a browser send a request.
pub fn from_other_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let origin_host = text("origin").map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    text("sec-fetch-site") == Some("cross-site") || origin_host.is_some_and(|host| Some(host) != text("host"))
}

fn refused() -> Response {
    (StatusCode::FORBIDDEN, "requests from other sites are not accepted\n").into_response()
}

async fn reload(State(routes): State<StandardRoutes>, headers: HeaderMap) -> Response {
    if from_other_site(&headers) {
        return refused();
    }
    match routes.reload.run().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(error) => {
            let text = format!("failed to reload config: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}

async fn quit(State(routes): State<StandardRoutes>, headers: HeaderMap) -> Response {
    if from_other_site(&headers) {
        return refused();
    }
    match &routes.quit {
        Some(shutdown) => {
            shutdown.cancel();
            "Requesting termination... Goodbye!\n".into_response()
        }
        None => (StatusCode::FORBIDDEN, "Lifecycle API is not enabled.\n").into_response(),
    }
}

/// Whether a request allows its answer to be compressed in a way (`gzip`).
pub fn accepts_coding(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight: String = weight.split_whitespace().collect();
        let weight = weight.strip_prefix("q=").and_then(|weight| weight.parse::<f64>().ok());
        name.trim().eq_ignore_ascii_case(wanted) && weight.is_none_or(|weight| weight > 0.0)
    })
}

async fn metrics(State(routes): State<StandardRoutes>, headers: HeaderMap) -> Response {
    let body = routes.registry.as_ref().map(self_metrics::encode).unwrap_or_default();
    let kind = (header::CONTENT_TYPE, self_metrics::TEXT_FORMAT);
    if !accepts_coding(&headers, "gzip") {
        return ([kind], body).into_response();
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    match packed.write_all(&body).and_then(|()| packed.finish()) {
        Ok(packed) => {
            let headers = [kind, (header::CONTENT_ENCODING, "gzip"), (header::VARY, "Accept-Encoding")];
            (headers, packed).into_response()
        }
        Err(_) => ([kind], body).into_response(),
    }
}
