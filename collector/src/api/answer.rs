//! The envelope of every answer, its errors, and how its bytes leave: in chunks, compressed if wanted.

use super::encoding::{COMPRESS_BYTES_MIN, Encoding};
use crate::limits::{ANSWER_CHUNK_BYTES, ANSWER_CHUNKS_QUEUED_MAX};
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use pharos_common::server::BodyTooSlow;
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// An answer that is an error: `{"status":"error","errorType":…,"error":…}`.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    error_type: &'static str,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, error_type, message: message.into() }
    }

    /// 400: the request makes no sense.
    pub(crate) fn bad_data(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_data", message)
    }

    /// 400: a parameter makes no sense.
    pub(crate) fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        ApiError::bad_data(format!("invalid parameter \"{name}\": {message}"))
    }

    /// 500: not the client's fault.
    pub(crate) fn internal(message: impl std::fmt::Display) -> Self {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message.to_string())
    }

    /// 408: the body of the request does not come.
    pub(crate) fn too_slow() -> Self {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", BodyTooSlow.to_string())
    }

    /// 503: not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// What is wrong, for pages.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let message = serde_json::Value::from(self.message);
        let body = format!(r#"{{"status":"error","errorType":"{}","error":{message}}}"#, self.error_type);
        let mut response = (self.status, json_bytes(body.into())).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer of a handler.
pub(crate) type Answer = Result<Response, ApiError>;

pub(crate) async fn not_found() -> Response {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "path not found").into_response()
}

pub(crate) async fn method_not_allowed() -> Response {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "bad_data", "method not allowed").into_response()
}

fn json_bytes(body: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A small successful answer.
pub(crate) fn success(data: &impl serde::Serialize, encoding: Encoding) -> Answer {
    success_with(data, &[], encoding)
}

/// A small successful answer with warnings.
pub(crate) fn success_with(data: &impl serde::Serialize, warnings: &[String], encoding: Encoding) -> Answer {
    small_json(encoding, |out| {
        envelope(out, warnings, &[], |out| serde_json::to_writer(out, data).map_err(io::Error::other))
    })
}

/// An answer that is known to be small, written at once.
pub(crate) fn small_json(encoding: Encoding, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Answer {
    let mut body = Vec::new();
    write(&mut body).map_err(ApiError::internal)?;
    if body.len() < COMPRESS_BYTES_MIN || encoding == Encoding::Identity {
        return Ok(json_bytes(body.into()));
    }
    let mut packed = Vec::with_capacity(body.len() / 4);
    encoding.write(&mut packed, |out| out.write_all(&body)).map_err(ApiError::internal)?;
    let mut response = json_bytes(packed.into());
    encoding.mark(&mut response);
    Ok(response)
}

/// Writes `{"status":"success","data":…}` with remarks.
pub(crate) fn envelope<W: Write + ?Sized>(
    out: &mut W,
    warnings: &[String],
    infos: &[String],
    data: impl FnOnce(&mut W) -> io::Result<()>,
) -> io::Result<()> {
    out.write_all(b"{\"status\":\"success\",\"data\":")?;
    data(out)?;
    for (name, texts) in [("warnings", warnings), ("infos", infos)] {
        if !texts.is_empty() {
            write!(out, ",\"{name}\":{}", serde_json::to_string(texts).map_err(io::Error::other)?)?;
        }
    }
    out.write_all(b"}")
}

/// An answer that may be large: written on a thread of its own into a bounded queue of chunks, so that
/// neither a tree nor the text of it is ever whole in memory. A client that goes ends the writing.
pub(crate) fn stream_json(
    encoding: Encoding,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Response {
    let mut response = stream("application/json", move |out| encoding.write(out, write));
    encoding.mark(&mut response);
    response
}

/// The same for another kind of content. If the writing fails the client sees the answer break off.
pub(crate) fn stream(
    content_type: &'static str,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Response {
    let (sender, receiver) = mpsc::channel(ANSWER_CHUNKS_QUEUED_MAX);
    tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks { buffer: Vec::with_capacity(ANSWER_CHUNK_BYTES), sender };
        let written = write(&mut chunks);
        if let Err(error) = written.and_then(|()| chunks.send()) {
            tracing::debug!(%error, "An answer was not read to its end");
            let _ = chunks.sender.blocking_send(Err(error));
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(ANSWER_CHUNK_BYTES));
        self.sender.blocking_send(Ok(full.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= ANSWER_CHUNK_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
