//! Which streams there are, and which connection speaks for each.

use super::stream_groups::StreamGroups;
use crate::limits::{NODE_FORGOTTEN_AFTER, STREAM_HANDOVER_TIME_MAX};
use pharos_tsdb::StreamId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// One stream of an agent.
#[derive(Debug, Default)]
pub struct StreamEntry {
    /// Its groups. The connection holds the lock while it stores a tick.
    pub groups: tokio::sync::Mutex<StreamGroups>,
    about: Mutex<About>,
    connection: Mutex<Option<Connection>>,
}

/// What the agent said of itself.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// When it last spoke, on the monotonic clock.
    pub spoke: Duration,
}

#[derive(Clone, Debug, Default)]
struct Connection {
    /// Tells the connection to end.
    end: CancellationToken,
    /// Cancelled once it has ended.
    ended: CancellationToken,
}

/// A connection's right to speak for its stream; gone when dropped.
#[derive(Debug)]
pub struct Turn {
    connection: Connection,
}

impl Turn {
    /// Resolves when a newer connection of the stream wants to speak.
    pub async fn taken_over(&self) {
        self.connection.end.cancelled().await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.connection.ended.cancel();
    }
}

impl StreamEntry {
    /// What the agent said of itself.
    pub fn about(&self) -> About {
        self.about.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers what the agent said of itself.
    pub fn set_about(&self, about: About) {
        *self.about.lock().unwrap_or_else(PoisonError::into_inner) = about;
    }

    /// Whether a connection is open.
    pub fn is_connected(&self) -> bool {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection.as_ref().is_some_and(|connection| !connection.ended.is_cancelled())
    }

    /// Ends the older connection of this stream, if there is one, and waits until it has. `None` if it
    /// does not end in time.
    pub async fn take_over(&self) -> Option<Turn> {
        let turn = Turn { connection: Connection::default() };
        let older = {
            let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            connection.replace(turn.connection.clone())
        };
        if let Some(older) = older {
            older.end.cancel();
            tokio::time::timeout(STREAM_HANDOVER_TIME_MAX, older.ended.cancelled()).await.ok()?;
        }
        Some(turn)
    }
}

/// All streams heard of lately. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct StreamRegistry {
    streams: Arc<Mutex<HashMap<StreamId, Arc<StreamEntry>>>>,
}

impl StreamRegistry {
    /// The entry of a stream, made if need be.
    pub fn entry(&self, stream: StreamId) -> Arc<StreamEntry> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(streams.entry(stream).or_default())
    }

    /// All entries.
    pub fn entries(&self) -> Vec<Arc<StreamEntry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Drops streams that were silent for a day. The engine remembers their sequences longer.
    pub fn forget_silent(&self, now: Duration) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, entry| {
            entry.is_connected() || now.saturating_sub(entry.about().spoke) < NODE_FORGOTTEN_AFTER
        });
    }
}
