//! `pressure`: time lost waiting for CPU, memory, I/O and interrupts, from `/proc/pressure`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// File, metric of its line `some`, metric of its line `full`. A host as a whole is never fully stalled
/// on CPU, and interrupts only know `full`.
const RESOURCES: [(&str, Option<&str>, Option<&str>); 4] = [
    ("cpu", Some("node_pressure_cpu_waiting_seconds_total"), None),
    ("io", Some("node_pressure_io_waiting_seconds_total"), Some("node_pressure_io_stalled_seconds_total")),
    (
        "memory",
        Some("node_pressure_memory_waiting_seconds_total"),
        Some("node_pressure_memory_stalled_seconds_total"),
    ),
    ("irq", None, Some("node_pressure_irq_stalled_seconds_total")),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let files = RESOURCES.map(|(name, _, _)| KernelFile::new(options.paths.proc("pressure").join(name)));
    Box::new(PressureSampler { files, group: None })
}

struct PressureSampler {
    files: [KernelFile; RESOURCES.len()],
    group: Option<GroupHandle>,
}

impl Sampler for PressureSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            let names = RESOURCES.iter().flat_map(|(_, some, full)| some.iter().chain(full));
            groups.define("pressure", Vec::new(), names.map(|name| ColumnSpec::plain(*name)).collect())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        let mut column = 0;
        for (file, (_, some, full)) in self.files.iter_mut().zip(RESOURCES) {
            let text = file.read_if_present(buffer)?;
            for (name, metric) in [(b"some", some), (b"full", full)] {
                if metric.is_none() {
                    continue;
                }
                if let Some(text) = text {
                    let line = scan::lines(text).find_map(|line| line.strip_prefix(name));
                    let total = line.and_then(|line| {
                        Fields::of(line).find_map(|field| scan::number(field.strip_prefix(b"total=")?))
                    });
                    let total = total.ok_or_else(|| file.malformed("a line has no total"))?;
                    group.put(column, total / 1e6);
                }
                column += 1;
            }
        }
        if group.present().is_empty() {
            return Err(SampleError::Absent(
                "the kernel was built or started without pressure stall information",
            ));
        }
        Ok(())
    }
}
