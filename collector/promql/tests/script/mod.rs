//! Prometheus' script language for PromQL tests: `load` series, `eval` queries, compare.

pub mod command;
pub mod compare;
pub mod histogram;
pub mod memory;
pub mod nhcb;
pub mod runner;
pub mod series;
