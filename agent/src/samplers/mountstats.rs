//! `mountstats`: what the NFS client did for each mount, from `/proc/self/mountstats`. Off by default, as in
//! node_exporter.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet, Label};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use std::collections::BTreeSet;

/// Order of the numbers behind `events:`; empty where nothing is published.
const EVENTS: [&str; 27] = [
    "inode_revalidate",
    "dnode_revalidate",
    "data_invalidate",
    "attribute_invalidate",
    "vfs_open",
    "vfs_lookup",
    "vfs_access",
    "vfs_update_page",
    "vfs_read_page",
    "vfs_read_pages",
    "vfs_write_page",
    "vfs_write_pages",
    "vfs_getdents",
    "vfs_setattr",
    "vfs_flush",
    "vfs_fsync",
    "vfs_lock",
    "vfs_file_release",
    "",
    "truncation",
    "write_extension",
    "silly_rename",
    "short_read",
    "short_write",
    "jukebox_delay",
    "pnfs_read",
    "pnfs_write",
];
/// Order of the numbers behind `bytes:`.
const BYTES: [&str; 8] = [
    "read_bytes_total",
    "write_bytes_total",
    "direct_read_bytes_total",
    "direct_write_bytes_total",
    "total_read_bytes_total",
    "total_write_bytes_total",
    "read_pages_total",
    "write_pages_total",
];
/// Order of the numbers behind `xprt: tcp` and `xprt: rdma`; empty where nothing is published.
const CONNECTED: [&str; 13] = [
    "",
    "bind_total",
    "connect_total",
    "",
    "idle_time_seconds",
    "sends_total",
    "receives_total",
    "bad_transaction_ids_total",
    "",
    "backlog_queue_total",
    "maximum_rpc_slots",
    "sending_queue_total",
    "pending_queue_total",
];
/// The same behind `xprt: udp`, which has no connections.
const UNCONNECTED: [&str; 10] = [
    "",
    "bind_total",
    "sends_total",
    "receives_total",
    "bad_transaction_ids_total",
    "",
    "backlog_queue_total",
    "maximum_rpc_slots",
    "sending_queue_total",
    "pending_queue_total",
];
/// Order of the numbers of an operation, and what makes them base units.
const OPERATIONS: [(&str, f64); 8] = [
    ("requests_total", 1.0),
    ("transmissions_total", 1.0),
    ("major_timeouts_total", 1.0),
    ("sent_bytes_total", 1.0),
    ("received_bytes_total", 1.0),
    ("queue_time_seconds_total", 1e-3),
    ("response_time_seconds_total", 1e-3),
    ("request_time_seconds_total", 1e-3),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    // The first process sees the host's mounts even if the agent runs in a container.
    let of_init = options.paths.proc("1/mountstats");
    let readable = std::fs::File::open(&of_init).is_ok();
    let file = if readable { of_init } else { options.paths.proc("self/mountstats") };
    Box::new(MountSampler { file: KernelFile::list(file), table: Table::default() })
}

struct MountSampler {
    file: KernelFile,
    table: Table,
}

impl Sampler for MountSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let text = String::from_utf8_lossy(self.file.read(buffer)?).into_owned();
        self.table.publish(groups, parse(&text));
        Ok(())
    }
}

/// One object for the mount and one for each of its operations.
fn parse(text: &str) -> Vec<Object> {
    let mut objects = Vec::new();
    // The same export mounted at two places has one set of numbers.
    let mut seen = BTreeSet::new();
    for mount in text.split("device ").skip(1) {
        let mut lines = mount.lines();
        let Some((export, mount_point)) = lines.next().and_then(heading) else { continue };
        let lines: Vec<&str> = lines.map(str::trim).collect();
        let options = lines.iter().find_map(|line| line.strip_prefix("opts:")).unwrap_or_default();
        let option = |name: &str| {
            options.trim().split(',').find_map(|option| option.strip_prefix(name)).unwrap_or_default()
        };
        let labels: Vec<Label> =
            [("export", export), ("protocol", option("proto=")), ("mountaddr", option("addr="))]
                .map(|(name, value)| (name.into(), value.to_owned()))
                .into();
        let key: Vec<&str> = labels.iter().map(|(_, value)| value.as_str()).collect();
        let key = format!("mountstats/{}", key.join("/"));
        let info = ColumnSpec::plain("node_mountstats_nfs_mountpoint_info").with("mountpoint", mount_point);
        if !seen.insert(key.clone()) {
            continue;
        }
        let mut object = Object::new(key.clone(), labels.clone());
        object.put(info, 1.0);
        let (mut operations, mut transports) = (false, 0);
        for line in lines {
            let (name, rest) = line.split_once(':').unwrap_or((line, ""));
            let numbers: Vec<f64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            match name {
                "age" => put(&mut object, &["age_seconds_total"], "", "", &numbers),
                "events" => put(&mut object, &EVENTS, "event_", "_total", &numbers),
                "bytes" => put(&mut object, &BYTES, "", "", &numbers),
                "xprt" => {
                    let udp = rest.trim_start().starts_with("udp");
                    let order: &[&str] = if udp { &UNCONNECTED } else { &CONNECTED };
                    for (name, value) in order.iter().zip(&numbers).filter(|(name, _)| !name.is_empty()) {
                        let column = ColumnSpec::plain(format!("node_mountstats_nfs_transport_{name}"));
                        object.put(column.with("transport", transports.to_string()), *value);
                    }
                    transports += 1;
                }
                "per-op statistics" => operations = true,
                operation if operations && !numbers.is_empty() => {
                    let mut labels = labels.clone();
                    labels.push(("operation".into(), operation.to_owned()));
                    let mut object = Object::new(format!("{key}/{operation}"), labels);
                    for ((name, scale), value) in OPERATIONS.iter().zip(&numbers) {
                        let column = ColumnSpec::plain(format!("node_mountstats_nfs_operations_{name}"));
                        object.put(column, value * scale);
                    }
                    objects.push(object);
                }
                _ => {}
            }
        }
        objects.push(object);
    }
    objects
}

/// Export and mount point, if the mount is NFS.
fn heading(line: &str) -> Option<(&str, &str)> {
    let (export, rest) = line.split_once(" mounted on ")?;
    let (mount_point, kind) = rest.split_once(" with fstype ")?;
    kind.starts_with("nfs").then_some((export, mount_point)).filter(|_| !kind.starts_with("nfsd"))
}

fn put(object: &mut Object, names: &[&str], prefix: &str, suffix: &str, numbers: &[f64]) {
    for (name, value) in names.iter().zip(numbers).filter(|(name, _)| !name.is_empty()) {
        object.put(ColumnSpec::plain(format!("node_mountstats_nfs_{prefix}{name}{suffix}")), *value);
    }
}
