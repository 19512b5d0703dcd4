//! Metrics of the program about itself, served at `/metrics` in Prometheus' text format.

use prometheus::{Encoder, Gauge, IntGaugeVec, Opts, Registry, TextEncoder};

/// A registry that holds the `process_*` metrics and `pharos_build_info`.
///
/// # Errors
/// If a metric cannot be registered, which no outside input can cause.
pub fn registry(program: &str) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    let build_info = IntGaugeVec::new(
        Opts::new("pharos_build_info", "Which version of which Pharos program runs; always 1"),
        &["program", "version"],
    )?;
    build_info.with_label_values(&[program, env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(build_info))?;
    // The process collector leaves it out, and dashboards of exporters show it beside what is used.
    let limit = Gauge::new(
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
    )?;
    let bytes = rustix::process::getrlimit(rustix::process::Resource::As).current;
    limit.set(bytes.unwrap_or(u64::MAX) as f64);
    registry.register(Box::new(limit))?;
    Ok(registry)
}

/// Content type of [`encode`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// All metrics of a registry in the text exposition format.
pub fn encode(registry: &Registry) -> Vec<u8> {
    let mut out = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&registry.gather(), &mut out) {
        tracing::error!(%error, "Some metrics could not be written");
    }
    out
}
