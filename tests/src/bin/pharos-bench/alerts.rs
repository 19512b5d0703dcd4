//! From a breach written to a webhook received, with many nodes sending once a second.
//!
//! Each node sends a group of gauges in real time. One after another, some of them rise above their rule's
//! threshold once, and stay there. The clock starts when the breaching sample is handed to its connection,
//! and stops when the webhook that names the node comes in. Every breach has to come, once.

mod beside;
mod outage;
mod scraped;
mod sender;

use crate::agents::Pace;
use crate::http::Http;
use crate::progress::Progress;
use crate::server::{Kind, Server};
use anyhow::{Context, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use outage::Returns;
use pharos_common::duration::PrometheusDuration;
use scraped::Scraped;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Seconds before the first breach: every node is known by then.
const QUIET_SECONDS: u64 = 5;
/// Seconds after the last one, for what comes late or twice, beside what intervals and waits add up to.
const AFTER_SECONDS: u64 = 10;
/// `--rules.alert.resend-delay` of Prometheus.
const RESEND_SECONDS: u64 = 60;
const START_TIME_MAX: Duration = Duration::from_secs(30);
const WRITERS: usize = 8;

/// See the program's help.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Simulated nodes
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// How many of them breach
    #[arg(long, default_value_t = 300)]
    breaches: usize,
    /// Breaches a second
    #[arg(long, default_value_t = 10)]
    rate: usize,
    /// Who judges the rule: pharos, or prometheus, which is fed by remote write
    #[arg(long, value_enum, default_value = "pharos")]
    server: Kind,
    /// How often rules are evaluated; ours judges this one as samples arrive
    #[arg(long, default_value = "1s")]
    interval: String,
    /// Who notifies: pharos or debian (prometheus-alertmanager)
    #[arg(long, default_value = "pharos")]
    alertmanager: String,
    /// The route's group_wait
    #[arg(long, default_value = "0s")]
    group_wait: String,
    /// Kills the server (SIGKILL) so often, evenly between the breaches, and starts it again at once
    #[arg(long, value_name = "TIMES", num_args = 0..=1, require_equals = true)]
    #[arg(default_value_t = 0, default_missing_value = "1")]
    kill: u64,
    /// Prometheus scrapes the nodes at the interval, instead of being fed by remote write
    #[arg(long)]
    scrape: bool,
    /// Pharos, Prometheus at 1 s and Prometheus at 15 s, one after another on the same breaches, each in front of
    /// Debian's Alertmanager: one table; six minutes
    #[arg(long, conflicts_with_all = ["server", "interval", "alertmanager", "group_wait", "scrape"])]
    beside: bool,
    /// Folder for everybody's data; removed before and after
    #[arg(long, default_value = "/tmp/pharos-bench-alerts")]
    folder: PathBuf,
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When each node's firing notices came.
type Notices = Arc<Mutex<HashMap<String, Vec<Instant>>>>;
/// When each node's breach was written.
type Breaches = Arc<Mutex<HashMap<String, Instant>>>;

/// Runs the benchmark; one line of JSON.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Value> {
    if arguments.breaches > arguments.nodes {
        bail!("a node breaches once: --breaches is at most --nodes");
    }
    if arguments.scrape && arguments.server != Kind::Prometheus {
        bail!("--scrape is of --server prometheus");
    }
    if arguments.beside { beside::run(arguments) } else { run_one(arguments) }
}

