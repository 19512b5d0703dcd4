//! Escalations as configured.

use crate::config::{EscalationFile, Fault, StopOn};
use crate::matchers::Matchers;
use crate::notify::Receiver;
use pharos_common::duration::PrometheusDuration;
use pharos_common::labels::Labels;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Whom to tell of which alerts, after how long.
#[derive(Clone, Debug)]
pub(crate) struct EscalationPolicy {
    pub(crate) name: String,
    matchers: Matchers,
    pub(crate) tiers: Vec<Tier>,
    stop_on: Vec<StopOn>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tier {
    pub(crate) receiver: String,
    /// Counted from the alert's arrival.
    pub(crate) after_ms: i64,
    /// How often it is told again while it is the highest one reached.
    pub(crate) repeat_ms: Option<i64>,
}

/// Steps of one ladder.
const TIERS_MAX: usize = 32;

impl EscalationPolicy {
    pub(crate) fn build(
        written: &EscalationFile,
        key: &str,
        receivers: &BTreeMap<String, Arc<Receiver>>,
    ) -> Result<Self, Fault> {
        if written.name.is_empty() {
            return Err(Fault::new(format!("{key}.name"), "missing name in escalation"));
        }
        if written.tiers.is_empty() || written.tiers.len() > TIERS_MAX {
            return Err(Fault::new(
                format!("{key}.tiers"),
                format!("an escalation has 1 to {TIERS_MAX} tiers"),
            ));
        }
        let mut tiers: Vec<Tier> = Vec::new();
        for (index, tier) in written.tiers.iter().enumerate() {
            let key = format!("{key}.tiers[{index}]");
            if !receivers.contains_key(&tier.receiver) {
                let message = format!("undefined receiver {:?} used in escalation", tier.receiver);
                return Err(Fault::new(format!("{key}.receiver"), message));
            }
            let after_ms = tier.after.as_millis_i64();
            if tiers.last().is_some_and(|before| after_ms < before.after_ms) {
                return Err(Fault::new(format!("{key}.after"), "a tier cannot come before the one above it"));
            }
            if tier.repeat.is_some_and(|repeat| repeat < PrometheusDuration::from_secs(1)) {
                return Err(Fault::new(format!("{key}.repeat"), "repeat must be at least 1s"));
            }
            let repeat_ms = tier.repeat.map(PrometheusDuration::as_millis_i64);
            tiers.push(Tier { receiver: tier.receiver.clone(), after_ms, repeat_ms });
        }
        let all = || vec![StopOn::Acknowledged, StopOn::Resolved, StopOn::Silenced];
        Ok(EscalationPolicy {
            name: written.name.clone(),
            matchers: written.matchers.clone(),
            tiers,
            stop_on: written.stop_on.clone().unwrap_or_else(all),
        })
    }

    /// Whether it applies to an alert.
    pub(crate) fn applies_to(&self, labels: &Labels) -> bool {
        self.matchers.matches(labels)
    }

    pub(crate) fn stops_on(&self, what: StopOn) -> bool {
        self.stop_on.contains(&what)
    }
}
