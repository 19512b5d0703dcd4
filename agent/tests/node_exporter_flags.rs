//! A command line of node_exporter's: every flag of it is taken and does here what it does there, or is refused by
//! name with the reason. The flags are listed in `data/node_exporter_flags.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use clap::Parser;
use pharos_agent::AgentOptions;
use pharos_agent::sampler::{Filter, SamplerOptions};
use pharos_common::flags::LogFlags;
use std::collections::BTreeSet;
use support::{Bench, fixtures, host_flags};

const FLAGS: &str = include_str!("data/node_exporter_flags.txt");

/// The program's whole command line.
#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: AgentOptions,
    #[command(flatten)]
    _log: LogFlags,
}

/// What a flag says, if the agent refuses it.
fn refusal(argument: &str) -> Option<String> {
    let cli = Cli::try_parse_from(["pharos-agent", argument]);
    let cli = cli.unwrap_or_else(|error| panic!("{argument} is no flag of the agent's: {error}"));
    cli.options.load().err().map(|error| error.to_string())
}

/// Kind and name of each flag.
fn flags() -> impl Iterator<Item = (&'static str, &'static str)> {
    FLAGS.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_once(' ').unwrap())
}

/// What the agent does not do, and a person who asks for it has to know.
const REFUSED: [&str; 6] = [
    "collector.netclass_rtnl.with-stats",
    "collector.netdev.address-info",
    "collector.netdev.enable-detailed-metrics",
    "collector.netdev.label-ifalias",
    "collector.qdisc.fixtures",
    "web.systemd-socket",
];

#[test]
fn every_flag_is_taken_or_refused_with_a_reason() {
    let mut refused = BTreeSet::new();
    for (kind, name) in flags() {
        let value = match name {
            "collector.filesystem.mount-timeout" | "collector.ntp.max-distance" => "5s",
            "collector.ipvs.backend-labels" => "local_address,proto",
            "log.format" => "json",
            "log.level" => "debug",
            "web.config.file" => "",
            "web.telemetry-path" => "/node/metrics",
            _ => "x",
        };
        let argument = if kind == "value" { format!("--{name}={value}") } else { format!("--{name}") };
        if let Some(message) = refusal(&argument) {
            assert!(message.starts_with(&format!("--{name}: ")), "{argument}: {message}");
            refused.insert(name);
        }
        if kind == "switch" {
            assert_eq!(refusal(&format!("--no-{name}")), None, "what is not wanted cannot be missing");
        } else if !name.starts_with("path.") && !name.starts_with("log.") && name != "web.telemetry-path" {
            let empty = Cli::try_parse_from(["pharos-agent", &format!("--{name}=")]);
            let wants_more = ["collector.filesystem.mount-timeout"].contains(&name);
            assert!(empty.is_ok() || wants_more, "{name} may be empty, as its default is there");
        }
    }
    assert_eq!(refused, BTreeSet::from(REFUSED));
    assert!(flags().count() > 170);
}

/// What `/metrics` shows of the fake host with some flags.
fn shown(flags: &[&str]) -> String {
    let host = host_flags(&fixtures());
    let flags = host.iter().map(String::as_str).chain(flags.iter().copied());
    let mut bench = Bench::new(&flags.collect::<Vec<_>>());
    bench.tick();
    bench.tick();
    bench.text()
}

/// What starts a line only without the flags, and what does with them.
#[track_caller]
fn check(collector: &str, flags: &[&str], hidden: &[&str], there: &[&str]) {
    let on = format!("--collector.{collector}");
    let only = ["--collector.disable-defaults", &on];
    let (before, after) = (shown(&only), shown(&[&only[..], flags].concat()));
    let has = |text: &str, start: &str| text.lines().any(|line| line.starts_with(start));
    for start in hidden {
        assert!(has(&before, start) && !has(&after, start), "{flags:?} hides {start}:\n{after}");
    }
    for start in there {
        assert!(has(&after, start), "{flags:?} shows {start}:\n{after}");
    }
}

