//! `netclass`: properties of each interface, from `/sys/class/net`.
//!
//! Some attributes ask the driver under the kernel's network lock, so this sampler may wait long.

use super::folder::Folder;
use super::link_watch::LinkWatch;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan;
use std::path::Path;

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
/// Attributes that, with the state as a text, tell of every change of a link: whatever happens to a carrier is
/// counted in one of them, and who switches an interface on or off changes the other. Everything else is
/// read when one of them has changed, and less often in any case. Where the kernel tells of changes itself
/// ([`LinkWatch`]) not even these are read in between.
const LINK_STATE: [usize; 2] = [CARRIER_CHANGES, FLAGS];
/// Readings between two looks at the others.
const READINGS_BETWEEN_LOOKS: u32 = 10;
/// Attribute that holds the interface's flags, of which the first bit is "administratively up".
const FLAGS: usize = 7;
const CARRIER_CHANGES: usize = 2;
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
        folder: Folder::new(options.paths.sys("class/net")),
        links: LinkWatch::new(&options.paths.sysfs),
        links_changed: None,
        filter: options.netclass.clone(),
        ignore_invalid_speed: options.ignore_invalid_speed,
        devices: Objects::default(),
    })
}

struct NetclassSampler {
    folder: Folder,
    links: LinkWatch,
    /// What that says of this reading, if it was asked already: a change is told once.
    links_changed: Option<Option<bool>>,
    filter: Filter,
    ignore_invalid_speed: bool,
    devices: Objects<Device>,
}

struct Device {
    attributes: [KernelFile; ATTRIBUTES.len()],
    speed: KernelFile,
    texts: [KernelFile; TEXTS.len()],
    /// What all these were when they were read last.
    numbers: [Option<f64>; ATTRIBUTES.len()],
    speed_bytes: Option<f64>,
    /// The texts, then "up", "down" or "unknown".
    values: [String; TEXTS.len() + 1],
    /// Readings until those that hardly change are read again.
    countdown: u32,
    info: GroupHandle,
}

impl Sampler for NetclassSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        // Files such as `bonding_masters` are no interfaces.
        let (folder, names) =
            self.folder.names(|entry| !entry.file_type().is_ok_and(|kind| kind.is_file()))?;
        let links_changed = self.links_changed.take().unwrap_or_else(|| self.links.has_changed());
        for name in names {
            let filter = &self.filter;
            let device = self.devices.find_or_define(name.as_bytes(), |name| {
                filter.keeps(name).then(|| define(groups, folder, name))
            });
            let Some(device) = device else { continue };
            device.state.read(links_changed, self.ignore_invalid_speed, buffer, groups)?;
            let Some(group) = groups.group(device.group) else { continue };
            group.put(UP, f64::from(u8::from(device.state.values[OPERSTATE] == "up")));
            group.put_some(SPEED, device.state.speed_bytes);
            for (at, number) in device.state.numbers.iter().enumerate() {
                group.put_some(FIRST_ATTRIBUTE + at, *number);
            }
            if let Some(info) = groups.group(device.state.info) {
                info.put(0, 1.0);
            }
        }
        // The group of `node_network_info` ends with its device.
        let ended: Vec<GroupHandle> = self.devices.unseen().map(|device| device.state.info).collect();
        ended.into_iter().for_each(|info| groups.end(info));
        self.devices.finish(groups)
    }

    fn may_hang(&mut self) -> bool {
        let links = &mut self.links;
        let changed = *self.links_changed.get_or_insert_with(|| links.has_changed());
        let look_is_due = |device: &Kept<Device>| device.state.countdown == 0;
        changed != Some(false) || self.folder.look_is_due() || self.devices.kept().any(look_is_due)
    }
}

