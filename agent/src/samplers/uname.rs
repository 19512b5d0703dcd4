//! `uname`: which kernel runs, and the node's names.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};

/// Readings between two looks: names hardly ever change, and the kernel does with a restart.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// Makes the sampler.
pub fn build(_: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(UnameSampler { group: None, countdown: 0 })
}

struct UnameSampler {
    group: Option<GroupHandle>,
    countdown: u32,
}

impl Sampler for UnameSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.countdown == 0 {
            self.countdown = READINGS_BETWEEN_LOOKS;
            self.look(groups);
        }
        self.countdown -= 1;
        if let Some(group) = self.group.and_then(|handle| groups.group(handle)) {
            group.put(0, 1.0);
        }
        Ok(())
    }
}

impl UnameSampler {
    fn look(&mut self, groups: &mut GroupSet) {
        let uname = rustix::system::uname();
        let labels = [
            ("sysname", uname.sysname()),
            ("release", uname.release()),
            ("version", uname.version()),
            ("machine", uname.machine()),
            ("nodename", uname.nodename()),
            ("domainname", uname.domainname()),
        ];
        let same = self.group.and_then(|handle| groups.group(handle)).is_some_and(|group| {
            group.columns().first().is_some_and(|column| {
                column.labels.iter().zip(&labels).all(|(old, new)| old.1.as_bytes() == new.1.to_bytes())
            })
        });
        if !same {
            let column = labels.iter().fold(ColumnSpec::plain("node_uname_info"), |column, (name, value)| {
                column.with(*name, value.to_string_lossy().into_owned())
            });
            match self.group {
                Some(handle) => groups.redefine(handle, vec![column]),
                None => self.group = Some(groups.define("uname", Vec::new(), vec![column])),
            }
        }
    }
}
