//! The front door: a query and a time (or a range of times) to an answer.

use crate::ast::{Expr, ValueType};
use crate::error::QueryError;
use crate::eval;
use crate::parser::parse;
use crate::plan::{Plan, SummaryTraits};
use crate::storage::{Budget, Storage};
use crate::value::QueryResult;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What holds for all queries of an engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Samples that a query may hold in memory at once.
    pub max_samples: usize,
    /// How long a query may take.
    pub timeout: Duration,
    /// How old the newest sample of a series may be for an instant selector to take it.
    pub lookback_delta: Duration,
    /// Step of subqueries that give none.
    pub default_subquery_step: Duration,
    /// Whether `rate`, `increase`, `irate` and `resets` of a selector look at start timestamps: for resets that values
    /// do not show, and for when a counter was zero.
    pub use_start_timestamps: bool,
}

/// Prometheus' defaults.
impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            max_samples: 50_000_000,
            timeout: Duration::from_secs(120),
            lookback_delta: Duration::from_secs(300),
            default_subquery_step: Duration::from_secs(60),
            use_start_timestamps: false,
        }
    }
}

/// What may differ from query to query.
#[derive(Clone, Debug, Default)]
pub struct QueryOptions {
    /// Set it to stop the query.
    pub cancelled: Arc<AtomicBool>,
    /// Overrides the engine's timeout if shorter.
    pub timeout: Option<Duration>,
    /// Overrides the engine's lookback.
    pub lookback_delta: Option<Duration>,
    /// Counts the samples that every step looks at.
    pub samples_per_step: bool,
    /// Ends the query rather than read a file: it is evaluated where others wait for the thread.
    pub in_memory_only: bool,
}

/// Answers queries. It has no state but its options; one serves all threads.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    options: EngineOptions,
}

/// The times at which a query is evaluated.
#[derive(Clone, Copy, Debug)]
struct Times {
    start_ms: TimestampMs,
    end_ms: TimestampMs,
    /// 0 for an instant query.
    step_ms: i64,
}

impl Engine {
    /// An engine with these options.
    pub fn new(options: EngineOptions) -> Self {
        Engine { options }
    }

    /// What holds for all its queries.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Evaluates a query at one time.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn instant(
        &self,
        storage: &dyn Storage,
        query: &str,
        time_ms: TimestampMs,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        self.instant_expr(storage, &parse(query)?, time_ms, options)
    }

    /// Evaluates a parsed query at one time. Rules parse theirs once.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn instant_expr(
        &self,
        storage: &dyn Storage,
        expr: &Expr,
        time_ms: TimestampMs,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        self.evaluate(storage, expr, Times { start_ms: time_ms, end_ms: time_ms, step_ms: 0 }, options)
    }

    /// Evaluates a query every `step_ms` from `start_ms` to `end_ms`, both included.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn range(
        &self,
        storage: &dyn Storage,
        query: &str,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        self.range_expr(storage, &parse(query)?, start_ms, end_ms, step_ms, options)
    }

    /// The same for a parsed query.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub fn range_expr(
        &self,
        storage: &dyn Storage,
        expr: &Expr,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        step_ms: i64,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        if step_ms <= 0 {
            return Err(QueryError::InvalidRange(
                "zero or negative query resolution step widths are not accepted. Try a positive integer",
            ));
        }
        if end_ms < start_ms {
            return Err(QueryError::InvalidRange("end timestamp must not be before start time"));
        }
        let found = expr.value_type();
        if !matches!(found, ValueType::Scalar | ValueType::Vector) {
            return Err(QueryError::NotARangeExpression { found: found.documented() });
        }
        self.evaluate(storage, expr, Times { start_ms, end_ms, step_ms }, options)
    }

    fn evaluate(
        &self,
        storage: &dyn Storage,
        expr: &Expr,
        times: Times,
        options: &QueryOptions,
    ) -> Result<QueryResult, QueryError> {
        let timeout = options.timeout.map_or(self.options.timeout, |own| own.min(self.options.timeout));
        let started = Instant::now();
        let deadline = started.checked_add(timeout);
        let budget = Budget::new(self.options.max_samples, deadline, Arc::clone(&options.cancelled));
        let budget = if options.in_memory_only { budget.without_files() } else { budget };
        let lookback = options.lookback_delta.unwrap_or(self.options.lookback_delta);
        let plan = Plan::new(
            expr,
            crate::plan::Setting {
                start_ms: times.start_ms,
                end_ms: times.end_ms,
                step_ms: times.step_ms,
                lookback_ms: millis(lookback),
                default_subquery_step_ms: millis(self.options.default_subquery_step).max(1),
                uses_starts: self.options.use_start_timestamps,
                summaries: storage.summaries().map(|summaries| SummaryTraits {
                    grain_ms: summaries.grain_ms(),
                    samples_since_ms: summaries.samples_since_ms(),
                }),
            },
        )?;
        let planned = started.elapsed();
        let mut result = eval::run(&plan, storage, &budget, options.samples_per_step)?;
        result.stats.planned = planned;
        Ok(result)
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
