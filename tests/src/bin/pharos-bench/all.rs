//! The main rows of every benchmark, one after another, as one result.

use crate::{Bench, execute};
use clap::Parser;
use serde_json::{Value, json};
use std::time::Instant;

/// See the program's help.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Few data: below ten minutes on two cores
    #[arg(long)]
    quick: bool,
}

/// Command lines, by how much time there is.
const QUICK: [&str; 7] = [
    "compare --nodes 50 --seconds 120",
    "compare --nodes 50 --seconds 120 --data recording --servers victoria-metrics,pharos-remote-write,pharos-native",
    "query --small --repeats 15",
    "agents 50 --seconds 30 --start pharos",
    "alerts --nodes 300 --breaches 100",
    "agent --seconds 30 --phases 1s",
    "engine --nodes 50 --seconds 300",
];
const FULL: [&str; 13] = [
    "compare",
    "compare --data recording --servers victoria-metrics,pharos-remote-write,pharos-native",
    "query",
    "agents 100 --seconds 120 --start victoria-metrics --remote-write",
    "agents 100 --seconds 120 --start pharos --remote-write",
    "agents 100 --seconds 120 --start pharos",
    "alerts",
    "alerts --beside",
    "alerts --beside --kill",
    "agent",
    "node-day",
    "engine",
    "bomb",
];

/// Runs them; one line of JSON. One that fails does not stop the others.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    let lines: &[&str] = if arguments.quick { &QUICK } else { &FULL };
    let mut results = Vec::new();
    for line in lines {
        eprintln!("\npharos-bench {line}");
        let begin = Instant::now();
        let words = ["pharos-bench"].into_iter().chain(line.split_whitespace());
        let result = match Bench::try_parse_from(words).map_err(anyhow::Error::from).and_then(execute) {
            Ok(result) => result,
            Err(error) => json!({"error": format!("{error:#}")}),
        };
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        results.push(json!({"command": line, "seconds": begin.elapsed().as_secs(),
            "load_average": load.split_whitespace().next(), "result": result}));
    }
    Ok(json!({"bench": "all", "quick": arguments.quick, "results": results}))
}
