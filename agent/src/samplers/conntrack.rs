//! `conntrack`: the connection tracking table's size, limit and mishaps.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};

const STATISTICS: [(&[u8], &str); 8] = [
    (b"found", "node_nf_conntrack_stat_found"),
    (b"invalid", "node_nf_conntrack_stat_invalid"),
    (b"ignore", "node_nf_conntrack_stat_ignore"),
    (b"insert", "node_nf_conntrack_stat_insert"),
    (b"insert_failed", "node_nf_conntrack_stat_insert_failed"),
    (b"drop", "node_nf_conntrack_stat_drop"),
    (b"early_drop", "node_nf_conntrack_stat_early_drop"),
    (b"search_restart", "node_nf_conntrack_stat_search_restart"),
];

const LIMIT: usize = 1;
/// Readings between two looks at the limit.
const READINGS_BETWEEN_LOOKS: u32 = 10;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let setting = |name: &str| KernelFile::setting(options.paths.proc(name));
    Box::new(ConntrackSampler {
        count: setting("sys/net/netfilter/nf_conntrack_count"),
        limit: setting("sys/net/netfilter/nf_conntrack_max"),
        statistics: KernelFile::records(options.paths.proc("net/stat/nf_conntrack")),
        group: None,
        countdown: 0,
    })
}

struct ConntrackSampler {
    count: KernelFile,
    limit: KernelFile,
    statistics: KernelFile,
    group: Option<GroupHandle>,
    /// Readings until the limit, which people set by hand, is looked at again.
    countdown: u32,
}

impl Sampler for ConntrackSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let handle = *self.group.get_or_insert_with(|| {
            let names = ["node_nf_conntrack_entries", "node_nf_conntrack_entries_limit"];
            let names = names.into_iter().chain(STATISTICS.iter().map(|(_, name)| *name));
            groups.define("conntrack", Vec::new(), names.map(ColumnSpec::plain).collect())
        });
        let Some(group) = groups.group(handle) else { return Ok(()) };
        for (column, file) in [&mut self.count, &mut self.limit].into_iter().enumerate() {
            if column == LIMIT && self.countdown > 0 {
                group.keep(column);
                continue;
            }
            let Some(text) = file.read_if_present(buffer)? else {
                return Err(SampleError::Absent("connection tracking is not loaded"));
            };
            let value = scan::number(scan::trimmed(text));
            group.put(column, value.ok_or_else(|| file.malformed("this is no number"))?);
        }
        self.countdown = self.countdown.checked_sub(1).unwrap_or(READINGS_BETWEEN_LOOKS);
        let Some(text) = self.statistics.read_if_present(buffer)? else { return Ok(()) };
        // A line of names, then a line of numbers for each CPU.
        let mut lines = scan::lines(text);
        let heading = lines.next().unwrap_or_default();
        for line in lines {
            for (name, field) in Fields::of(heading).zip(Fields::of(line)) {
                let Some(at) = STATISTICS.iter().position(|(known, _)| *known == name) else { continue };
                let value = scan::hexadecimal(field);
                let value = value.ok_or_else(|| self.statistics.malformed("a counter is no number"))? as f64;
                let column = at + 2;
                let before = if group.present().contains(column) { group.values()[column] } else { 0.0 };
                group.put(column, before + value);
            }
        }
        Ok(())
    }
}
