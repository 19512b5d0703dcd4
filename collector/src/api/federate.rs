//! `/federate`: the newest samples of chosen series, for another Prometheus to scrape: as text, or as
//! protobuf for scrapers that take native histograms.

mod protobuf;
mod text;

use super::answer::ApiError;
use super::parameters::Parameters;
use super::series::selectors;
use crate::collector::Collector;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use pharos_common::histogram::{FloatHistogram, HistogramSample};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::{TimestampMs, is_stale_nan};
use pharos_tsdb::{SelectedSeries, Unlimited};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The newest sample of a series.
#[derive(Clone, Debug)]
struct Newest {
    timestamp_ms: TimestampMs,
    value: NewestValue,
}

#[derive(Clone, Debug)]
enum NewestValue {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

/// `/federate?match[]=…`
pub(crate) async fn federate(
    State(collector): State<Arc<Collector>>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    parameters.insist_on_all()?;
    let selectors = selectors(&parameters)?;
    let now_ms = collector.clock.now_ms();
    let start_ms = now_ms - collector.options.query.lookback_delta.as_millis_i64() + 1;
    let external = collector.rules.context().external_labels();
    let database = collector.database.clone();
    let as_protobuf = protobuf::is_preferred(&headers);
    let body = tokio::task::spawn_blocking(move || {
        let mut newest: BTreeMap<Labels, Newest> = BTreeMap::new();
        for matchers in &selectors {
            for series in database.select_newest(matchers, start_ms, now_ms, &Unlimited)? {
                if let Some(sample) = newest_of(&series) {
                    newest.insert(series.labels, sample);
                }
            }
        }
        Ok(match as_protobuf {
            true => protobuf::write(&newest, &external),
            false => text::write(&newest, &external).into_bytes(),
        })
    })
    .await
    .map_err(ApiError::internal)?
    .map_err(|error: pharos_tsdb::ReadError<std::convert::Infallible>| ApiError::internal(error))?;
    let content_type = if as_protobuf { protobuf::CONTENT_TYPE } else { text::CONTENT_TYPE };
    Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
}

/// The newest sample, unless it says that the series is gone.
fn newest_of(series: &SelectedSeries) -> Option<Newest> {
    let float = series.timestamps.last().copied().zip(series.values.last().copied());
    let histogram = series.histograms.last();
    match (float, histogram) {
        (Some((at_ms, _)), Some(histogram)) if histogram.timestamp_ms > at_ms => of_histogram(histogram),
        (Some((timestamp_ms, value)), _) => {
            (!is_stale_nan(value)).then_some(Newest { timestamp_ms, value: NewestValue::Float(value) })
        }
        (None, Some(histogram)) => of_histogram(histogram),
        (None, None) => None,
    }
}

fn of_histogram(sample: &HistogramSample) -> Option<Newest> {
    let value = NewestValue::Histogram(Arc::clone(&sample.histogram));
    (!sample.histogram.is_stale()).then_some(Newest { timestamp_ms: sample.timestamp_ms, value })
}

/// A series' labels without its name, and those of this collector that it lacks.
fn exposed_labels(labels: &Labels, external: &Labels) -> Labels {
    let mut merged = labels.to_builder();
    merged.remove(METRIC_NAME);
    for (label, value) in external.iter() {
        if merged.get(label).is_none() {
            merged.set(label, value);
        }
    }
    merged.build()
}
