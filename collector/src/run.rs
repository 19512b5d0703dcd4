//! Starts a collector, serves until shutdown, and ends it so that nothing acknowledged is lost.

use crate::api;
use crate::collector::Collector;
use crate::config::{self, LoadedConfig};
use crate::coverage::{Coverage, Origin};
use crate::engine_metrics;
use crate::error::CollectorError;
use crate::ingest::appender::{Appender, Source};
use crate::ingest::rate_limit::RateLimits;
use crate::ingest::remote_write::RemoteWrite;
use crate::ingest::series_writer::SeriesWriter;
use crate::ingest::stream::IngestService;
use crate::ingest::stream_registry::StreamRegistry;
use crate::ingest::write_gate::WriteGate;
use crate::kubernetes_nodes;
use crate::limits::ARRIVALS_QUEUED_MAX;
use crate::metrics::Metrics;
use crate::network_coverage::{self, NetworkInterfaces};
use crate::options::{Options, USE_START_TIMESTAMPS};
use crate::queries::Queries;
use crate::rules::context::RuleContext;
use crate::rules::manager::RuleManager;
use crate::rules::notify::{self, Notifier};
use crate::rules::threshold::NODE_LABEL;
use crate::rules::watch::WatchIndex;
use crate::self_samples;
use arc_swap::ArcSwap;
use pharos_common::clock::{SharedClock, SystemClock};
use pharos_common::self_metrics;
use pharos_common::server::{self, Readiness, Reload, ServerLimits, StandardRoutes};
use pharos_common::shutdown::{self, Shutdown};
use pharos_common::storage_io::DiskIo;
use pharos_promql::EngineOptions;
use pharos_tsdb::Database;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// How often `/-/ready` learns whether the engine still takes writes.
const READINESS_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs a collector on `listener` until `shutdown` is cancelled.
///
/// # Errors
/// If the configuration is broken or the storage cannot be opened or closed.
pub async fn run(options: Options, listener: TcpListener, shutdown: Shutdown) -> Result<(), CollectorError> {
    run_with_clock(options, listener, shutdown, SystemClock::shared()).await
}

