//! Whether a remediation may act now. Pure: the records, the time and the number of nodes are arguments.

use super::policy::Limits;
use super::record::{Remediation, RemediationState};
use pharos_common::sample::TimestampMs;
use std::collections::BTreeSet;

const HOUR_MS: i64 = 3_600_000;

/// What the guard says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Go,
    /// Another action of the policy runs; this one waits its turn.
    Wait,
    /// A limit forbids it.
    Refuse(Refusal),
}

/// Which limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "cooldown: the last action on {target} was {ago_seconds} s ago, and there must be {cooldown_seconds} s between two"
    )]
    Cooldown { target: String, ago_seconds: i64, cooldown_seconds: i64 },
    #[error("max_per_hour: {0} actions in the last hour")]
    PerHour(u32),
    #[error("max_nodes_percent: {nodes} nodes in the last hour of {total} known, at most {allowed} allowed")]
    Nodes { nodes: usize, total: u32, allowed: usize },
    #[error("max_nodes_percent: the alert names no node")]
    NoNode,
}

impl Refusal {
    /// As the metric label.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Refusal::Cooldown { .. } => "cooldown",
            Refusal::PerHour(_) => "max_per_hour",
            Refusal::Nodes { .. } | Refusal::NoNode => "max_nodes_percent",
        }
    }
}

/// Judges `candidate` against what its policy has done.
pub(crate) fn judge<'a>(
    limits: &Limits,
    candidate: &Remediation,
    records: impl Iterator<Item = &'a Remediation>,
    nodes_known: u32,
    now_ms: TimestampMs,
) -> Verdict {
    let others: Vec<&Remediation> = records
        .filter(|record| record.policy == candidate.policy && record.id != candidate.id)
        .filter(|record| record.acted_at_ms.is_some())
        .collect();
    let target = candidate.target();
    let last = others
        .iter()
        .filter(|record| record.target() == target)
        .filter_map(|record| record.acted_at_ms)
        .max();
    if let Some(ago) = last.map(|last| now_ms - last).filter(|ago| *ago < limits.cooldown_ms) {
        return Verdict::Refuse(Refusal::Cooldown {
            target,
            ago_seconds: ago / 1_000,
            cooldown_seconds: limits.cooldown_ms / 1_000,
        });
    }
    let recent: Vec<&&Remediation> = others
        .iter()
        .filter(|record| record.acted_at_ms.is_some_and(|acted| acted > now_ms - HOUR_MS))
        .collect();
    if let Some(most) = limits.max_per_hour.filter(|most| recent.len() >= *most as usize) {
        return Verdict::Refuse(Refusal::PerHour(most));
    }
    if let Some(percent) = limits.max_nodes_percent {
        let Some(node) = &candidate.node else { return Verdict::Refuse(Refusal::NoNode) };
        let mut nodes: BTreeSet<&str> = recent.iter().filter_map(|record| record.node.as_deref()).collect();
        nodes.insert(node);
        let total = limits.nodes_total.unwrap_or(nodes_known);
        // One node may always be helped, or a small cluster never could.
        let allowed = ((f64::from(total) * percent / 100.0).floor() as usize).max(1);
        if nodes.len() > allowed {
            return Verdict::Refuse(Refusal::Nodes { nodes: nodes.len(), total, allowed });
        }
    }
    let running = others.iter().filter(|record| record.state == RemediationState::Running).count();
    if running >= limits.max_concurrent as usize { Verdict::Wait } else { Verdict::Go }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Alert;
    use crate::config::Mode;
    use pharos_common::labels::Labels;

    fn record(id: &str, node: &str, state: RemediationState, acted_at_ms: Option<i64>) -> Remediation {
        let alert = Alert {
            labels: Labels::from_pairs([("alertname", "A"), ("node", node)]),
            annotations: Default::default(),
            starts_at_ms: 0,
            ends_at_ms: 0,
            updated_at_ms: 0,
            timeout: false,
            generator_url: String::new(),
        };
        Remediation {
            id: id.to_owned(),
            policy: "p".to_owned(),
            mode: Mode::Auto,
            alert,
            node: Some(node.to_owned()),
            state,
            reason: None,
            created_at_ms: 0,
            updated_at_ms: 0,
            decided_by: None,
            comment: None,
            arguments: Vec::new(),
            acted_at_ms,
            outcome: None,
            verify_until_ms: None,
            in_doubt: false,
        }
    }

    fn limits() -> Limits {
        Limits {
            cooldown_ms: 600_000,
            max_per_hour: Some(2),
            max_concurrent: 1,
            max_nodes_percent: Some(20.0),
            nodes_total: Some(10),
            node_label: None,
        }
    }

    #[test]
    fn each_limit_refuses_with_its_reason_and_only_concurrency_waits() {
        use RemediationState::{Running, Succeeded, Waiting};
        #[track_caller]
        fn check(limits: &Limits, done: &[Remediation], want: &str) {
            let candidate = record("new", "n1", Waiting, None);
            let verdict = judge(limits, &candidate, done.iter(), 0, 4_000_000);
            let got = match &verdict {
                Verdict::Go => "go",
                Verdict::Wait => "wait",
                Verdict::Refuse(refusal) => refusal.as_str(),
            };
            assert_eq!(got, want, "{verdict:?}");
        }
        let done = |node: &str, at: i64| record(&format!("{node}{at}"), node, Succeeded, Some(at));
        check(&limits(), &[], "go");
        check(&limits(), &[done("n1", 3_500_000)], "cooldown");
        check(&limits(), &[done("n1", 3_300_000)], "go");
        check(&limits(), &[done("n1", 3_300_000), done("n1", 2_000_000)], "max_per_hour");
        check(&limits(), &[done("n1", 3_300_000), done("n1", 100_000)], "go");
        check(&limits(), &[record("r", "n2", Running, Some(3_900_000))], "wait");
        let wide = Limits { max_per_hour: None, ..limits() };
        check(&wide, &[done("n2", 3_000_000)], "go");
        check(&wide, &[done("n2", 3_000_000), done("n3", 3_000_000)], "max_nodes_percent");
        let unknown = Limits { nodes_total: None, ..wide };
        check(&unknown, &[], "go");
        check(&unknown, &[done("n2", 3_000_000)], "max_nodes_percent");
    }
}
