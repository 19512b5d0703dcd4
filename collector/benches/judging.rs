//! What judging threshold rules costs: CPU seconds per second of samples of 1,000 nodes at 1 s.
//!
//! `cargo bench -p pharos-collector --bench judging`. The judge runs alone in this thread, so its thread's
//! CPU time is the cost; storing samples is not in it. Rules: 500 metrics with 20 bounds each, so that
//! every sample is judged by 20 rules: 10,000 rules x 1,000 nodes, ten million judgements a second.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints, and ends at a fault")]

#[path = "../tests/support/rig.rs"]
mod rig;

use pharos_collector::rules::file::{Defaults, parse};
use pharos_collector::rules::watch::{Arrived, ArrivedRow, GroupInterest};
use pharos_common::labels::Labels;
use pharos_tsdb::CommitNumber;
use rig::Rig;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

const NODES: usize = 1_000;
const METRICS: usize = 500;
const BOUNDS: usize = 20;
/// Columns of a group, as agents send them.
const COLUMNS: usize = 250;
const START_MS: i64 = 1_700_000_000_000;

/// CPU time of this thread, seconds.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

struct Load {
    rig: Rig,
    /// By node, its groups.
    nodes: Vec<Vec<Arc<GroupInterest>>>,
    now_ms: i64,
}

impl Load {
    fn new(rules: &str, metrics: usize) -> Self {
        let defaults = Defaults { interval_ms: 1_000, query_offset_ms: 0 };
        let rig = Rig::new(parse(Path::new("bench.yml"), rules, defaults).unwrap(), START_MS);
        let nodes = (0..NODES)
            .map(|node| {
                let labels = |metric: usize| {
                    let (name, instance) = (format!("metric_{metric:03}"), format!("node-{node:04}"));
                    Labels::from_pairs([("__name__", name), ("instance", instance), ("gpu", "0".to_owned())])
                };
                let columns: Vec<Labels> = (0..metrics).map(labels).collect();
                columns.chunks(COLUMNS).filter_map(|group| rig.watch.interest(group).1).collect()
            })
            .collect();
        Load { rig, nodes, now_ms: START_MS }
    }

    /// One second: a tick of every node. Gives the judge's CPU time.
    fn second(&mut self, value: impl Fn(usize, usize) -> f64) -> f64 {
        self.now_ms += 1_000;
        let mut ticks = Vec::with_capacity(NODES);
        for (node, groups) in self.nodes.iter().enumerate() {
            let mut tick = Arrived {
                rows: Vec::new(),
                values: Vec::new(),
                at: Instant::now(),
                commit: CommitNumber::default(),
            };
            let mut metric = 0;
            for group in groups {
                let first_value = tick.values.len();
                tick.rows.push(ArrivedRow {
                    interest: Arc::clone(group),
                    timestamp_ms: self.now_ms,
                    first_value,
                });
                for _ in group.columns.iter() {
                    tick.values.push(value(node, metric));
                    metric += 1;
                }
            }
            ticks.push(tick);
        }
        let before = cpu_seconds();
        self.rig.advance_to(self.now_ms);
        for tick in &ticks {
            self.rig.judge.take(tick);
        }
        self.rig.judge.refresh((self.now_ms / 1_000) % 5 == 0);
        cpu_seconds() - before
    }

    fn run(&mut self, name: &str, seconds: u32, value: impl Fn(usize, usize, u32) -> f64) {
        self.second(|node, metric| value(node, metric, 0));
        let mut total = 0.0;
        for second in 1..=seconds {
            total += self.second(|node, metric| value(node, metric, second));
        }
        let alerts: usize = self
            .rig
            .groups
            .iter()
            .flat_map(|group| &group.rules)
            .map(|rule| rule.state().alerts.active_count())
            .sum();
        println!("{name:<62} {:.4} CPU s per s   {alerts} alerts active", total / f64::from(seconds));
    }
}

fn rules(mut rule: impl FnMut(usize, usize) -> String, metrics: usize, bounds: usize) -> String {
    let mut text = "groups:\n  - name: bench\n    rules:\n".to_owned();
    for metric in 0..metrics {
        for bound in 0..bounds {
            let _ = write!(
                text,
                "      - alert: A{metric}x{bound}\n        expr: '{}'\n        labels: {{severity: warning}}\n        annotations: {{summary: '{{{{ $labels.instance }}}} is at {{{{ $value }}}}'}}\n",
                rule(metric, bound)
            );
        }
    }
    text
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let single = rules(|metric, bound| format!("metric_{metric:03} > {}", 100 + bound), METRICS, BOUNDS);
    let noise = |node: usize, metric: usize, second: u32| {
        ((node * 31 + metric * 17 + second as usize * 7) % 80) as f64
    };
    let mut load = Load::new(&single, METRICS);
    load.run("10,000 rules x 1,000 nodes, 500,000 samples/s, none breaches", 10, noise);
    load.run("the same, 1 sample in 1,000 comes near and goes", 10, |node, metric, second| {
        let near = (node + metric + second as usize).is_multiple_of(1_000);
        if near { 95.0 } else { noise(node, metric, second) }
    });
    load.run("the same, 10,000 alerts active with changing values", 10, |node, metric, second| {
        if metric == 0 && node < 500 { 200.0 + f64::from(second) } else { noise(node, metric, second) }
    });
    drop(load);
    let joint = rules(
        |metric, bound| {
            format!("metric_{metric:03} > {} and metric_{:03} > 50", 100 + bound, (metric + 1) % 50)
        },
        50,
        2,
    );
    let mut load = Load::new(&joint, 50);
    load.run("100 rules over two selectors x 1,000 nodes, none breaches", 10, noise);
}
