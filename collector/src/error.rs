//! Why the collector cannot start or has to stop.

use pharos_common::config::ConfigError;
use pharos_tsdb::TsdbError;

/// What ends [`crate::run`] with a failure.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The configuration or a rule file is broken.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A flag has a value that makes no sense.
    #[error("--{flag}: {message}")]
    Flag {
        /// Its name without dashes.
        flag: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The storage cannot be opened or closed.
    #[error(transparent)]
    Storage(#[from] TsdbError),
    /// A metric about the collector itself cannot be registered.
    #[error("self metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system refuses something basic (threads, signals).
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// The client for alertmanagers cannot be built.
    #[error("HTTP client: {0}")]
    HttpClient(#[from] reqwest::Error),
}

impl CollectorError {
    /// The exit status of a program that ends with this error: 2 for what the user wrote wrongly.
    pub fn exit_code(&self) -> u8 {
        match self {
            CollectorError::Config(_) | CollectorError::Flag { .. } => 2,
            _ => 1,
        }
    }
}
