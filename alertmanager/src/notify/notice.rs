//! What is to be told: the content of one notification, before any service's format.

use crate::alert::Alert;
use crate::hex;
use pharos_common::labels::Labels;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a notice says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoticeKind {
    /// At least one alert fires.
    Firing,
    /// All are resolved.
    Resolved,
    /// Somebody took it.
    Acknowledged,
}

/// One notification.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) kind: NoticeKind,
    pub(crate) receiver: String,
    pub(crate) group_key: String,
    pub(crate) group_labels: Labels,
    /// Under which the service collects everything about one matter.
    pub(crate) dedup_key: String,
    pub(crate) alerts: Vec<NoticeAlert>,
    /// Why it goes out.
    pub(crate) reason: &'static str,
    /// Set on notices of an escalation.
    pub(crate) tier: Option<TierNote>,
    /// What the service gave back for the message before this one.
    pub(crate) receipt: Option<String>,
    /// Who acknowledged, and with which words.
    pub(crate) acknowledged: Option<(String, String)>,
    /// Tells apart notices that are otherwise equal (repeats). The same after a crash.
    pub(crate) sequence: i64,
}

/// An alert of a notice, with its state as of the decision to send.
#[derive(Clone, Debug)]
pub(crate) struct NoticeAlert {
    pub(crate) alert: Alert,
    pub(crate) resolved: bool,
}

/// Which step of which escalation sends a notice.
#[derive(Clone, Debug)]
pub(crate) struct TierNote {
    pub(crate) escalation: String,
    /// From 0.
    pub(crate) tier: usize,
    /// Where a person can acknowledge.
    pub(crate) acknowledge_url: String,
}

impl NoticeAlert {
    pub(crate) fn status(&self) -> &'static str {
        if self.resolved { "resolved" } else { "firing" }
    }
}

impl Notice {
    /// `firing` or `resolved`, as templates and webhooks say.
    pub(crate) fn status(&self) -> &'static str {
        if self.kind == NoticeKind::Resolved { "resolved" } else { "firing" }
    }

    /// The labels that all alerts share.
    pub(crate) fn common_labels(&self) -> Labels {
        let Some((first, rest)) = self.alerts.split_first() else { return Labels::empty() };
        let shared = |name: &str| {
            let value = first.alert.labels.get(name);
            rest.iter().all(|item| item.alert.labels.get(name) == value)
        };
        first.alert.labels.filtered(shared)
    }

    /// The annotations that all alerts share.
    pub(crate) fn common_annotations(&self) -> BTreeMap<String, String> {
        let Some((first, rest)) = self.alerts.split_first() else { return BTreeMap::new() };
        first
            .alert
            .annotations
            .iter()
            .filter(|(name, value)| rest.iter().all(|item| item.alert.annotations.get(*name) == Some(value)))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Equal for every attempt to send this notice, also after a crash, and for no other notice.
    pub(crate) fn idempotency_key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.dedup_key.as_bytes());
        hash.update([self.kind as u8]);
        hash.update(self.receiver.as_bytes());
        hash.update(self.sequence.to_le_bytes());
        for item in &self.alerts {
            hash.update(item.alert.fingerprint().0.to_le_bytes());
            hash.update(item.alert.starts_at_ms.to_le_bytes());
            hash.update([u8::from(item.resolved)]);
        }
        hex(&hash.finalize())
    }
}

/// Alertmanager's dedup key: SHA-256 of the group key, in hex.
pub(crate) fn group_dedup_key(group_key: &str) -> String {
    hex(&Sha256::digest(group_key.as_bytes()))
}

/// The dedup key of an escalation's notices about one alert.
pub(crate) fn tier_dedup_key(escalation: &str, fingerprint: crate::alert::Fingerprint) -> String {
    let mut hash = Sha256::new();
    hash.update(escalation.as_bytes());
    hash.update([0]);
    hash.update(fingerprint.to_string().as_bytes());
    hex(&hash.finalize())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn notice() -> Notice {
        let alert = Alert {
            labels: Labels::from_pairs([
                ("alertname", "GpuHot"),
                ("gpu", "3"),
                ("node", "n1"),
                ("severity", "critical"),
            ]),
            annotations: [("summary".to_owned(), "GPU 3 is hot".to_owned())].into(),
            starts_at_ms: 0,
            ends_at_ms: 300_000,
            updated_at_ms: 0,
            timeout: true,
            generator_url: "http://collector/graph".to_owned(),
        };
        Notice {
            kind: NoticeKind::Firing,
            receiver: "team".to_owned(),
            group_key: "{}:{alertname=\"GpuHot\"}".to_owned(),
            group_labels: Labels::from_pairs([("alertname", "GpuHot")]),
            dedup_key: group_dedup_key("{}:{alertname=\"GpuHot\"}"),
            alerts: vec![NoticeAlert { alert, resolved: false }],
            reason: "first_notification",
            tier: None,
            receipt: None,
            acknowledged: None,
            sequence: 0,
        }
    }

    #[test]
    fn the_idempotency_key_tells_repeats_apart_and_nothing_else() {
        let first = notice();
        let mut later = notice();
        assert_eq!(first.idempotency_key(), later.idempotency_key());
        later.sequence = 7;
        assert_ne!(first.idempotency_key(), later.idempotency_key());
    }
}