impl Device {
    /// Reads what tells of the link's state, and everything else when that has changed or it is time.
    fn read(
        &mut self,
        links_changed: Option<bool>,
        ignore_invalid_speed: bool,
        buffer: &mut ReadBuffer,
        groups: &mut GroupSet,
    ) -> Result<(), SampleError> {
        if links_changed == Some(false) && self.countdown > 0 {
            self.countdown -= 1;
            return Ok(());
        }
        let mut changed = links_changed == Some(true);
        for at in LINK_STATE {
            changed |= self.read_number(at, buffer)?;
        }
        changed |= self.read_text(OPERSTATE, buffer)?;
        if !changed && self.countdown > 0 {
            self.countdown -= 1;
            return Ok(());
        }
        self.countdown = READINGS_BETWEEN_LOOKS;
        for at in (0..ATTRIBUTES.len()).filter(|at| !LINK_STATE.contains(at)) {
            self.read_number(at, buffer)?;
        }
        let mut renamed = changed;
        for at in (0..TEXTS.len()).filter(|at| *at != OPERSTATE) {
            renamed |= self.read_text(at, buffer)?;
        }
        let speed = self.speed.read_if_present(buffer)?.and_then(|text| scan::integer(scan::trimmed(text)));
        // Megabits a second; -1 where the driver does not know.
        let speed = speed.filter(|speed| *speed >= 0 || !ignore_invalid_speed);
        self.speed_bytes = speed.map(|megabits| (megabits.saturating_mul(1_000_000) / 8) as f64);
        let admin = match self.numbers[FLAGS] {
            Some(flags) if flags as u64 & 1 == 1 => "up",
            Some(_) => "down",
            None => "unknown",
        };
        if self.values[TEXTS.len()] != admin {
            self.values[TEXTS.len()] = admin.to_owned();
            renamed = true;
        }
        if renamed {
            let labels = TEXTS.into_iter().chain(["adminstate"]).zip(&self.values);
            let column = labels.fold(ColumnSpec::plain("node_network_info"), |column, (label, value)| {
                column.with(label, value.as_str())
            });
            groups.redefine(self.info, vec![column]);
        }
        Ok(())
    }

    /// Reads an attribute; whether it has changed. Devices that are down or just went away have none.
    fn read_number(&mut self, at: usize, buffer: &mut ReadBuffer) -> Result<bool, SampleError> {
        let file = &mut self.attributes[at];
        let number = match file.read_if_present(buffer)?.map(scan::trimmed) {
            None => None,
            Some(text) => {
                let value = match text.strip_prefix(b"0x") {
                    Some(digits) => scan::hexadecimal(digits).map(|value| value as f64),
                    None => scan::number(text),
                };
                Some(value.ok_or_else(|| file.malformed("this is no number"))?)
            }
        };
        let changed = self.numbers[at] != number;
        self.numbers[at] = number;
        Ok(changed)
    }

    /// Reads a text; whether it has changed.
    fn read_text(&mut self, at: usize, buffer: &mut ReadBuffer) -> Result<bool, SampleError> {
        let text = scan::trimmed(self.texts[at].read_if_present(buffer)?.unwrap_or_default());
        let changed = self.values[at].as_bytes() != text;
        if changed {
            self.values[at] = String::from_utf8_lossy(text).into_owned();
        }
        Ok(changed)
    }
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str) -> Kept<Device> {
    let folder = folder.join(name);
    let labels = vec![("device".into(), name.to_owned())];
    let columns = ["node_network_up", "node_network_speed_bytes"].into_iter();
    let columns = columns.chain(ATTRIBUTES.iter().map(|(_, metric)| *metric)).map(ColumnSpec::plain);
    let group = groups.define(format!("netclass/{name}"), labels.clone(), columns.collect());
    let info = groups.define(format!("netinfo/{name}"), labels, Vec::new());
    let file = |name: &str| KernelFile::whole(folder.join(name));
    let state = Device {
        attributes: ATTRIBUTES.map(|(attribute, _)| file(attribute)),
        speed: file("speed"),
        texts: TEXTS.map(file),
        numbers: [None; ATTRIBUTES.len()],
        speed_bytes: None,
        values: Default::default(),
        countdown: 0,
        info,
    };
    Kept { group, state }
}
