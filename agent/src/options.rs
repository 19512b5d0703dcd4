//! The agent's flags, and how flags and configuration file become one configuration.

use crate::config::{AgentConfig, ConfigFile};
use crate::error::AgentError;
use crate::kernel_files::SharedFile;
use crate::node_exporter_flags::{NodeExporterFlags, Switch};
use crate::push::is_address;
use crate::sampler::{Filter, Paths, SAMPLERS, SamplerOptions};
use crate::samplers::ethtool::options::EthtoolOptions;
use crate::samplers::gpu::check_trace;
use crate::samplers::gpu::options::GpuOptions;
use crate::samplers::ipvs::LABELS;
use crate::samplers::peers::PeerOptions;
use crate::samplers::systemd::options::SystemdOptions;
use crate::schedule::{Plan, PlannedSampler};
use crate::spool::SpoolLimits;
use crate::switches::SamplerSwitches;
use crate::web_options::{WebOptions, path_or_empty};
use pharos_common::config::ConfigError;
use pharos_common::duration::PrometheusDuration;
use pharos_common::flags::ConfigFlag;
use regex::Regex;
use std::path::PathBuf;

/// The agent's flags. The one-process program starts from [`AgentOptions::default`] and sets fields.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentOptions {
    /// Configuration file.
    #[command(flatten)]
    pub config: ConfigFlag,
    /// Where and how it serves.
    #[command(flatten)]
    pub web: WebOptions,
    /// Collector to push to; repeat for fail-over; "none" or empty only serves /metrics
    #[arg(long = "collector.address", value_name = "HOST:PORT", default_values_t = ["127.0.0.1:9490".to_owned()])]
    pub collector_addresses: Vec<String>,
    /// Folder of the journal
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "data/agent")]
    pub storage_path: PathBuf,
    /// The node's name, in the label "instance" [default: the host's name]
    #[arg(long = "node.name", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where procfs is mounted
    #[arg(long = "path.procfs", value_name = "FOLDER", default_value = "/proc")]
    pub procfs: PathBuf,
    /// Where sysfs is mounted
    #[arg(long = "path.sysfs", value_name = "FOLDER", default_value = "/sys")]
    pub sysfs: PathBuf,
    /// Where the host's root is mounted
    #[arg(long = "path.rootfs", value_name = "FOLDER", default_value = "/")]
    pub rootfs: PathBuf,
    /// Where udev keeps what it knows of devices
    #[arg(long = "path.udev.data", value_name = "FOLDER", default_value = "/run/udev/data")]
    pub udev_data: PathBuf,
    /// How GPUs are read.
    #[command(flatten)]
    pub gpu: GpuOptions,
    /// Which other nodes are probed.
    #[command(flatten)]
    pub peer: PeerOptions,
    /// Which samplers run.
    #[command(flatten)]
    pub switches: SamplerSwitches,
    /// What they look at.
    #[command(flatten)]
    pub collectors: CollectorOptions,
    /// Which interfaces' drivers are asked.
    #[command(flatten)]
    pub ethtool: EthtoolOptions,
    /// Which units are looked at.
    #[command(flatten)]
    pub systemd: SystemdOptions,
    /// node_exporter's switches, and those of its flags that mean nothing here.
    #[command(flatten)]
    pub node_exporter: NodeExporterFlags,
}

