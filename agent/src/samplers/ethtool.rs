//! `ethtool`: what drivers of network interfaces say of themselves, of their links, and the counters that only
//! they have. Off by default, as in node_exporter.
//!
//! A driver may ask its device, so a reading may take long. Names are asked for now and then, counters each time.

mod driver;
mod link_modes;
pub mod options;

use super::folder::Folder;
use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, Description, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Filter, Sampler, SamplerOptions};
use driver::{DriverInfo, Drivers, KernelDrivers, LinkModes};
use link_modes::{has, ports, speeds};
use pharos_proto::catalogue::Kind;
use std::collections::{BTreeMap, HashSet};
use std::io;

/// Readings between two looks at what hardly ever changes: names of counters, driver, modes of the link.
const READINGS_BETWEEN_LOOKS: u32 = 60;
/// Counters that node_exporter names otherwise than their drivers.
const COMMON: [(&str, &str); 7] = [
    ("rx_bytes", "node_ethtool_received_bytes_total"),
    ("rx_dropped", "node_ethtool_received_dropped_total"),
    ("rx_errors", "node_ethtool_received_errors_total"),
    ("rx_packets", "node_ethtool_received_packets_total"),
    ("tx_bytes", "node_ethtool_transmitted_bytes_total"),
    ("tx_errors", "node_ethtool_transmitted_errors_total"),
    ("tx_packets", "node_ethtool_transmitted_packets_total"),
];
/// Labels of `node_ethtool_info`, in the order of a driver's texts.
const INFO: [&str; 5] = ["driver", "version", "firmware_version", "bus_info", "expansion_rom_version"];
/// Link modes by their bits: what a port supports, and what it advertises.
const MODES: [(u32, &str, &str); 3] = [
    (6, "node_network_autonegotiate_supported", "node_network_autonegotiate_advertised"),
    (13, "node_network_pause_supported", "node_network_pause_advertised"),
    (14, "node_network_asymmetricpause_supported", "node_network_asymmetricpause_advertised"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(EthtoolSampler {
        folder: Folder::new(options.paths.sys("class/net")),
        filter: options.ethtool_devices.clone(),
        counters: options.ethtool_metrics.clone(),
        open: || Ok(Box::new(KernelDrivers::open()?)),
        drivers: None,
        devices: BTreeMap::new(),
        table: Table::default(),
    })
}

struct EthtoolSampler {
    folder: Folder,
    filter: Filter,
    counters: Filter,
    open: fn() -> io::Result<Box<dyn Drivers>>,
    drivers: Option<Box<dyn Drivers>>,
    devices: BTreeMap<String, Device>,
    table: Table,
}

/// What is known of an interface.
#[derive(Default)]
struct Device {
    info: Option<DriverInfo>,
    modes: Option<LinkModes>,
    /// How many counters the driver named.
    named: usize,
    /// Place and series of those that are published.
    metrics: Vec<(usize, ColumnSpec)>,
    countdown: u32,
}

impl Sampler for EthtoolSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let fault = |source| SampleError::Call { call: "ethtool", source };
        let drivers = match &mut self.drivers {
            Some(drivers) => drivers,
            None => self.drivers.insert((self.open)().map_err(fault)?),
        };
        // Files such as `bonding_masters` are no interfaces.
        let (_, names) = self.folder.names(|entry| !entry.file_type().is_ok_and(|kind| kind.is_file()))?;
        self.devices.retain(|name, _| names.contains(name));
        let mut objects = Vec::new();
        for name in names.iter().filter(|name| self.filter.keeps(name)) {
            let device = self.devices.entry(name.clone()).or_default();
            objects.push(device.read(name, &self.counters, &mut **drivers));
        }
        self.table.publish(groups, objects);
        Ok(())
    }
}

