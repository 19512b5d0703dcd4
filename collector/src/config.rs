//! The configuration file: Prometheus' own, plus a section `pharos:`.
//!
//! What Pharos does not act on yet is checked for its shape and named in a warning; nothing is ignored
//! in silence.

use crate::error::CollectorError;
use crate::expected_nodes::ExpectedNodes;
use crate::kubernetes_nodes::KubernetesNodes;
use crate::network_coverage::NetworkInterfaces;
use crate::options::Options;
use crate::rules::file::{self, Defaults, GroupDefinition};
use crate::rules::shipped::SHIPPED;
use pharos_common::config::{self, ConfigError};
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// How often rules are evaluated where nothing is said.
const DEFAULT_INTERVAL: PrometheusDuration = PrometheusDuration::from_secs(1);

/// All that a reload reads.
#[derive(Clone, Debug, Default)]
pub struct LoadedConfig {
    /// The file as it was read.
    pub text: String,
    /// Labels for alerts that leave this collector.
    pub external_labels: Vec<(String, String)>,
    /// Base URLs of alertmanagers, those of the flags first.
    pub alertmanager_urls: Vec<String>,
    /// Rules of all files.
    pub groups: Vec<GroupDefinition>,
    /// Nodes that should report, whether or not they ever did.
    pub expected_nodes: ExpectedNodes,
    /// The same by Kubernetes.
    pub kubernetes_nodes: Option<KubernetesNodes>,
    /// Which interfaces count as watched.
    pub network_interfaces: NetworkInterfaces,
    /// Whether alerts that are sent tell when they came about.
    pub alert_timeline: bool,
    /// Where queries are logged.
    pub query_log_file: Option<PathBuf>,
    /// Keys that are accepted but not acted on.
    pub not_acted_on: Vec<String>,
}

