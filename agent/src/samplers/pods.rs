//! `pods`: processor, memory, I/O and pressure of each pod and container, from cgroup v2. Off by default.
//!
//! Cgroups named by the kubelet (`kubepods…/pod<UID>/<container>`) are found by walking the tree now and
//! then. Names come from the links that the kubelet keeps under `/var/log/containers` for every container
//! (`<pod>_<namespace>_<container>-<id>.log`), so nobody has to be asked: no API, no permissions, no socket.

use super::table::{Object, Table};
use crate::error::SampleError;
use crate::group::{ColumnSpec, GroupSet, Label};
use crate::kernel_files::{KernelFile, ReadBuffer};
use crate::sampler::{Paths, Sampler, SamplerOptions};
use crate::scan::{self, Fields};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Containers and pods of one node: ten times what Kubernetes supports.
const CGROUPS_MAX: usize = 2_048;
/// Folders looked at in one walk.
const FOLDERS_MAX: usize = 8_192;
/// Depth below the root at which the kubelet puts containers, with room for its own slices.
const DEPTH_MAX: usize = 6;
/// Readings between two walks.
const READINGS_BETWEEN_WALKS: u32 = 10;

/// Makes the sampler.
pub fn build(options: &SamplerOptions) -> Box<dyn Sampler> {
    Box::new(PodSampler {
        paths: options.paths.clone(),
        cgroups: Vec::new(),
        readings_until_walk: 0,
        table: Table::default(),
        overflowing: false,
    })
}

struct PodSampler {
    paths: Paths,
    cgroups: Vec<Cgroup>,
    readings_until_walk: u32,
    table: Table,
    overflowing: bool,
}

/// A pod or a container at work.
#[derive(Debug)]
struct Cgroup {
    folder: PathBuf,
    key: String,
    labels: Vec<Label>,
    cpu: KernelFile,
    memory: KernelFile,
    memory_stat: KernelFile,
    memory_max: KernelFile,
    memory_events: KernelFile,
    io: KernelFile,
    pids: KernelFile,
    pressure: [KernelFile; 3],
}

/// What a container's link under `/var/log/containers` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    pod: String,
    namespace: String,
    container: String,
}

const PRESSURES: [(&str, &str, &str); 3] = [
    (
        "cpu.pressure",
        "pharos_pod_pressure_cpu_waiting_seconds_total",
        "pharos_pod_pressure_cpu_stalled_seconds_total",
    ),
    (
        "memory.pressure",
        "pharos_pod_pressure_memory_waiting_seconds_total",
        "pharos_pod_pressure_memory_stalled_seconds_total",
    ),
    (
        "io.pressure",
        "pharos_pod_pressure_io_waiting_seconds_total",
        "pharos_pod_pressure_io_stalled_seconds_total",
    ),
];
const MICROS: f64 = 1e-6;

impl Sampler for PodSampler {
    fn sample(&mut self, buffer: &mut ReadBuffer, groups: &mut GroupSet) -> Result<(), SampleError> {
        if self.readings_until_walk == 0 {
            self.walk();
            self.readings_until_walk = READINGS_BETWEEN_WALKS;
        }
        self.readings_until_walk -= 1;
        let mut objects = Vec::with_capacity(self.cgroups.len());
        for cgroup in &mut self.cgroups {
            // A container that has ended since the last walk has no files.
            if let Ok(Some(object)) = cgroup.read(buffer) {
                objects.push(object);
            }
        }
        self.table.publish(groups, objects);
        Ok(())
    }
}

