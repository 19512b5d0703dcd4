//! The agent against a real collector socket: outages, kills in mid-stream, restarts, fail-over.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use pharos_agent::{Agent, AgentConfig, start};
use pharos_proto::v1::Lane;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use support::collector::{Server, Store};
use support::{config, eventually, fixtures, host_flags};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Running {
    agent: Agent,
    address: SocketAddr,
    shutdown: CancellationToken,
}

impl Running {
    async fn start(config: AgentConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let agent = start(config, listener, shutdown.clone()).unwrap();
        Running { agent, address, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.agent.wait().await;
    }

    async fn get(&self, path: &str, headers: &str) -> String {
        self.request("GET", path, headers).await
    }

    async fn request(&self, method: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The value of one of the agent's own metrics.
    async fn own(&self, series: &str) -> f64 {
        let text = self.get("/metrics", "").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or_else(|| panic!("{series} is not there"))
    }

    async fn until(&self, series: &str, at_least: f64) {
        for _ in 0..6_000 {
            if self.own(series).await >= at_least {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{series} never reaches {at_least}");
    }
}

/// A fake host sampled ten times a second, so that many frames make a short test.
fn fast(storage: &Path, collectors: &[String]) -> AgentConfig {
    let flags = host_flags(&fixtures());
    let storage = format!("--storage.path={}", storage.display());
    let mut flags: Vec<String> = flags.into_iter().chain([storage]).collect();
    flags.extend(collectors.iter().map(|address| format!("--collector.address={address}")));
    let mut config = config(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    for planned in &mut config.plan.samplers {
        planned.rate = pharos_agent::schedule::Rate::fixed(100);
    }
    config.plan.cpu_budget = None;
    config
}

fn contiguous(sequences: &BTreeSet<u64>) -> bool {
    match (sequences.first(), sequences.last()) {
        (Some(first), Some(last)) => *first == 1 && last - first + 1 == sequences.len() as u64,
        _ => false,
    }
}

/// A port on which nobody listens now.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn frames_arrive_live_and_free_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    let server = Server::start(store.clone(), None).await;
    let running = Running::start(fast(folder.path(), &[server.address.to_string()])).await;
    eventually("ten live frames", || store.count(Lane::Live) >= 10).await;
    running.until("pharos_agent_frames_acknowledged_total{lane=\"live\"}", 10.0).await;
    assert_eq!(running.own("pharos_agent_connected").await, 1.0);
    running.stop().await;
    assert!(contiguous(&store.sequences()));
    let store = store.lock();
    assert_eq!(store.nodes.iter().collect::<Vec<_>>(), ["node-1"]);
    let load = "node_load1{instance=node-1,job=node}";
    assert!(store.samples[load].values().all(|bits| f64::from_bits(*bits) == 0.57));
    assert!(store.samples.len() > 250, "{}", store.samples.len());
}

#[tokio::test]
async fn an_outage_is_backfilled_and_live_frames_do_not_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let running = Running::start(fast(folder.path(), &[address.to_string()])).await;
    running.until("pharos_agent_backfill_frames", 15.0).await;
    let store = Store::default();
    // The collector asks to hold backfill for longer than the test lasts.
    store.lock().throttle_ms = Some(300_000);
    let server = Server::start(store.clone(), Some(address)).await;
    // Replies are taken in order: behind these acknowledgements the agent knows that it shall wait.
    running.until("pharos_agent_frames_acknowledged_total{lane=\"live\"}", 5.0).await;
    let backfilled = store.count(Lane::Backfill);
    running.until("pharos_agent_frames_acknowledged_total{lane=\"live\"}", 10.0).await;
    assert_eq!(store.count(Lane::Backfill), backfilled, "backfill is held");
    server.kill().await;
    // Without throttling everything arrives.
    store.lock().throttle_ms = None;
    let server = Server::start(store.clone(), Some(address)).await;
    eventually("everything is there", || store.count(Lane::Backfill) >= 15 && contiguous(&store.sequences()))
        .await;
    running.until("pharos_agent_frames_acknowledged_total{lane=\"backfill\"}", 15.0).await;
    running.stop().await;
    assert!(contiguous(&store.sequences()));
    server.kill().await;
}

#[tokio::test]
async fn connections_that_break_in_mid_stream_lose_and_repeat_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    let mut server = Server::start(store.clone(), None).await;
    let address = server.address;
    let running = Running::start(fast(folder.path(), &[address.to_string()])).await;
    for round in 1..=3 {
        // Stored, but the acknowledgement never arrives.
        let frames = store.lock().frames.len() as u64;
        store.lock().break_after = Some(frames + 2);
        eventually("the connection breaks", || store.lock().break_after.is_none()).await;
        eventually("a new connection", || store.lock().connections > round).await;
        // And a kill at a random moment.
        server.kill().await;
        server = Server::start(store.clone(), Some(address)).await;
    }
    let reached = *store.sequences().last().unwrap();
    eventually("the gaps are filled", || {
        let sequences = store.sequences();
        *sequences.last().unwrap() > reached + 3 && contiguous(&sequences)
    })
    .await;
    running.stop().await;
    assert!(contiguous(&store.sequences()));
}

#[tokio::test]
async fn a_restarted_agent_sends_what_its_predecessor_could_not() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let first = Running::start(fast(folder.path(), &[address.to_string()])).await;
    first.until("pharos_agent_backfill_frames", 8.0).await;
    first.stop().await;
    let store = Store::default();
    let server = Server::start(store.clone(), Some(address)).await;
    let second = Running::start(fast(folder.path(), &[address.to_string()])).await;
    eventually("the first run's frames", || (1..=8).all(|sequence| store.sequences().contains(&sequence)))
        .await;
    eventually("the second run's frames", || store.sequences().last().is_some_and(|last| *last > 1_000))
        .await;
    second.stop().await;
    assert_eq!(store.lock().marks.len(), 1, "it is the same stream");
    server.kill().await;
}

#[tokio::test]
async fn a_second_collector_takes_over_when_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Store::default(), Store::default());
    let first = Server::start(one.clone(), None).await;
    let second = Server::start(two.clone(), None).await;
    let addresses = [first.address.to_string(), second.address.to_string()];
    let running = Running::start(fast(folder.path(), &addresses)).await;
    eventually("frames at the first", || one.count(Lane::Live) >= 3).await;
    assert_eq!(two.lock().connections, 0);
    first.kill().await;
    eventually("frames at the second", || two.count(Lane::Live) >= 3).await;
    running.stop().await;
    let both: BTreeSet<u64> = one.sequences().union(&two.sequences()).copied().collect();
    assert!(contiguous(&both), "what the first did not get the second has: {both:?}");
}

