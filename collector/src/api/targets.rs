//! `/targets`: the nodes whose agents push here, in the shape of Prometheus' targets.

use super::answer::{Answer, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::rules::notify::rfc3339;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// The pool that agents count as.
const POOL: &str = "pharos-agents";

/// `/api/v1/targets`
pub(crate) async fn targets(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let wants_active = parameters.get("state").is_none_or(|state| matches!(state, "active" | "any"));
    let wants_pool = parameters.get("scrapePool").is_none_or(|pool| pool == POOL);
    let (now, now_ms) = (collector.clock.monotonic(), collector.clock.now_ms());
    let mut active = Vec::new();
    if wants_active && wants_pool {
        for (name, node) in collector.coverage.nodes() {
            let silent = node.arrived.map(|arrived| now.saturating_sub(arrived));
            let reported = silent.map(|silent| rfc3339(now_ms - silent.as_millis() as i64));
            let last_error = match silent {
                _ if node.up => String::new(),
                Some(silent) => format!("the agent has been silent for {} s", silent.as_secs()),
                None => "the agent has not reported since the collector started".to_owned(),
            };
            active.push(json!({
                "discoveredLabels": {"__address__": name, "version": node.version},
                "labels": {"instance": name},
                "scrapePool": POOL,
                "scrapeUrl": "",
                "globalUrl": "",
                "lastError": last_error,
                "lastScrape": reported.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
                "lastScrapeDuration": 0.0,
                "health": if node.up { "up" } else { "down" },
                "scrapeInterval": "1s",
                "scrapeTimeout": "1s",
            }));
        }
    }
    let none: [Value; 0] = [];
    let data = json!({"activeTargets": active, "droppedTargets": none, "droppedTargetCounts": {}});
    success(&data, parameters.encoding)
}

/// `/api/v1/scrape_pools`
pub(crate) async fn pools(parameters: Parameters) -> Answer {
    success(&json!({"scrapePools": [POOL]}), parameters.encoding)
}
