//! Who a process belongs to: the pod and container by its cgroup, the Slurm job by its cgroup, its name.
//!
//! A process is looked at once; the answer is kept as long as the process uses a GPU. Names of pods come from
//! the links that the kubelet keeps in `/var/log/containers`, one for each container, with all names in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Processes that are remembered.
const PROCESSES_MAX: usize = 4_096;
/// Links looked at; nodes run a few hundred containers.
const CONTAINERS_MAX: usize = 16_384;
/// A container that is not found is looked for again after this long.
const LISTING_AGE_MIN: Duration = Duration::from_secs(10);
/// Bytes of an environment that are searched for a job's name.
const ENVIRONMENT_BYTES_MAX: u64 = 64 << 10;

/// Who a process belongs to, as far as it can be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Workload {
    /// Its name.
    pub(super) process: String,
    /// Its pod's namespace, its pod, its container.
    pub(super) pod: Option<PodName>,
    /// Its Slurm job.
    pub(super) slurm: Option<SlurmJob>,
    container_id: Option<String>,
    used: u64,
}

/// A container by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PodName {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// A Slurm job.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SlurmJob {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) user: String,
}

/// All processes that use GPUs.
#[derive(Debug)]
pub(super) struct Workloads {
    procfs: PathBuf,
    containers_folder: PathBuf,
    known: HashMap<u32, Workload>,
    containers: HashMap<String, PodName>,
    listed: Option<Instant>,
    generation: u64,
}

impl Workloads {
    /// `logs` is the host's `/var/log/containers`.
    pub(super) fn new(procfs: PathBuf, logs: PathBuf) -> Self {
        Workloads {
            procfs,
            containers_folder: logs,
            known: HashMap::new(),
            containers: HashMap::new(),
            listed: None,
            generation: 0,
        }
    }

    /// Starts a reading.
    pub(super) fn begin(&mut self) {
        self.generation += 1;
    }

    /// Forgets processes that this reading has not asked for: their numbers are used again.
    pub(super) fn finish(&mut self) {
        let generation = self.generation;
        if self.known.values().any(|workload| workload.used != generation) {
            self.known.retain(|_, workload| workload.used == generation);
        }
    }

    /// Who a process belongs to.
    pub(super) fn of(&mut self, pid: u32) -> &Workload {
        let unknown_container =
            self.known.get(&pid).is_some_and(|known| known.pod.is_none() && known.container_id.is_some());
        if self.known.contains_key(&pid) && unknown_container && self.listing_is_old() {
            self.known.remove(&pid);
        }
        if !self.known.contains_key(&pid) && self.known.len() < PROCESSES_MAX {
            let workload = self.look(pid);
            self.known.insert(pid, workload);
        }
        static NOBODY: Workload =
            Workload { process: String::new(), pod: None, slurm: None, container_id: None, used: 0 };
        let generation = self.generation;
        match self.known.get_mut(&pid) {
            Some(workload) => {
                workload.used = generation;
                workload
            }
            None => &NOBODY,
        }
    }

    fn look(&mut self, pid: u32) -> Workload {
        let folder = self.procfs.join(pid.to_string());
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let cgroup = read("cgroup");
        let container_id = container_id(&cgroup);
        let pod = container_id.as_deref().and_then(|id| self.pod(id));
        let slurm = slurm_job(&cgroup).map(|(id, user)| {
            let name = environment(&folder.join("environ"), "SLURM_JOB_NAME").unwrap_or_default();
            SlurmJob { id, name, user }
        });
        Workload { process: read("comm").trim().to_owned(), pod, slurm, container_id, used: 0 }
    }

    fn listing_is_old(&self) -> bool {
        self.listed.is_none_or(|listed| listed.elapsed() >= LISTING_AGE_MIN)
    }

    fn pod(&mut self, container_id: &str) -> Option<PodName> {
        if !self.containers.contains_key(container_id) && self.listing_is_old() {
            self.listed = Some(Instant::now());
            self.containers = list(&self.containers_folder);
        }
        self.containers.get(container_id).cloned()
    }
}

fn list(folder: &Path) -> HashMap<String, PodName> {
    let Ok(entries) = std::fs::read_dir(folder) else { return HashMap::new() };
    let names = entries.flatten().take(CONTAINERS_MAX);
    names.filter_map(|entry| log_name(&entry.file_name().to_string_lossy())).collect()
}

