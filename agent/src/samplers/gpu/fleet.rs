//! The GPUs of this node as series: a group for each GPU, its NVLinks and its MIG instances.
//!
//! What a source says comes in through [`Sink`]; a GPU that says nothing in a reading ends its series with it
//! and is shown as down. GPUs once seen stay expected, so one that falls off the bus is missed.

use super::clock_window;
use super::derived::{self, CLOCK_REASONS, Derived};
use super::health::{Health, Verdict, Verdicts, WATCHES};
use super::labels::Labels;
use super::metric::{GpuValues, InstanceMetric, LinkMetric, Metric};
use super::pci::PciPlace;
use super::reading::{DriverInfo, GPUS_MAX, GpuDescription, GpuReading, PeerReading, ProcessReading, Sink};
use crate::group::{ColumnSpec, GroupHandle, GroupSet};

/// Columns of a GPU's group behind those of [`Metric`].
mod column {
    use super::{CLOCK_REASONS, Metric};
    pub(super) const UP: usize = Metric::COUNT;
    pub(super) const HUNG: usize = UP + 1;
    pub(super) const ERRORS: usize = UP + 2;
    pub(super) const INFO: usize = UP + 3;
    pub(super) const XID: usize = UP + 4;
    pub(super) const STUCK: usize = UP + 5;
    pub(super) const IDLE: usize = UP + 6;
    pub(super) const STRAGGLER: usize = UP + 7;
    pub(super) const CLOCKS: usize = UP + 8;
    pub(super) const EVENTS: usize = CLOCKS + CLOCK_REASONS.len();
    pub(super) const COUNT: usize = EVENTS + CLOCK_REASONS.len();
}

/// A GPU once seen.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) description: GpuDescription,
    pub(super) place: Option<PciPlace>,
    /// Processes of the last reading.
    pub(super) processes: Vec<ProcessReading>,
    /// Whether it answered in this reading.
    pub(super) answered: bool,
    /// Who holds it, as far as peers are concerned; equal numbers are one job.
    pub(super) job: u64,
    /// Whether anybody holds it.
    pub(super) allocated: bool,
    values: GpuValues,
    failed: bool,
    errors: u64,
    derived: Derived,
    health: Health,
    /// NVLinks that were up, a bit each, and whether one of them is down now.
    links_up: u64,
    links_down: Option<bool>,
    /// Verdicts that the group of health has columns for.
    verdicts: Verdicts,
    /// GPUs beside it and whether it reaches them, as their group has columns for.
    peers: Vec<PeerReading>,
    group: Option<GroupHandle>,
    peer_group: Option<GroupHandle>,
    health_group: Option<GroupHandle>,
    links: Option<GroupHandle>,
    instances: Vec<GroupHandle>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) driver: DriverInfo,
    pub(super) known: Vec<Known>,
    /// Events of this reading: number of the GPU and XID.
    pub(super) events: Vec<(u32, u32)>,
    /// Something about driver or GPUs is new since the last look.
    pub(super) changed: bool,
    deviations: Vec<Option<f64>>,
}

/// What is known of the reading as a whole, for GPUs that did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absence {
    /// A GPU that did not answer is down.
    Down,
    /// The reader is still at work (it starts, or the driver is slow): nothing can be said.
    Unknown,
}

impl Fleet {
    pub(super) fn begin(&mut self) {
        self.events.clear();
        for gpu in &mut self.known {
            gpu.answered = false;
            gpu.failed = false;
        }
    }

