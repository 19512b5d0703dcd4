//! Who holds each GPU, as series: processes with their memory and pods, pods with how they share, jobs.
//!
//! Values of a device are published once, by the fleet; here are values that belong to one process, and info
//! metrics to join the rest with. Lists change rarely, so groups are redefined only when they do.

use super::fleet::{Fleet, Known};
use super::labels::{Labels, Owner};
use super::pod_resources::Allocation;
use super::reading::ProcessReading;
use super::workloads::{PodName, SlurmJob, Workloads};
use crate::group::{ColumnSpec, GroupHandle, GroupSet, Label};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Columns of one process.
const PROCESS_COLUMNS: usize = 2;
/// Pods and jobs of one GPU that are told apart.
const HOLDERS_MAX: usize = 64;
/// Bytes of a file that maps a GPU to jobs.
const MAPPING_BYTES_MAX: u64 = 16 << 10;

/// How the pods on a GPU share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Exclusive,
    TimeSlicing,
    Mps,
    Mig,
}

impl Sharing {
    fn label(self) -> &'static str {
        match self {
            Sharing::Exclusive => "exclusive",
            Sharing::TimeSlicing => "time_slicing",
            Sharing::Mps => "mps",
            Sharing::Mig => "mig",
        }
    }
}

/// The groups of one GPU, by its UUID.
#[derive(Debug)]
struct Held {
    uuid: String,
    key: String,
    version: u32,
    shared: Vec<Label>,
    processes: Option<GroupHandle>,
    process_list: Vec<(u32, u32, bool, Option<PodName>)>,
    info: Option<GroupHandle>,
    info_columns: Vec<ColumnSpec>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Holders {
    held: Vec<Held>,
    mapping: Option<PathBuf>,
    mapped: Vec<Vec<String>>,
    readings: u32,
}

/// Readings from one look at what schedulers wrote to the next.
const READINGS_BETWEEN_LOOKS: u32 = 5;

impl Holders {
    pub(super) fn new(mapping: Option<PathBuf>) -> Self {
        Holders { held: Vec::new(), mapping, mapped: Vec::new(), readings: 0 }
    }

    /// Finds out who holds each GPU, for peers to be compared and idleness to be noticed; then publishes it.
    /// `changed` tells that labels or allocations are not what they were; without it, and with the same
    /// processes, only values are stored.
    pub(super) fn publish(
        &mut self,
        groups: &mut GroupSet,
        fleet: &mut Fleet,
        workloads: &mut Workloads,
        allocations: &[Allocation],
        labels: &Labels,
        changed: bool,
    ) {
        let changed = self.read_mapping(fleet) || changed;
        workloads.begin();
        for at in 0..fleet.known.len() {
            let Fleet { driver, known, .. } = &mut *fleet;
            let Some(gpu) = known.get_mut(at) else { continue };
            let held = self.held.iter().position(|held| held.uuid == gpu.description.uuid);
            if !changed
                && let Some(held) = held.and_then(|at| self.held.get(at))
                && held.has_same(&gpu.processes, workloads)
            {
                held.put_values(groups, &gpu.processes);
                continue;
            }
            let mapped = self.mapped.get(at).map(Vec::as_slice).unwrap_or_default();
            let of_gpu: Vec<&Allocation> = allocations.iter().filter(|one| is_of(one, gpu)).collect();
            gpu.allocated = !of_gpu.is_empty() || !gpu.processes.is_empty() || !mapped.is_empty();
            gpu.job = job(&gpu.processes, workloads, mapped);
            let held = match held {
                Some(at) => at,
                None if !gpu.allocated => continue,
                None => {
                    self.held.push(Held::new(&gpu.description.uuid));
                    self.held.len() - 1
                }
            };
            let Some(held) = self.held.get_mut(held) else { continue };
            held.relabel(groups, labels.of_device(&gpu.description, driver));
            held.list_processes(groups, &gpu.processes, workloads);
            held.list_holders(groups, &gpu.processes, workloads, &of_gpu, mapped);
            held.put_values(groups, &gpu.processes);
        }
        workloads.finish();
    }

    /// Ends the groups of GPUs that were taken out.
    pub(super) fn forget(&mut self, groups: &mut GroupSet) {
        for held in self.held.drain(..) {
            held.processes.into_iter().chain(held.info).for_each(|handle| groups.end(handle));
        }
    }

