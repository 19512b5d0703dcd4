//! What a well-known dashboard asks for is there: Node Exporter Full (1860), by the names of its metrics in
//! `data/node_exporter_full.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use support::{Bench, fixtures, host_flags};

const NAMES: &str = include_str!("data/node_exporter_full.txt");

fn names_of(bench: &mut Bench) -> BTreeSet<String> {
    bench.tick();
    bench.tick();
    let text = bench.text();
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

/// The names behind a comment's line, up to the next comment.
fn section(start: &str) -> Vec<&'static str> {
    let lines = NAMES.lines().skip_while(|line| !line.starts_with(start));
    let names: Vec<&str> = lines
        .skip_while(|line| line.starts_with('#'))
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(!names.is_empty());
    names
}

#[test]
fn everything_that_node_exporter_full_shows_by_default_is_sampled_by_default() {
    let flags = host_flags(&fixtures());
    let names = names_of(&mut Bench::new(&flags.iter().map(String::as_str).collect::<Vec<_>>()));
    let missing: Vec<&str> = section("# What").into_iter().filter(|name| !names.contains(*name)).collect();
    // Some sandboxes do not let anybody ask for the state of the clock.
    let forbidden = !names.contains("node_timex_status");
    let missing: Vec<&str> =
        missing.into_iter().filter(|name| !(forbidden && name.starts_with("node_timex_"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn its_other_panels_work_with_the_collectors_that_they_name() {
    let flags = host_flags(&fixtures());
    let on = ["--collector.interrupts", "--collector.processes", "--collector.tcpstat"];
    let names = names_of(&mut Bench::new(&flags.iter().map(String::as_str).chain(on).collect::<Vec<_>>()));
    let missing: Vec<&str> =
        section("# Of collectors").into_iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn systemds_metrics_are_known_by_name() {
    // Its sampler's own tests speak with a systemd of their own.
    for name in section("# Of systemd") {
        assert!(pharos_proto::catalogue::Catalogue::get().find(name).is_some(), "{name}");
    }
}

#[test]
fn the_agents_own_process_is_shown_as_an_exporters() {
    let families = pharos_common::self_metrics::registry("agent").unwrap().gather();
    let names: BTreeSet<&str> = families.iter().map(|family| family.name()).collect();
    let missing: Vec<&str> =
        section("# Of the exporter").into_iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn what_nobody_has_by_default_is_named_with_the_reason() {
    let flags = host_flags(&fixtures());
    let names = names_of(&mut Bench::new(&flags.iter().map(String::as_str).collect::<Vec<_>>()));
    let absent = section("# Asked for");
    assert!(absent.iter().all(|name| !names.contains(*name)), "the list of reasons is old");
    let more = ["--collector.netstat.fields=^Tcp_MaxConn$"];
    let with_field =
        names_of(&mut Bench::new(&flags.iter().map(String::as_str).chain(more).collect::<Vec<_>>()));
    assert!(with_field.contains("node_netstat_Tcp_MaxConn"));
}
