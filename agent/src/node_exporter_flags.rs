//! node_exporter's flags beyond those that simply set an option: its switches, each as `--NAME` and `--no-NAME`,
//! and the flags that change nothing here or ask for what the agent does not have.
//!
//! A command line written for node_exporter comes in; out goes which switches are on, and for every other flag
//! why it changes nothing, or why the agent refuses to start with it.

use crate::error::AgentError;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::{BTreeMap, BTreeSet};

/// A switch that does here what it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below says what each is")]
pub enum Switch {
    BcachePriorityStats,
    CpuGuest,
    CpuInfo,
    InterruptZeros,
    IgnoreInvalidSpeed,
    RaplZoneLabel,
    StatSoftirq,
    SystemdPrivate,
    SystemdRestarts,
    SystemdStartTimes,
    SystemdTasks,
    NoOwnMetrics,
}

/// Each switch with its flag, its default and its help.
const SWITCHES: [(Switch, &str, bool, &str); 12] = [
    (
        Switch::BcachePriorityStats,
        "collector.bcache.priorityStats",
        false,
        "Publish priority statistics of bcache, which take long to read",
    ),
    (Switch::CpuGuest, "collector.cpu.guest", true, "Publish node_cpu_guest_seconds_total"),
    (Switch::CpuInfo, "collector.cpu.info", false, "Publish node_cpu_info"),
    (
        Switch::InterruptZeros,
        "collector.interrupts.include-zeros",
        true,
        "Count CPUs on which an interrupt never happened",
    ),
    (
        Switch::IgnoreInvalidSpeed,
        "collector.netclass.ignore-invalid-speed",
        false,
        "Leave out speeds that the driver does not know",
    ),
    (
        Switch::RaplZoneLabel,
        "collector.rapl.enable-zone-label",
        false,
        "Publish one metric of energy with the zone as a label",
    ),
    (Switch::StatSoftirq, "collector.stat.softirq", false, "Publish software interrupts per vector"),
    (
        Switch::SystemdPrivate,
        "collector.systemd.private",
        false,
        "Ask systemd itself instead of the system bus, which takes root",
    ),
    (
        Switch::SystemdRestarts,
        "collector.systemd.enable-restarts-metrics",
        false,
        "Publish how often services were restarted",
    ),
    (
        Switch::SystemdStartTimes,
        "collector.systemd.enable-start-time-metrics",
        false,
        "Publish when units were started",
    ),
    (Switch::SystemdTasks, "collector.systemd.enable-task-metrics", false, "Publish the tasks of services"),
    (
        Switch::NoOwnMetrics,
        "web.disable-exporter-metrics",
        false,
        "Leave the agent's metrics about itself out of /metrics",
    ),
];

