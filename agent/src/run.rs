//! Starts the agent's parts and ends them: the one entry for the binary and the one-process program.

use crate::board::Board;
use crate::config::AgentConfig;
use crate::directory::Directory;
use crate::error::AgentError;
use crate::hints::HintSender;
use crate::http::{Pages, router};
use crate::own_metrics::OwnMetrics;
use crate::push::Pusher;
use crate::schedule::{Control, Plan, Scheduler, Shared};
use crate::spool::{self, SpoolHandle};
use crate::status::{GpuState, GpuStatus, SamplerStatus, SamplerStatuses};
use crate::web_options::tls_fault;
use pharos_common::clock::{SharedClock, SystemClock};
use pharos_common::self_metrics;
use pharos_common::server::{Readiness, Reload, ServerLimits, StandardRoutes, load_tls, serve};
use pharos_common::shutdown::{Shutdown, reload_signals};
use pharos_common::storage_io::{DiskIo, FolderLock, StorageIo, write_atomically};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Runs the agent until `shutdown`.
///
/// # Errors
/// If it cannot start.
pub async fn run(
    config: AgentConfig,
    listeners: Vec<TcpListener>,
    shutdown: Shutdown,
) -> Result<(), AgentError> {
    let agent = start_on(config, listeners, shutdown)?;
    agent.wait().await;
    Ok(())
}

/// An agent at work.
#[derive(Debug)]
pub struct Agent {
    status: AgentStatus,
    tasks: Vec<JoinHandle<()>>,
}

/// What a running agent can tell.
#[derive(Clone, Debug)]
pub struct AgentStatus {
    node: String,
    gpus: Arc<GpuStatus>,
    samplers: Arc<SamplerStatuses>,
}

impl AgentStatus {
    /// The node's name, as in the label `instance`.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is known about GPUs now.
    pub fn gpus(&self) -> GpuState {
        self.gpus.get()
    }

    /// What is known about GPUs, once somebody has looked. Waits for ever if the sampler is switched off.
    pub async fn gpus_known(&self) -> GpuState {
        self.gpus.known().await
    }

    /// How each sampler fares.
    pub fn samplers(&self) -> Vec<SamplerStatus> {
        self.samplers.list()
    }
}

impl Agent {
    /// What it can tell; clones stay current.
    pub fn status(&self) -> AgentStatus {
        self.status.clone()
    }

    /// Waits until the agent has ended, its last frames in the journal.
    pub async fn wait(self) {
        for task in self.tasks {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "A part of the agent ended by a panic");
            }
        }
    }
}

/// Starts the agent; it runs until `shutdown`.
///
/// # Errors
/// If the journal cannot be opened or a thread cannot be started.
pub fn start(config: AgentConfig, listener: TcpListener, shutdown: Shutdown) -> Result<Agent, AgentError> {
    start_on(config, vec![listener], shutdown)
}

