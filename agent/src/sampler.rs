//! The samplers: what each is called, whether it runs by default, and how it is made.
//!
//! A [`Sampler`] reads one source and fills its groups; it knows nothing of time, journal or network.
//! [`SAMPLERS`] is the one list of them; flags, configuration and scheduler all read it.

use crate::error::SampleError;
use crate::group::GroupSet;
use crate::kernel_files::{ReadBuffer, SharedFile};
use crate::samplers;
use crate::samplers::gpu::options::GpuOptions;
use crate::samplers::peers::PeerOptions;
use crate::samplers::systemd::options::SystemdOptions;
use crate::schedule::{Adaptive, Rate};
use regex::Regex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Reads one source into groups.
pub trait Sampler: Send {
    /// Takes a reading. After an error nothing of it is published: missing beats wrong.
    ///
    /// # Errors
    /// Why there is no reading.
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError>;

    /// Whether the next reading may hang, asked of samplers of which some readings may
    /// ([`SamplerKind::may_block`]): one that cannot is taken where it stands, without waking a thread for it.
    fn may_hang(&mut self) -> bool {
        true
    }
}

/// Where the host's file systems lie: elsewhere when the agent runs in a container.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `--path.procfs`
    pub procfs: PathBuf,
    /// `--path.sysfs`
    pub sysfs: PathBuf,
    /// `--path.rootfs`
    pub rootfs: PathBuf,
    /// `--path.udev.data`
    pub udev_data: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            procfs: "/proc".into(),
            sysfs: "/sys".into(),
            rootfs: "/".into(),
            udev_data: "/run/udev/data".into(),
        }
    }
}

impl Paths {
    /// A file under procfs.
    pub fn proc(&self, path: &str) -> PathBuf {
        self.procfs.join(path)
    }

    /// A file under sysfs.
    pub fn sys(&self, path: &str) -> PathBuf {
        self.sysfs.join(path)
    }

    /// A path of the host as seen from here.
    pub fn root(&self, path: &str) -> PathBuf {
        if self.rootfs == Path::new("/") {
            return path.into();
        }
        self.rootfs.join(path.trim_start_matches('/'))
    }

    /// A path as seen from the host: without the root's prefix.
    pub fn strip_root<'a>(&self, path: &'a str) -> &'a str {
        let root = self.rootfs.to_str().unwrap_or("/");
        if root == "/" {
            return path;
        }
        match path.strip_prefix(root.trim_end_matches('/')) {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => path,
        }
    }
}

/// Which objects a sampler looks at: those that `include` matches, without those that `exclude` does.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Leaves out what matches.
    pub exclude: Option<Regex>,
    /// Leaves out what does not match.
    pub include: Option<Regex>,
}

impl Filter {
    /// Whether an object is looked at.
    pub fn keeps(&self, name: &str) -> bool {
        !self.exclude.as_ref().is_some_and(|pattern| pattern.is_match(name))
            && self.include.as_ref().is_none_or(|pattern| pattern.is_match(name))
    }
}

