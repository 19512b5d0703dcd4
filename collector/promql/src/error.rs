//! Why a query has no answer.

use crate::ast::DurationExprError;
use crate::parser::ParseError;
use crate::storage::StorageError;

/// Why a query has no answer. The texts are Prometheus'.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The text is no query.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A duration expression gives no duration.
    #[error(transparent)]
    Duration(#[from] DurationExprError),
    /// Only scalars and instant vectors can be evaluated over a range.
    #[error("invalid expression type {found:?} for range query, must be Scalar or instant Vector")]
    NotARangeExpression {
        /// The type found, as documentation calls it.
        found: &'static str,
    },
    /// Start, end and step make no range.
    #[error("{0}")]
    InvalidRange(&'static str),
    /// The query cannot be evaluated on this data.
    #[error("{0}")]
    Execution(String),
    /// The query would hold more samples than it may.
    #[error("query processing would load too many samples into memory in query execution")]
    TooManySamples,
    /// Its time was up.
    #[error("query timed out in {stage}")]
    TimedOut {
        /// What it was doing.
        stage: &'static str,
    },
    /// Nobody waits for the answer any more.
    #[error("query was canceled in {stage}")]
    Canceled {
        /// What it was doing.
        stage: &'static str,
    },
    /// The storage failed.
    #[error("{0}")]
    Storage(#[source] StorageError),
}

impl QueryError {
    /// The `errorType` of the HTTP API.
    pub fn error_type(&self) -> &'static str {
        match self {
            QueryError::Parse(_)
            | QueryError::Duration(_)
            | QueryError::NotARangeExpression { .. }
            | QueryError::InvalidRange(_) => "bad_data",
            QueryError::Execution(_) | QueryError::TooManySamples => "execution",
            QueryError::TimedOut { .. } => "timeout",
            QueryError::Canceled { .. } => "canceled",
            QueryError::Storage(_) => "internal",
        }
    }

    pub(crate) fn execution(message: impl Into<String>) -> Self {
        QueryError::Execution(message.into())
    }
}

const STAGE: &str = "expression evaluation";

impl From<StorageError> for QueryError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::TooManySamples { .. } => QueryError::TooManySamples,
            StorageError::Cancelled => QueryError::Canceled { stage: STAGE },
            StorageError::TimedOut => QueryError::TimedOut { stage: STAGE },
            error @ (StorageError::Failed(_) | StorageError::NotInMemory) => QueryError::Storage(error),
        }
    }
}
