//! How near watched series are to a threshold: the judge writes it, the streams of agents read it.
//!
//! A stream looks at its series only when the number of changes of its node has moved, so a tick of a node
//! where nothing is near costs one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Far from every threshold.
pub const FAR: u8 = 0;
/// Within a tenth of one.
pub const NEAR: u8 = 1;
/// An alert is pending or fires.
pub const ALERTING: u8 = 2;

/// Counts the changes of one node's urgencies.
#[derive(Debug, Default)]
pub struct NodeHints {
    changes: AtomicU64,
}

impl NodeHints {
    /// How many there were.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }
}

/// Urgency of one series.
#[derive(Debug)]
pub struct Urgency {
    level: AtomicU8,
    node: Arc<NodeHints>,
}

impl Urgency {
    /// Far, on this node.
    pub fn new(node: Arc<NodeHints>) -> Self {
        Urgency { level: AtomicU8::new(FAR), node }
    }

    /// Changes it.
    pub fn set(&self, level: u8) {
        if self.level.swap(level, Ordering::Release) != level {
            self.node.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// [`FAR`], [`NEAR`] or [`ALERTING`].
    pub fn level(&self) -> u8 {
        self.level.load(Ordering::Acquire)
    }

    /// As a hint says it: 0 to 1.
    pub fn as_hint(level: u8) -> f32 {
        f32::from(level) / f32::from(ALERTING)
    }

    /// The node's count of changes.
    pub fn node(&self) -> &Arc<NodeHints> {
        &self.node
    }
}
