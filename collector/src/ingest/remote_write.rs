//! `POST /api/v1/write`: Prometheus' remote write 1.0, answered 204 once everything is durable.

use super::http_write::{WriteRefusal, decompress_snappy, read_body, refuse_out_of_bounds};
use super::series_cache::SeriesCache;
use super::write_request::WriteFault;
use crate::collector::Collector;
use crate::limits::WRITES_AT_ONCE_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use tokio::sync::{Mutex, Semaphore};

/// What requests of remote write share.
#[derive(Debug)]
pub struct RemoteWrite {
    cache: Mutex<SeriesCache>,
    places: Semaphore,
}

impl Default for RemoteWrite {
    fn default() -> Self {
        RemoteWrite { cache: Mutex::default(), places: Semaphore::new(WRITES_AT_ONCE_MAX) }
    }
}

/// Answers a write.
pub async fn handle(State(collector): State<Arc<Collector>>, headers: HeaderMap, body: Body) -> Response {
    match write(&collector, &headers, body).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(&collector.metrics),
    }
}

async fn write(collector: &Collector, headers: &HeaderMap, body: Body) -> Result<(), WriteRefusal> {
    check_type(headers)?;
    let _place = collector
        .remote_write
        .places
        .try_acquire()
        .map_err(|_| WriteRefusal::TooMany("too many writes at once".to_owned()))?;
    let message = decompress_snappy(&read_body(body).await?)?;
    let written = {
        let mut cache = collector.remote_write.cache.lock().await;
        cache.write(&collector.appender, &message).await.map_err(|fault| match fault {
            WriteFault::Malformed(_) | WriteFault::MalformedHistogram(_) => {
                WriteRefusal::Bad(fault.to_string())
            }
            WriteFault::TooManySamples => WriteRefusal::TooLarge(fault.to_string()),
            WriteFault::Storage(error) => error.into(),
        })?
    };
    collector.database.durable(written.appended.commit).await?;
    refuse_out_of_bounds(&written.appended)?;
    match written.refused {
        None => Ok(()),
        Some((series, reason)) => Err(WriteRefusal::Bad(format!("{series} series refused: {reason}"))),
    }
}

/// Only the protobuf message of 1.0, compressed by snappy; headers that are missing mean just that.
fn check_type(headers: &HeaderMap) -> Result<(), WriteRefusal> {
    let header = |name| headers.get(name).map_or(Ok(""), |value| value.to_str()).unwrap_or("?");
    let content_type = header(header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let base = parts.next().unwrap_or("");
    if !base.is_empty() && !base.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(WriteRefusal::UnsupportedType(format!("content type {content_type:?} is not supported")));
    }
    let proto = parts.find_map(|part| part.strip_prefix("proto="));
    if proto.is_some_and(|proto| proto != "prometheus.WriteRequest") {
        let message = format!("message {proto:?} is not supported; send remote write 1.0");
        return Err(WriteRefusal::UnsupportedType(message));
    }
    let encoding = header(header::CONTENT_ENCODING);
    if !encoding.is_empty() && encoding != "snappy" {
        let message =
            format!("{encoding} encoding (compression) is not accepted by this server; only snappy is");
        return Err(WriteRefusal::UnsupportedType(message));
    }
    Ok(())
}
