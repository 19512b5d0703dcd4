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

/// What the line `softirq` counts behind its sum.
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(StatSampler { file: options.stat.clone(), vectors: options.stat_softirq, group: None })
}

struct StatSampler {
    file: SharedFile,
    vectors: bool,
    group: Option<GroupHandle>,
}

fn columns(vectors: bool) -> Vec<ColumnSpec> {
    let vectors = if vectors { &VECTORS[..] } else { &[] };
    let of_vectors =
        vectors.iter().map(|vector| ColumnSpec::plain("node_softirqs_total").with("vector", *vector));
    FIELDS.iter().map(|(_, name)| ColumnSpec::plain(*name)).chain(of_vectors).collect()
}

impl Sampler for StatSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let vectors = self.vectors;
        let handle = *self.group.get_or_insert_with(|| groups.define("stat", Vec::new(), columns(vectors)));
        let Some(group) = groups.group(handle) else { return Ok(()) };
        self.file.read(|text, file| {
            for line in scan::lines(text) {
                let mut fields = Fields::of(line);
                let Some(name) = fields.next() else { continue };
                if let Some(column) = FIELDS.iter().position(|(field, _)| *field == name) {
                    let value = fields.number().ok_or_else(|| file.malformed("a counter has no number"))?;
                    group.put(column, value);
                } else if vectors && name == b"softirq" {
                    for column in 0..VECTORS.len() {
                        // Behind the sum; kernels without a vector have fewer.
                        let Some(count) = (if column == 0 { fields.nth(1) } else { fields.next() }) else {
                            break;
                        };
                        let count = scan::number(count);
                        let count = count.ok_or_else(|| file.malformed("a softirq's count is no number"))?;
                        group.put(FIELDS.len() + column, count);
                    }
                }
            }
            if group.present().is_empty() {
                return Err(file.malformed("none of the known counters is there"));
            }
            Ok(())
        })
    }
}
