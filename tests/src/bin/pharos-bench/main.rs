//! Benchmarks of Pharos: each prints one line of JSON on stdout, and its progress on stderr if that is a
//! terminal.

#![allow(clippy::print_stdout, reason = "the result is the output")]

mod agent;
mod agents;
mod alerts;
mod all;
mod answer;
mod backfill;
mod bomb;
mod compare;
mod engine;
mod feed;
mod http;
mod node_day;
mod process;
mod progress;
mod push;
mod query;
mod questions;
mod record;
mod server;
mod storm;

use clap::Parser;

/// Benchmarks of Pharos; each prints one line of JSON
#[derive(Debug, Parser)]
#[command(name = "pharos-bench", version)]
enum Bench {
    /// The storage engine alone: appends, bytes, memory, reads
    Engine(engine::Arguments),
    /// Ingest, disk, memory and restarts beside the peers: the same data in one run, and the ratios
    Compare(compare::Arguments),
    /// Pushes telemetry to a running server and measures its CPU time
    Push(push::Arguments),
    /// Dashboard and rule queries beside the peers: warm, cold, and whether the answers agree
    Query(query::Arguments),
    /// Loads days of past data into a running server
    Backfill(backfill::Arguments),
    /// Simulated nodes in real time: the rate that is kept, how late acknowledgements come, what is lost
    Agents(agents::Arguments),
    /// pharos-agent beside node_exporter on this machine: CPU, memory, system calls
    Agent(agent::Arguments),
    /// From a breach written to a webhook received
    Alerts(alerts::Arguments),
    /// A hundred thousand series that breach at once, with 10,000 rules: what is told, how late, and the memory
    Storm(storm::Arguments),
    /// Millions of new series while nodes go on: memory, time, what is lost, and who is named
    Bomb(bomb::Arguments),
    /// The main rows of all of these; some minutes with --quick
    All(all::Arguments),
    /// A recorded hour of this machine as 24: what a day of a node takes here and in the peers
    NodeDay(node_day::Arguments),
    /// Records node_exporter on this machine for `--data recording`, and the agent beside it for `node-day`
    Record(record::Arguments),
}

fn main() -> anyhow::Result<()> {
    println!("{}", execute(Bench::parse())?);
    Ok(())
}

/// Runs one of them.
fn execute(bench: Bench) -> anyhow::Result<serde_json::Value> {
    match bench {
        Bench::Engine(arguments) => engine::run(&arguments),
        Bench::Compare(arguments) => compare::run(&arguments),
        Bench::Push(arguments) => push::run(&arguments),
        Bench::Query(arguments) => query::run(&arguments),
        Bench::Backfill(arguments) => backfill::run(&arguments),
        Bench::Agents(arguments) => agents::run(&arguments),
        Bench::Agent(arguments) => agent::run(&arguments),
        Bench::Alerts(arguments) => alerts::run(&arguments),
        Bench::Storm(arguments) => storm::run(&arguments),
        Bench::Bomb(arguments) => bomb::run(&arguments),
        Bench::All(arguments) => all::run(&arguments),
        Bench::NodeDay(arguments) => node_day::run(&arguments),
        Bench::Record(arguments) => record::run(&arguments),
    }
}