/// The samplers' options, with node_exporter's meanings and defaults.
#[derive(Clone, Debug)]
pub struct SamplerOptions {
    /// Where to read.
    pub paths: Paths,
    /// `/proc/stat`, of which several samplers need a part.
    pub stat: SharedFile,
    /// `/proc/net/sockstat` and `sockstat6`, whose counts say whether there are sockets to list.
    pub sockstat: [SharedFile; 2],
    /// `--collector.filesystem.mount-points-*`
    pub mount_points: Filter,
    /// `--collector.filesystem.fs-types-*`
    pub fs_types: Filter,
    /// `--collector.netdev.device-*`
    pub netdev: Filter,
    /// `--collector.netclass.ignored-devices`
    pub netclass: Filter,
    /// `--collector.netclass.ignore-invalid-speed`
    pub ignore_invalid_speed: bool,
    /// `--collector.diskstats.device-*`
    pub disks: Filter,
    /// `--collector.arp.device-*`
    pub arp: Filter,
    /// `--collector.hwmon.chip-*`
    pub hwmon: Filter,
    /// `--collector.hwmon.sensor-*`, matched against `CHIP;SENSOR`
    pub sensors: Filter,
    /// `--collector.netstat.fields`
    pub netstat_fields: Filter,
    /// `--collector.vmstat.fields`
    pub vmstat_fields: Filter,
    /// `--collector.slabinfo.slabs-*`
    pub slabs: Filter,
    /// `--collector.interrupts.name-*`
    pub interrupts: Filter,
    /// `--collector.interrupts.include-zeros`
    pub interrupt_zeros: bool,
    /// `--collector.sysctl.include`
    pub sysctls: Vec<String>,
    /// `--collector.sysctl.include-info`
    pub sysctl_infos: Vec<String>,
    /// `--collector.qdisc.device-*`
    pub qdiscs: Filter,
    /// `--collector.ethtool.device-*`
    pub ethtool_devices: Filter,
    /// `--collector.ethtool.metrics-include`
    pub ethtool_metrics: Filter,
    /// `--collector.powersupply.ignored-supplies`
    pub power_supplies: Filter,
    /// `--collector.tapestats.ignored-devices`
    pub tapes: Filter,
    /// `--collector.ipvs.backend-labels`
    pub ipvs_labels: Vec<String>,
    /// Flags about units of systemd.
    pub systemd: SystemdOptions,
    /// `--collector.systemd.unit-*`
    pub systemd_units: Filter,
    /// `--collector.textfile.directory`
    pub textfile_directories: Vec<PathBuf>,
    /// `--collector.cpu.info`
    pub cpu_info: bool,
    /// `--collector.cpu.guest`
    pub cpu_guest: bool,
    /// `--collector.cpu.info.flags-include`
    pub cpu_flags: Filter,
    /// `--collector.cpu.info.bugs-include`
    pub cpu_bugs: Filter,
    /// `--collector.stat.softirq`
    pub stat_softirq: bool,
    /// `--collector.rapl.enable-zone-label`
    pub rapl_zone_label: bool,
    /// `--collector.bcache.priorityStats`
    pub bcache_priority_stats: bool,
    /// `--collector.filesystem.mount-timeout`
    pub mount_timeout: Duration,
    /// Flags about GPUs.
    pub gpu: GpuOptions,
    /// Flags about the network between nodes.
    pub peer: PeerOptions,
    /// The node's name, in labels of GPU series.
    pub node: String,
    /// Where the GPU sampler tells what it found.
    pub gpus: Arc<crate::status::GpuStatus>,
}

/// Makes a sampler.
pub type BuildSampler = fn(&SamplerOptions) -> Box<dyn Sampler>;

/// One kind of sampler.
#[derive(Clone, Copy, Debug)]
pub struct SamplerKind {
    /// Its name in flags, configuration and the label `collector`.
    pub name: &'static str,
    /// Whether it runs unless switched off.
    pub default_on: bool,
    /// Whether a reading may hang (a dead mount, a busy driver), so that it needs a thread of its own.
    pub may_block: bool,
    /// Interval while a value moves or an alert is near, milliseconds; `None` keeps the grid of 1 s always.
    pub fastest_ms: Option<u32>,
    /// Interval of the series unless configured otherwise, milliseconds.
    pub grid_ms: u32,
    /// Makes it.
    pub build: BuildSampler,
}

/// How often samplers publish unless configured otherwise.
const GRID_MS: u32 = 1_000;

impl SamplerKind {
    /// The rate unless configured otherwise.
    pub fn default_rate(&self) -> Rate {
        match self.fastest_ms {
            Some(fastest_ms) => {
                Rate::Adaptive(Adaptive { fastest_ms, grid_ms: self.grid_ms, slowest_ms: None })
            }
            None => Rate::fixed(self.grid_ms),
        }
    }

    /// The same, adaptive by default: what it reads moves fast and matters then.
    const fn adaptive(mut self) -> Self {
        self.fastest_ms = Some(100);
        self
    }

    /// The same, read less often by default: asking costs others more than the answer changes in a second.
    const fn every(mut self, grid_ms: u32) -> Self {
        self.grid_ms = grid_ms;
        self
    }
}

const fn hot(name: &'static str, build: BuildSampler) -> SamplerKind {
    SamplerKind { name, default_on: true, may_block: false, fastest_ms: None, grid_ms: GRID_MS, build }
}

const fn blocking(name: &'static str, build: BuildSampler) -> SamplerKind {
    SamplerKind { name, default_on: true, may_block: true, fastest_ms: None, grid_ms: GRID_MS, build }
}

const fn opt_in(name: &'static str, build: BuildSampler) -> SamplerKind {
    SamplerKind { name, default_on: false, may_block: true, fastest_ms: None, grid_ms: GRID_MS, build }
}