/// What becomes of a flag that is no option of ours.
#[derive(Clone, Copy, Debug)]
enum Other {
    /// What is published is the same with it and without.
    ChangesNothing(&'static str),
    /// It asks for something else than the agent publishes.
    Refused(&'static str),
    /// It belongs to a collector that the agent does not have.
    OfMissingCollector(&'static str),
}

/// A flag takes a value, or it is a switch.
const VALUE: bool = true;
const SWITCH: bool = false;

const OTHERS: [(&str, bool, Other); 31] = [
    ("collector.arp.netlink", SWITCH, Other::ChangesNothing("neighbours are counted from /proc/net/arp")),
    (
        "collector.filesystem.stat-workers",
        VALUE,
        Other::ChangesNothing("every mount that may hang has a thread of its own"),
    ),
    (
        "collector.netclass.netlink",
        SWITCH,
        Other::ChangesNothing("the same properties are read from /sys/class/net"),
    ),
    (
        "collector.netclass_rtnl.with-stats",
        SWITCH,
        Other::Refused("counters of interfaces are published by the collector netdev, under its names"),
    ),
    (
        "collector.netdev.address-info",
        SWITCH,
        Other::Refused("addresses of interfaces are not published (node_network_address_info)"),
    ),
    (
        "collector.netdev.enable-detailed-metrics",
        SWITCH,
        Other::Refused("counters of interfaces are published under their common names only"),
    ),
    (
        "collector.netdev.label-ifalias",
        SWITCH,
        Other::Refused("counters of interfaces have no label ifalias; join them with node_network_info"),
    ),
    (
        "collector.netdev.netlink",
        SWITCH,
        Other::ChangesNothing("the same counters are read from /proc/net/dev"),
    ),
    ("collector.ntp.ip-ttl", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.ntp.local-offset-tolerance", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.ntp.max-distance", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.ntp.protocol-version", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.ntp.server", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.ntp.server-is-local", SWITCH, Other::OfMissingCollector("ntp")),
    ("collector.ntp.server-port", VALUE, Other::OfMissingCollector("ntp")),
    ("collector.pcidevice.idsfile", VALUE, Other::OfMissingCollector("pcidevice")),
    ("collector.pcidevice.names", SWITCH, Other::OfMissingCollector("pcidevice")),
    ("collector.perf.cache-profilers", VALUE, Other::OfMissingCollector("perf")),
    ("collector.perf.cpus", VALUE, Other::OfMissingCollector("perf")),
    ("collector.perf.disable-cache-profilers", SWITCH, Other::OfMissingCollector("perf")),
    ("collector.perf.disable-hardware-profilers", SWITCH, Other::OfMissingCollector("perf")),
    ("collector.perf.disable-software-profilers", SWITCH, Other::OfMissingCollector("perf")),
    ("collector.perf.hardware-profilers", VALUE, Other::OfMissingCollector("perf")),
    ("collector.perf.software-profilers", VALUE, Other::OfMissingCollector("perf")),
    ("collector.perf.tracepoint", VALUE, Other::OfMissingCollector("perf")),
    ("collector.qdisc.fixtures", VALUE, Other::Refused("queues are read from the kernel, not from a file")),
    ("collector.runit.servicedir", VALUE, Other::OfMissingCollector("runit")),
    ("collector.supervisord.url", VALUE, Other::OfMissingCollector("supervisord")),
    ("collector.wifi.fixtures", VALUE, Other::OfMissingCollector("wifi")),
    ("runtime.gomaxprocs", VALUE, Other::ChangesNothing("the agent keeps a budget of CPU time instead")),
    (
        "web.max-requests",
        VALUE,
        Other::ChangesNothing("answers are made from memory, without sampling, one at a time"),
    ),
];

/// `web.systemd-socket` differs by being about how the program is started; it stands apart to keep its reason.
const SYSTEMD_SOCKET: (&str, &str) =
    ("web.systemd-socket", "sockets are not taken from systemd; give --web.listen-address instead");

/// Which of these flags were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeExporterFlags {
    switched: BTreeMap<Switch, bool>,
    others: BTreeSet<&'static str>,
}

impl NodeExporterFlags {
    /// Whether a switch is on, by a flag or by default.
    pub fn is_on(&self, switch: Switch) -> bool {
        let default = || SWITCHES.iter().any(|(known, _, default, _)| *known == switch && *default);
        self.switched.get(&switch).copied().unwrap_or_else(default)
    }

    /// Says of each flag that has no effect why, and refuses those that the agent cannot follow.
    ///
    /// # Errors
    /// The first flag that is refused, and why.
    pub fn check(&self) -> Result<(), AgentError> {
        let known = OTHERS.iter().map(|(name, _, other)| (*name, *other));
        let known = known.chain([(SYSTEMD_SOCKET.0, Other::Refused(SYSTEMD_SOCKET.1))]);
        for (name, other) in known.filter(|(name, _)| self.others.contains(name)) {
            let flag = format!("--{name}");
            match other {
                Other::ChangesNothing(reason) => {
                    tracing::info!(flag, reason, "This flag of node_exporter's changes nothing here");
                }
                Other::OfMissingCollector(collector) => {
                    tracing::warn!(flag, collector, "This agent has no such sampler; the flag is ignored");
                }
                Other::Refused(reason) => {
                    return Err(AgentError::Flag { flag, message: reason.to_owned() });
                }
            }
        }
        Ok(())
    }
}

/// The flags that are switches but not ours.
fn other_switches() -> impl Iterator<Item = &'static str> {
    let listed = OTHERS.iter().filter(|(_, takes_value, _)| !takes_value).map(|(name, ..)| *name);
    listed.chain([SYSTEMD_SOCKET.0])
}

impl clap::FromArgMatches for NodeExporterFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = NodeExporterFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for (switch, name, ..) in SWITCHES {
            for (id, on) in [(name.to_owned(), true), (format!("no-{name}"), false)] {
                if matches.get_flag(&id) {
                    self.switched.insert(switch, on);
                }
            }
        }
        self.others.extend(other_switches().filter(|name| matches.get_flag(name)));
        let values = OTHERS.iter().filter(|(_, takes_value, _)| *takes_value).map(|(name, ..)| *name);
        // Empty is how node_exporter's help writes down that such a flag is not given.
        let given = |name: &&str| {
            matches.get_many::<String>(name).is_some_and(|mut values| values.any(|value| !value.is_empty()))
        };
        self.others.extend(values.filter(given));
        Ok(())
    }
}

