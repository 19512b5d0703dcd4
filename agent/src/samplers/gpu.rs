//! `gpu`: NVIDIA GPUs under dcgm-exporter's names, from a reader that can neither hang nor lie.
//!
//! ```text
//! child process: nvml ── wire ─┐
//!                 supervisor ──┴─┐                       ┌ fleet (GPUs, links, instances)
//!                 or replay ─────┴─ Sink ── this sampler ┼ holders (processes, pods, jobs)
//! kernel log ── xids ───────────────────────────────────┴ xid_groups
//! ```
//!
//! The driver is asked by a child process with a deadline ([`supervisor`]); a GPU that says nothing has no
//! values, only the statement that it is down. XIDs come from the kernel log. A node without GPUs publishes
//! nothing and looks again now and then, for drivers arrive after agents do.

mod child;
mod clock_window;
mod derived;
mod fleet;
mod health;
mod holders;
mod kernel_log;
mod labels;
pub mod metric;
mod nvml;
pub mod options;
mod pci;
mod pod_resources;
pub mod reader;
pub mod reading;
mod replay;
mod supervisor;
mod wire;
mod workloads;
mod xid_groups;
mod xid_texts;
mod xids;

use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupHandle, GroupSet};
use crate::kernel_files::ReadBuffer;
use crate::sampler::{Sampler, SamplerOptions};
use crate::status::{GpuState, GpuStatus};
use fleet::{About, Absence, Fleet};
use holders::Holders;
use kernel_log::KernelLog;
use labels::Labels;
use pci::PciPlace;
use pod_resources::Allocations;
use replay::Replay;
pub use replay::TraceError;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use supervisor::{Ending, ReaderOptions, Reading, Supervisor};
use workloads::Workloads;
use xid_groups::XidGroups;
use xids::{WINDOW, Xids};

/// Readings between two looks at the bus.
const READINGS_BETWEEN_BUS_LOOKS: u32 = 10;
/// Readings between two attempts where there is no library or no driver.
const READINGS_BETWEEN_ATTEMPTS: u32 = 60;

/// Reads a trace and plays nothing of it.
///
/// # Errors
/// Why it cannot be played, with its line.
pub fn check_trace(path: &std::path::Path) -> Result<(), TraceError> {
    Replay::open(path).map(|_| ())
}

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(GpuSampler::new(options))
}

/// Where readings come from.
#[derive(Debug)]
enum Source {
    Driver(Box<Supervisor>),
    Replay(Box<Replay>),
    /// A trace that cannot be played.
    Broken(String),
}

struct GpuSampler {
    source: Source,
    library: Option<PathBuf>,
    sysfs: PathBuf,
    release_file: PathBuf,
    pod_labels: bool,
    labels: Labels,
    status: Arc<GpuStatus>,
    fleet: Fleet,
    holders: Holders,
    workloads: Workloads,
    allocations: Option<Arc<Allocations>>,
    allocations_seen: u64,
    no_allocations: Arc<Vec<pod_resources::Allocation>>,
    kernel_log: KernelLog,
    log_buffer: Vec<u8>,
    xids: Xids,
    xid_groups: XidGroups,
    reader_group: Option<GroupHandle>,
    /// GPUs on the bus, at the last look.
    bus: Vec<PciPlace>,
    /// GPUs on the bus when the reader was started.
    bus_at_start: Option<usize>,
    bus_look_in: u32,
    attempt_in: u32,
    released: bool,
    started: Instant,
    last_seconds: f64,
}

impl GpuSampler {
    fn new(options: &SamplerOptions) -> Self {
        let gpu = &options.gpu;
        let source = match &gpu.replay {
            Some(path) => match Replay::open(path) {
                Ok(replay) => Source::Replay(Box::new(replay)),
                Err(error) => Source::Broken(error.to_string()),
            },
            None => Source::Driver(Box::new(Supervisor::new(ReaderOptions {
                program: gpu.reader_program.clone().unwrap_or_else(|| "/proc/self/exe".into()),
                library: gpu.nvml_library.clone(),
                deadline: gpu.deadline(),
                memory_bytes_max: gpu.reader_memory_max_mib << 20,
            }))),
        };
        let paths = &options.paths;
        GpuSampler {
            source,
            library: gpu.nvml_library.clone(),
            sysfs: paths.sysfs.clone(),
            release_file: gpu.release_file.clone(),
            pod_labels: gpu.pod_labels,
            labels: Labels {
                node: options.node.clone(),
                hostname_label: gpu.hostname_label,
                owners: Vec::new(),
            },
            status: Arc::clone(&options.gpus),
            fleet: Fleet::default(),
            holders: Holders::new(gpu.job_mapping.clone()),
            workloads: Workloads::new(paths.procfs.clone(), paths.root("/var/log/containers")),
            allocations: Allocations::watch(gpu.pod_resources_socket.clone()).ok(),
            allocations_seen: 0,
            no_allocations: Arc::default(),
            kernel_log: KernelLog::new(gpu.kmsg.clone()),
            log_buffer: Vec::new(),
            xids: Xids::default(),
            xid_groups: XidGroups::default(),
            reader_group: None,
            bus: Vec::new(),
            bus_at_start: None,
            bus_look_in: 0,
            attempt_in: 0,
            released: false,
            started: Instant::now(),
            last_seconds: 0.0,
        }
    }