/// The same, on any number of addresses.
///
/// # Errors
/// As [`start`], or if the server's certificate cannot be used.
pub fn start_on(
    config: AgentConfig,
    listeners: Vec<TcpListener>,
    shutdown: Shutdown,
) -> Result<Agent, AgentError> {
    let tls = config.tls.as_ref().map(load_tls).transpose().map_err(tls_fault)?;
    let registry = self_metrics::registry("agent")?;
    let metrics = OwnMetrics::register(&registry)?;
    let clock: SharedClock = SystemClock::shared();
    let gpus = Arc::clone(&config.plan.options.gpus);
    let mut tasks = Vec::new();

    let (spool, directory) = if config.collectors.is_empty() {
        tracing::info!("No collector is configured; readings are only served at /metrics");
        (None, Directory::new(&config.node, 0, []))
    } else {
        let lock = lock_folder(&config.storage_path)?;
        let (handle, directory, thread) = open_spool(&config, &metrics, &clock)?;
        tasks.push(tokio::task::spawn_blocking(move || {
            if thread.join().is_err() {
                tracing::error!("The journal's thread ended by a panic");
            }
            drop(lock);
        }));
        (Some(handle), directory)
    };
    let shared = Shared::new(Board::new(directory), metrics.clone(), Arc::clone(&clock));
    let (control, orders) = channel();
    let scheduler = Scheduler::new(&config.plan, shared.clone(), spool.clone());
    let sampling =
        std::thread::Builder::new().name("pharos-sampler".into()).spawn(move || scheduler.run(&orders))?;

    let (addresses, watch_addresses) = watch::channel(config.collectors.clone());
    let reload = reloader(&config, &metrics, control.clone(), addresses, spool.clone());
    tasks.push(tokio::spawn(reload_on_signal(reload.clone(), shutdown.clone())));
    tasks.push(tokio::spawn(tell_gpus(Arc::clone(&gpus), metrics.clone(), shutdown.clone())));

    // The push ends after sampling has, so that the last frames get their chance.
    let sampled = Shutdown::new();
    let pusher = spool.clone().map(|spool| Pusher {
        node: config.node.clone(),
        spool,
        addresses: watch_addresses,
        metrics: metrics.clone(),
        hints: HintSender { inbox: Arc::clone(&shared.hints), control: control.clone() },
        return_interval: config.return_interval,
    });
    if let Some(pusher) = pusher {
        tasks.push(tokio::spawn(pusher.run(sampled.clone())));
    }
    tasks.push(tokio::spawn(stop_sampling(control, sampling, shutdown.clone(), sampled)));

    let readiness = Readiness::starting();
    let pages = Pages {
        board: shared.board,
        statuses: Arc::clone(&shared.statuses),
        gpus: Arc::clone(&gpus),
        registry,
        clock,
        node: config.node.clone(),
        metrics,
        spool,
        recorder: shared.recorder,
        telemetry_path: config.telemetry_path,
        own_metrics: config.own_metrics,
    };
    let standard = StandardRoutes {
        program: "Pharos agent",
        registry: None,
        readiness: readiness.clone(),
        reload,
        quit: None,
    };
    let app = router(pages, standard);
    for listener in listeners {
        let serving = serve(listener, app.clone(), tls.clone(), ServerLimits::default(), shutdown.clone());
        tasks.push(tokio::spawn(serving));
    }
    readiness.set_ready();
    let status = AgentStatus { node: config.node, gpus, samplers: shared.statuses };
    Ok(Agent { status, tasks })
}

/// Keeps other agents away from a folder.
fn lock_folder(folder: &Path) -> Result<Box<dyn FolderLock>, AgentError> {
    DiskIo.create_dir_all(folder)?;
    DiskIo.lock(&folder.join("LOCK")).map_err(|error| {
        let in_use = error.source.kind() == std::io::ErrorKind::WouldBlock;
        if in_use { AgentError::InUse(folder.to_owned()) } else { error.into() }
    })
}

type OpenedSpool = (SpoolHandle, Directory, std::thread::JoinHandle<()>);

fn open_spool(
    config: &AgentConfig,
    metrics: &OwnMetrics,
    clock: &SharedClock,
) -> Result<OpenedSpool, AgentError> {
    let opened = spool::open(
        Arc::new(DiskIo),
        &config.storage_path,
        config.limits,
        metrics.clone(),
        Arc::clone(clock),
    )?;
    if note_name(&DiskIo, &config.storage_path, &config.node)? {
        metrics.renames.inc();
    }
    let directory = Directory::new(&config.node, opened.next_group, opened.definitions.iter().cloned());
    let (handle, thread) = spool::start(opened)?;
    Ok((handle, directory, thread))
}

/// Keeps the node's name beside the journal; whether it is another than at the last start. Frames of that
/// time keep the old name, in the label `instance`.
fn note_name(io: &dyn StorageIo, folder: &Path, node: &str) -> Result<bool, AgentError> {
    let path = folder.join("node");
    let before = match io.read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim().to_owned(),
        Err(error) if error.is_not_found() => String::new(),
        Err(error) => return Err(error.into()),
    };
    if before == node {
        return Ok(false);
    }
    write_atomically(io, &path, format!("{node}\n").as_bytes())?;
    if !before.is_empty() {
        tracing::warn!(before, now = node, "The node has another name; its series start anew");
    }
    Ok(!before.is_empty())
}

