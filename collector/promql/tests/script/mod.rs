//! Prometheus' script language for PromQL tests: `load` series, `eval` queries, compare.

pub(crate) mod command;
pub(crate) mod compare;
pub(crate) mod histogram;
pub(crate) mod memory;
pub(crate) mod nhcb;
pub(crate) mod runner;
pub(crate) mod series;
pub(crate) mod summing;
