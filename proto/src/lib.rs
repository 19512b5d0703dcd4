//! The words that agent, collector and alertmanager share.
//!
//! [`v1`] is the ingest stream between agent and collector, [`prometheus`] is Prometheus' remote
//! protocol. Both are generated from the files under `proto/`. [`METRICS_CATALOGUE`] lists every metric
//! that Pharos exposes.

pub mod catalogue;

/// The ingest stream, `pharos.v1.Ingest`; `proto/pharos/v1/ingest.proto` explains it.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("pharos.v1");
}

/// Prometheus' remote write 1.0.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod prometheus {
    tonic::include_proto!("prometheus");
}

/// Prometheus' remote write 2.0.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod prometheus_v2 {
    tonic::include_proto!("io.prometheus.write.v2");
}

/// Prometheus' exposition as protobuf.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]
pub mod prometheus_client {
    tonic::include_proto!("io.prometheus.client");
}

/// The catalogue of metrics (TOML): name, type, unit, labels and help of each.
pub const METRICS_CATALOGUE: &str = include_str!("../metrics.toml");
