//! `schedstat`: how long tasks ran and waited on each CPU, from `/proc/schedstat`.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Position behind the CPU's name, metric and unit (the kernel counts nanoseconds).
const FIELDS: [(usize, &str, f64); 3] = [
    (6, "node_schedstat_running_seconds_total", 1e9),
    (7, "node_schedstat_waiting_seconds_total", 1e9),
    (8, "node_schedstat_timeslices_total", 1.0),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::new(options.paths.proc("schedstat"));
    Box::new(SchedstatSampler { file, cpus: Objects::default() })
}

struct SchedstatSampler {
    file: KernelFile,
    cpus: Objects<()>,
}

impl Sampler for SchedstatSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.cpus.begin();
        let Some(text) = self.file.read_if_present(buffer)? else {
            return Err(SampleError::Absent("the kernel was built without CONFIG_SCHEDSTATS"));
        };
        for line in scan::lines(text) {
            let Some(rest) = line.strip_prefix(b"cpu") else { continue };
            let malformed = || self.file.malformed("a cpu line lacks fields");
            let mut fields = Fields::of(rest);
            let number = fields.next().ok_or_else(malformed)?;
            let cpu = self.cpus.find_or_define(number, |cpu| {
                let labels = vec![("cpu".into(), cpu.to_owned())];
                let columns = FIELDS.iter().map(|(_, name, _)| ColumnSpec::plain(*name)).collect();
                Some(Kept { group: groups.define(format!("schedstat/{cpu}"), labels, columns), state: () })
            });
            let Some(group) = cpu.and_then(|cpu| groups.group(cpu.group)) else { continue };
            let mut fields = fields.skip(FIELDS[0].0);
            for (column, (_, _, per_unit)) in FIELDS.iter().enumerate() {
                let value = fields.next().and_then(scan::number).ok_or_else(malformed)?;
                group.put(column, value / per_unit);
            }
        }
        self.cpus.finish(groups)
    }
}
