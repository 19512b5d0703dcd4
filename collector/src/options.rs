//! The collector's flags. All have defaults; `pharos` sets them from its own.

use crate::byte_size::ByteSize;
use crate::machine_memory;
use crate::query_flags::QueryFlags;
use pharos_common::duration::PrometheusDuration;
use pharos_common::flags::{ConfigFlag, LogFlags};
use std::path::PathBuf;

/// The address the collector listens on by default.
pub const DEFAULT_LISTEN_ADDRESS: &str = "127.0.0.1:9490";

/// What the command line says.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "pharos-collector",
    version,
    about = "Takes samples in, stores them, judges rules as they arrive, and answers PromQL"
)]
pub struct Options {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub config: ConfigFlag,

    /// Address to listen on: HTTP, HTTP/2 and gRPC on the one port (port 0 takes a free one)
    #[arg(long = "web.listen-address", value_name = "ADDRESS", default_value = DEFAULT_LISTEN_ADDRESS)]
    pub listen_address: String,

    /// URL under which people reach this collector; links in alerts use it
    #[arg(long = "web.external-url", value_name = "URL")]
    pub external_url: Option<String>,

    /// Allow snapshots and deletion by HTTP
    #[arg(long = "web.enable-admin-api")]
    pub enable_admin_api: bool,

    /// Allow shutdown by POST /-/quit
    #[arg(long = "web.enable-lifecycle")]
    pub enable_lifecycle: bool,

    /// Folder of the stored samples
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "./data/collector")]
    pub storage_path: PathBuf,

    /// How long samples are kept; 0 keeps them for ever
    #[arg(long = "storage.retention.time", value_name = "DURATION", default_value = "30d")]
    pub retention_time: PrometheusDuration,

    /// How long roll-ups are kept when their samples are gone. They answer windows of five minutes or more that begin
    /// and end at multiples of five minutes, exactly, of functions that need no more (sum, avg, min, max, count, last,
    /// first and present_over_time, rate, increase, delta, changes, resets); other answers about such times come with
    /// a warning. 0 keeps them for ever, less than the retention time drops them with their samples
    #[arg(long = "storage.rollup.retention.time", value_name = "DURATION", default_value = "400d")]
    pub rollup_retention_time: PrometheusDuration,

    /// Size of all stored samples above which the oldest are dropped (for example 512MB); 0 for no limit
    #[arg(long = "storage.retention.size", value_name = "BYTES")]
    pub retention_size: Option<ByteSize>,

    /// Active series above which new ones are refused
    #[arg(long = "storage.series-max", value_name = "N", default_value_t = 10_000_000)]
    pub series_max: usize,

    /// Active series of one node (one value of the label "instance") above which its new ones are refused; a
    /// quarter of a million take about a quarter of a gigabyte
    #[arg(long = "storage.series-per-node-max", value_name = "N", default_value_t = 250_000)]
    pub series_per_node_max: usize,

    /// Samples a second that one agent, or one address that remote-writes, may send; above it an agent is slowed
    /// down and a remote write answered 429; 0 for no limit
    #[arg(long = "ingest.samples-per-second-max", value_name = "N", default_value_t = 0)]
    pub samples_per_second_max: u64,

    /// Memory for series and for samples that are not in blocks: samples are written out early before it is
    /// exceeded, whoever loads the past waits, and new series are refused when their names and indexes take half of
    /// it; without it a quarter of what the machine or the container has
    #[arg(long = "storage.head-memory-max", value_name = "BYTES")]
    pub head_memory_max: Option<ByteSize>,

    /// Memory for decoded pages of blocks, so that what is asked again is not read again
    #[arg(long = "storage.page-cache-max", value_name = "BYTES", default_value = "256MB")]
    pub page_cache_max: ByteSize,

    /// Memory for indexes of blocks, beside those that queries are working with: others are read again when they are
    /// asked for. The index of a day takes about 400 bytes a series
    #[arg(long = "storage.index-cache-max", value_name = "BYTES", default_value = "256MB")]
    pub index_cache_max: ByteSize,

    /// Alertmanager to send alerts to (repeatable)
    #[arg(long = "alertmanager.url", value_name = "URL")]
    pub alertmanager_urls: Vec<String>,

    /// Rule files to load, a glob (repeatable)
    #[arg(long = "rules.file", value_name = "GLOB")]
    pub rule_files: Vec<String>,

    /// Load the rules that come with Pharos
    #[arg(long = "rules.shipped", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub shipped_rules: bool,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub query: QueryFlags,

    /// Prometheus' feature flags are accepted. What they name is on by itself if Pharos has it, but for
    /// `type-and-unit-labels` and `use-start-timestamps`
    #[arg(long = "enable-feature", value_name = "NAME", value_delimiter = ',')]
    pub enable_feature: Vec<String>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub log: LogFlags,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            config: ConfigFlag::default(),
            listen_address: DEFAULT_LISTEN_ADDRESS.to_owned(),
            external_url: None,
            enable_admin_api: false,
            enable_lifecycle: false,
            storage_path: PathBuf::from("./data/collector"),
            retention_time: PrometheusDuration::from_secs(30 * 86_400),
            rollup_retention_time: PrometheusDuration::from_secs(400 * 86_400),
            retention_size: None,
            series_max: 10_000_000,
            series_per_node_max: 250_000,
            samples_per_second_max: 0,
            head_memory_max: None,
            page_cache_max: ByteSize(256 << 20),
            index_cache_max: ByteSize(256 << 20),
            alertmanager_urls: Vec::new(),
            rule_files: Vec::new(),
            shipped_rules: true,
            query: QueryFlags::default(),
            enable_feature: Vec::new(),
            log: LogFlags::default(),
        }
    }
}