impl Device {
    /// What a driver has no answer to is left out.
    fn read(&mut self, name: &str, wanted: &Filter, drivers: &mut dyn Drivers) -> Object {
        if self.countdown == 0 {
            self.look(name, wanted, drivers);
        }
        self.countdown = self.countdown.saturating_sub(1);
        let mut object = Object::new(format!("ethtool/{name}"), vec![("device".into(), name.to_owned())]);
        if let Some(info) = &self.info {
            let labels = INFO.iter().zip(&info.texts);
            let column = labels.fold(ColumnSpec::plain("node_ethtool_info"), |column, (label, text)| {
                column.with(*label, text.as_str())
            });
            object.put(column, 1.0);
        }
        if let Some(modes) = self.modes {
            let flag = |on: bool| Some(f64::from(u8::from(on)));
            object.put_plain("node_network_autonegotiate", flag(modes.autonegotiates));
            for (bit, supported, advertised) in MODES {
                object.put_plain(supported, flag(has(modes.supported, bit)));
                object.put_plain(advertised, flag(has(modes.advertised, bit)));
            }
            for port in ports(modes.supported) {
                object.put(ColumnSpec::plain("node_network_supported_port_info").with("type", port), 1.0);
            }
            for (metric, modes) in [
                ("node_network_supported_speed_bytes", modes.supported),
                ("node_network_advertised_speed_bytes", modes.advertised),
            ] {
                for speed in speeds(modes) {
                    let column = ColumnSpec::plain(metric).with("duplex", speed.duplex);
                    object.put(column.with("mode", speed.mode), speed.bytes_per_second);
                }
            }
        }
        if self.named == 0 {
            return object;
        }
        match drivers.counters(name) {
            Ok(counters) if counters.len() == self.named => {
                for (at, column) in &self.metrics {
                    let Some(value) = counters.get(*at) else { continue };
                    object.put(column.clone(), *value as f64);
                }
            }
            // They are others now; which is which is not known before the names are asked for again.
            Ok(_) | Err(_) => self.countdown = 0,
        }
        object
    }

    fn look(&mut self, name: &str, wanted: &Filter, drivers: &mut dyn Drivers) {
        self.countdown = READINGS_BETWEEN_LOOKS;
        self.info = drivers.info(name).ok();
        self.modes = drivers.link_modes(name).ok();
        let names = drivers.names(name).unwrap_or_default();
        self.named = names.len();
        let mut taken = HashSet::new();
        self.metrics = (names.iter().enumerate())
            .filter(|(_, counter)| wanted.keeps(counter))
            .map(|(at, counter)| (at, column(counter)))
            // Of two counters that are spelt the same the first is published.
            .filter(|(_, column)| taken.insert(column.name.clone()))
            .collect();
    }
}

/// The series of a counter, with node_exporter's help; that of common ones is in the catalogue.
fn column(counter: &str) -> ColumnSpec {
    let mut column = ColumnSpec::plain(metric_name(counter));
    if COMMON.iter().all(|(known, _)| *known != counter) {
        let help = format!("Network interface {}", without_odd_letters(counter));
        column.description = Some(Box::new(Description { kind: Kind::Untyped, help }));
    }
    column
}

/// `rx_queue_0_bytes` becomes `node_ethtool_received_queue_0_bytes`, as node_exporter spells it.
fn metric_name(counter: &str) -> String {
    if let Some((_, metric)) = COMMON.iter().find(|(known, _)| *known == counter) {
        return (*metric).to_owned();
    }
    let name = without_odd_letters(counter).to_ascii_lowercase();
    let name = spelt_out(name.trim_start_matches('_'), "rx", "received");
    format!("node_ethtool_{}", spelt_out(&name, "tx", "transmitted"))
}

/// Letters that a metric's name may not have become one `_` with those around them.
fn without_odd_letters(counter: &str) -> String {
    let letters: Vec<char> = counter.chars().collect();
    let run = |from: usize, is: fn(char) -> bool| {
        letters.iter().skip(from).take_while(|letter| is(**letter)).count() + from
    };
    let is_underscore = |letter: char| letter == '_';
    let is_odd = |letter: char| letter != '_' && !letter.is_ascii_alphanumeric();
    let mut name = String::new();
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        let begin = run(at, is_underscore);
        let end = run(begin, is_odd);
        if end > begin {
            name.push('_');
            at = run(end, is_underscore);
        } else {
            name.push(*letter);
            at += 1;
        }
    }
    name
}