    /// Takes what a source says in one reading.
    pub(super) fn listen<'a>(&'a mut self, groups: &'a mut GroupSet, labels: &'a Labels) -> Listening<'a> {
        Listening { fleet: self, groups, labels }
    }

    pub(super) fn answering(&self) -> usize {
        self.known.iter().filter(|gpu| gpu.answered).count()
    }

    /// GPUs seen so far.
    pub(super) fn seen(&self) -> usize {
        self.known.len()
    }

    /// Forgets GPUs that were taken out on purpose.
    pub(super) fn forget(&mut self, groups: &mut GroupSet) {
        for gpu in self.known.drain(..) {
            gpu.end(groups);
        }
        self.changed = true;
    }

    /// Fills what is made of values, once all GPUs have been heard and `jobs` are known.
    pub(super) fn finish(
        &mut self,
        groups: &mut GroupSet,
        absence: Absence,
        now_seconds: f64,
        elapsed_seconds: f64,
        mut about: impl FnMut(&Known) -> About,
    ) {
        for gpu in &mut self.known {
            if gpu.answered {
                gpu.derived.update(&gpu.values, gpu.allocated, now_seconds);
            } else {
                gpu.processes.clear();
                gpu.derived.lose();
            }
        }
        self.compare(elapsed_seconds);
        for gpu in &mut self.known {
            let about = about(gpu);
            gpu.judge(groups, now_seconds);
            let Some(group) = gpu.group.and_then(|handle| groups.group(handle)) else { continue };
            if gpu.answered || gpu.failed || absence == Absence::Down {
                group.put(column::UP, f64::from(u8::from(gpu.answered)));
                group.put(column::HUNG, f64::from(u8::from(about.hung)));
            }
            group.put_some(column::XID, about.last_xid.map(f64::from));
            group.put(column::INFO, 1.0);
            if !gpu.answered {
                continue;
            }
            group.put(column::ERRORS, gpu.errors as f64);
            group.put_some(column::STUCK, gpu.derived.stuck_seconds);
            group.put_some(column::IDLE, gpu.derived.idle_seconds);
            group.put_some(column::STRAGGLER, gpu.derived.straggler);
            if gpu.values.get(Metric::ClockReasons as usize).is_some() {
                for (at, seconds) in gpu.derived.clock_seconds.iter().enumerate() {
                    group.put(column::CLOCKS + at, *seconds);
                    group.put(column::EVENTS + at, gpu.derived.clock_events.count(at));
                }
            }
        }
    }

    /// Scores each GPU against the others of its job.
    fn compare(&mut self, elapsed_seconds: f64) {
        let mut done = 0u64;
        for first in 0..self.known.len() {
            let Some(job) = self.known.get(first).map(|gpu| gpu.job) else { continue };
            if done & (1 << (first % 64)) != 0 {
                continue;
            }
            let mut members = [0usize; GPUS_MAX];
            let mut count = 0;
            for (at, gpu) in self.known.iter().enumerate().skip(first).take(GPUS_MAX) {
                if gpu.job == job && gpu.allocated && gpu.answered {
                    members[count] = at;
                    count += 1;
                }
                if gpu.job == job {
                    done |= 1 << (at % 64);
                }
            }
            let members = &members[..count];
            let mut peers: [&GpuValues; GPUS_MAX] = [&GpuValues::ABSENT; GPUS_MAX];
            for (peer, at) in peers.iter_mut().zip(members) {
                if let Some(gpu) = self.known.get(*at) {
                    *peer = &gpu.values;
                }
            }
            derived::deviations(&peers[..count], &mut self.deviations);
            for (at, deviation) in members.iter().zip(&self.deviations) {
                if let Some(gpu) = self.known.get_mut(*at) {
                    gpu.derived.compare(*deviation, elapsed_seconds);
                }
            }
        }
        for gpu in self.known.iter_mut().filter(|gpu| !gpu.allocated) {
            gpu.derived.straggler = None;
        }
    }
}

/// What others know of a GPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct About {
    /// A reader hung at it, and it is left alone.
    pub(super) hung: bool,
    /// Its last XID, 0 for none; `None` if nobody could tell.
    pub(super) last_xid: Option<u32>,
}

/// Takes what a source says.
pub(super) struct Listening<'a> {
    fleet: &'a mut Fleet,
    groups: &'a mut GroupSet,
    labels: &'a Labels,
}

