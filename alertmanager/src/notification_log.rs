//! What each integration was last told of each group: the memory that keeps notices from being sent
//! twice, across restarts.

use crate::alert::Fingerprint;
use crate::notify::Integration;
use pharos_common::sample::TimestampMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One integration of one receiver, for one group. Sorted by group first, so that all of a group stand
/// together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NotifyKey {
    pub(crate) group: String,
    pub(crate) receiver: String,
    pub(crate) integration: String,
}

impl NotifyKey {
    pub(crate) fn new(group: &str, receiver: &str, integration: &Integration) -> Self {
        NotifyKey { group: group.to_owned(), receiver: receiver.to_owned(), integration: integration.name() }
    }

    /// As bytes that sort and cannot be confused.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        [self.receiver.as_bytes(), &[0], self.integration.as_bytes(), &[0], self.group.as_bytes()].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.splitn(3, |&byte| byte == 0).map(|part| String::from_utf8(part.to_vec()).ok());
        let (receiver, integration, group) = (parts.next()??, parts.next()??, parts.next()??);
        Some(NotifyKey { group, receiver, integration })
    }
}

/// What an integration knows of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogEntry {
    pub(crate) firing: BTreeSet<Fingerprint>,
    pub(crate) resolved: BTreeSet<Fingerprint>,
    pub(crate) at_ms: TimestampMs,
    pub(crate) expires_at_ms: TimestampMs,
    /// What the receiver gave back, to change the message later.
    pub(crate) receipt: Option<String>,
}

/// All entries.
#[derive(Debug, Default)]
pub(crate) struct NotificationLog {
    entries: BTreeMap<NotifyKey, LogEntry>,
}

impl NotificationLog {
    pub(crate) fn get(&self, key: &NotifyKey) -> Option<&LogEntry> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NotifyKey, &LogEntry)> {
        self.entries.iter()
    }

    pub(crate) fn put(&mut self, key: NotifyKey, entry: LogEntry) {
        self.entries.insert(key, entry);
    }

    /// Removes what has expired; returns the keys.
    pub(crate) fn forget(&mut self, now_ms: TimestampMs) -> Vec<NotifyKey> {
        let gone: Vec<NotifyKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires_at_ms < now_ms)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &gone {
            self.entries.remove(key);
        }
        gone
    }

    /// What the integrations know of one group.
    pub(crate) fn of_group(&self, group: &str) -> impl Iterator<Item = &LogEntry> {
        let first =
            NotifyKey { group: group.to_owned(), receiver: String::new(), integration: String::new() };
        self.entries.range(first..).take_while(move |(key, _)| key.group == group).map(|(_, entry)| entry)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
