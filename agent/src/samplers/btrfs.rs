//! `btrfs`: space and commits of each mounted Btrfs file system, from `/sys/fs/btrfs`. Errors and unused space of
//! its devices need an ioctl as root and are not read.

use super::inventory::{self, Found, decimal, names, text};
use crate::group::{ColumnSpec, Label};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::Path;

/// What space is allocated for.
const KINDS: [&str; 3] = ["data", "metadata", "system"];
/// The kernel counts a device's size in these, whatever its own blocks are.
const SECTOR_BYTES: f64 = 512.0;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("fs/btrfs");
    inventory::optional(move || find(&folder))
}

fn find(folder: &Path) -> Vec<Found> {
    // Beside the file systems, named by UUID, lies what the kernel's Btrfs can do.
    names(folder)
        .into_iter()
        .filter(|name| name.contains('-'))
        .map(|name| of(&folder.join(&name), name))
        .collect()
}

fn of(folder: &Path, name: String) -> Found {
    // A copy of a file system may have its own name beside that in its metadata.
    let uuid = Some(text(&folder.join("metadata_uuid"))).filter(|uuid| !uuid.is_empty());
    let labels: Vec<Label> = vec![("uuid".into(), uuid.unwrap_or_else(|| name.clone()))];
    let mut found = Found::new(format!("btrfs/{name}"), labels);
    found.info(ColumnSpec::plain("node_btrfs_info").with("label", text(&folder.join("label"))));
    found.number("node_btrfs_global_rsv_size_bytes", folder.join("allocation/global_rsv_size"));
    let commits = folder.join("commit_stats");
    let commit = |name| ColumnSpec::plain(name);
    found.file(commit("node_btrfs_commits_total"), commits.clone(), |text| line(text, b"commits"));
    found.file(commit("node_btrfs_last_commit_seconds"), commits.clone(), |text| {
        line(text, b"last_commit_ms").map(|ms| ms / 1_000.0)
    });
    found.file(commit("node_btrfs_max_commit_seconds"), commits.clone(), |text| {
        line(text, b"max_commit_ms").map(|ms| ms / 1_000.0)
    });
    found.file(commit("node_btrfs_commit_seconds_total"), commits, |text| {
        line(text, b"total_commit_ms").map(|ms| ms / 1_000.0)
    });
    let devices = names(&folder.join("devices"));
    for device in &devices {
        let column = ColumnSpec::plain("node_btrfs_device_size_bytes").with("device", device.as_str());
        let size = folder.join("devices").join(device).join("size");
        found.scaled(column, size, SECTOR_BYTES);
    }
    for kind in KINDS {
        let allocation = folder.join("allocation").join(kind);
        let column = |name: &'static str| ColumnSpec::plain(name).with("block_group_type", kind);
        found.file(column("node_btrfs_reserved_bytes"), allocation.join("bytes_reserved"), decimal);
        for mode in names(&allocation).into_iter().filter(|mode| allocation.join(mode).is_dir()) {
            let column = |name| column(name).with("mode", mode.as_str());
            found.file(column("node_btrfs_used_bytes"), allocation.join(&mode).join("used_bytes"), decimal);
            found.file(column("node_btrfs_size_bytes"), allocation.join(&mode).join("total_bytes"), decimal);
            found.constant(column("node_btrfs_allocation_ratio"), ratio(&mode, devices.len()));
        }
    }
    found
}

/// Bytes on devices for a byte of a file; 0 for layouts that nobody has told us of.
fn ratio(mode: &str, devices: usize) -> f64 {
    let devices = devices as f64;
    match mode {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}

/// The number behind a name.
fn line(text: &[u8], name: &[u8]) -> Option<f64> {
    scan::lines(text).find_map(|line| {
        let mut fields = Fields::of(line);
        (fields.next()? == name).then(|| fields.number())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_cost_what_they_store_twice() {
        assert_eq!([ratio("raid5", 5), ratio("raid6", 4), ratio("dup", 1)], [1.25, 2.0, 2.0]);
        assert_eq!(ratio("new", 3), 0.0);
        assert_eq!(line(b"commits 3\ntotal_commit_ms 40\n", b"total_commit_ms"), Some(40.0));
        assert_eq!(line(b"commits\n", b"commits"), None);
    }
}
