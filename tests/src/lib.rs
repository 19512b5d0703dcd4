//! The harness of the end-to-end tests: real programs on free ports, real HTTP, real files.
//!
//! [`program::Program`] builds and starts the programs of this workspace, [`api::Api`] asks them,
//! [`listener::Listener`] stands where Slack, PagerDuty or a webhook would be, [`node::Node`] is a
//! simulated agent that speaks the real ingest protocol and remembers what was acknowledged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step fails the test")]

pub mod api;
pub mod data;
pub mod listener;
pub mod load;
pub mod node;
pub mod program;
pub mod recording;
pub mod telemetry;
pub mod wait;

use std::path::PathBuf;

/// The root of the repository.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}
