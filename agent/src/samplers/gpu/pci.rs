//! Places on the PCI bus: written in three ways by NVML, the kernel log and sysfs, and which of them are GPUs.

use std::path::Path;

/// NVIDIA's number.
const NVIDIA: &str = "0x10de";
/// Classes of GPUs: with a display, and without.
const GPU_CLASSES: [&str; 2] = ["0x0300", "0x0302"];
/// Devices on a bus; more than this is no bus but a broken folder.
const DEVICES_MAX: usize = 65_536;

/// A place on the bus, without the function: GPUs are function 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PciPlace {
    domain: u32,
    bus: u32,
    device: u32,
}

impl PciPlace {
    /// Understands `00000000:41:00.0` (NVML), `0000:41:00` (kernel log) and `0000:41:00.0` (sysfs).
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split(':');
        let mut number = || {
            let part = parts.next()?;
            u32::from_str_radix(part.split('.').next()?, 16).ok()
        };
        let (domain, bus, device) = (number()?, number()?, number()?);
        Some(PciPlace { domain, bus, device })
    }

    /// As NVML writes it, which is what the label `pci_bus_id` holds.
    pub(super) fn label(self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

/// NVIDIA's GPUs on the bus, whether their driver answers or not.
pub(super) fn gpus(sysfs: &Path) -> Vec<PciPlace> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("bus/pci/devices")) else { return Vec::new() };
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let gpus = entries.flatten().take(DEVICES_MAX).filter_map(|entry| {
        let path = entry.path();
        let class = read(&path.join("class"));
        let ours = read(&path.join("vendor")).trim() == NVIDIA
            && GPU_CLASSES.iter().any(|gpu| class.starts_with(gpu));
        if ours { PciPlace::parse(&entry.file_name().to_string_lossy()) } else { None }
    });
    let mut gpus: Vec<PciPlace> = gpus.collect();
    gpus.sort_unstable();
    gpus.dedup();
    gpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_the_same_however_it_is_written() {
        let places = ["00000000:C1:00.0", "0000:c1:00", "0000:c1:00.0"].map(PciPlace::parse);
        assert!(places.iter().all(|place| place.is_some() && *place == places[0]));
        assert_eq!(places[0].unwrap().label(), "00000000:C1:00.0");
        assert_eq!(PciPlace::parse("nonsense"), None);
        assert_eq!(PciPlace::parse("0000:41"), None);
    }

    #[test]
    fn only_gpus_of_the_bus_are_listed() {
        let sysfs = tempfile::tempdir().unwrap();
        let add = |place: &str, vendor: &str, class: &str| {
            let folder = sysfs.path().join("bus/pci/devices").join(place);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        };
        add("0000:c1:00.0", NVIDIA, "0x030200");
        add("0000:41:00.0", NVIDIA, "0x030000");
        add("0000:41:00.1", NVIDIA, "0x040300");
        add("0000:05:00.0", NVIDIA, "0x068000");
        add("0000:03:00.0", "0x8086", "0x020000");
        let labels: Vec<String> = gpus(sysfs.path()).into_iter().map(PciPlace::label).collect();
        assert_eq!(labels, ["00000000:41:00.0", "00000000:C1:00.0"]);
        assert!(gpus(Path::new("/nonexistent")).is_empty());
    }
}
