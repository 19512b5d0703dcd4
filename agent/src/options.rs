//! The agent's flags, and how flags and configuration file become one configuration.

use crate::collector_options::{CollectorOptions, DISKS_EXCLUDE, FS_TYPES_EXCLUDE, MOUNT_POINTS_EXCLUDE};
use crate::config::{AgentConfig, ConfigFile};
use crate::error::AgentError;
use crate::kernel_files::SharedFile;
use crate::node_exporter_flags::{NodeExporterFlags, Switch};
use crate::push::is_address;
use crate::sampler::{Filter, Paths, SAMPLERS, SamplerOptions};
use crate::samplers::ethtool::options::EthtoolOptions;
use crate::samplers::gpu::check_trace;
use crate::samplers::gpu::options::GpuOptions;
use crate::samplers::peers::PeerOptions;
use crate::samplers::systemd::options::SystemdOptions;
use crate::schedule::{Plan, PlannedSampler};
use crate::spool::SpoolLimits;
use crate::switches::SamplerSwitches;
use crate::web_options::WebOptions;
use pharos_common::config::ConfigError;
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
