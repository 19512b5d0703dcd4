//! `thermal_zone`: temperatures and the state of cooling devices, from `/sys/class/thermal`.

use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    let folder = options.paths.sys("class/thermal");
    Box::new(ThermalZoneSampler { folder, devices: Objects::default() })
}

struct ThermalZoneSampler {
    folder: PathBuf,
    devices: Objects<Device>,
}

/// Files of a device in column order, with the divisor that makes base units.
struct Device {
    files: Vec<(KernelFile, f64)>,
}

impl Sampler for ThermalZoneSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.devices.begin();
        let mut names: Vec<String> = std::fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        for name in names {
            let folder = &self.folder;
            let device = self.devices.find_or_define(name.as_bytes(), |name| define(groups, folder, name));
            let Some(device) = device else { continue };
            let Some(group) = groups.group(device.group) else { continue };
            for (column, (file, divisor)) in device.state.files.iter_mut().enumerate() {
                // A zone that is switched off has no temperature now; the others have.
                let text = file.read_if_present(buffer).ok().flatten();
                let value = text.and_then(|text| scan::number(scan::trimmed(text)));
                group.put_some(column, value.map(|value| value / *divisor));
            }
        }
        self.devices.finish(groups)
    }
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str) -> Option<Kept<Device>> {
    let folder = folder.join(name);
    let kind = std::fs::read_to_string(folder.join("type")).unwrap_or_default().trim().to_owned();
    let file = |name: &str, divisor: f64| (KernelFile::attribute(folder.join(name)), divisor);
    let (labels, columns, files) = if let Some(zone) = name.strip_prefix("thermal_zone") {
        let labels = vec![("zone".into(), zone.to_owned()), ("type".into(), kind)];
        (labels, vec![ColumnSpec::plain("node_thermal_zone_temp")], vec![file("temp", 1_000.0)])
    } else {
        let device = name.strip_prefix("cooling_device")?;
        let labels = vec![("name".into(), device.to_owned()), ("type".into(), kind)];
        let columns = ["node_cooling_device_cur_state", "node_cooling_device_max_state"];
        let files = vec![file("cur_state", 1.0), file("max_state", 1.0)];
        (labels, columns.map(ColumnSpec::plain).into(), files)
    };
    let group = groups.define(format!("thermal/{name}"), labels, columns);
    Some(Kept { group, state: Device { files } })
}
