//! `/status/*`: what this program is and how it does.

use super::answer::{Answer, ApiError, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::rules::notify::rfc3339;
use axum::extract::State;
use axum::http::StatusCode;
use pharos_tsdb::BlockInfo;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The version of Prometheus whose API this is: clients decide by it what they may ask for.
const COMPATIBLE_WITH: &str = "3.14.0";
/// Entries of each list of `/status/tsdb`.
const TOP: usize = 10;
/// The label that tells who sent a series.
const SENDER_LABEL: &str = "instance";

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

/// `/api/v1/status/tsdb/blocks`
pub(crate) async fn blocks(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let block = |block: BlockInfo| {
        json!({
            "ulid": block.name,
            "minTime": block.oldest_ms,
            // Prometheus' blocks end before this time.
            "maxTime": block.newest_ms.saturating_add(1),
            "version": block.version,
            "stats": {"numBytes": block.bytes},
        })
    };
    let blocks: Vec<Value> = collector.database.block_infos().into_iter().map(block).collect();
    success(&json!({ "blocks": blocks }), parameters.encoding)
}

/// `/api/v1/notifications`: what whoever looks at this server should know.
pub(crate) async fn notifications(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let mut found = Vec::new();
    let mut tell = |text: String| {
        found.push(json!({"text": text, "date": rfc3339(collector.clock.now_ms()), "active": true}));
    };
    if collector.metrics.config_last_reload_successful.get() != 1 {
        tell("Configuration reload has failed.".to_owned());
    }
    if let Some(reason) = collector.readiness.reason() {
        tell(format!("Pharos is not ready: {reason}"));
    }
    if collector.database.stats().damaged_bytes > 0 {
        tell("Parts of the storage are damaged and were left out; see the log.".to_owned());
    }
    success(&found, parameters.encoding)
}

/// `/api/v1/notifications/live`: as Prometheus says it when it takes no more listeners.
pub(crate) async fn live_notifications() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// `/api/v1/status/walreplay`: over before the first answer.
pub(crate) async fn walreplay(parameters: Parameters) -> Answer {
    success(&json!({"min": 0, "max": 0, "current": 0, "state": "done"}), parameters.encoding)
}

/// `/api/v1/status/tsdb`
pub(crate) async fn tsdb(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let top = parameters.limit()?.unwrap_or(TOP);
    let database = collector.database.clone();
    let data = tokio::task::spawn_blocking(move || {
        let stats = database.stats();
        let found = database.statistics(top, SENDER_LABEL);
        json!({
            "headStats": {
                "numSeries": found.series,
                "numLabelPairs": found.label_pairs,
                "chunkCount": stats.head_groups,
                "minTime": stats.head_min_ms.unwrap_or(i64::MAX),
                "maxTime": stats.head_max_ms.unwrap_or(i64::MIN),
            },
            "seriesCountByMetricName": listed(found.series_by_metric),
            "labelValueCountByLabelName": listed(found.values_by_label),
            "memoryInBytesByLabelName": listed(found.value_bytes_by_label),
            "seriesCountByLabelValuePair": listed(found.series_by_pair),
            "seriesCountBySender": listed(found.series_by_value),
            "storage": {
                "headIndexBytes": stats.head_index_bytes,
                "headSampleBytes": stats.head_sample_bytes,
                "journalBytes": stats.journal_bytes,
                "blocks": stats.blocks,
                "blockBytes": stats.block_bytes,
            },
            "seriesRefused": found.refused,
            "seriesRefusedBySender": listed(found.refused_by_culprit),
        })
    })
    .await
    .map_err(ApiError::internal)?;
    success(&data, parameters.encoding)
}

fn listed(ranking: Vec<(String, u64)>) -> Vec<Value> {
    ranking.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}
