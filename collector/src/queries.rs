//! Runs queries: so many at once, for so long, and no longer than somebody waits for the answer; on threads of
//! their own unless they are quicker than that.

use crate::limits::{QUERIES_WAITING_FACTOR, RULE_QUERIES_AT_ONCE_MAX};
use crate::metrics::Metrics;
use crate::query_cost::QueryCost;
use crate::query_log::{Origin, QueryLog};
use crate::quick_queries::{QuickQueries, TRIAL_SAMPLES_MAX, TRIAL_TIME_MAX, is_given_up};
use crate::storage::DatabaseStorage;
use pharos_common::clock::SharedClock;
use pharos_common::sample::TimestampMs;
use pharos_common::shutdown::Shutdown;
use pharos_promql::ast::Expr;
use pharos_promql::storage::Storage;
use pharos_promql::{Engine, EngineOptions, QueryError, QueryOptions, QueryResult};
use pharos_tsdb::Database;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Why a query gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryFailure {
    /// The engine's reason.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// Its time was up before it had a place.
    #[error("query timed out in query queue")]
    Queue,
    /// Too many wait already.
    #[error("too many queries wait for a place; try again later")]
    Full,
    /// A mistake in the engine ended it.
    #[error("unexpected error: {0}")]
    Crashed(String),
}

/// When to evaluate.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// At one time.
    Instant(TimestampMs),
    /// Every `step_ms` between two times.
    Range {
        /// First.
        start_ms: TimestampMs,
        /// Last, at most.
        end_ms: TimestampMs,
        /// Distance.
        step_ms: i64,
    },
}

/// Per-query settings that a request may give.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuerySettings {
    /// Shorter than the server's.
    pub timeout: Option<Duration>,
    /// Another lookback.
    pub lookback_delta: Option<Duration>,
    /// Whether the samples that each step looks at are counted.
    pub samples_per_step: bool,
}

/// An answer with what it cost.
#[derive(Debug)]
pub struct Answer {
    /// The result.
    pub result: QueryResult,
    /// What it cost.
    pub cost: QueryCost,
}

/// The query engine over the storage. Clones share the limits.
#[derive(Clone)]
pub struct Queries {
    engine: Engine,
    storage: Arc<DatabaseStorage>,
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
    rule_places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    quick: Arc<QuickQueries>,
    log: QueryLog,
    clock: SharedClock,
    /// Cancels all that still run.
    end: Shutdown,
}

/// Cancels the query when the one who waits for it goes.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts a query as waiting or running, as Prometheus does.
struct Active<'a>(&'a Metrics);

impl<'a> Active<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.engine.queries.inc();
        Active(metrics)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.engine.queries.dec();
    }
}

/// Counts a query as running, also when its evaluation panics.
struct Running(Arc<Metrics>);

