//! `/rules`, `/alerts` and `/alertmanagers`.

use super::answer::{Answer, ApiError, success};
use super::parameters::Parameters;
use crate::collector::Collector;
use crate::rules::alert_state::{Alert, Phase};
use crate::rules::context::RuleContext;
use crate::rules::file::RuleKind;
use crate::rules::notify::rfc3339;
use crate::rules::rule::{Group, Rule, RuleState};
use axum::extract::State;
use pharos_common::matcher::Matcher;
use pharos_promql::format_exponent;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Which rules are wanted.
struct Filter<'a> {
    kind: Option<&'a str>,
    names: Vec<&'a str>,
    groups: Vec<&'a str>,
    files: Vec<&'a str>,
    selectors: Vec<Vec<Matcher>>,
    with_alerts: bool,
}

impl<'a> Filter<'a> {
    fn of(parameters: &'a Parameters) -> Result<Self, ApiError> {
        parameters.insist_on_all()?;
        let kind = parameters.get("type").map(str::trim);
        if kind.is_some_and(|kind| !matches!(kind, "alert" | "record")) {
            return Err(ApiError::parameter("type", format!("not supported value {:?}", kind.unwrap_or(""))));
        }
        Ok(Filter {
            kind,
            names: parameters.all("rule_name[]").collect(),
            groups: parameters.all("rule_group[]").collect(),
            files: parameters.all("file[]").collect(),
            selectors: super::series::selectors(parameters)?,
            with_alerts: !matches!(parameters.get("exclude_alerts"), Some("true" | "1")),
        })
    }

    fn wants_group(&self, group: &Group) -> bool {
        let file = group.file.to_string_lossy();
        (self.groups.is_empty() || self.groups.contains(&group.name.as_str()))
            && (self.files.is_empty() || self.files.contains(&file.as_ref()))
    }

    fn wants(&self, rule: &Rule) -> bool {
        let kind = match rule.definition.kind {
            RuleKind::Alert { .. } => "alert",
            RuleKind::Record(_) => "record",
        };
        let label = |matcher: &Matcher| {
            let value = rule.definition.labels.iter().find(|(name, _)| name == matcher.name());
            matcher.matches(value.map_or("", |(_, text)| text.source()))
        };
        self.kind.is_none_or(|wanted| wanted == kind)
            && (self.names.is_empty() || self.names.contains(&rule.definition.name()))
            && (self.selectors.is_empty() || self.selectors.iter().any(|matchers| matchers.iter().all(label)))
    }
}

/// `/api/v1/rules`
pub(crate) async fn rules(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let filter = Filter::of(&parameters)?;
    let (loaded, context) = (collector.rules.groups(), collector.rules.context());
    let mut groups = Vec::new();
    let limit = match parameters.get("group_limit").map(str::parse::<usize>) {
        None => usize::MAX,
        Some(Ok(limit)) if limit > 0 => limit,
        Some(_) => {
            return Err(ApiError::parameter("group_limit", "group_limit needs to be a positive integer"));
        }
    };
    let mut skipping = parameters.get("group_next_token").map(str::to_owned);
    let mut next_token = None;
    for group in loaded.iter().filter(|group| filter.wants_group(group)) {
        let token = format!("{};{}", group.file.display(), group.name);
        if skipping.as_ref().is_some_and(|from| *from != token) {
            continue;
        }
        skipping = None;
        let rules: Vec<Value> = group
            .rules
            .iter()
            .filter(|rule| filter.wants(rule))
            .map(|rule| rule_json(rule, &filter, context))
            .collect();
        if rules.is_empty() && !group.rules.is_empty() {
            continue;
        }
        if groups.len() == limit {
            next_token = Some(token);
            break;
        }
        let (evaluated_ms, took) = group.timing();
        // A group whose rules are all judged on arrival was evaluated when the last of them was.
        let judged_ms = group.rules.iter().filter_map(|rule| rule.state().last_evaluation_ms).max();
        let evaluated_ms = evaluated_ms.max(judged_ms);
        groups.push(json!({
            "name": group.name,
            "file": group.file.to_string_lossy(),
            "rules": rules,
            "interval": group.interval_ms as f64 / 1e3,
            "limit": group.limit,
            "evaluationTime": took.as_secs_f64(),
            "lastEvaluation": evaluated(evaluated_ms),
        }));
    }
    let mut data = json!({"groups": groups});
    if let Some(token) = next_token {
        data["groupNextToken"] = token.into();
    }
    success(&data, parameters.encoding)
}