/// Options of node_exporter's collectors, with its meanings and defaults.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sampler options (as node_exporter's)")]
#[expect(missing_docs, reason = "the help texts below are the documentation")]
pub struct CollectorOptions {
    #[arg(
        long = "collector.filesystem.mount-points-exclude",
        value_name = "REGEX",
        alias = "collector.filesystem.ignored-mount-points",
        help = "Mount points to leave out"
    )]
    pub mount_points_exclude: Option<String>,
    #[arg(
        long = "collector.filesystem.mount-points-include",
        value_name = "REGEX",
        help = "Mount points to look at"
    )]
    pub mount_points_include: Option<String>,
    #[arg(
        long = "collector.filesystem.fs-types-exclude",
        value_name = "REGEX",
        alias = "collector.filesystem.ignored-fs-types",
        help = "Kinds of file systems to leave out"
    )]
    pub fs_types_exclude: Option<String>,
    #[arg(
        long = "collector.filesystem.fs-types-include",
        value_name = "REGEX",
        help = "Kinds of file systems to look at"
    )]
    pub fs_types_include: Option<String>,
    #[arg(
        long = "collector.filesystem.mount-timeout",
        value_name = "DURATION",
        default_value = "5s",
        help = "Time that a mount gets to answer before it counts as hanging"
    )]
    pub mount_timeout: PrometheusDuration,
    #[arg(
        long = "collector.netdev.device-exclude",
        value_name = "REGEX",
        alias = "collector.netdev.device-blacklist",
        help = "Interfaces without traffic counters"
    )]
    pub netdev_exclude: Option<String>,
    #[arg(
        long = "collector.netdev.device-include",
        value_name = "REGEX",
        alias = "collector.netdev.device-whitelist",
        help = "Interfaces with traffic counters"
    )]
    pub netdev_include: Option<String>,
    #[arg(
        long = "collector.netclass.ignored-devices",
        value_name = "REGEX",
        default_value = "^$",
        help = "Interfaces without properties"
    )]
    pub netclass_ignored: String,
    #[arg(
        long = "collector.powersupply.ignored-supplies",
        value_name = "REGEX",
        default_value = "^$",
        help = "Power supplies that are left out"
    )]
    pub power_supplies_ignored: String,
    #[arg(
        long = "collector.tapestats.ignored-devices",
        value_name = "REGEX",
        default_value = "^$",
        help = "Tape drives that are left out"
    )]
    pub tapes_ignored: String,
    #[arg(
        long = "collector.ipvs.backend-labels",
        value_name = "LABELS",
        value_delimiter = ',',
        default_values = LABELS,
        help = "Labels of backends; those that they do not tell apart are added up"
    )]
    pub ipvs_labels: Vec<String>,
    #[arg(
        long = "collector.diskstats.device-exclude",
        value_name = "REGEX",
        alias = "collector.diskstats.ignored-devices",
        help = "Block devices to leave out"
    )]
    pub disks_exclude: Option<String>,
    #[arg(
        long = "collector.diskstats.device-include",
        value_name = "REGEX",
        help = "Block devices to look at"
    )]
    pub disks_include: Option<String>,
    #[arg(
        long = "collector.arp.device-exclude",
        value_name = "REGEX",
        help = "Interfaces whose neighbours are not counted"
    )]
    pub arp_exclude: Option<String>,
    #[arg(
        long = "collector.arp.device-include",
        value_name = "REGEX",
        help = "Interfaces whose neighbours are counted"
    )]
    pub arp_include: Option<String>,
    #[arg(long = "collector.hwmon.chip-exclude", value_name = "REGEX", help = "Sensor chips to leave out")]
    pub hwmon_exclude: Option<String>,
    #[arg(long = "collector.hwmon.chip-include", value_name = "REGEX", help = "Sensor chips to look at")]
    pub hwmon_include: Option<String>,
    #[arg(
        long = "collector.hwmon.sensor-exclude",
        value_name = "REGEX",
        help = "Sensors to leave out, matched as CHIP;SENSOR"
    )]
    pub sensors_exclude: Option<String>,
    #[arg(
        long = "collector.hwmon.sensor-include",
        value_name = "REGEX",
        help = "Sensors to look at, matched as CHIP;SENSOR"
    )]
    pub sensors_include: Option<String>,
    #[arg(long = "collector.netstat.fields", value_name = "REGEX", default_value = NETSTAT_FIELDS, help = "Network counters to read")]
    pub netstat_fields: String,
    #[arg(long = "collector.slabinfo.slabs-include", value_name = "REGEX", help = "Slabs to look at")]
    pub slabs_include: Option<String>,
    #[arg(long = "collector.slabinfo.slabs-exclude", value_name = "REGEX", help = "Slabs to leave out")]
    pub slabs_exclude: Option<String>,
    #[arg(
        long = "collector.interrupts.name-include",
        value_name = "REGEX",
        help = "Interrupts to count, matched as TYPE;INFO;DEVICES"
    )]
    pub interrupts_include: Option<String>,
    #[arg(
        long = "collector.interrupts.name-exclude",
        value_name = "REGEX",
        help = "Interrupts to leave out, matched as TYPE;INFO;DEVICES"
    )]
    pub interrupts_exclude: Option<String>,
    #[arg(
        long = "collector.sysctl.include",
        value_name = "NAME[:FIELD,...]",
        help = "Kernel setting with numbers; repeat for more"
    )]
    pub sysctls: Vec<String>,
    #[arg(
        long = "collector.sysctl.include-info",
        value_name = "NAME",
        help = "Kernel setting with texts, as node_sysctl_info; repeat for more"
    )]
    pub sysctl_infos: Vec<String>,
    #[arg(
        long = "collector.qdisc.device-include",
        alias = "collector.qdisk.device-include",
        value_name = "REGEX",
        help = "Interfaces whose queues are read"
    )]
    pub qdisc_include: Option<String>,
    #[arg(
        long = "collector.qdisc.device-exclude",
        alias = "collector.qdisk.device-exclude",
        value_name = "REGEX",
        help = "Interfaces whose queues are left out"
    )]
    pub qdisc_exclude: Option<String>,
    #[arg(long = "collector.vmstat.fields", value_name = "REGEX", default_value = VMSTAT_FIELDS, help = "Virtual memory counters to read")]
    pub vmstat_fields: String,
    #[arg(
        long = "collector.textfile.directory",
        value_name = "FOLDER",
        value_parser = path_or_empty(),
        help = "Folder of *.prom files that batch jobs write, or a pattern of folders; may be repeated"
    )]
    pub textfile_directories: Vec<PathBuf>,
    #[arg(
        long = "collector.cpu.info.flags-include",
        value_name = "REGEX",
        help = "Flags of CPUs to publish, with node_cpu_info"
    )]
    pub cpu_flags_include: Option<String>,
    #[arg(
        long = "collector.cpu.info.bugs-include",
        value_name = "REGEX",
        help = "Bugs of CPUs to publish, with node_cpu_info"
    )]
    pub cpu_bugs_include: Option<String>,
}

