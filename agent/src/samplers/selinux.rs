//! `selinux`: whether SELinux is on and enforcing.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(SelinuxSampler {
        enforce: KernelFile::attribute(options.paths.sys("fs/selinux/enforce")),
        group: None,
    })
}

struct SelinuxSampler {
    enforce: KernelFile,
    group: Option<GroupHandle>,
}

impl Sampler for SelinuxSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            let names = ["node_selinux_enabled", "node_selinux_current_mode"];
            groups.define("selinux", Vec::new(), names.map(ColumnSpec::plain).into())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        let enforce = self.enforce.read_if_present(buffer)?;
        group.put(0, f64::from(u8::from(enforce.is_some())));
        group.put_some(1, enforce.and_then(|text| scan::number(scan::trimmed(text))));
        Ok(())
    }
}
