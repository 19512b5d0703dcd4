//! The flags of queries, which the collector and the one-process program share.

use pharos_common::duration::PrometheusDuration;
use std::path::PathBuf;

/// What queries may cost, and where they are logged.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct QueryFlags {
    /// Samples a single query may hold in memory
    #[arg(long = "query.max-samples", value_name = "N", default_value_t = 50_000_000)]
    pub samples_max: usize,

    /// Time after which a query is ended
    #[arg(long = "query.timeout", value_name = "DURATION", default_value = "2m")]
    pub timeout: PrometheusDuration,

    /// Queries that run at once
    #[arg(long = "query.max-concurrency", value_name = "N", default_value_t = 20)]
    pub concurrency_max: usize,

    /// How far back a query looks for the newest sample of a series
    #[arg(long = "query.lookback-delta", value_name = "DURATION", default_value = "5m")]
    pub lookback_delta: PrometheusDuration,

    /// File to log every query to, a line of JSON each, opened again on reload; global.query_log_file of the
    /// configuration comes first
    #[arg(long = "query.log-file", value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

impl Default for QueryFlags {
    fn default() -> Self {
        QueryFlags {
            samples_max: 50_000_000,
            timeout: PrometheusDuration::from_secs(120),
            concurrency_max: 20,
            lookback_delta: PrometheusDuration::from_secs(300),
            log_file: None,
        }
    }
}