/// Reads the configuration again and hands its parts out. Name, storage and address need a restart.
fn reloader(
    config: &AgentConfig,
    metrics: &OwnMetrics,
    control: Sender<Control>,
    addresses: watch::Sender<Vec<String>>,
    spool: Option<SpoolHandle>,
) -> Reload {
    let options = config.options.clone();
    let gpus = Arc::clone(&config.plan.options.gpus);
    let metrics = metrics.clone();
    let pushes = spool.is_some();
    let control = Arc::new(Mutex::new(control));
    let addresses = Arc::new(addresses);
    metrics.config_ok.set(1);
    metrics.config_loaded.set(now_seconds());
    Reload::new(move || {
        let outcome = options.load();
        let (metrics, spool, gpus) = (metrics.clone(), spool.clone(), Arc::clone(&gpus));
        let (control, addresses) = (Arc::clone(&control), Arc::clone(&addresses));
        async move {
            metrics.config_ok.set(i64::from(outcome.is_ok()));
            let AgentConfig { collectors, limits, plan, .. } = outcome.map_err(|error| error.to_string())?;
            if collectors.is_empty() == pushes {
                return Err("switching between pushing and not pushing needs a restart".to_owned());
            }
            let plan = Plan { options: crate::sampler::SamplerOptions { gpus, ..plan.options }, ..plan };
            let sent = control
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send(Control::Reconfigure(Box::new(plan)));
            sent.map_err(|_| "the agent is stopping".to_owned())?;
            addresses.send_if_modified(|now| {
                let changed = *now != collectors;
                *now = collectors;
                changed
            });
            if let Some(spool) = spool {
                spool.set_limits(limits).await;
            }
            metrics.config_loaded.set(now_seconds());
            Ok(())
        }
    })
}

fn now_seconds() -> f64 {
    use pharos_common::clock::Clock as _;
    SystemClock::new().now_ms() as f64 / 1_000.0
}

async fn reload_on_signal(reload: Reload, shutdown: Shutdown) {
    let mut signals = match reload_signals() {
        Ok(signals) => signals,
        Err(error) => return tracing::warn!(%error, "SIGHUP will not reload the configuration"),
    };
    loop {
        tokio::select! {
            signal = signals.recv() => if signal.is_none() { return },
            () = shutdown.cancelled() => return,
        }
        // The outcome is in the log.
        let _ = reload.run().await;
    }
}

async fn tell_gpus(gpus: Arc<GpuStatus>, metrics: OwnMetrics, shutdown: Shutdown) {
    let mut changes = gpus.changes();
    loop {
        metrics.gpus.set(changes.borrow_and_update().count() as i64);
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = shutdown.cancelled() => return,
        }
    }
}

async fn stop_sampling(
    control: Sender<Control>,
    sampling: std::thread::JoinHandle<()>,
    shutdown: Shutdown,
    sampled: Shutdown,
) {
    shutdown.cancelled().await;
    let _ = control.send(Control::Stop);
    let joined = tokio::task::spawn_blocking(move || sampling.join()).await;
    if !matches!(joined, Ok(Ok(()))) {
        tracing::error!("The sampling thread ended by a panic");
    }
    sampled.cancel();
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::storage_io::MemoryIo;

    #[test]
    fn another_name_of_the_node_is_noticed_once() {
        let io = MemoryIo::new();
        io.create_dir_all(Path::new("/agent")).unwrap();
        let note = |name: &str| note_name(&io, Path::new("/agent"), name).unwrap();
        assert!(!note("a"), "a new node has no other name");
        assert!(!note("a"));
        assert!(note("b"));
        assert!(!note("b"));
    }
}