/// The same on another clock, for tests.
///
/// # Errors
/// As [`run`].
pub async fn run_with_clock(
    options: Options,
    listener: TcpListener,
    shutdown: Shutdown,
    clock: SharedClock,
) -> Result<(), CollectorError> {
    // A second program in the same process finds a provider installed, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let for_load = options.clone();
    let loaded = blocking(move || config::load(&for_load)).await??;
    // Alerts wait for a start: what does not depend on each other goes on side by side.
    let (client, database) = tokio::join!(blocking(notify::client), open_database(&options, &clock));
    let (client, database) = (client??, database?);
    let registry = self_metrics::registry("pharos-collector")?;
    let metrics = Arc::new(Metrics::register(&registry)?);
    engine_metrics::register(&registry, database.clone())?;

    let watch = WatchIndex::default();
    let (arrivals, arrived) = mpsc::channel(ARRIVALS_QUEUED_MAX);
    let appender = Appender::new(database.clone(), watch.clone(), arrivals, Arc::clone(&metrics));
    let derived = SeriesWriter::new(appender.clone(), Source::Derived);
    // Rules and queries end before the storage closes, ingest before that.
    let rules_end = Shutdown::new();
    let queries = Queries::new(
        database.clone(),
        EngineOptions {
            max_samples: options.query.samples_max,
            timeout: options.query.timeout.to_std(),
            lookback_delta: options.query.lookback_delta.to_std(),
            use_start_timestamps: options.has_feature(USE_START_TIMESTAMPS),
            ..EngineOptions::default()
        },
        options.query.concurrency_max,
        Arc::clone(&metrics),
        Arc::clone(&clock),
        rules_end.clone(),
    );
    let notifier = Notifier::new(
        client,
        Arc::clone(&metrics),
        Arc::clone(&clock),
        Some(options.storage_path.join("alerts")),
    );
    let external_url = external_url(&options, &listener);
    let instance = listener.local_addr().map(|address| address.to_string())?;
    let own = self_samples::run(
        registry.clone(),
        database.clone(),
        derived.clone(),
        Arc::clone(&clock),
        instance,
        rules_end.clone(),
    );
    let context = Arc::new(RuleContext::new(
        queries.clone(),
        notifier.clone(),
        derived.clone(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        external_url,
    ));
    let lookback_ms = options.query.lookback_delta.as_millis_i64();
    let rules = RuleManager::start(context, watch, database.clone(), lookback_ms, arrived, rules_end.clone());
    let streams = StreamRegistry::default();
    let network_interfaces = Arc::new(ArcSwap::from_pointee(NetworkInterfaces::default()));
    tokio::spawn(network_coverage::run(
        queries.clone(),
        derived.clone(),
        Arc::clone(&clock),
        Arc::clone(&network_interfaces),
        rules_end.clone(),
    ));
    let coverage = {
        let (database, streams, appender, clock, metrics) =
            (database.clone(), streams.clone(), appender.clone(), Arc::clone(&clock), Arc::clone(&metrics));
        blocking(move || Coverage::new(&database, streams, appender, derived, clock, metrics)).await??
    };
    let rates = RateLimits::new(options.samples_per_second_max, Arc::clone(&metrics));
    let (kubernetes_nodes, wanted) = watch::channel(None);
    let told = coverage.clone();
    let by_kubernetes = move |nodes| told.expect(Origin::Kubernetes, nodes);
    tokio::spawn(kubernetes_nodes::run(wanted, Arc::clone(&metrics), by_kubernetes, rules_end.clone()));
    let ingest = IngestService::new(
        appender.clone(),
        streams,
        rates.clone(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        shutdown.clone(),
    );
    let collector = Arc::new(Collector {
        started_ms: clock.now_ms(),
        clock,
        texts: SeriesWriter::new(appender.clone(), Source::Text),
        writes: WriteGate::default(),
        remote_write: RemoteWrite::default(),
        reads: api::ReadPlaces::default(),
        rates,
        appender,
        queries,
        rules,
        coverage: coverage.clone(),
        kubernetes_nodes,
        network_interfaces,
        metrics,
        registry: registry.clone(),
        config: ArcSwap::from_pointee(LoadedConfig::default()),
        readiness: Readiness::starting(),
        database: database.clone(),
        options,
    });
    open_query_log(&collector, &loaded)
        .map_err(|message| CollectorError::Flag { flag: "query.log-file", message })?;
    apply(&collector, loaded).await;
    let coverage = tokio::spawn(coverage.run(rules_end.clone()));
    tokio::spawn(own);
    tokio::spawn(watch_readiness(Arc::clone(&collector), rules_end.clone()));
    let reload = {
        let collector = Arc::clone(&collector);
        Reload::new(move || reload(Arc::clone(&collector)))
    };
    reload_on_signal(reload.clone(), shutdown.clone())?;

    let standard = StandardRoutes {
        program: "Pharos collector",
        registry: Some(registry),
        readiness: collector.readiness.clone(),
        reload,
        quit: collector.options.enable_lifecycle.then(|| shutdown.clone()),
    };
    let app = api::router(Arc::clone(&collector), ingest).merge(standard.router());
    collector.readiness.set_ready();
    server::serve(listener, app, None, ServerLimits::default(), shutdown).await;

    collector.readiness.set_not_ready("shutting down");
    rules_end.cancel();
    if let Err(error) = coverage.await {
        tracing::error!(%error, "Node coverage ended badly");
    }
    collector.rules.context().close().await;
    notifier.close().await;
    let close = move || {
        // The next start has nothing to replay then; without it, it takes longer.
        if let Err(error) = database.checkpoint() {
            tracing::warn!(%error, "No checkpoint could be written");
        }
        database.close()
    };
    blocking(close).await??;
    tracing::info!("Collector ended");
    Ok(())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CollectorError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CollectorError::System(std::io::Error::other(error)))
}

async fn open_database(options: &Options, clock: &SharedClock) -> Result<Database, CollectorError> {
    let retention_ms = options.retention_time.as_millis_i64();
    let rollup_retention_ms = options.rollup_retention_time.as_millis_i64();
    let engine_options = pharos_tsdb::Options {
        retention_ms: (retention_ms > 0).then_some(retention_ms),
        retention_bytes: options.retention_size.map(|size| size.0).filter(|&bytes| bytes > 0),
        rollup_retention_ms: Some(if rollup_retention_ms > 0 { rollup_retention_ms } else { i64::MAX }),
        series_max: options.series_max,
        series_per_value: Some((NODE_LABEL.to_owned(), options.series_per_node_max)),
        head_bytes_max: usize::try_from(options.head_memory().0).unwrap_or(usize::MAX),
        page_cache_bytes: usize::try_from(options.page_cache_max.0).unwrap_or(usize::MAX),
        index_cache_bytes: usize::try_from(options.index_cache_max.0).unwrap_or(usize::MAX),
        ..pharos_tsdb::Options::default()
    };
    let (folder, clock) = (options.storage_path.clone(), Arc::clone(clock));
    let opened = blocking(move || Database::open(Arc::new(DiskIo), &folder, engine_options, clock)).await?;
    let (database, report) = opened?;
    tracing::info!(
        folder = %options.storage_path.display(),
        blocks = report.blocks,
        checkpoint_samples = report.checkpoint_samples,
        replayed_samples = report.replayed_samples,
        "Storage opened"
    );
    for file in &report.set_aside {
        tracing::error!(file = %file.display(), "A damaged file was set aside; the rest is served");
    }
    for block in &report.missing_blocks {
        tracing::error!(
            block,
            "A block is missing: its samples are not answered; put it back from a snapshot"
        );
    }
    if report.damaged_bytes > 0 {
        tracing::error!(bytes = report.damaged_bytes, "Parts of the storage are damaged and were left out");
    }
    Ok(database)
}

fn external_url(options: &Options, listener: &TcpListener) -> String {
    match &options.external_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => listener.local_addr().map_or_else(|_| String::new(), |address| format!("http://{address}")),
    }
}