    /// Why nobody should even try to load a library here.
    fn no_reason_to_try(&self) -> Option<String> {
        match &self.library {
            Some(path) if path.components().count() > 1 && !path.exists() => {
                Some(format!("{} is not there", path.display()))
            }
            Some(_) => None,
            None if self.bus.is_empty() => Some("no NVIDIA GPU is on the PCI bus".to_owned()),
            None => None,
        }
    }

    fn look_at_bus(&mut self) {
        if self.bus_look_in == 0 {
            self.bus_look_in = READINGS_BETWEEN_BUS_LOOKS;
            self.bus = pci::gpus(&self.sysfs);
        }
        self.bus_look_in -= 1;
    }

    /// Takes a reading from the source; says what it means that a GPU has said nothing.
    fn read_source(&mut self, groups: &mut GroupSet) -> Result<Absence, SampleError> {
        if let Source::Driver(_) = self.source {
            self.look_at_bus();
            if let Some(absence) = self.stand_aside(groups) {
                return Ok(absence);
            }
        }
        let now = self.started.elapsed().as_secs_f64();
        let (fleet, labels) = (&mut self.fleet, &self.labels);
        let supervisor = match &mut self.source {
            Source::Broken(why) => return Err(SampleError::Replay(why.clone())),
            Source::Replay(replay) => {
                replay.read(now, &mut fleet.listen(groups, labels));
                return Ok(Absence::Down);
            }
            Source::Driver(supervisor) => supervisor,
        };
        // The library lists GPUs when it is loaded, so one that was plugged in since needs a new reader.
        if self.bus_at_start.is_some_and(|count| count != self.bus.len()) {
            supervisor.restart(Ending::Changed);
            self.bus_at_start = None;
        }
        self.bus_at_start.get_or_insert(self.bus.len());
        match supervisor.read(&mut fleet.listen(groups, labels)) {
            Reading::Complete => Ok(Absence::Down),
            Reading::Unfinished => Ok(Absence::Unknown),
            Reading::Lost(_) | Reading::Paused => Ok(Absence::Down),
            Reading::NoDriver(reason) => {
                if fleet.seen() == 0 {
                    self.attempt_in = READINGS_BETWEEN_ATTEMPTS;
                    self.status.set(GpuState::NoLibrary { reason });
                } else {
                    tracing::warn!(reason, "The GPU driver is gone; reading resumes when it is back");
                }
                Ok(Absence::Down)
            }
        }
    }

    /// Whether the driver is to be left alone: somebody unbinds it, or there is none.
    fn stand_aside(&mut self, groups: &mut GroupSet) -> Option<Absence> {
        let Source::Driver(supervisor) = &mut self.source else { return None };
        if self.release_file.exists() {
            if !std::mem::replace(&mut self.released, true) {
                tracing::info!(file = %self.release_file.display(), "GPUs are released on request");
                self.fleet.forget(groups);
                self.holders.forget(groups);
            }
            supervisor.release();
            return Some(Absence::Unknown);
        }
        if std::mem::replace(&mut self.released, false) {
            tracing::info!("GPUs are read again");
            self.bus_look_in = 0;
        }
        if self.attempt_in > 0 {
            self.attempt_in -= 1;
            return Some(Absence::Down);
        }
        if self.fleet.seen() == 0
            && let Some(reason) = self.no_reason_to_try()
        {
            self.status.set(GpuState::NoLibrary { reason });
            self.attempt_in = READINGS_BETWEEN_BUS_LOOKS;
            return Some(Absence::Down);
        }
        None
    }

