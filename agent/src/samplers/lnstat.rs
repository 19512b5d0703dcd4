//! `lnstat`: how the kernel's network caches fare on each CPU, from `/proc/net/stat`.

use super::inventory::names;
use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::PathBuf;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(LnstatSampler { folder: options.paths.proc("net/stat"), table: Table::default() })
}

struct LnstatSampler {
    folder: PathBuf,
    table: Table,
}

impl Sampler for LnstatSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut objects = Vec::new();
        for cache in names(&self.folder) {
            let mut file = KernelFile::list(self.folder.join(&cache));
            let Some(text) = file.read_if_present(buffer)? else { continue };
            let object = parse(&cache, text);
            objects.push(object.ok_or_else(|| file.malformed("a counter is no hexadecimal number"))?);
        }
        self.table.publish(groups, objects);
        Ok(())
    }
}

/// A line of names, then a line of hexadecimal numbers for each CPU.
fn parse(cache: &str, text: &[u8]) -> Option<Object> {
    let mut object = Object::new(format!("lnstat/{cache}"), vec![("subsystem".into(), cache.to_owned())]);
    let mut lines = scan::lines(text);
    let heading: Vec<String> =
        Fields::of(lines.next()?).map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let legal = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    for (cpu, line) in lines.enumerate() {
        for (name, number) in heading.iter().zip(Fields::of(line)).filter(|(name, _)| legal(name)) {
            let value = scan::hexadecimal(number)? as f64;
            let column = ColumnSpec::plain(format!("node_lnstat_{name}_total")).with("cpu", cpu.to_string());
            object.put(column, value);
        }
    }
    Some(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn counters_are_hexadecimal_and_nothing_else() {
        assert!(parse("arp_cache", b"entries  hits\n0000001a 00000002\n00000000 00000003\n").is_some());
        assert!(parse("arp_cache", b"entries\nmany\n").is_none());
        assert!(parse("empty", b"").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = parse("x", &bytes);
        }
    }
}
