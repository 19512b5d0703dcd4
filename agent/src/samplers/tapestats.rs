//! `tapestats`: what each tape drive has done, from `/sys/class/scsi_tape`.

use super::inventory::{self, Found, decimal, names};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};

/// File under `stats` and metric.
const COUNTS: [(&str, &str); 7] = [
    ("in_flight", "node_tape_io_now"),
    ("other_cnt", "node_tape_io_others_total"),
    ("read_byte_cnt", "node_tape_read_bytes_total"),
    ("read_cnt", "node_tape_reads_completed_total"),
    ("resid_cnt", "node_tape_residual_total"),
    ("write_byte_cnt", "node_tape_written_bytes_total"),
    ("write_cnt", "node_tape_writes_completed_total"),
];
/// The same for times, which the kernel gives in nanoseconds.
const TIMES: [(&str, &str); 3] = [
    ("io_ns", "node_tape_io_time_seconds_total"),
    ("read_ns", "node_tape_read_time_seconds_total"),
    ("write_ns", "node_tape_write_time_seconds_total"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/scsi_tape");
    let filter = options.tapes.clone();
    let source = folder.clone();
    inventory::sampler(&source, "no tape drive", move || {
        // A drive has several names, one for each way to rewind; `st0` is the drive.
        let is_drive = |name: &String| {
            name.strip_prefix("st").is_some_and(|number| number.parse::<u32>().is_ok()) && filter.keeps(name)
        };
        let find = |name: String| {
            let folder = folder.join(&name).join("stats");
            let mut found = Found::new(format!("tape/{name}"), vec![("device".into(), name)]);
            COUNTS.iter().for_each(|(file, metric)| found.number(metric, folder.join(file)));
            for (file, metric) in TIMES {
                let seconds = |text: &[u8]| decimal(text).map(|nanoseconds| nanoseconds / 1e9);
                found.file(ColumnSpec::plain(metric), folder.join(file), seconds);
            }
            found
        };
        names(&folder).into_iter().filter(is_drive).map(find).collect()
    })
}
