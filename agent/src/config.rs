//! The configuration file, and the configuration that the agent runs with.
//!
//! ```yaml
//! node_name: gpu-17            # as --node.name
//! collectors: [a:9490, b:9490] # as --collector.address
//! samplers:
//!   filesystem: {fixed: 10s}   # one reading every ten seconds
//!   pressure:                  # every second; every 100 ms while a value moves or an alert is near
//!     adaptive: {fastest: 100ms, grid: 1s}
//!   arp: {enabled: false}
//! budget: {cpu_percent: 2}     # of one core, for sampling and journal; 0 sets no limit
//! push:
//!   jitter: 20ms               # nodes spread their pushes over this time
//!   return_interval: 30s       # how often a preferred collector is asked while another takes the frames
//! recorder:                    # the last minute at 10 Hz, shipped when an alert fires or on POST /-/dump
//!   series: [DCGM_FI_DEV_POWER_USAGE, node_pressure_.*]
//! journal: {bytes_max: 1073741824, age_max: 2d}
//! ```

use crate::options::{AgentOptions, unknown_sampler};
use crate::recorder::RecorderPlan;
use crate::sampler::find;
use crate::schedule::{Adaptive, Plan, Rate};
use crate::spool::SpoolLimits;
use pharos_common::config::{self, ConfigError};
use pharos_common::duration::PrometheusDuration;
use pharos_common::server::TlsFiles;
use regex::Regex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Faster than this the kernel's counters hardly move.
const INTERVAL_MS_MIN: u64 = 100;
/// Slower than this a series counts as gone between two readings (Prometheus' lookback is 5 minutes).
const INTERVAL_MS_MAX: u64 = 120_000;
/// The default budget, percent of one core: many times what all samplers take at 1 s.
const CPU_PERCENT_DEFAULT: f64 = 2.0;
/// Longest time over which nodes may spread their pushes: alerts wait for them.
const JITTER_MS_MAX: u64 = 1_000;
/// Default of it.
const JITTER_MS_DEFAULT: u64 = 20;
/// Time between two questions to the preferred collectors: soon enough for a person who waits for it.
const RETURN_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// More often would be a load on a collector that is in trouble.
const RETURN_INTERVAL_MS_MIN: u64 = 1_000;
/// Longest recording.
const RECORDER_KEEP_MS_MAX: u64 = 300_000;
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
    /// Time between two questions to the preferred collectors while another one takes the frames.
    pub return_interval: Duration,
    /// Where `/metrics` is.
    pub telemetry_path: String,
    /// Whether it has the agent's metrics about itself.
    pub own_metrics: bool,
    /// The server's certificate; without one it serves in clear.
    pub tls: Option<TlsFiles>,
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
    /// What the agent may cost.
    pub budget: BudgetConfig,
    /// How frames go out.
    pub push: PushConfig,
    /// What the flight recorder keeps.
    pub recorder: RecorderConfig,
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
    /// Faster than the grid when that tells more.
    pub adaptive: Option<AdaptiveConfig>,
}

/// An adaptive rate.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveConfig {
    /// Interval while a value moves or an alert is near.
    pub fastest: PrometheusDuration,
    /// Interval of the series themselves; a multiple of `fastest`.
    #[serde(default = "grid_default")]
    pub grid: PrometheusDuration,
    /// Interval while nothing changes; a multiple of `grid`. Without it the grid is kept.
    #[serde(default)]
    pub slowest: Option<PrometheusDuration>,
}

fn grid_default() -> PrometheusDuration {
    PrometheusDuration::from_secs(1)
}

impl SamplerConfig {
    /// The rate that is configured, if one is.
    pub fn rate(&self) -> Option<Rate> {
        let ms = |duration: PrometheusDuration| duration.as_millis() as u32;
        let adaptive = self.adaptive.map(|adaptive| {
            Rate::Adaptive(Adaptive {
                fastest_ms: ms(adaptive.fastest),
                grid_ms: ms(adaptive.grid),
                slowest_ms: adaptive.slowest.map(ms),
            })
        });
        adaptive.or_else(|| self.fixed.map(|fixed| Rate::fixed(ms(fixed))))
    }
}

/// What the agent may cost.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Percent of one core for sampling and journal; 0 sets no limit.
    pub cpu_percent: Option<f64>,
}

impl BudgetConfig {
    /// Share of one core, or `None` for no limit.
    pub fn share(&self) -> Option<f64> {
        let percent = self.cpu_percent.unwrap_or(CPU_PERCENT_DEFAULT);
        (percent > 0.0).then_some(percent / 100.0)
    }
}

/// How frames go out.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// Time over which the nodes of a cluster spread their pushes.
    pub jitter: Option<PrometheusDuration>,
    /// Time between two questions to the preferred collectors while another one takes the frames. Changes
    /// need a restart.
    pub return_interval: Option<PrometheusDuration>,
}

