//! `cpu`: seconds each CPU spent in each mode, from `/proc/stat`.

use super::cpu_features::CpuFeatures;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer, SharedFile};
use crate::sampler::{Paths, Sampler, SamplerOptions};
use crate::scan::{self, Fields};

/// Order of the fields of a `cpuN` line.
const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const IDLE: usize = 3;
/// The kernel counts in hundredths of a second (`USER_HZ`) on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// An idle counter that falls by more than this tells of a CPU that was unplugged and came back.
const HOTPLUG_SECONDS: f64 = 3.0;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(CpuSampler {
        file: options.stat.clone(),
        guest: options.cpu_guest,
        info: options.cpu_info,
        features: CpuFeatures::new(options),
        paths: options.paths.clone(),
        cpus: Objects::default(),
        extras: None,
    })
}

struct CpuSampler {
    file: SharedFile,
    guest: bool,
    info: bool,
    features: CpuFeatures,
    paths: Paths,
    cpus: Objects<Highest>,
    extras: Option<Extras>,
}

/// Highest values seen: counters of the kernel may step back a little, ours must not.
#[derive(Debug, Default)]
struct Highest([f64; MODES.len() + 2]);

/// What is read once: which CPUs are isolated, and (opt-in) what they are.
struct Extras {
    constant: Vec<GroupHandle>,
    throttles: Vec<Throttle>,
}

struct Throttle {
    file: KernelFile,
    group: GroupHandle,
}

impl Sampler for CpuSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.cpus.begin();
        let (cpus, guest) = (&mut self.cpus, self.guest);
        self.file.read(|text, file| read_cpus(text, file, guest, cpus, groups))?;
        self.cpus.finish(groups)?;
        if self.extras.is_none() {
            self.extras = Some(self.find_extras(groups));
        }
        if let Some(extras) = &mut self.extras {
            for &handle in &extras.constant {
                if let Some(group) = groups.group(handle) {
                    (0..group.columns().len()).for_each(|column| group.put(column, 1.0));
                }
            }
            for throttle in &mut extras.throttles {
                let text = throttle.file.read_if_present(buffer)?;
                let value = text.and_then(|text| scan::number(scan::trimmed(text)));
                if let Some(group) = groups.group(throttle.group) {
                    group.put_some(0, value);
                }
            }
        }
        Ok(())
    }
}

/// The seconds of each CPU.
fn read_cpus(
    text: &[u8],
    file: &KernelFile,
    guest: bool,
    cpus: &mut Objects<Highest>,
    groups: &mut GroupSet,
) -> Result<(), SampleError> {
    for line in scan::lines(text) {
        let Some(rest) = line.strip_prefix(b"cpu") else { break };
        let mut fields = Fields::of(rest);
        // The first line sums up all CPUs.
        if rest.first() == Some(&b' ') {
            continue;
        }
        let malformed = || file.malformed("a cpu line lacks fields");
        let number = fields.next().ok_or_else(malformed)?;
        let Some(cpu) = cpus.find_or_define(number, |cpu| Some(define(groups, cpu, guest))) else {
            continue;
        };
        let Some(group) = groups.group(cpu.group) else { continue };
        let mut seconds = [0.0; MODES.len() + 2];
        for (at, place) in seconds.iter_mut().enumerate() {
            // Kernels before 2.6.33 have no guest fields.
            let ticks =
                if at < MODES.len() { Some(fields.number().ok_or_else(malformed)?) } else { fields.number() };
            *place = ticks.unwrap_or(0.0) / TICKS_PER_SECOND;
        }
        let highest = &mut cpu.state.0;
        if highest[IDLE] - seconds[IDLE] >= HOTPLUG_SECONDS {
            *highest = seconds;
        }
        for (column, (high, now)) in highest.iter_mut().zip(seconds).enumerate() {
            *high = high.max(now);
            group.put(column, *high);
        }
    }
    Ok(())
}

fn define(groups: &mut GroupSet, cpu: &str, guest: bool) -> Kept<Highest> {
    let mut columns: Vec<ColumnSpec> =
        MODES.iter().map(|mode| ColumnSpec::plain("node_cpu_seconds_total").with("mode", *mode)).collect();
    if guest {
        columns.extend(
            ["user", "nice"].map(|mode| ColumnSpec::plain("node_cpu_guest_seconds_total").with("mode", mode)),
        );
    }
    let labels = vec![("cpu".into(), cpu.to_owned())];
    Kept { group: groups.define(format!("cpu/{cpu}"), labels, columns), state: Highest::default() }
}

