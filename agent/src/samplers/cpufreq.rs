//! `cpufreq`: how fast each CPU runs and may run, from `/sys/devices/system/cpu/*/cpufreq`.

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// Readings after which the folder is looked at again for CPUs that came or went.
const READINGS_BETWEEN_LOOKS: u32 = 60;
const FILES: [(&str, &str); 6] = [
    ("cpuinfo_cur_freq", "node_cpu_frequency_hertz"),
    ("cpuinfo_min_freq", "node_cpu_frequency_min_hertz"),
    ("cpuinfo_max_freq", "node_cpu_frequency_max_hertz"),
    ("scaling_cur_freq", "node_cpu_scaling_frequency_hertz"),
    ("scaling_min_freq", "node_cpu_scaling_frequency_min_hertz"),
    ("scaling_max_freq", "node_cpu_scaling_frequency_max_hertz"),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("devices/system/cpu");
    Box::new(CpufreqSampler { folder, cpus: Vec::new(), countdown: 0 })
}

struct CpufreqSampler {
    folder: PathBuf,
    cpus: Vec<Cpu>,
    countdown: u32,
}

struct Cpu {
    number: u32,
    group: GroupHandle,
    files: [KernelFile; FILES.len()],
    /// Governor in force (1) and others offered (0), in column order.
    governors: Vec<f64>,
}

impl Sampler for CpufreqSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.countdown == 0 {
            self.countdown = READINGS_BETWEEN_LOOKS;
            self.look(groups);
        }
        self.countdown -= 1;
        for cpu in &mut self.cpus {
            let Some(group) = groups.group(cpu.group) else { continue };
            for (column, file) in cpu.files.iter_mut().enumerate() {
                // Only root may read some of them; the others are worth having alone.
                let text = file.read_if_present(buffer).ok().flatten();
                let kilohertz = text.and_then(|text| scan::number(scan::trimmed(text)));
                group.put_some(column, kilohertz.map(|value| value * 1_000.0));
            }
            for (at, value) in cpu.governors.iter().enumerate() {
                group.put(FILES.len() + at, *value);
            }
        }
        Ok(())
    }
}

impl CpufreqSampler {
    fn look(&mut self, groups: &mut GroupSet) {
        let mut numbers: Vec<u32> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
            .filter(|number| self.folder.join(format!("cpu{number}/cpufreq")).is_dir())
            .collect();
        numbers.sort_unstable();
        self.cpus.retain(|cpu| {
            let stays = numbers.contains(&cpu.number);
            if !stays {
                groups.end(cpu.group);
            }
            stays
        });
        for number in numbers {
            let folder = self.folder.join(format!("cpu{number}/cpufreq"));
            let (columns, governors) = columns_of(&folder);
            match self.cpus.iter_mut().find(|cpu| cpu.number == number) {
                Some(cpu) => {
                    groups.redefine(cpu.group, columns);
                    cpu.governors = governors;
                }
                None => {
                    let labels = vec![("cpu".into(), number.to_string())];
                    let group = groups.define(format!("cpufreq/{number}"), labels, columns);
                    let files = FILES.map(|(name, _)| KernelFile::attribute(folder.join(name)));
                    self.cpus.push(Cpu { number, group, files, governors });
                }
            }
        }
    }
}

fn columns_of(folder: &Path) -> (Vec<ColumnSpec>, Vec<f64>) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let current = read("scaling_governor");
    let offered = read("scaling_available_governors");
    let mut columns: Vec<ColumnSpec> = FILES.iter().map(|(_, name)| ColumnSpec::plain(*name)).collect();
    let mut values = Vec::new();
    for governor in offered.split_whitespace() {
        columns.push(ColumnSpec::plain("node_cpu_scaling_governor").with("governor", governor));
        values.push(f64::from(u8::from(governor == current.trim())));
    }
    (columns, values)
}