    /// Looks now and then which jobs schedulers wrote down; says whether others than before.
    fn read_mapping(&mut self, fleet: &Fleet) -> bool {
        let Some(folder) = &self.mapping else { return false };
        if self.readings > 0 {
            self.readings -= 1;
            return false;
        }
        self.readings = READINGS_BETWEEN_LOOKS;
        let indices = fleet.known.iter().map(|gpu| gpu.description.index);
        let mapped = indices.map(|index| read_jobs(&folder.join(index.to_string()))).collect();
        let changed = self.mapped != mapped;
        self.mapped = mapped;
        changed
    }
}

/// Whether an allocation is of a GPU or one of its MIG instances.
fn is_of(one: &Allocation, gpu: &Known) -> bool {
    let gpu = &gpu.description;
    one.uuid == gpu.uuid || gpu.instances.iter().any(|instance| instance.uuid == one.uuid)
}

/// A number that GPUs of one job share.
fn job(processes: &[ProcessReading], workloads: &mut Workloads, mapped: &[String]) -> u64 {
    let mut hasher = DefaultHasher::new();
    match processes.first().map(|process| workloads.of(process.pid)) {
        Some(workload) if workload.slurm.is_some() => workload.slurm.hash(&mut hasher),
        // Ranks of one job are pods of one namespace whose names differ in their number.
        Some(workload) if workload.pod.is_some() => {
            workload.pod.as_ref().map(|pod| (&pod.namespace, job_of_pod(&pod.pod))).hash(&mut hasher);
        }
        _ => mapped.hash(&mut hasher),
    }
    hasher.finish()
}

fn read_jobs(path: &Path) -> Vec<String> {
    use std::io::Read;
    let mut text = String::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAPPING_BYTES_MAX).read_to_string(&mut text));
    // No file is no job.
    if read.is_err() {
        return Vec::new();
    }
    let mut jobs: Vec<String> = Vec::new();
    for job in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // A job that is written twice is one series.
        if jobs.len() < HOLDERS_MAX && !jobs.iter().any(|known| known == job) {
            jobs.push(job.to_owned());
        }
    }
    jobs
}

/// A pod's name without the rank or the random suffix that its controller gave it.
fn job_of_pod(pod: &str) -> &str {
    match pod.rsplit_once('-') {
        Some((job, rank)) if !rank.is_empty() && rank.bytes().all(|byte| byte.is_ascii_alphanumeric()) => job,
        _ => pod,
    }
}

/// Pods that have a whole GPU or a MIG instance to themselves.
pub(super) fn owners(allocations: &[Allocation]) -> Vec<(String, Owner)> {
    let mut owners = Vec::new();
    for one in allocations.iter().filter(|one| !one.replica) {
        if allocations.iter().filter(|other| other.uuid == one.uuid).count() == 1 {
            let PodName { namespace, pod, container } = one.owner.clone();
            owners.push((one.uuid.clone(), Owner { namespace, pod, container }));
        }
    }
    owners
}

impl Held {
    fn new(uuid: &str) -> Self {
        Held {
            uuid: uuid.to_owned(),
            key: format!("gpu-holders/{uuid}"),
            version: 0,
            shared: Vec::new(),
            processes: None,
            process_list: Vec::new(),
            info: None,
            info_columns: Vec::new(),
        }
    }

    fn relabel(&mut self, groups: &mut GroupSet, shared: Vec<Label>) {
        if self.shared == shared {
            return;
        }
        self.shared = shared;
        self.version += 1;
        self.processes.take().into_iter().chain(self.info.take()).for_each(|handle| groups.end(handle));
        self.process_list.clear();
        self.info_columns.clear();
    }

    /// Whether the processes are those that were listed last, of the same pods.
    fn has_same(&self, processes: &[ProcessReading], workloads: &mut Workloads) -> bool {
        self.process_list.len() == processes.len()
            && processes.iter().zip(&self.process_list).all(|(process, (pid, instance, mps, pod))| {
                process.pid == *pid
                    && process.gpu_instance == *instance
                    && process.mps == *mps
                    && workloads.of(*pid).pod == *pod
            })
    }

    fn list_processes(
        &mut self,
        groups: &mut GroupSet,
        processes: &[ProcessReading],
        workloads: &mut Workloads,
    ) {
        if self.processes.is_some() && self.has_same(processes, workloads) {
            return;
        }
        self.process_list.clear();
        let mut columns = Vec::with_capacity(processes.len() * PROCESS_COLUMNS);
        for process in processes {
            let workload = workloads.of(process.pid);
            let who = (process.pid, process.gpu_instance, process.mps, workload.pod.clone());
            self.process_list.push(who);
            let metrics =
                ["pharos_gpu_process_memory_used_bytes", "pharos_gpu_process_sm_utilization_percent"];
            for metric in metrics {
                let mut column = ColumnSpec::plain(metric)
                    .with("pid", process.pid.to_string())
                    .with("process", workload.process.clone());
                if process.gpu_instance != u32::MAX {
                    column = column.with("GPU_I_ID", process.gpu_instance.to_string());
                }
                if process.mps {
                    column = column.with("mps", "true");
                }
                columns.push(with_pod(column, workload.pod.as_ref()));
            }
        }
        let key = format!("{}/{}/processes", self.key, self.version);
        match self.processes {
            Some(handle) => groups.redefine(handle, columns),
            None => self.processes = Some(groups.define(key, self.shared.clone(), columns)),
        }
    }