const MOUNT_POINTS_EXCLUDE: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
const FS_TYPES_EXCLUDE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$";
const DISKS_EXCLUDE: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
const NETSTAT_FIELDS: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
const VMSTAT_FIELDS: &str = "^(oom_kill|pgpg|pswp|pg.*fault).*";

impl Default for AgentOptions {
    /// What the program has without arguments.
    fn default() -> Self {
        #[derive(clap::Parser)]
        struct Bare {
            #[command(flatten)]
            options: AgentOptions,
        }
        <Bare as clap::Parser>::parse_from(["pharos-agent"]).options
    }
}

impl CollectorOptions {
    fn ipvs_labels(&self) -> Result<Vec<String>, AgentError> {
        match self.ipvs_labels.iter().find(|label| !LABELS.contains(&label.as_str())) {
            None => Ok(self.ipvs_labels.clone()),
            Some(bad) => {
                let message = format!("{bad:?} is none of {}", LABELS.join(", "));
                Err(AgentError::Flag { flag: "--collector.ipvs.backend-labels".into(), message })
            }
        }
    }
}

impl AgentOptions {
    /// Reads the configuration file, if there is one, and joins it with the flags; flags win.
    ///
    /// # Errors
    /// What is wrong, and with which flag or at which line of the file.
    pub fn load(&self) -> Result<AgentConfig, AgentError> {
        let file = match &self.config.config_file {
            Some(path) => ConfigFile::load(path)?,
            None => ConfigFile::default(),
        };
        let node = self.node_name.clone().or_else(|| file.node_name.clone()).unwrap_or_else(host_name);
        let given = |addresses: &[String]| -> Vec<String> {
            addresses.iter().filter(|address| !address.is_empty() && *address != "none").cloned().collect()
        };
        let flags_are_default = self.collector_addresses == ["127.0.0.1:9490"];
        let collectors = match &file.collectors {
            Some(collectors) if flags_are_default => given(collectors),
            _ => given(&self.collector_addresses),
        };
        if let Some(bad) = collectors.iter().find(|address| !is_address(address)) {
            let message = format!("{bad:?} is no address (write HOST:PORT, or none to push nowhere)");
            return Err(AgentError::Flag { flag: "--collector.address".into(), message });
        }
        for name in self.switches.missing() {
            tracing::warn!(collector = name, "This agent has no such sampler; the flag is ignored");
        }
        self.node_exporter.check()?;
        let (telemetry_path, tls) = (self.web.telemetry_path()?, self.web.tls()?);
        let mut limits = SpoolLimits::default();
        if let Some(bytes) = file.journal.bytes_max {
            limits.bytes_max = bytes;
        }
        if let Some(age) = file.journal.age_max {
            limits.age_max = age.to_std();
        }
        let samplers = SAMPLERS.iter().filter_map(|kind| {
            let configured = file.samplers.get(kind.name);
            let on = self.switches.get(kind.name).or(configured.and_then(|sampler| sampler.enabled));
            let rate = configured.and_then(|sampler| sampler.rate()).unwrap_or_else(|| kind.default_rate());
            on.unwrap_or(kind.default_on).then_some(PlannedSampler { kind, rate })
        });
        Ok(AgentConfig {
            plan: Plan {
                samplers: samplers.collect(),
                options: self.sampler_options(&node)?,
                cpu_budget: file.budget.share(),
                push_delay: file.push.delay(&node),
                // The file was checked when it was read.
                recorder: file.recorder.plan().unwrap_or_default(),
            },
            node,
            collectors,
            storage_path: self.storage_path.clone(),
            limits,
            return_interval: file.push.return_interval(),
            telemetry_path,
            own_metrics: !self.node_exporter.is_on(Switch::NoOwnMetrics),
            tls,
            options: self.clone(),
        })
    }