impl Running {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.queries_running.inc();
        Running(Arc::clone(metrics))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.queries_running.dec();
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queries {
    /// Over an open storage engine. `end` cancels what still runs.
    pub fn new(
        database: Database,
        options: EngineOptions,
        concurrency_max: usize,
        metrics: Arc<Metrics>,
        clock: SharedClock,
        end: Shutdown,
    ) -> Self {
        let concurrency_max = concurrency_max.max(1);
        metrics.engine.concurrent_max.set(i64::try_from(concurrency_max).unwrap_or(i64::MAX));
        let log = QueryLog::new(metrics.engine.log_enabled.clone(), metrics.engine.log_failures.clone());
        Queries {
            engine: Engine::new(options),
            storage: Arc::new(DatabaseStorage::new(database)),
            places: Arc::new(Semaphore::new(concurrency_max)),
            waiting: Arc::default(),
            waiting_max: concurrency_max.saturating_mul(QUERIES_WAITING_FACTOR),
            rule_places: Arc::new(Semaphore::new(RULE_QUERIES_AT_ONCE_MAX)),
            metrics,
            quick: Arc::default(),
            log,
            clock,
            end,
        }
    }

    /// Where queries are logged.
    pub fn log(&self) -> &QueryLog {
        &self.log
    }

    /// The engine underneath, for evaluations over other storages.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The storage underneath.
    pub fn storage(&self) -> &Arc<DatabaseStorage> {
        &self.storage
    }

    /// Runs somebody's query. Dropping the future cancels it.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub async fn run(
        &self,
        expr: Expr,
        when: When,
        settings: QuerySettings,
        origin: &Origin,
    ) -> Result<Answer, QueryFailure> {
        let started = Instant::now();
        let active = Active::new(&self.metrics);
        let logged = self.log.is_enabled().then(|| expr.query().to_owned());
        let outcome = self.run_queued(expr, when, settings, started).await;
        drop(active);
        if let Some(query) = logged {
            let cost = outcome.as_ref().map(|answer| &answer.cost);
            self.log.log(&query, when, origin, cost, self.clock.now_ms());
        }
        self.metrics.query_seconds.observe(started.elapsed().as_secs_f64());
        let label = match &outcome {
            Ok(_) => "success",
            Err(QueryFailure::Query(error)) => error.error_type(),
            Err(QueryFailure::Queue) => "timeout",
            Err(QueryFailure::Full) => "unavailable",
            Err(QueryFailure::Crashed(_)) => "internal",
        };
        self.metrics.queries.with_label_values(&[label]).inc();
        outcome
    }

