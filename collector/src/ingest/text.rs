//! `POST /api/v1/import/prometheus`: samples in the text exposition format, for scripts.
//!
//! A text with a fault is refused whole: nothing of it is stored.

use super::http_write::{WriteRefusal, decode_text, read_body, refuse_out_of_bounds};
use super::{exposition, series_writer::LoneSample};
use crate::collector::Collector;
use crate::limits::FUTURE_MS_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Answers an import.
pub async fn handle(State(collector): State<Arc<Collector>>, headers: HeaderMap, body: Body) -> Response {
    match import(&collector, &headers, body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(&collector.metrics),
    }
}

async fn import(collector: &Collector, headers: &HeaderMap, body: Body) -> Result<(), WriteRefusal> {
    let body = decode_text(headers, read_body(body).await?)?;
    let text = std::str::from_utf8(&body).map_err(|error| WriteRefusal::Bad(error.to_string()))?;
    let now_ms = collector.clock.now_ms();
    let exposition = exposition::parse(text, now_ms).map_err(|error| WriteRefusal::Bad(error.to_string()))?;
    let ahead = |sample: &&LoneSample| sample.timestamp_ms > now_ms + FUTURE_MS_MAX;
    let too_new = exposition.samples.iter().filter(ahead).count();
    if too_new > 0 {
        collector.metrics.samples_refused.with_label_values(&["too_new"]).inc_by(too_new as u64);
        let message = format!("{too_new} samples are more than 24 h ahead of the server's clock");
        return Err(WriteRefusal::Bad(message));
    }
    for (metric, metadata) in exposition.metadata {
        collector.database.set_metadata(&metric, metadata);
    }
    let appended = collector.texts.write(&exposition.samples).await?;
    collector.database.durable(appended.commit).await?;
    refuse_out_of_bounds(&appended)
}
