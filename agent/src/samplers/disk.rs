//! `diskstats`: requests, bytes and times of each block device, from `/proc/diskstats`, and what udev
//! knows about it.

use super::objects::{Kept, Objects};
use super::udev::Properties;
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Paths, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// `/proc/diskstats` counts in sectors of 512 bytes whatever the device's own are, and in milliseconds.
const SECTOR: f64 = 512.0;
const PER_MILLISECOND: f64 = 0.001;

/// Order of the fields behind the device's name. Old kernels end earlier.
const FIELDS: [(&str, f64); 17] = [
    ("node_disk_reads_completed_total", 1.0),
    ("node_disk_reads_merged_total", 1.0),
    ("node_disk_read_bytes_total", SECTOR),
    ("node_disk_read_time_seconds_total", PER_MILLISECOND),
    ("node_disk_writes_completed_total", 1.0),
    ("node_disk_writes_merged_total", 1.0),
    ("node_disk_written_bytes_total", SECTOR),
    ("node_disk_write_time_seconds_total", PER_MILLISECOND),
    ("node_disk_io_now", 1.0),
    ("node_disk_io_time_seconds_total", PER_MILLISECOND),
    ("node_disk_io_time_weighted_seconds_total", PER_MILLISECOND),
    ("node_disk_discards_completed_total", 1.0),
    ("node_disk_discards_merged_total", 1.0),
    ("node_disk_discarded_sectors_total", 1.0),
    ("node_disk_discard_time_seconds_total", PER_MILLISECOND),
    ("node_disk_flush_requests_total", 1.0),
    ("node_disk_flush_requests_time_seconds_total", PER_MILLISECOND),
];
/// Fields that every kernel since 2.6 writes.
const FIELDS_MIN: usize = 11;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(DiskSampler {
        file: KernelFile::records(options.paths.proc("diskstats")),
        filter: options.disks.clone(),
        paths: options.paths.clone(),
        disks: Objects::default(),
    })
}

struct DiskSampler {
    file: KernelFile,
    filter: Filter,
    paths: Paths,
    disks: Objects<DiskState>,
}

/// What udev told of the device when it appeared; it does not change while the device stays.
#[derive(Debug, Default)]
struct DiskState {
    constants: Vec<f64>,
}

impl Sampler for DiskSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.disks.begin();
        let text = self.file.read(buffer)?;
        for line in scan::lines(text) {
            let malformed = || self.file.malformed("a device's line lacks fields");
            let mut fields = Fields::of(line);
            let major = fields.next().and_then(scan::unsigned).ok_or_else(malformed)?;
            let minor = fields.next().and_then(scan::unsigned).ok_or_else(malformed)?;
            let name = fields.next().ok_or_else(malformed)?;
            let (filter, paths) = (&self.filter, &self.paths);
            let disk = self.disks.find_or_define(name, |name| {
                filter.keeps(name).then(|| define(groups, paths, name, major, minor))
            });
            let Some(disk) = disk else { continue };
            let Some(group) = groups.group(disk.group) else { continue };
            for (column, (_, scale)) in FIELDS.iter().enumerate() {
                match fields.number() {
                    Some(value) => group.put(column, value * scale),
                    None if column < FIELDS_MIN => return Err(malformed()),
                    None => break,
                }
            }
            for (at, &value) in disk.state.constants.iter().enumerate() {
                group.put(FIELDS.len() + at, value);
            }
        }
        self.disks.finish(groups)
    }
}

fn define(groups: &mut GroupSet, paths: &Paths, name: &str, major: u64, minor: u64) -> Kept<DiskState> {
    let udev = Properties::of_block_device(paths, major, minor);
    let mut columns: Vec<ColumnSpec> = FIELDS.iter().map(|(name, _)| ColumnSpec::plain(*name)).collect();
    let mut constants = Vec::new();
    let rotational = std::fs::read_to_string(paths.sys(&format!("block/{name}/queue/rotational")));
    columns.push(
        ColumnSpec::plain("node_disk_info")
            .with("major", major.to_string())
            .with("minor", minor.to_string())
            .with("path", udev.get("ID_PATH"))
            .with("wwn", udev.get("ID_WWN"))
            .with("model", udev.get("ID_MODEL"))
            .with("serial", udev.first_of(&["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"]))
            .with("revision", udev.get("ID_REVISION"))
            .with("rotational", rotational.as_deref().map_or("0", str::trim)),
    );
    constants.push(1.0);
    if !udev.get("ID_FS_TYPE").is_empty() {
        columns.push(
            ColumnSpec::plain("node_disk_filesystem_info")
                .with("type", udev.get("ID_FS_TYPE"))
                .with("usage", udev.get("ID_FS_USAGE"))
                .with("uuid", udev.get("ID_FS_UUID"))
                .with("version", udev.get("ID_FS_VERSION")),
        );
        constants.push(1.0);
    }
    if !udev.get("DM_NAME").is_empty() {
        columns.push(
            ColumnSpec::plain("node_disk_device_mapper_info")
                .with("name", udev.get("DM_NAME"))
                .with("uuid", udev.get("DM_UUID"))
                .with("vg_name", udev.get("DM_VG_NAME"))
                .with("lv_name", udev.get("DM_LV_NAME"))
                .with("lv_layer", udev.get("DM_LV_LAYER")),
        );
        constants.push(1.0);
    }
    if !udev.get("ID_ATA").is_empty() {
        for (property, metric) in [
            ("ID_ATA_WRITE_CACHE", "node_disk_ata_write_cache"),
            ("ID_ATA_WRITE_CACHE_ENABLED", "node_disk_ata_write_cache_enabled"),
            ("ID_ATA_ROTATION_RATE_RPM", "node_disk_ata_rotation_rate_rpm"),
        ] {
            if let Some(value) = scan::number(udev.get(property).as_bytes()) {
                columns.push(ColumnSpec::plain(metric));
                constants.push(value);
            }
        }
    }
    let labels = vec![("device".into(), name.to_owned())];
    let group: GroupHandle = groups.define(format!("disk/{name}"), labels, columns);
    Kept { group, state: DiskState { constants } }
}
