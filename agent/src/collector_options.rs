//! Options of single samplers, under the names that node_exporter gives them: which devices, mounts, fields and
//! settings are looked at. Switches are elsewhere, in [`crate::node_exporter_flags`].

use crate::error::AgentError;
use crate::samplers::ipvs::LABELS;
use crate::web_options::path_or_empty;
use pharos_common::duration::PrometheusDuration;
use std::path::PathBuf;

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

pub(crate) const MOUNT_POINTS_EXCLUDE: &str =
    "^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";
pub(crate) const FS_TYPES_EXCLUDE: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs)$";
pub(crate) const DISKS_EXCLUDE: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";
const NETSTAT_FIELDS: &str = "^(.*_(InErrors|InErrs)|Ip_Forwarding|Ip(6|Ext)_(InOctets|OutOctets)|Icmp6?_(InMsgs|OutMsgs)|TcpExt_(Listen.*|Syncookies.*|TCPSynRetrans|TCPTimeouts|TCPOFOQueue|TCPRcvQDrop)|Tcp_(ActiveOpens|InSegs|OutSegs|OutRsts|PassiveOpens|RetransSegs|CurrEstab)|Udp6?_(InDatagrams|OutDatagrams|NoPorts|RcvbufErrors|SndbufErrors))$";
const VMSTAT_FIELDS: &str = "^(oom_kill|pgpg|pswp|pg.*fault).*";

impl CollectorOptions {
    /// The labels of `--collector.ipvs.backend-labels`.
    ///
    /// # Errors
    /// The first one that is none.
    pub(crate) fn ipvs_labels(&self) -> Result<Vec<String>, AgentError> {
        match self.ipvs_labels.iter().find(|label| !LABELS.contains(&label.as_str())) {
            None => Ok(self.ipvs_labels.clone()),
            Some(bad) => {
                let message = format!("{bad:?} is none of {}", LABELS.join(", "));
                Err(AgentError::Flag { flag: "--collector.ipvs.backend-labels".into(), message })
            }
        }
    }
}
