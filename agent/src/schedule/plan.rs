//! The plan: what the scheduler's owner wants to run, how often, and at what cost.

use super::Rate;
use crate::recorder::RecorderPlan;
use crate::sampler::{SamplerKind, SamplerOptions};
use std::time::Duration;

/// What runs, and how often.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The samplers that are switched on.
    pub samplers: Vec<PlannedSampler>,
    /// Options of all samplers.
    pub options: SamplerOptions,
    /// Share of one core that sampling and journal may use; `None` sets no limit.
    pub cpu_budget: Option<f64>,
    /// Time between reading and sending, which spreads the nodes of a cluster.
    pub push_delay: Duration,
    /// What the flight recorder keeps.
    pub recorder: RecorderPlan,
}

/// One sampler of a plan.
#[derive(Clone, Copy, Debug)]
pub struct PlannedSampler {
    /// Which.
    pub kind: &'static SamplerKind,
    /// How often it may read.
    pub rate: Rate,
}

/// What the scheduler's owner tells it.
#[derive(Debug)]
pub enum Control {
    /// Run this from now on.
    Reconfigure(Box<Plan>),
    /// Hints of the collector lie in the inbox.
    Hints,
    /// Take no more readings.
    Stop,
}
