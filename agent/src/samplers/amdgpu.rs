//! `amdgpu`: AMD's GPUs from what their driver shows in `/sys/class/drm`.
//!
//! Utilisation, memory, power, temperatures, clocks, errors that RAS counted, and the XGMI hive. No library is
//! needed, and reading a file of `/sys` cannot hang longer than the driver's own lock, so this is a sampler
//! with a thread of its own and nothing more.

use super::folder::Folder;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// AMD's number on the PCI bus.
const AMD: &str = "0x1002";
/// Parts of a GPU that RAS watches; more are left out.
const RAS_BLOCKS_MAX: usize = 32;
/// Sensors of one kind on one GPU.
const SENSORS_MAX: usize = 8;

/// What a file's text means.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// One number, divided.
    Number(f64),
    /// Lines `0: 500Mhz *`; the one with the star counts.
    ActiveClock,
    /// Lines `ue: 1` and `ce: 2`.
    Errors,
}

/// Files of a GPU's folder that hold one number.
const FILES: [(&str, &str, Form); 10] = [
    ("gpu_busy_percent", "pharos_amdgpu_busy_percent", Form::Number(1.0)),
    ("mem_busy_percent", "pharos_amdgpu_memory_busy_percent", Form::Number(1.0)),
    ("mem_info_vram_used", "pharos_amdgpu_vram_used_bytes", Form::Number(1.0)),
    ("mem_info_vram_total", "pharos_amdgpu_vram_total_bytes", Form::Number(1.0)),
    ("mem_info_vis_vram_used", "pharos_amdgpu_visible_vram_used_bytes", Form::Number(1.0)),
    ("mem_info_gtt_used", "pharos_amdgpu_gtt_used_bytes", Form::Number(1.0)),
    ("pcie_replay_count", "pharos_amdgpu_pcie_replays_total", Form::Number(1.0)),
    ("pp_dpm_sclk", "pharos_amdgpu_core_clock_hertz", Form::ActiveClock),
    ("pp_dpm_mclk", "pharos_amdgpu_memory_clock_hertz", Form::ActiveClock),
    ("xgmi_error", "pharos_amdgpu_xgmi_error", Form::Number(1.0)),
];

/// Sensors of the GPU's hwmon, by the beginning of their file, and what they measure.
const SENSORS: [(&str, &str, f64); 4] = [
    ("power", "pharos_amdgpu_power_watts", 1e6),
    ("temp", "pharos_amdgpu_temperature_celsius", 1e3),
    ("fan", "pharos_amdgpu_fan_rpm", 1.0),
    ("in", "pharos_amdgpu_voltage_volts", 1e3),
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(AmdGpuSampler { folder: Folder::new(options.paths.sys("class/drm")), gpus: Objects::default() })
}

struct AmdGpuSampler {
    folder: Folder,
    gpus: Objects<Gpu>,
}

/// Files of one GPU, in the order of their columns.
struct Gpu {
    files: Vec<(KernelFile, Form)>,
}

impl Sampler for AmdGpuSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.gpus.begin();
        let (folder, names) = self.folder.names(|entry| is_card(&entry.file_name().to_string_lossy()))?;
        for name in names {
            let gpu = self.gpus.find_or_define(name.as_bytes(), |name| define(groups, folder, name));
            let Some(gpu) = gpu else { continue };
            let Some(group) = groups.group(gpu.group) else { continue };
            let mut column = 0;
            for (file, form) in &mut gpu.state.files {
                // A GPU that sleeps has no temperature, and the others have.
                let text = file.read_if_present(buffer).ok().flatten();
                match form {
                    Form::Number(divisor) => {
                        let value = text.and_then(|text| scan::number(scan::trimmed(text)));
                        group.put_some(column, value.map(|value| value / *divisor));
                    }
                    Form::ActiveClock => group.put_some(column, text.and_then(active_clock)),
                    Form::Errors => {
                        group.put_some(column, text.and_then(|text| errors(text, b"ue")));
                        group.put_some(column + 1, text.and_then(|text| errors(text, b"ce")));
                        column += 1;
                    }
                }
                column += 1;
            }
        }
        self.gpus.finish(groups)
    }
}

/// `card0`, and not its connectors `card0-DP-1`.
fn is_card(name: &str) -> bool {
    name.strip_prefix("card")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str) -> Option<Kept<Gpu>> {
    let device = folder.join(name).join("device");
    let read = |file: &str| std::fs::read_to_string(device.join(file)).unwrap_or_default().trim().to_owned();
    if read("vendor") != AMD {
        return None;
    }
    let mut columns = Vec::new();
    let mut files = Vec::new();
    let mut add = |path: PathBuf, metric: &'static str, label: Option<(&'static str, String)>, form: Form| {
        let column = |metric: &'static str| match &label {
            Some((name, value)) => ColumnSpec::plain(metric).with(*name, value.clone()),
            None => ColumnSpec::plain(metric),
        };
        if let Form::Errors = form {
            columns.push(column("pharos_amdgpu_ras_uncorrectable_errors_total"));
            columns.push(column("pharos_amdgpu_ras_correctable_errors_total"));
        } else {
            columns.push(column(metric));
        }
        files.push((KernelFile::whole(path), form));
    };
    for (file, metric, form) in FILES {
        add(device.join(file), metric, None, form);
    }
    for (path, sensor) in hwmon_inputs(&device) {
        let kind =
            SENSORS.iter().find(|(kind, ..)| sensor.trim_end_matches(|c: char| c.is_ascii_digit()) == *kind);
        let Some((_, metric, divisor)) = kind else { continue };
        let label_file = path.with_file_name(format!("{sensor}_label"));
        let label = std::fs::read_to_string(label_file)
            .map_or_else(|_| sensor.clone(), |text| text.trim().to_owned());
        add(path, metric, Some(("sensor", label)), Form::Number(*divisor));
    }
    for block in names(&device.join("ras"))
        .into_iter()
        .filter(|name| name.ends_with("_err_count"))
        .take(RAS_BLOCKS_MAX)
    {
        let label = block.trim_end_matches("_err_count").to_owned();
        add(device.join("ras").join(&block), "", Some(("block", label)), Form::Errors);
    }
    // The folder `device` is a link to the place on the bus.
    let place = std::fs::canonicalize(&device)
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut labels = vec![("gpu".into(), name.trim_start_matches("card").to_owned())];
    labels.push(("pci_bus_id".into(), place.unwrap_or_default()));
    for (label, file) in
        [("UUID", "unique_id"), ("modelName", "product_name"), ("xgmi_hive", "xgmi_hive_info/xgmi_hive_id")]
    {
        let value = read(file);
        if !value.is_empty() {
            labels.push((label.into(), value));
        }
    }
    let group = groups.define(format!("amdgpu/{name}"), labels, columns);
    Some(Kept { group, state: Gpu { files } })
}

