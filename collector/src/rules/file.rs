//! Rule files: Prometheus' YAML in, checked definitions out.
//!
//! Nothing unknown is accepted, every expression and template is parsed, and a fault names file, line,
//! column and key.

use super::alert_state::Holds;
use super::text::RuleText;
use super::threshold::Threshold;
use pharos_common::config::{self, ConfigError};
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::METRIC_NAME;
use pharos_promql::ast::Expr;
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// What holds where a group says nothing.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `evaluation_interval`
    pub interval_ms: i64,
    /// `rule_query_offset`
    pub query_offset_ms: i64,
}

/// A group of rules that are evaluated together, in order.
#[derive(Clone, Debug)]
pub struct GroupDefinition {
    /// The file it is in.
    pub file: PathBuf,
    /// Its name, unique in the file.
    pub name: String,
    /// How often it is evaluated.
    pub interval_ms: i64,
    /// How far back its queries look.
    pub query_offset_ms: i64,
    /// Most results of one rule; 0 for no limit.
    pub limit: usize,
    /// Its rules, in order.
    pub rules: Vec<RuleDefinition>,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct RuleDefinition {
    /// What it makes.
    pub kind: RuleKind,
    /// Its expression.
    pub expr: Expr,
    /// Labels it sets; templates in alerting rules.
    pub labels: Vec<(String, RuleText)>,
    /// All that was written, to tell whether a reload changed it.
    identity: String,
}

/// What a rule makes.
#[derive(Clone, Debug)]
pub enum RuleKind {
    /// Series of this name.
    Record(String),
    /// Alerts.
    Alert {
        /// `alertname`
        name: String,
        /// `for` and `keep_firing_for`
        holds: Holds,
        /// Its annotations.
        annotations: Vec<(String, RuleText)>,
        /// What missing data means.
        on_missing: OnMissing,
    },
}

/// What becomes of an alert whose data is missing: the annotation `pharos_on_missing`. It instructs the
/// collector and is left out of what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnMissing {
    /// It resolves, as in Prometheus.
    #[default]
    Resolve,
    /// It stays as it is, for a day at most.
    Keep,
    /// It fires, for a day at most.
    Fire,
}

/// The annotation that says [`OnMissing`].
pub const ON_MISSING: &str = "pharos_on_missing";

impl RuleDefinition {
    /// The name of the series or alert.
    pub fn name(&self) -> &str {
        match &self.kind {
            RuleKind::Record(name) | RuleKind::Alert { name, .. } => name,
        }
    }

    /// The times of an alerting rule.
    pub fn holds(&self) -> Holds {
        match &self.kind {
            RuleKind::Record(_) => Holds::default(),
            RuleKind::Alert { holds, .. } => *holds,
        }
    }

    /// What missing data means.
    pub fn on_missing(&self) -> OnMissing {
        match self.kind {
            RuleKind::Record(_) => OnMissing::Resolve,
            RuleKind::Alert { on_missing, .. } => on_missing,
        }
    }

    /// Whether two definitions say the same.
    pub fn is_same(&self, other: &RuleDefinition) -> bool {
        self.identity == other.identity
    }