impl Options {
    /// Memory for series and for samples that are not in blocks.
    pub fn head_memory(&self) -> ByteSize {
        self.head_memory_max
            .unwrap_or_else(|| ByteSize(machine_memory::share_for_head(machine_memory::total())))
    }

    /// Flags and their values, as `/api/v1/status/flags` shows them.
    pub fn as_flags(&self) -> Vec<(&'static str, String)> {
        let path =
            |path: &Option<PathBuf>| path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        vec![
            ("alertmanager.url", self.alertmanager_urls.join(",")),
            ("config.file", path(&self.config.config_file)),
            ("enable-feature", self.enable_feature.join(",")),
            ("ingest.samples-per-second-max", self.samples_per_second_max.to_string()),
            ("log.format", format!("{:?}", self.log.format).to_lowercase()),
            ("log.level", format!("{:?}", self.log.level).to_lowercase()),
            ("query.log-file", path(&self.query.log_file)),
            ("query.lookback-delta", self.query.lookback_delta.to_string()),
            ("query.max-concurrency", self.query.concurrency_max.to_string()),
            ("query.max-samples", self.query.samples_max.to_string()),
            ("query.timeout", self.query.timeout.to_string()),
            ("rules.file", self.rule_files.join(",")),
            ("rules.shipped", self.shipped_rules.to_string()),
            ("storage.head-memory-max", self.head_memory().to_string()),
            ("storage.index-cache-max", self.index_cache_max.to_string()),
            ("storage.page-cache-max", self.page_cache_max.to_string()),
            ("storage.path", self.storage_path.display().to_string()),
            ("storage.retention.time", self.retention_time.to_string()),
            ("storage.rollup.retention.time", self.rollup_retention_time.to_string()),
            ("storage.retention.size", self.retention_size.map(|size| size.to_string()).unwrap_or_default()),
            ("storage.series-max", self.series_max.to_string()),
            ("storage.series-per-node-max", self.series_per_node_max.to_string()),
            ("web.enable-admin-api", self.enable_admin_api.to_string()),
            ("web.enable-lifecycle", self.enable_lifecycle.to_string()),
            ("web.external-url", self.external_url.clone().unwrap_or_default()),
            ("web.listen-address", self.listen_address.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_program_without_arguments_has_the_default_options() {
        let parsed = Options::try_parse_from(["pharos-collector"]).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Options::default()));
    }

    #[test]
    fn flags_are_written_as_prometheus_writes_them() {
        let parsed = Options::try_parse_from([
            "pharos-collector",
            "--storage.retention.time=0",
            "--alertmanager.url=http://a:9093",
            "--alertmanager.url=http://b:9093",
            "--rules.shipped=false",
            "--enable-feature=promql-experimental-functions,native-histograms",
        ])
        .unwrap();
        assert_eq!(parsed.retention_time.as_millis(), 0);
        assert_eq!(parsed.alertmanager_urls.len(), 2);
        assert!(!parsed.shipped_rules);
        assert_eq!(parsed.enable_feature.len(), 2);
    }
}
