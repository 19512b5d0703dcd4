//! All alerts that are known, by fingerprint.

use crate::alert::{Alert, Fingerprint};
use pharos_common::sample::TimestampMs;
use std::collections::BTreeMap;

/// The alerts, and who still needs them.
#[derive(Debug, Default)]
pub(crate) struct AlertStore {
    by_fingerprint: BTreeMap<Fingerprint, Alert>,
}

/// What a report changed.
#[derive(Debug)]
pub(crate) struct Received {
    /// The alert as it is now known.
    pub(crate) alert: Alert,
    /// Whether it fires now and did not before (or began a new firing).
    pub(crate) starts_firing: bool,
    /// Whether it fired before and does not now.
    pub(crate) stops_firing: bool,
}

impl AlertStore {
    /// Takes a report in.
    pub(crate) fn put(&mut self, report: Alert, now_ms: TimestampMs) -> Received {
        let fingerprint = report.fingerprint();
        let previous = self.by_fingerprint.get(&fingerprint);
        let fired_before = previous.is_some_and(|old| !old.is_resolved_at(now_ms));
        let alert = match previous {
            Some(old) => old.updated_by(report, now_ms),
            None => report,
        };
        let same_firing = previous.is_some_and(|old| old.starts_at_ms == alert.starts_at_ms);
        let fires = !alert.is_resolved_at(now_ms);
        self.by_fingerprint.insert(fingerprint, alert.clone());
        Received {
            starts_firing: fires && !(fired_before && same_firing),
            stops_firing: !fires && fired_before,
            alert,
        }
    }

    pub(crate) fn get(&self, fingerprint: Fingerprint) -> Option<&Alert> {
        self.by_fingerprint.get(&fingerprint)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Fingerprint, &Alert)> {
        self.by_fingerprint.iter().map(|(fingerprint, alert)| (*fingerprint, alert))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_fingerprint.len()
    }

    pub(crate) fn remove(&mut self, fingerprint: Fingerprint) {
        self.by_fingerprint.remove(&fingerprint);
    }
}
