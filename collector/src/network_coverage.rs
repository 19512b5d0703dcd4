//! How much of the network traffic is on interfaces that are watched: `pharos_network_coverage_ratio`.
//!
//! Bytes of all nodes on watched interfaces over those on all, both directions, over the last minute. It
//! falls when traffic moves to where no rule looks.

use crate::ingest::series_writer::{LoneSample, SeriesWriter};
use crate::queries::Queries;
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::shutdown::Shutdown;
use pharos_promql::Value;
use pharos_tsdb::{Metadata, MetricKind};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// The series.
pub const NETWORK_COVERAGE: &str = "pharos_network_coverage_ratio";

/// How often it is worked out: it reads a minute of every interface.
const EVERY: Duration = Duration::from_secs(30);

/// Which interfaces count how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkInterfaces {
    /// Pattern of those whose traffic counts and is not watched.
    pub unwatched: String,
    /// Pattern of those whose traffic does not count.
    pub ignored: String,
}

impl Default for NetworkInterfaces {
    fn default() -> Self {
        NetworkInterfaces {
            // What the shipped rules leave out.
            unwatched: "veth.*|cali.*|lxc.*|cilium.*|docker.*|br-.*|cni.*|flannel.*|tap.*|tun.*".to_owned(),
            ignored: "lo".to_owned(),
        }
    }
}

impl NetworkInterfaces {
    /// Whether both are patterns; otherwise which is not, and why.
    ///
    /// # Errors
    /// The key and what the pattern compiler says.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, pattern) in [("unwatched", &self.unwatched), ("ignored", &self.ignored)] {
            Matcher::new("device", MatchOp::Regex, pattern).map_err(|error| (key, error.to_string()))?;
        }
        Ok(())
    }

    fn query(&self) -> String {
        let sum = |left_out: &[&str]| {
            let matchers: Vec<String> =
                left_out.iter().map(|pattern| format!("device!~{pattern:?}")).collect();
            let matchers = matchers.join(",");
            format!(
                "(sum(rate(node_network_receive_bytes_total{{{matchers}}}[1m])) \
                 + sum(rate(node_network_transmit_bytes_total{{{matchers}}}[1m])))"
            )
        };
        format!("{} / {}", sum(&[&self.ignored, &self.unwatched]), sum(&[&self.ignored]))
    }
}

/// Writes the series until shutdown.
pub(crate) async fn run(
    queries: Queries,
    writer: SeriesWriter,
    clock: SharedClock,
    interfaces: Arc<ArcSwap<NetworkInterfaces>>,
    shutdown: Shutdown,
) {
    let help = "Share of the nodes' network traffic that is on watched interfaces".to_owned();
    let metadata = Metadata { kind: MetricKind::Gauge, unit: "ratio".to_owned(), help };
    writer.database().set_metadata(NETWORK_COVERAGE, metadata);
    loop {
        tokio::select! {
            () = clock.sleep(EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let now_ms = clock.now_ms();
        let query = interfaces.load().query();
        let expr = match pharos_promql::parse(&query) {
            Ok(expr) => expr,
            Err(error) => {
                tracing::error!(%error, query, "Network coverage cannot be asked for");
                continue;
            }
        };
        let ratio = match queries.run_rule(expr, now_ms).await {
            Ok(result) => match result.value {
                Value::Vector(vector) => vector.first().and_then(|sample| sample.value.as_float()),
                _ => None,
            },
            Err(error) => {
                tracing::warn!(%error, "Network coverage is not known");
                None
            }
        };
        // No node tells of its interfaces, or no byte moved.
        let Some(value) = ratio.filter(|ratio| ratio.is_finite()) else { continue };
        let labels = Labels::from_pairs([(METRIC_NAME, NETWORK_COVERAGE)]);
        let sample = LoneSample { labels, timestamp_ms: now_ms, value };
        if let Err(error) = writer.write(&[sample]).await {
            tracing::warn!(%error, "Network coverage cannot be stored");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_can_be_parsed_whatever_the_patterns() {
        assert!(pharos_promql::parse(&NetworkInterfaces::default().query()).is_ok());
        let odd = NetworkInterfaces { unwatched: "eth\\d+\"".to_owned(), ignored: String::new() };
        assert!(odd.check().is_ok());
        assert!(pharos_promql::parse(&odd.query()).is_ok(), "{}", odd.query());
        let broken = NetworkInterfaces { ignored: "(".to_owned(), ..NetworkInterfaces::default() };
        assert_eq!(broken.check().unwrap_err().0, "ignored");
    }
}
