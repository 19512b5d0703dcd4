//! The catalogue of metrics against what is published, and against node_exporter's own list.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pharos_agent::sampler::SAMPLERS;
use pharos_proto::catalogue::{Catalogue, Kind};
use std::collections::BTreeSet;
use support::{Bench, fixtures, host_flags};

fn check(bench: &Bench, at_least: usize) {
    let catalogue = Catalogue::get();
    let mut series = 0;
    for posted in bench.latest() {
        let message = &posted.definition.message;
        for (at, column) in message.columns.iter().enumerate() {
            let metric = catalogue.find(&column.name);
            let metric = metric.unwrap_or_else(|| panic!("{} is not in proto/metrics.toml", column.name));
            let labels = message.labels.iter().chain(&column.labels).map(|label| label.name.as_str());
            let unknown: Vec<&str> = labels
                .filter(|name| !["instance", "job"].contains(name) && !metric.labels.contains(name))
                .collect();
            assert!(unknown.is_empty(), "{}: labels {unknown:?} are not in proto/metrics.toml", column.name);
            series += usize::from(posted.present.contains(at));
        }
        let shared: Vec<(&str, &str)> =
            message.labels.iter().take(2).map(|label| (label.name.as_str(), label.value.as_str())).collect();
        assert_eq!(shared, [("instance", "node-1"), ("job", "node")]);
    }
    assert!(series >= at_least, "only {series} series");
}

#[test]
fn everything_published_is_in_the_catalogue() {
    let flags = host_flags(&fixtures());
    // Those off by default, too; what the queues of this machine's interfaces are is another matter.
    let opt_in = SAMPLERS.iter().filter(|kind| !kind.default_on && kind.name != "qdisc");
    let opt_in: Vec<String> = opt_in.map(|kind| format!("--sampler.{}", kind.name)).collect();
    let mut bench = Bench::new(&flags.iter().chain(&opt_in).map(String::as_str).collect::<Vec<_>>());
    bench.tick();
    check(&bench, 450);
}

#[test]
fn this_machine_has_three_hundred_series_of_known_metrics() {
    let mut bench = Bench::new(&["--collector.cpu.info"]);
    bench.tick();
    check(&bench, 300);
}

/// Metrics of collectors that are off by default there and that the agent does not have.
const OF_OTHER_COLLECTORS: [&str; 6] =
    ["node_dmmultipath_", "node_drbd_", "node_lnstat_", "node_pcidevice_", "node_wifi_", "node_xfrm_"];
/// node_exporter's own; the agent has `pharos_build_info`.
const OF_THE_PROGRAM: &str = "node_exporter_build_info";

#[test]
fn types_help_and_labels_are_node_exporters() {
    // The shared folder lies beside the checkout, or one level higher beside a folder of checkouts.
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let candidates = ["../../shared", "../../../shared"].map(|up| here.join(up).join("conformance"));
    let text =
        candidates.iter().find_map(|at| std::fs::read_to_string(at.join("node_exporter-metrics.tsv")).ok());
    let Some(text) = text else {
        eprintln!("no list of node_exporter's metrics in {candidates:?}; nothing to compare with");
        return;
    };
    let (mut compared, mut differences) = (BTreeSet::new(), Vec::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, kind, labels, help] = fields[..] else { continue };
        if name == OF_THE_PROGRAM || OF_OTHER_COLLECTORS.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        let Some(metric) = Catalogue::get().find(name) else {
            differences.push(format!("{name} is missing"));
            continue;
        };
        let want = match kind {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            _ => Kind::Untyped,
        };
        // The help of a kernel setting spells it with dots; the sampler knows where they were.
        let setting = name.starts_with("node_sysctl_") && name != "node_sysctl_info";
        let same = setting || (metric.kind, metric.help_for(name).as_str()) == (want, help);
        // The list was made from code, where a label may be written in several ways.
        let lacking: Vec<&str> = labels
            .split(',')
            .filter(|label| !label.is_empty() && !label.contains('|') && !metric.labels.contains(label))
            .collect();
        if !same || !lacking.is_empty() {
            differences.push(format!("{name}: {:?}, {}; without {lacking:?}", metric.kind, metric.help));
        }
        compared.insert(name);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared.len() > 1_000, "{}", compared.len());
}