    fn sampler_options(&self, node: &str) -> Result<SamplerOptions, AgentError> {
        let c = &self.collectors;
        if let Some(trace) = &self.gpu.replay {
            check_trace(trace).map_err(|error| AgentError::Flag {
                flag: "--gpu.replay".into(),
                message: error.to_string(),
            })?;
        }
        let filter = |name, exclude: &Option<String>, include: &Option<String>, default: Option<&str>| {
            filter(name, exclude.as_deref(), include.as_deref(), default)
        };
        let only = |flag: &str, pattern: &str| -> Result<Filter, AgentError> {
            Ok(Filter { include: Some(compile(flag, pattern)?), exclude: None })
        };
        let without = |flag: &str, pattern: &str| -> Result<Filter, AgentError> {
            Ok(Filter { exclude: Some(compile(flag, pattern)?), include: None })
        };
        let included = |flag: &str, pattern: &Option<String>| -> Result<Filter, AgentError> {
            match pattern.as_deref().filter(|pattern| !pattern.is_empty()) {
                Some(pattern) => only(flag, pattern),
                None => Ok(Filter::default()),
            }
        };
        let on = |switch| self.node_exporter.is_on(switch);
        let cpu_flags = included("--collector.cpu.info.flags-include", &c.cpu_flags_include)?;
        let cpu_bugs = included("--collector.cpu.info.bugs-include", &c.cpu_bugs_include)?;
        Ok(SamplerOptions {
            stat: SharedFile::whole(self.procfs.join("stat")),
            sockstat: ["net/sockstat", "net/sockstat6"].map(|name| SharedFile::whole(self.procfs.join(name))),
            paths: Paths {
                procfs: self.procfs.clone(),
                sysfs: self.sysfs.clone(),
                rootfs: self.rootfs.clone(),
                udev_data: self.udev_data.clone(),
            },
            mount_points: filter(
                "filesystem.mount-points",
                &c.mount_points_exclude,
                &c.mount_points_include,
                Some(MOUNT_POINTS_EXCLUDE),
            )?,
            fs_types: filter(
                "filesystem.fs-types",
                &c.fs_types_exclude,
                &c.fs_types_include,
                Some(FS_TYPES_EXCLUDE),
            )?,
            netdev: filter("netdev.device", &c.netdev_exclude, &c.netdev_include, None)?,
            power_supplies: without("--collector.powersupply.ignored-supplies", &c.power_supplies_ignored)?,
            tapes: without("--collector.tapestats.ignored-devices", &c.tapes_ignored)?,
            ipvs_labels: c.ipvs_labels()?,
            netclass: Filter {
                exclude: Some(compile("--collector.netclass.ignored-devices", &c.netclass_ignored)?),
                include: None,
            },
            ignore_invalid_speed: on(Switch::IgnoreInvalidSpeed),
            disks: filter("diskstats.device", &c.disks_exclude, &c.disks_include, Some(DISKS_EXCLUDE))?,
            arp: filter("arp.device", &c.arp_exclude, &c.arp_include, None)?,
            hwmon: filter("hwmon.chip", &c.hwmon_exclude, &c.hwmon_include, None)?,
            sensors: filter("hwmon.sensor", &c.sensors_exclude, &c.sensors_include, None)?,
            netstat_fields: only("--collector.netstat.fields", &c.netstat_fields)?,
            vmstat_fields: only("--collector.vmstat.fields", &c.vmstat_fields)?,
            slabs: filter("slabinfo.slabs", &c.slabs_exclude, &c.slabs_include, None)?,
            interrupts: filter("interrupts.name", &c.interrupts_exclude, &c.interrupts_include, None)?,
            interrupt_zeros: on(Switch::InterruptZeros),
            sysctls: c.sysctls.clone(),
            sysctl_infos: c.sysctl_infos.clone(),
            qdiscs: filter("qdisc.device", &c.qdisc_exclude, &c.qdisc_include, None)?,
            ethtool_devices: filter(
                "ethtool.device",
                &self.ethtool.device_exclude,
                &self.ethtool.device_include,
                None,
            )?,
            ethtool_metrics: included("--collector.ethtool.metrics-include", &self.ethtool.metrics_include)?,
            systemd: SystemdOptions {
                tasks: on(Switch::SystemdTasks) || self.systemd.tasks,
                restarts: on(Switch::SystemdRestarts) || self.systemd.restarts,
                start_times: on(Switch::SystemdStartTimes) || self.systemd.start_times,
                private: on(Switch::SystemdPrivate) || self.systemd.private,
                ..self.systemd.clone()
            },
            systemd_units: Filter {
                exclude: Some(whole("--collector.systemd.unit-exclude", &self.systemd.unit_exclude)?),
                include: Some(whole("--collector.systemd.unit-include", &self.systemd.unit_include)?),
            },
            textfile_directories: {
                let named = c.textfile_directories.iter().filter(|folder| !folder.as_os_str().is_empty());
                named.cloned().collect()
            },
            cpu_info: on(Switch::CpuInfo) || cpu_flags.include.is_some() || cpu_bugs.include.is_some(),
            cpu_guest: on(Switch::CpuGuest),
            cpu_flags,
            cpu_bugs,
            stat_softirq: on(Switch::StatSoftirq),
            rapl_zone_label: on(Switch::RaplZoneLabel),
            bcache_priority_stats: on(Switch::BcachePriorityStats),
            mount_timeout: c.mount_timeout.to_std(),
            gpu: self.gpu.clone(),
            peer: self.peer.clone(),
            node: node.to_owned(),
            gpus: Default::default(),
        })
    }
}

