//! The alertmanager: decides whom to tell of an alert, tells them, and repairs what it may.
//!
//! Alerts come in by [`api`] (Prometheus' `POST /api/v2/alerts`). [`route`] finds their receivers,
//! [`group`] gathers them, [`pipeline`] drops what is inhibited, silenced, muted or known already, and
//! [`delivery`] sends the rest through [`notify`], one task per integration, with retries. Beside the
//! routes, [`escalation`] climbs tier by tier until somebody acknowledges, and [`remediate`] runs actions
//! under strict limits. [`engine`] holds the living state and is the only place that changes it; [`state`]
//! keeps what must survive a kill. Modules that decide are pure and take the time as an argument; timers,
//! sockets and disks are at the rim (`engine`'s loop, `delivery`, `notify`, `actions`, `state`).

mod actions;
mod alert;
mod alert_store;
mod api;
mod config;
mod delivery;
mod engine;
mod escalation;
mod group;
mod inhibit;
mod limits;
mod links;
mod matchers;
mod metrics;
mod notification_log;
mod notify;
mod options;
mod page;
mod pipeline;
mod remediate;
mod render;
mod route;
mod run;
mod silence;
mod stages;
mod state;
mod time_interval;

pub use options::{ClusterFlags, CompatibilityFlags, Options};
pub use run::{RunError, run, run_with};
pub use state::StateError;

/// The flag that changes the listening address, for messages.
pub const LISTEN_FLAG: &str = "--web.listen-address";

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// TLS by `ring`, for every client of this process. Harmless when somebody else was first.
fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
