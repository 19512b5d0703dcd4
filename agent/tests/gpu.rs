//! GPUs through the real reader process and the fake NVML library: what is published, and what happens when
//! the driver hangs, crashes, leaks, lies or changes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pharos_proto::catalogue::{Catalogue, Kind};
use std::time::{Duration, Instant};
use support::Bench;
use support::fake_nvml::FakeNvml;
use support::kubelet::Kubelet;

/// Longer than any of these steps takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Node {
    fake: FakeNvml,
    bench: Bench,
}

impl Node {
    fn new(control: &str, more: &[&str]) -> Self {
        Self::with(FakeNvml::new(control), more)
    }

    fn with(fake: FakeNvml, more: &[&str]) -> Self {
        let flags = fake.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Node { bench: Bench::new(&flags), fake }
    }

    /// Moves to the next second and waits for its reading; where nothing was to be read, some ticks are skipped.
    #[track_caller]
    fn tick(&mut self) {
        let gpu = |node: &Node| {
            let list = node.bench.shared.statuses.list();
            list.into_iter().find(|status| status.name == "gpu").unwrap_or_default()
        };
        let before = gpu(self);
        self.bench.clock.advance(Duration::from_secs(1));
        self.bench.scheduler.tick();
        let deadline = Instant::now() + PATIENCE;
        while !before.idle && gpu(self).readings == before.readings {
            assert!(Instant::now() < deadline, "no reading comes: {:?}", gpu(self));
            std::thread::yield_now();
        }
    }

    /// Takes readings until the text is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tick();
            let text = self.bench.text();
            if holds(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "{what} never happens:\n{}", excerpt(&text));
            std::thread::yield_now();
        }
    }

    /// Stale markers of all readings since the last call.
    fn markers(&self) -> usize {
        let Some(draft) = self.bench.shared.board.collect() else { return 0 };
        let tick = <pharos_proto::v1::Tick as prost::Message>::decode(draft.readings.as_slice()).unwrap();
        let values = tick.readings.iter().flat_map(|reading| reading.values.chunks(8).map(<[u8]>::to_owned));
        let stale = pharos_common::sample::STALE_NAN_BITS.to_le_bytes();
        values.filter(|bytes| bytes[..] == stale).count()
    }
}

