//! `softnet`: packets that each CPU took from its receive queues, from `/proc/net/softnet_stat`.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Positions of the fields; the kernel has added to the right over time.
const FIELDS: [(usize, &str); 7] = [
    (0, "node_softnet_processed_total"),
    (1, "node_softnet_dropped_total"),
    (2, "node_softnet_times_squeezed_total"),
    (8, "node_softnet_cpu_collision_total"),
    (9, "node_softnet_received_rps_total"),
    (10, "node_softnet_flow_limit_count_total"),
    (11, "node_softnet_backlog_len"),
];
/// Position of the CPU's number, written since Linux 5.10; before, lines are numbered.
const CPU: usize = 12;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::records(options.paths.proc("net/softnet_stat"));
    Box::new(SoftnetSampler { file, cpus: Objects::default() })
}

struct SoftnetSampler {
    file: KernelFile,
    cpus: Objects<()>,
}

impl Sampler for SoftnetSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.cpus.begin();
        let text = self.file.read(buffer)?;
        for (number, line) in scan::lines(text).enumerate() {
            let malformed = || self.file.malformed("a line has too few hexadecimal numbers");
            let mut values = [None; CPU + 1];
            for (place, field) in values.iter_mut().zip(Fields::of(line)) {
                *place = Some(scan::hexadecimal(field).ok_or_else(malformed)?);
            }
            if values[8].is_none() {
                return Err(malformed());
            }
            let cpu = values[CPU].unwrap_or(number as u64);
            let name = cpu.to_le_bytes();
            let cpu = self.cpus.find_or_define(&name, |_| {
                let labels = vec![("cpu".into(), cpu.to_string())];
                let columns = FIELDS.iter().map(|(_, name)| ColumnSpec::plain(*name)).collect();
                Some(Kept { group: groups.define(format!("softnet/{cpu}"), labels, columns), state: () })
            });
            let Some(group) = cpu.and_then(|cpu| groups.group(cpu.group)) else { continue };
            for (column, (field, _)) in FIELDS.iter().enumerate() {
                group.put_some(column, values[*field].map(|value| value as f64));
            }
        }
        self.cpus.finish(groups)
    }
}
