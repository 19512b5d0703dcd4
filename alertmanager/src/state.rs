//! What must survive a kill: silences, the notification log, alerts, escalations, acknowledgements,
//! remediations and the audit record, in `sled`.
//!
//! Records are JSON under readable keys, one tree per kind, and the layout has a version. `sled` 0.34
//! loses what it has not flushed when the process is killed, so whoever must not forget awaits
//! [`Store::durable`]: one task flushes for all who wait at the same time.

mod flusher;
mod open;

pub use open::StateError;

use flusher::Flusher;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

/// The trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Silences,
    NotificationLog,
    Alerts,
    Escalations,
    Acknowledgements,
    Remediations,
    Audit,
    Outbox,
    Meta,
}

impl Kind {
    const ALL: [Kind; 9] = [
        Kind::Silences,
        Kind::NotificationLog,
        Kind::Alerts,
        Kind::Escalations,
        Kind::Acknowledgements,
        Kind::Remediations,
        Kind::Audit,
        Kind::Outbox,
        Kind::Meta,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Silences => "silences",
            Kind::NotificationLog => "notification_log",
            Kind::Alerts => "alerts",
            Kind::Escalations => "escalations",
            Kind::Acknowledgements => "acknowledgements",
            Kind::Remediations => "remediations",
            Kind::Audit => "audit",
            Kind::Outbox => "outbox",
            Kind::Meta => "meta",
        }
    }
}

/// The database behind it. After a refusal `sled` refuses for ever; it has to be closed and opened again.
#[derive(Debug)]
struct Opened {
    /// Empty while it is closed.
    trees: Vec<sled::Tree>,
    flusher: Arc<Flusher>,
}

/// The state folder.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    opened: RwLock<Opened>,
    /// Where a damaged folder was moved, if there was one.
    pub(crate) set_aside: Option<PathBuf>,
    damaged: AtomicU64,
    failed_writes: AtomicU64,
    next_audit: AtomicU64,
}

impl Opened {
    fn tree(&self, kind: Kind) -> Result<&sled::Tree, String> {
        self.trees.get(kind as usize).ok_or_else(|| "it is closed".to_owned())
    }
}

impl Store {
    /// Writes a record. It is durable only after [`Store::durable`].
    pub(crate) fn put<T: Serialize>(&self, kind: Kind, key: impl AsRef<[u8]>, value: &T) {
        let opened = self.opened();
        let written = serde_json::to_vec(value).map_err(|error| error.to_string()).and_then(|bytes| {
            opened.tree(kind)?.insert(key.as_ref(), bytes).map(drop).map_err(|error| error.to_string())
        });
        if let Err(error) = written {
            self.write_failed(&opened, kind, &error);
        }
    }

    /// Removes a record.
    pub(crate) fn remove(&self, kind: Kind, key: impl AsRef<[u8]>) {
        let opened = self.opened();
        let removed =
            opened.tree(kind).and_then(|tree| tree.remove(key.as_ref()).map_err(|error| error.to_string()));
        if let Err(error) = removed {
            self.write_failed(&opened, kind, &error);
        }
    }

    /// Writes all records of a kind and removes those that are not among them, in an order in which a
    /// kill between loses none.
    pub(crate) fn replace<'a, T: Serialize + 'a>(
        &self,
        kind: Kind,
        records: impl Iterator<Item = (Vec<u8>, &'a T)>,
    ) {
        let mut keys = BTreeSet::new();
        for (key, record) in records {
            self.put(kind, &key, record);
            keys.insert(key);
        }
        let known: Vec<sled::IVec> = match self.opened().tree(kind) {
            Ok(tree) => tree.iter().keys().filter_map(Result::ok).collect(),
            Err(_) => return,
        };
        for key in known.into_iter().filter(|key| !keys.contains(key.as_ref())) {
            self.remove(kind, key);
        }
    }

    /// A record by its key.
    pub(crate) fn get<T: DeserializeOwned>(&self, kind: Kind, key: impl AsRef<[u8]>) -> Option<T> {
        let bytes = self.opened().tree(kind).ok()?.get(key.as_ref()).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// All records of a kind by key. One that cannot be read is reported, counted and left out.
    pub(crate) fn all<T: DeserializeOwned>(&self, kind: Kind) -> Vec<(Vec<u8>, T)> {
        let mut records = Vec::new();
        let opened = self.opened();
        let Ok(tree) = opened.tree(kind) else { return records };
        for item in tree.iter() {
            match item {
                Ok((key, value)) => match serde_json::from_slice(&value) {
                    Ok(record) => records.push((key.to_vec(), record)),
                    Err(error) => {
                        self.record_damaged(kind, &String::from_utf8_lossy(&key), &error.to_string())
                    }
                },
                Err(error) => self.record_damaged(kind, "?", &error.to_string()),
            }
        }
        records
    }

    /// Adds to the audit record; the oldest entries go when there are too many.
    pub(crate) fn audit<T: Serialize>(&self, entry: &T) {
        let number = self.next_audit.fetch_add(1, Ordering::Relaxed);
        self.put(Kind::Audit, number.to_be_bytes(), entry);
        if let Some(old) = number.checked_sub(crate::limits::AUDIT_RECORDS_MAX as u64) {
            self.remove(Kind::Audit, old.to_be_bytes());
        }
    }

    /// The newest audit entries, newest first.
    pub(crate) fn newest_audit<T: DeserializeOwned>(&self, most: usize) -> Vec<T> {
        let opened = self.opened();
        let Ok(tree) = opened.tree(Kind::Audit) else { return Vec::new() };
        let newest = tree.iter().rev().take(most);
        newest.filter_map(|item| serde_json::from_slice(&item.ok()?.1).ok()).collect()
    }

    /// Resolves when everything written before is on disk.
    ///
    /// # Errors
    /// If the disk refuses; nothing may then be promised to anybody.
    pub(crate) async fn durable(&self) -> Result<(), StateError> {
        let flusher = Arc::clone(&self.opened().flusher);
        flusher.durable().await
    }

    /// Why nothing can be made durable any more, if so.
    pub(crate) fn broken(&self) -> Option<String> {
        self.opened().flusher.broken()
    }

    /// How many records could not be read.
    pub(crate) fn damaged_records(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// How many writes failed.
    pub(crate) fn failed_writes(&self) -> u64 {
        self.failed_writes.load(Ordering::Relaxed)
    }

    fn opened(&self) -> RwLockReadGuard<'_, Opened> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_failed(&self, opened: &Opened, kind: Kind, error: &str) {
        self.failed_writes.fetch_add(1, Ordering::Relaxed);
        // The first one says it for all until the folder can be written again.
        if opened.flusher.poison(error) {
            tracing::error!(kind = kind.name(), %error, "The state folder refuses a write");
        }
    }

    fn record_damaged(&self, kind: Kind, key: &str, error: &str) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::error!(kind = kind.name(), %key, %error, "A damaged record is left out");
    }
}