#[tokio::test]
async fn a_first_collector_that_hangs_costs_the_second_nothing_and_gets_the_frames_back_when_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Store::default(), Store::default());
    // It takes connections, for the system does that, and says nothing.
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = hanging.local_addr().unwrap();
    let second = Server::start(two.clone(), None).await;
    let mut config = fast(folder.path(), &[address.to_string(), second.address.to_string()]);
    config.return_interval = std::time::Duration::from_millis(50);
    let running = Running::start(config).await;
    eventually("frames at the second", || two.count(Lane::Live) >= 3).await;
    for round in 2..=3 {
        let frames = two.lock().frames.len() as u64;
        two.lock().break_after = Some(frames + 2);
        eventually("a new connection to the second", || two.lock().connections >= round).await;
        eventually("more frames", || two.lock().frames.len() as u64 > frames + 4).await;
    }
    // No attempt at the first has run out of time yet: nobody waited for it.
    assert_eq!(running.own("pharos_agent_connection_failures_total").await, 2.0, "only what broke");
    drop(hanging);
    let first = Server::start(one.clone(), Some(address)).await;
    eventually("frames at the first", || one.count(Lane::Live) >= 3).await;
    running.stop().await;
    let both: BTreeSet<u64> = one.sequences().union(&two.sequences()).copied().collect();
    assert!(contiguous(&both), "no frame is lost between the two: {both:?}");
    first.kill().await;
    second.kill().await;
}

#[tokio::test]
async fn the_last_frames_are_pushed_when_the_agent_stops() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    let server = Server::start(store.clone(), None).await;
    let running = Running::start(fast(folder.path(), &[server.address.to_string()])).await;
    eventually("live frames", || store.count(Lane::Live) >= 3).await;
    let taken = running.own("pharos_agent_samples_total").await;
    running.stop().await;
    let arrived: usize = store.lock().samples.values().map(|samples| samples.len()).sum();
    assert!(arrived as f64 >= taken, "{arrived} of {taken}");
    server.kill().await;
}

#[tokio::test]
async fn an_agent_that_stops_ends_its_stream() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    let server = Server::start(store.clone(), None).await;
    let running = Running::start(fast(folder.path(), &[server.address.to_string()])).await;
    eventually("live frames", || store.count(Lane::Live) >= 3).await;
    running.stop().await;
    eventually("the end of the stream", || store.lock().ended == 1).await;
    server.kill().await;
}

#[tokio::test]
async fn a_folder_belongs_to_one_agent_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let addresses = [free_address().await.to_string()];
    let first = Running::start(fast(folder.path(), &addresses)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let refused = start(fast(folder.path(), &addresses), listener, CancellationToken::new());
    let reason = refused.err().unwrap().to_string();
    assert!(reason.contains("another agent") && reason.contains("--storage.path"), "{reason}");
    first.stop().await;
    Running::start(fast(folder.path(), &addresses)).await.stop().await;
}

