//! `vmstat`: the counters of `/proc/vmstat` whose names match `--collector.vmstat.fields`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(VmstatSampler {
        file: KernelFile::records(options.paths.proc("vmstat")),
        filter: options.vmstat_fields.clone(),
        wanted: Vec::new(),
        group: None,
    })
}

struct VmstatSampler {
    file: KernelFile,
    filter: Filter,
    /// Lines that are wanted, by number, with the name expected there.
    wanted: Vec<(usize, Vec<u8>)>,
    group: Option<GroupHandle>,
}

impl Sampler for VmstatSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        // The kernel makes this file up page by page, each time all of it; what is wanted is on the first.
        let lines = self.wanted.last().map_or(usize::MAX, |(last, _)| last + 1);
        let mut text = self.file.read_lines(buffer, lines)?;
        if self.group.is_none() || !matches(&self.wanted, text) {
            text = self.file.read(buffer)?;
            self.lay_out(text, groups);
        }
        let Some(group) = self.group.and_then(|handle| groups.group(handle)) else { return Ok(()) };
        let mut wanted = self.wanted.iter().enumerate().peekable();
        for (number, line) in scan::lines(text).enumerate() {
            let Some((column, _)) = wanted.next_if(|(_, (at, _))| *at == number) else { continue };
            let value = Fields::of(line).nth(1).and_then(scan::number);
            group.put(column, value.ok_or_else(|| self.file.malformed("a counter has no number"))?);
        }
        Ok(())
    }
}

impl VmstatSampler {
    fn lay_out(&mut self, text: &[u8], groups: &mut GroupSet) {
        self.wanted = scan::lines(text)
            .enumerate()
            .filter_map(|(number, line)| {
                let name = Fields::of(line).next()?;
                self.filter.keeps(&String::from_utf8_lossy(name)).then(|| (number, name.to_owned()))
            })
            .collect();
        let columns = self
            .wanted
            .iter()
            .map(|(_, name)| ColumnSpec::plain(format!("node_vmstat_{}", String::from_utf8_lossy(name))))
            .collect();
        match self.group {
            Some(handle) => groups.redefine(handle, columns),
            None => self.group = Some(groups.define("vmstat", Vec::new(), columns)),
        }
    }
}

/// Whether the wanted names stand where they are expected.
fn matches(wanted: &[(usize, Vec<u8>)], text: &[u8]) -> bool {
    let mut wanted = wanted.iter().peekable();
    for (number, line) in scan::lines(text).enumerate() {
        if let Some((_, name)) = wanted.next_if(|(at, _)| *at == number)
            && Fields::of(line).next() != Some(name.as_slice())
        {
            return false;
        }
    }
    wanted.next().is_none()
}
