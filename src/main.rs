//! `pharos`: agent, collector and alertmanager in one process, for a first look and for single machines.
//!
//! It has no logic of its own: it gives the three programs' entry points their options, starts them in the
//! order in which they depend on each other, says where to look, and ends them in the opposite order, so
//! that nothing on its way is lost.

mod summary;

use anyhow::Context;
use clap::Parser;
use pharos_agent::AgentOptions;
use pharos_common::duration::PrometheusDuration;
use pharos_common::flags::LogFlags;
use pharos_common::server;
use pharos_common::shutdown::{self, Shutdown};
use std::path::PathBuf;
use std::process::ExitCode;
use summary::Summary;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Watches this machine: agent, collector and alertmanager in one process
///
/// Samples this machine every second, keeps 30 days of it, answers PromQL, judges rules as samples arrive,
/// and notifies tier by tier until somebody acknowledges. Start it without arguments to look around; run
/// pharos-agent, pharos-collector and pharos-alertmanager for a cluster.
#[derive(Debug, Parser)]
#[command(name = "pharos", version)]
struct Options {
    /// Folder for everything that is kept
    #[arg(long = "storage.path", value_name = "FOLDER", default_value = "./data")]
    storage_path: PathBuf,
    /// How long samples are kept; 0 keeps all
    #[arg(long = "storage.retention.time", value_name = "DURATION", default_value = "30d")]
    retention_time: PrometheusDuration,
    /// How long roll-ups of five minutes are kept when their samples are gone; 0 keeps them for ever
    #[arg(long = "storage.rollup.retention.time", value_name = "DURATION", default_value = "400d")]
    rollup_retention_time: PrometheusDuration,
    /// Size of all stored samples above which the oldest are dropped (for example 512MB); 0 for no limit
    #[arg(long = "storage.retention.size", value_name = "BYTES")]
    retention_size: Option<pharos_collector::ByteSize>,
    /// Allow snapshots and deletion by HTTP
    #[arg(long = "web.enable-admin-api")]
    enable_admin_api: bool,
    #[command(flatten)]
    query: pharos_collector::QueryFlags,
    /// This machine's name, in the label "instance" [default: the host's name]
    #[arg(long = "node.name", value_name = "NAME")]
    node_name: Option<String>,
    /// Rule files beside the shipped ones; repeat for more
    #[arg(long = "rules.file", value_name = "GLOB")]
    rule_files: Vec<String>,
    /// Whether to judge the shipped rules
    #[arg(long = "rules.shipped", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    shipped_rules: bool,
    /// The agent's configuration file
    #[arg(long = "agent.config.file", value_name = "FILE")]
    agent_config: Option<PathBuf>,
    /// The collector's configuration file, as Prometheus'
    #[arg(long = "collector.config.file", value_name = "FILE")]
    collector_config: Option<PathBuf>,
    /// The alertmanager's configuration file, as Alertmanager's; without one, notices go to the log
    #[arg(long = "alertmanager.config.file", value_name = "FILE")]
    alertmanager_config: Option<PathBuf>,
    /// Address of the agent
    #[arg(long = "agent.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9492")]
    agent_address: String,
    /// Address of the collector
    #[arg(long = "collector.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9490")]
    collector_address: String,
    /// Address of the alertmanager
    #[arg(long = "alertmanager.listen-address", value_name = "HOST:PORT", default_value = "127.0.0.1:9493")]
    alertmanager_address: String,
    #[command(flatten)]
    gpu: pharos_agent::GpuOptions,
    #[command(flatten)]
    log: LogFlags,
}

fn main() -> ExitCode {
    // The agent's GPU reader is this program started again.
    if let Some(code) = pharos_agent::run_gpu_reader_if_asked() {
        return code;
    }
    let options = Options::parse();
    options.log.init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// 2 for what the user wrote wrongly, 1 for what the machine refuses.
fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<pharos_collector::CollectorError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<pharos_alertmanager::RunError>() {
        return error.exit_code();
    }
    if let Some(error) = error.downcast_ref::<server::ListenError>() {
        return error.exit_code();
    }
    match error.downcast_ref::<pharos_agent::AgentError>() {
        Some(error) if error.is_usage() => 2,
        _ => 1,
    }
}

