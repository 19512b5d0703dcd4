//! Samplers of single lines: `loadavg`, `filefd` and `entropy`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// A file of one line, and which of its fields are which metrics.
struct LineSampler {
    key: &'static str,
    sources: Vec<(KernelFile, &'static [(usize, &'static str)])>,
    group: Option<GroupHandle>,
}

impl Sampler for LineSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            let names = self.sources.iter().flat_map(|(_, fields)| fields.iter());
            groups.define(self.key, Vec::new(), names.map(|(_, name)| ColumnSpec::plain(*name)).collect())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        let mut column = 0;
        for (file, wanted) in &mut self.sources {
            let text = file.read(buffer)?;
            let mut fields = Fields::of(scan::trimmed(text)).enumerate();
            for &(at, _) in *wanted {
                let value = fields.find(|(index, _)| *index == at).and_then(|(_, field)| scan::number(field));
                group.put(column, value.ok_or_else(|| file.malformed("a number is missing"))?);
                column += 1;
            }
        }
        Ok(())
    }
}

/// Makes `loadavg`.
pub fn loadavg(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::new(options.paths.proc("loadavg"));
    let fields: &[_] = &[(0, "node_load1"), (1, "node_load5"), (2, "node_load15")];
    Box::new(LineSampler { key: "loadavg", sources: vec![(file, fields)], group: None })
}

/// Makes `filefd`.
pub fn filefd(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = KernelFile::new(options.paths.proc("sys/fs/file-nr"));
    let fields: &[_] = &[(0, "node_filefd_allocated"), (2, "node_filefd_maximum")];
    Box::new(LineSampler { key: "filefd", sources: vec![(file, fields)], group: None })
}

/// Makes `entropy`.
pub fn entropy(options: &SamplerOptions) -> Box<dyn Sampler> {
    let file = |name: &str| KernelFile::new(options.paths.proc(name));
    let available: &[_] = &[(0, "node_entropy_available_bits")];
    let pool: &[_] = &[(0, "node_entropy_pool_size_bits")];
    let sources = vec![
        (file("sys/kernel/random/entropy_avail"), available),
        (file("sys/kernel/random/poolsize"), pool),
    ];
    Box::new(LineSampler { key: "entropy", sources, group: None })
}
