//! Inhibition: while one alert fires, others that follow from it are not told.

use crate::alert::{Alert, Fingerprint};
use crate::alert_store::AlertStore;
use crate::matchers::Matchers;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct InhibitRule {
    pub(crate) source: Matchers,
    pub(crate) target: Matchers,
    pub(crate) equal: Vec<String>,
}

impl InhibitRule {
    /// The values that source and target must share. A label that both lack counts as shared.
    fn shared(&self, labels: &Labels) -> Vec<String> {
        self.equal.iter().map(|name| labels.get(name).unwrap_or("").to_owned()).collect()
    }
}

/// The rules with an index of the alerts that may be sources.
#[derive(Debug, Default)]
pub(crate) struct Inhibitor {
    rules: Arc<[InhibitRule]>,
    /// For each rule: alerts that match its source side, by shared values.
    sources: Vec<HashMap<Vec<String>, BTreeSet<Fingerprint>>>,
}

impl Inhibitor {
    pub(crate) fn new(rules: Arc<[InhibitRule]>) -> Self {
        let sources = rules.iter().map(|_| HashMap::new()).collect();
        Inhibitor { rules, sources }
    }

    /// An alert became known.
    pub(crate) fn add(&mut self, alert: &Alert) {
        for (rule, sources) in self.rules.iter().zip(&mut self.sources) {
            if rule.source.matches(&alert.labels) {
                sources.entry(rule.shared(&alert.labels)).or_default().insert(alert.fingerprint());
            }
        }
    }

    /// An alert is forgotten.
    pub(crate) fn remove(&mut self, alert: &Alert) {
        for (rule, sources) in self.rules.iter().zip(&mut self.sources) {
            let shared = rule.shared(&alert.labels);
            if let Some(fingerprints) = sources.get_mut(&shared) {
                fingerprints.remove(&alert.fingerprint());
                if fingerprints.is_empty() {
                    sources.remove(&shared);
                }
            }
        }
    }

    /// The alerts that keep one from being told: the first source of the first rule, as Alertmanager
    /// names it.
    pub(crate) fn inhibiting(
        &self,
        labels: &Labels,
        alerts: &AlertStore,
        now_ms: TimestampMs,
    ) -> Option<Fingerprint> {
        self.rules.iter().zip(&self.sources).find_map(|(rule, sources)| {
            if !rule.target.matches(labels) {
                return None;
            }
            // An alert that matches both sides is not inhibited by others that do: they would silence
            // each other.
            let two_sided = rule.source.matches(labels);
            sources.get(&rule.shared(labels))?.iter().copied().find(|&fingerprint| {
                alerts.get(fingerprint).is_some_and(|source| {
                    let excluded = two_sided && rule.target.matches(&source.labels);
                    !source.is_resolved_at(now_ms) && !excluded
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matchers::parse;

    fn alert(pairs: &[(&str, &str)], ends_at_ms: i64) -> Alert {
        Alert {
            labels: Labels::from_pairs(pairs.iter().copied()),
            annotations: Default::default(),
            starts_at_ms: 0,
            ends_at_ms,
            updated_at_ms: 0,
            timeout: false,
            generator_url: String::new(),
        }
    }

    #[test]
    fn a_dead_node_keeps_its_gpus_quiet() {
        let rule = InhibitRule {
            source: Matchers::new(parse("alertname=NodeDown").unwrap()),
            target: Matchers::new(parse("severity=~\"warning|critical\"").unwrap()),
            equal: vec!["node".to_owned()],
        };
        let mut inhibitor = Inhibitor::new(Arc::new([rule]));
        let mut store = AlertStore::default();
        let source = alert(&[("alertname", "NodeDown"), ("node", "n1"), ("severity", "critical")], 100);
        inhibitor.add(&source);
        store.put(source.clone(), 0);
        let check = |pairs: &[(&str, &str)], now: i64, want: bool| {
            let found = inhibitor.inhibiting(&Labels::from_pairs(pairs.iter().copied()), &store, now);
            assert_eq!(found.is_some(), want, "{pairs:?} at {now}");
        };
        check(&[("alertname", "GpuHot"), ("node", "n1"), ("severity", "warning")], 50, true);
        check(&[("alertname", "GpuHot"), ("node", "n2"), ("severity", "warning")], 50, false);
        check(&[("alertname", "GpuHot"), ("node", "n1"), ("severity", "info")], 50, false);
        check(&[("alertname", "GpuHot"), ("node", "n1"), ("severity", "warning")], 100, false);
        // It does not inhibit itself.
        check(&[("alertname", "NodeDown"), ("node", "n1"), ("severity", "critical")], 50, false);
        inhibitor.remove(&source);
        assert!(inhibitor.sources[0].is_empty());
    }
}
