//! Samplers of single lines: `loadavg`, `filefd`, `entropy` and `kernel_hung`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Readings between two looks at what hardly ever changes.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// A file of one line, and which of its fields are which metrics.
struct Source {
    file: KernelFile,
    fields: &'static [(usize, &'static str)],
    /// Whether it hardly ever changes, so that it is not read every time.
    settled: bool,
}

struct LineSampler {
    key: &'static str,
    sources: Vec<Source>,
    group: Option<GroupHandle>,
    readings: u32,
}

impl Sampler for LineSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let look = self.readings.is_multiple_of(READINGS_BETWEEN_LOOKS);
        let handle = *self.group.get_or_insert_with(|| {
            let names = self.sources.iter().flat_map(|source| source.fields.iter());
            groups.define(self.key, Vec::new(), names.map(|(_, name)| ColumnSpec::plain(*name)).collect())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        let mut column = 0;
        for Source { file, fields: wanted, settled } in &mut self.sources {
            if *settled && !look {
                wanted.iter().for_each(|_| {
                    group.keep(column);
                    column += 1;
                });
                continue;
            }
            let text = file.read(buffer)?;
            let mut fields = Fields::of(scan::trimmed(text)).enumerate();
            for &(at, _) in *wanted {
                let value = fields.find(|(index, _)| *index == at).and_then(|(_, field)| scan::number(field));
                group.put(column, value.ok_or_else(|| file.malformed("a number is missing"))?);
                column += 1;
            }
        }
        // Only now: what failed before it was ever read must not be kept.
        self.readings = self.readings.wrapping_add(1);
        Ok(())
    }
}

fn sampler(key: &'static str, sources: Vec<Source>) -> Box<dyn Sampler> {
    Box::new(LineSampler { key, sources, group: None, readings: 0 })
}

/// Makes `loadavg`.
pub fn loadavg(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::whole(options.paths.proc("loadavg"));
    let fields: &[_] = &[(0, "node_load1"), (1, "node_load5"), (2, "node_load15")];
    sampler("loadavg", vec![Source { file, fields, settled: false }])
}

/// Makes `filefd`.
pub fn filefd(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::setting(options.paths.proc("sys/fs/file-nr"));
    let fields: &[_] = &[(0, "node_filefd_allocated"), (2, "node_filefd_maximum")];
    sampler("filefd", vec![Source { file, fields, settled: false }])
}

/// Makes `kernel_hung`.
pub fn kernel_hung(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::setting(options.paths.proc("sys/kernel/hung_task_detect_count"));
    let fields: &[_] = &[(0, "node_kernel_hung_tasks_total")];
    sampler("kernel_hung", vec![Source { file, fields, settled: false }])
}

/// Makes `entropy`.
pub fn entropy(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name: &str| KernelFile::setting(options.paths.proc(name));
    let available: &[_] = &[(0, "node_entropy_available_bits")];
    let pool: &[_] = &[(0, "node_entropy_pool_size_bits")];
    let available =
        Source { file: file("sys/kernel/random/entropy_avail"), fields: available, settled: false };
    let pool = Source { file: file("sys/kernel/random/poolsize"), fields: pool, settled: true };
    sampler("entropy", vec![available, pool])
}