/// Files of the GPU's sensors that hold a value, with the sensor's name (`temp1`).
fn hwmon_inputs(device: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for chip in names(&device.join("hwmon")) {
        let folder = device.join("hwmon").join(chip);
        for file in names(&folder) {
            let sensor = file.strip_suffix("_input").or_else(|| file.strip_suffix("_average"));
            if let Some(sensor) = sensor
                && found.len() < SENSORS.len() * SENSORS_MAX
                && !found.iter().any(|(_, known)| known == sensor)
            {
                found.push((folder.join(&file), sensor.to_owned()));
            }
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.take(4_096).collect();
    names.sort_unstable();
    names
}

/// The frequency on the line with the star, hertz.
fn active_clock(text: &[u8]) -> Option<f64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.find(|line| scan::trimmed(line).ends_with(b"*"))?;
    let line = &line[line.iter().position(|byte| *byte == b':')? + 1..];
    let digits: &[u8] = scan::trimmed(line);
    let end = digits.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let unit = &digits[end..];
    let factor = if unit.starts_with(b"Mhz") || unit.starts_with(b"MHz") { 1e6 } else { return None };
    scan::number(&digits[..end]).map(|value| value * factor)
}

/// The number behind `ue:` or `ce:`.
fn errors(text: &[u8], kind: &[u8]) -> Option<f64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let number = lines.find_map(|line| line.strip_prefix(kind)?.strip_prefix(b":"))?;
    scan::number(scan::trimmed(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_errors_are_read_as_the_driver_writes_them() {
        assert_eq!(active_clock(b"0: 132Mhz\n1: 2100Mhz *\n"), Some(2.1e9));
        assert_eq!(active_clock(b"0: 132Mhz\n"), None);
        assert_eq!(errors(b"ue: 1\nce: 22\n", b"ce"), Some(22.0));
        assert_eq!(errors(b"ue: 1\n", b"ce"), None);
        assert!(is_card("card0") && !is_card("card0-DP-1") && !is_card("renderD128") && !is_card("card"));
    }

    #[test]
    fn a_gpu_shows_what_its_driver_shows_and_another_vendors_is_left_alone() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sysfs.path().join("class/drm").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("card0/device/vendor", "0x10de\n");
        write("card1/device/vendor", "0x1002\n");
        write("card1/device/unique_id", "abc\n");
        write("card1/device/gpu_busy_percent", "97\n");
        write("card1/device/mem_info_vram_used", "1000\n");
        write("card1/device/pp_dpm_sclk", "0: 132Mhz\n1: 2100Mhz *\n");
        write("card1/device/hwmon/hwmon3/power1_average", "250000000\n");
        write("card1/device/hwmon/hwmon3/temp2_input", "65000\n");
        write("card1/device/hwmon/hwmon3/temp2_label", "junction\n");
        write("card1/device/ras/umc_err_count", "ue: 1\nce: 2\n");
        let paths = crate::sampler::Paths { sysfs: sysfs.path().into(), ..Default::default() };
        let folder = Folder::new(paths.sys("class/drm"));
        let mut sampler = AmdGpuSampler { folder, gpus: Objects::default() };
        let mut groups = GroupSet::default();
        groups.begin();
        sampler.sample(&mut ReadBuffer::default(), &mut groups).unwrap();
        let found: Vec<&crate::group::Group> = groups.iter().collect();
        assert_eq!(found.len(), 1);
        let mut lines: Vec<String> = (0..found[0].columns().len())
            .filter(|at| found[0].present().contains(*at))
            .map(|at| {
                let column = &found[0].columns()[at];
                let labels: Vec<&str> = column.labels.iter().map(|(_, value)| value.as_str()).collect();
                format!(
                    "{}{labels:?} {}",
                    column.name.trim_start_matches("pharos_amdgpu_"),
                    found[0].values()[at]
                )
            })
            .collect();
        lines.sort();
        let want = [
            r#"busy_percent[] 97"#,
            r#"core_clock_hertz[] 2100000000"#,
            r#"power_watts["power1"] 250"#,
            r#"ras_correctable_errors_total["umc"] 2"#,
            r#"ras_uncorrectable_errors_total["umc"] 1"#,
            r#"temperature_celsius["junction"] 65"#,
            r#"vram_used_bytes[] 1000"#,
        ];
        assert_eq!(lines, want);
        assert!(found[0].labels().contains(&("UUID".into(), "abc".to_owned())));
    }
}