/// Words that are `short` become `long`. Of two in a row the second stays, for the first has taken the `_`
/// between them.
fn spelt_out(name: &str, short: &str, long: &str) -> String {
    let mut previous = false;
    let words = name.split('_').map(|word| {
        previous = word == short && !previous;
        if previous { long } else { word }
    });
    words.collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_as_node_exporter_names_them() {
        #[track_caller]
        fn check(counter: &str, want: &str) {
            assert_eq!(metric_name(counter), format!("node_ethtool_{want}"), "{counter:?}");
        }
        check("rx_bytes", "received_bytes_total");
        check("tx_dropped", "transmitted_dropped");
        check("rx_queue_0_packets", "received_queue_0_packets");
        check("tx_tx_timeouts", "transmitted_tx_timeouts");
        check("rx0_xdp_tx", "rx0_xdp_transmitted");
        check("port.rx_dropped", "port_received_dropped");
        check("[0]: Tx Ucast-bytes", "0_transmitted_ucast_bytes");
        check("ch0_poll_%", "ch0_poll_");
        check("a_. _b", "a_b");
        check("Größe", "gr_e");
        check("", "");
    }

    /// A driver that has what a test gives it.
    struct Fake {
        names: Vec<&'static str>,
        counters: Vec<u64>,
    }

    static FAKE: std::sync::Mutex<Fake> =
        std::sync::Mutex::new(Fake { names: Vec::new(), counters: Vec::new() });

    struct FakeDrivers(Vec<u64>);

    impl Drivers for FakeDrivers {
        fn info(&mut self, _: &str) -> io::Result<DriverInfo> {
            Ok(DriverInfo { texts: ["mlx5_core", "6.8", "28.39", "0000:17:00.0", ""].map(str::to_owned) })
        }

        fn link_modes(&mut self, _: &str) -> io::Result<LinkModes> {
            let supported = 1 << 6 | 1 << 7 | 1 << 13 | 1u128 << 89;
            Ok(LinkModes { autonegotiates: true, supported, advertised: 1 << 6 })
        }

        fn names(&mut self, device: &str) -> io::Result<Vec<String>> {
            if device == "lo" {
                return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
            }
            Ok(FAKE.lock().unwrap().names.iter().map(|name| (*name).to_owned()).collect())
        }

        fn counters(&mut self, _: &str) -> io::Result<&[u64]> {
            self.0 = FAKE.lock().unwrap().counters.clone();
            Ok(&self.0)
        }
    }

    #[test]
    fn interfaces_have_their_drivers_counters_and_new_ones_only_under_their_new_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["eth0", "lo", "veth1"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let only =
            |pattern: &str| Filter { include: Some(regex::Regex::new(pattern).unwrap()), exclude: None };
        let mut sampler = EthtoolSampler {
            folder: Folder::new(folder.path().to_owned()),
            filter: only("^(eth|lo)"),
            counters: only("^rx"),
            open: || Ok(Box::new(FakeDrivers(Vec::new()))),
            drivers: None,
            devices: BTreeMap::new(),
            table: Table::default(),
        };
        let mut groups = GroupSet::default();
        let mut read = |names: &[&'static str], counters: &[u64]| {
            *FAKE.lock().unwrap() = Fake { names: names.to_vec(), counters: counters.to_vec() };
            groups.begin();
            sampler.sample(&mut ReadBuffer::default(), &mut groups).unwrap();
            let mut shown = Vec::new();
            for group in groups.iter() {
                let columns = group.columns().iter().enumerate();
                for (at, column) in columns.filter(|(at, _)| group.present().contains(*at)) {
                    shown.push(format!("{} {} {}", group.key(), column.name, group.values()[at]));
                }
            }
            groups.published();
            shown
        };
        let first = read(&["rx_drops", "tx_drops", "rx-drops"], &[7, 8, 9]);
        assert!(first.contains(&"ethtool/eth0 node_ethtool_received_drops 7".to_owned()), "{first:?}");
        assert!(first.contains(&"ethtool/eth0 node_network_pause_supported 1".to_owned()));
        assert!(first.contains(&"ethtool/eth0 node_network_pause_advertised 0".to_owned()));
        assert!(first.contains(&"ethtool/lo node_ethtool_info 1".to_owned()));
        let fast = "ethtool/eth0 node_network_supported_speed_bytes 50000000000".to_owned();
        assert!(first.contains(&fast), "{first:?}");
        assert!(first.contains(&"ethtool/eth0 node_network_supported_port_info 1".to_owned()));
        assert!(!first.iter().any(|line| line.contains("advertised_speed")));
        assert!(!first.iter().any(|line| line.contains("veth1") || line.contains("transmitted")));
        assert_eq!(first.iter().filter(|line| line.contains("received")).count(), 1);
        // The driver has other counters from now on, of which nobody knows the names yet.
        let between = read(&["rx_new", "rx_drops"], &[1, 2]);
        assert!(!between.iter().any(|line| line.contains("received")), "{between:?}");
        let after = read(&["rx_new", "rx_drops"], &[1, 2]);
        assert!(after.contains(&"ethtool/eth0 node_ethtool_received_new 1".to_owned()), "{after:?}");
    }
}
