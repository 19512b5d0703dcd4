//! Benchmarks of Pharos: each prints one line of JSON on stdout and its progress on stderr.

#![allow(clippy::print_stdout, reason = "the result is the output")]

mod engine;
mod process;
mod push;

use clap::Parser;

/// Benchmarks of Pharos; each prints one line of JSON
#[derive(Debug, Parser)]
#[command(name = "pharos-bench", version)]
enum Bench {
    /// The storage engine alone: appends, bytes, memory, reads
    Engine(engine::Arguments),
    /// Pushes telemetry to a running server and measures its CPU time
    Push(push::Arguments),
}

fn main() -> anyhow::Result<()> {
    let result = match Bench::parse() {
        Bench::Engine(arguments) => engine::run(&arguments)?,
        Bench::Push(arguments) => push::run(&arguments)?,
    };
    println!("{result}");
    Ok(())
}
