//! `ksmd`: what the kernel has saved by sharing equal pages, from `/sys/kernel/mm/ksm`.

use super::inventory::{self, Found};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// Files and their metrics, with the factor to the metric's unit.
const FILES: [(&str, &str, f64); 10] = [
    ("full_scans", "node_ksmd_full_scans_total", 1.0),
    ("general_profit", "node_ksmd_general_profit_bytes", 1.0),
    ("merge_across_nodes", "node_ksmd_merge_across_nodes", 1.0),
    ("pages_shared", "node_ksmd_pages_shared", 1.0),
    ("pages_sharing", "node_ksmd_pages_sharing", 1.0),
    ("pages_to_scan", "node_ksmd_pages_to_scan", 1.0),
    ("pages_unshared", "node_ksmd_pages_unshared", 1.0),
    ("pages_volatile", "node_ksmd_pages_volatile", 1.0),
    ("run", "node_ksmd_run", 1.0),
    ("sleep_millisecs", "node_ksmd_sleep_seconds", 0.001),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("kernel/mm/ksm");
    let source = folder.clone();
    inventory::sampler(&source, "the kernel shares no pages", move || {
        let mut found = Found::new("ksmd", Vec::new());
        for (file, metric, factor) in FILES {
            found.scaled(ColumnSpec::plain(metric), folder.join(file), factor);
        }
        if folder.is_dir() { vec![found] } else { Vec::new() }
    })
}
