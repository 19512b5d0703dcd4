//! The parts of a running collector, as its HTTP handlers see them.

use crate::api::ReadPlaces;
use crate::config::LoadedConfig;
use crate::coverage::Coverage;
use crate::ingest::appender::Appender;
use crate::ingest::rate_limit::RateLimits;
use crate::ingest::remote_write::RemoteWrite;
use crate::ingest::series_writer::SeriesWriter;
use crate::ingest::write_gate::WriteGate;
use crate::kubernetes_nodes::KubernetesNodes;
use crate::metrics::Metrics;
use crate::network_coverage::NetworkInterfaces;
use crate::options::Options;
use crate::queries::Queries;
use crate::rules::manager::RuleManager;
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::sample::TimestampMs;
use pharos_common::server::Readiness;
use pharos_tsdb::Database;
use prometheus::Registry;
use std::sync::Arc;
use tokio::sync::watch;

/// A running collector.
pub struct Collector {
    /// What the command line says.
    pub options: Options,
    /// Tells the time.
    pub clock: SharedClock,
    /// Where samples are kept.
    pub database: Database,
    /// The way there.
    pub appender: Appender,
    /// The same for samples of text imports.
    pub texts: SeriesWriter,
    /// How much of writes is in memory at once.
    pub writes: WriteGate,
    /// What requests of remote write share.
    pub remote_write: RemoteWrite,
    /// Places for remote reads.
    pub reads: ReadPlaces,
    /// How much each sender may send.
    pub rates: RateLimits,
    /// Runs queries.
    pub queries: Queries,
    /// The loaded rules.
    pub rules: RuleManager,
    /// The nodes.
    pub coverage: Coverage,
    /// Where Kubernetes is asked for nodes.
    pub(crate) kubernetes_nodes: watch::Sender<Option<KubernetesNodes>>,
    /// Which network interfaces count as watched.
    pub network_interfaces: Arc<ArcSwap<NetworkInterfaces>>,
    /// What the collector counts.
    pub metrics: Arc<Metrics>,
    /// All self metrics.
    pub registry: Registry,
    /// The configuration in force.
    pub config: ArcSwap<LoadedConfig>,
    /// What `/-/ready` tells.
    pub readiness: Readiness,
    /// When it started.
    pub started_ms: TimestampMs,
}
