//! `netclass`: properties of each interface, from `/sys/class/net`.
//!
//! Some attributes ask the driver under the kernel's network lock, so this sampler may wait long.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// Attribute and metric, in column order behind `node_network_up` and `node_network_speed_bytes`.
const ATTRIBUTES: [(&str, &str); 16] = [
    ("addr_assign_type", "node_network_address_assign_type"),
    ("carrier", "node_network_carrier"),
    ("carrier_changes", "node_network_carrier_changes_total"),
    ("carrier_up_count", "node_network_carrier_up_changes_total"),
    ("carrier_down_count", "node_network_carrier_down_changes_total"),
    ("dev_id", "node_network_device_id"),
    ("dormant", "node_network_dormant"),
    ("flags", "node_network_flags"),
    ("ifindex", "node_network_iface_id"),
    ("iflink", "node_network_iface_link"),
    ("link_mode", "node_network_iface_link_mode"),
    ("mtu", "node_network_mtu_bytes"),
    ("name_assign_type", "node_network_name_assign_type"),
    ("netdev_group", "node_network_net_dev_group"),
    ("tx_queue_len", "node_network_transmit_queue_length"),
    ("type", "node_network_protocol_type"),
];
/// Attribute that holds the interface's flags, of which the first bit is "administratively up".
const FLAGS: usize = 7;
const UP: usize = 0;
const SPEED: usize = 1;
/// Columns before those of [`ATTRIBUTES`].
const FIRST_ATTRIBUTE: usize = 2;
/// Labels of `node_network_info` that come from an attribute of the same name.
const TEXTS: [&str; 5] = ["address", "broadcast", "duplex", "operstate", "ifalias"];
const OPERSTATE: usize = 3;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(NetclassSampler {
        folder: options.paths.sys("class/net"),
        filter: options.netclass.clone(),
        ignore_invalid_speed: options.ignore_invalid_speed,
        devices: Objects::default(),
    })
}

struct NetclassSampler {
    folder: PathBuf,
    filter: Filter,
    ignore_invalid_speed: bool,
    devices: Objects<Device>,
}

struct Device {
    attributes: [KernelFile; ATTRIBUTES.len()],
    speed: KernelFile,
    texts: [KernelFile; TEXTS.len()],
    /// What the texts were when `info` was laid out, then "up", "down" or "unknown".
    values: [String; TEXTS.len() + 1],
    info: GroupHandle,
}

impl Sampler for NetclassSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        let entries = std::fs::read_dir(&self.folder)
            .map_err(|source| SampleError::Read { path: self.folder.clone(), source })?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok())
            // Files such as `bonding_masters` are no interfaces.
            .filter(|entry| !entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        for name in names {
            let (folder, filter) = (&self.folder, &self.filter);
            let device = self.devices.find_or_define(name.as_bytes(), |name| {
                filter.keeps(name).then(|| define(groups, folder, name))
            });
            let Some(device) = device else { continue };
            sample_device(device, self.ignore_invalid_speed, buffer, groups)?;
        }
        // The group of `node_network_info` ends with its device.
        let ended: Vec<GroupHandle> = self.devices.unseen().map(|device| device.state.info).collect();
        ended.into_iter().for_each(|info| groups.end(info));
        self.devices.finish(groups)
    }
}

fn sample_device(
    device: &mut Kept<Device>,
    ignore_invalid_speed: bool,
    buffer: &mut ReadBuffer,
    groups: &mut GroupSet,
) -> Result<(), SampleError> {
    let state = &mut device.state;
    let mut changed = false;
    let Some(group) = groups.group(device.group) else { return Ok(()) };
    let mut admin = "unknown";
    for (at, file) in state.attributes.iter_mut().enumerate() {
        // Devices that are down or just went away answer with an error; the attribute is absent then.
        let Some(text) = file.read_if_present(buffer)? else { continue };
        let text = scan::trimmed(text);
        let value = match text.strip_prefix(b"0x") {
            Some(digits) => scan::hexadecimal(digits).map(|value| value as f64),
            None => scan::number(text),
        };
        group.put(FIRST_ATTRIBUTE + at, value.ok_or_else(|| file.malformed("this is no number"))?);
        if at == FLAGS {
            admin = if value.unwrap_or(0.0) as u64 & 1 == 1 { "up" } else { "down" };
        }
    }
    let speed = state.speed.read_if_present(buffer)?.and_then(|text| scan::integer(scan::trimmed(text)));
    // Megabits a second; -1 where the driver does not know.
    let speed = speed.filter(|speed| *speed >= 0 || !ignore_invalid_speed);
    group.put_some(SPEED, speed.map(|megabits| megabits.saturating_mul(1_000_000).wrapping_div(8) as f64));
    for (file, value) in state.texts.iter_mut().zip(&mut state.values) {
        let text = scan::trimmed(file.read_if_present(buffer)?.unwrap_or_default());
        if value.as_bytes() != text {
            *value = String::from_utf8_lossy(text).into_owned();
            changed = true;
        }
    }
    group.put(UP, f64::from(u8::from(state.values[OPERSTATE] == "up")));
    if state.values[TEXTS.len()] != admin {
        state.values[TEXTS.len()] = admin.to_owned();
        changed = true;
    }
    if changed {
        let labels = TEXTS.into_iter().chain(["adminstate"]).zip(&state.values);
        let column = labels.fold(ColumnSpec::plain("node_network_info"), |column, (label, value)| {
            column.with(label, value.as_str())
        });
        groups.redefine(state.info, vec![column]);
    }
    if let Some(info) = groups.group(state.info) {
        info.put(0, 1.0);
    }
    Ok(())
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str) -> Kept<Device> {
    let folder = folder.join(name);
    let labels = vec![("device".into(), name.to_owned())];
    let columns = ["node_network_up", "node_network_speed_bytes"].into_iter();
    let columns = columns.chain(ATTRIBUTES.iter().map(|(_, metric)| *metric)).map(ColumnSpec::plain);
    let group = groups.define(format!("netclass/{name}"), labels.clone(), columns.collect());
    let info = groups.define(format!("netinfo/{name}"), labels, Vec::new());
    let file = |name: &str| KernelFile::attribute(folder.join(name));
    let state = Device {
        attributes: ATTRIBUTES.map(|(attribute, _)| file(attribute)),
        speed: file("speed"),
        texts: TEXTS.map(file),
        values: Default::default(),
        info,
    };
    Kept { group, state }
}
