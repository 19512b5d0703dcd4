//! `dmmultipath`: disks that several paths lead to, and which of them work, from `/sys/block/dm-*`.

use super::inventory::{names, text};
use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// How the identity of such a device begins.
const MULTIPATH: &str = "mpath-";
/// States of a path that carries requests: of SCSI and of NVMe.
const ACTIVE: [&str; 2] = ["running", "live"];
/// The kernel counts a device's size in these.
const SECTOR_BYTES: f64 = 512.0;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(MultipathSampler { blocks: options.paths.sys("block"), table: Table::default() })
}

struct MultipathSampler {
    blocks: PathBuf,
    table: Table,
}

impl Sampler for MultipathSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let objects: Vec<Object> = names(&self.blocks)
            .into_iter()
            .filter(|name| name.starts_with("dm-"))
            .filter_map(|name| read(&self.blocks, &name))
            .collect();
        self.table.publish(groups, objects);
        Ok(())
    }
}

fn read(blocks: &Path, sysfs_name: &str) -> Option<Object> {
    let folder = blocks.join(sysfs_name);
    let uuid = Some(text(&folder.join("dm/uuid"))).filter(|uuid| uuid.starts_with(MULTIPATH))?;
    let device = text(&folder.join("dm/name"));
    let mut object = Object::new(format!("dmmultipath/{sysfs_name}"), vec![("device".into(), device)]);
    let column = |name: &'static str| ColumnSpec::plain(name).with("sysfs_name", sysfs_name);
    object.put(column("node_dmmultipath_device_info").with("uuid", uuid), 1.0);
    let suspended = text(&folder.join("dm/suspended")) == "1";
    object.put(column("node_dmmultipath_device_active"), f64::from(u8::from(!suspended)));
    if let Some(sectors) = scan::number(text(&folder.join("size")).as_bytes()) {
        object.put(column("node_dmmultipath_device_size_bytes"), sectors * SECTOR_BYTES);
    }
    let paths = names(&folder.join("slaves"));
    let mut active = 0usize;
    for path in &paths {
        let state = text(&blocks.join(path).join("device/state"));
        active += usize::from(ACTIVE.contains(&state.as_str()));
        let column = ColumnSpec::plain("node_dmmultipath_path_state").with("path", path.as_str());
        object.put(column.with("state", state), 1.0);
    }
    object.put(column("node_dmmultipath_device_paths"), paths.len() as f64);
    object.put(column("node_dmmultipath_device_paths_active"), active as f64);
    object.put(column("node_dmmultipath_device_paths_failed"), (paths.len() - active) as f64);
    Some(object)
}