/// A pattern that a name must match from its beginning to its end.
fn whole(flag: &str, pattern: &str) -> Result<Regex, AgentError> {
    // As it is first, so that a message about it shows what was written.
    compile(flag, pattern)?;
    compile(flag, &format!("^(?:{pattern})$"))
}

/// An include pattern replaces the default exclude pattern; giving both is a contradiction.
fn filter(
    name: &str,
    exclude: Option<&str>,
    include: Option<&str>,
    default: Option<&str>,
) -> Result<Filter, AgentError> {
    let some = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    let (exclude_flag, include_flag) =
        (format!("--collector.{name}-exclude"), format!("--collector.{name}-include"));
    let pattern = match (some(exclude), some(include)) {
        (Some(_), Some(_)) => {
            let message = format!("give this or {include_flag}, not both");
            return Err(AgentError::Flag { flag: exclude_flag, message });
        }
        (None, Some(include)) => {
            return Ok(Filter { exclude: None, include: Some(compile(&include_flag, &include)?) });
        }
        (Some(exclude), None) => Some(exclude),
        // An empty pattern leaves nothing out.
        (None, None) if exclude.is_some() => None,
        (None, None) => default.map(str::to_owned),
    };
    Ok(Filter {
        exclude: pattern.map(|pattern| compile(&exclude_flag, &pattern)).transpose()?,
        include: None,
    })
}

