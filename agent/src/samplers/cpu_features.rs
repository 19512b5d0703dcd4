//! `node_cpu_flag_info` and `node_cpu_bug_info`: what `/proc/cpuinfo` says the first CPU can do and suffers from,
//! for those that `--collector.cpu.info.flags-include` and `bugs-include` name.

use crate::group::{COLUMNS_MAX, ColumnSpec, GroupHandle, GroupSet};
use crate::sampler::{Filter, SamplerOptions};
use std::path::PathBuf;

/// Which flags and bugs are wanted; nobody wants all of them, so without a pattern there are none.
pub(super) struct CpuFeatures {
    cpuinfo: PathBuf,
    wanted: [(&'static str, &'static str, &'static str, Filter); 2],
}

impl CpuFeatures {
    pub(super) fn new(options: &SamplerOptions) -> Self {
        CpuFeatures {
            cpuinfo: options.paths.proc("cpuinfo"),
            wanted: [
                ("flags", "node_cpu_flag_info", "flag", options.cpu_flags.clone()),
                ("bugs", "node_cpu_bug_info", "bug", options.cpu_bugs.clone()),
            ],
        }
    }

    /// A group of constants, if there is anything wanted.
    pub(super) fn define(&self, groups: &mut GroupSet) -> Option<GroupHandle> {
        if self.wanted.iter().all(|(.., filter)| filter.include.is_none()) {
            return None;
        }
        let text = std::fs::read_to_string(&self.cpuinfo).ok()?;
        let mut columns = Vec::new();
        for (field, metric, label, filter) in &self.wanted {
            let words = first(&text, field).split_whitespace();
            let words = words.filter(|word| filter.include.is_some() && filter.keeps(word));
            columns.extend(words.map(|word| ColumnSpec::plain(*metric).with(*label, word)));
        }
        columns.truncate(COLUMNS_MAX);
        (!columns.is_empty()).then(|| groups.define("cpu_features", Vec::new(), columns))
    }
}

/// What the first CPU has in a field.
fn first<'a>(text: &'a str, field: &str) -> &'a str {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(name, _)| name.trim() == field).map(|(_, value)| value).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use regex::Regex;

    #[test]
    fn only_what_is_asked_for_is_shown_of_the_first_cpu() {
        let folder = tempfile::tempdir().unwrap();
        let cpuinfo = folder.path().join("cpuinfo");
        std::fs::write(
            &cpuinfo,
            "processor\t: 0\nflags\t\t: fpu avx avx2 sse\nbugs\t\t: spectre_v1 mds\n\nprocessor\t: 1\nflags\t: avx512f\n",
        )
        .unwrap();
        let shown = |flags: Option<&str>, bugs: Option<&str>| {
            let filter = |pattern: Option<&str>| Filter {
                include: pattern.map(|pattern| Regex::new(pattern).unwrap()),
                exclude: None,
            };
            let wanted = [
                ("flags", "node_cpu_flag_info", "flag", filter(flags)),
                ("bugs", "node_cpu_bug_info", "bug", filter(bugs)),
            ];
            let mut groups = GroupSet::default();
            let features = CpuFeatures { cpuinfo: cpuinfo.clone(), wanted };
            let Some(handle) = features.define(&mut groups) else { return String::new() };
            let columns = groups.group(handle).unwrap().columns().to_vec();
            columns.iter().map(|column| column.labels[0].1.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(None, None), "");
        assert_eq!(shown(Some("^avx"), None), "avx avx2");
        assert_eq!(shown(Some("^sse$"), Some("spec.*")), "sse spectre_v1");
        assert_eq!(shown(Some("none"), None), "");
    }
}
