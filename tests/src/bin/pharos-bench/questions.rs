//! What dashboards and rules ask, over the series of `telemetry`. `$w` is the window: a minute over minutes
//! of data, five over a day.

use crate::server::Kind;

/// One question.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) name: &'static str,
    query: &'static str,
    /// A peer whose values differ though it is right by its own rules, and why.
    differs: Option<(Kind, &'static str)>,
}

impl Question {
    /// The query with its window put in.
    pub(crate) fn query(&self, window: &str) -> String {
        self.query.replace("$w", window)
    }

    /// Why this peer's values may differ, if that is known.
    pub(crate) fn why(&self, peer: Kind) -> Option<&'static str> {
        self.differs.filter(|(kind, _)| *kind == peer).map(|(_, why)| why)
    }
}

type Differs = Option<(Kind, &'static str)>;

const RATE: Differs = Some((
    Kind::VictoriaMetrics,
    "its rate and increase take the sample before the window and do not extrapolate",
));
const EDGE: Differs = Some((
    Kind::Prometheus,
    "version 2 takes the sample on the left edge of a window; only subqueries have samples there",
));

const fn ask(name: &'static str, query: &'static str) -> Question {
    Question { name, query, differs: None }
}

const fn differing(name: &'static str, query: &'static str, differs: Differs) -> Question {
    Question { name, query, differs }
}

/// All questions; each is asked at an instant and over a range.
pub(crate) const QUESTIONS: [Question; 25] = [
    ask("single", r#"node_load1{instance="gpu-node-0001"}"#),
    ask("one_node", r#"{instance="gpu-node-0001",__name__=~"DCGM_FI_DEV_.*",gpu="3"}"#),
    ask("one_metric", "DCGM_FI_DEV_GPU_UTIL"),
    ask("sum_by_instance", "sum by (instance) (DCGM_FI_DEV_POWER_USAGE)"),
    ask("regex_instance", r#"sum(DCGM_FI_DEV_POWER_USAGE{instance=~"gpu-node-00[0-4].*"})"#),
    differing(
        "rate_single",
        r#"rate(node_network_field0_total{instance="gpu-node-0001",device="eth0"}[$w])"#,
        RATE,
    ),
    differing("rate_all_cores", "sum by (mode) (rate(node_cpu_seconds_total[$w]))", RATE),
    differing(
        "cpu_busy",
        r#"100 * (1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$w])))"#,
        RATE,
    ),
    differing("increase", "sum(increase(DCGM_FI_DEV_ECC_SBE_VOL_TOTAL[$w]))", RATE),
    ask("avg_over_time", "avg(avg_over_time(DCGM_FI_DEV_GPU_UTIL[$w]))"),
    ask("max_over_time", "max by (gpu) (max_over_time(DCGM_FI_DEV_GPU_TEMP[5m]))"),
    ask("quantile_over_time", "max(quantile_over_time(0.9, DCGM_FI_DEV_POWER_USAGE[$w]))"),
    ask("topk", "topk(5, DCGM_FI_DEV_POWER_USAGE)"),
    ask("quantile", "quantile(0.95, DCGM_FI_DEV_POWER_USAGE)"),
    differing(
        "histogram_quantile",
        "histogram_quantile(0.99, sum by (le) (rate(request_duration_seconds_bucket[$w])))",
        RATE,
    ),
    ask("join_one", "sum by (instance) (DCGM_FI_DEV_POWER_USAGE) / on (instance) node_load5"),
    ask("join_many", "DCGM_FI_DEV_GPU_UTIL * on (instance) group_left () node_load1"),
    ask("regex_name", r#"count({__name__=~"node_disk_field1.*_total"})"#),
    ask("absent", r#"absent(node_nothing{job="node"})"#),
    ask("absent_found", "absent(node_load1)"),
    differing("subquery", "max_over_time(sum(DCGM_FI_DEV_POWER_USAGE)[5m:15s])", EDGE),
    ask("threshold", "DCGM_FI_DEV_GPU_TEMP > 66"),
    ask("idle_but_full", "DCGM_FI_DEV_GPU_UTIL < 50 and on (instance, gpu) DCGM_FI_DEV_FB_USED > 60000"),
    ask("offset", "sum(DCGM_FI_DEV_POWER_USAGE) - sum(DCGM_FI_DEV_POWER_USAGE offset $w)"),
    ask("count_all", r#"count({__name__=~".+"})"#),
];
