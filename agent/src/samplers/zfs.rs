//! `zfs`: counters of ZFS, of its pools and data sets, from `/proc/spl/kstat/zfs`.

use super::inventory::names;
use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::PathBuf;

/// File, and what the metrics' names have for it.
const FILES: [(&str, &str); 11] = [
    ("abdstats", "abd"),
    ("arcstats", "arc"),
    ("dbufstats", "dbuf"),
    ("dmu_tx", "dmu_tx"),
    ("dnodestats", "dnode"),
    ("fm", "fm"),
    ("vdev_cache_stats", "vdev_cache"),
    ("vdev_mirror_stats", "vdev_mirror"),
    ("xuio_stats", "xuio"),
    ("zfetchstats", "zfetch"),
    ("zil", "zil"),
];
/// States that a pool can be in, as the label has them.
const STATES: [&str; 7] = ["online", "degraded", "faulted", "offline", "removed", "suspended", "unavail"];
/// Types of the kernel's numbers: signed and unsigned, of 32 and 64 bits.
const NUMBER_TYPES: [&[u8]; 4] = [b"1", b"2", b"3", b"4"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(ZfsSampler { folder: options.paths.proc("spl/kstat/zfs"), table: Table::default() })
}

struct ZfsSampler {
    folder: PathBuf,
    table: Table,
}

impl Sampler for ZfsSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut objects = Vec::new();
        for (file, part) in FILES {
            let mut object = Object::new(format!("zfs/{part}"), Vec::new());
            let mut file = KernelFile::list(self.folder.join(file));
            let Some(text) = file.read_if_present(buffer)? else { continue };
            for (name, value) in statistics(text) {
                object.put(ColumnSpec::plain(format!("node_zfs_{part}_{name}")), value);
            }
            objects.push(object);
        }
        for pool in names(&self.folder) {
            let folder = self.folder.join(&pool);
            if folder.is_dir() {
                read_pool(&pool, &folder, buffer, &mut objects)?;
            }
        }
        let none = objects.is_empty();
        self.table.publish(groups, objects);
        if none { Err(SampleError::Absent("no ZFS")) } else { Ok(()) }
    }
}

/// The lines `name type data` of a file behind its heading; what is no number is left out.
fn statistics(text: &[u8]) -> impl Iterator<Item = (String, f64)> {
    scan::lines(text).skip(2).filter_map(|line| {
        let mut fields = Fields::of(line);
        // Some have dashes, which names of metrics may not.
        let name = String::from_utf8_lossy(fields.next()?).replace('-', "_");
        let kind = fields.next()?;
        let value = fields.number().filter(|_| NUMBER_TYPES.contains(&kind))?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.bytes().all(legal).then_some((name, value))
    })
}

fn read_pool(
    pool: &str,
    folder: &std::path::Path,
    buffer: &mut ReadBuffer,
    objects: &mut Vec<Object>,
) -> Result<(), SampleError> {
    let labels = vec![("zpool".into(), pool.to_owned())];
    let mut object = Object::new(format!("zfs/pool/{pool}"), labels.clone());
    // A line of names and a line of numbers; newer versions have none for pools.
    let mut io = KernelFile::list(folder.join("io"));
    if let Some(text) = io.read_if_present(buffer)? {
        let mut lines = scan::lines(text).skip(1);
        let (heading, numbers) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        for (name, number) in Fields::of(heading).zip(Fields::of(numbers)) {
            let name = String::from_utf8_lossy(name);
            let number = scan::number(number).ok_or_else(|| io.malformed("a counter is no number"))?;
            object.put(ColumnSpec::plain(format!("node_zfs_zpool_{name}")), number);
        }
    }
    let mut state = KernelFile::whole(folder.join("state"));
    if let Some(text) = state.read_if_present(buffer)? {
        let now = scan::trimmed(text).to_ascii_lowercase();
        for known in STATES {
            let here = f64::from(u8::from(known.as_bytes() == now));
            object.put(ColumnSpec::plain("node_zfs_zpool_state").with("state", known), here);
        }
    }
    objects.push(object);
    for name in names(folder).into_iter().filter(|name| name.starts_with("objset-")) {
        let mut file = KernelFile::list(folder.join(&name));
        let Some(text) = file.read_if_present(buffer)? else { continue };
        let named = scan::lines(text).find_map(|line| line.strip_prefix(b"dataset_name"));
        let Some(dataset) = named.and_then(|line| Fields::of(line).nth(1)) else { continue };
        let dataset = String::from_utf8_lossy(dataset).into_owned();
        let mut labels = labels.clone();
        labels.push(("dataset".into(), dataset.clone()));
        let mut object = Object::new(format!("zfs/pool/{pool}/{dataset}"), labels);
        for (name, value) in statistics(text) {
            object.put(ColumnSpec::plain(format!("node_zfs_zpool_dataset_{name}")), value);
        }
        objects.push(object);
    }
    Ok(())
}