impl Sink for Listening<'_> {
    fn driver(&mut self, driver: DriverInfo) {
        if self.fleet.driver != driver {
            let replaced = self.fleet.driver.driver != driver.driver;
            self.fleet.driver = driver;
            self.fleet.changed = true;
            // The driver's version is a label of all series.
            for gpu in self.fleet.known.iter_mut().filter(|_| replaced) {
                gpu.define(self.groups, self.labels, &self.fleet.driver);
            }
        }
    }

    fn describe(&mut self, description: GpuDescription) {
        let Fleet { driver, known, changed, .. } = &mut *self.fleet;
        let same = |gpu: &Known| gpu.description.uuid == description.uuid;
        let at = match known.iter().position(same) {
            Some(at) => at,
            None if known.len() < GPUS_MAX => {
                known.push(Known::new(description.clone()));
                known.len() - 1
            }
            None => return,
        };
        // Two GPUs never share a number: who had it before has moved or gone.
        for (other, gpu) in known.iter_mut().enumerate() {
            if other != at && gpu.description.index == description.index {
                gpu.description.index = u32::MAX;
            }
        }
        let Some(gpu) = known.get_mut(at) else { return };
        if gpu.description != description || gpu.group.is_none() {
            gpu.place = PciPlace::parse(&description.pci_bus_id);
            gpu.description = description;
            gpu.define(self.groups, self.labels, driver);
            *changed = true;
        }
    }

    fn reading(&mut self, reading: &GpuReading) {
        let Some(gpu) = self.fleet.known.iter_mut().find(|gpu| gpu.description.index == reading.index) else {
            return;
        };
        gpu.answered = true;
        gpu.values = reading.values;
        gpu.errors += u64::from(reading.errors);
        gpu.processes.clear();
        gpu.processes.extend_from_slice(&reading.processes);
        if let Some(group) = gpu.peer_group.and_then(|handle| self.groups.group(handle)) {
            gpu.peers.iter().enumerate().for_each(|(at, peer)| group.put(at, f64::from(peer.status)));
        }
        if let Some(group) = gpu.group.and_then(|handle| self.groups.group(handle)) {
            reading.values.known().for_each(|(column, value)| group.put(column, value));
        }
        gpu.watch_links(reading);
        if let Some(group) = gpu.links.and_then(|handle| self.groups.group(handle)) {
            for (link, values) in reading.links.iter().take(gpu.description.links.len()).enumerate() {
                let first = link * (LinkMetric::COUNT + 1);
                values.known().for_each(|(column, value)| group.put(first + column, value));
                let both = values.get(LinkMetric::Transmitted as usize);
                let both = both.zip(values.get(LinkMetric::Received as usize));
                group.put_some(first + LinkMetric::COUNT, both.map(|(sent, received)| sent + received));
            }
        }
        for (handle, values) in gpu.instances.iter().zip(&reading.instances) {
            if let Some(group) = self.groups.group(*handle) {
                values.known().for_each(|(column, value)| group.put(column, value));
            }
        }
    }

    fn failed(&mut self, index: u32, error: &str) {
        if let Some(gpu) = self.fleet.known.iter_mut().find(|gpu| gpu.description.index == index) {
            gpu.failed = true;
            gpu.errors += 1;
            tracing::debug!(gpu = index, error, "A GPU does not answer");
        }
    }

    fn peers(&mut self, index: u32, peers: &[PeerReading]) {
        let Some(gpu) = self.fleet.known.iter_mut().find(|gpu| gpu.description.index == index) else {
            return;
        };
        if gpu.peers == peers {
            return;
        }
        gpu.peers.clear();
        gpu.peers.extend_from_slice(peers);
        if let Some(handle) = gpu.peer_group {
            self.groups.redefine(handle, gpu.peer_columns());
        }
    }

    fn event(&mut self, index: u32, xid: u32) {
        if self.fleet.events.len() < super::reading::EVENTS_MAX {
            self.fleet.events.push((index, xid));
        }
    }
}

impl Known {
    fn new(description: GpuDescription) -> Self {
        Known {
            place: PciPlace::parse(&description.pci_bus_id),
            description,
            processes: Vec::new(),
            answered: false,
            job: 0,
            allocated: false,
            values: GpuValues::ABSENT,
            failed: false,
            errors: 0,
            derived: Derived::default(),
            health: Health::default(),
            links_up: 0,
            links_down: None,
            verdicts: Verdicts::default(),
            peers: Vec::new(),
            group: None,
            peer_group: None,
            health_group: None,
            links: None,
            instances: Vec::new(),
        }
    }

    /// Opens its groups anew if a label is to change.
    pub(super) fn define_if_relabelled(
        &mut self,
        groups: &mut GroupSet,
        labels: &Labels,
        driver: &DriverInfo,
    ) {
        let key = labels.key(&self.description, driver);
        let now = self.group.and_then(|handle| groups.group(handle)).map(|group| group.key() == key);
        if now != Some(true) {
            self.define(groups, labels, driver);
        }
    }