impl PushConfig {
    /// The interval, or its default.
    pub fn return_interval(&self) -> Duration {
        self.return_interval.map_or(RETURN_INTERVAL_DEFAULT, PrometheusDuration::to_std)
    }

    /// This node's part of the jitter: always the same, so that its delay does not vary.
    pub fn delay(&self, node: &str) -> Duration {
        let jitter_ms = self.jitter.map_or(JITTER_MS_DEFAULT, PrometheusDuration::as_millis);
        // FNV-1a: any even spread does, and this one never changes.
        let hash = node.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Duration::from_millis(hash % (jitter_ms + 1))
    }
}

/// What the flight recorder keeps.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecorderConfig {
    /// Names of series; regular expressions that match the whole name.
    pub series: Vec<String>,
    /// For how long.
    pub keep: Option<PrometheusDuration>,
    /// From reading to reading.
    pub interval: Option<PrometheusDuration>,
}

impl RecorderConfig {
    /// The same with compiled patterns.
    ///
    /// # Errors
    /// If one is none.
    pub fn plan(&self) -> Result<RecorderPlan, regex::Error> {
        let default = RecorderPlan::default();
        let compile = |pattern: &String| Regex::new(&format!("^(?:{pattern})$"));
        Ok(RecorderPlan {
            series: self.series.iter().map(compile).collect::<Result<_, _>>()?,
            keep: self.keep.map_or(default.keep, PrometheusDuration::to_std),
            interval_ms: self.interval.map_or(default.interval_ms, |interval| interval.as_millis() as u32),
        })
    }
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

impl SamplerConfig {
    /// The key that is wrong, and why.
    fn fault(&self) -> Option<(&'static str, String)> {
        let out_of_range = |key, duration: Option<PrometheusDuration>| {
            let duration = duration?;
            let inside = (INTERVAL_MS_MIN..=INTERVAL_MS_MAX).contains(&duration.as_millis());
            (!inside).then(|| (key, format!("{duration} is not between 100ms and 2m")))
        };
        let adaptive = self.adaptive;
        let range = out_of_range("fixed", self.fixed)
            .or_else(|| out_of_range("adaptive.fastest", adaptive.map(|adaptive| adaptive.fastest)))
            .or_else(|| out_of_range("adaptive.grid", adaptive.map(|adaptive| adaptive.grid)))
            .or_else(|| out_of_range("adaptive.slowest", adaptive.and_then(|adaptive| adaptive.slowest)));
        if range.is_some() {
            return range;
        }
        let adaptive = adaptive?;
        if self.fixed.is_some() {
            return Some(("adaptive", "a rate is fixed or adaptive, not both".to_owned()));
        }
        if !adaptive.grid.as_millis().is_multiple_of(adaptive.fastest.as_millis()) {
            return Some(("adaptive.fastest", format!("{} is no multiple of it", adaptive.grid)));
        }
        let slowest = adaptive.slowest?;
        let multiple = slowest.as_millis().is_multiple_of(adaptive.grid.as_millis());
        (!multiple).then(|| ("adaptive.slowest", format!("this is no multiple of {}", adaptive.grid)))
    }
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
            if let Some((key, message)) = sampler.fault() {
                return Err(ConfigError::new(path, format!("samplers.{name}.{key}"), message));
            }
        }
        if self.budget.cpu_percent.is_some_and(|percent| !(0.0..=10_000.0).contains(&percent)) {
            let message = "write percent of one core, or 0 for no limit";
            return Err(ConfigError::new(path, "budget.cpu_percent", message));
        }
        if self.push.jitter.is_some_and(|jitter| jitter.as_millis() > JITTER_MS_MAX) {
            return Err(ConfigError::new(path, "push.jitter", "alerts would wait more than a second"));
        }
        let interval = self.push.return_interval.map(PrometheusDuration::as_millis);
        if interval.is_some_and(|interval| interval < RETURN_INTERVAL_MS_MIN) {
            return Err(ConfigError::new(path, "push.return_interval", "this is less than a second"));
        }
        if let Err(error) = self.recorder.plan() {
            return Err(ConfigError::new(path, "recorder.series", error.to_string()));
        }
        if self.recorder.keep.is_some_and(|keep| !(1_000..=RECORDER_KEEP_MS_MAX).contains(&keep.as_millis()))
        {
            return Err(ConfigError::new(path, "recorder.keep", "this is not between 1s and 5m"));
        }
        let interval = self.recorder.interval.map(PrometheusDuration::as_millis);
        if interval.is_some_and(|interval| !(INTERVAL_MS_MIN..=1_000).contains(&interval)) {
            return Err(ConfigError::new(path, "recorder.interval", "this is not between 100ms and 1s"));
        }
        if self.journal.bytes_max.is_some_and(|bytes| bytes < JOURNAL_BYTES_MIN) {
            let message = format!("less than {JOURNAL_BYTES_MIN} bytes hold no frames");
            return Err(ConfigError::new(path, "journal.bytes_max", message));
        }
        Ok(())
    }
}
