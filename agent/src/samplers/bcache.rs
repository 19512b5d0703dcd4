//! `bcache`: caches of block devices, from `/sys/fs/bcache`: each set of caches, the devices behind it, and the
//! caches themselves.

use super::inventory::{self, Found, Parse, names};
use crate::group::ColumnSpec;
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::Path;

/// Files of a set and their metrics; bcache writes large numbers as `4.2M`.
const OF_SET: [(&str, &str); 9] = [
    ("average_key_size", "node_bcache_average_key_size_sectors"),
    ("btree_cache_size", "node_bcache_btree_cache_size_bytes"),
    ("cache_available_percent", "node_bcache_cache_available_percent"),
    ("congested", "node_bcache_congested"),
    ("root_usage_percent", "node_bcache_root_usage_percent"),
    ("tree_depth", "node_bcache_tree_depth"),
    ("internal/active_journal_entries", "node_bcache_active_journal_entries"),
    ("internal/btree_nodes", "node_bcache_btree_nodes"),
    ("internal/cache_read_races", "node_bcache_cache_read_races_total"),
];
/// Files of a device behind a cache.
const OF_BACKING: [(&str, &str); 8] = [
    ("dirty_data", "node_bcache_dirty_data_bytes"),
    ("stats_total/bypassed", "node_bcache_bypassed_bytes_total"),
    ("stats_total/cache_hits", "node_bcache_cache_hits_total"),
    ("stats_total/cache_misses", "node_bcache_cache_misses_total"),
    ("stats_total/cache_bypass_hits", "node_bcache_cache_bypass_hits_total"),
    ("stats_total/cache_bypass_misses", "node_bcache_cache_bypass_misses_total"),
    ("stats_total/cache_miss_collisions", "node_bcache_cache_miss_collisions_total"),
    ("stats_total/cache_readaheads", "node_bcache_cache_readaheads_total"),
];
/// Lines of `writeback_rate_debug`.
const OF_WRITEBACK: [(&str, Parse); 5] = [
    ("node_bcache_dirty_target_bytes", |text| line(text, b"target:")),
    ("node_bcache_writeback_rate", |text| line(text, b"rate:")),
    ("node_bcache_writeback_rate_proportional_term", |text| line(text, b"proportional:")),
    ("node_bcache_writeback_rate_integral_term", |text| line(text, b"integral:")),
    ("node_bcache_writeback_change", |text| line(text, b"change:")),
];
/// Files of a cache.
const OF_CACHE: [(&str, &str); 3] = [
    ("io_errors", "node_bcache_io_errors"),
    ("metadata_written", "node_bcache_metadata_written_bytes_total"),
    ("written", "node_bcache_written_bytes_total"),
];
/// Lines of `priority_stats`, for which bcache sorts all its buckets.
const OF_PRIORITY: [(&str, Parse); 2] = [
    ("node_bcache_priority_stats_unused_percent", |text| line(text, b"Unused:")),
    ("node_bcache_priority_stats_metadata_percent", |text| line(text, b"Metadata:")),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("fs/bcache");
    let priorities = options.bcache_priority_stats;
    inventory::optional(move || find(&folder, priorities))
}

fn find(folder: &Path, priorities: bool) -> Vec<Found> {
    let mut found = Vec::new();
    // Sets are named by UUID; beside them are files for registering.
    for uuid in names(folder).into_iter().filter(|name| name.contains('-')) {
        let folder = folder.join(&uuid);
        let of_set = vec![("uuid".into(), uuid.clone())];
        let mut set = Found::new(format!("bcache/{uuid}"), of_set.clone());
        for (file, metric) in OF_SET {
            set.file(ColumnSpec::plain(metric), folder.join(file), human);
        }
        // The file's name says microseconds; node_exporter and its dashboards take what is in it for nanoseconds.
        set.scaled(
            ColumnSpec::plain("node_bcache_btree_read_average_duration_seconds"),
            folder.join("internal/btree_read_average_duration_us"),
            1e-9,
        );
        found.push(set);
        for name in names(&folder) {
            let numbered = |prefix: &str| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            let device = folder.join(&name);
            let object = |label: &'static str| {
                let mut labels = of_set.clone();
                labels.push((label.into(), name.clone()));
                Found::new(format!("bcache/{uuid}/{name}"), labels)
            };
            if numbered("bdev") {
                let mut backing = object("backing_device");
                for (file, metric) in OF_BACKING {
                    backing.file(ColumnSpec::plain(metric), device.join(file), human);
                }
                for (metric, parse) in OF_WRITEBACK {
                    backing.file(ColumnSpec::plain(metric), device.join("writeback_rate_debug"), parse);
                }
                found.push(backing);
            } else if numbered("cache") {
                let mut cache = object("cache_device");
                for (file, metric) in OF_CACHE {
                    cache.file(ColumnSpec::plain(metric), device.join(file), human);
                }
                for (metric, parse) in OF_PRIORITY.iter().filter(|_| priorities) {
                    cache.file(ColumnSpec::plain(*metric), device.join("priority_stats"), *parse);
                }
                found.push(cache);
            }
        }
    }
    found
}

/// The value behind a word at the beginning of a line.
fn line(text: &[u8], name: &[u8]) -> Option<f64> {
    let value = scan::lines(text).find_map(|line| line.strip_prefix(name))?.trim_ascii();
    let value = value.strip_suffix(b"/sec").or_else(|| value.strip_suffix(b"%")).unwrap_or(value);
    human(value)
}

/// A number as bcache writes it: `1305`, or `4.2M` with a power of 1024. Behind its point are tenths of 1024ths
/// cut off, which node_exporter reads as 1/10.24; so do we.
fn human(text: &[u8]) -> Option<f64> {
    let text = scan::trimmed(text);
    let (sign, text) = text.strip_prefix(b"-").map_or((1.0, text), |text| (-1.0, text));
    let (last, digits) = text.split_last()?;
    let Some(power) = b"kMGTPEZY".iter().position(|unit| unit == last) else {
        return scan::number(text).map(|value| sign * value);
    };
    let mut parts = digits.split(|byte| *byte == b'.');
    let whole = scan::number(parts.next()?)?;
    let part = parts.next().map_or(Some(0.0), scan::number)?;
    let factor = 1024f64.powi(i32::try_from(power).ok()? + 1);
    Some(sign * ((whole + part / 10.24) * factor).trunc()).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_as_bcache_writes_them() {
        #[track_caller]
        fn check(text: &str, want: Option<f64>) {
            assert_eq!(human(text.as_bytes()), want, "{text}");
        }
        check("1305\n", Some(1_305.0));
        check("20.4G", Some(21_894_266_880.0));
        check("321.5k", Some(329_204.0));
        check("1M", Some(1_048_576.0));
        check("-321.5k", Some(-329_204.0));
        check("0", Some(0.0));
        check("", None);
        check("k", None);
        check("1.x3k", None);
        check("1e308Y", None);
        check("soon", None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-0-9.kMGZ/secUnused: %\\n]{0,24}") {
            let _ = (human(text.as_bytes()), line(text.as_bytes(), b"Unused:"));
        }
    }
}
