//! `netdev`: traffic of each interface, from `/proc/net/dev`.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::PathBuf;

/// Order of the fields behind the interface's name.
const FIELDS: [&str; 16] = [
    "node_network_receive_bytes_total",
    "node_network_receive_packets_total",
    "node_network_receive_errs_total",
    "node_network_receive_drop_total",
    "node_network_receive_fifo_total",
    "node_network_receive_frame_total",
    "node_network_receive_compressed_total",
    "node_network_receive_multicast_total",
    "node_network_transmit_bytes_total",
    "node_network_transmit_packets_total",
    "node_network_transmit_errs_total",
    "node_network_transmit_drop_total",
    "node_network_transmit_fifo_total",
    "node_network_transmit_colls_total",
    "node_network_transmit_carrier_total",
    "node_network_transmit_compressed_total",
];

/// Column behind those, from `/sys`: `/proc/net/dev` counts these packets as neither received nor dropped.
const NOHANDLER: &str = "node_network_receive_nohandler_total";

/// Readings for which it is believed to stand still.
const READINGS_WHILE_STILL: u32 = 4;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(NetdevSampler {
        file: KernelFile::records(options.paths.proc("net/dev")),
        folder: options.paths.sys("class/net"),
        filter: options.netdev.clone(),
        devices: Objects::default(),
    })
}

struct NetdevSampler {
    file: KernelFile,
    folder: PathBuf,
    filter: Filter,
    devices: Objects<NoHandler>,
}

/// The counter in `/sys`: one file a device, and on most hosts it never moves, so a counter that stands still
/// is read less often than one that runs.
struct NoHandler {
    file: KernelFile,
    last: Option<f64>,
    /// Readings until it is read again.
    countdown: u32,
}

impl Sampler for NetdevSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        let text = self.file.read(buffer)?;
        // Two lines of headings.
        for line in scan::lines(text).skip(2) {
            let malformed = || self.file.malformed("an interface's line lacks fields");
            // Names of aliases hold a colon themselves.
            let colon = line.iter().rposition(|&byte| byte == b':').ok_or_else(malformed)?;
            let name = scan::trimmed(&line[..colon]);
            let (filter, folder) = (&self.filter, &self.folder);
            let device = self.devices.find_or_define(name, |name| {
                filter.keeps(name).then(|| {
                    let labels = vec![("device".into(), name.to_owned())];
                    let columns = FIELDS.iter().chain([&NOHANDLER]).map(|name| ColumnSpec::plain(*name));
                    let group = groups.define(format!("netdev/{name}"), labels, columns.collect());
                    let file = KernelFile::whole(folder.join(name).join("statistics/rx_nohandler"));
                    Kept { group, state: NoHandler { file, last: None, countdown: 0 } }
                })
            });
            let Some(group) = device.and_then(|device| groups.group(device.group)) else { continue };
            let mut fields = Fields::of(&line[colon + 1..]);
            for column in 0..FIELDS.len() {
                group.put(column, fields.number().ok_or_else(malformed)?);
            }
        }
        for device in self.devices.seen() {
            let Some(group) = groups.group(device.group) else { continue };
            group.put_some(FIELDS.len(), device.state.read(buffer)?);
        }
        self.devices.finish(groups)
    }
}

impl NoHandler {
    fn read(&mut self, buffer: &mut ReadBuffer) -> Result<Option<f64>, SampleError> {
        if self.countdown > 0 {
            self.countdown -= 1;
            return Ok(self.last);
        }
        let text = self.file.read_if_present(buffer)?;
        let value = text.and_then(|text| scan::number(scan::trimmed(text)));
        self.countdown = if value == self.last { READINGS_WHILE_STILL } else { 0 };
        self.last = value;
        Ok(value)
    }
}
