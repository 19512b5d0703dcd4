//! The same fake host read by Debian's node_exporter and by the agent: every series that node_exporter finds
//! is there, with the same labels and value. Where node_exporter is not installed the test says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use support::{Bench, fixtures, host_flags};

/// Collectors that read nothing but files of the trees given, and mean the same in version 1.5 as today.
const COLLECTORS: [&str; 32] = [
    "arp",
    "bcache",
    "bonding",
    "btrfs",
    "buddyinfo",
    "conntrack",
    "diskstats",
    "dmi",
    "edac",
    "entropy",
    "fibrechannel",
    "filefd",
    "infiniband",
    "ipvs",
    "ksmd",
    "lnstat",
    "loadavg",
    "mdadm",
    "meminfo",
    "netstat",
    "nfs",
    "nfsd",
    "nvme",
    "powersupplyclass",
    "pressure",
    "rapl",
    "sockstat",
    "stat",
    "tapestats",
    "vmstat",
    "xfs",
    "zfs",
];

struct Exporter(Child);

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

type Series = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Series by name and labels. Empty labels are the same as none.
fn parse(text: &str) -> Series {
    let mut series = Series::new();
    for line in text.lines().filter(|line| line.starts_with("node_")) {
        let (series_text, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series_text.split_once('{').unwrap_or((series_text, ""));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| {
            let (name, value) = label.split_once("=\"")?;
            let value = value.trim_end_matches('"').replace(fixtures().to_str().unwrap(), "");
            (!value.is_empty()).then(|| (name.to_owned(), value))
        });
        series.insert((name.to_owned(), labels.collect()), value.parse().unwrap());
    }
    series
}

fn get(address: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("200 OK").then_some(answer)
}

/// What node_exporter shows with these collectors; `None` if it is not installed.
fn scrape_node_exporter<'a>(collectors: &[&str], flags: impl Iterator<Item = &'a str>) -> Option<Series> {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let exporter = Command::new("prometheus-node-exporter")
        .arg(format!("--web.listen-address={address}"))
        .args(flags)
        .arg("--collector.disable-defaults")
        .args(collectors.iter().map(|name| format!("--collector.{name}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(exporter) = exporter else {
        eprintln!("prometheus-node-exporter is not installed; nothing to compare with");
        return None;
    };
    let mut exporter = Exporter(exporter);
    loop {
        match get(&address) {
            Some(answer) => return Some(parse(&answer)),
            None => assert!(exporter.0.try_wait().unwrap().is_none(), "node_exporter has ended"),
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

#[test]
fn drivers_of_this_machines_interfaces_tell_the_same() {
    let Some(theirs) = scrape_node_exporter(&["ethtool"], std::iter::empty()) else { return };
    let mut bench = Bench::new(&["--collector.disable-defaults", "--collector.ethtool"]);
    bench.tick();
    let ours = parse(&bench.text());
    let theirs = theirs
        .iter()
        .filter(|((name, _), _)| name.starts_with("node_ethtool_") || name.starts_with("node_network_"));
    for (series, value) in theirs {
        // Traffic goes on meanwhile.
        let found = ours.get(series).unwrap_or_else(|| panic!("{series:?} {value}"));
        assert!(found >= value, "{series:?}: {found} after {value}");
    }
}

#[test]
fn the_fake_host_looks_the_same_to_node_exporter() {
    let flags = host_flags(&fixtures());
    let of_paths = flags.iter().filter(|flag| flag.starts_with("--path.") && !flag.contains("kmsg"));
    let Some(theirs) = scrape_node_exporter(&COLLECTORS, of_paths.map(String::as_str)) else { return };
    let on = COLLECTORS.map(|name| format!("--collector.{name}"));
    let flags = flags.iter().map(String::as_str).chain(["--collector.disable-defaults"]);
    let mut bench = Bench::new(&flags.chain(on.iter().map(String::as_str)).collect::<Vec<_>>());
    bench.tick();
    bench.tick();
    let ours = parse(&bench.text());
    let mut differences = Vec::new();
    let mut compared = 0;
    for (series, value) in &theirs {
        // What is theirs, and what has one label more since.
        let other = [
            "node_scrape_collector_duration_seconds",
            "node_exporter_build_info",
            "node_disk_info",
            "node_nvme_info",
        ];
        if other.contains(&series.0.as_str()) {
            continue;
        }
        compared += 1;
        match ours.get(series) {
            Some(found) if (found - value).abs() <= value.abs() * 1e-9 => {}
            found => differences.push(format!("{series:?}: {found:?} instead of {value}")),
        }
    }
    assert!(differences.is_empty(), "{} of {compared}:\n{}", differences.len(), differences.join("\n"));
    assert!(compared > 500, "only {compared} series");
}

/// Which collectors tell of success on a host, here and there.
fn successes(root: &std::path::Path) -> Option<[BTreeMap<String, bool>; 2]> {
    let flags = host_flags(root);
    let of_paths = flags.iter().filter(|flag| flag.starts_with("--path.") && !flag.contains("kmsg"));
    let theirs = scrape_node_exporter(&COLLECTORS, of_paths.map(String::as_str))?;
    let on = COLLECTORS.map(|name| format!("--collector.{name}"));
    let flags = flags.iter().map(String::as_str).chain(["--collector.disable-defaults"]);
    let mut bench = Bench::new(&flags.chain(on.iter().map(String::as_str)).collect::<Vec<_>>());
    bench.tick();
    bench.tick();
    let of = |series: Series| {
        let mut successes = BTreeMap::new();
        for ((name, labels), value) in series {
            if name == "node_scrape_collector_success" {
                successes.insert(labels["collector"].clone(), value == 1.0);
            }
        }
        successes
    };
    Some([of(parse(&bench.text())), of(theirs)])
}

#[test]
fn a_host_that_has_nothing_is_told_from_one_that_could_as_node_exporter_does() {
    let root = tempfile::tempdir().unwrap();
    for folder in ["proc", "sys", "udev", "root"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    let Some([ours, theirs]) = successes(root.path()) else { return };
    assert_eq!(ours, theirs, "without any file");
    let class = root.path().join("sys/class");
    for folder in ["dmi/id", "fc_host", "infiniband", "nvme", "power_supply", "powercap", "scsi_tape"] {
        std::fs::create_dir_all(class.join(folder)).unwrap();
    }
    std::fs::create_dir_all(class.join("net")).unwrap();
    std::fs::write(class.join("net/bonding_masters"), "\n").unwrap();
    std::fs::write(root.path().join("proc/mdstat"), "Personalities :\nunused devices: <none>\n").unwrap();
    let Some([ours, theirs]) = successes(root.path()) else { return };
    assert_eq!(ours, theirs, "with empty folders");
}
