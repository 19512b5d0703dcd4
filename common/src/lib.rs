//! What every Pharos program shares, and what none of them should write twice.
//!
//! [`labels`], [`matcher`], [`sample`], [`starts`] and [`summary`] are the words all crates speak. [`journal`] is the segmented,
//! checksummed log under the agent's buffer and the collector's engine; it and the engine reach files
//! only through [`storage_io`], so tests can cut the power between any two operations. [`template`] is Go's
//! template language for notifications and annotations. [`clock`] is
//! passed in wherever time decides something. [`config`] reads YAML files and says where they are wrong.
//! [`float_text`] prints numbers as Go does.
//! [`server`] is the one accept loop (HTTP/1.1, HTTP/2, gRPC and TLS on one port); [`flags`],
//! [`logging`], [`self_metrics`] and [`shutdown`] make the programs behave alike.

pub mod clock;
pub mod config;
pub mod duration;
pub mod flags;
pub mod float_text;
pub mod histogram;
pub mod journal;
pub mod labels;
pub mod logging;
pub mod matcher;
pub mod sample;
pub mod self_metrics;
pub mod server;
pub mod shutdown;
pub mod starts;
pub mod storage_io;
pub mod summary;
pub mod template;
