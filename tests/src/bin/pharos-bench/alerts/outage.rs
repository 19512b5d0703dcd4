//! What a kill costs, part by part: the server's end, its start, the nodes' way back, and from there to the
//! notice.
//!
//! A breach counts as one of the outage if its node had no server at some time between the breach and its
//! notice: also when it was sent before the kill and not notified by then. Its clock starts when its sample is
//! due, whether or not there is somebody to hand it to.

use super::{Breaches, Notices};
use crate::server::Restart;
use pharos_tests::data::instance;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Breaches of so long after a kill are told apart.
const AFTER_KILL: Duration = Duration::from_secs(5);

/// One node's way back to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Return {
    pub(super) node: usize,
    /// When it saw that its connection was gone.
    pub(super) lost: Instant,
    /// When the server had taken its connection, and when it was welcomed and had sent what it owed.
    pub(super) connected: Instant,
    pub(super) welcomed: Instant,
    pub(super) sent: Instant,
}

/// Everybody's.
pub(super) type Returns = Arc<Mutex<Vec<Return>>>;

/// The report's part about kills.
pub(super) fn report(
    restarts: &[Restart],
    returns: &Returns,
    breaches: &Breaches,
    notices: &Notices,
) -> Value {
    let returns = returns.lock().unwrap_or_else(PoisonError::into_inner);
    let breaches = breaches.lock().unwrap_or_else(PoisonError::into_inner);
    let notices = notices.lock().unwrap_or_else(PoisonError::into_inner);
    let mut since_kill = Parts::default();
    let (mut ended, mut ready, mut listening) = (Vec::new(), Vec::new(), Vec::new());
    let (mut notified, mut sent_to_notified) = (Vec::new(), Vec::new());
    for (number, restart) in restarts.iter().enumerate() {
        let next = restarts.get(number + 1).map(|next| next.killed);
        let of_this = |way: &&Return| way.lost >= restart.killed && next.is_none_or(|next| way.lost < next);
        ended.push(millis(restart.killed, restart.gone));
        ready.push(millis(restart.killed, restart.ready));
        let first = returns.iter().filter(of_this).map(|way| way.connected).min();
        listening.extend(first.map(|first| millis(restart.killed, first)));
        for way in returns.iter().filter(of_this) {
            since_kill.lost.push(millis(restart.killed, way.lost));
            since_kill.connected.push(millis(restart.killed, way.connected));
            since_kill.welcomed.push(millis(restart.killed, way.welcomed));
            let name = instance(way.node);
            let Some(written) = breaches.get(&name) else { continue };
            let Some(notice) = notices.get(&name).and_then(|notices| notices.first()) else { continue };
            if *written < way.welcomed && *notice > restart.killed {
                notified.push(millis(*written, *notice));
                sent_to_notified.push(millis(way.sent, *notice));
            }
        }
    }
    json!({
        "kills": restarts.len(),
        "breaches": notified.len(),
        "notified_ms": spread(notified),
        "since_kill_ms": {
            "server_ended": spread(ended),
            "server_listens": spread(listening),
            "server_ready": spread(ready),
            "node_knows": spread(since_kill.lost),
            "node_connected": spread(since_kill.connected),
            "node_welcomed": spread(since_kill.welcomed),
        },
        "sent_to_notified_ms": spread(sent_to_notified),
    })
}

/// Of any server, also one without streams: the breaches of the first seconds after a kill, which are as many
/// whoever is killed.
pub(super) fn after_kills(
    restarts: &[Restart],
    breaches: &HashMap<String, Instant>,
    notices: &HashMap<String, Vec<Instant>>,
) -> Value {
    let meets = |written: Instant, restart: &Restart| {
        written >= restart.killed && written < restart.killed + AFTER_KILL
    };
    let hit: Vec<(&String, &Instant)> = breaches
        .iter()
        .filter(|(_, written)| restarts.iter().any(|restart| meets(**written, restart)))
        .collect();
    let notified =
        |(node, written): &(&String, &Instant)| Some(millis(**written, *notices.get(*node)?.first()?));
    let mut result = spread(hit.iter().filter_map(notified).collect());
    result["breaches"] = hit.len().into();
    let ready = restarts.iter().map(|restart| millis(restart.killed, restart.ready)).collect();
    result["server_ready_ms"] = spread(ready);
    result
}

#[derive(Default)]
struct Parts {
    lost: Vec<f64>,
    connected: Vec<f64>,
    welcomed: Vec<f64>,
}

fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1_000.0
}

fn spread(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = ((times.len().max(1) - 1) as f64 * share).round() as usize;
        times.get(index).map(|time| (time * 10.0).round() / 10.0)
    };
    json!({"p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaches_of_the_seconds_after_a_kill_are_told_apart_and_one_without_notice_counts() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let restarts = [Restart { killed: at(1_000), gone: at(1_010), ready: at(1_200) }];
        let named = |name: &str, ms: u64| (name.to_owned(), at(ms));
        let breaches = [named("before", 900), named("a", 1_000), named("b", 5_999), named("late", 6_000)];
        let notices = [("a".to_owned(), vec![at(1_300), at(1_400)]), ("before".to_owned(), vec![at(1_250)])];
        let after = after_kills(&restarts, &breaches.into(), &notices.into());
        assert_eq!((&after["breaches"], &after["max"]), (&json!(2), &json!(300.0)));
        assert_eq!(after["server_ready_ms"]["max"], json!(200.0));
    }
}