/// What a failed test shows: all metrics of all links would fill the screen.
fn excerpt(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("nvlink"));
    let shorter =
        lines.map(|line| line.replace(r#"DCGM_FI_DRIVER_VERSION="550.54.15",Hostname="node-1","#, ""));
    shorter
        .map(|line| format!("{}\n", line.replace(r#"modelName="NVIDIA H100 80GB HBM3","#, "")))
        .take(120)
        .collect()
}

/// The value of a metric of a GPU.
fn of(text: &str, metric: &str, gpu: u32) -> Option<f64> {
    labelled(text, metric, &[&format!(r#"gpu="{gpu}""#)])
}

/// The value of the first series of a metric that has all these labels.
fn labelled(text: &str, metric: &str, labels: &[&str]) -> Option<f64> {
    let mut lines = text.lines().filter(|line| {
        line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    let line = lines.find(|line| labels.iter().all(|label| line.contains(label)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// The value of the series of a container `main` of a pod in the namespace `ml`.
fn of_pod(text: &str, metric: &str, pod: &str, more: &[&str]) -> Option<f64> {
    let pod = format!(r#"pod="{pod}""#);
    labelled(text, metric, &[&[r#"container="main""#, r#"namespace="ml""#, &pod], more].concat())
}

fn all_up(gpus: u32) -> impl Fn(&str) -> bool {
    move |text| (0..gpus).all(|gpu| of(text, "pharos_gpu_up", gpu) == Some(1.0))
}

#[test]
fn eight_gpus_show_every_counter_of_dcgm_exporter() {
    let mut node = Node::new("process * 42 1073741824\n", &[]);
    // The first pair of profiling samples lies a tenth of a second apart.
    let text = node.until("profiling", |text| of(text, "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 7).is_some());
    let has = |metric: &str, want: f64| {
        for gpu in 0..8 {
            assert_eq!(of(&text, metric, gpu), Some(want), "{metric} of GPU {gpu}");
        }
    };
    has("DCGM_FI_DEV_POWER_USAGE", 640.0);
    has("DCGM_FI_DEV_SM_CLOCK", 1_755.0);
    has("DCGM_FI_DEV_MEMORY_TEMP", 71.0);
    has("DCGM_FI_DEV_FB_TOTAL", 81_559.0);
    has("DCGM_FI_DEV_FB_RESERVED", 648.0);
    has("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", 700.0);
    has("DCGM_FI_DEV_SLOWDOWN_TEMP", 89.0);
    has("DCGM_FI_DEV_BAR1_TOTAL", 131_072.0);
    has("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0.0);
    has("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.46);
    has("DCGM_FI_PROF_PCIE_TX_BYTES", 2_000.0 * 1_048_576.0);
    has("pharos_gpu_process_memory_used_bytes", 1_073_741_824.0);
    assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 3), Some(63.0));
    let link = labelled(&text, "pharos_gpu_nvlink_up", &[r#"gpu="0""#, r#"nvlink="17""#]);
    assert_eq!(link, Some(1.0));
    assert!(labelled(&text, "DCGM_FI_DEV_NVLINK_BANDWIDTH_L17", &[r#"gpu="0""#]).unwrap() > 0.0);
    assert_eq!(labelled(&text, "pharos_gpus_found", &[]), Some(8.0));
    let mut lines = text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{"));
    let line = lines.find(|line| line.contains(r#"gpu="2""#)).unwrap_or_default();
    let labels = r#"gpu="2",UUID="GPU-00000000-0000-0000-0000-000000000002",pci_bus_id="00000000:38:00.0",device="nvidia2",modelName="NVIDIA H100 80GB HBM3",Hostname="node-1",hostname="node-1",DCGM_FI_DRIVER_VERSION="550.54.15""#;
    for label in labels.split(',') {
        assert!(line.contains(label), "{label} is not in {line}");
    }

    // Nothing is published that the catalogue does not know, under no label that it does not list.
    let catalogue = Catalogue::get();
    for posted in node.bench.latest() {
        let message = &posted.definition.message;
        for column in &message.columns {
            let metric = catalogue.find(&column.name).unwrap_or_else(|| panic!("{} is unknown", column.name));
            for label in message.labels.iter().chain(&column.labels) {
                let known = ["instance", "job"].contains(&label.name.as_str())
                    || metric.labels.contains(&label.name.as_str());
                assert!(known, "{}: label {} is not in proto/metrics.toml", column.name, label.name);
            }
        }
    }
}

#[test]
fn every_counter_of_the_csv_files_is_in_the_catalogue_with_its_type_and_help() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["../../shared", "../../../shared"].map(|up| here.join(up).join("conformance"));
    let read = |name: &str| folders.iter().find_map(|at| std::fs::read_to_string(at.join(name)).ok());
    let files = ["dcgm-default-counters.csv", "dcgm-dcp-counters.csv"].map(read);
    let [Some(first), Some(second)] = files else {
        eprintln!("dcgm-exporter's lists are not in {folders:?}; nothing to compare with");
        return;
    };
    // A line that is enabled counts more than the same that is not.
    let mut wanted = std::collections::BTreeMap::new();
    for line in first.lines().chain(second.lines()) {
        let off = line.starts_with('#');
        let mut parts = line.trim_start_matches(['#', ' ']).splitn(3, ',').map(str::trim);
        let (Some(name), Some(kind), Some(help)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let kind = match kind {
            "gauge" => Kind::Gauge,
            "counter" => Kind::Counter,
            _ => continue,
        };
        if !off || !wanted.contains_key(name) {
            wanted.insert(name, (kind, help));
        }
    }
    // What needs DCGM's own engine.
    let not_ours = ["DCGM_EXP_P2P_STATUS"];
    assert!(wanted.len() > 50, "{}", wanted.len());
    for (name, (kind, help)) in wanted.iter().filter(|(name, _)| !not_ours.contains(name)) {
        let metric = Catalogue::get().find(name).unwrap_or_else(|| panic!("{name} is not in the catalogue"));
        assert_eq!(metric.kind, *kind, "{name}");
        assert!(metric.help.starts_with(help), "{name}: {:?}", metric.help);
    }
}

#[test]
fn what_a_gpu_does_not_offer_is_absent_and_never_zero() {
    let unsupported = "fail * nvmlDeviceGetPowerUsage 3\nfail * field:82 3\nfail * nvmlDeviceGetFieldValues_x 3\n\
        fail * nvmlGpmQueryDeviceSupport 3\nfail * nvmlDeviceGetNvLinkState 3\ngpus 2\n";
    let mut node = Node::new(unsupported, &[]);
    let text = node.until("both GPUs", all_up(2));
    for metric in ["DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_MEMORY_TEMP", "DCGM_FI_PROF_SM_ACTIVE"] {
        assert!(!text.lines().any(|line| line.starts_with(&format!("{metric}{{"))), "{metric}");
    }
    assert!(!text.contains("pharos_gpu_nvlink_up"), "no links, no series of links");
    assert!(of(&text, "DCGM_FI_DEV_FAN_SPEED", 0).is_none(), "the library lacks the function");
    assert!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 0).is_some());
    assert_eq!(of(&text, "pharos_gpu_read_errors_total", 0), Some(0.0), "that is no error");
}

#[test]
fn every_error_code_of_a_call_costs_that_value_only_and_it_comes_back() {
    let mut node = Node::new("gpus 2\n", &[]);
    node.until("both GPUs", all_up(2));
    // Codes that mean that a GPU or the driver is gone are for other tests.
    let codes = (4..=30).chain([999]).filter(|code| ![9, 15, 16, 18, 28].contains(code));
    for code in codes {
        node.fake.control(&format!("gpus 2\nfail 0 nvmlDeviceGetTemperature {code}\n"));
        let text = node.until("the failure", |text| of(text, "DCGM_FI_DEV_GPU_TEMP", 0).is_none());
        assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 1), Some(61.0), "code {code}");
        assert_eq!(of(&text, "DCGM_FI_DEV_POWER_USAGE", 0), Some(640.0), "code {code}");
        assert_eq!(of(&text, "pharos_gpu_up", 0), Some(1.0), "code {code}");
        node.fake.control("gpus 2\n");
        if [4, 13, 25, 26].contains(&code) {
            // Asked for again after a while only: not offered.
            node.fake.control("gpus 2\n");
        }
        node.until("the value", |text| of(text, "DCGM_FI_DEV_GPU_TEMP", 0) == Some(60.0));
    }
    let text = node.bench.text();
    assert!(of(&text, "pharos_gpu_read_errors_total", 0).unwrap() > 10.0);
    assert_eq!(of(&text, "pharos_gpu_read_errors_total", 1), Some(0.0));
}

#[test]
fn a_hang_costs_one_gpu_within_two_readings_and_reading_resumes_by_itself() {
    let mut node = Node::new("gpus 4\n", &["--gpu.deadline-ms=1000"]);
    node.until("all GPUs", all_up(4));
    node.markers();
    node.fake.control("gpus 4\nblock 2 nvmlDeviceGetPowerUsage\n");
    // Each reading ends within a deadline, so two readings are two deadlines.
    node.tick();
    node.tick();
    let text = node.bench.text();
    assert_eq!(of(&text, "pharos_gpu_up", 2), Some(0.0), "{}", excerpt(&text));
    assert_eq!(of(&text, "pharos_gpu_hung", 2), Some(1.0));
    assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 2), None, "stale, not repeated");
    let markers = node.markers();
    assert!(markers > 40, "its series have ended with markers: {markers}");
    let hung = |text: &str| labelled(text, "pharos_gpu_reader_restarts_total", &[r#"reason="hung""#]);
    assert_eq!(hung(&text), Some(1.0));
    // The three others are read on, while the fourth still hangs.
    let text = node
        .until("the others", |text| [0, 1, 3].iter().all(|gpu| of(text, "pharos_gpu_up", *gpu) == Some(1.0)));
    assert_eq!(of(&text, "pharos_gpu_up", 2), Some(0.0));
    assert_eq!(labelled(&text, "pharos_gpus_found", &[]), Some(3.0));
    assert_eq!(labelled(&text, "pharos_gpus_expected", &[]), Some(4.0));
    node.fake.control("gpus 4\n");
    let text = node.until("the fourth", all_up(4));
    assert_eq!(of(&text, "pharos_gpu_hung", 2), Some(0.0));
}

#[test]
fn host_samplers_keep_their_ticks_while_the_driver_hangs() {
    let fake = FakeNvml::new("gpus 2\nblock * nvmlInit_v2\n");
    std::fs::create_dir_all(fake.path("proc")).unwrap();
    std::fs::write(fake.path("proc/loadavg"), "0.1 0.2 0.3 1/100 42\n").unwrap();
    let mut node = Node::with(fake, &["--sampler.loadavg"]);
    let readings = |node: &Node, name: &str| {
        node.bench
            .shared
            .statuses
            .list()
            .iter()
            .find(|status| status.name == name)
            .map_or(0, |status| status.readings)
    };
    for tick in 1..=50 {
        node.bench.clock.advance(Duration::from_secs(1));
        node.bench.scheduler.tick();
        assert_eq!(readings(&node, "loadavg"), tick);
    }
    node.fake.control("gpus 2\n");
    node.until("both GPUs", all_up(2));
}

#[test]
fn a_crash_in_the_driver_is_survived_and_the_gpu_is_tried_again() {
    let mut node = Node::new("gpus 3\n", &[]);
    node.until("all GPUs", all_up(3));
    node.fake.control("gpus 3\ncrash 1 nvmlDeviceGetPowerUsage\n");
    let crashed = |text: &str| labelled(text, "pharos_gpu_reader_restarts_total", &[r#"reason="crashed""#]);
    node.until("the crash", |text| crashed(text) == Some(1.0));
    node.until("the others", |text| {
        of(text, "pharos_gpu_up", 0) == Some(1.0)
            && of(text, "pharos_gpu_up", 1) == Some(0.0)
            && of(text, "pharos_gpu_up", 2) == Some(1.0)
    });
    node.fake.control("gpus 3\n");
    node.until("the second", all_up(3));
}

#[test]
fn a_gpu_that_falls_off_the_bus_is_missed_and_welcomed_back() {
    let mut node = Node::new("gpus 3\n", &[]);
    node.until("all GPUs", all_up(3));
    node.fake.control("gpus 3\nlost 1\n");
    let text = node.until("the loss", |text| of(text, "pharos_gpu_up", 1) == Some(0.0));
    assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 1), None);
    assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 2), Some(62.0));
    assert_eq!(labelled(&text, "pharos_gpus_found", &[]), Some(2.0));
    assert_eq!(labelled(&text, "pharos_gpus_expected", &[]), Some(3.0));
    assert_eq!(of(&text, "pharos_gpu_hung", 1), Some(0.0));
    node.fake.control("gpus 3\n");
    node.until("its return", all_up(3));
}

#[test]
fn a_reader_that_leaks_is_replaced() {
    let leak = "gpus 2\nleak 0 nvmlDeviceGetPowerUsage 4000000\n";
    let mut node = Node::new(leak, &["--gpu.reader-memory-max-mib=100"]);
    let memory = |text: &str| labelled(text, "pharos_gpu_reader_restarts_total", &[r#"reason="memory""#]);
    node.until("the replacement", |text| memory(text) == Some(1.0));
    node.until("both GPUs", all_up(2));
}

#[test]
fn a_driver_that_is_replaced_is_loaded_anew() {
    let mut node = Node::new("gpus 2\n", &[]);
    node.until("both GPUs", all_up(2));
    node.fake.control("gpus 2\nfail * nvmlDeviceGetUtilizationRates 18\nfail * nvmlInit_v2 18\n");
    let text = node.until("the loss", |text| of(text, "pharos_gpu_up", 0) == Some(0.0));
    assert_eq!(of(&text, "DCGM_FI_DEV_GPU_TEMP", 0), None);
    assert_eq!(labelled(&text, "pharos_gpu_reader_up", &[]), Some(0.0));
    node.fake.control("gpus 2\ndriver 570.1\n");
    let text = node.until("the new driver", all_up(2));
    let version =
        labelled(&text, "DCGM_FI_DEV_GPU_TEMP", &[r#"gpu="0""#, r#"DCGM_FI_DRIVER_VERSION="570.1""#]);
    assert_eq!(version, Some(60.0));
    assert!(!text.contains(r#"DCGM_FI_DRIVER_VERSION="550.54.15""#), "the old series have ended");
}

#[test]
fn mig_instances_come_and_go_without_a_restart() {
    let mut node = Node::new("gpus 2\n", &[]);
    let text = node.until("both GPUs", all_up(2));
    assert!(!text.contains("GPU_I_ID"));
    node.fake.control("gpus 2\nmig 1 1:0:3g.40gb:40448 5:0:1g.10gb:9728\n");
    let instance = |text: &str, id: &str| {
        labelled(text, "DCGM_FI_DEV_FB_TOTAL", &[r#"gpu="1""#, &format!(r#"GPU_I_ID="{id}""#)])
    };
    let text = node.until("the instances", |text| instance(text, "5").is_some());
    assert_eq!((instance(&text, "1"), instance(&text, "5")), (Some(40_448.0), Some(9_728.0)));
    assert!(text.contains(r#"GPU_I_PROFILE="3g.40gb""#));
    assert_eq!(of(&text, "DCGM_FI_DEV_MIG_MODE", 1), Some(1.0));
    node.until("their profiles", |text| {
        labelled(text, "DCGM_FI_PROF_SM_ACTIVE", &[r#"GPU_I_ID="5""#]) == Some(0.82)
    });
    node.fake.control("gpus 2\nmig 1 9:0:7g.80gb:80896\n");
    let text = node.until("the other instance", |text| instance(text, "9").is_some());
    assert_eq!((instance(&text, "1"), instance(&text, "5")), (None, None));
    assert_eq!(of(&text, "pharos_gpu_up", 1), Some(1.0));
    let restarts = text.lines().filter(|line| line.starts_with("pharos_gpu_reader_restarts_total{"));
    assert!(restarts.clone().all(|line| line.ends_with(" 0")), "{:?}", restarts.collect::<Vec<_>>());
}

#[test]
fn gpus_that_are_plugged_in_are_found_without_a_restart_of_the_agent() {
    let fake = FakeNvml::new("gpus 1\n");
    let plug = |place: &str| {
        let folder = fake.path("sys/bus/pci/devices").join(place);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("vendor"), "0x10de\n").unwrap();
        std::fs::write(folder.join("class"), "0x030200\n").unwrap();
    };
    plug("0000:18:00.0");
    let mut node = Node::with(fake, &[]);
    let text = node.until("the GPU", all_up(1));
    assert_eq!(labelled(&text, "pharos_gpus_expected", &[]), Some(1.0));
    node.fake.control("gpus 2\n");
    let folder = node.fake.path("sys/bus/pci/devices/0000:28:00.0");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("vendor"), "0x10de\n").unwrap();
    std::fs::write(folder.join("class"), "0x030200\n").unwrap();
    let text = node.until("the second GPU", all_up(2));
    assert_eq!(labelled(&text, "pharos_gpus_expected", &[]), Some(2.0));
}

#[test]
fn on_request_nothing_of_the_driver_is_held_open() {
    let mut node = Node::new("gpus 2\n", &[]);
    node.until("both GPUs", all_up(2));
    let library = node.fake.path("");
    let holders = || {
        let maps = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
        let lines = maps.filter_map(|path| std::fs::read_to_string(path).ok());
        lines
            .filter(|line| line.contains("--internal-gpu-reader") && line.contains(library.to_str().unwrap()))
            .count()
    };
    assert_eq!(holders(), 1);
    std::fs::write(node.fake.path("release"), "").unwrap();
    node.until("the release", |text| !text.contains("DCGM_FI_DEV_GPU_TEMP{"));
    let deadline = Instant::now() + PATIENCE;
    while holders() > 0 {
        assert!(Instant::now() < deadline, "the reader lives on");
        node.tick();
    }
    std::fs::remove_file(node.fake.path("release")).unwrap();
    node.until("both GPUs", all_up(2));
}

#[test]
fn xids_are_counted_from_the_log_and_once_only_from_events() {
    let fake = FakeNvml::new("gpus 2\n");
    // One was there before the agent: it counts, but it is not news.
    fake.log("4,1,1,-;NVRM: Xid (PCI:0000:28:00): 31, pid=1, name=x");
    let mut node = Node::with(fake, &[]);
    let count = |text: &str, gpu: u32, xid: u32| {
        let labels = [format!(r#"gpu="{gpu}""#), format!(r#"xid="{xid}""#)];
        labelled(text, "pharos_gpu_xid_errors_total", &[&labels[0], &labels[1]])
    };
    let text = node.until("both GPUs", all_up(2));
    assert_eq!(of(&text, "DCGM_FI_DEV_XID_ERRORS", 0), Some(0.0));
    let events = [r#"gpu="0""#, r#"clock_event="power_cap""#, r#"window_size_in_ms="300000""#];
    assert!(labelled(&text, "DCGM_EXP_CLOCK_EVENTS_COUNT", &events) >= Some(1.0), "the fake is capped");
    let memory = [r#"gpu="0""#, r#"health_watch="MEM""#, r#"health_error_code="DCGM_FR_OK""#];
    assert_eq!(labelled(&text, "DCGM_EXP_GPU_HEALTH_STATUS", &memory), Some(0.0));
    node.until("the old one", |text| count(text, 1, 31) == Some(1.0));

    // Two equal ones in a row, and the driver tells of the same: two.
    node.fake.log("4,2,2,-;NVRM: Xid (PCI:0000:18:00): 63, pid=1, name=x");
    node.fake.log("4,3,3,-;NVRM: Xid (PCI:0000:18:00): 63, pid=1, name=x");
    node.fake.control("gpus 2\nxid 0 63\nxid 0 63\n");
    node.tick();
    let text = node.until("two", |text| count(text, 0, 63) == Some(2.0));
    assert_eq!(of(&text, "DCGM_FI_DEV_XID_ERRORS", 0), Some(63.0));
    let window = r#"window_size_in_ms="300000""#;
    assert_eq!(
        labelled(&text, "DCGM_EXP_XID_ERRORS_COUNT", &[r#"gpu="0""#, r#"xid="63""#, window]),
        Some(2.0)
    );
    assert_eq!(labelled(&text, "pharos_gpu_xid_info", &[r#"xid="63""#, r#"class="memory""#]), Some(1.0));

    // One that the log does not tell of is counted from the event.
    node.fake.control("gpus 2\nxid 0 63\nxid 0 63\nxid 1 45\n");
    node.until("the event", |text| count(text, 1, 45) == Some(1.0));
    assert_eq!(count(&node.bench.text(), 0, 63), Some(2.0));

    // A GPU that the driver does not know has its place only.
    node.fake.log("4,4,4,-;NVRM: Xid (PCI:0000:88:00): 79, pid=1, GPU has fallen off the bus.");
    let unknown = [r#"pci_bus_id="00000000:88:00.0""#, r#"xid="79""#];
    node.until("the stranger", |text| labelled(text, "pharos_gpu_xid_errors_total", &unknown) == Some(1.0));
}

#[test]
fn peers_of_nvlink_are_shown_and_followed() {
    let broken = "value 0 p2p2 4\nvalue 0 p2p1 0\n";
    let mut node = Node::new(&format!("gpus 3\n{broken}"), &[]);
    let status = |text: &str, gpu: u32, peer: u32, status: &str| {
        let labels = [format!(r#",gpu="{gpu}""#), format!(r#"peer_gpu="{peer}""#)];
        let status = format!(r#"link_status="{status}""#);
        labelled(text, "DCGM_EXP_P2P_STATUS", &[&labels[0], &labels[1], &status])
    };
    let text = node.until("all pairs", |text| status(text, 2, 1, "OK").is_some());
    assert_eq!(status(&text, 0, 1, "OK"), Some(0.0));
    assert_eq!(status(&text, 0, 2, "DisabledByRegKey"), Some(4.0));
    assert_eq!(status(&text, 2, 0, "DisabledByRegKey"), Some(4.0), "from both sides");
    assert_eq!(status(&text, 0, 0, "OK"), None);
    assert_eq!(text.lines().filter(|line| line.starts_with("DCGM_EXP_P2P_STATUS{")).count(), 6);
    // It is asked for again now and then.
    node.fake.control("gpus 3\n");
    node.until("the pair works", |text| status(text, 2, 0, "OK") == Some(0.0));
    // A GPU that hangs does so alone: no pair with it is asked about.
    node.fake.control("gpus 3\nblock 1 nvmlDeviceGetPowerUsage\n");
    let text = node.until("it hangs", |text| of(text, "pharos_gpu_hung", 1) == Some(1.0));
    assert_eq!((of(&text, "pharos_gpu_hung", 0), of(&text, "pharos_gpu_hung", 2)), (Some(0.0), Some(0.0)));
    node.until("the others are read on", |text| {
        status(text, 0, 2, "OK") == Some(0.0) && status(text, 0, 1, "OK").is_none()
    });
}

#[test]
fn recorded_values_are_played() {
    let control = "gpus 1\nvalue 0 power 100000\nat 300 value 0 power 200000\nat 600 value 0 power 300000\n";
    let mut node = Node::new(control, &[]);
    for watts in [200.0, 300.0] {
        node.until("the next value", |text| of(text, "DCGM_FI_DEV_POWER_USAGE", 0) == Some(watts));
    }
}

#[test]
fn processes_are_attributed_to_pods_and_jobs() {
    let fake = FakeNvml::new("gpus 2\nprocess 0 41 1000\nprocess 0 42 2000\nprocess 1 43 3000 mps\n");
    let id = |digit: char| digit.to_string().repeat(64);
    let process = |pid: u32, cgroup: String| {
        let folder = fake.path("proc").join(pid.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("comm"), "python\n").unwrap();
        std::fs::write(folder.join("cgroup"), cgroup).unwrap();
    };
    process(41, format!("0::/kubepods.slice/cri-containerd-{}.scope\n", id('a')));
    process(42, format!("0::/kubepods.slice/cri-containerd-{}.scope\n", id('b')));
    process(43, "0::/system.slice/slurmstepd.scope/job_77/step_0/user/task_0\n".to_owned());
    let logs = fake.path("root/var/log/containers");
    std::fs::create_dir_all(&logs).unwrap();
    std::fs::write(logs.join(format!("infer-a_ml_main-{}.log", id('a'))), "").unwrap();
    std::fs::write(logs.join(format!("infer-b_ml_main-{}.log", id('b'))), "").unwrap();
    let mut node = Node::with(fake, &[]);
    let text = node.until("both GPUs", all_up(2));
    let memory = |pod: &str| {
        labelled(
            &text,
            "pharos_gpu_process_memory_used_bytes",
            &[&format!(r#"pod="{pod}""#), r#"namespace="ml""#],
        )
    };
    assert_eq!((memory("infer-a"), memory("infer-b")), (Some(1_000.0), Some(2_000.0)));
    let slicing = [r#"gpu="0""#, r#"pod="infer-b""#, r#"sharing="time_slicing""#];
    assert_eq!(labelled(&text, "pharos_gpu_pod_info", &slicing), Some(1.0));
    let job = [r#"gpu="1""#, r#"scheduler="slurm""#, r#"job="77""#];
    assert_eq!(labelled(&text, "pharos_gpu_job_info", &job), Some(1.0));
    let mps = [r#"gpu="1""#, r#"mps="true""#];
    assert_eq!(labelled(&text, "pharos_gpu_process_memory_used_bytes", &mps), Some(3_000.0));
    // Device values are there once, whoever shares the device.
    assert_eq!(text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_UTIL{")).count(), 2);
}

#[test]
fn gpus_carry_their_pods_and_tell_how_they_are_shared() {
    let control = "gpus 5\nprocess 0 41 1000\nprocess 0 42 2000\nprocess 1 43 3000\nprocess 1 46 600\n\
                   process 2 44 4000 mps\nprocess 2 45 5000 mps\nmig 3 1:0:3g.40gb:40448 5:0:1g.10gb:9728\n";
    let fake = FakeNvml::new(control);
    let logs = fake.path("root/var/log/containers");
    std::fs::create_dir_all(&logs).unwrap();
    for (pid, pod) in [(41, "infer-a"), (42, "infer-b"), (43, "train-c"), (44, "serve-d"), (45, "serve-e")] {
        let id = pid.to_string().repeat(32);
        let folder = fake.path("proc").join(pid.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("comm"), "python\n").unwrap();
        let cgroup = format!("0::/kubepods.slice/cri-containerd-{id}.scope\n");
        std::fs::write(folder.join("cgroup"), cgroup).unwrap();
        std::fs::write(logs.join(format!("{pod}_ml_main-{id}.log")), "").unwrap();
    }
    let uuid = |gpu: u32| format!("GPU-00000000-0000-0000-0000-{gpu:012x}");
    let replica = |gpu: u32, replica: u32| format!("{}::{replica}", uuid(gpu));
    let _kubelet = Kubelet::start(
        &fake.path("kubelet.sock"),
        &[
            ("ml", "infer-a", &replica(0, 0)),
            ("ml", "infer-b", &replica(0, 1)),
            ("ml", "train-c", &uuid(1)),
            ("ml", "serve-d", &replica(2, 0)),
            ("ml", "serve-e", &replica(2, 1)),
            ("ml", "slice-f", "MIG-00000000-0000-0000-0003-000000000001"),
        ],
    );
    let mut node = Node::with(fake, &["--gpu.pod-labels"]);
    let text = node.until("the kubelet's answer", |text| {
        of_pod(text, "DCGM_FI_DEV_GPU_UTIL", "train-c", &[r#",gpu="1""#]).is_some()
    });
    // A GPU of one pod carries it; one that is shared has its values once, and nobody's name.
    let utilisation: Vec<&str> =
        text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_UTIL{")).collect();
    assert_eq!(utilisation.len(), 5, "{utilisation:#?}");
    assert_eq!(utilisation.iter().filter(|line| line.contains("pod=\"")).count(), 1, "{utilisation:#?}");
    // So does an instance.
    let instances: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("DCGM_FI_DEV_FB_TOTAL{") && line.contains("GPU_I_ID"))
        .collect();
    assert_eq!(instances.len(), 2, "{instances:#?}");
    assert_eq!(of_pod(&text, "DCGM_FI_DEV_FB_TOTAL", "slice-f", &[r#"GPU_I_ID="5""#]), Some(9_728.0));
    assert!(!instances.iter().any(|line| line.contains(r#"GPU_I_ID="1""#) && line.contains("pod=\"")));
    // How it is shared, by whom, and what each of them holds.
    for (gpu, pod, sharing, bytes) in [
        (0, "infer-a", "time_slicing", Some(1_000.0)),
        (0, "infer-b", "time_slicing", Some(2_000.0)),
        (1, "train-c", "exclusive", Some(3_000.0)),
        (2, "serve-d", "mps", Some(4_000.0)),
        (2, "serve-e", "mps", Some(5_000.0)),
        (3, "slice-f", "mig", None),
    ] {
        let gpu = format!(r#",gpu="{gpu}""#);
        let memory = of_pod(&text, "pharos_gpu_process_memory_used_bytes", pod, &[&gpu]);
        assert_eq!(memory, bytes, "{pod}\n{}", excerpt(&text));
        let sharing = format!(r#"sharing="{sharing}""#);
        let info = of_pod(&text, "pharos_gpu_pod_info", pod, &[&gpu, &sharing]);
        assert_eq!(info, Some(1.0), "{pod} {sharing}\n{}", excerpt(&text));
    }
    // What the host runs on a pod's GPU is not the pod's.
    let of_host: Vec<&str> = text.lines().filter(|line| line.contains(r#"pid="46""#)).collect();
    assert!(!of_host.is_empty() && !of_host.iter().any(|line| line.contains("pod=\"")), "{of_host:#?}");
    // A scraper refuses everything if one series has a label twice.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.matches(r#"pod=""#).count() <= 1, "{line}");
    }
}

#[test]
fn the_hostname_label_is_as_wanted() {
    let mut node = Node::new("gpus 1\n", &["--gpu.hostname-label=hostname"]);
    let text = node.until("the GPU", all_up(1));
    assert!(text.contains(r#"hostname="node-1""#) && !text.contains(r#"Hostname="node-1""#));
}

#[test]
fn a_node_without_a_library_publishes_nothing_and_says_why() {
    let fake = FakeNvml::new("");
    std::fs::remove_file(fake.path("libnvidia-ml.so.1")).unwrap();
    let mut node = Node::with(fake, &[]);
    node.tick();
    assert!(!node.bench.text().contains("gpu"), "{}", node.bench.text());
}

#[test]
fn a_trace_is_played_as_if_it_were_read() {
    let trace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/h100x8-training.trace");
    let mut node = Node::new("", &[&format!("--gpu.replay={}", trace.display())]);
    let text = node.until("eight GPUs", all_up(8));
    for metric in ["DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_XID_ERRORS"] {
        assert!(of(&text, metric, 7).is_some(), "{metric}");
    }
    assert!(of(&text, "pharos_gpu_straggler_score", 0).is_some());
}