    fn count_xids(&mut self, now: f64) {
        // Without a GPU there is nothing to look for, and the log may well be closed to the agent.
        if self.fleet.seen() == 0 && self.bus.is_empty() {
            return;
        }
        let booted = seconds_since_boot();
        let (log, xids) = (&mut self.kernel_log, &mut self.xids);
        log.read(&mut self.log_buffer, |logged, old| {
            // A record that tells its time says how long ago it was; another that was there is long ago.
            let age = match logged.seconds_since_boot {
                _ if !old => 0.0,
                Some(at) => (booted - at).max(0.0),
                None => WINDOW.as_secs_f64() * 2.0,
            };
            xids.logged(logged.place, logged.xid, now - age, old);
        });
        // A trace has no kernel log of its own.
        let works = self.kernel_log.works() && matches!(self.source, Source::Driver(_));
        for (index, xid) in &self.fleet.events {
            let gpu = self.fleet.known.iter().find(|gpu| gpu.description.index == *index);
            if let Some(place) = gpu.and_then(|gpu| gpu.place) {
                self.xids.event(place, *xid, now, works);
            }
        }
        self.xids.tick(now);
    }

    /// Which pod has which GPU, and whether that is news.
    fn update_owners(&mut self) -> (Arc<Vec<pod_resources::Allocation>>, bool) {
        let Some(allocations) = &self.allocations else { return (Arc::clone(&self.no_allocations), false) };
        let (number, list) = allocations.latest();
        let news = number != self.allocations_seen;
        if self.pod_labels && news {
            self.labels.owners = holders::owners(&list);
            self.fleet.changed = true;
        }
        self.allocations_seen = number;
        (list, news)
    }

    fn publish_reader(&mut self, groups: &mut GroupSet, answered: bool) {
        let Source::Driver(supervisor) = &self.source else { return };
        let handle = *self.reader_group.get_or_insert_with(|| {
            let plain = [
                "pharos_gpu_reader_up",
                "pharos_gpu_reader_abandoned",
                "pharos_gpu_reader_cpu_seconds_total",
                "pharos_gpus_found",
                "pharos_gpus_expected",
            ];
            let endings = Ending::ALL.iter().map(|ending| {
                ColumnSpec::plain("pharos_gpu_reader_restarts_total").with("reason", ending.label())
            });
            let columns = plain.into_iter().map(ColumnSpec::plain).chain(endings).collect();
            groups.define("gpu-reader", Vec::new(), columns)
        });
        let Some(group) = groups.group(handle) else { return };
        let stats = supervisor.stats();
        group.put(0, f64::from(u8::from(answered)));
        group.put(1, supervisor.abandoned() as f64);
        group.put(2, stats.cpu_seconds);
        group.put(3, self.fleet.answering() as f64);
        group.put(4, self.fleet.seen().max(self.bus.len()) as f64);
        for (at, count) in stats.endings.iter().enumerate() {
            group.put(5 + at, *count as f64);
        }
    }

    fn tell_status(&mut self) {
        if !std::mem::replace(&mut self.fleet.changed, false) || self.fleet.known.is_empty() {
            return;
        }
        let gpus = self.fleet.known.iter().map(|gpu| gpu.description.model.clone()).collect();
        self.status.set(GpuState::Loaded { driver: self.fleet.driver.driver.clone(), gpus });
    }
}

impl Sampler for GpuSampler {
    fn sample(&mut self, _: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        self.fleet.begin();
        let absence = self.read_source(groups)?;
        let now = self.started.elapsed().as_secs_f64();
        let elapsed = now - std::mem::replace(&mut self.last_seconds, now);
        self.count_xids(now);
        let (allocations, reallocated) = self.update_owners();
        let relabel = self.fleet.changed;
        if relabel && self.pod_labels {
            let Fleet { known, driver, .. } = &mut self.fleet;
            known.iter_mut().for_each(|gpu| gpu.define_if_relabelled(groups, &self.labels, driver));
        }
        let changed = relabel || reallocated;
        let (fleet, workloads) = (&mut self.fleet, &mut self.workloads);
        self.holders.publish(groups, fleet, workloads, &allocations, &self.labels, changed);
        let tells_xids = self.kernel_log.works() || !matches!(self.source, Source::Driver(_));
        let (xids, source) = (&self.xids, &self.source);
        self.fleet.finish(groups, absence, now, elapsed, |gpu| {
            let counted = gpu.place.and_then(|place| xids.find(place));
            About {
                hung: matches!(source, Source::Driver(supervisor) if supervisor.avoids(gpu.description.index)),
                last_xid: counted.map(|xids| xids.last()).or(tells_xids.then_some(0)),
            }
        });
        let Fleet { known, driver, .. } = &self.fleet;
        self.xid_groups.publish(groups, &mut self.xids, known, &self.labels, driver, relabel);
        if self.fleet.seen() > 0 || !self.bus.is_empty() {
            let answered = absence == Absence::Down && self.fleet.answering() > 0;
            self.publish_reader(groups, answered);
        }
        self.tell_status();
        Ok(())
    }
}

fn seconds_since_boot() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
