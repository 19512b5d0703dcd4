//! Drives the judge: samples, deadlines and new rules, one at a time.

use super::judge::{Judge, ThresholdTable};
use super::watch::{Arrived, WatchedSelector};
use crate::limits::JUDGED_AHEAD_MS_MAX;
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::shutdown::Shutdown;
use pharos_tsdb::{Database, Unlimited};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// How often alerts are looked at that are due to be sent again.
const RESEND_LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while some found no room at the alertmanagers.
const CROWDED_LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the series of alerts are written again: well within the lookback of queries.
const SERIES_EVERY: Duration = Duration::from_secs(5);
/// How often series that went silent are forgotten.
const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Other rules to judge by.
pub(crate) struct Load {
    pub(crate) table: ThresholdTable,
    /// What they watch.
    pub(crate) selectors: Vec<WatchedSelector>,
    /// Told when they are in force.
    pub(crate) done: oneshot::Sender<()>,
}

/// Reads the newest stored samples of what rules watch.
pub(crate) struct StoredNewest {
    pub(crate) database: Database,
    pub(crate) lookback_ms: i64,
}

impl StoredNewest {
    async fn read(
        &self,
        selectors: Vec<WatchedSelector>,
        now_ms: TimestampMs,
    ) -> Vec<(Labels, TimestampMs, f64)> {
        let database = self.database.clone();
        let (start_ms, end_ms) = (now_ms - self.lookback_ms, now_ms + JUDGED_AHEAD_MS_MAX);
        let read = tokio::task::spawn_blocking(move || {
            let mut newest = Vec::new();
            for selector in selectors {
                match database.select_newest(&selector.matchers, start_ms, end_ms, &Unlimited) {
                    Ok(selected) => newest.extend(selected.into_iter().filter_map(|series| {
                        Some((series.labels, *series.timestamps.last()?, *series.values.last()?))
                    })),
                    Err(error) => tracing::warn!(%error, "Newest samples of a rule cannot be read"),
                }
            }
            newest
        });
        read.await.unwrap_or_default()
    }
}

/// Runs until shutdown.
pub(crate) async fn run(
    mut judge: Judge,
    stored: StoredNewest,
    clock: SharedClock,
    mut arrivals: mpsc::Receiver<Arrived>,
    mut loads: mpsc::Receiver<Load>,
    shutdown: Shutdown,
) {
    let mut next_look = clock.monotonic() + RESEND_LOOK_EVERY;
    let (mut next_series, mut next_purge) =
        (clock.monotonic() + SERIES_EVERY, clock.monotonic() + PURGE_EVERY);
    loop {
        if judge.is_crowded() {
            next_look = next_look.min(clock.monotonic() + CROWDED_LOOK_EVERY);
        }
        let deadline = judge.next_deadline_ms();
        let until_deadline = async {
            match deadline {
                Some(at_ms) => {
                    let wait_ms = u64::try_from(at_ms - clock.now_ms()).unwrap_or(0);
                    clock.sleep(Duration::from_millis(wait_ms)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(load) = loads.recv() => {
                let newest = stored.read(load.selectors, clock.now_ms()).await;
                judge.load(load.table, newest);
                let _ = load.done.send(());
            }
            () = until_deadline => judge.deadline(),
            () = clock.sleep_until(next_look) => {
                let now = clock.monotonic();
                next_look = now + RESEND_LOOK_EVERY;
                judge.refresh(now >= next_series);
                if now >= next_series {
                    next_series = now + SERIES_EVERY;
                }
                if now >= next_purge {
                    judge.purge();
                    next_purge = now + PURGE_EVERY;
                }
            }
            Some(arrived) = arrivals.recv() => judge.take(&arrived),
        }
    }
}
