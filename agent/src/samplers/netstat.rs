//! `netstat`: counters of the network stack from `/proc/net/{netstat,snmp,snmp6}` whose names match
//! `--collector.netstat.fields`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let table = |name: &'static str, path: &str| Table {
        key: name,
        file: KernelFile::new(options.paths.proc(path)),
        layout: Layout::default(),
        group: None,
    };
    Box::new(NetstatSampler {
        filter: options.netstat_fields.clone(),
        tables: [table("netstat", "net/netstat"), table("snmp", "net/snmp")],
        snmp6: table("snmp6", "net/snmp6"),
    })
}

struct NetstatSampler {
    filter: Filter,
    tables: [Table; 2],
    snmp6: Table,
}

/// One file and where its wanted numbers stand.
struct Table {
    key: &'static str,
    file: KernelFile,
    layout: Layout,
    group: Option<GroupHandle>,
}

/// What the headings were when columns were laid out, and which numbers are wanted.
#[derive(Default)]
struct Layout {
    heading_hash: u64,
    /// (line, field) of each column, in file order.
    wanted: Vec<(usize, usize)>,
}

impl Sampler for NetstatSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        for table in &mut self.tables {
            sample_headed(table, &self.filter, buffer, groups)?;
        }
        sample_listed(&mut self.snmp6, &self.filter, buffer, groups)
    }
}

/// `snmp` and `netstat`: a line of names, then a line of numbers, for each protocol.
fn sample_headed(
    table: &mut Table,
    filter: &Filter,
    buffer: &mut ReadBuffer,
    groups: &mut GroupSet,
) -> Result<(), SampleError> {
    let text = table.file.read(buffer)?;
    let hash = hash_of(scan::lines(text).step_by(2));
    if table.group.is_none() || hash != table.layout.heading_hash {
        let mut names = Vec::new();
        table.layout.wanted.clear();
        for (line, heading) in scan::lines(text).enumerate().step_by(2) {
            let mut fields = Fields::of(heading);
            let Some(protocol) = fields.next().and_then(|field| field.strip_suffix(b":")) else {
                return Err(table.file.malformed("a heading names no protocol"));
            };
            for (at, field) in fields.enumerate() {
                add_wanted(filter, protocol, field, &mut names, &mut table.layout.wanted, (line + 1, at + 1));
            }
        }
        lay_out(table, hash, names, groups);
    }
    let Some(group) = table.group.and_then(|handle| groups.group(handle)) else { return Ok(()) };
    let mut wanted = table.layout.wanted.iter().enumerate().peekable();
    for (number, line) in scan::lines(text).enumerate() {
        if wanted.peek().is_none_or(|(_, (at, _))| *at != number) {
            continue;
        }
        for (index, field) in Fields::of(line).enumerate() {
            if let Some((column, _)) = wanted.next_if(|(_, place)| **place == (number, index)) {
                let value = scan::number(field);
                group.put(column, value.ok_or_else(|| table.file.malformed("a counter has no number"))?);
            }
        }
    }
    match wanted.next() {
        None => Ok(()),
        Some(_) => Err(table.file.malformed("a line has fewer numbers than names")),
    }
}

/// `snmp6`: a name and a number a line. Missing where IPv6 is switched off.
fn sample_listed(
    table: &mut Table,
    filter: &Filter,
    buffer: &mut ReadBuffer,
    groups: &mut GroupSet,
) -> Result<(), SampleError> {
    let Some(text) = table.file.read_if_present(buffer)? else {
        if let Some(handle) = table.group.take() {
            groups.end(handle);
        }
        return Ok(());
    };
    let first = |line| Fields::of(line).next().unwrap_or_default();
    let hash = hash_of(scan::lines(text).map(first));
    if table.group.is_none() || hash != table.layout.heading_hash {
        let mut names = Vec::new();
        table.layout.wanted.clear();
        for (line, name) in scan::lines(text).map(first).enumerate() {
            // Ip6InReceives: the protocol ends behind its 6.
            let Some(six) = name.iter().position(|&byte| byte == b'6') else { continue };
            let (protocol, field) = name.split_at(six + 1);
            add_wanted(filter, protocol, field, &mut names, &mut table.layout.wanted, (line, 1));
        }
        lay_out(table, hash, names, groups);
    }
    let Some(group) = table.group.and_then(|handle| groups.group(handle)) else { return Ok(()) };
    let mut wanted = table.layout.wanted.iter().enumerate().peekable();
    for (number, line) in scan::lines(text).enumerate() {
        if let Some((column, _)) = wanted.next_if(|(_, (at, _))| *at == number) {
            let value = Fields::of(line).nth(1).and_then(scan::number);
            group.put(column, value.ok_or_else(|| table.file.malformed("a counter has no number"))?);
        }
    }
    Ok(())
}

fn add_wanted(
    filter: &Filter,
    protocol: &[u8],
    field: &[u8],
    names: &mut Vec<String>,
    wanted: &mut Vec<(usize, usize)>,
    place: (usize, usize),
) {
    let name = format!("{}_{}", String::from_utf8_lossy(protocol), String::from_utf8_lossy(field));
    // IpExt and others repeat names in rare kernels; one series cannot have two values.
    if filter.keeps(&name) && !names.contains(&name) {
        names.push(name);
        wanted.push(place);
    }
}

fn lay_out(table: &mut Table, hash: u64, names: Vec<String>, groups: &mut GroupSet) {
    let columns: Vec<ColumnSpec> =
        names.into_iter().map(|name| ColumnSpec::plain(format!("node_netstat_{name}"))).collect();
    match table.group {
        Some(handle) => groups.redefine(handle, columns),
        None => table.group = Some(groups.define(table.key, Vec::new(), columns)),
    }
    table.layout.heading_hash = hash;
}

/// FNV-1a: good enough to notice that headings changed, which they only do with the kernel.
fn hash_of<'a>(parts: impl Iterator<Item = &'a [u8]>) -> u64 {
    parts.fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        part.iter()
            .chain(b"\n")
            .fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    })
}
