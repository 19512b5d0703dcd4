//! `POST /api/v1/import/prometheus`: samples in the text exposition format, for scripts.
//!
//! A text with a fault is refused whole: nothing of it is stored.

use super::created;
use super::exposition::{self, Times};
use super::http_write::{WriteRefusal, decode_text, refuse_out_of_bounds};
use super::type_labels;
use crate::collector::Collector;
use crate::limits::{FUTURE_MS_MAX, WRITE_ROOM_TIME_MAX};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pharos_tsdb::Appended;
use std::sync::Arc;

/// Answers an import.
pub async fn handle(State(collector): State<Arc<Collector>>, headers: HeaderMap, body: Body) -> Response {
    match import(&collector, &headers, body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(&collector.metrics),
    }
}

async fn import(collector: &Arc<Collector>, headers: &HeaderMap, body: Body) -> Result<(), WriteRefusal> {
    let admitted = collector.writes.admit(body).await?;
    collector.database.room(WRITE_ROOM_TIME_MAX).await?;
    let (bytes, body, working) = (admitted.body.len(), admitted.body.clone(), Arc::clone(collector));
    let headers = headers.clone();
    let work = async move { store(&working, &headers, body).await };
    let appended = collector.writes.work(bytes, work).await?;
    collector.database.durable(appended.commit).await?;
    refuse_out_of_bounds(&appended)
}

/// OpenMetrics says by its type that it is.
fn times(headers: &HeaderMap) -> Times {
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/openmetrics-text") { Times::Seconds } else { Times::Milliseconds }
}

/// Unpacks a text and appends what it says.
async fn store(collector: &Collector, headers: &HeaderMap, body: Bytes) -> Result<Appended, WriteRefusal> {
    let body = decode_text(headers, body)?;
    let text = std::str::from_utf8(&body).map_err(|error| WriteRefusal::Bad(error.to_string()))?;
    let now_ms = collector.clock.now_ms();
    let mut exposition = exposition::parse(text, times(headers), now_ms)
        .map_err(|error| WriteRefusal::Bad(error.to_string()))?;
    if type_labels::is_wanted(&collector.options) {
        type_labels::label(&mut exposition.samples, &exposition.metadata);
    }
    let retention_ms = collector.options.retention_time.as_millis_i64();
    let oldest_ms = if retention_ms > 0 { now_ms - retention_ms } else { i64::MIN };
    let outside = |is_outside: &dyn Fn(i64) -> bool| {
        exposition.samples.iter().filter(|sample| is_outside(sample.timestamp_ms)).count() as u64
    };
    let bounds = Appended {
        too_new: outside(&|at_ms| at_ms > now_ms + FUTURE_MS_MAX),
        too_old: outside(&|at_ms| at_ms < oldest_ms),
        ..Appended::default()
    };
    for (reason, count) in [("too_new", bounds.too_new), ("too_old", bounds.too_old)] {
        if count > 0 {
            collector.metrics.samples_refused.with_label_values(&[reason]).inc_by(count);
        }
    }
    refuse_out_of_bounds(&bounds)?;
    let starts = created::starts(&exposition);
    for (metric, metadata) in exposition.metadata {
        collector.database.set_metadata(&metric, metadata);
    }
    Ok(collector.texts.write_with_starts(&exposition.samples, &starts).await?)
}