impl CpuSampler {
    fn find_extras(&self, groups: &mut GroupSet) -> Extras {
        let mut constant = Vec::new();
        let isolated = std::fs::read_to_string(self.paths.sys("devices/system/cpu/isolated"));
        let columns: Vec<ColumnSpec> = cpu_list(isolated.unwrap_or_default().trim())
            .map(|cpu| ColumnSpec::plain("node_cpu_isolated").with("cpu", cpu.to_string()))
            .collect();
        if !columns.is_empty() {
            constant.push(groups.define("cpu_isolated", Vec::new(), columns));
        }
        if self.info {
            constant.extend(self.define_info(groups));
            constant.extend(self.features.define(groups));
        }
        Extras { constant, throttles: self.find_throttles(groups) }
    }

    fn define_info(&self, groups: &mut GroupSet) -> Vec<GroupHandle> {
        use procfs::FromBufRead as _;
        let Ok(file) = std::fs::File::open(self.paths.proc("cpuinfo")) else { return Vec::new() };
        let Ok(info) = procfs::CpuInfo::from_buf_read(std::io::BufReader::new(file)) else {
            return Vec::new();
        };
        (0..info.num_cores())
            .map(|cpu| {
                let field = |name: &str| info.get_field(cpu, name).unwrap_or_default().to_owned();
                let column = ColumnSpec::plain("node_cpu_info")
                    .with("package", field("physical id"))
                    .with("core", field("core id"))
                    .with("cpu", field("processor"))
                    .with("vendor", field("vendor_id"))
                    .with("family", field("cpu family"))
                    .with("model", field("model"))
                    .with("model_name", field("model name"))
                    .with("microcode", field("microcode"))
                    .with("stepping", field("stepping"))
                    .with("cachesize", field("cache size"));
                groups.define(format!("cpu_info/{cpu}"), Vec::new(), vec![column])
            })
            .collect()
    }

    /// One counter a core and one a package: the siblings of a core share theirs.
    fn find_throttles(&self, groups: &mut GroupSet) -> Vec<Throttle> {
        let folder = self.paths.sys("devices/system/cpu");
        let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
        let mut cpus: Vec<u32> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("cpu")?.parse().ok())
            .collect();
        cpus.sort_unstable();
        let (mut cores, mut packages, mut throttles) = (Vec::new(), Vec::new(), Vec::new());
        for cpu in cpus {
            let cpu = folder.join(format!("cpu{cpu}"));
            let read = |name: &str| -> Option<u64> {
                std::fs::read_to_string(cpu.join(name)).ok()?.trim().parse().ok()
            };
            let Some(package) = read("topology/physical_package_id") else { continue };
            let Some(core) = read("topology/core_id") else { continue };
            let mut add = |file: &str, key: String, column: ColumnSpec| {
                let path = cpu.join(file);
                if path.exists() {
                    let group = groups.define(key, Vec::new(), vec![column]);
                    throttles.push(Throttle { file: KernelFile::whole(path), group });
                }
            };
            if !cores.contains(&(package, core)) {
                cores.push((package, core));
                let column = ColumnSpec::plain("node_cpu_core_throttles_total")
                    .with("package", package.to_string())
                    .with("core", core.to_string());
                add("thermal_throttle/core_throttle_count", format!("cpu_core/{package}/{core}"), column);
            }
            if !packages.contains(&package) {
                packages.push(package);
                let column = ColumnSpec::plain("node_cpu_package_throttles_total")
                    .with("package", package.to_string());
                add("thermal_throttle/package_throttle_count", format!("cpu_package/{package}"), column);
            }
        }
        throttles
    }
}

/// The CPUs of a list such as `0-3,8`.
fn cpu_list(text: &str) -> impl Iterator<Item = u32> {
    text.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(1 << 16))
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cpu_lists_are_ranges_and_single_numbers() {
        assert_eq!(super::cpu_list("0-2,8").collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert_eq!(super::cpu_list("").count(), 0);
        assert_eq!(super::cpu_list("x-1,4294967296").count(), 0);
    }
}
