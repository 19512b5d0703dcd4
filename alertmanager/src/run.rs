//! Starting and stopping: configuration, state, engine and HTTP server as one.

use crate::api::site::{self, Site};
use crate::api::{self, Api};
use crate::config::{self, Settings, Surroundings};
use crate::engine::{Engine, EngineParts};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::page;
use crate::state::{Kind, StateError, Store};
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Redirect;
use axum::routing::get;
use pharos_common::clock::{SharedClock, SystemClock};
use pharos_common::config::ConfigError;
use pharos_common::self_metrics;
use pharos_common::server::{self, Readiness, Reload, ServerLimits, StandardRoutes};
use pharos_common::shutdown::{self, Shutdown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// How often and after which pauses a state folder in use is tried again: 3 s in all.
const STATE_ATTEMPTS: u32 = 60;
const STATE_PAUSE: Duration = Duration::from_millis(50);

/// Why the alertmanager cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is wrong; the program exits with 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A flag is wrong; the program exits with 2.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The listening socket is broken.
    #[error("cannot use the listening socket: {0}")]
    Listener(std::io::Error),
    /// A metric cannot be registered.
    #[error("cannot register metrics")]
    Metrics(#[from] prometheus::Error),
}

impl RunError {
    /// The exit status it calls for.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Config(_) | RunError::Flag { .. } => 2,
            _ => 1,
        }
    }
}

/// Runs on the machine's clock until `shutdown`.
///
/// # Errors
/// If the configuration, the flags, the state folder or the listener cannot be used.
pub async fn run(options: Options, listener: TcpListener, shutdown: Shutdown) -> Result<(), RunError> {
    run_with(options, listener, shutdown, SystemClock::shared()).await
}

/// Runs on the clock given until `shutdown`.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    options: Options,
    listener: TcpListener,
    shutdown: Shutdown,
    clock: SharedClock,
) -> Result<(), RunError> {
    let address = listener.local_addr().map_err(RunError::Listener)?;
    let (external_url, prefix) = addresses(&options, address)?;
    let own_url = external_url.clone();
    let surroundings =
        Surroundings { external_url, clock: Arc::clone(&clock), loopback_only: address.ip().is_loopback() };
    let settings = config::load(options.config.config_file.as_deref(), &surroundings)?;
    if options.config.config_file.is_none() {
        tracing::info!(
            "No --config.file: the built-in configuration writes alerts to this log and tells nobody"
        );
    }
    warn_of_cluster_flags(&options);
    let store = open_state(&options.storage_path).await?;
    let registry = self_metrics::registry("pharos-alertmanager")?;
    let metrics = Metrics::new(&registry)?;
    metrics.state_set_aside.set(i64::from(store.set_aside.is_some()));
    metrics.config_ok.set(1);
    metrics.config_time.set(clock.now_ms() / 1_000);
    let links = Links::new(signing_key(&store).await?, &surroundings.external_url);
    let readiness = Readiness::starting();
    let engine = Engine::start(EngineParts {
        readiness: readiness.clone(),
        clock,
        settings,
        store,
        metrics,
        links,
        retention: options.data_retention.to_std(),
        start_delay: options.dispatch_start_delay.to_std(),
    });
    // What the start itself decided (doubtful actions) is on disk before anything follows from it.
    engine.store.durable().await?;
    let reload = reload(Arc::clone(&engine), options.config.config_file.clone(), surroundings);
    let standard = StandardRoutes {
        program: "Alertmanager",
        // Served below: the gauges are brought up to date first.
        registry: None,
        readiness: readiness.clone(),
        reload: reload.clone(),
        quit: None,
    };
    let api = Api { engine: Arc::clone(&engine) };
    let metrics_engine = Arc::clone(&engine);
    let metrics = get(move || async move {
        metrics_engine.show_metrics();
        ([(CONTENT_TYPE, self_metrics::TEXT_FORMAT)], self_metrics::encode(&registry))
    });
    let routes = api::router(api.clone())
        .merge(page::router(api.clone()))
        .merge(standard.router())
        .route("/metrics", metrics);
    let app = if prefix.is_empty() {
        routes
    } else {
        let home = format!("{prefix}/");
        let place = home.clone();
        Router::new()
            .nest(&prefix, routes)
            // Nesting serves the prefix itself, but not with a slash behind it.
            .route(&place, get(page::home).with_state(api))
            .route("/", get(move || async move { Redirect::temporary(&home) }))
    };
    let site = Site::new(address.ip().is_loopback(), &options.listen_address, &own_url);
    let app = app.layer(axum::middleware::from_fn_with_state(site, site::guard));
    let hangups = tokio::spawn(reload_on_hangup(reload, shutdown.clone()));
    readiness.set_ready();
    // The server stops first: nothing new comes in while deliveries finish.
    let stop_engine = Shutdown::new();
    let running = tokio::spawn(Arc::clone(&engine).run(stop_engine.clone()));
    let mending = tokio::spawn(Arc::clone(&engine).mend_store(shutdown.clone()));
    server::serve(listener, app, None, ServerLimits::default(), shutdown.clone()).await;
    if let Err(error) = mending.await {
        tracing::error!(%error, "The state folder is no longer watched");
    }
    stop_engine.cancel();
    if let Err(error) = running.await {
        tracing::error!(%error, "The engine ended badly");
    }
    hangups.abort();
    engine.store.durable().await?;
    tracing::info!("Alertmanager stopped");
    Ok(())
}

