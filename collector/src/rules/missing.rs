//! Which alerts of an interval rule are not found any more because their data is missing.
//!
//! Asked only for rules that keep such alerts, and only when one would resolve. The data of an alert is
//! missing when a selector of the rule had series with the labels that raised it while it was active, and
//! has none now.

use super::alert_state::{Alert, Breach, Phase};
use super::context::RuleContext;
use super::file::OnMissing;
use super::rule::Rule;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::Matcher;
use pharos_common::sample::{TimestampMs, is_stale_nan};
use pharos_tsdb::{Database, Unlimited};
use std::collections::HashSet;

/// How far back a series counts as having been there.
const LOOKED_BACK_MS_MAX: i64 = 24 * 3_600_000;

/// Alerts looked at in one evaluation; the others wait for the next, as they are.
const ALERTS_LOOKED_AT_MAX: usize = 1_000;

/// The labels of active alerts that are not in `found` and whose data is missing at `at_ms`.
pub(super) async fn alerts_without_data(
    context: &RuleContext,
    rule: &Rule,
    found: &[Breach],
    at_ms: TimestampMs,
) -> HashSet<Labels> {
    if rule.definition.on_missing() != OnMissing::Keep {
        return HashSet::new();
    }
    let present: HashSet<&Labels> = found.iter().map(|breach| &breach.labels).collect();
    let gone: Vec<Alert> = {
        let state = rule.state();
        let gone = state.alerts.active().filter(|alert| !present.contains(&alert.labels));
        gone.cloned().collect()
    };
    if gone.is_empty() {
        return HashSet::new();
    }
    let selectors: Vec<Vec<Matcher>> =
        rule.definition.expr.selectors().map(|selector| selector.matchers.clone()).collect();
    let (database, lookback_ms) = (context.database().clone(), context.lookback_ms());
    let looked_at = tokio::task::spawn_blocking(move || {
        let mut missing = HashSet::new();
        for (index, alert) in gone.into_iter().enumerate() {
            let known = index < ALERTS_LOOKED_AT_MAX && alert.phase != Phase::Resolved;
            if !known || is_without_data(&database, &selectors, &alert, at_ms, lookback_ms) {
                missing.insert(alert.labels);
            }
        }
        missing
    });
    looked_at.await.unwrap_or_default()
}

fn is_without_data(
    database: &Database,
    selectors: &[Vec<Matcher>],
    alert: &Alert,
    at_ms: TimestampMs,
    lookback_ms: i64,
) -> bool {
    selectors.iter().any(|matchers| {
        // The name is one selector's; the others are looked for by what they share.
        let shared = alert.found.iter().filter(|(name, _)| *name != METRIC_NAME);
        let own = shared.map(|(name, value)| Matcher::equal(name, value));
        let matchers: Vec<Matcher> = matchers.iter().cloned().chain(own).collect();
        let live = database
            .select_newest(&matchers, at_ms - lookback_ms + 1, at_ms, &Unlimited)
            .is_ok_and(|series| series.iter().any(|s| s.values.last().is_some_and(|v| !is_stale_nan(*v))));
        let since_ms = (alert.active_at_ms - lookback_ms).max(at_ms - LOOKED_BACK_MS_MAX);
        !live && database.series(&matchers, since_ms, at_ms).is_ok_and(|series| !series.is_empty())
    })
}
