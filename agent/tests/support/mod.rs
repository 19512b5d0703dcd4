//! What several tests of the agent share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod collector;
pub mod fake_nvml;
pub mod kubelet;

use clap::Parser;
use pharos_agent::board::{Board, Posted};
use pharos_agent::directory::Directory;
use pharos_agent::exposition::{Exposition, Format};
use pharos_agent::own_metrics::OwnMetrics;
use pharos_agent::schedule::{Plan, Scheduler, Shared};
use pharos_agent::status::SamplerStatus;
use pharos_agent::{AgentConfig, AgentOptions};
use pharos_common::clock::ManualClock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// When the manual clock starts, milliseconds.
pub const START_MS: i64 = 1_700_000_000_500;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: AgentOptions,
}

/// Flags as a program gets them.
pub fn options(arguments: &[&str]) -> AgentOptions {
    Cli::try_parse_from(["pharos-agent"].iter().chain(arguments)).unwrap().options
}

/// The configuration that flags make.
pub fn config(arguments: &[&str]) -> AgentConfig {
    options(arguments).load().unwrap()
}

/// The fake host.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Flags that make the agent see the host under `root`.
pub fn host_flags(root: &Path) -> Vec<String> {
    let flag = |name: &str, folder: &str| format!("--path.{name}={}", root.join(folder).display());
    vec![
        flag("procfs", "proc"),
        flag("sysfs", "sys"),
        flag("udev.data", "udev"),
        flag("rootfs", "root"),
        "--nvml.library=/nonexistent/libnvidia-ml.so".to_owned(),
        "--path.kmsg=/nonexistent/kmsg".to_owned(),
        "--node.name=node-1".to_owned(),
    ]
}

/// A copy of the fake host that a test may change.
pub fn copy_of_fixtures() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_symlink() {
                std::os::unix::fs::symlink(std::fs::read_link(entry.path()).unwrap(), target).unwrap();
            } else if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures(), folder.path());
    folder
}

/// A scheduler on a clock that tests move, and what it publishes to.
pub struct Bench {
    pub scheduler: Scheduler,
    pub shared: Shared,
    pub clock: Arc<ManualClock>,
}

impl Bench {
    pub fn new(arguments: &[&str]) -> Self {
        Self::with_plan(&config(arguments).plan)
    }

    pub fn with_plan(plan: &Plan) -> Self {
        let clock = ManualClock::new(START_MS);
        let board = Board::new(Directory::new("node-1", 0, []));
        let metrics = OwnMetrics::register(&prometheus::Registry::new()).unwrap();
        let shared = Shared::new(board, metrics, Arc::clone(&clock) as pharos_common::clock::SharedClock);
        Bench { scheduler: Scheduler::new(plan, shared.clone(), None), shared, clock }
    }

    /// Moves to the next second, takes the readings, and waits for samplers with their own threads.
    pub fn tick(&mut self) {
        self.clock.advance(Duration::from_secs(1));
        let before = self.shared.statuses.list();
        self.scheduler.tick();
        // A sampler with a thread answers in its own time; its count tells when. Idle ones may be skipped, and
        // those that read less often than every second are waited for by nobody.
        let waiting = |now: &[SamplerStatus]| {
            let pairs = now.iter().zip(&before);
            pairs.into_iter().any(|(now, before)| {
                !before.idle && before.interval_ms <= 1_000 && now.readings == before.readings
            })
        };
        while waiting(&self.shared.statuses.list()) {
            std::thread::yield_now();
        }
    }

    /// What `/metrics` would show.
    pub fn latest(&self) -> Vec<Posted> {
        self.shared.board.latest(pharos_common::clock::Clock::now_ms(&*self.clock))
    }

    /// What `/metrics` says of the latest readings.
    pub fn text(&self) -> String {
        self.text_in(Format::Prometheus)
    }

    /// The same in that format.
    pub fn text_in(&self, format: Format) -> String {
        let mut exposition = Exposition::default();
        exposition.add_readings(&self.latest());
        exposition.render(format)
    }
}

/// Waits until a condition holds, for as long as a test may run.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what} never happens");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
