//! Where one remediation stands.

use crate::alert::Alert;
use crate::config::Mode;
use crate::hex;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The states of a remediation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RemediationState {
    /// Said what it would do, and did nothing.
    DryRun,
    /// Waits for somebody to approve.
    Pending,
    /// Waits for another action to end.
    Waiting,
    /// Acts.
    Running,
    /// Has acted (or may have, before a crash); waits for the alert to end.
    Verifying,
    /// The action ended well, and the alert too where that is verified.
    Succeeded,
    /// The action failed or did not help.
    Failed,
    /// A limit forbade it.
    Refused,
    /// Somebody rejected it.
    Rejected,
    /// The alert ended before anything was done.
    Expired,
}

impl RemediationState {
    /// As the API writes it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            RemediationState::DryRun => "dry_run",
            RemediationState::Pending => "pending",
            RemediationState::Waiting => "waiting",
            RemediationState::Running => "running",
            RemediationState::Verifying => "verifying",
            RemediationState::Succeeded => "succeeded",
            RemediationState::Failed => "failed",
            RemediationState::Refused => "refused",
            RemediationState::Rejected => "rejected",
            RemediationState::Expired => "expired",
        }
    }

    /// Whether nothing more will happen.
    pub(crate) fn is_final(self) -> bool {
        !matches!(
            self,
            RemediationState::Pending
                | RemediationState::Waiting
                | RemediationState::Running
                | RemediationState::Verifying
        )
    }
}

/// One remediation of one firing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Remediation {
    pub(crate) id: String,
    pub(crate) policy: String,
    pub(crate) mode: Mode,
    pub(crate) alert: Alert,
    pub(crate) node: Option<String>,
    pub(crate) state: RemediationState,
    /// Why it is in this state, where that is not plain.
    pub(crate) reason: Option<String>,
    pub(crate) created_at_ms: TimestampMs,
    pub(crate) updated_at_ms: TimestampMs,
    /// Who approved or rejected it.
    pub(crate) decided_by: Option<String>,
    pub(crate) comment: Option<String>,
    /// What it runs or would run.
    pub(crate) arguments: Vec<String>,
    /// When it acted (for a dry run: would have acted).
    pub(crate) acted_at_ms: Option<TimestampMs>,
    pub(crate) outcome: Option<ActionOutcome>,
    pub(crate) verify_until_ms: Option<TimestampMs>,
    /// Whether a crash hides if the action ran.
    pub(crate) in_doubt: bool,
}

/// How an action ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ActionOutcome {
    pub(crate) exit_code: Option<i32>,
    pub(crate) timed_out: bool,
    /// Why it could not be started or watched.
    pub(crate) error: Option<String>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) output_truncated: bool,
}

impl ActionOutcome {
    pub(crate) fn succeeded(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out && self.error.is_none()
    }
}

impl Remediation {
    /// What the cooldown is counted by.
    pub(crate) fn target(&self) -> String {
        self.node.clone().unwrap_or_else(|| self.alert.fingerprint().to_string())
    }
}

/// The same for one policy and one firing, whenever it is computed: that is what makes an action happen at
/// most once.
pub(crate) fn remediation_id(policy: &str, alert: &Alert) -> String {
    let mut hash = Sha256::new();
    hash.update(policy.as_bytes());
    hash.update([0]);
    hash.update(alert.fingerprint().0.to_be_bytes());
    hash.update(alert.starts_at_ms.to_be_bytes());
    hex(&hash.finalize()[..8])
}
