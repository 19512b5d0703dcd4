//! `meminfo`: the fields of `/proc/meminfo`, in bytes.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(MemorySampler {
        file: KernelFile::new(options.paths.proc("meminfo")),
        group: None,
        keys: Vec::new(),
    })
}

struct MemorySampler {
    file: KernelFile,
    group: Option<GroupHandle>,
    /// Field names in file order, to see at once whether the kernel still writes the same ones.
    keys: Vec<Vec<u8>>,
}

impl Sampler for MemorySampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let text = self.file.read(buffer)?;
        let same = self.group.is_some()
            && scan::lines(text)
                .map(Some)
                .chain(std::iter::once(None))
                .zip(self.keys.iter().map(Some).chain(std::iter::once(None)))
                .all(|pair| match pair {
                    (Some(line), Some(key)) => {
                        line.strip_prefix(key.as_slice()).is_some_and(|rest| rest.starts_with(b":"))
                    }
                    (None, None) => true,
                    _ => false,
                });
        if !same {
            self.lay_out(text, groups)?;
        }
        let Some(group) = self.group.and_then(|handle| groups.group(handle)) else { return Ok(()) };
        for (column, line) in scan::lines(text).enumerate() {
            let malformed = || self.file.malformed("a line has no number");
            let colon = line.iter().position(|&byte| byte == b':').ok_or_else(malformed)?;
            let mut fields = Fields::of(&line[colon + 1..]);
            let value = fields.number().ok_or_else(malformed)?;
            let scale = if fields.next() == Some(b"kB") { 1024.0 } else { 1.0 };
            group.put(column, value * scale);
        }
        Ok(())
    }
}

impl MemorySampler {
    fn lay_out(&mut self, text: &[u8], groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut columns = Vec::new();
        let mut keys = Vec::new();
        for line in scan::lines(text) {
            let colon = line.iter().position(|&byte| byte == b':');
            let colon = colon.ok_or_else(|| self.file.malformed("a line has no name"))?;
            let unit = if line.ends_with(b"kB") { "_bytes" } else { "" };
            columns.push(ColumnSpec::plain(metric_name(&line[..colon], unit)));
            keys.push(line[..colon].to_owned());
        }
        if columns.is_empty() {
            return Err(self.file.malformed("the file is empty"));
        }
        match self.group {
            Some(handle) => groups.redefine(handle, columns),
            None => self.group = Some(groups.define("meminfo", Vec::new(), columns)),
        }
        self.keys = keys;
        Ok(())
    }
}

/// `Active(anon)` becomes `node_memory_Active_anon_bytes`.
fn metric_name(field: &[u8], unit: &str) -> String {
    let field = String::from_utf8_lossy(field);
    let mut name = "node_memory_".to_owned();
    for letter in field.chars() {
        match letter {
            '(' => name.push('_'),
            ')' => {}
            letter if letter.is_ascii_alphanumeric() || letter == '_' => name.push(letter),
            _ => name.push('_'),
        }
    }
    name.push_str(unit);
    name
}