/// A switch in both spellings, of which the last one given counts.
fn both(name: &'static str) -> [Arg; 2] {
    let flag = |name: String, opposite: String| {
        Arg::new(name.clone()).long(name).action(ArgAction::SetTrue).overrides_with(opposite)
    };
    let negated = format!("no-{name}");
    [flag(name.to_owned(), negated.clone()), flag(negated, name.to_owned())]
}

impl clap::Args for NodeExporterFlags {
    fn augment_args(mut command: Command) -> Command {
        const HEADING: &str = "Sampler options (as node_exporter's)";
        for (_, name, default, help) in SWITCHES {
            let [on, off] = both(name);
            let what = format!("{}{}", help.chars().next().unwrap_or_default().to_lowercase(), &help[1..]);
            let help_off = format!("Do not: {what}");
            command = command.arg(on.help(help).help_heading(HEADING).hide(default));
            command = command.arg(off.help(help_off).help_heading(HEADING).hide(!default));
        }
        for name in other_switches() {
            command = command.args(both(name).map(|arg| arg.hide(true)));
        }
        for (name, ..) in OTHERS.iter().filter(|(_, takes_value, _)| *takes_value) {
            let arg = Arg::new(*name).long(*name).action(ArgAction::Append).hide(true);
            command = command.arg(arg.value_name("VALUE"));
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        flags: NodeExporterFlags,
    }

    fn flags(arguments: &[&str]) -> NodeExporterFlags {
        Cli::try_parse_from(["x"].iter().chain(arguments)).unwrap().flags
    }

    #[test]
    fn switches_have_defaults_and_both_spellings_and_the_last_one_counts() {
        assert!(flags(&[]).is_on(Switch::CpuGuest) && !flags(&[]).is_on(Switch::CpuInfo));
        for (switch, name, ..) in SWITCHES {
            let (on, off) = (format!("--{name}"), format!("--no-{name}"));
            assert!(flags(&[&on]).is_on(switch) && !flags(&[&off]).is_on(switch), "{name}");
            assert!(flags(&[&off, &on]).is_on(switch) && !flags(&[&on, &off]).is_on(switch), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name_and_what_changes_nothing_is_not() {
        for (name, takes_value, other) in OTHERS {
            let flag = format!("--{name}{}", if takes_value { "=x" } else { "" });
            let outcome = flags(&[&flag]).check();
            match other {
                Other::Refused(reason) => {
                    assert_eq!(outcome.unwrap_err().to_string(), format!("--{name}: {reason}"));
                }
                _ => assert!(outcome.is_ok(), "{name}"),
            }
            let none = if takes_value { format!("--{name}=") } else { format!("--no-{name}") };
            assert!(flags(&[&none]).check().is_ok(), "{none}");
        }
        assert!(flags(&["--web.systemd-socket"]).check().is_err());
    }
}
