//! `buddyinfo`, `slabinfo`, `zoneinfo`, `meminfo_numa`, `cgroups`: tables of the kernel's memory management
//! and controllers, off by default as in node_exporter.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet, Label};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::path::PathBuf;

/// A file, and how its text becomes objects.
struct TableSampler<F> {
    file: KernelFile,
    parse: F,
    table: Table,
}

impl<F> Sampler for TableSampler<F>
where
    F: FnMut(&[u8]) -> Result<Vec<Object>, &'static str> + Send,
{
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let text = self.file.read(buffer)?;
        let objects = (self.parse)(text).map_err(|what| self.file.malformed(what))?;
        self.table.publish(groups, objects);
        Ok(())
    }
}

fn sampler<F>(file: PathBuf, parse: F) -> Box<dyn Sampler>
where
    F: FnMut(&[u8]) -> Result<Vec<Object>, &'static str> + Send + 'static,
{
    Box::new(TableSampler { file: KernelFile::list(file), parse, table: Table::default() })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `Node 0, zone   Normal`: node, zone and what follows.
fn zone(line: &[u8]) -> Option<(String, String, Fields<'_>)> {
    let mut fields = Fields::of(line.strip_prefix(b"Node ")?);
    let node = text(fields.next()?.strip_suffix(b",")?);
    (fields.next()? == b"zone").then_some(())?;
    let zone = text(fields.next()?);
    Some((node, zone, fields))
}

fn zone_labels(node: &str, zone: &str) -> Vec<Label> {
    vec![("node".into(), node.to_owned()), ("zone".into(), zone.to_owned())]
}

/// Makes `buddyinfo`.
pub fn buddyinfo(options: &SamplerOptions) -> Box<dyn Sampler> {
    sampler(options.paths.proc("buddyinfo"), |text| {
        scan::lines(text).map(|line| buddy_zone(line).ok_or("a zone's line lacks fields")).collect()
    })
}

fn buddy_zone(line: &[u8]) -> Option<Object> {
    let (node, zone, sizes) = zone(line)?;
    let mut object = Object::new(format!("buddyinfo/{node}/{zone}"), zone_labels(&node, &zone));
    for (size, blocks) in sizes.enumerate() {
        let column = ColumnSpec::plain("node_buddyinfo_blocks").with("size", size.to_string());
        object.put(column, scan::number(blocks)?);
    }
    Some(object)
}

/// Makes `slabinfo`.
pub fn slabinfo(options: &SamplerOptions) -> Box<dyn Sampler> {
    let filter = options.slabs.clone();
    sampler(options.paths.proc("slabinfo"), move |text| {
        // A line with the version, and one of headings.
        let lines = scan::lines(text).skip(2);
        lines.filter_map(|line| slab(line, &filter).transpose()).collect()
    })
}

fn slab(line: &[u8], filter: &Filter) -> Result<Option<Object>, &'static str> {
    let mut fields = Fields::of(line);
    let Some(name) = fields.next().map(text) else { return Ok(None) };
    if !filter.keeps(&name) {
        return Ok(None);
    }
    let mut object = Object::new(format!("slabinfo/{name}"), vec![("slab".into(), name)]);
    for metric in [
        "node_slabinfo_active_objects",
        "node_slabinfo_objects",
        "node_slabinfo_object_size_bytes",
        "node_slabinfo_objects_per_slab",
        "node_slabinfo_pages_per_slab",
    ] {
        object.put(ColumnSpec::plain(metric), fields.number().ok_or("a slab's line lacks numbers")?);
    }
    Ok(Some(object))
}

/// Field of `/proc/zoneinfo` and metric.
const ZONE_FIELDS: [(&str, &str); 40] = [
    ("high", "node_zoneinfo_high_pages"),
    ("low", "node_zoneinfo_low_pages"),
    ("managed", "node_zoneinfo_managed_pages"),
    ("min", "node_zoneinfo_min_pages"),
    ("nr_active_anon", "node_zoneinfo_nr_active_anon_pages"),
    ("nr_active_file", "node_zoneinfo_nr_active_file_pages"),
    ("nr_anon_pages", "node_zoneinfo_nr_anon_pages"),
    ("nr_anon_transparent_hugepages", "node_zoneinfo_nr_anon_transparent_hugepages"),
    ("nr_dirtied", "node_zoneinfo_nr_dirtied_total"),
    ("nr_dirty", "node_zoneinfo_nr_dirty_pages"),
    ("nr_file_pages", "node_zoneinfo_nr_file_pages"),
    ("nr_free_pages", "node_zoneinfo_nr_free_pages"),
    ("nr_inactive_anon", "node_zoneinfo_nr_inactive_anon_pages"),
    ("nr_inactive_file", "node_zoneinfo_nr_inactive_file_pages"),
    ("nr_isolated_anon", "node_zoneinfo_nr_isolated_anon_pages"),
    ("nr_isolated_file", "node_zoneinfo_nr_isolated_file_pages"),
    ("nr_kernel_stack", "node_zoneinfo_nr_kernel_stacks"),
    ("nr_mapped", "node_zoneinfo_nr_mapped_pages"),
    ("nr_shmem", "node_zoneinfo_nr_shmem_pages"),
    ("nr_slab_reclaimable", "node_zoneinfo_nr_slab_reclaimable_pages"),
    ("nr_slab_unreclaimable", "node_zoneinfo_nr_slab_unreclaimable_pages"),
    ("nr_unevictable", "node_zoneinfo_nr_unevictable_pages"),
    ("nr_writeback", "node_zoneinfo_nr_writeback_pages"),
    ("nr_written", "node_zoneinfo_nr_written_total"),
    ("numa_foreign", "node_zoneinfo_numa_foreign_total"),
    ("numa_hit", "node_zoneinfo_numa_hit_total"),
    ("numa_interleave", "node_zoneinfo_numa_interleave_total"),
    ("numa_local", "node_zoneinfo_numa_local_total"),
    ("numa_miss", "node_zoneinfo_numa_miss_total"),
    ("numa_other", "node_zoneinfo_numa_other_total"),
    ("present", "node_zoneinfo_present_pages"),
    ("spanned", "node_zoneinfo_spanned_pages"),
    ("scanned", "node_zoneinfo_scanned_pages"),
    ("protection_0", "node_zoneinfo_protection_0"),
    ("protection_1", "node_zoneinfo_protection_1"),
    ("protection_2", "node_zoneinfo_protection_2"),
    ("protection_3", "node_zoneinfo_protection_3"),
    ("protection_4", "node_zoneinfo_protection_4"),
    ("protection_5", "node_zoneinfo_protection_5"),
    ("protection_6", "node_zoneinfo_protection_6"),
];

