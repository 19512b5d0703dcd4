//! `hwmon`: temperatures, fans, voltages, currents and power of the mainboard's sensors, from
//! `/sys/class/hwmon`. Reading one may take milliseconds on a slow bus.

use super::folder::Folder;
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{COLUMNS_MAX, ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Filter, Sampler, SamplerOptions};
use crate::scan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Kinds of sensors; longer names first, for one is the start of another.
const KINDS: [&str; 14] = [
    "update_interval",
    "beep_enable",
    "intrusion",
    "humidity",
    "energy",
    "power",
    "curr",
    "temp",
    "freq",
    "fan",
    "pwm",
    "vrm",
    "cpu",
    "in",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(HwmonSampler {
        folder: Folder::new(options.paths.sys("class/hwmon")),
        filter: options.hwmon.clone(),
        sensors: options.sensors.clone(),
        chips: Objects::default(),
    })
}

struct HwmonSampler {
    folder: Folder,
    filter: Filter,
    /// Of `CHIP;SENSOR`.
    sensors: Filter,
    chips: Objects<Chip>,
}

/// A chip's files in column order, with the factor that makes base units. Columns without a file are 1.
struct Chip {
    files: Vec<Option<(KernelFile, f64)>>,
}

impl Sampler for HwmonSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.chips.begin();
        let (folder, names) = self.folder.names(|_| true)?;
        for name in names {
            let (filter, sensors) = (&self.filter, &self.sensors);
            let chip = self.chips.find_or_define(name.as_bytes(), |name| {
                let folder = folder.join(name);
                let chip = chip_label(&folder);
                filter.keeps(&chip).then(|| define(groups, &folder, name, chip, sensors))
            });
            let Some(chip) = chip else { continue };
            let Some(group) = groups.group(chip.group) else { continue };
            for (column, source) in chip.state.files.iter_mut().enumerate() {
                match source {
                    None => group.put(column, 1.0),
                    // A sensor that does not answer now is absent; its neighbours are not.
                    Some((file, factor)) => {
                        let text = file.read_if_present(buffer).ok().flatten();
                        let value = text.and_then(|text| scan::number(scan::trimmed(text)));
                        group.put_some(column, value.map(|value| value * *factor));
                    }
                }
            }
        }
        self.chips.finish(groups)?;
        self.folder.missing("no sensors")
    }
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str, chip: String, wanted: &Filter) -> Kept<Chip> {
    let (mut columns, mut files) = (Vec::new(), Vec::new());
    if let Ok(chip_name) = std::fs::read_to_string(folder.join("name")) {
        columns.push(ColumnSpec::plain("node_hwmon_chip_names").with("chip_name", clean(chip_name.trim())));
        files.push(None);
    }
    // Old drivers keep the files with the device.
    let mut sensors = sensors_of(&folder.join("device"));
    for (sensor, properties) in sensors_of(folder) {
        sensors.entry(sensor).or_default().extend(properties);
    }
    for (sensor, properties) in sensors {
        let Some(kind) = KINDS.iter().find(|kind| sensor.starts_with(**kind)) else { continue };
        if !wanted.keeps(&format!("{chip};{sensor}")) {
            continue;
        }
        for (property, path) in &properties {
            if property == "label" {
                let label = std::fs::read_to_string(path).unwrap_or_default();
                let column = ColumnSpec::plain("node_hwmon_sensor_label").with("label", label.trim());
                columns.push(column.with("sensor", sensor.as_str()));
                files.push(None);
                continue;
            }
            let has_bare = properties.contains_key("");
            let (metric, factor) = metric(kind, property, has_bare);
            columns.push(ColumnSpec::plain(metric).with("sensor", sensor.as_str()));
            files.push(Some((KernelFile::whole(path), factor)));
        }
    }
    files.truncate(COLUMNS_MAX);
    let group = groups.define(format!("hwmon/{name}/{chip}"), vec![("chip".into(), chip)], columns);
    Kept { group, state: Chip { files } }
}

/// Sensors of a folder (`temp1`), each with its properties (`input`) and their files.
fn sensors_of(folder: &Path) -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let mut sensors: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
        let file_name = entry.file_name();
        if let Some((sensor, property)) = file_name.to_str().and_then(split_name) {
            sensors.entry(sensor).or_default().insert(property, entry.path());
        }
    }
    sensors
}

