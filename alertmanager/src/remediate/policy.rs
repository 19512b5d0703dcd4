//! Remediations as configured.

use crate::alert::{Alert, label_map};
use crate::config::{ActionFile, Fault, LimitsFile, Mode, Otherwise, RemediationFile};
use crate::limits::ACTION_TIME_DEFAULT;
use crate::matchers::Matchers;
use crate::render::{Renderer, Text};
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;
use pharos_common::template::Value;
use std::path::Path;
use std::time::Duration;

/// What to do about which alerts.
#[derive(Debug)]
pub(crate) struct RemediationPolicy {
    pub(crate) name: String,
    matchers: Matchers,
    pub(crate) mode: Mode,
    command: Vec<Argument>,
    pub(crate) timeout: Duration,
    pub(crate) limits: Limits,
    pub(crate) verify: Option<Verify>,
}

#[derive(Debug)]
struct Argument {
    written: String,
    text: Text,
}

/// How much a policy may do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// Between two actions on one target.
    pub(crate) cooldown_ms: i64,
    pub(crate) max_per_hour: Option<u32>,
    pub(crate) max_concurrent: u32,
    pub(crate) max_nodes_percent: Option<f64>,
    /// How many nodes there are; `None` counts those that alerts have named.
    pub(crate) nodes_total: Option<u32>,
    /// The label that names the node.
    pub(crate) node_label: Option<String>,
}

/// How it is found out whether an action helped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verify {
    pub(crate) resolved_within_ms: i64,
    pub(crate) otherwise: Otherwise,
}

/// Labels that name a node, where the policy does not say which one does.
const NODE_LABELS: [&str; 4] = ["node", "instance", "Hostname", "hostname"];

/// Why an action's arguments cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ArgumentError {
    #[error("argument {0}: {1}")]
    Template(usize, String),
    #[error("argument {0} ({1}) is empty for this alert")]
    Empty(usize, String),
    #[error("argument {0} ({1}) became {2:?}, which would be taken for an option")]
    Option(usize, String, String),
    #[error("argument {0} ({1}) holds a NUL byte")]
    Nul(usize, String),
}

impl RemediationPolicy {
    pub(crate) fn build(written: &RemediationFile, key: &str, renderer: &Renderer) -> Result<Self, Fault> {
        if written.name.is_empty() {
            return Err(Fault::new(format!("{key}.name"), "missing name in remediation"));
        }
        if written.matchers.is_empty() {
            return Err(Fault::new(format!("{key}.match"), "a remediation must say which alerts it is for"));
        }
        let exec = exec(&written.action, &format!("{key}.action"))?;
        let place = format!("{key}.action.exec.command");
        let mut command = Vec::new();
        for text in &exec.command {
            let parsed = renderer.text(text).map_err(|error| Fault::new(&place, error))?;
            command.push(Argument { written: text.clone(), text: parsed });
        }
        match command.first() {
            None => return Err(Fault::new(&place, "an empty command")),
            Some(program) if program.written.contains("{{") => {
                return Err(Fault::new(&place, "the program itself must not come from an alert"));
            }
            Some(program) if !Path::new(&program.written).is_absolute() => {
                return Err(Fault::new(&place, "the program must be an absolute path"));
            }
            Some(_) => {}
        }
        Ok(RemediationPolicy {
            name: written.name.clone(),
            matchers: written.matchers.clone(),
            mode: written.mode,
            command,
            timeout: exec.timeout.map_or(ACTION_TIME_DEFAULT, Duration::from),
            limits: limits(&written.limits, &format!("{key}.limits"))?,
            verify: written.verify.as_ref().map(|verify| Verify {
                resolved_within_ms: verify.resolved_within.as_millis_i64(),
                otherwise: verify.otherwise,
            }),
        })
    }

    pub(crate) fn applies_to(&self, labels: &Labels) -> bool {
        self.matchers.matches(labels)
    }

    /// The node that an alert is about.
    pub(crate) fn node_of(&self, labels: &Labels) -> Option<String> {
        let named = |label: &str| labels.get(label).map(str::to_owned);
        match &self.limits.node_label {
            Some(label) => named(label),
            None => NODE_LABELS.iter().find_map(|label| named(label)),
        }
    }