impl LoadedConfig {
    /// The external labels as a set.
    pub fn external_label_set(&self) -> Labels {
        Labels::from_pairs(self.external_labels.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    global: Global,
    runtime: Option<Value>,
    rule_files: Vec<String>,
    scrape_config_files: Vec<String>,
    scrape_configs: Vec<ScrapeConfig>,
    alerting: Alerting,
    remote_write: Vec<Remote>,
    remote_read: Vec<Remote>,
    storage: Option<Storage>,
    tracing: Option<Value>,
    otlp: Option<Value>,
    pharos: Pharos,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Global {
    evaluation_interval: Option<PrometheusDuration>,
    rule_query_offset: Option<PrometheusDuration>,
    external_labels: BTreeMap<String, String>,
    scrape_interval: Option<PrometheusDuration>,
    scrape_timeout: Option<PrometheusDuration>,
    scrape_protocols: Option<Vec<String>>,
    query_log_file: Option<String>,
    scrape_failure_log_file: Option<String>,
    body_size_limit: Option<Value>,
    sample_limit: Option<u64>,
    target_limit: Option<u64>,
    label_limit: Option<u64>,
    label_name_length_limit: Option<u64>,
    label_value_length_limit: Option<u64>,
    keep_dropped_targets: Option<u64>,
    metric_name_validation_scheme: Option<String>,
    metric_name_escaping_scheme: Option<String>,
    scrape_native_histograms: Option<bool>,
    convert_classic_histograms_to_nhcb: Option<bool>,
    always_scrape_classic_histograms: Option<bool>,
    extra_scrape_metrics: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct ScrapeConfig {
    job_name: String,
}

#[derive(Debug, Deserialize)]
struct Remote {
    url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Storage {
    tsdb: Option<Value>,
    exemplars: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Alerting {
    alert_relabel_configs: Vec<Value>,
    alertmanagers: Vec<Alertmanagers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Alertmanagers {
    scheme: Option<String>,
    path_prefix: Option<String>,
    static_configs: Vec<StaticConfig>,
    api_version: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StaticConfig {
    targets: Vec<String>,
}

/// What only Pharos has.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Pharos {
    /// Whether the rules that come with Pharos are loaded; over the flag.
    shipped_rules: Option<bool>,
    /// A file with the name of one node a line.
    expected_nodes_file: Option<PathBuf>,
    expected_nodes_kubernetes: Option<KubernetesNodes>,
    network_interfaces: NetworkInterfaces,
    /// Whether alerts that are sent tell when they came about; yes if not said.
    alert_timeline: Option<bool>,
}

/// Reads the configuration file and all rule files. Blocking.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn load(options: &Options) -> Result<LoadedConfig, CollectorError> {
    let (path, text) = match &options.config.config_file {
        None => (PathBuf::from("(no configuration file)"), String::new()),
        Some(path) => (path.clone(), config::read(path)?),
    };
    let parsed: File = config::parse(&path, &text)?;
    let mut alertmanager_urls = Vec::new();
    for url in &options.alertmanager_urls {
        check_url(url).map_err(|message| CollectorError::Flag { flag: "alertmanager.url", message })?;
        alertmanager_urls.push(url.clone());
    }
    let not_acted_on = not_acted_on(&path, &text, &parsed)?;
    alertmanager_urls.extend(configured_urls(&path, &text, &parsed.alerting)?);
    let defaults = Defaults {
        interval_ms: parsed.global.evaluation_interval.unwrap_or(DEFAULT_INTERVAL).as_millis_i64().max(1),
        query_offset_ms: parsed.global.rule_query_offset.unwrap_or_default().as_millis_i64(),
    };
    let mut groups = Vec::new();
    if parsed.pharos.shipped_rules.unwrap_or(options.shipped_rules) {
        for (name, rules) in SHIPPED {
            groups.extend(file::parse(Path::new(name), rules, defaults)?);
        }
    }
    for rule_file in rule_files(&path, &parsed.rule_files, options)? {
        groups.extend(file::parse(&rule_file, &config::read(&rule_file)?, defaults)?);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let expected_nodes = match &parsed.pharos.expected_nodes_file {
        Some(file) => ExpectedNodes::read(&folder.join(file))?,
        None => ExpectedNodes::default(),
    };
    parsed.pharos.network_interfaces.check().map_err(|(key, message)| {
        ConfigError::new(&path, format!("pharos.network_interfaces.{key}"), message).locate_in(&text)
    })?;
    Ok(LoadedConfig {
        expected_nodes,
        kubernetes_nodes: parsed.pharos.expected_nodes_kubernetes,
        network_interfaces: parsed.pharos.network_interfaces,
        alert_timeline: parsed.pharos.alert_timeline.unwrap_or(true),
        query_log_file: match parsed.global.query_log_file.filter(|file| !file.is_empty()) {
            Some(file) => Some(folder.join(file)),
            None => options.query.log_file.clone(),
        },
        text,
        external_labels: parsed.global.external_labels.into_iter().collect(),
        alertmanager_urls,
        groups,
        not_acted_on,
    })
}

/// Files that the globs of flags and configuration match, each once, in order. A plain name that is not
/// there is an error; a pattern may match nothing.
fn rule_files(
    config_file: &Path,
    configured: &[String],
    options: &Options,
) -> Result<Vec<PathBuf>, CollectorError> {
    let folder = config_file.parent().unwrap_or(Path::new(""));
    let fault = |pattern: &str, message: String| -> CollectorError {
        if options.rule_files.iter().any(|flag| flag == pattern) {
            CollectorError::Flag { flag: "rules.file", message }
        } else {
            ConfigError::new(config_file, "rule_files", message).into()
        }
    };
    let from_flags = options.rule_files.iter().map(|pattern| (pattern, PathBuf::from(pattern)));
    let from_file = configured.iter().map(|pattern| (pattern, folder.join(pattern)));
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    for (pattern, full) in from_flags.chain(from_file) {
        let found = glob::glob(&full.to_string_lossy())
            .map_err(|error| fault(pattern, format!("{pattern}: {error}")))?;
        let is_plain = !pattern.contains(['*', '?', '[']);
        let before = files.len();
        for path in found {
            let path = path.map_err(|error| fault(pattern, error.to_string()))?;
            if seen.insert(path.clone()) {
                files.push(path);
            }
        }
        if is_plain && files.len() == before && !seen.contains(&full) {
            return Err(fault(pattern, format!("{}: no such rule file", full.display())));
        }
    }
    Ok(files)
}

fn configured_urls(path: &Path, text: &str, alerting: &Alerting) -> Result<Vec<String>, ConfigError> {
    let mut urls = Vec::new();
    for (index, group) in alerting.alertmanagers.iter().enumerate() {
        let key = format!("alerting.alertmanagers[{index}]");
        let fault = |part: &str, message: String| {
            ConfigError::new(path, format!("{key}.{part}"), message).locate_in(text)
        };
        let scheme = group.scheme.as_deref().unwrap_or("http");
        if !matches!(scheme, "http" | "https") {
            return Err(fault("scheme", format!("{scheme:?} is neither http nor https")));
        }
        if group.api_version.as_deref().is_some_and(|version| version != "v2") {
            return Err(fault("api_version", "only v2 is spoken".to_owned()));
        }
        let prefix = group.path_prefix.as_deref().unwrap_or("").trim_matches('/');
        for target in group.static_configs.iter().flat_map(|config| &config.targets) {
            let url = format!("{scheme}://{target}/{prefix}");
            check_url(&url).map_err(|message| fault("static_configs", message))?;
            urls.push(url.trim_end_matches('/').to_owned());
        }
    }
    Ok(urls)
}

fn check_url(url: &str) -> Result<(), String> {
    let parsed = reqwest::Url::parse(url).map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() {
        return Ok(());
    }
    Err(format!("{url:?} is no URL of an alertmanager (write for example http://127.0.0.1:9493)"))
}

/// Names of keys that are set and have no effect, and faults in them.
fn not_acted_on(path: &Path, text: &str, file: &File) -> Result<Vec<String>, ConfigError> {
    let mut jobs = HashSet::new();
    for (index, scrape) in file.scrape_configs.iter().enumerate() {
        if !jobs.insert(&scrape.job_name) || scrape.job_name.is_empty() {
            let message = format!("job name {:?} is empty or used twice", scrape.job_name);
            let key = format!("scrape_configs[{index}].job_name");
            return Err(ConfigError::new(path, key, message).locate_in(text));
        }
    }
    for (key, remotes) in [("remote_write", &file.remote_write), ("remote_read", &file.remote_read)] {
        if let Some(index) = remotes.iter().position(|remote| remote.url.is_empty()) {
            let message = "the URL is empty".to_owned();
            return Err(ConfigError::new(path, format!("{key}[{index}].url"), message).locate_in(text));
        }
    }
    let global = &file.global;
    let storage = file.storage.as_ref();
    let set = [
        ("runtime", file.runtime.is_some()),
        ("scrape_config_files", !file.scrape_config_files.is_empty()),
        ("scrape_configs", !file.scrape_configs.is_empty()),
        ("remote_write", !file.remote_write.is_empty()),
        ("remote_read", !file.remote_read.is_empty()),
        ("storage.tsdb", storage.is_some_and(|storage| storage.tsdb.is_some())),
        ("storage.exemplars", storage.is_some_and(|storage| storage.exemplars.is_some())),
        ("tracing", file.tracing.is_some()),
        ("otlp", file.otlp.is_some()),
        ("alerting.alert_relabel_configs", !file.alerting.alert_relabel_configs.is_empty()),
        ("global.scrape_interval", global.scrape_interval.is_some()),
        ("global.scrape_timeout", global.scrape_timeout.is_some()),
        ("global.scrape_protocols", global.scrape_protocols.is_some()),
        ("global.scrape_failure_log_file", global.scrape_failure_log_file.is_some()),
        ("global.body_size_limit", global.body_size_limit.is_some()),
        ("global.sample_limit", global.sample_limit.is_some()),
        ("global.target_limit", global.target_limit.is_some()),
        ("global.label_limit", global.label_limit.is_some()),
        ("global.label_name_length_limit", global.label_name_length_limit.is_some()),
        ("global.label_value_length_limit", global.label_value_length_limit.is_some()),
        ("global.keep_dropped_targets", global.keep_dropped_targets.is_some()),
        ("global.metric_name_validation_scheme", global.metric_name_validation_scheme.is_some()),
        ("global.metric_name_escaping_scheme", global.metric_name_escaping_scheme.is_some()),
        ("global.scrape_native_histograms", global.scrape_native_histograms.is_some()),
        ("global.convert_classic_histograms_to_nhcb", global.convert_classic_histograms_to_nhcb.is_some()),
        ("global.always_scrape_classic_histograms", global.always_scrape_classic_histograms.is_some()),
        ("global.extra_scrape_metrics", global.extra_scrape_metrics.is_some()),
    ];
    let mut keys: Vec<String> =
        set.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| (*key).to_owned()).collect();
    for (index, group) in file.alerting.alertmanagers.iter().enumerate() {
        keys.extend(group.other.keys().map(|key| format!("alerting.alertmanagers[{index}].{key}")));
    }
    Ok(keys)
}

/// Says which keys have no effect.
pub fn warn_of(config: &LoadedConfig) {
    for key in &config.not_acted_on {
        tracing::warn!(key, "This key of the configuration is accepted but has no effect yet");
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
