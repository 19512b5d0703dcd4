//! `nvme`: the health of NVMe drives as far as `/sys` tells it without asking the drive.
//!
//! State of the controller, its temperature, how it negotiated PCIe, errors that PCIe counted (AER), and
//! identity as node_exporter's `node_nvme_info`; size and use of its name spaces. The drive's own log (wear, spare blocks) needs an ioctl as
//! root and is not read here.

use super::folder::Folder;
use super::inventory::{Found, Inventory, decimal, names, text};
use super::objects::{Kept, Objects};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Sampler, SamplerOptions};
use crate::scan;
use std::path::{Path, PathBuf};

/// Columns of a drive.
const COLUMNS: [&str; 8] = [
    "pharos_nvme_live",
    "pharos_nvme_temperature_celsius",
    "pharos_nvme_temperature_critical_celsius",
    "pharos_nvme_pcie_correctable_errors_total",
    "pharos_nvme_pcie_nonfatal_errors_total",
    "pharos_nvme_pcie_fatal_errors_total",
    "pharos_nvme_pcie_width",
    "pharos_nvme_pcie_width_max",
];

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(NvmeSampler::new(options.paths.sys("class/nvme")))
}

struct NvmeSampler {
    path: PathBuf,
    folder: Folder,
    drives: Objects<Drive>,
    name_spaces: Inventory,
}

impl NvmeSampler {
    fn new(path: PathBuf) -> Self {
        let (folder, name_spaces) = (Folder::new(path.clone()), Inventory::default());
        NvmeSampler { path, folder, drives: Objects::default(), name_spaces }
    }
}

/// Files of a drive in the order of [`COLUMNS`], the temperature's if it has one.
struct Drive {
    folder: PathBuf,
    shown_state: Vec<u8>,
    state: KernelFile,
    temperatures: Option<[KernelFile; 2]>,
    errors: [KernelFile; 3],
    widths: [KernelFile; 2],
}

impl Sampler for NvmeSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        // Where there is none, looking for more costs as much as looking for drives.
        if self.folder.look_is_due() && self.name_spaces.is_due() {
            self.name_spaces.update(find_name_spaces(&self.path), groups);
        }
        self.name_spaces.read(buffer, groups);
        self.drives.begin();
        let (folder, names) = self.folder.names(|_| true)?;
        for name in names {
            let drive =
                self.drives.find_or_define(name.as_bytes(), |name| Some(define(groups, folder, name)));
            let Some(drive) = drive else { continue };
            let Drive { folder, shown_state, state, temperatures, errors, widths } = &mut drive.state;
            let text = state.read_if_present(buffer).ok().flatten().map(scan::trimmed);
            let live = text.map(|text| text == b"live");
            if let Some(text) = text.filter(|text| text != shown_state) {
                shown_state.clear();
                shown_state.extend_from_slice(text);
                groups.redefine(drive.group, columns(folder, &String::from_utf8_lossy(shown_state)));
            }
            let Some(group) = groups.group(drive.group) else { continue };
            group.put_some(0, live.map(|live| f64::from(u8::from(live))));
            for (at, file) in temperatures.iter_mut().flatten().enumerate() {
                let text = file.read_if_present(buffer).ok().flatten();
                let millidegrees = text.and_then(|text| scan::number(scan::trimmed(text)));
                group.put_some(1 + at, millidegrees.map(|value| value / 1_000.0));
            }
            for (at, file) in errors.iter_mut().enumerate() {
                let text = file.read_if_present(buffer).ok().flatten();
                group.put_some(3 + at, text.and_then(total_of_errors));
            }
            for (at, file) in widths.iter_mut().enumerate() {
                let text = file.read_if_present(buffer).ok().flatten();
                group.put_some(6 + at, text.and_then(|text| scan::number(scan::trimmed(text))));
            }
            group.put(COLUMNS.len(), 1.0);
        }
        self.drives.finish(groups)?;
        self.folder.missing("no NVMe drive")
    }
}

/// The name spaces of all drives, each a folder of its drive: `nvme0n1`, or `nvme0c0n1` where several paths may
/// lead to it.
fn find_name_spaces(folder: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    for drive in names(folder) {
        let controller = folder.join(&drive);
        for name in names(&controller) {
            let Some(id) = name.strip_prefix(drive.as_str()).and_then(id_of_name_space) else { continue };
            let space = controller.join(&name);
            let labels = vec![("device".into(), drive.clone()), ("nsid".into(), id.to_owned())];
            let mut object = Found::new(format!("nvme/{drive}/{name}"), labels);
            let state = Some(text(&space.join("ana_state"))).filter(|state| !state.is_empty());
            let state = state.unwrap_or_else(|| "unknown".to_owned());
            object.info(ColumnSpec::plain("node_nvme_namespace_info").with("ana_state", state));
            let block_size = space.join("queue/logical_block_size");
            // Sizes are node_exporter's: all counts times the block's size.
            if let Some(bytes) = decimal(text(&block_size).as_bytes()) {
                object.scaled(plain("node_nvme_namespace_capacity_bytes"), space.join("size"), bytes);
                object.scaled(plain("node_nvme_namespace_size_bytes"), space.join("size"), bytes);
                object.scaled(plain("node_nvme_namespace_used_bytes"), space.join("nuse"), bytes);
            }
            object.number("node_nvme_namespace_logical_block_size_bytes", block_size);
            found.push(object);
        }
    }
    found
}

