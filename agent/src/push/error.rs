//! Why a connection to a collector ended, and what that means for the next attempt.

use super::codec::MalformedMessage;
use crate::spool::ACKNOWLEDGE_TIME_MAX;
use http::{HeaderMap, StatusCode};
use std::io;
use tonic::Code;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum PushError {
    #[error("{0:?} is no address (write HOST:PORT or http://HOST:PORT)")]
    Address(String),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("{0}")]
    Http(#[from] h2::Error),
    #[error("the answer is HTTP {0}: this is no collector, or a proxy stands before it")]
    NoCollector(StatusCode),
    #[error("{code}: {message}")]
    Status { code: Code, message: String },
    #[error("{0}")]
    Malformed(#[from] MalformedMessage),
    #[error("the collector closed the stream")]
    Closed,
    #[error("the collector did not say Welcome")]
    NoWelcome,
    #[error("no answer in time")]
    TimedOut,
    #[error("nothing was acknowledged for {} s", ACKNOWLEDGE_TIME_MAX.as_secs())]
    Unacknowledged,
}

impl PushError {
    /// What gRPC's status says in headers or trailers, if it is there and is an error.
    pub(super) fn of_status(headers: &HeaderMap) -> Option<Self> {
        let code = Code::from_bytes(headers.get("grpc-status")?.as_bytes());
        if code == Code::Ok {
            return None;
        }
        let message = headers.get("grpc-message").map(|message| percent_decoded(message.as_bytes()));
        Some(PushError::Status { code, message: message.unwrap_or_default() })
    }

    /// Whether the collector ended the stream because of what it got, and will do so again.
    pub(super) fn is_refusal(&self) -> bool {
        let codes = [Code::InvalidArgument, Code::FailedPrecondition, Code::OutOfRange];
        matches!(self, PushError::Status { code, .. } if codes.contains(code))
    }

    /// Whether somebody is there who will say the same again, so that there is no hurry to ask.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            // One who shuts down says so, and is as good as gone.
            PushError::Status { code, .. } => *code != Code::Unavailable,
            PushError::NoCollector(status) => !status.is_server_error(),
            PushError::Http(error) => {
                let goodbye = [h2::Reason::NO_ERROR, h2::Reason::CANCEL, h2::Reason::REFUSED_STREAM];
                error.is_remote() && !error.reason().is_some_and(|reason| goodbye.contains(&reason))
            }
            PushError::Malformed(_)
            | PushError::NoWelcome
            | PushError::Unacknowledged
            | PushError::Address(_) => true,
            PushError::Connect(_) | PushError::Closed | PushError::TimedOut => false,
        }
    }
}

/// The text of `grpc-message`, in which gRPC writes what is not plain ASCII as `%` and two digits.
fn percent_decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let digits =
            behind.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_in_the_collectors_words() {
        let mut headers = HeaderMap::new();
        assert!(PushError::of_status(&headers).is_none());
        headers.insert("grpc-status", "0".parse().unwrap());
        assert!(PushError::of_status(&headers).is_none());
        headers.insert("grpc-status", "3".parse().unwrap());
        headers.insert("grpc-message", "100%25 wrong: %E2%82%AC %zz %2".parse().unwrap());
        let error = PushError::of_status(&headers).unwrap();
        assert!(error.is_refusal() && error.is_answer());
        assert!(error.to_string().ends_with(": 100% wrong: € %zz %2"), "{error}");
    }

    #[test]
    fn who_is_gone_is_asked_again_soon_and_who_answers_is_not() {
        let status = |code| PushError::Status { code, message: String::new() };
        assert!(!status(Code::Unavailable).is_answer());
        assert!(status(Code::ResourceExhausted).is_answer());
        assert!(!PushError::NoCollector(StatusCode::BAD_GATEWAY).is_answer());
        assert!(PushError::NoCollector(StatusCode::NOT_FOUND).is_answer());
        assert!(!PushError::Connect(io::ErrorKind::ConnectionRefused.into()).is_answer());
    }
}