/// `temp1_crit_alarm` is the property `crit_alarm` of `temp1`; `pwm1` is that of no name of `pwm1`.
fn split_name(file: &str) -> Option<(String, String)> {
    let kind = KINDS.iter().find(|kind| {
        let rest = file.strip_prefix(**kind);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit() || c == '_'))
    })?;
    let rest = &file[kind.len()..];
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, property) = rest.split_at(digits);
    let property = match property {
        "" => "",
        property => property.strip_prefix('_')?,
    };
    // Sensors are numbered from 0 in node_exporter too, where the kernel writes no number.
    let number = if number.is_empty() { "0" } else { number };
    Some((format!("{kind}{number}"), property.to_owned()))
}

/// The metric of a property, and the factor to its base unit.
fn metric(kind: &str, property: &str, has_bare: bool) -> (String, f64) {
    match kind {
        "beep_enable" => return ("node_hwmon_beep_enabled".to_owned(), 1.0),
        "vrm" => return ("node_hwmon_voltage_regulator_version".to_owned(), 1.0),
        "update_interval" => return ("node_hwmon_update_interval_seconds".to_owned(), 0.001),
        _ => {}
    }
    let mut name = format!("node_hwmon_{kind}");
    match property {
        "input" if has_bare => name.push_str("_input"),
        "input" | "" => {}
        property => {
            name.push('_');
            name.push_str(&clean(property));
        }
    }
    let (suffix, factor) = match (kind, property) {
        (_, "fault" | "alarm") => ("", 1.0),
        (_, "beep") => ("_enabled", 1.0),
        ("energy", "input") => ("_joule_total", 1e-6),
        ("temp", property) if property != "type" => ("_celsius", 0.001),
        ("in" | "cpu", _) => ("_volts", 0.001),
        ("curr", _) => ("_amps", 0.001),
        ("power", "accuracy") => ("", 1e-6),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => {
            ("_seconds", 0.001)
        }
        ("power", _) => ("_watt", 1e-6),
        ("humidity", _) => ("", 1e-6),
        ("fan", "input" | "min" | "max" | "target") => ("_rpm", 1.0),
        ("freq", "input") => ("_freq_mhz", 1e-6),
        _ => ("", 1.0),
    };
    name.push_str(suffix);
    (name, factor)
}

/// Where the chip sits (`platform_coretemp_0`), or what it is called, or its folder's name.
fn chip_label(folder: &Path) -> String {
    if let Ok(device) = std::fs::canonicalize(folder.join("device")) {
        let part = |path: Option<&Path>| {
            path.and_then(Path::file_name).map(|name| clean(&name.to_string_lossy())).unwrap_or_default()
        };
        let (bus, device) = (part(device.parent()), part(Some(&device)));
        match (bus.is_empty(), device.is_empty()) {
            (false, false) => return format!("{bus}_{device}"),
            (true, false) => return device,
            _ => {}
        }
    }
    if let Ok(name) = std::fs::read_to_string(folder.join("name"))
        && !name.trim().is_empty()
    {
        return clean(name.trim());
    }
    folder.file_name().map(|name| clean(&name.to_string_lossy())).unwrap_or_default()
}

/// Lower case, and underscores for everything that metric names cannot have.
fn clean(text: &str) -> String {
    let text = text.to_lowercase();
    let letters =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || c == ':' || c == '_' { c } else { '_' });
    letters.collect::<String>().trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_metrics_in_base_units() {
        #[track_caller]
        fn check(file: &str, sensor: &str, want: &str, factor: f64) {
            let (found, property) = split_name(file).unwrap();
            let kind = KINDS.iter().find(|kind| file.starts_with(**kind)).unwrap();
            assert_eq!((found.as_str(), metric(kind, &property, false)), (sensor, (want.to_owned(), factor)));
        }
        check("temp1_input", "temp1", "node_hwmon_temp_celsius", 0.001);
        check("temp2_crit_alarm", "temp2", "node_hwmon_temp_crit_alarm_celsius", 0.001);
        check("fan1_input", "fan1", "node_hwmon_fan_rpm", 1.0);
        check("fan1_alarm", "fan1", "node_hwmon_fan_alarm", 1.0);
        check("in0_max", "in0", "node_hwmon_in_max_volts", 0.001);
        check("intrusion0_alarm", "intrusion0", "node_hwmon_intrusion_alarm", 1.0);
        check("pwm1", "pwm1", "node_hwmon_pwm", 1.0);
        check("power1_average", "power1", "node_hwmon_power_average_watt", 1e-6);
        check("in1_beep", "in1", "node_hwmon_in_beep_enabled", 1.0);
        for other in ["name", "uevent", "device", "infinite", "temperature"] {
            assert_eq!(split_name(other), None, "{other}");
        }
    }
}