fn plain(name: &'static str) -> ColumnSpec {
    ColumnSpec::plain(name)
}

/// `1` of `n1` and of `c0n1`; partitions and everything else have none.
fn id_of_name_space(name: &str) -> Option<&str> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (path, id) = name.split_once('n')?;
    let path_is_none = path.is_empty() || path.strip_prefix('c').is_some_and(digits);
    (path_is_none && digits(id)).then_some(id)
}

fn columns(controller: &Path, state: &str) -> Vec<ColumnSpec> {
    let read =
        |file: &str| std::fs::read_to_string(controller.join(file)).unwrap_or_default().trim().to_owned();
    let mut columns: Vec<ColumnSpec> = COLUMNS.into_iter().map(ColumnSpec::plain).collect();
    columns.push(
        ColumnSpec::plain("node_nvme_info")
            .with("cntlid", read("cntlid"))
            .with("firmware_revision", read("firmware_rev"))
            .with("model", read("model"))
            .with("serial", read("serial"))
            .with("state", state),
    );
    columns
}

fn define(groups: &mut GroupSet, folder: &Path, name: &str) -> Kept<Drive> {
    let controller = folder.join(name);
    let file = |path: &str| KernelFile::whole(controller.join(path));
    let temperatures = hwmon(&controller)
        .map(|folder| ["temp1_input", "temp1_crit"].map(|name| KernelFile::whole(folder.join(name))));
    let errors = ["correctable", "nonfatal", "fatal"].map(|kind| file(&format!("device/aer_dev_{kind}")));
    let widths = ["current_link_width", "max_link_width"].map(|name| file(&format!("device/{name}")));
    let labels = vec![("device".into(), name.to_owned())];
    let group = groups.define(format!("nvme/{name}"), labels, columns(&controller, ""));
    let state = file("state");
    let shown_state = Vec::new();
    Kept { group, state: Drive { folder: controller, shown_state, state, temperatures, errors, widths } }
}

/// The drive's sensors lie in `hwmonN` of the controller, or one folder deeper in older kernels.
fn hwmon(controller: &Path) -> Option<PathBuf> {
    let candidates = [controller.to_owned(), controller.join("hwmon"), controller.join("device/hwmon")];
    candidates.into_iter().find_map(|folder| {
        let mut entries = std::fs::read_dir(folder).ok()?.flatten();
        let entry = entries.find(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix("hwmon").is_some_and(|number| !number.is_empty())
        });
        entry.map(|entry| entry.path())
    })
}

/// The last line of an AER file, `TOTAL_ERR_COR 12`.
fn total_of_errors(text: &[u8]) -> Option<f64> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.starts_with(b"TOTAL_ERR"))?;
    let number = line.split(|byte| *byte == b' ').next_back()?;
    scan::number(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_shows_its_state_heat_and_bus_errors() {
        let sysfs = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = sysfs.path().join("class/nvme/nvme0").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("state", "live\n");
        write("model", "Fast Drive\n");
        write("hwmon2/temp1_input", "41850\n");
        write("hwmon2/temp1_crit", "84850\n");
        write("device/aer_dev_correctable", "RxErr 3\nBadTLP 0\nTOTAL_ERR_COR 3\n");
        write("device/current_link_width", "4\n");
        let mut sampler = NvmeSampler::new(sysfs.path().join("class/nvme"));
        let mut groups = GroupSet::default();
        let mut read = |groups: &mut GroupSet| {
            groups.begin();
            sampler.sample(&mut ReadBuffer::default(), groups).unwrap();
            let group = groups.iter().next().unwrap();
            let known = (0..9).filter(|at| group.present().contains(*at)).map(|at| (at, group.values()[at]));
            known.collect::<Vec<_>>()
        };
        let want = [(0, 1.0), (1, 41.85), (2, 84.85), (3, 3.0), (6, 4.0), (8, 1.0)];
        assert_eq!(read(&mut groups), want);
        write("state", "dead\n");
        assert_eq!(read(&mut groups)[0], (0, 0.0));
    }

    #[test]
    fn name_spaces_are_told_from_paths_and_partitions() {
        for (name, id) in [("n1", "1"), ("c0n12", "12")] {
            assert_eq!(id_of_name_space(name), Some(id));
        }
        for other in ["", "n", "n1p1", "c0", "cn1", "c0n", "hwmon2", "model"] {
            assert_eq!(id_of_name_space(other), None, "{other}");
        }
    }
}
