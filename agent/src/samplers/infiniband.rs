//! `infiniband`: state, rate and traffic of each InfiniBand or RoCE port, from `/sys/class/infiniband`.

use super::folder::Folder;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::Path;

/// Data is counted in words of four octets.
const WORD: f64 = 4.0;
/// Files under a port's folder, what they count, and in which unit.
const COUNTERS: [(&str, &str, f64); 24] = [
    ("counters_ext/port_multicast_rcv_packets", "legacy_multicast_packets_received_total", 1.0),
    ("counters_ext/port_multicast_xmit_packets", "legacy_multicast_packets_transmitted_total", 1.0),
    ("counters_ext/port_rcv_data_64", "legacy_data_received_bytes_total", WORD),
    ("counters_ext/port_rcv_packets_64", "legacy_packets_received_total", 1.0),
    ("counters_ext/port_unicast_rcv_packets", "legacy_unicast_packets_received_total", 1.0),
    ("counters_ext/port_unicast_xmit_packets", "legacy_unicast_packets_transmitted_total", 1.0),
    ("counters_ext/port_xmit_data_64", "legacy_data_transmitted_bytes_total", WORD),
    ("counters_ext/port_xmit_packets_64", "legacy_packets_transmitted_total", 1.0),
    ("counters/link_downed", "link_downed_total", 1.0),
    ("counters/link_error_recovery", "link_error_recovery_total", 1.0),
    ("counters/multicast_rcv_packets", "multicast_packets_received_total", 1.0),
    ("counters/multicast_xmit_packets", "multicast_packets_transmitted_total", 1.0),
    ("counters/port_rcv_constraint_errors", "port_constraint_errors_received_total", 1.0),
    ("counters/port_xmit_constraint_errors", "port_constraint_errors_transmitted_total", 1.0),
    ("counters/port_rcv_data", "port_data_received_bytes_total", WORD),
    ("counters/port_xmit_data", "port_data_transmitted_bytes_total", WORD),
    ("counters/port_rcv_discards", "port_discards_received_total", 1.0),
    ("counters/port_xmit_discards", "port_discards_transmitted_total", 1.0),
    ("counters/port_rcv_errors", "port_errors_received_total", 1.0),
    ("counters/port_rcv_packets", "port_packets_received_total", 1.0),
    ("counters/port_xmit_packets", "port_packets_transmitted_total", 1.0),
    ("counters/port_xmit_wait", "port_transmit_wait_total", 1.0),
    ("counters/unicast_rcv_packets", "unicast_packets_received_total", 1.0),
    ("counters/unicast_xmit_packets", "unicast_packets_transmitted_total", 1.0),
];
/// Columns before the counters.
const STATES: [(&str, &str); 3] = [
    ("state", "node_infiniband_state_id"),
    ("phys_state", "node_infiniband_physical_state_id"),
    ("rate", "node_infiniband_rate_bytes_per_second"),
];
const RATE: usize = 2;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = Folder::new(options.paths.sys("class/infiniband"));
    Box::new(InfinibandSampler { folder, devices: Objects::default() })
}

struct InfinibandSampler {
    folder: Folder,
    /// Each device is an object of its own, and each of its ports.
    devices: Objects<Option<Port>>,
}

struct Port {
    states: [KernelFile; STATES.len()],
    counters: [KernelFile; COUNTERS.len()],
}

impl Sampler for InfinibandSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        let (folder, names) = self.folder.names(|_| true)?;
        if names.is_empty() {
            self.devices.finish(groups)?;
            return self.folder.missing("no InfiniBand device");
        }
        for name in names {
            let device = folder.join(name);
            let kept = self
                .devices
                .find_or_define(name.as_bytes(), |name| Some(define_device(groups, &device, name)));
            if let Some(group) = kept.and_then(|kept| groups.group(kept.group)) {
                group.put(0, 1.0);
            }
            // A device has one port or two, numbered from 1, for as long as it is there.
            for number in 1u32.. {
                let port = device.join(format!("ports/{number}"));
                if !port.is_dir() {
                    break;
                }
                let key = format!("{name}/{number}");
                let kept = self.devices.find_or_define(key.as_bytes(), |key| {
                    Some(define_port(groups, &port, name, number, key))
                });
                let Some(kept) = kept else { continue };
                let (Some(files), Some(group)) = (&mut kept.state, groups.group(kept.group)) else {
                    continue;
                };
                for (at, file) in files.states.iter_mut().enumerate() {
                    let text = file.read_if_present(buffer)?;
                    group.put_some(
                        at,
                        text.and_then(|text| if at == RATE { rate(text) } else { state(text) }),
                    );
                }
                for (at, file) in files.counters.iter_mut().enumerate() {
                    // Ports without a performance agent say so in words.
                    let text = file.read_if_present(buffer)?;
                    let value = text.and_then(|text| scan::number(scan::trimmed(text)));
                    group.put_some(STATES.len() + at, value.map(|value| value * COUNTERS[at].2));
                }
            }
        }
        self.devices.finish(groups)
    }
}

fn define_device(groups: &mut GroupSet, folder: &Path, name: &str) -> Kept<Option<Port>> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default().trim().to_owned();
    let column = ColumnSpec::plain("node_infiniband_info")
        .with("board_id", read("board_id"))
        .with("firmware_version", read("fw_ver"))
        .with("hca_type", read("hca_type"));
    let labels = vec![("device".into(), name.to_owned())];
    Kept { group: groups.define(format!("infiniband/{name}"), labels, vec![column]), state: None }
}

fn define_port(
    groups: &mut GroupSet,
    folder: &Path,
    device: &str,
    number: u32,
    key: &str,
) -> Kept<Option<Port>> {
    let counters = COUNTERS.iter().map(|(_, metric, _)| format!("node_infiniband_{metric}"));
    let columns =
        STATES.iter().map(|(_, metric)| ColumnSpec::plain(*metric)).chain(counters.map(ColumnSpec::plain));
    let labels = vec![("device".into(), device.to_owned()), ("port".into(), number.to_string())];
    let group = groups.define(format!("infiniband/{key}"), labels, columns.collect());
    let file = |name: &str| KernelFile::whole(folder.join(name));
    let port = Port {
        states: STATES.map(|(name, _)| file(name)),
        counters: COUNTERS.map(|(name, _, _)| file(name)),
    };
    Kept { group, state: Some(port) }
}

/// `4: ACTIVE` is 4.
fn state(text: &[u8]) -> Option<f64> {
    let end = text.iter().position(|&byte| byte == b':')?;
    scan::number(scan::trimmed(&text[..end]))
}

/// `200 Gb/sec (4X HDR)` in bytes a second.
fn rate(text: &[u8]) -> Option<f64> {
    let mut fields = Fields::of(text);
    let gigabits = fields.number()?;
    (fields.next()? == b"Gb/sec").then_some(gigabits * 1e9 / 8.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_rates_are_numbers() {
        assert_eq!(state(b"4: ACTIVE\n"), Some(4.0));
        assert_eq!(state(b"ACTIVE\n"), None);
        assert_eq!(rate(b"2.5 Gb/sec (1X SDR)\n"), Some(312_500_000.0));
        assert_eq!(rate(b"fast\n"), None);
    }
}