    fn put_values(&self, groups: &mut GroupSet, processes: &[ProcessReading]) {
        if let Some(group) = self.processes.and_then(|handle| groups.group(handle)) {
            for (at, process) in processes.iter().enumerate() {
                let known = |value: f64| (!value.is_nan()).then_some(value);
                group.put_some(at * PROCESS_COLUMNS, known(process.memory_bytes));
                group.put_some(at * PROCESS_COLUMNS + 1, known(process.sm_util));
            }
        }
        if let Some(group) = self.info.and_then(|handle| groups.group(handle)) {
            (0..self.info_columns.len()).for_each(|at| group.put(at, 1.0));
        }
    }

    fn list_holders(
        &mut self,
        groups: &mut GroupSet,
        processes: &[ProcessReading],
        workloads: &mut Workloads,
        allocations: &[&Allocation],
        mapped: &[String],
    ) {
        let mut pods: BTreeSet<PodName> = allocations.iter().map(|one| one.owner.clone()).collect();
        let mut slurm: BTreeSet<SlurmJob> = BTreeSet::new();
        for process in processes {
            let workload = workloads.of(process.pid);
            pods.extend(workload.pod.clone());
            slurm.extend(workload.slurm.clone());
        }
        let sharing = if allocations.iter().any(|one| one.uuid.starts_with("MIG-")) {
            Sharing::Mig
        } else if processes.iter().any(|process| process.mps) {
            Sharing::Mps
        } else if pods.len() > 1 || allocations.iter().any(|one| one.replica) {
            Sharing::TimeSlicing
        } else {
            Sharing::Exclusive
        };
        let mut columns = Vec::new();
        for pod in pods.iter().take(HOLDERS_MAX) {
            let column = ColumnSpec::plain("pharos_gpu_pod_info").with("sharing", sharing.label());
            columns.push(with_pod(column, Some(pod)));
        }
        for job in slurm.iter().take(HOLDERS_MAX) {
            let column = ColumnSpec::plain("pharos_gpu_job_info")
                .with("scheduler", "slurm")
                .with("job", job.id.clone())
                .with("job_name", job.name.clone())
                .with("user", job.user.clone());
            columns.push(column);
        }
        for job in mapped {
            columns.push(
                ColumnSpec::plain("pharos_gpu_job_info")
                    .with("scheduler", "mapping")
                    .with("job", job.clone()),
            );
        }
        let jobs: BTreeSet<(&str, &str)> =
            pods.iter().map(|pod| (pod.namespace.as_str(), job_of_pod(&pod.pod))).collect();
        for (namespace, job) in jobs.into_iter().take(HOLDERS_MAX) {
            columns.push(
                ColumnSpec::plain("pharos_gpu_job_info")
                    .with("scheduler", "kubernetes")
                    .with("job", job)
                    .with("namespace", namespace),
            );
        }
        if columns != self.info_columns || self.info.is_none() {
            let key = format!("{}/{}/info", self.key, self.version);
            match self.info {
                Some(handle) => groups.redefine(handle, columns.clone()),
                None => self.info = Some(groups.define(key, self.shared.clone(), columns.clone())),
            }
            self.info_columns = columns;
        }
    }
}

fn with_pod(column: ColumnSpec, pod: Option<&PodName>) -> ColumnSpec {
    match pod {
        Some(pod) => column
            .with("container", pod.container.clone())
            .with("namespace", pod.namespace.clone())
            .with("pod", pod.pod.clone()),
        None => column,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_one_job_have_one_name() {
        assert_eq!(job_of_pod("llama-worker-3"), "llama-worker");
        assert_eq!(job_of_pod("train-x7k2p"), "train");
        assert_eq!(job_of_pod("single"), "single");
    }

    #[test]
    fn jobs_of_a_mapping_are_each_told_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("0"), "7\n8\n\n 7 \n").unwrap();
        assert_eq!(read_jobs(&folder.path().join("0")), ["7", "8"]);
        assert!(read_jobs(&folder.path().join("1")).is_empty());
    }

    #[test]
    fn only_who_is_alone_owns_a_gpu() {
        let one = |uuid: &str, replica: bool, pod: &str| Allocation {
            uuid: uuid.into(),
            replica,
            owner: PodName { pod: pod.into(), ..PodName::default() },
        };
        let allocations = [one("GPU-1", false, "a"), one("GPU-2", true, "b"), one("GPU-2", true, "c")];
        let owners = owners(&allocations);
        assert_eq!(owners.len(), 1);
        assert_eq!((owners[0].0.as_str(), owners[0].1.pod.as_str()), ("GPU-1", "a"));
    }
}
