//! Benchmarks of Pharos: each prints one line of JSON on stdout, and its progress on stderr if that is a
//! terminal.

#![allow(clippy::print_stdout, reason = "the result is the output")]

mod answer;
mod compare;
mod engine;
mod feed;
mod http;
mod process;
mod progress;
mod push;
mod query;
mod questions;
mod server;

use clap::Parser;

/// Benchmarks of Pharos; each prints one line of JSON
#[derive(Debug, Parser)]
#[command(name = "pharos-bench", version)]
enum Bench {
    /// The storage engine alone: appends, bytes, memory, reads
    Engine(engine::Arguments),
    /// Beside Debian's victoria-metrics: the same data in one run, and the ratios
    Compare(compare::Arguments),
    /// Pushes telemetry to a running server and measures its CPU time
    Push(push::Arguments),
    /// Dashboard and rule queries beside the peers: warm, cold, and whether the answers agree
    Query(query::Arguments),
}

fn main() -> anyhow::Result<()> {
    let result = match Bench::parse() {
        Bench::Engine(arguments) => engine::run(&arguments)?,
        Bench::Compare(arguments) => compare::run(&arguments)?,
        Bench::Push(arguments) => push::run(&arguments)?,
        Bench::Query(arguments) => query::run(&arguments)?,
    };
    println!("{result}");
    Ok(())
}
