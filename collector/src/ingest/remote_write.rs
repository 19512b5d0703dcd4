//! `POST /api/v1/write`: Prometheus' remote write 1.0 and 2.0, answered 204 once everything is durable.

use super::http_write::{WriteRefusal, decompress_snappy, refuse_out_of_bounds};
use super::series_cache::{SeriesCache, Written};
use super::type_labels;
use super::write_request::{Request, WriteFault};
use crate::collector::Collector;
use crate::limits::WRITE_ROOM_TIME_MAX;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pharos_common::labels::Labels;
use pharos_tsdb::Exemplar;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// What requests of remote write share.
#[derive(Debug, Default)]
pub struct RemoteWrite {
    cache: Mutex<SeriesCache>,
}

/// Which message a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// `prometheus.WriteRequest`
    One,
    /// `io.prometheus.write.v2.Request`
    Two,
}

/// Answers a write.
pub async fn handle(
    State(collector): State<Arc<Collector>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let version = match version(&headers) {
        Ok(version) => version,
        Err(refusal) => return refusal.into_response(&collector.metrics),
    };
    let mut written = Written::default();
    let sender = peer.ip().to_canonical().to_string();
    let mut response = match write(&collector, &sender, version, body, &mut written).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => refusal.into_response(&collector.metrics),
    };
    if version == Version::Two {
        // Senders of 2.0 take an answer without these for one of 1.0, refusals included.
        let all = written.appended.samples + written.appended.duplicates;
        for (name, count) in [
            ("x-prometheus-remote-write-samples-written", all - written.histograms),
            ("x-prometheus-remote-write-histograms-written", written.histograms),
            ("x-prometheus-remote-write-exemplars-written", written.exemplars_kept),
        ] {
            response.headers_mut().insert(name, count.into());
        }
    }
    response
}

async fn write(
    collector: &Arc<Collector>,
    sender: &str,
    version: Version,
    body: Body,
    written: &mut Written,
) -> Result<(), WriteRefusal> {
    let now = collector.clock.monotonic();
    if let Some(wait) = collector.rates.charge(sender, 0, now) {
        collector.rates.note(sender, now);
        let message = format!("{sender} sends more samples a second than permitted; wait {wait:.1?}");
        return Err(WriteRefusal::TooMany(message));
    }
    // Whoever sends slowly holds no place meanwhile.
    let admitted = collector.writes.admit(body).await?;
    collector.database.room(WRITE_ROOM_TIME_MAX).await?;
    let (bytes, body, working) = (admitted.body.len(), admitted.body.clone(), Arc::clone(collector));
    *written = collector.writes.work(bytes, async move { store(&working, version, &body).await }).await?;
    let taken = &written.appended;
    collector.rates.charge(sender, taken.samples + taken.duplicates, collector.clock.monotonic());
    collector.database.durable(written.appended.commit).await?;
    written.exemplars_kept = keep_exemplars(collector, std::mem::take(&mut written.exemplars)).await?;
    refuse_out_of_bounds(&written.appended)?;
    match &written.refused {
        None => Ok(()),
        Some((series, reason)) => Err(WriteRefusal::Bad(format!("{series} series refused: {reason}"))),
    }
}

/// Unpacks a message and appends what it says.
async fn store(collector: &Collector, version: Version, body: &[u8]) -> Result<Written, WriteRefusal> {
    let refusal = |fault: WriteFault| match fault {
        WriteFault::Malformed(_) | WriteFault::MalformedHistogram(_) => WriteRefusal::Bad(fault.to_string()),
        WriteFault::TooManySamples => WriteRefusal::TooLarge(fault.to_string()),
        WriteFault::Storage(error) => error.into(),
    };
    let message = decompress_snappy(body)?;
    let request = match version {
        Version::One => Request::parse(&message),
        Version::Two => Request::parse_v2(&message, type_labels::is_wanted(&collector.options)),
    }
    .map_err(refusal)?;
    let mut cache = collector.remote_write.cache.lock().await;
    cache.write(&collector.appender, &request).await.map_err(refusal)
}

/// How many were kept. Those that come too late are lost, but no reason to refuse the samples beside them.
async fn keep_exemplars(
    collector: &Collector,
    exemplars: Vec<(Labels, Exemplar)>,
) -> Result<u64, WriteRefusal> {
    if exemplars.is_empty() {
        return Ok(0);
    }
    let database = collector.database.clone();
    let appended = tokio::task::spawn_blocking(move || database.append_exemplars(&exemplars))
        .await
        .map_err(|error| WriteRefusal::Unavailable(error.to_string()))??;
    Ok(appended.kept)
}

/// Only the protobuf messages of 1.0 and 2.0, compressed by snappy; headers that are missing mean 1.0.
fn version(headers: &HeaderMap) -> Result<Version, WriteRefusal> {
    let header = |name| headers.get(name).map_or(Ok(""), |value| value.to_str()).unwrap_or("?");
    let content_type = header(header::CONTENT_TYPE);
    let mut parts = content_type.split(';').map(str::trim);
    let base = parts.next().unwrap_or("");
    if !base.is_empty() && !base.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(WriteRefusal::UnsupportedType(format!("content type {content_type:?} is not supported")));
    }
    let version = match parts.find_map(|part| part.strip_prefix("proto=")) {
        None | Some("prometheus.WriteRequest") => Version::One,
        Some("io.prometheus.write.v2.Request") => Version::Two,
        Some(other) => {
            let message = format!("message {other:?} is not supported; send remote write 1.0 or 2.0");
            return Err(WriteRefusal::UnsupportedType(message));
        }
    };
    let encoding = header(header::CONTENT_ENCODING);
    if !encoding.is_empty() && encoding != "snappy" {
        let message =
            format!("{encoding} encoding (compression) is not accepted by this server; only snappy is");
        return Err(WriteRefusal::UnsupportedType(message));
    }
    Ok(version)
}