#[tokio::test]
async fn pages_are_served_without_any_collector() {
    let running = Running::start(fast(Path::new("/nonexistent/never-written"), &["none".to_owned()])).await;
    for _ in 0..2_000 {
        if running.get("/metrics", "").await.contains("node_load1 0.57") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let text = running.get("/metrics", "").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let unique: BTreeSet<&str> = families.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(families.len(), unique.len(), "families are not repeated");
    for own in ["process_cpu_seconds_total", "pharos_agent_gpus", "pharos_build_info"] {
        assert!(unique.contains(own), "{own}");
    }
    assert!(!text.contains("instance=\"") && !text.contains("job=\""));

    let text = running.get("/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n").await;
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(text.contains("# TYPE node_cpu_seconds counter\n"), "{text}");
    assert!(text.contains("# EOF\n"));
    let packed = running.get("/metrics", "Accept-Encoding: gzip\r\n").await;
    assert!(packed.contains("content-encoding: gzip"));
    let length = packed.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("a length").trim().parse().unwrap();
    // Asked for afterwards: families only come, so this page has at least what was packed.
    let text = running.get("/metrics", "").await;
    assert!(length < text.len() / 2, "{length} of {}", text.len());

    assert!(running.get("/samplers", "").await.contains("\"name\":\"meminfo\""));
    assert!(running.get("/", "").await.contains("Pharos agent on node-1"));
    assert!(running.get("/-/ready", "").await.starts_with("HTTP/1.1 200"));
    assert!(running.get("/-/healthy", "").await.contains("Pharos agent is Healthy."));
    assert_eq!(running.agent.status().gpus_known().await.count(), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_frame_that_is_refused_for_good_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    store.lock().refuse = Some(3);
    let server = Server::start(store.clone(), None).await;
    let running = Running::start(fast(folder.path(), &[server.address.to_string()])).await;
    running.until("pharos_agent_frames_lost_total{reason=\"refused\"}", 1.0).await;
    let reached = store.sequences().last().copied().unwrap_or(0);
    eventually("frames behind it", || {
        let sequences = store.sequences();
        sequences.last().is_some_and(|last| *last > reached + 3) && sequences.contains(&4)
    })
    .await;
    running.stop().await;
    let stored = store.sequences();
    let missing: Vec<u64> = (1..*stored.last().unwrap()).filter(|at| !stored.contains(at)).collect();
    assert_eq!(missing, [3]);
    assert_eq!(std::fs::read_dir(folder.path().join("refused")).unwrap().count(), 1);
    server.kill().await;
}

#[tokio::test]
async fn a_hint_of_the_collector_brings_samples_between_grid_points() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    store.lock().hint = Some("node_pressure_cpu_waiting_seconds_total".to_owned());
    let server = Server::start(store.clone(), None).await;
    let mut config = fast(folder.path(), &[server.address.to_string()]);
    for planned in &mut config.plan.samplers {
        planned.rate = planned.kind.default_rate();
    }
    let running = Running::start(config).await;
    let fast = "node_pressure_cpu_waiting_seconds_total:fast{instance=node-1,job=node}";
    eventually("samples between grid points", || {
        store.lock().samples.get(fast).is_some_and(|samples| samples.len() >= 5)
    })
    .await;
    // The alert fires, and there is no recording of it that could be shipped.
    assert!(running.own("pharos_agent_recorder_dumps_total").await == 0.0);
    running.stop().await;
    let elsewhere = store.lock().samples.keys().any(|series| series.contains("node_load1:fast"));
    assert!(!elsewhere, "only what was hinted at");
    server.kill().await;
}

#[tokio::test]
async fn the_flight_recorder_is_shipped_on_request_behind_what_is_live() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::default();
    let server = Server::start(store.clone(), None).await;
    let mut config = fast(folder.path(), &[server.address.to_string()]);
    for planned in &mut config.plan.samplers {
        planned.rate = pharos_agent::schedule::Rate::fixed(1_000);
    }
    let nothing = Running::start(config.clone()).await;
    assert!(nothing.request("POST", "/-/dump", "Content-Length: 0\r\n").await.starts_with("HTTP/1.1 409"));
    nothing.stop().await;
    config.plan.recorder.series = vec![regex::Regex::new("^node_load1$").unwrap()];
    let running = Running::start(config).await;
    running.until("pharos_agent_frames_acknowledged_total{lane=\"live\"}", 2.0).await;
    let answer = running.request("POST", "/-/dump", "Content-Length: 0\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let series = "node_load1:fast{instance=node-1,job=node}";
    eventually("the recording", || store.lock().samples.contains_key(series)).await;
    assert!(store.count(Lane::Backfill) >= 1);
    assert!(running.own("pharos_agent_recorder_samples_total").await >= 1.0);
    running.stop().await;
    assert!(store.lock().samples[series].values().all(|bits| f64::from_bits(*bits) == 0.57));
    server.kill().await;
}
