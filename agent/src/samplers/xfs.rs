//! `xfs`: what each XFS file system has done, from `/sys/fs/xfs`.

use super::folder::Folder;
use super::named_lines::NamedLines;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::GroupSet;
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};

/// Lines of the file and what their first numbers count.
const LINES: [(&str, &[&str]); 8] = [
    (
        "extent_alloc",
        &[
            "node_xfs_extent_allocation_extents_allocated_total",
            "node_xfs_extent_allocation_blocks_allocated_total",
            "node_xfs_extent_allocation_extents_freed_total",
            "node_xfs_extent_allocation_blocks_freed_total",
        ],
    ),
    (
        "abt",
        &[
            "node_xfs_allocation_btree_lookups_total",
            "node_xfs_allocation_btree_compares_total",
            "node_xfs_allocation_btree_records_inserted_total",
            "node_xfs_allocation_btree_records_deleted_total",
        ],
    ),
    (
        "blk_map",
        &[
            "node_xfs_block_mapping_reads_total",
            "node_xfs_block_mapping_writes_total",
            "node_xfs_block_mapping_unmaps_total",
            "node_xfs_block_mapping_extent_list_insertions_total",
            "node_xfs_block_mapping_extent_list_deletions_total",
            "node_xfs_block_mapping_extent_list_lookups_total",
            "node_xfs_block_mapping_extent_list_compares_total",
        ],
    ),
    (
        "bmbt",
        &[
            "node_xfs_block_map_btree_lookups_total",
            "node_xfs_block_map_btree_compares_total",
            "node_xfs_block_map_btree_records_inserted_total",
            "node_xfs_block_map_btree_records_deleted_total",
        ],
    ),
    (
        "dir",
        &[
            "node_xfs_directory_operation_lookup_total",
            "node_xfs_directory_operation_create_total",
            "node_xfs_directory_operation_remove_total",
            "node_xfs_directory_operation_getdents_total",
        ],
    ),
    (
        "ig",
        &[
            "node_xfs_inode_operation_attempts_total",
            "node_xfs_inode_operation_found_total",
            "node_xfs_inode_operation_recycled_total",
            "node_xfs_inode_operation_missed_total",
            "node_xfs_inode_operation_duplicates_total",
            "node_xfs_inode_operation_reclaims_total",
            "node_xfs_inode_operation_attribute_changes_total",
        ],
    ),
    ("rw", &["node_xfs_write_calls_total", "node_xfs_read_calls_total"]),
    (
        "vnodes",
        &[
            "node_xfs_vnode_active_total",
            "node_xfs_vnode_allocate_total",
            "node_xfs_vnode_get_total",
            "node_xfs_vnode_hold_total",
            "node_xfs_vnode_release_total",
            "node_xfs_vnode_reclaim_total",
            "node_xfs_vnode_remove_total",
        ],
    ),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let mut lines = NamedLines::default();
    for (line, metrics) in LINES {
        let metrics: Vec<(usize, &'static str)> = metrics.iter().copied().enumerate().collect();
        lines.add_all(line, &metrics);
    }
    let folder = Folder::new(options.paths.sys("fs/xfs"));
    Box::new(XfsSampler { folder, lines, devices: Objects::default() })
}

struct XfsSampler {
    folder: Folder,
    lines: NamedLines,
    devices: Objects<KernelFile>,
}

impl Sampler for XfsSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        // Beside the devices there is `stats`, the sum of all.
        let (folder, names) = self.folder.names(|entry| entry.file_name() != "stats")?;
        for name in names {
            let lines = &self.lines;
            let device = self.devices.find_or_define(name.as_bytes(), |name| {
                let state = KernelFile::whole(folder.join(name).join("stats/stats"));
                let labels = vec![("device".into(), name.to_owned())];
                Some(Kept { group: groups.define(format!("xfs/{name}"), labels, lines.columns()), state })
            });
            let Some(device) = device else { continue };
            let Some(text) = device.state.read_if_present(buffer)? else { continue };
            let Some(group) = groups.group(device.group) else { continue };
            let outcome = lines.read(text, group);
            outcome.ok_or_else(|| device.state.malformed("a counter is no number"))?;
        }
        self.devices.finish(groups)
    }
}