fn run_one(arguments: &Arguments) -> anyhow::Result<Value> {
    let _ = std::fs::remove_dir_all(&arguments.folder);
    std::fs::create_dir_all(&arguments.folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(measure(arguments));
    let _ = std::fs::remove_dir_all(&arguments.folder);
    result
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Value> {
    let notices = Notices::default();
    let webhook = format!("http://{}/", listen(&notices)?);

    let folder = &arguments.folder;
    let (_alertmanager, alertmanager) = start_alertmanager(arguments, &webhook)?;
    let rules = folder.join("rules.yml");
    let interval = &arguments.interval;
    let rule = "{alert: Hot, expr: bench_temperature > 90, labels: {severity: critical}}";
    std::fs::write(&rules, format!("groups:\n  - {{name: bench, interval: {interval}, rules: [{rule}]}}\n"))?;
    let exposition = std::net::TcpListener::bind("127.0.0.1:0")?;
    exposition.set_nonblocking(true)?;
    let scraped = arguments.scrape.then_some(exposition.local_addr()?);
    let mut server = start_server(arguments, folder, &rules, &alertmanager, scraped)?;

    let interval_seconds = parsed_seconds(&arguments.interval)?;
    // Whoever is scraped waits for that before the rule is evaluated; and everybody was scraped once before.
    let scrape_seconds = if arguments.scrape { interval_seconds } else { 0 };
    let quiet = QUIET_SECONDS + scrape_seconds;
    // What Prometheus sends before it has found the alertmanager again is lost until it sends it once more.
    let resend = if arguments.scrape && arguments.kill > 0 { RESEND_SECONDS } else { 0 };
    let waited = resend + scrape_seconds + interval_seconds + parsed_seconds(&arguments.group_wait)?;
    let breaching = (arguments.breaches as u64).div_ceil(arguments.rate as u64);
    let seconds = quiet + breaching + waited + AFTER_SECONDS;
    let (breaches, returns) = (Breaches::default(), Returns::default());
    let progress = Arc::new(Progress::new("ticks of nodes", arguments.nodes as u64 * seconds));
    let first = Instant::now() + crate::agents::BEFORE_FIRST_TICK;
    let pace = |node: usize| Pace { node, first, progress: Arc::clone(&progress) };
    let breach_at = |node: usize| (node < arguments.breaches).then(|| quiet + (node / arguments.rate) as u64);
    let mut tasks: Vec<tokio::task::JoinHandle<anyhow::Result<()>>> = Vec::new();
    if arguments.scrape {
        let nodes = (0..arguments.nodes).map(|node| Scraped { pace: pace(node), breach_at: breach_at(node) });
        let nodes: Arc<Vec<Scraped>> = Arc::new(nodes.collect());
        scraped::serve(exposition, Arc::clone(&nodes)).await?;
        for node in 0..nodes.len() {
            let (nodes, breaches) = (Arc::clone(&nodes), Arc::clone(&breaches));
            tasks.push(tokio::spawn(async move {
                nodes[node].live(seconds, &breaches).await;
                Ok(())
            }));
        }
    } else {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clients: Vec<reqwest::Client> = (0..WRITERS)
            .map(|_| reqwest::Client::builder().no_proxy().build())
            .collect::<Result<_, reqwest::Error>>()?;
        for node in 0..arguments.nodes {
            let sender = sender::Sender {
                pace: pace(node),
                seconds,
                breach_at: breach_at(node),
                breaches: Arc::clone(&breaches),
                returns: Arc::clone(&returns),
                address: server.address.parse()?,
            };
            let client = clients[node % WRITERS].clone();
            let native = arguments.server == Kind::Pharos;
            tasks.push(tokio::spawn(async move {
                if native { sender.stream().await } else { sender.write(&client).await }
            }));
        }
    }
    let mut restarts = Vec::new();
    for kill in 1..=arguments.kill {
        let between = Duration::from_secs(breaching).mul_f64(kill as f64 / (arguments.kill + 1) as f64);
        tokio::time::sleep_until((first + Duration::from_secs(quiet) + between).into()).await;
        let restart;
        (server, restart) = server.killed_and_restarted()?;
        restarts.push(restart);
    }
    for task in tasks {
        task.await??;
    }
    drop(server);
    let killed = !restarts.is_empty();
    let streams = killed && arguments.server == Kind::Pharos;
    let outage = streams.then(|| outage::report(&restarts, &returns, &breaches, &notices));
    let after_kills = killed.then(|| outage::after_kills(&restarts, &lock(&breaches), &lock(&notices)));
    let mut result = report(arguments, &lock(&breaches), &lock(&notices), outage);
    result["after_kills"] = after_kills.into();
    Ok(result)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of a duration in Prometheus' notation, rounded up.
fn parsed_seconds(duration: &str) -> anyhow::Result<u64> {
    let duration: PrometheusDuration = duration.parse().with_context(|| duration.to_owned())?;
    Ok(duration.as_millis().div_ceil(1_000))
}

fn report(
    arguments: &Arguments,
    written: &HashMap<String, Instant>,
    received: &HashMap<String, Vec<Instant>>,
    outage: Option<Value>,
) -> Value {
    let mut times: Vec<f64> = written
        .iter()
        .filter_map(|(node, written)| {
            let first = received.get(node)?.first()?;
            Some(first.saturating_duration_since(*written).as_secs_f64() * 1_000.0)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len().max(1) - 1) as f64 * share).round() as usize);
    let doubled: usize = received.values().map(|notices| notices.len() - 1).sum();
    json!({
        "bench": "alerts",
        "server": arguments.server.name(),
        "alertmanager": arguments.alertmanager,
        "interval": arguments.interval,
        "scraped": arguments.scrape,
        "group_wait": arguments.group_wait,
        "outage": outage,
        "nodes": arguments.nodes,
        "breaches": written.len(),
        "notified": times.len(),
        "lost": written.len() - times.len(),
        "doubled": doubled,
        "false": received.keys().filter(|node| !written.contains_key(*node)).count(),
        "notified_ms_p50": at(0.5),
        "notified_ms_p99": at(0.99),
        "notified_ms_max": times.last(),
    })
}

/// Takes notices on a thread of its own: who is told is none of the nodes, and does not wait for them.
fn listen(notices: &Notices) -> anyhow::Result<SocketAddr> {
    let app = Router::new().fallback(take).with_state(Arc::clone(notices));
    let socket = TcpListener::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(socket)?, app).await })
    });
    Ok(address)
}