fn compile(flag: &str, pattern: &str) -> Result<Regex, AgentError> {
    Regex::new(pattern)
        .map_err(|error| AgentError::Flag { flag: flag.to_owned(), message: error.to_string() })
}

fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    if name.is_empty() { "localhost".to_owned() } else { name.into_owned() }
}

/// A configuration error about a sampler that does not exist.
pub(crate) fn unknown_sampler(file: &std::path::Path, name: &str) -> ConfigError {
    let known: Vec<&str> = SAMPLERS.iter().map(|kind| kind.name).collect();
    let message = format!("there is no such sampler; there are {}", known.join(", "));
    ConfigError::new(file, format!("samplers.{name}"), message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Adaptive, Rate};
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: AgentOptions,
    }

    fn plan(arguments: &[&str]) -> Vec<&'static str> {
        let options = Cli::try_parse_from(["x"].iter().chain(arguments)).unwrap().options;
        options.load().unwrap().plan.samplers.iter().map(|planned| planned.kind.name).collect()
    }

    #[test]
    fn samplers_are_switched_under_both_names_and_the_last_flag_wins() {
        assert!(plan(&[]).contains(&"cpu"));
        assert!(!plan(&["--no-sampler.cpu"]).contains(&"cpu"));
        assert!(!plan(&["--no-collector.cpu"]).contains(&"cpu"));
        assert!(plan(&["--no-collector.cpu", "--collector.cpu"]).contains(&"cpu"));
        assert!(!plan(&["--sampler.cpu", "--no-collector.cpu"]).contains(&"cpu"));
        assert_eq!(plan(&["--collector.disable-defaults", "--collector.loadavg"]), ["loadavg"]);
        // Flags of collectors that only node_exporter has are accepted.
        assert_eq!(plan(&["--no-collector.wifi", "--collector.drbd"]), plan(&[]));
    }

    #[test]
    fn wrong_values_name_their_flag() {
        let fails = |arguments: &[&str]| {
            let options = Cli::try_parse_from(["x"].iter().chain(arguments)).unwrap().options;
            options.load().unwrap_err().to_string()
        };
        assert!(fails(&["--collector.netstat.fields=("]).starts_with("--collector.netstat.fields: "));
        assert!(fails(&["--collector.address=a b"]).starts_with("--collector.address: "));
        let both = ["--collector.netdev.device-exclude=a", "--collector.netdev.device-include=b"];
        assert!(fails(&both).starts_with("--collector.netdev.device-exclude: "));
    }

    #[test]
    fn none_or_nothing_pushes_nowhere_and_several_collectors_are_kept_in_order() {
        let collectors = |arguments: &[&str]| {
            Cli::try_parse_from(["x"].iter().chain(arguments)).unwrap().options.load().unwrap().collectors
        };
        assert_eq!(collectors(&[]), ["127.0.0.1:9490"]);
        assert!(collectors(&["--collector.address=none"]).is_empty());
        assert!(collectors(&["--collector.address="]).is_empty());
        assert_eq!(collectors(&["--collector.address=b:1", "--collector.address=a:1"]), ["b:1", "a:1"]);
    }

    #[test]
    fn the_file_is_joined_with_the_flags() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.yml");
        let load = |text: &str, arguments: &[&str]| {
            std::fs::write(&path, text).unwrap();
            let file = format!("--config.file={}", path.display());
            let arguments = ["x", &file].into_iter().chain(arguments.iter().copied());
            Cli::try_parse_from(arguments).unwrap().options.load()
        };
        let text = "node_name: n1\ncollectors: [c:1]\nsamplers:\n  cpu: {fixed: 10s}\n  arp: {enabled: false}\njournal: {bytes_max: 1000000, age_max: 1h}\n";
        let config = load(text, &[]).unwrap();
        assert_eq!((config.node.as_str(), config.collectors), ("n1", vec!["c:1".to_owned()]));
        let cpu = config.plan.samplers.iter().find(|planned| planned.kind.name == "cpu").unwrap();
        assert_eq!(cpu.rate, Rate::fixed(10_000));
        assert!(config.plan.samplers.iter().all(|planned| planned.kind.name != "arp"));
        assert_eq!(load(text, &["--node.name=n2", "--sampler.arp"]).unwrap().node, "n2");

        let place =
            |text: &str| load(text, &[]).unwrap_err().to_string().replace(&path.display().to_string(), "F");
        assert!(
            place("samplers:\n  cpu: {fixed: soon}\n").starts_with("F:2:"),
            "{}",
            place("samplers:\n  cpu: {fixed: soon}\n")
        );
        let adaptive = load("samplers:\n  cpu: {adaptive: {fastest: 200ms, slowest: 5s}}\n", &[]).unwrap();
        let cpu = adaptive.plan.samplers.iter().find(|planned| planned.kind.name == "cpu").unwrap();
        let want = Adaptive { fastest_ms: 200, grid_ms: 1_000, slowest_ms: Some(5_000) };
        assert_eq!(cpu.rate, Rate::Adaptive(want));
        for (text, key) in [
            ("samplers:\n  cpu: {adaptive: {fastest: 300ms}}\n", "samplers.cpu.adaptive.fastest"),
            ("samplers:\n  cpu: {fixed: 1s, adaptive: {fastest: 100ms}}\n", "samplers.cpu.adaptive"),
            ("budget: {cpu_percent: -1}\n", "budget.cpu_percent"),
            ("push: {jitter: 1m}\n", "push.jitter"),
            ("push: {return_interval: 10ms}\n", "push.return_interval"),
            ("recorder: {series: ['(']}\n", "recorder.series"),
            ("recorder: {interval: 10ms}\n", "recorder.interval"),
        ] {
            assert!(place(text).contains(key), "{}", place(text));
        }
        assert!(place("samplers:\n  cpux: {}\n").starts_with("F:2:3: samplers.cpux: "));
        assert!(place("sampler: {}\n").starts_with("F:1:"));
        assert!(place("samplers:\n  cpu: {fixed: 10ms}\n").contains("samplers.cpu.fixed"));
    }
}