/// `POD_NAMESPACE_CONTAINER-ID.log`; only the pod's name may not have an underscore, and nor may the others.
fn log_name(name: &str) -> Option<(String, PodName)> {
    let mut parts = name.strip_suffix(".log")?.splitn(3, '_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let [pod, namespace, container] = [pod, namespace, container].map(str::to_owned);
    Some((id.to_owned(), PodName { namespace, pod, container }))
}

/// The container's id: the last 64 hexadecimal digits in a row, as all runtimes put them into the path.
fn container_id(cgroup: &str) -> Option<String> {
    let mut words = cgroup.split(|c: char| !c.is_ascii_hexdigit());
    words.rfind(|word| word.len() == 64).map(str::to_owned)
}

/// Job and user of a Slurm cgroup: `/slurm/uid_1000/job_1234/step_0` (version 1) or
/// `/system.slice/slurmstepd.scope/job_1234/step_0/user/task_0` (version 2).
fn slurm_job(cgroup: &str) -> Option<(String, String)> {
    let line = cgroup.lines().find(|line| line.contains("slurm") && line.contains("/job_"))?;
    let after = |mark: &str| {
        let digits = line.split_once(mark)?.1.split('/').next()?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.to_owned())
    };
    Some((after("/job_").filter(|id| !id.is_empty())?, after("/uid_").unwrap_or_default()))
}

fn environment(path: &Path, name: &str) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    // Only root may look into others' environments; without, the job has its number and no name.
    std::fs::File::open(path).ok()?.take(ENVIRONMENT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let found = bytes.split(|byte| *byte == 0).find_map(|entry| {
        entry
            .strip_prefix(name.as_bytes())?
            .strip_prefix(b"=")
            .map(|value| String::from_utf8_lossy(value).into_owned())
    });
    found.filter(|value| value.len() <= 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn containers_of_all_runtimes_have_their_id_in_the_cgroup() {
        for path in [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/cri-containerd-{ID}.scope\n"
            ),
            format!("12:memory:/kubepods/besteffort/pod1-2/{ID}\n"),
            format!("0::/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope/container\n"),
        ] {
            assert_eq!(container_id(&path).as_deref(), Some(ID), "{path}");
        }
        assert_eq!(container_id("0::/user.slice/user-1000.slice/session-3.scope\n"), None);
    }

    #[test]
    fn slurm_jobs_are_known_under_both_kinds_of_cgroup() {
        let job = |cgroup: &str| slurm_job(cgroup).map(|(id, user)| format!("{id} {user}"));
        assert_eq!(job("9:memory:/slurm/uid_1000/job_77/step_0/task_0\n").unwrap(), "77 1000");
        assert_eq!(job("0::/system.slice/slurmstepd.scope/job_78/step_0/user/task_0\n").unwrap(), "78 ");
        assert_eq!(job("0::/system.slice/slurmd.service\n"), None);
        assert_eq!(job("0::/system.slice/slurmstepd.scope/job_/x\n"), None);
    }

    #[test]
    fn a_process_is_attributed_to_its_pod_and_forgotten_when_it_ends() {
        let host = tempfile::tempdir().unwrap();
        let (proc, logs) = (host.path().join("proc"), host.path().join("logs"));
        std::fs::create_dir_all(proc.join("42")).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(proc.join("42/comm"), "python\n").unwrap();
        std::fs::write(proc.join("42/cgroup"), format!("0::/kubepods.slice/cri-containerd-{ID}.scope\n"))
            .unwrap();
        std::fs::write(logs.join(format!("train-0_ml_worker-{ID}.log")), "").unwrap();
        let mut workloads = Workloads::new(proc.clone(), logs);
        workloads.begin();
        let workload = workloads.of(42).clone();
        let [namespace, pod, container] = ["ml", "train-0", "worker"].map(str::to_owned);
        assert_eq!(workload.pod, Some(PodName { namespace, pod, container }));
        assert_eq!(workload.process, "python");
        workloads.finish();
        workloads.begin();
        workloads.finish();
        assert!(workloads.known.is_empty());
        workloads.begin();
        assert_eq!(workloads.of(43).process, "", "gone before it was looked at");
    }

    #[test]
    fn a_slurm_job_has_its_name_from_the_environment() {
        let proc = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(proc.path().join("7")).unwrap();
        std::fs::write(proc.path().join("7/cgroup"), "9:memory:/slurm/uid_1000/job_77/step_0\n").unwrap();
        std::fs::write(proc.path().join("7/environ"), b"A=b\0SLURM_JOB_NAME=llama\0C=d\0").unwrap();
        let mut workloads = Workloads::new(proc.path().into(), "/nonexistent".into());
        workloads.begin();
        let slurm = workloads.of(7).slurm.clone().unwrap();
        assert_eq!((slurm.id.as_str(), slurm.name.as_str(), slurm.user.as_str()), ("77", "llama", "1000"));
    }
}