    /// Whether alerts of the other go on as alerts of this one: it has its name and labels, as in Prometheus.
    pub fn continues(&self, other: &RuleDefinition) -> bool {
        let same_kind =
            matches!(self.kind, RuleKind::Alert { .. }) == matches!(other.kind, RuleKind::Alert { .. });
        let labels = |of: &RuleDefinition| -> Vec<(String, String)> {
            of.labels.iter().map(|(name, text)| (name.clone(), text.source().to_owned())).collect()
        };
        same_kind && self.name() == other.name() && labels(self) == labels(other)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    interval: Option<PrometheusDuration>,
    query_offset: Option<PrometheusDuration>,
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    r#for: Option<PrometheusDuration>,
    keep_firing_for: Option<PrometheusDuration>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// Reads the text of a rule file.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn parse(file: &Path, text: &str, defaults: Defaults) -> Result<Vec<GroupDefinition>, ConfigError> {
    let parsed: File = config::parse(file, text)?;
    let mut names = HashSet::new();
    let mut groups = Vec::with_capacity(parsed.groups.len());
    for (index, group) in parsed.groups.into_iter().enumerate() {
        let key = format!("groups[{index}]");
        let fault = |key: String, message: String| ConfigError::new(file, key, message).locate_in(text);
        if group.name.is_empty() {
            return Err(fault(format!("{key}.name"), "groupname must not be empty".to_owned()));
        }
        if !names.insert(group.name.clone()) {
            let message = format!("groupname: \"{}\" is repeated in the same file", group.name);
            return Err(fault(format!("{key}.name"), message));
        }
        groups.push(check_group(file, &key, group, defaults, &fault)?);
    }
    Ok(groups)
}

type Fault<'a> = dyn Fn(String, String) -> ConfigError + 'a;

fn check_group(
    file: &Path,
    key: &str,
    group: Group,
    defaults: Defaults,
    fault: &Fault<'_>,
) -> Result<GroupDefinition, ConfigError> {
    let interval_ms = match group.interval {
        Some(interval) if interval.as_millis() > 0 => interval.as_millis_i64(),
        _ => defaults.interval_ms,
    };
    let mut rules = Vec::with_capacity(group.rules.len());
    for (index, rule) in group.rules.into_iter().enumerate() {
        let name =
            rule.alert.as_ref().or(rule.record.as_ref()).map_or_else(String::new, |n| format!(" {n:?}"));
        let whose = format!("group {:?}, rule {index}{name}", group.name);
        let fault = |key: String, message: String| fault(key, format!("{whose}: {message}"));
        let keys = RuleKeys { group: key, rule: format!("{key}.rules[{index}]") };
        rules.push(check_rule(&keys, rule, &group.labels, &fault)?);
    }
    Ok(GroupDefinition {
        file: file.to_owned(),
        name: group.name,
        interval_ms,
        query_offset_ms: group.query_offset.map_or(defaults.query_offset_ms, |offset| offset.as_millis_i64()),
        limit: group.limit,
        rules,
    })
}

/// Where a rule and its group stand in the file.
struct RuleKeys<'a> {
    group: &'a str,
    rule: String,
}

