//! The ethtool sampler's flags, as node_exporter's.

/// Flags about interfaces' drivers.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Sampler options (as node_exporter's)")]
pub struct EthtoolOptions {
    /// Interfaces whose drivers are asked
    #[arg(long = "collector.ethtool.device-include", value_name = "REGEX")]
    pub device_include: Option<String>,
    /// Interfaces whose drivers are left alone
    #[arg(long = "collector.ethtool.device-exclude", value_name = "REGEX")]
    pub device_exclude: Option<String>,
    /// Counters of drivers to publish, by the names that the drivers give them [default: all]
    #[arg(long = "collector.ethtool.metrics-include", value_name = "REGEX")]
    pub metrics_include: Option<String>,
}
