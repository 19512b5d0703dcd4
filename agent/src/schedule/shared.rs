//! What the scheduler, its lanes and the agent's other parts share.

use crate::board::Board;
use crate::hints::HintInbox;
use crate::own_metrics::OwnMetrics;
use crate::recorder::Recorder;
use crate::status::SamplerStatuses;
use pharos_common::clock::SharedClock;
use std::sync::Arc;

/// What the scheduler's parts share.
#[derive(Clone)]
pub struct Shared {
    /// Where readings are shown.
    pub board: Arc<Board>,
    /// Where each sampler's fate is noted.
    pub statuses: Arc<SamplerStatuses>,
    /// Metrics about the agent.
    pub metrics: OwnMetrics,
    /// The time.
    pub clock: SharedClock,
    /// Where hints of the collector arrive.
    pub hints: Arc<HintInbox>,
    /// The last minute, finely.
    pub recorder: Arc<Recorder>,
}

impl Shared {
    /// What a scheduler on this board and clock needs.
    pub fn new(board: Board, metrics: OwnMetrics, clock: SharedClock) -> Self {
        Shared {
            board: Arc::new(board),
            statuses: Arc::default(),
            metrics,
            clock,
            hints: Arc::default(),
            recorder: Arc::default(),
        }
    }
}
