//! `/federate`: the newest samples of chosen series in the text format, for another Prometheus to scrape.

use super::answer::ApiError;
use super::parameters::Parameters;
use super::series::selectors;
use crate::collector::Collector;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use pharos_common::labels::{Labels, METRIC_NAME, Quoted, is_legacy_label_name, is_legacy_metric_name};
use pharos_common::sample::is_stale_nan;
use pharos_promql::format_float;
use pharos_tsdb::Unlimited;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// `/federate?match[]=…`
pub(crate) async fn federate(
    State(collector): State<Arc<Collector>>,
    parameters: Parameters,
) -> Result<Response, ApiError> {
    let selectors = selectors(&parameters)?;
    let now_ms = collector.clock.now_ms();
    let start_ms = now_ms - collector.options.lookback_delta.as_millis_i64() + 1;
    let external = collector.rules.context().external_labels();
    let database = collector.database.clone();
    let text = tokio::task::spawn_blocking(move || {
        let mut newest: BTreeMap<Labels, (i64, f64)> = BTreeMap::new();
        for matchers in &selectors {
            for series in database.select(matchers, start_ms, now_ms, &Unlimited)? {
                if let (Some(&at_ms), Some(&value)) = (series.timestamps.last(), series.values.last())
                    && !is_stale_nan(value)
                {
                    newest.insert(series.labels, (at_ms, value));
                }
            }
        }
        Ok(write(&newest, &external))
    })
    .await
    .map_err(ApiError::internal)?
    .map_err(|error: pharos_tsdb::ReadError<std::convert::Infallible>| ApiError::internal(error))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

fn write(newest: &BTreeMap<Labels, (i64, f64)>, external: &Labels) -> String {
    let mut out = String::new();
    let mut last_name = "";
    for (labels, (at_ms, value)) in newest {
        let name = labels.metric_name();
        if name != last_name && is_legacy_metric_name(name) {
            let _ = writeln!(out, "# TYPE {name} untyped");
            last_name = name;
        }
        let mut merged = labels.to_builder();
        merged.remove(METRIC_NAME);
        for (label, value) in external.iter() {
            if merged.get(label).is_none() {
                merged.set(label, value);
            }
        }
        let _ = write!(out, "{}", Exposed { name, labels: &merged.build() });
        let _ = writeln!(out, " {} {at_ms}", format_float(*value));
    }
    out
}

struct Exposed<'a> {
    name: &'a str,
    labels: &'a Labels,
}

impl std::fmt::Display for Exposed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bare = is_legacy_metric_name(self.name);
        if bare {
            f.write_str(self.name)?;
        }
        f.write_str("{")?;
        if !bare {
            write!(f, "{}", Quoted(self.name))?;
        }
        for (position, (name, value)) in self.labels.iter().enumerate() {
            if position > 0 || !bare {
                f.write_str(",")?;
            }
            if is_legacy_label_name(name) {
                f.write_str(name)?;
            } else {
                write!(f, "{}", Quoted(name))?;
            }
            write!(f, "=\"")?;
            for c in value.chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' => f.write_str("\\\"")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_str("\"")?;
        }
        // Else the scraper would fill in its own.
        if self.labels.get("instance").is_none() {
            let separator = if self.labels.is_empty() && bare { "" } else { "," };
            write!(f, "{separator}instance=\"\"")?;
        }
        f.write_str("}")
    }
}