async fn take(State(notices): State<Notices>, body: Bytes) {
    let now = Instant::now();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let firing = body["alerts"].as_array().into_iter().flatten().filter(|alert| alert["status"] == "firing");
    for alert in firing {
        if let Some(node) = alert["labels"]["instance"].as_str() {
            lock(&notices).entry(node.to_owned()).or_default().push(now);
        }
    }
}

fn start_alertmanager(arguments: &Arguments, webhook: &str) -> anyhow::Result<(Running, String)> {
    let folder = arguments.folder.join("alertmanager");
    std::fs::create_dir_all(&folder)?;
    let config = folder.join("alertmanager.yml");
    let wait = &arguments.group_wait;
    // Each alert is a group of its own: what is measured is the path, not the gathering.
    std::fs::write(
        &config,
        format!(
            "route: {{receiver: bench, group_by: ['...'], group_wait: {wait}, group_interval: 1m}}\n\
             receivers:\n  - name: bench\n    webhook_configs: [{{url: '{webhook}', send_resolved: false}}]\n"
        ),
    )?;
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let mut command = match arguments.alertmanager.as_str() {
        "pharos" => Command::new(std::env::current_exe()?.with_file_name("pharos-alertmanager")),
        "debian" => {
            let mut command = Command::new("prometheus-alertmanager");
            command.arg("--cluster.listen-address=");
            command
        }
        other => bail!("--alertmanager {other}: pharos or debian"),
    };
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={address}"));
    let log = std::fs::File::create(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let running = Running(command.spawn().context("starting the alertmanager")?);
    let begin = Instant::now();
    let mut http = Http::new(&address);
    while !http.get("/-/ready").is_ok_and(|(status, _)| status == 200) {
        if begin.elapsed() > START_TIME_MAX {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            bail!("the alertmanager does not become ready: {log}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok((running, address))
}

fn start_server(
    arguments: &Arguments,
    folder: &Path,
    rules: &Path,
    alertmanager: &str,
    scraped: Option<SocketAddr>,
) -> anyhow::Result<Server> {
    let folder = folder.join("server");
    match arguments.server {
        Kind::Pharos => {
            let more = [
                format!("--rules.file={}", rules.display()),
                format!("--alertmanager.url=http://{alertmanager}"),
            ];
            Server::start_with(Kind::Pharos, &folder, &more)
        }
        Kind::Prometheus => {
            std::fs::create_dir_all(&folder)?;
            let config = folder.join("data.yml");
            let (rules, interval) = (rules.display(), &arguments.interval);
            let mut text = format!(
                "global: {{evaluation_interval: {interval}, scrape_timeout: 1s}}\nrule_files: ['{rules}']\n\
                 alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}\n"
            );
            if let Some(address) = scraped {
                text += &scraped::scrape_config(address, arguments.nodes, interval);
            }
            std::fs::write(&config, text)?;
            Server::start(Kind::Prometheus, &folder)
        }
        Kind::VictoriaMetrics => bail!("VictoriaMetrics judges no rules by itself"),
    }
}
