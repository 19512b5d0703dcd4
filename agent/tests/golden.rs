//! One golden scrape of a fake host, and what changes when devices come, go or break.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pharos_agent::exposition::Format;
use support::{Bench, config, copy_of_fixtures, fixtures, host_flags};

/// Samplers whose readings depend on the machine that runs the test.
const NOT_FROM_FILES: [&str; 3] = ["--no-sampler.uname", "--no-sampler.timex", "--no-sampler.filesystem"];

fn bench(root: &std::path::Path, more: &[&str]) -> Bench {
    let flags = host_flags(root);
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
    Bench::new(&flags)
}

fn stable_lines(text: &str) -> String {
    let changes =
        ["node_time_seconds ", "node_scrape_collector_duration_seconds{", "node_time_zone_offset_seconds{"];
    let lines = text.lines().filter(|line| !changes.iter().any(|start| line.starts_with(start)));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_fake_host_scrapes_as_in_the_golden_file() {
    let mut bench = bench(&fixtures(), &NOT_FROM_FILES);
    // By the second tick samplers with their own threads have told how they fared, too.
    bench.tick();
    bench.tick();
    compare(&stable_lines(&bench.text()), "golden.prom");
}

/// Samplers that are off by default.
const OPT_IN: [&str; 23] = [
    "--collector.disable-defaults",
    "--sampler.buddyinfo",
    "--sampler.cgroups",
    "--sampler.cpu_vulnerabilities",
    "--sampler.dmmultipath",
    "--sampler.interrupts",
    "--sampler.kernel_hung",
    "--sampler.ksmd",
    "--sampler.lnstat",
    "--sampler.meminfo_numa",
    "--sampler.mountstats",
    "--sampler.pods",
    "--sampler.processes",
    "--sampler.slabinfo",
    "--sampler.softirqs",
    "--sampler.sysctl",
    "--sampler.tcpstat",
    "--sampler.xfrm",
    "--sampler.zoneinfo",
    "--collector.sysctl.include=kernel.threads-max",
    "--collector.sysctl.include=fs.file-nr:total,current,max",
    "--collector.sysctl.include-info=kernel.pid_max",
    "--collector.slabinfo.slabs-exclude=^TCP$",
];

#[test]
fn what_is_switched_on_by_hand_scrapes_as_in_its_golden_file() {
    let mut bench = bench(&fixtures(), &OPT_IN);
    bench.tick();
    bench.tick();
    compare(&stable_lines(&bench.text()), "golden_opt_in.prom");
}

#[track_caller]
fn compare(text: &str, golden: &str) {
    let golden = fixtures().join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, text).unwrap();
    }
    let want = std::fs::read_to_string(&golden).unwrap();
    for (got, want) in text.lines().zip(want.lines()) {
        assert_eq!(got, want, "run with UPDATE_GOLDEN=1 if the change is meant");
    }
    assert_eq!(text.lines().count(), want.lines().count());
}