impl PodSampler {
    fn walk(&mut self) {
        let root = self.paths.sys("fs/cgroup");
        // With both versions mounted, version 2 lies in a folder of its own.
        let unified = root.join("unified");
        let root = if unified.is_dir() { unified } else { root };
        let names = container_names(&self.paths.root("/var/log/containers"));
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let mut waiting = vec![(root, 0usize, None::<String>)];
        while let Some((folder, depth, pod)) = waiting.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                looked_at += 1;
                if looked_at > FOLDERS_MAX || found.len() >= CGROUPS_MAX {
                    break;
                }
                let name = entry.file_name().to_string_lossy().into_owned();
                let in_kubepods = depth > 0 || name.starts_with("kubepods") || name.starts_with("kubelet");
                if !in_kubepods || depth >= DEPTH_MAX {
                    continue;
                }
                let path = entry.path();
                if let Some(pod) = &pod {
                    // What a container makes below itself is the container's.
                    if let Some(id) = container_id(&name) {
                        found.push((path, pod.clone(), Some(id)));
                    }
                } else if let Some(uid) = pod_uid(&name) {
                    found.push((path.clone(), uid.clone(), None));
                    waiting.push((path, depth + 1, Some(uid)));
                } else {
                    waiting.push((path, depth + 1, None));
                }
            }
        }
        let overflow = looked_at > FOLDERS_MAX || found.len() >= CGROUPS_MAX;
        if overflow && !self.overflowing {
            tracing::warn!(limit = CGROUPS_MAX, "Too many pods and containers, the rest is left out");
        }
        self.overflowing = overflow;
        self.take_over(found, &names);
    }

    /// Keeps what is known and opens what is new.
    fn take_over(&mut self, found: Vec<(PathBuf, String, Option<String>)>, names: &HashMap<String, Names>) {
        let mut pods: HashMap<String, Names> = HashMap::new();
        for (_, uid, id) in &found {
            if let Some(names) = id.as_ref().and_then(|id| names.get(id)) {
                pods.entry(uid.clone())
                    .or_insert_with(|| Names { container: String::new(), ..names.clone() });
            }
        }
        let mut known: HashMap<PathBuf, Cgroup> = std::mem::take(&mut self.cgroups)
            .into_iter()
            .map(|cgroup| (cgroup.folder.clone(), cgroup))
            .collect();
        for (folder, uid, id) in found {
            let of_pod = || pods.get(&uid).cloned().unwrap_or_default();
            let names = id.as_ref().and_then(|id| names.get(id)).cloned().unwrap_or_else(of_pod);
            let labels = labels(&uid, id.as_deref(), &names);
            self.cgroups.push(match known.remove(&folder).filter(|cgroup| cgroup.labels == labels) {
                Some(cgroup) => cgroup,
                None => Cgroup::new(folder, &uid, id.as_deref(), &names, labels),
            });
        }
    }
}

fn labels(uid: &str, id: Option<&str>, names: &Names) -> Vec<Label> {
    vec![
        ("namespace".into(), names.namespace.clone()),
        ("pod".into(), names.pod.clone()),
        ("container".into(), names.container.clone()),
        ("pod_uid".into(), uid.to_owned()),
        ("container_id".into(), id.unwrap_or_default().chars().take(12).collect()),
    ]
}

impl Cgroup {
    fn new(folder: PathBuf, uid: &str, id: Option<&str>, names: &Names, labels: Vec<Label>) -> Self {
        let file = |name: &str| KernelFile::whole(folder.join(name));
        Cgroup {
            // Names belong to the key: a group whose labels change is another.
            key: format!("pods/{uid}/{}/{}", id.unwrap_or_default(), names.pod),
            labels,
            cpu: file("cpu.stat"),
            memory: file("memory.current"),
            memory_stat: file("memory.stat"),
            memory_max: file("memory.max"),
            memory_events: file("memory.events"),
            io: KernelFile::list(folder.join("io.stat")),
            pids: file("pids.current"),
            pressure: PRESSURES.map(|(name, ..)| file(name)),
            folder,
        }
    }

