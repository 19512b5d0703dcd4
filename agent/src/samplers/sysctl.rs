//! `sysctl`: settings of the kernel that `--collector.sysctl.include` (numbers) and
//! `--collector.sysctl.include-info` (texts) name. Off by default, as in node_exporter.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, Description, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use pharos_proto::catalogue::Kind;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let setting = |text: &String, info: bool| {
        let (name, keys) = text.split_once(':').unwrap_or((text, ""));
        let keys = keys.split(',').filter(|key| !key.is_empty()).map(str::to_owned).collect();
        let path = options.paths.proc("sys").join(name.replace('.', "/"));
        Setting { name: name.to_owned(), keys, info, file: KernelFile::list(path) }
    };
    let numbers = options.sysctls.iter().map(|text| setting(text, false));
    let settings = numbers.chain(options.sysctl_infos.iter().map(|text| setting(text, true)));
    Box::new(SysctlSampler { settings: settings.collect(), table: Table::default() })
}

struct SysctlSampler {
    settings: Vec<Setting>,
    table: Table,
}

struct Setting {
    /// With dots, as in the flag.
    name: String,
    /// Names of the fields, if it has several and they have names.
    keys: Vec<String>,
    info: bool,
    file: KernelFile,
}

impl Sampler for SysctlSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        let mut object = Object::new("sysctl", Vec::new());
        for setting in &mut self.settings {
            let text = setting.file.read(buffer)?;
            let fields: Vec<String> = scan::lines(text)
                .flat_map(Fields::of)
                .map(|field| String::from_utf8_lossy(field).into_owned())
                .collect();
            setting.put(&fields, &mut object).map_err(|what| setting.file.malformed(what))?;
        }
        self.table.publish(groups, vec![object]);
        Ok(())
    }
}

impl Setting {
    fn put(&self, fields: &[String], object: &mut Object) -> Result<(), &'static str> {
        let metric = format!("node_sysctl_{}", self.name.replace(['.', '-', '/'], "_"));
        if self.info {
            for (index, field) in fields.iter().enumerate() {
                let column = ColumnSpec::plain("node_sysctl_info")
                    .with("name", self.name.as_str())
                    .with("value", field.as_str())
                    .with("index", index.to_string());
                object.put(column, 1.0);
            }
            return Ok(());
        }
        if !self.keys.is_empty() && self.keys.len() != fields.len() {
            return Err("it does not have as many fields as the flag has names");
        }
        for (index, field) in fields.iter().enumerate() {
            let value = scan::number(field.as_bytes()).ok_or("this is no number; try include-info")?;
            let (column, help) = match self.keys.get(index) {
                Some(key) => {
                    let column = ColumnSpec::plain(format!("{metric}_{key}"));
                    (column, format!("sysctl {}, field {index}", self.name))
                }
                None if fields.len() == 1 => {
                    (ColumnSpec::plain(metric.clone()), format!("sysctl {}", self.name))
                }
                None => {
                    let column = ColumnSpec::plain(metric.clone()).with("index", index.to_string());
                    (column, format!("sysctl {}", self.name))
                }
            };
            let description = Some(Box::new(Description { kind: Kind::Untyped, help }));
            object.put(ColumnSpec { description, ..column }, value);
        }
        Ok(())
    }
}
