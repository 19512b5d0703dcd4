//! Rules, alerts and nodes as tables.

use super::html::{escape, page};
use crate::api::json::format_value;
use crate::api::rules::rule_state;
use crate::collector::Collector;
use crate::rules::file::RuleKind;
use axum::extract::State;
use axum::response::Html;
use pharos_common::duration::PrometheusDuration;
use pharos_common::sample::TimestampMs;
use std::fmt::Write;
use std::sync::Arc;

fn ago(now_ms: TimestampMs, at_ms: TimestampMs) -> String {
    let seconds = u64::try_from((now_ms - at_ms) / 1_000).unwrap_or(0);
    PrometheusDuration::from_secs(seconds).to_string()
}

fn query_link(query: &str) -> String {
    let link = crate::rules::text::link(query, 0).replace("g0.expr", "query");
    format!("<a href=\"{}\"><code>{}</code></a>", escape(&link), escape(query))
}

/// `/alerts`
pub(crate) async fn alerts(State(collector): State<Arc<Collector>>) -> Html<String> {
    let now_ms = collector.clock.now_ms();
    let mut rows = String::new();
    for rule in collector.rules.groups().iter().flat_map(|group| &group.rules) {
        let state = rule.state();
        for alert in state.alerts.active() {
            let summary = alert
                .annotations
                .iter()
                .find(|(name, _)| name == "summary")
                .map_or("", |(_, text)| text.as_str());
            let _ = write!(
                rows,
                "<tr><td class={0}>{0}<td>{1}<td><code>{2}</code><td>{3}<td class=number>{4}<td>{5}",
                alert.phase.as_str(),
                escape(rule.definition.name()),
                escape(&alert.labels.to_string()),
                ago(now_ms, alert.active_at_ms),
                format_value(alert.value),
                escape(summary),
            );
        }
    }
    let body = if rows.is_empty() {
        "<h2>Alerts</h2><p class=up>Nothing is wrong that a rule knows of.</p>".to_owned()
    } else {
        format!(
            "<h2>Alerts</h2><table><tr><th>State<th>Alert<th>Labels<th>For<th>Value<th>Summary{rows}</table>"
        )
    };
    Html(page("Alerts", &body))
}

/// `/rules`
pub(crate) async fn rules(State(collector): State<Arc<Collector>>) -> Html<String> {
    let mut body = String::from("<h2>Rules</h2>");
    for group in collector.rules.groups().iter() {
        let interval = PrometheusDuration::from_millis(group.interval_ms.unsigned_abs());
        let _ = write!(
            body,
            "<h3>{}</h3><p class=remark>{}, every {interval}</p>\
             <table><tr><th>Rule<th>Expression<th>Judged<th>For<th>State<th>Health",
            escape(&group.name),
            escape(&group.file.to_string_lossy()),
        );
        for rule in &group.rules {
            let state = rule.state();
            let (hold, phase) = match &rule.definition.kind {
                RuleKind::Record(_) => (String::new(), "recording"),
                RuleKind::Alert { holds, .. } => (
                    PrometheusDuration::from_millis(holds.hold_ms.unsigned_abs()).to_string(),
                    rule_state(&state),
                ),
            };
            let judged = if rule.threshold.is_some() { "on arrival" } else { "on the interval" };
            let _ = write!(
                body,
                "<tr><td>{}<td>{}<td>{judged}<td>{hold}<td class={phase}>{phase}<td class={}>{}",
                escape(rule.definition.name()),
                query_link(rule.definition.expr.query()),
                state.health.as_str(),
                if state.last_error.is_empty() {
                    state.health.as_str().into()
                } else {
                    escape(&state.last_error)
                },
            );
        }
        body += "</table>";
    }
    Html(page("Rules", &body))
}

/// `/targets`
pub(crate) async fn targets(State(collector): State<Arc<Collector>>) -> Html<String> {
    let now = collector.clock.monotonic();
    let nodes = collector.coverage.nodes();
    let mut body = String::from("<h2>Nodes</h2>");
    if nodes.is_empty() {
        body += "<p>No agent has reported yet. Start one with <code>pharos-agent \
                 --collector.address=http://THIS-HOST:9490</code>.</p>";
    } else {
        body += "<table><tr><th>Node<th>State<th>Last reading<th>Series<th>Agent";
        for (name, node) in nodes {
            let last = node.arrived.map_or_else(
                || "not since the start".to_owned(),
                |arrived| format!("{:.1} s ago", now.saturating_sub(arrived).as_secs_f64()),
            );
            let state = if node.up { "up" } else { "down" };
            let _ = write!(
                body,
                "<tr><td>{}<td class={state}>{state}<td>{last}<td>{}<td>{}",
                query_link(&format!("{{instance={}}}", pharos_common::labels::Quoted(&name))),
                node.series,
                escape(&node.version),
            );
        }
        body += "</table>";
    }
    Html(page("Nodes", &body))
}
