//! What the writes by HTTP share: how bodies are unpacked, and answers that tell a sender to drop or to resend.

use crate::limits::WRITE_DECOMPRESSED_BYTES_MAX;
use crate::metrics::Metrics;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pharos_tsdb::{Appended, TsdbError};
use std::io::Read;

/// Seconds after which a sender may come back when the collector is full.
const RETRY_AFTER_SECONDS: &str = "5";

/// Why a write is not answered 2xx.
#[derive(Debug, thiserror::Error)]
pub enum WriteRefusal {
    /// The sender must drop it: 400.
    #[error("{0}")]
    Bad(String),
    /// A kind of content that is not taken: 415.
    #[error("{0}")]
    UnsupportedType(String),
    /// More bytes than are taken: 413.
    #[error("{0}")]
    TooLarge(String),
    /// Too much at once; to be sent again: 429.
    #[error("{0}")]
    TooMany(String),
    /// Cannot be stored now; to be sent again: 503.
    #[error("{0}")]
    Unavailable(String),
}

impl WriteRefusal {
    fn status(&self) -> StatusCode {
        match self {
            WriteRefusal::Bad(_) => StatusCode::BAD_REQUEST,
            WriteRefusal::UnsupportedType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            WriteRefusal::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            WriteRefusal::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            WriteRefusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The answer, counted.
    pub fn into_response(self, metrics: &Metrics) -> Response {
        let status = self.status();
        metrics.writes_refused.with_label_values(&[status.as_str()]).inc();
        let mut response = (status, format!("{self}\n")).into_response();
        if matches!(self, WriteRefusal::TooMany(_) | WriteRefusal::Unavailable(_)) {
            let seconds = header::HeaderValue::from_static(RETRY_AFTER_SECONDS);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<TsdbError> for WriteRefusal {
    fn from(error: TsdbError) -> Self {
        match error {
            TsdbError::TooManySeries { .. } | TsdbError::RowWidth { .. } | TsdbError::GroupWidth(_) => {
                WriteRefusal::Bad(error.to_string())
            }
            _ => WriteRefusal::Unavailable(error.to_string()),
        }
    }
}

/// Refuses a write of which the engine left samples out. The others are stored.
///
/// # Errors
/// If samples were too old or too far ahead.
pub fn refuse_out_of_bounds(appended: &Appended) -> Result<(), WriteRefusal> {
    if appended.too_new > 0 {
        let message = format!("{} samples are more than 24 h ahead of the server's clock", appended.too_new);
        return Err(WriteRefusal::Bad(message));
    }
    if appended.too_old > 0 {
        let message =
            format!("out of bounds: {} samples are older than the retention time", appended.too_old);
        return Err(WriteRefusal::Bad(message));
    }
    Ok(())
}

/// Undoes snappy's block format.
///
/// # Errors
/// If the bytes are damaged or would become too large.
pub fn decompress_snappy(body: &[u8]) -> Result<Vec<u8>, WriteRefusal> {
    let bad = |error: snap::Error| WriteRefusal::Bad(format!("snappy: {error}"));
    let length = snap::raw::decompress_len(body).map_err(bad)?;
    if length > WRITE_DECOMPRESSED_BYTES_MAX {
        return Err(decompressed_too_large());
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(bad)
}

/// Undoes the `Content-Encoding` of a text body: none or gzip.
///
/// # Errors
/// If the encoding is another, or the bytes are damaged or would become too large.
pub fn decode_text(headers: &HeaderMap, body: Bytes) -> Result<Vec<u8>, WriteRefusal> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(Ok("identity"), |value| value.to_str());
    match encoding.unwrap_or("?") {
        "identity" | "" => Ok(body.into()),
        "gzip" => {
            let mut out = Vec::new();
            let limit = WRITE_DECOMPRESSED_BYTES_MAX as u64 + 1;
            flate2::read::MultiGzDecoder::new(body.as_ref())
                .take(limit)
                .read_to_end(&mut out)
                .map_err(|error| WriteRefusal::Bad(format!("gzip: {error}")))?;
            if out.len() > WRITE_DECOMPRESSED_BYTES_MAX { Err(decompressed_too_large()) } else { Ok(out) }
        }
        other => Err(WriteRefusal::UnsupportedType(format!("content encoding {other:?} is not supported"))),
    }
}

fn decompressed_too_large() -> WriteRefusal {
    WriteRefusal::TooLarge(format!(
        "the decompressed body is larger than {WRITE_DECOMPRESSED_BYTES_MAX} bytes"
    ))
}