    async fn run_queued(
        &self,
        expr: Expr,
        when: When,
        settings: QuerySettings,
        started: Instant,
    ) -> Result<Answer, QueryFailure> {
        let timeout = settings
            .timeout
            .map_or(self.engine.options().timeout, |own| own.min(self.engine.options().timeout));
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            return Err(QueryFailure::Full);
        }
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(Ok(place)),
            Err(_) => tokio::time::timeout(timeout, Arc::clone(&self.places).acquire_owned()).await,
        };
        drop(waiting);
        let Ok(Ok(place)) = place else { return Err(QueryFailure::Queue) };
        let queued = started.elapsed();
        let options = QueryOptions {
            timeout: Some(timeout.saturating_sub(queued)),
            lookback_delta: settings.lookback_delta,
            samples_per_step: settings.samples_per_step,
            ..QueryOptions::default()
        };
        let mut result = self.evaluate(Arc::clone(&self.storage), expr, when, options, place).await?;
        let cost = QueryCost {
            queued,
            evaluated: started.elapsed().saturating_sub(queued),
            stats: result.stats,
            samples_per_step: std::mem::take(&mut result.samples_per_step),
        };
        self.metrics.engine.observe(&cost);
        Ok(Answer { result, cost })
    }

    /// Evaluates a rule's expression at one time.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub async fn run_rule(&self, expr: Expr, at_ms: TimestampMs) -> Result<QueryResult, QueryFailure> {
        self.run_rule_over(Arc::clone(&self.storage), expr, at_ms, || Origin::Own).await
    }

    /// The same over what the rules of one evaluation share.
    ///
    /// # Errors
    /// See [`QueryFailure`].
    pub async fn run_rule_over<S: Storage + 'static>(
        &self,
        storage: Arc<S>,
        expr: Expr,
        at_ms: TimestampMs,
        origin: impl FnOnce() -> Origin,
    ) -> Result<QueryResult, QueryFailure> {
        let started = Instant::now();
        let logged = self.log.is_enabled().then(|| expr.query().to_owned());
        let place = Arc::clone(&self.rule_places).acquire_owned().await.map_err(|_| QueryFailure::Queue)?;
        let queued = started.elapsed();
        let when = When::Instant(at_ms);
        let options = QueryOptions { samples_per_step: logged.is_some(), ..QueryOptions::default() };
        let outcome = self.evaluate(storage, expr, when, options, place).await;
        if let Some(query) = logged {
            let cost = |result: &QueryResult| QueryCost {
                queued,
                evaluated: started.elapsed().saturating_sub(queued),
                stats: result.stats,
                samples_per_step: result.samples_per_step.clone(),
            };
            let cost = outcome.as_ref().map(cost);
            self.log.log(&query, when, &origin(), cost.as_ref().map_err(|error| *error), self.clock.now_ms());
        }
        outcome
    }

    async fn evaluate<S: Storage + 'static>(
        &self,
        storage: Arc<S>,
        expr: Expr,
        when: When,
        options: QueryOptions,
        place: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<QueryResult, QueryFailure> {
        let running = Running::new(&self.metrics);
        let key = self.quick.key(expr.query(), when);
        let started = Instant::now();
        if self.quick.is_quick(key) {
            if let Some(outcome) = self.evaluate_here(storage.as_ref(), &expr, when, &options) {
                self.quick.took(key, started.elapsed());
                return outcome;
            }
            self.quick.gave_up(key);
        }
        let _cancel = CancelOnDrop(Arc::clone(&options.cancelled));
        let (engine, quick) = (self.engine.clone(), Arc::clone(&self.quick));
        let evaluation = tokio::task::spawn_blocking(move || {
            // A cancelled query keeps its place until it has really stopped.
            let _place = (place, running);
            let started = Instant::now();
            let outcome = evaluate_now(&engine, storage.as_ref(), &expr, when, &options);
            quick.took(key, started.elapsed());
            outcome
        });
        tokio::select! {
            outcome = evaluation => {
                outcome.map_err(|error| QueryFailure::Crashed(error.to_string()))?
            }
            () = self.end.cancelled() => {
                Err(QueryError::Canceled { stage: "shutdown of the server" }.into())
            }
        }
    }

    /// Evaluates where others wait for the thread, so within small limits; `None` if it takes more.
    fn evaluate_here(
        &self,
        storage: &dyn Storage,
        expr: &Expr,
        when: When,
        options: &QueryOptions,
    ) -> Option<Result<QueryResult, QueryFailure>> {
        let own = self.engine.options();
        let timeout = options.timeout.unwrap_or(own.timeout);
        if self.end.is_cancelled() || own.max_samples < TRIAL_SAMPLES_MAX || timeout < TRIAL_TIME_MAX {
            return None;
        }
        let engine = Engine::new(EngineOptions { max_samples: TRIAL_SAMPLES_MAX, ..own.clone() });
        let options = QueryOptions { timeout: Some(TRIAL_TIME_MAX), in_memory_only: true, ..options.clone() };
        let outcome = evaluate_now(&engine, storage, expr, when, &options);
        Some(outcome).filter(|outcome| !outcome.as_ref().is_err_and(is_given_up))
    }

    /// Evaluates here and now, within a small budget: for templates of rules.
    ///
    /// # Errors
    /// What the engine says.
    pub fn run_small(&self, query: &str, at_ms: TimestampMs) -> Result<QueryResult, QueryError> {
        let options = QueryOptions { timeout: Some(Duration::from_secs(2)), ..QueryOptions::default() };
        self.engine.instant(self.storage.as_ref(), query, at_ms, &options)
    }
}

/// Evaluates on this thread. A panic, which is a mistake in the engine, ends the query and nothing else.
fn evaluate_now(
    engine: &Engine,
    storage: &dyn Storage,
    expr: &Expr,
    when: When,
    options: &QueryOptions,
) -> Result<QueryResult, QueryFailure> {
    let evaluate = || match when {
        When::Instant(at_ms) => engine.instant_expr(storage, expr, at_ms, options),
        When::Range { start_ms, end_ms, step_ms } => {
            engine.range_expr(storage, expr, start_ms, end_ms, step_ms, options)
        }
    };
    // What a query works on is its own, and locks that it held do not mind.
    match std::panic::catch_unwind(AssertUnwindSafe(evaluate)) {
        Ok(outcome) => Ok(outcome?),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            tracing::error!(query = expr.query(), error = text, "A query ended by a mistake in the engine");
            Err(QueryFailure::Crashed(text.to_owned()))
        }
    }
}

#[cfg(test)]
#[path = "queries_tests.rs"]
mod tests;
