//! The servers that benchmarks run: ours and the peers of Debian's packages, each on a free port and a
//! folder of its own.

use crate::http::Http;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Prometheus replays its log that long on slow machines.
const START_TIME_MAX: Duration = Duration::from_secs(600);
const ASKED_EVERY: Duration = Duration::from_millis(2);
/// The peer's parts are merged in the background; nothing says when that ends but the size of its folder.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
const SETTLING_TIME_MAX: Duration = Duration::from_secs(60);

/// Whose server.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Debian's victoria-metrics
    VictoriaMetrics,
    /// Debian's prometheus
    Prometheus,
    /// pharos-collector beside this program
    Pharos,
}

impl Kind {
    /// As in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::VictoriaMetrics => "victoria-metrics",
            Kind::Prometheus => "prometheus",
            Kind::Pharos => "pharos",
        }
    }

    fn command(self, storage: &Path, address: &str) -> anyhow::Result<Command> {
        let mut command;
        match self {
            Kind::VictoriaMetrics => {
                command = Command::new("victoria-metrics");
                command.arg(format!("-storageDataPath={}", storage.display()));
                command.arg(format!("-httpListenAddr={address}"));
                command.args(["-retentionPeriod=1y", "-search.maxUniqueTimeseries=1000000"]);
            }
            Kind::Prometheus => {
                let config = storage.with_extension("yml");
                // A benchmark may have put one there that says more.
                if !config.exists() {
                    std::fs::write(&config, "global: {}\n")?;
                }
                command = Command::new("prometheus");
                command.arg(format!("--config.file={}", config.display()));
                command.arg(format!("--storage.tsdb.path={}", storage.display()));
                command.arg(format!("--web.listen-address={address}"));
                command.args(["--web.enable-remote-write-receiver", "--web.enable-admin-api"]);
                command.args(["--storage.tsdb.retention.time=1y", "--query.max-samples=200000000"]);
            }
            Kind::Pharos => {
                command = Command::new(std::env::current_exe()?.with_file_name("pharos-collector"));
                command.arg("--storage.path").arg(storage).arg("--web.listen-address").arg(address);
                command.args(["--rules.shipped=false", "--query.max-samples=200000000"]);
                command.args(["--storage.retention.time=1y"]);
            }
        }
        Ok(command)
    }
}

/// When a server was killed, had ended, and was ready again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Restart {
    pub(crate) killed: Instant,
    pub(crate) gone: Instant,
    pub(crate) ready: Instant,
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: String,
    child: Child,
    folder: PathBuf,
    storage: PathBuf,
    more: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it on the data in `folder`, and waits until it says that it is ready.
    pub(crate) fn start(kind: Kind, folder: &Path) -> anyhow::Result<Server> {
        Server::start_with(kind, folder, &[])
    }

    /// The same with more arguments.
    pub(crate) fn start_with(kind: Kind, folder: &Path, more: &[String]) -> anyhow::Result<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Server::start_at(kind, folder, format!("127.0.0.1:{port}"), more.to_vec())
    }

    fn start_at(kind: Kind, folder: &Path, address: String, more: Vec<String>) -> anyhow::Result<Server> {
        std::fs::create_dir_all(folder)?;
        let storage = folder.join("data");
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = kind.command(&storage, &address)?;
        command.args(&more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {}", kind.name()))?;
        let mut server = Server { kind, address, child, folder: folder.to_owned(), storage, more };
        let begin = Instant::now();
        let path = if kind == Kind::VictoriaMetrics { "/health" } else { "/-/ready" };
        let mut http = server.http();
        while !http.get(path).is_ok_and(|(status, _)| status == 200) {
            let ended = server.child.try_wait()?;
            if ended.is_some() || begin.elapsed() > START_TIME_MAX {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("{} does not become ready: {log}", kind.name());
            }
            std::thread::sleep(ASKED_EVERY);
        }
        Ok(server)
    }

    /// A connection to it.
    pub(crate) fn http(&self) -> Http {
        Http::new(&self.address)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGKILL, then the same again at the same address; returns when it is ready, with when that happened.
    pub(crate) fn killed_and_restarted(mut self) -> anyhow::Result<(Server, Restart)> {
        let killed = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        let gone = Instant::now();
        let server = Server::start_at(self.kind, &self.folder, self.address.clone(), self.more.clone())?;
        Ok((server, Restart { killed, gone, ready: Instant::now() }))
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        self.child.wait()?;
        Ok(())
    }

    /// Everything taken is written out: in parts, blocks, or (Prometheus, which has no such call) in its log.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        match self.kind {
            Kind::Prometheus => Ok(()),
            Kind::Pharos => wait_for_flush(&self.address),
            Kind::VictoriaMetrics => {
                self.http().get("/internal/force_flush")?;
                self.settle()
            }
        }
    }

    /// Bytes of its folder as they are.
    pub(crate) fn stored_bytes(&self) -> anyhow::Result<u64> {
        folder_bytes(&self.storage)
    }

    /// Waits until the folder's size has stood still for a while.
    fn settle(&self) -> anyhow::Result<()> {
        let begin = Instant::now();
        let (mut bytes, mut since) = (folder_bytes(&self.storage)?, Instant::now());
        while since.elapsed() < SETTLED_AFTER && begin.elapsed() < SETTLING_TIME_MAX {
            std::thread::sleep(Duration::from_millis(250));
            let now = folder_bytes(&self.storage)?;
            if now != bytes {
                (bytes, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    /// What it needs on disk at its densest, bytes: VictoriaMetrics after a forced merge, Prometheus as
    /// blocks of a snapshot, ours as it is after a flush.
    pub(crate) fn dense_bytes(&self) -> anyhow::Result<u64> {
        match self.kind {
            Kind::VictoriaMetrics => {
                self.http().get("/internal/force_merge")?;
                self.settle()?;
                self.stored_bytes()
            }
            Kind::Prometheus => {
                let (status, body) = self.http().post("/api/v1/admin/tsdb/snapshot", &[])?;
                let body = String::from_utf8_lossy(&body).into_owned();
                let answer: serde_json::Value = serde_json::from_str(&body)?;
                let name = answer["data"]["name"].as_str().with_context(|| format!("{status}: {body}"))?;
                folder_bytes(&self.storage.join("snapshots").join(name))
            }
            Kind::Pharos => self.stored_bytes(),
        }
    }
}

/// Has the collector at `address` write everything into blocks.
pub(crate) fn wait_for_flush(address: &str) -> anyhow::Result<()> {
    let (status, body) = Http::new(address).post("/api/v1/admin/tsdb/flush", &[])?;
    if !(200..300).contains(&status) {
        bail!("flush: {status} {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// Bytes of all files below a folder. Files that vanish meanwhile count nothing.
pub(crate) fn folder_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for file in files(folder) {
        total += file.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(total)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(&entry.path()),
            _ => vec![entry.path()],
        })
        .collect()
}

/// Drops a folder's files from the page cache, as after a reboot.
pub(crate) fn evict(folder: &Path) -> anyhow::Result<()> {
    for path in files(folder) {
        let file = std::fs::File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