#[test]
fn filesystems_of_a_mounted_host_are_asked_under_its_root() {
    let mut bench = bench(&fixtures(), &[]);
    bench.tick();
    let text = bench.text();
    let has = |line: &str| assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
    has(r#"node_filesystem_size_bytes{device="/dev/nvme0n1p1",fstype="ext4",mountpoint="/"}"#);
    has(r#"node_filesystem_readonly{device="tmpfs",fstype="tmpfs",mountpoint="/with blank"} 1"#);
    has(r#"node_filesystem_mount_info{device="/dev/nvme0n1p1",major="259",minor="1",mountpoint="/"} 1"#);
    // What cannot be asked says so and has no sizes.
    assert!(text.contains(r#"fstype="xfs",mountpoint="/missing"} 1"#), "{text}");
    assert!(!text.contains(r#"node_filesystem_size_bytes{device="/dev/sdz""#));
    assert!(!text.contains(r#"fstype="proc""#));
}

#[test]
fn devices_that_go_end_with_one_stale_marker_and_may_come_back() {
    let host = copy_of_fixtures();
    let mut bench = bench(host.path(), &NOT_FROM_FILES);
    bench.tick();
    let net = host.path().join("proc/net/dev");
    let before = std::fs::read_to_string(&net).unwrap();
    let without: String =
        before.lines().filter(|line| !line.contains("eth0:1")).map(|line| format!("{line}\n")).collect();
    assert!(bench.text().contains(r#"node_network_receive_bytes_total{device="eth0:1"} 10"#));
    let markers = |bench: &Bench| {
        let Some(draft) = bench.shared.board.collect() else { return 0 };
        let tick = <pharos_proto::v1::Tick as prost::Message>::decode(draft.readings.as_slice()).unwrap();
        let values = tick.readings.iter().flat_map(|reading| reading.values.chunks(8).map(<[u8]>::to_owned));
        let stale = pharos_common::sample::STALE_NAN_BITS.to_le_bytes();
        values.filter(|bytes| bytes[..] == stale).count()
    };
    assert_eq!(markers(&bench), 0);
    std::fs::write(&net, without).unwrap();
    bench.tick();
    assert!(!bench.text().contains("eth0:1"));
    assert_eq!(markers(&bench), 16);
    bench.tick();
    assert_eq!(markers(&bench), 0);
    std::fs::write(&net, before).unwrap();
    bench.tick();
    assert!(bench.text().contains(r#"node_network_receive_bytes_total{device="eth0:1"} 10"#));
    assert_eq!(markers(&bench), 0);
}

#[test]
fn a_changed_label_ends_the_old_series_and_starts_the_new() {
    let host = copy_of_fixtures();
    let mut bench = bench(host.path(), &NOT_FROM_FILES);
    bench.tick();
    assert!(bench.text().contains(r#"operstate="up"} 1"#));
    let operstate = host.path().join("sys/class/net/eth0/operstate");
    std::fs::write(operstate, "down\n").unwrap();
    bench.tick();
    let text = bench.text();
    assert!(text.contains(r#"operstate="down"} 1"#) && !text.contains(r#"operstate="up"}"#), "{text}");
    assert!(text.contains(r#"node_network_up{device="eth0"} 0"#));
}

#[test]
fn a_broken_file_silences_its_sampler_only_and_says_why() {
    let host = copy_of_fixtures();
    let mut bench = bench(host.path(), &NOT_FROM_FILES);
    bench.tick();
    std::fs::write(host.path().join("proc/meminfo"), "MemTotal: a lot\n").unwrap();
    bench.tick();
    let text = bench.text();
    assert!(text.contains(r#"node_scrape_collector_success{collector="meminfo"} 0"#));
    assert!(text.contains(r#"node_scrape_collector_success{collector="cpu"} 1"#));
    let status = bench.shared.statuses.list().into_iter().find(|status| status.name == "meminfo").unwrap();
    assert_eq!(status.failures, 1);
    assert!(status.last_error.unwrap().contains("proc/meminfo"), "names the file");
    // Its last good values are shown for two intervals, then they are gone.
    bench.tick();
    bench.tick();
    assert!(!bench.text().contains("node_memory_MemTotal_bytes"));
}

#[test]
fn a_sampler_that_is_switched_off_ends_its_series() {
    let mut bench = bench(&fixtures(), &NOT_FROM_FILES);
    bench.tick();
    assert!(bench.text().contains("node_load1 "));
    let flags = host_flags(&fixtures());
    let flags: Vec<&str> =
        flags.iter().map(String::as_str).chain(NOT_FROM_FILES).chain(["--no-sampler.loadavg"]).collect();
    bench.scheduler.reconfigure(&config(&flags).plan);
    bench.tick();
    let text = bench.text();
    assert!(!text.contains("node_load1") && !text.contains(r#"collector="loadavg""#));
    assert!(text.contains("node_memory_MemTotal_bytes "));
}

#[test]
fn text_files_are_read_when_they_change_and_faults_are_told() {
    let host = copy_of_fixtures();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.prom", "# TYPE jobs_total counter\n# HELP jobs_total Jobs done.\njobs_total{queue=\"x\"} 3\n");
    write("ignored.txt", "nonsense");
    let flag = format!("--collector.textfile.directory={}", folder.path().display());
    let mut bench = bench(host.path(), &[&NOT_FROM_FILES[..], &[flag.as_str()]].concat());
    bench.tick();
    let text = bench.text();
    assert!(
        text.contains("# HELP jobs_total Jobs done.\n# TYPE jobs_total counter\njobs_total{queue=\"x\"} 3\n"),
        "{text}"
    );
    assert!(
        text.contains("node_textfile_scrape_error 0\n") && text.contains("node_textfile_mtime_seconds{file=")
    );
    // What a sampler has already is not said twice, for scrapers refuse that.
    write("c.prom", "node_load1 99\n");
    bench.tick();
    assert_eq!(bench.text().lines().filter(|line| line.starts_with("node_load1 ")).count(), 1);
    std::fs::remove_file(folder.path().join("c.prom")).unwrap();
    // Of two files that disagree about what a metric is the first one counts; without a word it is the file.
    write("d.prom", "# HELP jobs_total Something else.\njobs_total{queue=\"z\"} 5\nbare 1\n");
    bench.tick();
    let text = bench.text();
    assert!(text.contains("# HELP jobs_total Jobs done.\n") && !text.contains("queue=\"z\""), "{text}");
    assert!(text.contains(&format!("# HELP bare Metric read from {}/d.prom\n", folder.path().display())));
    assert!(text.contains("node_textfile_scrape_error 1\n"));
    std::fs::remove_file(folder.path().join("d.prom")).unwrap();
    write("a.prom", "jobs_total{queue=\"y\"} 44\n");
    write("b.prom", "broken\n");
    bench.tick();
    let text = bench.text();
    assert!(text.contains("jobs_total{queue=\"y\"} 44\n") && !text.contains("queue=\"x\""), "{text}");
    assert!(text.contains("node_textfile_scrape_error 1\n"));
}

/// A histogram or summary of a batch job is one family, its parts together and in order, in both formats.
#[test]
fn histograms_and_summaries_of_text_files_stay_whole() {
    let host = copy_of_fixtures();
    let folder = tempfile::tempdir().unwrap();
    let text = [
        "# HELP job_seconds How long jobs take.",
        "# TYPE job_seconds histogram",
        "job_seconds_bucket{queue=\"b\",le=\"+Inf\"} 1",
        "job_seconds_count{queue=\"b\"} 1",
        "job_seconds_sum{queue=\"b\"} 30",
        "job_seconds_bucket{queue=\"a\",le=\"2.5\"} 1",
        "job_seconds_bucket{queue=\"a\",le=\"10\"} 3",
        "job_seconds_bucket{queue=\"a\",le=\"+Inf\"} 4",
        "job_seconds_sum{queue=\"a\"} 31.5",
        "job_seconds_count{queue=\"a\"} 4",
        "# HELP job_size_bytes How large they are.",
        "# TYPE job_size_bytes summary",
        "job_size_bytes_sum 12",
        "job_size_bytes_count 5",
        "job_size_bytes{quantile=\"0.5\"} 2",
        "job_size_bytes{quantile=\"0.25\"} 1",
    ];
    std::fs::write(folder.path().join("a.prom"), text.join("\n") + "\n").unwrap();
    let want = [
        "# HELP job_seconds How long jobs take.",
        "# TYPE job_seconds histogram",
        "job_seconds_bucket{le=\"2.5\",queue=\"a\"} 1",
        "job_seconds_bucket{le=\"10\",queue=\"a\"} 3",
        "job_seconds_bucket{le=\"+Inf\",queue=\"a\"} 4",
        "job_seconds_sum{queue=\"a\"} 31.5",
        "job_seconds_count{queue=\"a\"} 4",
        "job_seconds_bucket{le=\"+Inf\",queue=\"b\"} 1",
        "job_seconds_sum{queue=\"b\"} 30",
        "job_seconds_count{queue=\"b\"} 1",
        "# HELP job_size_bytes How large they are.",
        "# TYPE job_size_bytes summary",
        "job_size_bytes{quantile=\"0.25\"} 1",
        "job_size_bytes{quantile=\"0.5\"} 2",
        "job_size_bytes_sum 12",
        "job_size_bytes_count 5",
    ];
    let flag = format!("--collector.textfile.directory={}", folder.path().display());
    let mut bench = bench(host.path(), &[&NOT_FROM_FILES[..], &[flag.as_str()]].concat());
    bench.tick();
    for format in [Format::Prometheus, Format::OpenMetrics] {
        let text = bench.text_in(format);
        let jobs: Vec<&str> = text.lines().filter(|line| line.contains("job_s")).collect();
        assert_eq!(jobs, want, "{format:?}");
    }
}