#[test]
fn filters_leave_out_and_let_in_what_they_name() {
    let disks = (r#"node_disk_io_now{device="sda"}"#, r#"node_disk_io_now{device="dm-0"}"#);
    check("diskstats", &["--collector.diskstats.device-exclude=^sd"], &[disks.0], &[disks.1]);
    check("diskstats", &["--collector.diskstats.ignored-devices=^sd"], &[disks.0], &[disks.1]);
    check("diskstats", &["--collector.diskstats.device-include=^sda$"], &[disks.1], &[disks.0]);
    let neighbours = (r#"node_arp_entries{device="eth0"}"#, r#"node_arp_entries{device="eth1"}"#);
    check("arp", &["--collector.arp.device-exclude=0"], &[neighbours.0], &[neighbours.1]);
    check("arp", &["--collector.arp.device-include=0"], &[neighbours.1], &[neighbours.0]);
    let traffic = (
        r#"node_network_receive_bytes_total{device="lo"}"#,
        r#"node_network_receive_bytes_total{device="eth0"}"#,
    );
    for flag in ["device-exclude", "device-blacklist"] {
        check("netdev", &[&format!("--collector.netdev.{flag}=^lo$")], &[traffic.0], &[traffic.1]);
    }
    for flag in ["device-include", "device-whitelist"] {
        check("netdev", &[&format!("--collector.netdev.{flag}=^lo$")], &[traffic.1], &[traffic.0]);
    }
    let up = (r#"node_network_up{device="bond0"}"#, r#"node_network_up{device="eth0"}"#);
    check("netclass", &["--collector.netclass.ignored-devices=^bond"], &[up.0], &[up.1]);
    let kinds = (
        r#"node_filesystem_size_bytes{device="tmpfs""#,
        r#"node_filesystem_size_bytes{device="/dev/nvme0n1p1""#,
    );
    for flag in ["fs-types-exclude", "ignored-fs-types"] {
        check("filesystem", &[&format!("--collector.filesystem.{flag}=^tmpfs$")], &[kinds.0], &[kinds.1]);
    }
    for flag in ["mount-points-exclude", "ignored-mount-points"] {
        check("filesystem", &[&format!("--collector.filesystem.{flag}=blank")], &[kinds.0], &[kinds.1]);
    }
    check("filesystem", &["--collector.filesystem.mount-points-include=blank"], &[kinds.1], &[kinds.0]);
    check("filesystem", &["--collector.filesystem.fs-types-include=^tmpfs$"], &[kinds.1], &[kinds.0]);
    let heat = r#"node_hwmon_temp_celsius{chip="platform_coretemp_0",sensor="temp1"}"#;
    check("hwmon", &["--collector.hwmon.chip-exclude=coretemp"], &[heat], &[]);
    check("hwmon", &["--collector.hwmon.chip-include=coretemp"], &[], &[heat]);
    let chip = "node_hwmon_chip_names";
    check("hwmon", &["--collector.hwmon.sensor-exclude=^platform_coretemp_0;temp1$"], &[heat], &[chip]);
    check("hwmon", &["--collector.hwmon.sensor-include=;temp1$"], &[], &[heat]);
    check("hwmon", &["--collector.hwmon.sensor-include=^temp1$"], &[heat], &[chip]);
    let supply = r#"node_power_supply_online{power_supply="AC"}"#;
    check("powersupplyclass", &["--collector.powersupply.ignored-supplies=^AC$"], &[supply], &[]);
    let tape = r#"node_tape_io_now{device="st0"}"#;
    check("tapestats", &["--collector.tapestats.ignored-devices=^st"], &[tape], &[]);
    let timer = r#"node_interrupts_total{cpu="0",info="Local timer interrupts",type="LOC"}"#;
    let device = r#"node_interrupts_total{cpu="0",devices="5-edge ACPI:Ged",info="IO-APIC",type="24"}"#;
    check("interrupts", &["--collector.interrupts.name-exclude=^LOC;"], &[timer], &[device]);
    check("interrupts", &["--collector.interrupts.name-include=^LOC;"], &[device], &[timer]);
    let slab = r#"node_slabinfo_active_objects{slab="dentry"}"#;
    check("slabinfo", &["--collector.slabinfo.slabs-exclude=dentry"], &[slab], &[]);
    check("slabinfo", &["--collector.slabinfo.slabs-include=dentry"], &[], &[slab]);
    check("netstat", &["--collector.netstat.fields=^Udp_"], &["node_netstat_Tcp_"], &["node_netstat_Udp_"]);
    check("vmstat", &["--collector.vmstat.fields=^oom"], &["node_vmstat_pgfault"], &["node_vmstat_oom_kill"]);
}

#[test]
fn switches_and_lists_do_what_they_say() {
    let guest = "node_cpu_guest_seconds_total";
    check("cpu", &["--no-collector.cpu.guest"], &[guest], &["node_cpu_seconds_total"]);
    check("cpu", &["--collector.cpu.guest"], &[], &[guest]);
    check("cpu", &["--collector.cpu.info"], &[], &[r#"node_cpu_info{cachesize="49152 KB",core="1",cpu="1""#]);
    let (flag, bug) = (r#"node_cpu_flag_info{flag="avx2"} 1"#, r#"node_cpu_bug_info{bug="spectre_v1"} 1"#);
    check("cpu", &["--collector.cpu.info.flags-include=^avx"], &[], &[flag, "node_cpu_info{"]);
    check("cpu", &["--collector.cpu.info.bugs-include=^spectre"], &[], &[bug]);
    let speed = r#"node_network_speed_bytes{device="eth0"}"#;
    check("netclass", &["--collector.netclass.ignore-invalid-speed"], &[], &[speed]);
    let (named, labelled) = (
        r#"node_rapl_package_joules_total{index="1","#,
        r#"node_rapl_joules_total{index="1",path="/sys/class/powercap/intel-rapl:1",rapl_zone="package"} 0.118201"#,
    );
    check("rapl", &["--collector.rapl.enable-zone-label"], &[named], &[labelled]);
    check("rapl", &["--no-collector.rapl.enable-zone-label"], &[], &[named]);
    let vectors = [
        r#"node_softirqs_total{vector="hi"} 0"#,
        r#"node_softirqs_total{vector="timer"} 45585"#,
        r#"node_softirqs_total{vector="rcu"} 103422"#,
    ];
    check("stat", &["--collector.stat.softirq"], &[], &vectors);
    check("stat", &["--no-collector.stat.softirq"], &[], &["node_intr_total"]);
    let unused = r#"node_bcache_priority_stats_unused_percent{cache_device="cache0","#;
    check("bcache", &["--collector.bcache.priorityStats"], &[], &[unused]);
    let never = r#"node_interrupts_total{cpu="1",devices="5-edge ACPI:Ged",info="IO-APIC",type="24"} 0"#;
    check("interrupts", &["--no-collector.interrupts.include-zeros"], &[never], &["node_interrupts_total"]);
    let by_port = r#"node_ipvs_backend_connections_active{local_port="3306"} 496"#;
    let by_address = r#"node_ipvs_backend_connections_active{local_address="192.168.0.22","#;
    check("ipvs", &["--collector.ipvs.backend-labels=local_port"], &[by_address], &[by_port]);
    check(
        "sysctl",
        &["--collector.sysctl.include=kernel.threads-max", "--collector.sysctl.include-info=kernel.pid_max"],
        &[],
        &["node_sysctl_kernel_threads_max ", r#"node_sysctl_info{index="0",name="kernel.pid_max","#],
    );
    let folder = tempfile::tempdir().unwrap();
    for (sub, name) in [("jobs-a", "a"), ("jobs-b", "b"), ("other", "c")] {
        std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        std::fs::write(folder.path().join(sub).join("x.prom"), format!("{name} 1\n")).unwrap();
    }
    let flag = |name: &str| format!("--collector.textfile.directory={}/{name}", folder.path().display());
    check("textfile", &[&flag("other")], &[], &["c 1"]);
    check("textfile", &[&flag("jobs-a"), &flag("other")], &[], &["a 1", "c 1"]);
    check("textfile", &[&flag("jobs-*")], &[], &["a 1", "b 1"]);
}

/// What depends on the machine's interfaces and services: the filter itself.
#[test]
fn filters_of_what_no_fake_host_has_name_their_objects() {
    #[track_caller]
    fn check(argument: &str, filter: fn(&SamplerOptions) -> &Filter, kept: &str, left_out: &str) {
        let config = support::config(&[argument]);
        let filter = filter(&config.plan.options);
        assert!(filter.keeps(kept) && !filter.keeps(left_out), "{argument}");
    }
    check("--collector.ethtool.device-include=^eth", |o| &o.ethtool_devices, "eth0", "ib0");
    check("--collector.ethtool.device-exclude=^eth", |o| &o.ethtool_devices, "ib0", "eth0");
    check("--collector.ethtool.metrics-include=^rx", |o| &o.ethtool_metrics, "rx_bytes", "tx_bytes");
    for spelling in ["qdisc", "qdisk"] {
        check(&format!("--collector.{spelling}.device-include=^eth"), |o| &o.qdiscs, "eth0", "ib0");
        check(&format!("--collector.{spelling}.device-exclude=^eth"), |o| &o.qdiscs, "ib0", "eth0");
    }
    for spelling in ["include", "whitelist"] {
        let flag = format!("--collector.systemd.unit-{spelling}=ssh.+");
        check(&flag, |o| &o.systemd_units, "ssh.service", "assh.service");
    }
    for spelling in ["exclude", "blacklist"] {
        let flag = format!("--collector.systemd.unit-{spelling}=ssh.+");
        check(&flag, |o| &o.systemd_units, "assh.service", "ssh.service");
    }
    let options = support::config(&[
        "--collector.systemd.enable-task-metrics",
        "--no-collector.systemd.enable-restarts-metrics",
        "--collector.systemd.private",
        "--collector.filesystem.mount-timeout=7s",
    ])
    .plan
    .options;
    assert!(options.systemd.tasks && !options.systemd.restarts && options.systemd.private);
    assert_eq!(options.mount_timeout.as_secs(), 7);
}

#[test]
fn every_collector_is_switched_by_either_form_and_those_off_by_default_are_off() {
    let running = |arguments: &[&str]| -> BTreeSet<&'static str> {
        support::config(arguments).plan.samplers.iter().map(|planned| planned.kind.name).collect()
    };
    let defaults = running(&[]);
    for kind in pharos_agent::sampler::SAMPLERS {
        let (on, off) = (format!("--collector.{}", kind.name), format!("--no-collector.{}", kind.name));
        assert_eq!(defaults.contains(kind.name), kind.default_on);
        assert!(running(&[&on]).contains(kind.name) && !running(&[&off]).contains(kind.name), "{on}");
        assert_eq!(running(&["--collector.disable-defaults", &on]), BTreeSet::from([kind.name]));
    }
    assert_eq!(running(&["--collector.disable-defaults", "--no-collector.disable-defaults"]), defaults);
}
