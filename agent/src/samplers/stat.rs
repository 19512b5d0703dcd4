//! `stat`: what `/proc/stat` counts for the whole host.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{ReadBuffer, SharedFile};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

const FIELDS: [(&[u8], &str); 6] = [
    (b"intr", "node_intr_total"),
    (b"ctxt", "node_context_switches_total"),
    (b"btime", "node_boot_time_seconds"),
    (b"processes", "node_forks_total"),
    (b"procs_running", "node_procs_running"),
    (b"procs_blocked", "node_procs_blocked"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(StatSampler { file: options.stat.clone(), group: None })
}

struct StatSampler {
    file: SharedFile,
    group: Option<GroupHandle>,
}

impl Sampler for StatSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            groups.define(
                "stat",
                Vec::new(),
                FIELDS.iter().map(|(_, name)| ColumnSpec::plain(*name)).collect(),
            )
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        self.file.read(|text, file| {
            for line in scan::lines(text) {
                let mut fields = Fields::of(line);
                let Some(name) = fields.next() else { continue };
                if let Some(column) = FIELDS.iter().position(|(field, _)| *field == name) {
                    let value = fields.number().ok_or_else(|| file.malformed("a counter has no number"))?;
                    group.put(column, value);
                }
            }
            if group.present().is_empty() {
                return Err(file.malformed("none of the known counters is there"));
            }
            Ok(())
        })
    }
}
