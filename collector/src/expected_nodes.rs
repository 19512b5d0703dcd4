//! Nodes that should report, from a file or from Kubernetes: the series `pharos_node_expected`.
//!
//! A node that reported within the last day is expected anyway. The file adds those that never did, so that
//! a machine whose agent was never installed is noticed.

use crate::ingest::series_writer::LoneSample;
use crate::limits::EXPECTED_NODES_MAX;
use pharos_common::config::{self, ConfigError};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::{STALE_NAN, TimestampMs};
use std::collections::BTreeSet;
use std::path::Path;

/// 1 for every node that should report.
pub const NODE_EXPECTED: &str = "pharos_node_expected";

/// The nodes of one file, or of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedNodes {
    /// Name of the file, without its folders; or `kubernetes`.
    pub source: String,
    /// Names of nodes, as in the label `instance`.
    pub nodes: BTreeSet<String>,
}

impl ExpectedNodes {
    /// Reads a file: one name a line, blank lines and what follows a `#` left out.
    ///
    /// # Errors
    /// If it cannot be read, names a node with a blank in it, or too many.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let source = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ExpectedNodes::parse(file, &config::read(file)?).map(|nodes| ExpectedNodes { source, nodes })
    }

    fn parse(file: &Path, text: &str) -> Result<BTreeSet<String>, ConfigError> {
        let mut nodes = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let name = line.split('#').next().unwrap_or_default().trim();
            if name.is_empty() {
                continue;
            }
            if name.contains(char::is_whitespace) {
                let message = format!("{name:?} is no name of a node: one a line");
                return Err(ConfigError::new(file, format!("line {number}"), message));
            }
            nodes.insert(name.to_owned());
            if nodes.len() > EXPECTED_NODES_MAX {
                let message = format!("more than {EXPECTED_NODES_MAX} nodes");
                return Err(ConfigError::new(file, format!("line {number}"), message));
            }
        }
        Ok(nodes)
    }

    /// The series of now, and stale markers for what `before` had and this has not.
    pub fn samples(&self, before: &ExpectedNodes, timestamp_ms: TimestampMs) -> Vec<LoneSample> {
        let sample = |source: &str, node: &str, value| {
            let labels = [(METRIC_NAME, NODE_EXPECTED), ("instance", node), ("source", source)];
            LoneSample { labels: Labels::from_pairs(labels), timestamp_ms, value }
        };
        let moved = self.source != before.source;
        let gone = before.nodes.iter().filter(|node| moved || !self.nodes.contains(*node));
        let gone = gone.map(|node| sample(&before.source, node, STALE_NAN));
        self.nodes.iter().map(|node| sample(&self.source, node, 1.0)).chain(gone).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(text: &str) -> Result<Vec<String>, String> {
        let parsed = ExpectedNodes::parse(Path::new("nodes.txt"), text);
        parsed.map(|nodes| nodes.into_iter().collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_has_a_node_a_line() {
        assert_eq!(nodes("# rack 1\ngpu-2 # spare\n\n gpu-1\ngpu-1\n").unwrap(), ["gpu-1", "gpu-2"]);
        assert!(nodes("gpu-1\ngpu-2 gpu-3\n").unwrap_err().contains("line 2"));
    }

    #[test]
    fn nodes_that_leave_the_file_end_their_series() {
        let of = |names: &[&str]| ExpectedNodes {
            source: "nodes.txt".to_owned(),
            nodes: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let samples = of(&["a"]).samples(&of(&["a", "b"]), 5);
        let told: Vec<_> =
            samples.iter().map(|s| (s.labels.get("instance").unwrap_or(""), s.value.is_nan())).collect();
        assert_eq!(told, [("a", false), ("b", true)]);
    }
}
