//! `arp`: neighbours known on each interface, from `/proc/net/arp`.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(ArpSampler {
        file: KernelFile::records(options.paths.proc("net/arp")),
        filter: options.arp.clone(),
        devices: Objects::default(),
    })
}

struct ArpSampler {
    file: KernelFile,
    filter: Filter,
    devices: Objects<()>,
}

impl Sampler for ArpSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        let text = self.file.read(buffer)?;
        for line in scan::lines(text).skip(1) {
            let name = Fields::of(line).nth(5);
            let name = name.ok_or_else(|| self.file.malformed("an entry names no device"))?;
            let filter = &self.filter;
            let device = self.devices.find_or_define(name, |name| {
                filter.keeps(name).then(|| {
                    let labels = vec![("device".into(), name.to_owned())];
                    let columns = vec![ColumnSpec::plain("node_arp_entries")];
                    Kept { group: groups.define(format!("arp/{name}"), labels, columns), state: () }
                })
            });
            let Some(group) = device.and_then(|device| groups.group(device.group)) else { continue };
            let before = if group.present().contains(0) { group.values()[0] } else { 0.0 };
            group.put(0, before + 1.0);
        }
        self.devices.finish(groups)
    }
}