/// All samplers, by name.
pub const SAMPLERS: &[SamplerKind] = &[
    blocking("amdgpu", samplers::amdgpu::build),
    hot("arp", samplers::arp::build),
    blocking("bcache", samplers::bcache::build),
    blocking("bcachefs", samplers::bcachefs::build),
    blocking("bonding", samplers::bonding::build),
    blocking("btrfs", samplers::btrfs::build),
    opt_in("buddyinfo", samplers::kernel_tables::buddyinfo),
    opt_in("cgroups", samplers::kernel_tables::cgroups),
    hot("conntrack", samplers::conntrack::build),
    hot("cpu", samplers::cpu::build),
    opt_in("cpu_vulnerabilities", samplers::cpu_vulnerabilities::build),
    hot("cpufreq", samplers::cpufreq::build),
    hot("diskstats", samplers::disk::build),
    blocking("dmi", samplers::dmi::build),
    opt_in("dmmultipath", samplers::dmmultipath::build),
    blocking("edac", samplers::edac::build),
    hot("entropy", samplers::scalars::entropy),
    opt_in("ethtool", samplers::ethtool::build),
    blocking("fibrechannel", samplers::fibrechannel::build),
    hot("filefd", samplers::scalars::filefd),
    blocking("filesystem", samplers::filesystem::build),
    blocking("gpu", samplers::gpu::build).adaptive(),
    blocking("hwmon", samplers::hwmon::build),
    blocking("infiniband", samplers::infiniband::build),
    opt_in("interrupts", samplers::interrupts::interrupts),
    blocking("ipvs", samplers::ipvs::build),
    opt_in("kernel_hung", samplers::scalars::kernel_hung),
    opt_in("ksmd", samplers::ksmd::build),
    opt_in("lnstat", samplers::lnstat::build),
    hot("loadavg", samplers::scalars::loadavg),
    blocking("mdadm", samplers::mdadm::build),
    hot("meminfo", samplers::memory::build),
    opt_in("meminfo_numa", samplers::kernel_tables::meminfo_numa),
    opt_in("mountstats", samplers::mountstats::build),
    blocking("netclass", samplers::netclass::build),
    hot("netdev", samplers::netdev::build),
    hot("netstat", samplers::netstat::build),
    blocking("nfs", samplers::nfs::client),
    blocking("nfsd", samplers::nfs::server),
    blocking("nvme", samplers::nvme::build),
    hot("os", samplers::os::build),
    blocking("peers", samplers::peers::build),
    opt_in("pods", samplers::pods::build),
    blocking("powersupplyclass", samplers::power_supply::build),
    hot("pressure", samplers::pressure::build).adaptive(),
    opt_in("processes", samplers::processes::build),
    opt_in("qdisc", samplers::qdisc::build),
    blocking("rapl", samplers::rapl::build),
    blocking("rdma", samplers::rdma_counters::build),
    hot("schedstat", samplers::schedstat::build),
    hot("selinux", samplers::selinux::build),
    opt_in("slabinfo", samplers::kernel_tables::slabinfo),
    hot("sockstat", samplers::sockstat::build),
    opt_in("softirqs", samplers::interrupts::softirqs),
    hot("softnet", samplers::softnet::build),
    hot("stat", samplers::stat::build),
    opt_in("sysctl", samplers::sysctl::build),
    opt_in("systemd", samplers::systemd::build).every(10_000),
    blocking("tapestats", samplers::tapestats::build),
    opt_in("tcpstat", samplers::tcpstat::build),
    blocking("textfile", samplers::textfile::build),
    blocking("thermal_zone", samplers::thermal_zone::build),
    hot("time", samplers::time::build),
    hot("timex", samplers::timex::build),
    hot("udp_queues", samplers::udp_queues::build),
    hot("uname", samplers::uname::build),
    hot("vmstat", samplers::vmstat::build),
    blocking("watchdog", samplers::watchdog::build),
    opt_in("xfrm", samplers::xfrm::build),
    blocking("xfs", samplers::xfs::build),
    blocking("zfs", samplers::zfs::build),
    opt_in("zoneinfo", samplers::kernel_tables::zoneinfo),
];

/// Names of node_exporter's other collectors: their flags are accepted, so that command lines written for
/// it work; switching one on is answered with a warning.
pub const OTHER_COLLECTORS: &[&str] = &[
    "devstat",
    "drbd",
    "drm",
    "logind",
    "network_route",
    "ntp",
    "nvmesubsystem",
    "pcidevice",
    "perf",
    "runit",
    "supervisord",
    "swap",
    "wifi",
];

/// The sampler of that name.
pub fn find(name: &str) -> Option<&'static SamplerKind> {
    SAMPLERS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_are_unique() {
        assert!(SAMPLERS.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert!(OTHER_COLLECTORS.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(OTHER_COLLECTORS.iter().all(|name| find(name).is_none()));
    }

    #[test]
    fn a_container_sees_the_host_under_its_root() {
        let paths = Paths { rootfs: "/host".into(), ..Paths::default() };
        assert_eq!(paths.strip_root("/host/var"), "/var");
        assert_eq!(paths.strip_root("/host"), "/");
        assert_eq!(paths.strip_root("/hostile"), "/hostile");
        assert_eq!(paths.root("/var"), Path::new("/host/var"));
        assert_eq!(Paths::default().root("/var"), Path::new("/var"));
    }
}
