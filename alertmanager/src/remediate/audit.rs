//! The audit record: who or what did what, to which end.

use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditEntry {
    pub(crate) at_ms: TimestampMs,
    /// What happened, e.g. `notification_sent`, `acknowledged`, `remediation_started`.
    pub(crate) event: String,
    /// What it happened to: an escalation, a group, a remediation, a silence.
    pub(crate) subject: String,
    /// Who: a person, or `pharos`.
    pub(crate) actor: String,
    /// The rest in words.
    pub(crate) detail: String,
}
