//! Flags that every program has, written as Prometheus writes them.

use crate::logging::{LogFormat, LogLevel};
use std::path::PathBuf;

/// `--log.*`
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogFlags {
    /// Only log messages with the given severity or above
    #[arg(long = "log.level", value_enum, default_value_t)]
    pub level: LogLevel,
    /// Output format of log messages
    #[arg(long = "log.format", value_enum, default_value_t)]
    pub format: LogFormat,
}

impl LogFlags {
    /// Starts logging as the flags say.
    pub fn init(&self) {
        crate::logging::init(self.level, self.format);
    }
}

/// `--config.file` of a program that runs well without one.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigFlag {
    /// Configuration file (YAML); SIGHUP or POST /-/reload reads it again
    #[arg(long = "config.file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
}