/// Opens the state folder, giving a program that is just ending some time to let go of it.
async fn open_state(path: &Path) -> Result<Store, StateError> {
    for _ in 0..STATE_ATTEMPTS {
        match Store::open(path) {
            Err(StateError::InUse(_)) => tokio::time::sleep(STATE_PAUSE).await,
            opened => return opened,
        }
    }
    Store::open(path)
}

/// The external URL without a slash at its end, and the prefix of all paths (`""` or `/…`).
fn addresses(options: &Options, address: std::net::SocketAddr) -> Result<(String, String), RunError> {
    let fault = |message: String| RunError::Flag { flag: "--web.external-url", message };
    let url = match &options.external_url {
        None if address.ip().is_unspecified() => {
            // As Alertmanager does: people elsewhere cannot follow a link to 0.0.0.0.
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = if name.trim().is_empty() { "localhost" } else { name.trim() };
            format!("http://{name}:{}", address.port())
        }
        None => format!("http://{address}"),
        Some(text) => {
            let url =
                reqwest::Url::parse(text).map_err(|error| fault(format!("{text:?} is no URL: {error}")))?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                return Err(fault(format!("{text:?} must start with http:// or https:// and name a host")));
            }
            text.trim_end_matches('/').to_owned()
        }
    };
    let path = match &options.route_prefix {
        Some(prefix) => prefix.clone(),
        None => reqwest::Url::parse(&url).map(|url| url.path().to_owned()).unwrap_or_default(),
    };
    let bare = path.trim_matches('/');
    if bare.contains(['{', '}', '*', '?', '#']) {
        let message = format!("{path:?} is no path");
        return Err(RunError::Flag { flag: "--web.route-prefix", message });
    }
    Ok((url, if bare.is_empty() { String::new() } else { format!("/{bare}") }))
}

fn warn_of_cluster_flags(options: &Options) {
    if !options.cluster.peers.is_empty() {
        tracing::warn!(
            peers = options.cluster.peers.join(","),
            "--cluster.peer has no effect: peer-to-peer clustering is not in this version, and each instance notifies by itself"
        );
    }
    if !options.cluster.listen_address.is_empty() {
        tracing::warn!(address = %options.cluster.listen_address, "--cluster.listen-address has no effect: peer-to-peer clustering is not in this version");
    }
}

const SIGNING_KEY: &str = "link_signing_key";

/// The key of signed links: made once, kept in the state folder.
async fn signing_key(store: &Store) -> Result<[u8; 32], StateError> {
    let kept = store.get::<String>(Kind::Meta, SIGNING_KEY);
    if let Some(key) = kept.and_then(|text| crate::unhex(&text)?.try_into().ok()) {
        return Ok(key);
    }
    let mut key = [0u8; 32];
    let (first, second) = key.split_at_mut(16);
    // Each holds 122 bits from the system's generator.
    first.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    second.copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    store.put(Kind::Meta, SIGNING_KEY, &crate::hex(&key));
    store.durable().await?;
    Ok(key)
}

fn reload(engine: Arc<Engine>, file: Option<PathBuf>, surroundings: Surroundings) -> Reload {
    Reload::new(move || {
        let (engine, file, surroundings) = (Arc::clone(&engine), file.clone(), surroundings.clone());
        async move {
            // Reads files and makes HTTP clients: not for the threads that serve.
            let load = move || config::load(file.as_deref(), &surroundings);
            let loaded: Result<Settings, String> = match tokio::task::spawn_blocking(load).await {
                Ok(loaded) => loaded.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match loaded {
                Ok(settings) => {
                    engine.apply(settings);
                    engine.metrics.config_ok.set(1);
                    engine.metrics.config_time.set(engine.now_ms() / 1_000);
                    Ok(())
                }
                Err(error) => {
                    engine.metrics.config_ok.set(0);
                    Err(error)
                }
            }
        }
    })
}

async fn reload_on_hangup(reload: Reload, shutdown: Shutdown) {
    let mut hangups = match shutdown::reload_signals() {
        Ok(hangups) => hangups,
        Err(error) => return tracing::warn!(%error, "SIGHUP will not reload the configuration"),
    };
    loop {
        tokio::select! {
            hangup = hangups.recv() => if hangup.is_none() { return },
            () = shutdown.cancelled() => return,
        }
        // The outcome is logged.
        let _ = reload.run().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_configuration_is_told_once() {
        let error = ConfigError::new(Path::new("am.yml"), "route", "missing receiver");
        let error = anyhow::Error::from(RunError::from(error));
        assert_eq!(format!("{error:#}"), "am.yml: route: missing receiver");
        let error = anyhow::Error::from(RunError::from(prometheus::Error::AlreadyReg));
        assert_eq!(format!("{error:#}").matches("Duplicate").count(), 1, "{error:#}");
    }
}