/// When something was last evaluated; Go's zero time if never.
fn evaluated(at_ms: Option<i64>) -> String {
    at_ms.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339)
}

fn rule_json(rule: &Rule, filter: &Filter<'_>, context: &RuleContext) -> Value {
    let mut state = rule.state();
    rule.refresh_texts(context, &mut state);
    let labels: Map<String, Value> =
        rule.definition.labels.iter().map(|(name, text)| (name.clone(), text.source().into())).collect();
    let mut json = json!({
        "name": rule.definition.name(),
        "query": rule.definition.expr.query(),
        "labels": labels,
        "health": state.health.as_str(),
        "evaluationTime": state.evaluation_time.as_secs_f64(),
        "lastEvaluation": evaluated(state.last_evaluation_ms),
        "type": "recording",
    });
    if !state.last_error.is_empty() {
        json["lastError"] = state.last_error.as_str().into();
    }
    if let RuleKind::Alert { holds, annotations, .. } = &rule.definition.kind {
        let annotations: Map<String, Value> =
            annotations.iter().map(|(name, text)| (name.clone(), text.source().into())).collect();
        json["type"] = "alerting".into();
        json["state"] = rule_state(&state).into();
        json["duration"] = (holds.hold_ms as f64 / 1e3).into();
        json["keepFiringFor"] = (holds.keep_firing_ms as f64 / 1e3).into();
        json["annotations"] = annotations.into();
        json["alerts"] = if filter.with_alerts {
            sorted(&state).into_iter().map(alert_json).collect::<Vec<_>>().into()
        } else {
            Value::Array(Vec::new())
        };
    }
    json
}

/// What the rule's alerts amount to.
pub(crate) fn rule_state(state: &RuleState) -> &'static str {
    let phases = || state.alerts.active().map(|alert| alert.phase);
    if phases().any(|phase| phase == Phase::Firing) {
        "firing"
    } else if phases().next().is_some() {
        "pending"
    } else {
        "inactive"
    }
}

fn sorted(state: &RuleState) -> Vec<&Alert> {
    let mut alerts: Vec<&Alert> = state.alerts.active().collect();
    alerts.sort_by(|a, b| a.labels.cmp(&b.labels));
    alerts
}

fn alert_json(alert: &Alert) -> Value {
    let annotations: Map<String, Value> =
        alert.annotations.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
    let mut json = json!({
        "labels": alert.labels,
        "annotations": annotations,
        "state": alert.phase.as_str(),
        "activeAt": rfc3339(alert.active_at_ms),
        "value": format_exponent(alert.value),
    });
    if let Some(since_ms) = alert.keep_firing_since_ms {
        json["keepFiringSince"] = rfc3339(since_ms).into();
    }
    json
}

/// `/api/v1/alerts`
pub(crate) async fn alerts(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let groups = collector.rules.groups();
    let alerts: Vec<Value> = groups
        .iter()
        .flat_map(|group| &group.rules)
        .flat_map(|rule| {
            let mut state = rule.state();
            rule.refresh_texts(collector.rules.context(), &mut state);
            sorted(&state).into_iter().map(alert_json).collect::<Vec<_>>()
        })
        .collect();
    success(&json!({"alerts": alerts}), parameters.encoding)
}

/// `/api/v1/alertmanagers`
pub(crate) async fn alertmanagers(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    let active: Vec<Value> = collector
        .rules
        .context()
        .notifier
        .urls()
        .iter()
        .map(|url| json!({"url": format!("{}/api/v2/alerts", url.trim_end_matches('/'))}))
        .collect();
    success(&json!({"activeAlertmanagers": active, "droppedAlertmanagers": []}), parameters.encoding)
}