    /// The command for one alert. Every argument stays one argument, whatever the labels hold.
    pub(crate) fn arguments(&self, alert: &Alert, renderer: &Renderer) -> Result<Vec<String>, ArgumentError> {
        let data = Value::object([
            ("Labels", Value::map(label_map(&alert.labels))),
            ("Annotations", Value::map(alert.annotations.clone())),
            ("Fingerprint", Value::from(alert.fingerprint().to_string())),
            ("StartsAt", Value::time_ms(alert.starts_at_ms)),
            ("GeneratorURL", Value::from(alert.generator_url.as_str())),
        ]);
        let mut arguments = Vec::with_capacity(self.command.len());
        for (index, argument) in self.command.iter().enumerate() {
            let written = || argument.written.clone();
            let text = renderer
                .render(&argument.text, &data)
                .map_err(|error| ArgumentError::Template(index, error.to_string()))?;
            if text.is_empty() && !argument.written.is_empty() {
                return Err(ArgumentError::Empty(index, written()));
            }
            if text.starts_with('-') && !argument.written.starts_with('-') {
                return Err(ArgumentError::Option(index, written(), text));
            }
            if text.contains('\0') {
                return Err(ArgumentError::Nul(index, written()));
            }
            arguments.push(text);
        }
        Ok(arguments)
    }
}

fn exec<'a>(action: &'a ActionFile, key: &str) -> Result<&'a crate::config::ExecFile, Fault> {
    const RUNS: &str = "this version runs exec actions only";
    if action.kubernetes.is_some() {
        return Err(Fault::new(
            format!("{key}.kubernetes"),
            format!("kubernetes actions are not in this version: {RUNS}"),
        ));
    }
    if action.webhook.is_some() {
        return Err(Fault::new(
            format!("{key}.webhook"),
            format!("webhook actions are not in this version: {RUNS}"),
        ));
    }
    action.exec.as_ref().ok_or_else(|| Fault::new(key, format!("an action is missing: {RUNS}")))
}

fn limits(written: &LimitsFile, key: &str) -> Result<Limits, Fault> {
    if written.max_concurrent == Some(0) {
        return Err(Fault::new(format!("{key}.max_concurrent"), "must be at least 1"));
    }
    if written.max_nodes_percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
        return Err(Fault::new(format!("{key}.max_nodes_percent"), "must be from 0 to 100"));
    }
    if written.nodes_total == Some(0) {
        return Err(Fault::new(format!("{key}.nodes_total"), "must be at least 1"));
    }
    Ok(Limits {
        cooldown_ms: written.cooldown.map_or(0, PrometheusDuration::as_millis_i64),
        max_per_hour: written.max_per_hour,
        max_concurrent: written.max_concurrent.unwrap_or(1),
        max_nodes_percent: written.max_nodes_percent,
        nodes_total: written.nodes_total,
        node_label: written.node_label.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::clock::ManualClock;

    fn policy(command: &str) -> Result<RemediationPolicy, Fault> {
        let yaml = format!("name: r\nmatch: ['a=\"b\"']\naction: {{exec: {{command: {command}}}}}\n");
        let written = pharos_common::config::parse(Path::new("r.yml"), &yaml).unwrap();
        RemediationPolicy::build(
            &written,
            "remediations[0]",
            &Renderer::new(String::new(), ManualClock::new(0)),
        )
    }

    #[track_caller]
    fn arguments(command: &str, node: &str) -> Result<Vec<String>, ArgumentError> {
        let alert = Alert {
            labels: Labels::from_pairs([("node", node)]),
            annotations: Default::default(),
            starts_at_ms: 0,
            ends_at_ms: 0,
            updated_at_ms: 0,
            timeout: false,
            generator_url: String::new(),
        };
        let renderer = Renderer::new(String::new(), ManualClock::new(0));
        policy(command).unwrap().arguments(&alert, &renderer)
    }

    #[test]
    fn whatever_a_label_holds_it_stays_one_argument() {
        let command = "['/bin/fix', '--node={{ .Labels.node }}', '{{ .Labels.node }}']";
        assert_eq!(
            arguments(command, "n 1; rm -rf /").unwrap()[1..],
            ["--node=n 1; rm -rf /", "n 1; rm -rf /"]
        );
        assert!(matches!(arguments(command, "--force"), Err(ArgumentError::Option(2, ..))));
        assert!(matches!(arguments(command, ""), Err(ArgumentError::Empty(2, _))));
    }

    #[test]
    fn a_command_that_alerts_could_choose_is_refused() {
        for command in ["[]", "['{{ .Labels.node }}']", "['fix']", "['/bin/fix', '{{ nope }}']"] {
            assert!(policy(command).is_err(), "{command}");
        }
    }
}
