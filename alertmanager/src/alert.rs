//! One alert, and how two reports of it become one.
//!
//! Everything here is a pure function of its arguments; [`crate::alert_store`] keeps the alerts.

use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Identifies an alert by its labels; printed as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint(pub u64);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Fingerprint)
    }
}

/// An alert as it was last reported.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    /// What identifies it.
    pub labels: Labels,
    /// What is said about it.
    pub annotations: BTreeMap<String, String>,
    /// Since when it fires.
    pub starts_at_ms: TimestampMs,
    /// When it ended, or when it counts as ended unless reported again.
    pub ends_at_ms: TimestampMs,
    /// When it was last reported.
    pub updated_at_ms: TimestampMs,
    /// Whether `ends_at_ms` is only the time by which it must be reported again.
    pub timeout: bool,
    /// Where it comes from.
    pub generator_url: String,
}

impl Alert {
    /// What its annotations say is wrong.
    pub(crate) fn summary(&self) -> &str {
        let texts = ["summary", "description", "message"];
        texts.iter().find_map(|name| self.annotations.get(*name)).map_or("", String::as_str)
    }

    /// Its identity.
    /// Its identity.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.labels.fingerprint())
    }

    /// The label `alertname`, or `""`.
    pub(crate) fn name(&self) -> &str {
        self.labels.get("alertname").unwrap_or("")
    }

    /// Whether it has ended.
    pub(crate) fn is_resolved_at(&self, now_ms: TimestampMs) -> bool {
        self.ends_at_ms <= now_ms
    }

    /// What is known after `newer` arrived while `self` was known.
    ///
    /// Reports whose times overlap tell of one firing: it keeps the earliest start. Otherwise the newer
    /// report stands alone, a new firing.
    pub(crate) fn updated_by(&self, newer: Alert, now_ms: TimestampMs) -> Alert {
        let ends_inside = newer.ends_at_ms > self.starts_at_ms && newer.ends_at_ms < self.ends_at_ms;
        let starts_inside = newer.starts_at_ms > self.starts_at_ms && newer.starts_at_ms < self.ends_at_ms;
        if !(ends_inside || starts_inside) {
            return newer;
        }
        let (older, mut merged) = if newer.updated_at_ms < self.updated_at_ms {
            (&newer, self.clone())
        } else {
            (self, newer.clone())
        };
        merged.starts_at_ms = merged.starts_at_ms.min(older.starts_at_ms);
        let later_end = older.ends_at_ms > merged.ends_at_ms;
        let takes_older_end = if merged.is_resolved_at(now_ms) {
            // Of two ends that were told, the later one counts.
            older.is_resolved_at(now_ms) && later_end
        } else {
            // An end that somebody told is worth more than one that only waits for the next report.
            later_end && !older.timeout
        };
        if takes_older_end {
            merged.ends_at_ms = older.ends_at_ms;
        }
        merged
    }
}

/// An alert as it lies in the state folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AlertRecord {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at_ms: TimestampMs,
    ends_at_ms: TimestampMs,
    updated_at_ms: TimestampMs,
    timeout: bool,
    generator_url: String,
}

impl From<&Alert> for AlertRecord {
    fn from(alert: &Alert) -> Self {
        AlertRecord {
            labels: label_map(&alert.labels),
            annotations: alert.annotations.clone(),
            starts_at_ms: alert.starts_at_ms,
            ends_at_ms: alert.ends_at_ms,
            updated_at_ms: alert.updated_at_ms,
            timeout: alert.timeout,
            generator_url: alert.generator_url.clone(),
        }
    }
}

impl From<AlertRecord> for Alert {
    fn from(record: AlertRecord) -> Self {
        Alert {
            labels: Labels::from_pairs(record.labels),
            annotations: record.annotations,
            starts_at_ms: record.starts_at_ms,
            ends_at_ms: record.ends_at_ms,
            updated_at_ms: record.updated_at_ms,
            timeout: record.timeout,
            generator_url: record.generator_url,
        }
    }
}

impl Serialize for Alert {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        AlertRecord::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Alert {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        AlertRecord::deserialize(deserializer).map(Alert::from)
    }
}

/// Labels as a map, for JSON and templates.
pub(crate) fn label_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(starts: i64, ends: i64, updated: i64, timeout: bool) -> Alert {
        Alert {
            labels: Labels::from_pairs([("alertname", "A")]),
            annotations: BTreeMap::new(),
            starts_at_ms: starts,
            ends_at_ms: ends,
            updated_at_ms: updated,
            timeout,
            generator_url: String::new(),
        }
    }

    #[test]
    fn reports_of_one_firing_merge() {
        #[track_caller]
        fn check(old: Alert, new: Alert, now: i64, want: (i64, i64)) {
            let merged = old.updated_by(new, now);
            assert_eq!((merged.starts_at_ms, merged.ends_at_ms), want);
        }
        // The resend keeps the first start and takes the new timeout.
        check(alert(10, 100, 10, true), alert(20, 120, 20, true), 20, (10, 120));
        // An end that was told stays against a shorter timeout.
        check(alert(10, 200, 10, false), alert(20, 120, 20, true), 20, (10, 200));
        // A resolve ends it.
        check(alert(10, 100, 10, true), alert(10, 50, 50, false), 50, (10, 50));
        // After its end a new report is a new firing.
        check(alert(10, 50, 50, false), alert(60, 160, 60, true), 60, (60, 160));
        // Of two ends the later one counts.
        check(alert(10, 50, 50, false), alert(10, 40, 60, false), 60, (10, 50));
    }
}