    /// Opens its groups anew: labels of a group are for good.
    pub(super) fn define(&mut self, groups: &mut GroupSet, labels: &Labels, driver: &DriverInfo) {
        self.end_groups(groups);
        let description = &self.description;
        let shared = labels.of_gpu(description, driver);
        let key = labels.key(description, driver);
        let mut columns: Vec<ColumnSpec> =
            Metric::NAMES.iter().map(|name| ColumnSpec::plain(*name)).collect();
        columns.extend(
            ["pharos_gpu_up", "pharos_gpu_hung", "pharos_gpu_read_errors_total"].map(ColumnSpec::plain),
        );
        let mut info = ColumnSpec::plain("pharos_gpu_info");
        let versions = [("DCGM_FI_NVML_VERSION", &driver.nvml), ("cuda_version", &driver.cuda)];
        for (name, value) in versions.into_iter().filter(|(_, value)| !value.is_empty()) {
            info = info.with(name, value.clone());
        }
        for (name, value) in &description.details {
            info = info.with(name.clone(), value.clone());
        }
        columns.push(info);
        columns.extend(
            [
                "DCGM_FI_DEV_XID_ERRORS",
                "pharos_gpu_stuck_collective_seconds",
                "pharos_gpu_silent_idle_seconds",
                "pharos_gpu_straggler_score",
            ]
            .map(ColumnSpec::plain),
        );
        columns.extend(CLOCK_REASONS.iter().map(|(_, reason)| {
            ColumnSpec::plain("pharos_gpu_clock_event_seconds_total").with("reason", *reason)
        }));
        columns.extend(clock_window::EVENTS.iter().map(|event| {
            ColumnSpec::plain("DCGM_EXP_CLOCK_EVENTS_COUNT")
                .with("clock_event", *event)
                .with("window_size_in_ms", (clock_window::WINDOW_SECONDS * 1_000).to_string())
        }));
        debug_assert_eq!(columns.len(), column::COUNT);
        self.group = Some(groups.define(key.clone(), shared.clone(), columns));
        // Its columns come with the first verdicts.
        self.health_group = Some(groups.define(format!("{key}/health"), shared.clone(), Vec::new()));
        self.verdicts = Verdicts::default();
        self.peer_group = Some(groups.define(format!("{key}/peers"), shared.clone(), self.peer_columns()));
        if !description.links.is_empty() {
            let columns = description.links.iter().flat_map(|link| {
                let of_link = LinkMetric::NAMES
                    .iter()
                    .map(move |name| ColumnSpec::plain(*name).with("nvlink", link.to_string()));
                // DCGM writes the link's number into the name.
                of_link.chain([ColumnSpec::plain(format!("DCGM_FI_DEV_NVLINK_BANDWIDTH_L{link}"))])
            });
            let columns = columns.collect();
            self.links = Some(groups.define(format!("{key}/nvlinks"), shared.clone(), columns));
        }
        for instance in &description.instances {
            let columns = InstanceMetric::NAMES.iter().map(|name| ColumnSpec::plain(*name)).collect();
            let mig_key = format!("{key}/mig/{}/{}", instance.uuid, instance.profile);
            let shared = labels.of_instance(description, instance, driver);
            self.instances.push(groups.define(mig_key, shared, columns));
        }
    }

    fn peer_columns(&self) -> Vec<ColumnSpec> {
        let column = |peer: &PeerReading| {
            ColumnSpec::plain("DCGM_EXP_P2P_STATUS")
                .with("peer_gpu", peer.index.to_string())
                .with("link_status", link_status(peer.status))
        };
        self.peers.iter().map(column).collect()
    }

    /// Notes which NVLinks are up.
    fn watch_links(&mut self, reading: &GpuReading) {
        let up = reading.links.iter().take(64).map(|values| values.get(LinkMetric::Up as usize));
        let (mut known, mut now) = (false, 0u64);
        for (link, up) in up.enumerate() {
            known |= up.is_some();
            now |= u64::from(up.is_some_and(|up| up > 0.0)) << link;
        }
        self.links_up |= now;
        self.links_down = known.then_some(self.links_up & !now != 0);
    }

    /// Judges its health, and publishes what was found.
    fn judge(&mut self, groups: &mut GroupSet, now_seconds: f64) {
        let (Some(handle), true) = (self.health_group, self.answered) else { return };
        let verdicts = self.health.judge(&self.values, self.links_down, now_seconds);
        let code = |verdict: &Option<Verdict>| verdict.map(|verdict| verdict.code);
        if !verdicts.iter().map(code).eq(self.verdicts.iter().map(code)) {
            let known =
                WATCHES.iter().zip(&verdicts).filter_map(|(watch, verdict)| Some((watch, (*verdict)?)));
            let columns = known.map(|(watch, verdict)| {
                ColumnSpec::plain("DCGM_EXP_GPU_HEALTH_STATUS")
                    .with("health_watch", *watch)
                    .with("health_error_code", verdict.code)
            });
            groups.redefine(handle, columns.collect());
        }
        self.verdicts = verdicts;
        if let Some(group) = groups.group(handle) {
            verdicts.iter().flatten().enumerate().for_each(|(at, verdict)| group.put(at, verdict.result));
        }
    }

    fn end_groups(&mut self, groups: &mut GroupSet) {
        let handles = self.group.take().into_iter().chain(self.links.take()).chain(self.health_group.take());
        let handles = handles.chain(self.peer_group.take());
        handles.chain(self.instances.drain(..)).for_each(|handle| groups.end(handle));
    }

    fn end(mut self, groups: &mut GroupSet) {
        self.end_groups(groups);
    }
}

/// dcgm-exporter's words for `nvmlGpuP2PStatus_t`.
fn link_status(status: u32) -> &'static str {
    match status {
        0 => "OK",
        1 => "ChipsetNotSupported",
        2 => "GPUNotSupported",
        3 => "TopologyNotSupported",
        4 => "DisabledByRegKey",
        5 => "NotSupported",
        _ => "Unknown",
    }
}