#[tokio::main]
async fn run(options: Options) -> anyhow::Result<()> {
    let stop = shutdown::on_signal()?;
    // All ports first: a taken one should not leave half a program behind.
    let alertmanager_port =
        server::listen(&options.alertmanager_address, "--alertmanager.listen-address").await?;
    let collector_port = server::listen(&options.collector_address, "--collector.listen-address").await?;
    let agent_port = server::listen(&options.agent_address, "--agent.listen-address").await?;
    let alertmanager_url = local_url(&alertmanager_port)?;
    let collector_url = local_url(&collector_port)?;
    let agent_url = local_url(&agent_port)?;

    let agent_config = agent_options(&options, &collector_url).load()?;
    let alertmanager_options = alertmanager_options(&options)?;
    let mut alertmanager = Part::start("alertmanager", |end| {
        pharos_alertmanager::run(alertmanager_options, alertmanager_port, end)
    });
    let mut collector = Part::start("collector", |end| {
        pharos_collector::run(collector_options(&options, &alertmanager_url), collector_port, end)
    });
    let agent_end = Shutdown::new();
    let agent = pharos_agent::start(agent_config, agent_port, agent_end.clone())?;
    let status = agent.status();
    let mut agent = Part {
        name: "agent",
        end: agent_end,
        task: tokio::spawn(async {
            agent.wait().await;
            Ok(())
        }),
    };

    tokio::spawn(async move {
        let summary =
            Summary { collector_url, alertmanager_url, agent_url, storage_path: options.storage_path };
        summary.show(&status).await;
    });
    let early = tokio::select! {
        () = stop.cancelled() => None,
        outcome = &mut agent.task => Some(agent.ended_early(outcome)),
        outcome = &mut collector.task => Some(collector.ended_early(outcome)),
        outcome = &mut alertmanager.task => Some(alertmanager.ended_early(outcome)),
    };
    // Against the stream: the agent's last frames reach the collector, its last alerts the alertmanager.
    let mut outcome = Ok(());
    for part in [agent, collector, alertmanager] {
        let ended = part.stop().await;
        outcome = outcome.and(ended);
    }
    early.map_or(outcome, Err)
}

/// One of the three programs.
struct Part {
    name: &'static str,
    end: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Part {
    fn start<F, E>(name: &'static str, run: impl FnOnce(Shutdown) -> F) -> Part
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let end = Shutdown::new();
        let running = run(end.clone());
        Part { name, end, task: tokio::spawn(async move { Ok(running.await?) }) }
    }

    /// Why a part ended that nobody had asked to.
    fn ended_early(&self, outcome: Result<anyhow::Result<()>, tokio::task::JoinError>) -> anyhow::Error {
        match outcome {
            Ok(Ok(())) => anyhow::anyhow!("the {} ended", self.name),
            Ok(Err(error)) => error,
            Err(error) => anyhow::Error::new(error).context(format!("the {} panicked", self.name)),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.end.cancel();
        if self.task.is_finished() {
            return Ok(());
        }
        self.task.await.with_context(|| format!("the {} panicked", self.name))?
    }
}

/// How the parts reach a port: on loopback, also when it listens on all addresses.
fn local_url(listener: &TcpListener) -> anyhow::Result<String> {
    let mut address = listener.local_addr()?;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    Ok(format!("http://{address}"))
}

fn agent_options(options: &Options, collector_url: &str) -> AgentOptions {
    let mut agent = AgentOptions::default();
    agent.config.config_file.clone_from(&options.agent_config);
    agent.collector_addresses = vec![collector_url.trim_start_matches("http://").to_owned()];
    agent.storage_path = options.storage_path.join("agent");
    agent.node_name.clone_from(&options.node_name);
    agent.gpu = options.gpu.clone();
    agent
}

fn collector_options(options: &Options, alertmanager_url: &str) -> pharos_collector::Options {
    let mut collector = pharos_collector::Options {
        storage_path: options.storage_path.join("collector"),
        retention_time: options.retention_time,
        alertmanager_urls: vec![alertmanager_url.to_owned()],
        rule_files: options.rule_files.clone(),
        shipped_rules: options.shipped_rules,
        listen_address: options.collector_address.clone(),
        rollup_retention_time: options.rollup_retention_time,
        retention_size: options.retention_size,
        enable_admin_api: options.enable_admin_api,
        query: options.query.clone(),
        ..pharos_collector::Options::default()
    };
    collector.config.config_file.clone_from(&options.collector_config);
    collector
}

fn alertmanager_options(options: &Options) -> Result<pharos_alertmanager::Options, clap::Error> {
    let mut alertmanager = pharos_alertmanager::Options::defaults()?;
    alertmanager.config.config_file.clone_from(&options.alertmanager_config);
    alertmanager.storage_path = options.storage_path.join("alertmanager");
    alertmanager.listen_address.clone_from(&options.alertmanager_address);
    Ok(alertmanager)
}