/// Puts a configuration in force.
async fn apply(collector: &Collector, loaded: LoadedConfig) {
    config::warn_of(&loaded);
    let context = collector.rules.context();
    context.set_external_labels(loaded.external_label_set());
    context.notifier.set_urls(&loaded.alertmanager_urls);
    context.set_tells_timeline(loaded.alert_timeline);
    collector.coverage.expect(Origin::File, loaded.expected_nodes.clone());
    collector.kubernetes_nodes.send_if_modified(|wanted| {
        let changed = *wanted != loaded.kubernetes_nodes;
        wanted.clone_from(&loaded.kubernetes_nodes);
        changed
    });
    collector.network_interfaces.store(Arc::new(loaded.network_interfaces.clone()));
    collector.rules.load(loaded.groups.clone()).await;
    let rules: usize = loaded.groups.iter().map(|group| group.rules.len()).sum();
    tracing::info!(rules, alertmanagers = loaded.alertmanager_urls.len(), "Configuration in force");
    collector.config.store(Arc::new(loaded));
    collector.metrics.config_last_reload_successful.set(1);
    collector.metrics.config_last_reload_seconds.set(collector.clock.now_ms() / 1_000);
}

async fn reload(collector: Arc<Collector>) -> Result<(), String> {
    let options = collector.options.clone();
    let loaded = blocking(move || config::load(&options)).await.and_then(|loaded| loaded);
    let loaded = loaded.map_err(|error| error.to_string());
    match loaded.and_then(|loaded| open_query_log(&collector, &loaded).map(|()| loaded)) {
        Ok(loaded) => {
            apply(&collector, loaded).await;
            Ok(())
        }
        Err(error) => {
            collector.metrics.config_last_reload_successful.set(0);
            Err(error)
        }
    }
}

/// Opens the query log, also anew: somebody may have moved it away.
fn open_query_log(collector: &Collector, loaded: &LoadedConfig) -> Result<(), String> {
    let file = loaded.query_log_file.as_deref();
    collector.queries.log().reopen(file).map_err(|error| {
        let path = file.map(|path| path.display().to_string()).unwrap_or_default();
        format!("the query log {path} cannot be opened: {error}")
    })
}

fn reload_on_signal(reload: Reload, shutdown: Shutdown) -> Result<(), CollectorError> {
    let mut signals = shutdown::reload_signals()?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                signal = signals.recv() => {
                    if signal.is_none() {
                        return;
                    }
                }
                () = shutdown.cancelled() => return,
            }
            // Logged by `Reload`.
            let _ = reload.run().await;
        }
    });
    Ok(())
}

async fn watch_readiness(collector: Arc<Collector>, end: Shutdown) {
    let mut was_poisoned = false;
    loop {
        match collector.database.poisoned() {
            Some(reason) => {
                was_poisoned = true;
                collector.readiness.set_not_ready(reason);
            }
            None if was_poisoned => {
                was_poisoned = false;
                collector.readiness.set_ready();
            }
            None => {}
        }
        tokio::select! {
            () = collector.clock.sleep(READINESS_LOOK_EVERY) => {}
            () = end.cancelled() => return,
        }
    }
}