    fn read(&mut self, buffer: &mut ReadBuffer) -> Result<Option<Object>, SampleError> {
        let mut object = Object::new(self.key.clone(), self.labels.clone());
        let cpu = self.cpu.read(buffer)?;
        for (field, metric, scale) in [
            ("usage_usec", "pharos_pod_cpu_usage_seconds_total", MICROS),
            ("user_usec", "pharos_pod_cpu_user_seconds_total", MICROS),
            ("system_usec", "pharos_pod_cpu_system_seconds_total", MICROS),
            ("nr_periods", "pharos_pod_cpu_periods_total", 1.0),
            ("nr_throttled", "pharos_pod_cpu_throttled_periods_total", 1.0),
            ("throttled_usec", "pharos_pod_cpu_throttled_seconds_total", MICROS),
        ] {
            object.put_plain(metric, field_of(cpu, field).map(|value| value * scale));
        }
        let one = |text: Option<&[u8]>| text.and_then(|text| scan::number(scan::trimmed(text)));
        let usage = one(self.memory.read_if_present(buffer)?);
        object.put_plain("pharos_pod_memory_usage_bytes", usage);
        // "max" is no number: there is no limit.
        object.put_plain("pharos_pod_memory_limit_bytes", one(self.memory_max.read_if_present(buffer)?));
        object.put_plain("pharos_pod_processes", one(self.pids.read_if_present(buffer)?));
        let stat = self.memory_stat.read_if_present(buffer)?.unwrap_or_default();
        object.put_plain("pharos_pod_memory_anonymous_bytes", field_of(stat, "anon"));
        object.put_plain("pharos_pod_memory_file_bytes", field_of(stat, "file"));
        // What the kubelet evicts by: everything that is not cheap to give back.
        let inactive = field_of(stat, "inactive_file").unwrap_or(0.0);
        object
            .put_plain("pharos_pod_memory_working_set_bytes", usage.map(|usage| (usage - inactive).max(0.0)));
        let events = self.memory_events.read_if_present(buffer)?.unwrap_or_default();
        object.put_plain("pharos_pod_memory_oom_kills_total", field_of(events, "oom_kill"));
        if let Some(io) = self.io.read_if_present(buffer)? {
            for (field, metric) in [
                ("rbytes=", "pharos_pod_io_read_bytes_total"),
                ("wbytes=", "pharos_pod_io_written_bytes_total"),
                ("rios=", "pharos_pod_io_reads_total"),
                ("wios=", "pharos_pod_io_writes_total"),
            ] {
                let fields = scan::lines(io).flat_map(Fields::of);
                let values = fields.filter_map(|text| scan::number(text.strip_prefix(field.as_bytes())?));
                object.put(ColumnSpec::plain(metric), values.sum());
            }
        }
        for (file, (_, some, full)) in self.pressure.iter_mut().zip(PRESSURES) {
            // Kernels without pressure tracking have the files and refuse to read them.
            let Ok(Some(text)) = file.read_if_present(buffer) else { continue };
            for line in scan::lines(text) {
                let metric = if line.starts_with(b"some") { some } else { full };
                let total = Fields::of(line).find_map(|field| scan::number(field.strip_prefix(b"total=")?));
                object.put_plain(metric, total.map(|micros| micros * MICROS));
            }
        }
        Ok(Some(object))
    }
}

/// The number behind a name, in a file of lines `name number`.
fn field_of(text: &[u8], name: &str) -> Option<f64> {
    scan::lines(text).find_map(|line| {
        let mut fields = Fields::of(line);
        (fields.next()? == name.as_bytes()).then(|| fields.number())?
    })
}

/// The pod's UID in a cgroup's name, with dashes: `pod<UID>`, or `kubepods-…-pod<UID>.slice` with underscores.
fn pod_uid(name: &str) -> Option<String> {
    let name = name.strip_suffix(".slice").unwrap_or(name);
    let uid = match name.strip_prefix("pod") {
        Some(uid) => uid,
        None => name.rsplit_once("-pod")?.1,
    };
    let uid = uid.replace('_', "-");
    let legal = uid.len() >= 32 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    legal.then_some(uid)
}

/// The container's id in a cgroup's name: `<id>`, or `<runtime>-<id>.scope`.
fn container_id(name: &str) -> Option<String> {
    let name = name.strip_suffix(".scope").unwrap_or(name);
    let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Names of containers by id.
fn container_names(folder: &Path) -> HashMap<String, Names> {
    let Ok(entries) = std::fs::read_dir(folder) else { return HashMap::new() };
    let names = entries
        .flatten()
        .take(FOLDERS_MAX)
        .filter_map(|entry| parse_link(&entry.file_name().to_string_lossy()));
    names.collect()
}

/// `<pod>_<namespace>_<container>-<id>.log`
fn parse_link(name: &str) -> Option<(String, Names)> {
    let (rest, id) = name.strip_suffix(".log")?.rsplit_once('-')?;
    let mut parts = rest.splitn(3, '_').map(str::to_owned);
    let names = Names { pod: parts.next()?, namespace: parts.next()?, container: parts.next()? };
    Some((id.to_owned(), names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroups_are_known_by_both_drivers_names() {
        let uid = "0a1b2c3d-0000-1111-2222-333344445555";
        assert_eq!(pod_uid(&format!("pod{uid}")).as_deref(), Some(uid));
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        assert_eq!(pod_uid(&slice).as_deref(), Some(uid));
        assert_eq!(pod_uid("kubepods-burstable.slice"), None);
        assert_eq!(pod_uid("podman-1.scope"), None);
        let id = "ab".repeat(32);
        assert_eq!(container_id(&format!("cri-containerd-{id}.scope")), Some(id.clone()));
        assert_eq!(container_id(&id), Some(id.clone()));
        assert_eq!(container_id("init.scope"), None);
        let link = format!("train-0_research_pytorch-main-{id}.log");
        let names =
            Names { pod: "train-0".into(), namespace: "research".into(), container: "pytorch-main".into() };
        assert_eq!(parse_link(&link), Some((id, names)));
        assert_eq!(parse_link("README"), None);
    }
}