/// Makes `zoneinfo`.
pub fn zoneinfo(options: &SamplerOptions) -> Box<dyn Sampler> {
    sampler(options.paths.proc("zoneinfo"), |text| {
        let mut objects: Vec<Object> = Vec::new();
        // Per-CPU page sets have fields of the same names.
        let mut in_pagesets = false;
        for line in scan::lines(text) {
            if let Some((node, zone, _)) = zone(line) {
                objects.push(Object::new(format!("zoneinfo/{node}/{zone}"), zone_labels(&node, &zone)));
                in_pagesets = false;
                continue;
            }
            let mut fields = Fields::of(line);
            let (Some(object), Some(name)) = (objects.last_mut(), fields.next()) else { continue };
            in_pagesets |= name == b"pagesets";
            if in_pagesets {
                continue;
            }
            if name == b"protection:" {
                let metrics = ZONE_FIELDS.iter().filter(|(field, _)| field.starts_with("protection_"));
                for (pages, (_, metric)) in fields.zip(metrics) {
                    let digits: Vec<u8> = pages.iter().copied().filter(u8::is_ascii_digit).collect();
                    object.put_plain(metric, scan::number(&digits));
                }
            } else if let Some((_, metric)) = ZONE_FIELDS.iter().find(|(field, _)| field.as_bytes() == name) {
                object.put_plain(metric, fields.number());
            }
        }
        Ok(objects)
    })
}

/// Makes `cgroups`.
pub fn cgroups(options: &SamplerOptions) -> Box<dyn Sampler> {
    sampler(options.paths.proc("cgroups"), |bytes| {
        let lines = scan::lines(bytes).filter(|line| !line.starts_with(b"#"));
        let controllers = lines.map(|line| {
            let mut fields = Fields::of(line);
            let name = text(fields.next()?);
            let (_, count, enabled) = (fields.next()?, fields.number()?, fields.number()?);
            let labels = vec![("subsys_name".into(), name.clone())];
            let mut object = Object::new(format!("cgroups/{name}"), labels);
            object.put(ColumnSpec::plain("node_cgroups_cgroups"), count);
            object.put(ColumnSpec::plain("node_cgroups_enabled"), enabled);
            Some(object)
        });
        controllers.collect::<Option<_>>().ok_or("a controller's line lacks fields")
    })
}

/// Makes `meminfo_numa`.
pub fn meminfo_numa(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(NumaSampler { folder: options.paths.sys("devices/system/node"), table: Table::default() })
}

struct NumaSampler {
    folder: PathBuf,
    table: Table,
}

impl Sampler for NumaSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let fault = |source| SampleError::Read { path: self.folder.clone(), source };
        let mut objects = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
            let Some(node) = name.strip_prefix("node").filter(|node| node.parse::<u32>().is_ok()) else {
                continue;
            };
            let labels = vec![("node".into(), node.to_owned())];
            let mut object = Object::new(format!("meminfo_numa/{node}"), labels);
            let mut meminfo = KernelFile::list(self.folder.join(&name).join("meminfo"));
            for line in scan::lines(meminfo.read(buffer)?) {
                let mut fields = Fields::of(line).skip(2);
                let (Some(field), Some(value)) = (fields.next(), fields.next().and_then(scan::number)) else {
                    continue;
                };
                let scale = if fields.next() == Some(b"kB") { 1_024.0 } else { 1.0 };
                object.put(ColumnSpec::plain(numa_metric(field)), value * scale);
            }
            let mut stat = KernelFile::list(self.folder.join(&name).join("numastat"));
            for line in scan::lines(stat.read_if_present(buffer)?.unwrap_or_default()) {
                let mut fields = Fields::of(line);
                if let (Some(field), Some(value)) = (fields.next().map(text), fields.number()) {
                    object.put(ColumnSpec::plain(format!("node_memory_numa_{field}_total")), value);
                }
            }
            objects.push(object);
        }
        self.table.publish(groups, objects);
        Ok(())
    }
}

/// `Active(anon):` becomes `node_memory_numa_Active_anon`.
fn numa_metric(field: &[u8]) -> String {
    let field = text(field);
    let field = field.trim_end_matches(':').replace('(', "_").replace(')', "");
    format!("node_memory_numa_{field}")
}
