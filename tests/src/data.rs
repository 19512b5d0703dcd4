//! What benchmarks send: the series of a node in groups, and their values second after second. Either the
//! model ([`crate::telemetry`]) or the recording of a real machine ([`crate::recording`]).

use crate::recording::{RecordedNode, Recording, Walk};
use crate::telemetry::{NodeValues, Part};
use std::sync::Arc;

/// One series of a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SeriesSpec {
    /// Metric name.
    pub name: String,
    /// Labels beside the name, the instance and the job.
    pub labels: Vec<(String, String)>,
}

/// Series that are read together.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// In column order.
    pub series: Vec<SeriesSpec>,
}

/// The values of one node.
pub trait Ticks: Send {
    /// Moves on by a second; all values, group after group.
    fn tick(&mut self) -> &[f64];
}

/// Where the data come from.
#[derive(Clone, Debug)]
pub enum Data {
    /// Arithmetic: a GPU node, or a part of it.
    Model(Part),
    /// node_exporter on a real machine, replayed.
    Recording(Arc<Recording>),
    /// The same for longer than it is, back and forth.
    Walk(Arc<Recording>),
}

impl Data {
    /// The series of a node, without instance and job.
    pub fn groups(&self) -> Vec<GroupSpec> {
        match self {
            Data::Model(part) => part.groups(),
            Data::Recording(recording) | Data::Walk(recording) => recording.groups(),
        }
    }

    /// Series of a node.
    pub fn series_per_node(&self) -> usize {
        self.groups().iter().map(|group| group.series.len()).sum()
    }

    /// The values of node number `node` from its first second on.
    pub fn node(&self, node: usize) -> Box<dyn Ticks> {
        match self {
            Data::Model(part) => Box::new(NodeValues::of(node as u64, part)),
            Data::Recording(recording) => Box::new(RecordedNode::new(Arc::clone(recording), node)),
            Data::Walk(recording) => Box::new(Walk::new(Arc::clone(recording))),
        }
    }
}

/// The label `instance` of node number `node`.
pub fn instance(node: usize) -> String {
    format!("gpu-node-{node:04}")
}

/// When in its second a node samples, milliseconds: nodes are not in step, and none samples on the whole
/// second, so that a window's edge never meets a sample (Prometheus 2 and 3 differ there).
pub fn phase_ms(node: usize) -> i64 {
    1 + (node as i64 * 7) % 900
}
