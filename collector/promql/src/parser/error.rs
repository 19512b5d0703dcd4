//! Why a text is no query.

use crate::span::Span;

/// A text that Prometheus' grammar or type rules refuse, with its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: parse error: {message}")]
pub struct ParseError {
    /// The bytes of the query at fault.
    pub span: Span,
    /// The start of `span` as `line:column`.
    pub location: String,
    /// What is wrong, in Prometheus' words.
    pub message: String,
}

impl ParseError {
    pub(crate) fn new(query: &str, span: Span, message: impl Into<String>) -> Self {
        ParseError { span, location: span.locate(query), message: message.into() }
    }
}
