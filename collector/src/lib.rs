//! The collector: samples flow in, are kept and judged, and are answered for in PromQL.
//!
//! [`ingest`] takes samples from agents (a gRPC stream), from remote write and from text, and appends
//! them to the storage engine. [`rules`] judges thresholds as their samples arrive and everything else on
//! an interval, and sends alerts. [`api`] is Prometheus' HTTP API. [`coverage`] knows which nodes report.
//! Storage and query language are crates of their own, joined by [`storage`]. [`run`] puts it all
//! together, for the program `pharos-collector` and for `pharos`.

pub mod api;
mod byte_size;
pub mod collector;
pub mod config;
pub mod coverage;
mod engine_metrics;
mod error;
pub mod expected_nodes;
pub mod ingest;
pub mod kubernetes_nodes;
pub mod limits;
mod machine_memory;
pub mod metrics;
pub mod network_coverage;
mod options;
mod quantiles;
pub mod queries;
pub mod query_cost;
mod query_flags;
pub mod query_log;
pub mod query_metrics;
mod quick_queries;
pub mod rules;
mod run;
mod self_samples;
pub mod storage;

pub use byte_size::ByteSize;
pub use error::CollectorError;
pub use options::{DEFAULT_LISTEN_ADDRESS, Options};
pub use query_flags::QueryFlags;
pub use run::{run, run_with_clock};
