//! What the agent serves over HTTP: `/metrics` (or where `--web.telemetry-path` wants it), `/samplers`, `POST /-/dump` (ships the flight recorder), a
//! landing page and the standard routes.

use crate::board::Board;
use crate::exposition::{Exposition, Format, quality};
use crate::own_metrics::OwnMetrics;
use crate::recorder::Recorder;
use crate::spool::SpoolHandle;
use crate::status::{GpuState, GpuStatus, SamplerStatuses};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use pharos_common::clock::SharedClock;
use pharos_common::server::StandardRoutes;
use prometheus::Registry;
use std::io::Write as _;
use std::sync::Arc;

/// Smaller answers are not worth compressing.
const COMPRESS_BYTES_MIN: usize = 1_024;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The latest readings.
    pub board: Arc<Board>,
    /// How the samplers fare.
    pub statuses: Arc<SamplerStatuses>,
    /// What is known about GPUs.
    pub gpus: Arc<GpuStatus>,
    /// Metrics about the agent.
    pub registry: Registry,
    /// The time.
    pub clock: SharedClock,
    /// The node's name.
    pub node: String,
    /// The same metrics, to count in.
    pub metrics: OwnMetrics,
    /// Where a recording goes; `None` in a plain exporter.
    pub spool: Option<SpoolHandle>,
    /// The flight recorder.
    pub recorder: Arc<Recorder>,
    /// Where the metrics are.
    pub telemetry_path: String,
    /// Whether the agent's metrics about itself are among them.
    pub own_metrics: bool,
}

/// All routes of the agent.
pub fn router(pages: Pages, standard: StandardRoutes) -> Router {
    let path = pages.telemetry_path.clone();
    let router = if path == "/" { Router::new() } else { Router::new().route("/", get(landing)) };
    router
        .route(&path, get(metrics))
        .route("/samplers", get(samplers))
        .route("/-/dump", post(dump).put(dump))
        .with_state(pages)
        .merge(standard.router())
}

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let header =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let format = Format::negotiate(header(header::ACCEPT));
    let mut exposition = Exposition::default();
    exposition.add_readings(&pages.board.latest(pages.clock.now_ms()));
    if pages.own_metrics {
        exposition.add_own(&pages.registry.gather());
    }
    let text = exposition.render(format).into_bytes();
    let content_type = (header::CONTENT_TYPE, format.content_type());
    if text.len() >= COMPRESS_BYTES_MIN
        && accepts_gzip(header(header::ACCEPT_ENCODING))
        && let Some(body) = gzip(&text)
    {
        let encoding = (header::CONTENT_ENCODING, "gzip");
        return ([content_type, encoding, (header::VARY, "Accept, Accept-Encoding")], body).into_response();
    }
    ([content_type, (header::VARY, "Accept, Accept-Encoding")], text).into_response()
}

/// Whether a compressed answer is wanted at least as much as one in clear.
fn accepts_gzip(header: &str) -> bool {
    let any = || quality(header, "*");
    let gzip = quality(header, "gzip").or_else(|| quality(header, "x-gzip")).or_else(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= quality(header, "identity").unwrap_or(0.0)
}

fn gzip(text: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 4), Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).ok()
}

async fn samplers(State(pages): State<Pages>) -> Response {
    Json(pages.statuses.list()).into_response()
}

/// Ships the last minute of the recorded series; the answer says how many samples that are.
async fn dump(State(pages): State<Pages>) -> Response {
    let Some(spool) = pages.spool else {
        return (StatusCode::CONFLICT, "No collector is configured to ship the recording to.\n")
            .into_response();
    };
    if pages.recorder.series() == 0 {
        let message = "Nothing is recorded: name series under `recorder:` in the configuration file.\n";
        return (StatusCode::CONFLICT, message).into_response();
    }
    let work = move || pages.recorder.dump(&pages.board, &spool, &pages.metrics);
    match tokio::task::spawn_blocking(work).await {
        Ok(samples) => format!("{samples} samples are on their way.\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn landing(State(pages): State<Pages>) -> Html<String> {
    let gpus = match pages.gpus.get() {
        GpuState::Unknown => "looking for GPUs".to_owned(),
        GpuState::NoLibrary { .. } => "no GPUs (NVML is not installed)".to_owned(),
        GpuState::Loaded { gpus, .. } if gpus.is_empty() => "no GPUs".to_owned(),
        GpuState::Loaded { gpus, .. } => format!("{} GPUs: {}", gpus.len(), escape(&gpus.join(", "))),
    };
    let running = pages.statuses.list().len();
    Html(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Pharos agent</title></head>\n<body>\
         <h1>Pharos agent on {}</h1>\n<p>{running} samplers, {gpus}.</p>\n<ul>\n\
         <li><a href=\"{}\">Metrics</a></li>\n<li><a href=\"/samplers\">Samplers: rate, cost, last error</a></li>\n\
         <li><a href=\"/-/healthy\">Healthy?</a></li>\n<li><a href=\"/-/ready\">Ready?</a></li>\n</ul></body></html>\n",
        escape(&pages.node),
        escape(&pages.telemetry_path)
    ))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compressed_for_those_who_want_it() {
        for header in [
            "gzip",
            "GZIP",
            "deflate, gzip;q=1.0",
            "*",
            "gzip;q=0.5, identity;q=0.5",
            "x-gzip",
            "br, gzip ; q=0.2",
        ] {
            assert!(accepts_gzip(header), "{header}");
        }
        for header in
            ["", "gzip;q=0", "gzip; Q=0.0, *", "identity", "gzip;q=0.5, identity", "br, deflate", "*;q=0"]
        {
            assert!(!accepts_gzip(header), "{header}");
        }
    }
}
