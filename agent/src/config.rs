//! The configuration file, and the configuration that the agent runs with.
//!
//! ```yaml
//! node_name: gpu-17            # as --node.name
//! collectors: [a:9490, b:9490] # as --collector.address
//! samplers:
//!   filesystem: {fixed: 10s}   # one reading every ten seconds
//!   arp: {enabled: false}
//! journal: {bytes_max: 1073741824, age_max: 2d}
//! ```

use crate::options::{AgentOptions, unknown_sampler};
use crate::sampler::find;
use crate::schedule::Plan;
use crate::spool::SpoolLimits;
use pharos_common::config::{self, ConfigError};
use pharos_common::duration::PrometheusDuration;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Faster than this the kernel's counters hardly move.
const INTERVAL_MS_MIN: u64 = 100;
/// Slower than this a series counts as gone between two readings (Prometheus' lookback is 5 minutes).
const INTERVAL_MS_MAX: u64 = 120_000;
/// A journal needs room for a few segments.
const JOURNAL_BYTES_MIN: u64 = 1 << 16;

/// Everything the agent needs to run. Made by [`AgentOptions::load`].
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The node's name.
    pub node: String,
    /// Collectors, the preferred first; none for a plain exporter.
    pub collectors: Vec<String>,
    /// Folder of the journal.
    pub storage_path: PathBuf,
    /// What is sampled.
    pub plan: Plan,
    /// Bounds of the journal.
    pub limits: SpoolLimits,
    /// Where it came from: a reload reads the file again.
    pub options: AgentOptions,
}

/// The configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// As `--node.name`.
    pub node_name: Option<String>,
    /// As `--collector.address`.
    pub collectors: Option<Vec<String>>,
    /// Samplers by name.
    pub samplers: BTreeMap<String, SamplerConfig>,
    /// Bounds of the journal.
    pub journal: JournalConfig,
}

/// One sampler.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerConfig {
    /// Whether it runs.
    pub enabled: Option<bool>,
    /// One reading in this time.
    pub fixed: Option<PrometheusDuration>,
}

/// Bounds of the journal.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Bytes it may take.
    pub bytes_max: Option<u64>,
    /// Age of its oldest frame.
    pub age_max: Option<PrometheusDuration>,
}

impl ConfigFile {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, with line, column and key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = config::read(path)?;
        let file: ConfigFile = config::parse(path, &text)?;
        file.check(path).map_err(|error| error.locate_in(&text))?;
        Ok(file)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        for (name, sampler) in &self.samplers {
            if find(name).is_none() {
                return Err(unknown_sampler(path, name));
            }
            let range = INTERVAL_MS_MIN..=INTERVAL_MS_MAX;
            if let Some(fixed) = sampler.fixed
                && !range.contains(&fixed.as_millis())
            {
                let key = format!("samplers.{name}.fixed");
                return Err(ConfigError::new(path, key, format!("{fixed} is not between 100ms and 2m")));
            }
        }
        if self.journal.bytes_max.is_some_and(|bytes| bytes < JOURNAL_BYTES_MIN) {
            let message = format!("less than {JOURNAL_BYTES_MIN} bytes hold no frames");
            return Err(ConfigError::new(path, "journal.bytes_max", message));
        }
        Ok(())
    }
}
