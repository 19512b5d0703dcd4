//! `rdma`: the hardware counters of InfiniBand and RoCE ports, and how their links are.
//!
//! `/sys/class/infiniband/DEVICE/ports/PORT/hw_counters` holds what the adapter counts itself: retransmissions,
//! timeouts, sequence errors, congestion notifications. Which there are depends on the adapter, so each
//! becomes a series of one metric with its name as a label. What node_exporter has is in `infiniband`.

use super::folder::Folder;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{COLUMNS_MAX, ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::Path;

/// Ports of one adapter.
const PORTS_MAX: u32 = 8;
/// Settings of the folder that are no counters.
const NOT_COUNTERS: [&str; 1] = ["lifespan"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = Folder::new(options.paths.sys("class/infiniband"));
    Box::new(RdmaSampler { folder, ports: Objects::default() })
}

struct RdmaSampler {
    folder: Folder,
    ports: Objects<Port>,
}

/// The files of a port: its state, then its counters in the order of their columns.
struct Port {
    state: KernelFile,
    counters: Vec<KernelFile>,
}

impl Sampler for RdmaSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.ports.begin();
        let (folder, names) = self.folder.names(|_| true)?;
        for name in names {
            for number in 1..=PORTS_MAX {
                let path = folder.join(name).join("ports").join(number.to_string());
                let key = format!("{name}/{number}");
                let known =
                    self.ports.find_or_define(key.as_bytes(), |_| define(groups, &path, name, number));
                let Some(port) = known else { continue };
                let Some(group) = groups.group(port.group) else { continue };
                let state = port.state.state.read_if_present(buffer).ok().flatten();
                // "4: ACTIVE"
                group.put_some(0, state.map(|text| f64::from(u8::from(text.starts_with(b"4")))));
                for (at, file) in port.state.counters.iter_mut().enumerate() {
                    let text = file.read_if_present(buffer).ok().flatten();
                    group.put_some(at + 1, text.and_then(|text| scan::number(scan::trimmed(text))));
                }
            }
        }
        self.ports.finish(groups)
    }
}

fn define(groups: &mut GroupSet, path: &Path, device: &str, number: u32) -> Option<Kept<Port>> {
    if !path.is_dir() {
        return None;
    }
    let folder = path.join("hw_counters");
    let entries = std::fs::read_dir(&folder).map(|entries| entries.flatten().collect::<Vec<_>>());
    let names =
        entries.unwrap_or_default().into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| !NOT_COUNTERS.contains(&name.as_str())).collect();
    names.sort_unstable();
    names.truncate(COLUMNS_MAX - 1);
    let mut columns = vec![ColumnSpec::plain("pharos_rdma_link_active")];
    columns.extend(
        names.iter().map(|name| {
            ColumnSpec::plain("pharos_rdma_hardware_counter_total").with("counter", name.clone())
        }),
    );
    let link_layer = std::fs::read_to_string(path.join("link_layer")).unwrap_or_default().trim().to_owned();
    let labels = vec![
        ("device".into(), device.to_owned()),
        ("port".into(), number.to_string()),
        ("link_layer".into(), link_layer),
    ];
    let group = groups.define(format!("rdma/{device}/{number}"), labels, columns);
    let counters = names.iter().map(|name| KernelFile::whole(folder.join(name))).collect();
    Some(Kept { group, state: Port { state: KernelFile::whole(path.join("state")), counters } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_shows_its_link_and_what_its_adapter_counts() {
        let sysfs = tempfile::tempdir().unwrap();
        let port = sysfs.path().join("class/infiniband/mlx5_0/ports/1");
        std::fs::create_dir_all(port.join("hw_counters")).unwrap();
        std::fs::write(port.join("state"), "4: ACTIVE\n").unwrap();
        std::fs::write(port.join("link_layer"), "Ethernet\n").unwrap();
        std::fs::write(port.join("hw_counters/out_of_sequence"), "12\n").unwrap();
        std::fs::write(port.join("hw_counters/np_cnp_sent"), "7\n").unwrap();
        std::fs::write(port.join("hw_counters/lifespan"), "10\n").unwrap();
        let folder = Folder::new(sysfs.path().join("class/infiniband"));
        let mut sampler = RdmaSampler { folder, ports: Objects::default() };
        let mut groups = GroupSet::default();
        groups.begin();
        sampler.sample(&mut ReadBuffer::default(), &mut groups).unwrap();
        let group = groups.iter().next().unwrap();
        assert_eq!(groups.iter().count(), 1, "one port");
        assert_eq!(group.values(), [1.0, 7.0, 12.0]);
        assert_eq!(group.columns()[2].labels, [("counter".into(), "out_of_sequence".to_owned())]);
    }
}
