//! PromQL: text and a time range flow in, vectors and matrices flow out.
//!
//! [`parse`] makes a tree of a query. The engine plans it, reads each selector once through
//! [`storage::Storage`] and evaluates whole series over all steps at once. It knows nothing of files or
//! HTTP.

mod annotations;
pub mod ast;
mod engine;
mod error;
mod eval;
pub mod functions;
pub mod fuzz;
pub mod histogram;
mod number;
mod parser;
mod plan;
mod quote;
mod span;
pub mod storage;
pub mod summaries;
mod value;
mod xxhash;

pub use engine::{Engine, EngineOptions, QueryOptions};
pub use error::QueryError;
pub use number::{format_exponent, format_float};
pub use parser::{ParseError, QUERY_LENGTH_BYTES_MAX, parse, parse_selector};
pub use span::Span;
pub use value::{MatrixSeries, QueryResult, QueryStats, SampleValue, Value, VectorSample};
