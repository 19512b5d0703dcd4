//! What one agent is told of its series that are near a threshold.
//!
//! The judge writes urgencies, ticks bring this code by, changes flow out as hints: only changes, at most a
//! few times a second, and again before they expire. A tick of a node where nothing changed costs a load
//! per group.

use super::stream_groups::StreamGroups;
use crate::limits::{HINT_VALID, HINTS_EVERY, HINTS_PER_MESSAGE_MAX};
use crate::rules::urgency::{FAR, Urgency};
use foldhash::HashMap;
use pharos_proto::v1;
use std::time::Duration;

/// What the agent at the other end of one connection was told.
#[derive(Debug, Default)]
pub(crate) struct HintBook {
    /// By the agent's numbers of group and column: the level, and when it was told.
    told: HashMap<(u32, u32), (u8, Duration)>,
    /// The node's count of changes then.
    seen_changes: u64,
    looked_at: Option<Duration>,
}

impl HintBook {
    /// The hints to send at `now`, on the monotonic clock.
    pub(crate) fn take(&mut self, groups: &StreamGroups, now: Duration) -> Vec<v1::Hint> {
        let since = self.looked_at.map(|at| now.saturating_sub(at));
        if since.is_some_and(|since| since < HINTS_EVERY) {
            return Vec::new();
        }
        let changes = groups.urgency_changes();
        let expires = !self.told.is_empty() && since.is_none_or(|since| since >= HINT_VALID / 2);
        if changes == self.seen_changes && !expires {
            return Vec::new();
        }
        self.looked_at = Some(now);
        let mut hints = Vec::new();
        groups.for_each_urgency(|group, column, level| {
            let known = self.told.get(&(group, column)).copied();
            let due = match known {
                None => level != FAR,
                Some((before, at)) => {
                    before != level || (level != FAR && now.saturating_sub(at) >= HINT_VALID / 2)
                }
            };
            if !due || hints.len() >= HINTS_PER_MESSAGE_MAX {
                return;
            }
            match level {
                FAR => self.told.remove(&(group, column)),
                _ => self.told.insert((group, column), (level, now)),
            };
            let valid_ms = HINT_VALID.as_millis() as u32;
            hints.push(v1::Hint { group, column, urgency: Urgency::as_hint(level), valid_ms });
        });
        if hints.len() < HINTS_PER_MESSAGE_MAX {
            // Otherwise the rest goes with the next message.
            self.seen_changes = changes;
        }
        hints
    }
}
