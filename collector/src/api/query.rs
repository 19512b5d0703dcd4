//! `/query`, `/query_range` and what goes with them.

use super::answer::{Answer, ApiError, envelope, small_json, stream_json, success};
use super::json::write_result;
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::limits::{POINTS_PER_SERIES_MAX, SMALL_ANSWER_POINTS_MAX};
use crate::queries::{self, QueryFailure, QuerySettings, When};
use axum::extract::State;
use axum::http::StatusCode;
use pharos_promql::{MatrixSeries, QueryError, SampleValue, Value};
use std::sync::Arc;
use std::time::Duration;

/// `/api/v1/query`
pub(crate) async fn instant(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let limit = parameters.limit()?;
    let at_ms = parameters.time_or("time", collector.clock.now_ms())?;
    let answer = run(&collector, &parameters, When::Instant(at_ms)).await?;
    respond(answer, limit, &parameters)
}

/// `/api/v1/query_range`
pub(crate) async fn range(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let limit = parameters.limit()?;
    let (start_ms, end_ms) = (parameters.time("start")?, parameters.time("end")?);
    if end_ms < start_ms {
        return Err(ApiError::parameter("end", "end timestamp must not be before start time"));
    }
    let step_ms = parameters.duration_ms("step")?;
    if step_ms <= 0 {
        return Err(ApiError::parameter(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        ));
    }
    if (end_ms - start_ms) / step_ms > POINTS_PER_SERIES_MAX {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    let answer = run(&collector, &parameters, When::Range { start_ms, end_ms, step_ms }).await?;
    respond(answer, limit, &parameters)
}

async fn run(
    collector: &Collector,
    parameters: &Parameters,
    when: When,
) -> Result<queries::Answer, ApiError> {
    let settings = QuerySettings {
        // No time at all is a time, in which nothing can be evaluated.
        timeout: match parameters.get("timeout") {
            None => None,
            Some(_) => {
                Some(Duration::from_millis(parameters.duration_ms("timeout")?.try_into().unwrap_or(0)))
            }
        },
        lookback_delta: parameters.positive_duration("lookback_delta")?,
        samples_per_step: parameters.get("stats").is_some() || collector.queries.log().is_enabled(),
    };
    let query = parameters.get_or_empty("query");
    let expr = pharos_promql::parse(query).map_err(|error| ApiError::parameter("query", error))?;
    collector
        .queries
        .run(expr, when, settings, &parameters.origin)
        .await
        .map_err(|failure| api_error(&failure))
}

/// A failed query as the API tells it.
pub(crate) fn api_error(failure: &QueryFailure) -> ApiError {
    let message = failure.to_string();
    match failure {
        QueryFailure::Queue => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", message),
        QueryFailure::Full => ApiError::unavailable(message),
        QueryFailure::Crashed(_) => ApiError::internal(message),
        QueryFailure::Query(error) => {
            let error_type = error.error_type();
            match error_type {
                "bad_data"
                    if matches!(error, QueryError::Parse(_) | QueryError::NotARangeExpression { .. }) =>
                {
                    ApiError::parameter("query", message)
                }
                "bad_data" => ApiError::bad_data(message),
                "execution" => ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error_type, message),
                "timeout" | "canceled" => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error_type, message),
                _ => ApiError::internal(message),
            }
        }
    }
}

fn respond(answer: queries::Answer, limit: Option<usize>, parameters: &Parameters) -> Answer {
    let stats = parameters.get("stats").map(|wanted| match wanted {
        "all" => answer.cost.to_json_with_steps(),
        _ => answer.cost.to_json(),
    });
    let mut result = answer.result;
    if limit.is_some_and(|limit| truncate(&mut result.value, limit)) {
        result.warnings.push("results truncated due to limit".to_owned());
    }
    let is_small = is_small(&result.value);
    let write = move |out: &mut dyn std::io::Write| {
        envelope(out, &result.warnings, &result.infos, |out| {
            out.write_all(b"{")?;
            write_result(out, &result.value)?;
            if let Some(stats) = stats {
                write!(out, ",\"stats\":{stats}")?;
            }
            out.write_all(b"}")
        })
    };
    if is_small {
        small_json(parameters.encoding, write)
    } else {
        Ok(stream_json(parameters.encoding, write))
    }
}

/// Whether a value is written sooner than another thread would begin to.
fn is_small(value: &Value) -> bool {
    match value {
        Value::Scalar(_) => true,
        Value::String { text, .. } => text.len() < SMALL_ANSWER_POINTS_MAX,
        Value::Vector(vector) => {
            vector.len() < SMALL_ANSWER_POINTS_MAX
                && vector.iter().all(|sample| matches!(sample.value, SampleValue::Float(_)))
        }
        Value::Matrix(matrix) => {
            let points = |series: &MatrixSeries| 1 + series.floats.len();
            matrix.len() < SMALL_ANSWER_POINTS_MAX
                && matrix.iter().all(|series| series.histograms.is_empty())
                && matrix.iter().map(points).sum::<usize>() < SMALL_ANSWER_POINTS_MAX
        }
    }
}

/// Whether something was cut off.
fn truncate(value: &mut Value, limit: usize) -> bool {
    let length = match value {
        Value::Vector(vector) => {
            let length = vector.len();
            vector.truncate(limit);
            length
        }
        Value::Matrix(matrix) => {
            let length = matrix.len();
            matrix.truncate(limit);
            length
        }
        Value::Scalar(_) | Value::String { .. } => 0,
    };
    length > limit
}

/// `/api/v1/format_query`
pub(crate) async fn format(parameters: Parameters) -> Answer {
    let expr = pharos_promql::parse(parameters.get_or_empty("query"))
        .map_err(|error| ApiError::parameter("query", error))?;
    success(&pharos_promql::ast::prettify(&expr), parameters.encoding)
}
