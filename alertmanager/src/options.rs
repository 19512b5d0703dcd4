//! Command line of `pharos-alertmanager`: Alertmanager's flags.

use pharos_common::duration::PrometheusDuration;
use pharos_common::flags::{ConfigFlag, LogFlags};
use std::path::PathBuf;

/// Groups, silences, escalates and remediates alerts. Started without arguments it listens on
/// 127.0.0.1:9493 and writes every alert to its log.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "pharos-alertmanager", version)]
pub struct Options {
    /// `--config.file`
    #[command(flatten)]
    pub config: ConfigFlag,
    /// Folder for silences, notification log, escalations and the audit record
    #[arg(long = "storage.path", value_name = "DIR", default_value = "data/alertmanager")]
    pub storage_path: PathBuf,
    /// How long silences are kept after they expire, and at least how long it is remembered who was told
    #[arg(long = "data.retention", value_name = "DURATION", default_value = "120h")]
    pub data_retention: PrometheusDuration,
    /// Address to listen on
    #[arg(long = "web.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9493")]
    pub listen_address: String,
    /// The URL under which people reach this program; notifications link to it
    #[arg(long = "web.external-url", value_name = "URL")]
    pub external_url: Option<String>,
    /// Prefix of all paths; by default the path of --web.external-url
    #[arg(long = "web.route-prefix", value_name = "PATH")]
    pub route_prefix: Option<String>,
    /// Minimum time between start and the first notification
    #[arg(long = "dispatch.start-delay", value_name = "DURATION", default_value = "0s")]
    pub dispatch_start_delay: PrometheusDuration,
    /// Accepted for compatibility; everything is on
    #[arg(long = "enable-feature", value_name = "FEATURE")]
    pub enable_feature: Vec<String>,
    /// `--cluster.*`
    #[command(flatten)]
    pub cluster: ClusterFlags,
    /// Flags that only keep command lines of Alertmanager working.
    #[command(flatten)]
    pub compatibility: CompatibilityFlags,
    /// `--log.*`
    #[command(flatten)]
    pub log: LogFlags,
}

/// `--cluster.*`: accepted so that command lines of Alertmanager work; peer-to-peer clustering is not in
/// this version.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Cluster (accepted, without effect)")]
pub struct ClusterFlags {
    /// Has no effect
    #[arg(
        id = "cluster_listen_address",
        long = "cluster.listen-address",
        value_name = "HOST:PORT",
        default_value = ""
    )]
    pub listen_address: String,
    /// Has no effect
    #[arg(long = "cluster.advertise-address", value_name = "HOST:PORT")]
    pub advertise_address: Option<String>,
    /// Has no effect
    #[arg(long = "cluster.peer", value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// Has no effect
    #[arg(long = "cluster.peer-timeout", value_name = "DURATION")]
    pub peer_timeout: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.gossip-interval", value_name = "DURATION")]
    pub gossip_interval: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.pushpull-interval", value_name = "DURATION")]
    pub pushpull_interval: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.settle-timeout", value_name = "DURATION")]
    pub settle_timeout: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.reconnect-interval", value_name = "DURATION")]
    pub reconnect_interval: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.reconnect-timeout", value_name = "DURATION")]
    pub reconnect_timeout: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.tcp-timeout", value_name = "DURATION")]
    pub tcp_timeout: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.probe-timeout", value_name = "DURATION")]
    pub probe_timeout: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.probe-interval", value_name = "DURATION")]
    pub probe_interval: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "cluster.label", value_name = "LABEL")]
    pub label: Option<String>,
    /// Has no effect
    #[arg(long = "cluster.tls-config", value_name = "FILE")]
    pub tls_config: Option<PathBuf>,
    /// Has no effect
    #[arg(long = "cluster.allow-insecure-public-advertise-address-discovery")]
    pub allow_insecure_advertise: bool,
}

/// Flags of Alertmanager that nothing here needs: they tune what works another way.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Compatibility (accepted, without effect)")]
pub struct CompatibilityFlags {
    /// Has no effect: what is over is removed every minute
    #[arg(long = "alerts.gc-interval", value_name = "DURATION")]
    pub alerts_gc_interval: Option<PrometheusDuration>,
    /// Has no effect: state is written when it changes
    #[arg(long = "data.maintenance-interval", value_name = "DURATION")]
    pub data_maintenance_interval: Option<PrometheusDuration>,
    /// Has no effect
    #[arg(long = "web.get-concurrency", value_name = "COUNT")]
    pub web_get_concurrency: Option<u32>,
    /// Has no effect
    #[arg(long = "web.timeout", value_name = "DURATION")]
    pub web_timeout: Option<PrometheusDuration>,
    /// Has no effect: there is no garbage collector
    #[arg(long = "auto-gomemlimit.ratio", value_name = "RATIO")]
    pub auto_gomemlimit_ratio: Option<f64>,
}

impl Options {
    /// What the program runs on when nothing is said.
    ///
    /// # Errors
    /// Never, as long as the defaults above parse; a test sees to that.
    pub fn defaults() -> Result<Self, clap::Error> {
        <Self as clap::Parser>::try_parse_from(["pharos-alertmanager"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn it_starts_without_arguments_and_takes_alertmanagers() {
        let options = Options::defaults().unwrap();
        assert_eq!(options.listen_address, "127.0.0.1:9493");
        Options::try_parse_from([
            "pharos-alertmanager",
            "--config.file=a.yml",
            "--storage.path=/tmp/x",
            "--cluster.listen-address=",
            "--cluster.peer=a:1",
            "--cluster.peer=b:1",
            "--web.route-prefix=/am",
            "--dispatch.start-delay=1m",
            "--enable-feature=utf8-strict-mode",
            "--data.retention=24h",
            "--alerts.gc-interval=30m",
            "--data.maintenance-interval=15m",
            "--web.timeout=0s",
            "--log.level=debug",
        ])
        .unwrap();
    }
}
