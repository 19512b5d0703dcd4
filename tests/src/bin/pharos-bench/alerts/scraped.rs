//! The same nodes for a server that scrapes: one listener of the benchmark serves all of them, each under a path
//! of its own, with what the node has read last. What flows in is a time, what flows out its exposition.
//!
//! A node breaches when its tick is due, whether or not somebody asks: what a scrape interval costs belongs to the
//! path that is measured.

use super::sender::{layout, values};
use super::{Breaches, lock};
use crate::agents::Pace;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use pharos_tests::data::instance;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// One node.
pub(super) struct Scraped {
    pub(super) pace: Pace,
    pub(super) breach_at: Option<u64>,
}

impl Scraped {
    /// Its last tick that was due by then, or the first if none was.
    fn second(&self, now: Instant) -> u64 {
        let second = now.saturating_duration_since(self.pace.first).as_secs();
        if self.pace.due_at(second) <= now { second } else { second.saturating_sub(1) }
    }

    fn exposition(&self, now: Instant) -> String {
        let series = layout().into_iter().flat_map(|group| group.series);
        let mut text = String::new();
        for (series, value) in series.zip(values(self.second(now), self.breach_at)) {
            let _ = writeln!(text, "{} {value}", series.name);
        }
        text
    }

    /// Lives its ticks, and notes its breach.
    pub(super) async fn live(&self, seconds: u64, breaches: &Breaches) {
        for second in 0..seconds {
            self.pace.due(second).await;
            if self.breach_at == Some(second) {
                lock(breaches).insert(instance(self.pace.node), self.pace.due_at(second));
            }
        }
    }
}

/// Serves the nodes, number `n` at `/nodes/n`, until the runtime ends.
pub(super) async fn serve(listener: std::net::TcpListener, nodes: Arc<Vec<Scraped>>) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let app = Router::new().route("/nodes/{node}", axum::routing::get(answer)).with_state(nodes);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(())
}

async fn answer(
    State(nodes): State<Arc<Vec<Scraped>>>,
    Path(node): Path<usize>,
) -> Result<String, StatusCode> {
    let node = nodes.get(node).ok_or(StatusCode::NOT_FOUND)?;
    Ok(node.exposition(Instant::now()))
}

/// Prometheus' configuration of the nodes at `address`, each scraped so often.
pub(super) fn scrape_config(address: SocketAddr, nodes: usize, interval: &str) -> String {
    let mut text = format!(
        "scrape_configs:\n  - job_name: node\n    scrape_interval: {interval}\n    static_configs:\n"
    );
    for node in 0..nodes {
        let instance = instance(node);
        let _ = writeln!(
            text,
            "      - {{targets: ['{address}'], labels: {{instance: {instance}, __metrics_path__: /nodes/{node}}}}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use std::time::Duration;

    fn node(breach_at: Option<u64>) -> Scraped {
        let progress = Arc::new(Progress::new("ticks", 1));
        Scraped { pace: Pace { node: 3, first: Instant::now(), progress }, breach_at }
    }

    #[test]
    fn a_node_shows_its_last_tick_and_breaches_when_that_is_due() {
        let node = node(Some(7));
        let due = node.pace.due_at(7);
        let temperature = |at: Instant| node.exposition(at).lines().next().unwrap().to_owned();
        assert!(!temperature(due - Duration::from_micros(1)).ends_with(" 95"));
        assert_eq!(temperature(due), "bench_temperature 95");
        assert_eq!(temperature(due + Duration::from_secs(60)), "bench_temperature 95");
        assert_eq!(node.exposition(node.pace.first).lines().count(), 20);
    }

    #[test]
    fn every_node_is_a_target_with_a_path_of_its_own() {
        let config = scrape_config(SocketAddr::from(([127, 0, 0, 1], 80)), 2, "15s");
        assert!(config.contains("scrape_interval: 15s"));
        assert!(config.contains(
            "targets: ['127.0.0.1:80'], labels: {instance: gpu-node-0001, __metrics_path__: /nodes/1}"
        ));
    }
}
