//! What eight GPUs with all counters cost at one reading a second, against the fake NVML library:
//! `cargo bench -p pharos-agent --bench gpu_cost [-- SECONDS]`.
//!
//! Prints processor time of the agent's side and of the reader process a reading. The reader's includes the
//! fake library's own work, which stands for the driver's, so the sum is an upper bound of what is added.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints and fails by panicking"
)]

#[allow(dead_code, unreachable_pub, reason = "shared with the tests, used in part")]
#[path = "../tests/support/fake_nvml.rs"]
mod fake_nvml;

use clap::Parser;
use pharos_agent::AgentOptions;
use pharos_agent::group::GroupSet;
use pharos_agent::kernel_files::ReadBuffer;
use std::time::{Duration, Instant};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: AgentOptions,
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(20u32);
    let fake = fake_nvml::FakeNvml::new("gpus 8\nprocess * 42 1000000\nstatic\n");
    let flags = std::iter::once("pharos-agent".to_owned()).chain(fake.flags());
    let options = Cli::parse_from(flags).options.load().unwrap().plan.options;
    let mut sampler = (pharos_agent::sampler::find("gpu").unwrap().build)(&options);
    let (mut buffer, mut groups) = (ReadBuffer::default(), GroupSet::default());
    let mut read = || {
        groups.begin();
        sampler.sample(&mut buffer, &mut groups).unwrap();
        let samples: usize = groups.iter().map(|group| group.present().len()).sum();
        let cpu = {
            let mut found = groups.iter().flat_map(|group| group.columns().iter().zip(group.values()));
            let cpu = found.find(|(column, _)| column.name == "pharos_gpu_reader_cpu_seconds_total");
            cpu.map_or(0.0, |(_, seconds)| *seconds)
        };
        groups.published();
        (samples, cpu)
    };
    let started = Instant::now();
    while read().0 < 8 * 180 {
        assert!(started.elapsed() < Duration::from_secs(60), "the reader does not come up");
        std::thread::sleep(Duration::from_millis(150));
    }
    let (samples, reader_before) = read();
    let (mut agent, mut reader) = (Duration::ZERO, reader_before);
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        let before = own_cpu();
        reader = read().1;
        agent += own_cpu() - before;
    }
    let readings = f64::from(seconds);
    let agent = agent.as_secs_f64() / readings;
    let reader = (reader - reader_before) / readings;
    println!("8 GPUs, {samples} samples a reading, {seconds} readings at 1 s");
    println!("agent's side         {:7.0} us a reading  {:.3} % of a core", agent * 1e6, agent * 100.0);
    println!("reader, fake driver  {:7.0} us a reading  {:.3} % of a core", reader * 1e6, reader * 100.0);
    println!(
        "together             {:7.0} us a reading  {:.3} % of a core",
        (agent + reader) * 1e6,
        (agent + reader) * 100.0
    );
}

fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
