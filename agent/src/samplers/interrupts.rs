//! `interrupts` and `softirqs`: how often each CPU was interrupted, by what. Off by default, as in
//! node_exporter: a large server has tens of thousands of these series.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Makes `interrupts`.
pub fn interrupts(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(InterruptSampler {
        file: KernelFile::list(options.paths.proc("interrupts")),
        kind: Kind::Hard { names: options.interrupts.clone(), zeros: options.interrupt_zeros },
        table: Table::default(),
    })
}

/// Makes `softirqs`.
pub fn softirqs(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(InterruptSampler {
        file: KernelFile::list(options.paths.proc("softirqs")),
        kind: Kind::Soft,
        table: Table::default(),
    })
}

enum Kind {
    Hard { names: Filter, zeros: bool },
    Soft,
}

struct InterruptSampler {
    file: KernelFile,
    kind: Kind,
    table: Table,
}

impl Sampler for InterruptSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut lines = scan::lines(self.file.read(buffer)?);
        let heading = lines.next().ok_or_else(|| self.file.malformed("the file is empty"))?;
        let cpus: Vec<String> = Fields::of(heading)
            .map(|cpu| String::from_utf8_lossy(cpu.strip_prefix(b"CPU").unwrap_or(cpu)).into_owned())
            .collect();
        let objects = lines.filter_map(|line| self.kind.object(line, &cpus)).collect();
        self.table.publish(groups, objects);
        Ok(())
    }
}

impl Kind {
    /// The series of one line; lines without a number for each CPU (`ERR`, `MIS`) are left out.
    fn object(&self, line: &[u8], cpus: &[String]) -> Option<Object> {
        let mut fields = Fields::of(line);
        let name = String::from_utf8_lossy(fields.next()?.strip_suffix(b":")?).into_owned();
        let counts: Vec<f64> = fields.by_ref().take(cpus.len()).map_while(scan::number).collect();
        if counts.len() < cpus.len() {
            return None;
        }
        let (metric, labels, zeros) = match self {
            Kind::Soft => ("node_softirqs_functions_total", vec![("type".into(), name.clone())], true),
            Kind::Hard { names, zeros } => {
                let rest: Vec<String> =
                    fields.map(|field| String::from_utf8_lossy(field).into_owned()).collect();
                let (info, devices) = match rest.split_first() {
                    // A number is a line of hardware: its controller, then who uses it.
                    Some((info, devices)) if name.parse::<u64>().is_ok() => (info.clone(), devices.join(" ")),
                    _ => (rest.join(" "), String::new()),
                };
                if !names.keeps(&format!("{name};{info};{devices}")) {
                    return None;
                }
                let labels =
                    vec![("type".into(), name.clone()), ("info".into(), info), ("devices".into(), devices)];
                ("node_interrupts_total", labels, *zeros)
            }
        };
        let key: Vec<&str> = labels.iter().map(|(_, value): &(_, String)| value.as_str()).collect();
        let mut object = Object::new(format!("{metric}/{}", key.join("/")), labels);
        for (cpu, count) in cpus.iter().zip(counts).filter(|(_, count)| zeros || *count != 0.0) {
            object.put(ColumnSpec::plain(metric).with("cpu", cpu.as_str()), count);
        }
        Some(object)
    }
}
