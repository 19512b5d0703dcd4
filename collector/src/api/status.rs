//! `/status/*`: what this program is and how it does.

use super::answer::{Answer, ApiError, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::rules::notify::rfc3339;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The version of Prometheus whose API this is: clients decide by it what they may ask for.
const COMPATIBLE_WITH: &str = "3.14.0";
/// Entries of each list of `/status/tsdb`.
const TOP: usize = 10;
/// How far back `/status/tsdb` counts series.
const COUNTED_MS: i64 = 3_600_000;

/// `/api/v1/status/buildinfo`. It has no `features`: any entry makes Grafana take us for Mimir.
pub(crate) async fn buildinfo(parameters: Parameters) -> Answer {
    let data = json!({
        "version": COMPATIBLE_WITH,
        "revision": concat!("pharos-", env!("CARGO_PKG_VERSION")),
        "branch": "HEAD",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    });
    success(&data, parameters.encoding)
}

/// `/api/v1/status/config`
pub(crate) async fn config(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    success(&json!({"yaml": collector.config.load().text}), parameters.encoding)
}

/// `/api/v1/status/flags`
pub(crate) async fn flags(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let flags: BTreeMap<_, _> = collector.options.as_flags().into_iter().collect();
    success(&flags, parameters.encoding)
}

/// `/api/v1/status/runtimeinfo`
pub(crate) async fn runtimeinfo(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let metrics = &collector.metrics;
    let folder = std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default();
    let data = json!({
        "startTime": rfc3339(collector.started_ms),
        "CWD": folder,
        "hostname": std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim(),
        "serverTime": rfc3339(collector.clock.now_ms()),
        "reloadConfigSuccess": metrics.config_last_reload_successful.get() == 1,
        "lastConfigTime": rfc3339(metrics.config_last_reload_seconds.get() * 1_000),
        "corruptionCount": u64::from(collector.database.stats().damaged_bytes > 0),
        "goroutineCount": 0,
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": 0,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": collector.options.retention_time.to_string(),
    });
    success(&data, parameters.encoding)
}

/// `/api/v1/status/walreplay`: over before the first answer.
pub(crate) async fn walreplay(parameters: Parameters) -> Answer {
    success(&json!({"min": 0, "max": 0, "current": 0, "state": "done"}), parameters.encoding)
}

/// `/api/v1/status/tsdb`
pub(crate) async fn tsdb(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let top = parameters.limit()?.unwrap_or(TOP);
    let database = collector.database.clone();
    let now_ms = collector.clock.now_ms();
    let data = tokio::task::spawn_blocking(move || {
        let stats = database.stats();
        let series = database.series(&[], now_ms - COUNTED_MS, now_ms)?;
        let mut by_metric: BTreeMap<&str, u64> = BTreeMap::new();
        let mut by_pair: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for labels in &series {
            *by_metric.entry(labels.metric_name()).or_default() += 1;
            for (name, value) in labels.iter() {
                *by_pair.entry((name, value)).or_default() += 1;
                values.entry(name).or_default().insert(value);
            }
        }
        let pairs = by_pair.len();
        let bytes = |of: &BTreeSet<&str>| of.iter().map(|value| value.len() as u64).sum::<u64>();
        Ok(json!({
            "headStats": {
                "numSeries": stats.head_series,
                "numLabelPairs": pairs,
                "chunkCount": stats.head_groups,
                "minTime": stats.head_min_ms.unwrap_or(i64::MAX),
                "maxTime": stats.head_max_ms.unwrap_or(i64::MIN),
            },
            "seriesCountByMetricName": largest(by_metric.into_iter().map(|(name, n)| (name.to_owned(), n)), top),
            "labelValueCountByLabelName":
                largest(values.iter().map(|(name, of)| ((*name).to_owned(), of.len() as u64)), top),
            "memoryInBytesByLabelName":
                largest(values.iter().map(|(name, of)| ((*name).to_owned(), bytes(of))), top),
            "seriesCountByLabelValuePair": largest(by_pair.into_iter().map(|((name, value), n)| (format!("{name}={value}"), n)), top),
        }))
    })
    .await
    .map_err(ApiError::internal)?
    .map_err(|error: pharos_tsdb::TsdbError| ApiError::internal(error))?;
    success(&data, parameters.encoding)
}

fn largest(counts: impl Iterator<Item = (String, u64)>, top: usize) -> Vec<Value> {
    let mut counts: Vec<(String, u64)> = counts.collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts
        .into_iter()
        .take(top)
        .map(|(name, value)| {
            Value::Object(Map::from_iter([("name".into(), name.into()), ("value".into(), value.into())]))
        })
        .collect()
}