fn check_rule(
    keys: &RuleKeys<'_>,
    mut rule: Rule,
    group_labels: &BTreeMap<String, String>,
    fault: &Fault<'_>,
) -> Result<RuleDefinition, ConfigError> {
    let identity = format!("{group_labels:?} {rule:?}");
    let key = &keys.rule;
    let at = |part: &str| format!("{key}.{part}");
    if rule.expr.is_empty() {
        return Err(fault(at("expr"), "field 'expr' must be set in rule".to_owned()));
    }
    let expr = pharos_promql::parse(&rule.expr)
        .map_err(|error| fault(at("expr"), format!("could not parse expression: {error}")))?;
    let mut merged = group_labels.clone();
    let own: HashSet<String> = rule.labels.keys().cloned().collect();
    merged.extend(rule.labels);
    let alerting = rule.alert.is_some();
    let labels_of = |name: &str| if own.contains(name) { key } else { keys.group };
    for name in merged.keys() {
        if name.is_empty() || name == METRIC_NAME {
            return Err(fault(
                format!("{}.labels", labels_of(name)),
                format!("invalid label name: {name:?}"),
            ));
        }
    }
    let template = |of: &str, part: &str, (name, text): (String, String)| {
        let text = if alerting { RuleText::template(&text) } else { Ok(RuleText::plain(&text)) };
        text.map(|text| (name.clone(), text)).map_err(|error| {
            fault(format!("{of}.{part}.{name}"), format!("could not parse template: {error}"))
        })
    };
    let labels = merged
        .into_iter()
        .map(|pair| template(labels_of(&pair.0), "labels", pair))
        .collect::<Result<_, _>>()?;
    let kind = match (rule.record, rule.alert) {
        (Some(_), Some(_)) => {
            return Err(fault(at("record"), "only one of 'record' and 'alert' must be set".to_owned()));
        }
        (None, None) => {
            return Err(fault(key.to_owned(), "one of 'record' or 'alert' must be set".to_owned()));
        }
        (Some(record), None) => {
            let forbidden = [
                ("annotations", !rule.annotations.is_empty()),
                ("for", rule.r#for.is_some()),
                ("keep_firing_for", rule.keep_firing_for.is_some()),
            ];
            if let Some((name, _)) = forbidden.iter().find(|(_, is_set)| *is_set) {
                return Err(fault(at(name), format!("invalid field '{name}' in recording rule")));
            }
            if record.is_empty() || record.contains(['{', '}']) {
                return Err(fault(at("record"), format!("invalid recording rule name: {record}")));
            }
            RuleKind::Record(record)
        }
        (None, Some(alert)) => {
            if alert.is_empty() {
                return Err(fault(at("alert"), "the alert has no name".to_owned()));
            }
            let on_missing = on_missing(rule.annotations.remove(ON_MISSING).as_deref(), &expr)
                .map_err(|message| fault(at(&format!("annotations.{ON_MISSING}")), message))?;
            let millis = |duration: Option<PrometheusDuration>| duration.map_or(0, |d| d.as_millis_i64());
            RuleKind::Alert {
                name: alert,
                holds: Holds { hold_ms: millis(rule.r#for), keep_firing_ms: millis(rule.keep_firing_for) },
                annotations: rule
                    .annotations
                    .into_iter()
                    .map(|pair| template(key, "annotations", pair))
                    .collect::<Result<_, _>>()?,
                on_missing,
            }
        }
    };
    Ok(RuleDefinition { kind, expr, labels, identity })
}

fn on_missing(text: Option<&str>, expr: &Expr) -> Result<OnMissing, String> {
    match text {
        None | Some("resolve") => Ok(OnMissing::Resolve),
        Some("keep") => Ok(OnMissing::Keep),
        Some("fire") if Threshold::of(expr).is_some() => Ok(OnMissing::Fire),
        Some("fire") => Err("\"fire\" needs a threshold over plain selectors (x > 90); \
             use absent() or unless for other expressions"
            .to_owned()),
        Some(other) => Err(format!("{other:?} is none of keep, resolve and fire")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Defaults = Defaults { interval_ms: 1_000, query_offset_ms: 0 };

    #[test]
    fn a_rule_file_is_read() {
        let text = r#"
groups:
  - name: host
    interval: 15s
    limit: 10
    labels: {team: infra}
    rules:
      - record: job:up:sum
        expr: sum by (job) (up)
      - alert: Down
        expr: up == 0
        for: 1m
        keep_firing_for: 2m
        labels: {severity: critical}
        annotations:
          summary: '{{ $labels.instance }} is down'
"#;
        let groups = parse(Path::new("r.yml"), text, DEFAULTS).unwrap();
        assert_eq!(groups[0].interval_ms, 15_000);
        assert_eq!(groups[0].limit, 10);
        assert_eq!(groups[0].rules[0].name(), "job:up:sum");
        assert_eq!(groups[0].rules[1].holds().hold_ms, 60_000);
        assert_eq!(groups[0].rules[1].labels.len(), 2);
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        let error = parse(Path::new("r.yml"), text, DEFAULTS).unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
    }

    #[test]
    fn faults_name_file_line_column_and_key() {
        let rule = |line: &str| {
            format!("groups:\n  - name: a\n    rules:\n      - alert: X\n        expr: up\n{line}")
        };
        check(&rule("        fro: 1m\n"), "r.yml:6:9: groups[0].rules[0].fro: ");
        check(&rule("        for: 1\n"), "r.yml:6:14: groups[0].rules[0].for: ");
        check(
            &rule("        annotations:\n          a: '{{ .x'\n"),
            r#"r.yml:7:11: groups[0].rules[0].annotations.a: group "a", rule 0 "X": could not parse template: "#,
        );
        check(
            &rule("        labels:\n          team: '{{ nothing }}'\n"),
            r#"r.yml:7:11: groups[0].rules[0].labels.team: group "a", rule 0 "X": could not parse template: "#,
        );
        check(
            "groups:\n  - name: a\n    labels:\n      team: '{{ .x'\n    rules:\n      - alert: X\n        expr: up\n",
            r#"r.yml:4:7: groups[0].labels.team: group "a", rule 0 "X": could not parse template: "#,
        );
        check(
            &rule("        annotations:\n          pharos_on_missing: ignore\n"),
            r#"r.yml:7:11: groups[0].rules[0].annotations.pharos_on_missing: group "a", rule 0 "X": "ignore" is none of"#,
        );
        check(
            &rule("        annotations:\n          pharos_on_missing: fire\n"),
            r#"r.yml:7:11: groups[0].rules[0].annotations.pharos_on_missing: group "a", rule 0 "X": "fire" needs a threshold"#,
        );
        check(
            "groups:\n  - name: a\n    rules:\n      - alert: X\n        expr: sum(\n",
            r#"r.yml:5:9: groups[0].rules[0].expr: group "a", rule 0 "X": could not parse expression: 1:5: parse error: "#,
        );
        check(
            "groups:\n  - name: a\n    rules:\n      - record: x\n        expr: up\n        for: 1m\n",
            r#"r.yml:6:9: groups[0].rules[0].for: group "a", rule 0 "x": invalid field 'for' in recording rule"#,
        );
        check(
            "groups:\n  - name: a\n  - name: a\n",
            "r.yml:3:5: groups[1].name: groupname: \"a\" is repeated",
        );
        check(
            "groups:\n  - name: a\n    rules:\n      - expr: up\n",
            r#"r.yml:4:9: groups[0].rules[0]: group "a", rule 0: one of"#,
        );
    }
}
