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
        file: KernelFile::whole(options.paths.proc(path)),
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
    headings: Vec<u8>,
    /// (line, field) of each column, in file order.
    wanted: Vec<(usize, usize)>,
}

impl Layout {
    /// Whether these are the headings that it was made for; they only change with the kernel.
    fn fits<'a>(&self, headings: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut rest = self.headings.as_slice();
        for heading in headings {
            match rest.strip_prefix(heading).and_then(|rest| rest.strip_prefix(b"\n")) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        rest.is_empty()
    }
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
    let headings = || scan::lines(text).step_by(2);
    if table.group.is_none() || !table.layout.fits(headings()) {
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
        lay_out(table, headings(), names, groups);
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
    let headings = || scan::lines(text).map(first);
    if table.group.is_none() || !table.layout.fits(headings()) {
        let mut names = Vec::new();
        table.layout.wanted.clear();
        for (line, name) in headings().enumerate() {
            // Ip6InReceives: the protocol ends behind its 6.
            let Some(six) = name.iter().position(|&byte| byte == b'6') else { continue };
            let (protocol, field) = name.split_at(six + 1);
            add_wanted(filter, protocol, field, &mut names, &mut table.layout.wanted, (line, 1));
        }
        lay_out(table, headings(), names, groups);
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

fn lay_out<'a>(
    table: &mut Table,
    headings: impl Iterator<Item = &'a [u8]>,
    names: Vec<String>,
    groups: &mut GroupSet,
) {
    let columns: Vec<ColumnSpec> =
        names.into_iter().map(|name| ColumnSpec::plain(format!("node_netstat_{name}"))).collect();
    match table.group {
        Some(handle) => groups.redefine(handle, columns),
        None => table.group = Some(groups.define(table.key, Vec::new(), columns)),
    }
    table.layout.headings.clear();
    headings.for_each(|heading| table.layout.headings.extend([heading, b"\n"].into_iter().flatten()));
}
