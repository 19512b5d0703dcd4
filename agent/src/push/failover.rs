//! Which collector gets the frames: all addresses are tried, none waits for one that hangs, the one that
//! took frames last goes first, and the preferred one gets them back once it answers again.
//!
//! Addresses flow in, in the order of preference; a connection that stands flows out. Each address has a
//! back-off of its own, so one that is down does not delay the others either.

use super::backoff::{Backoff, spread};
use super::connection::{Connection, Connector};
use super::error::PushError;
use crate::own_metrics::OwnMetrics;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Time that an address has before the next one is tried beside it.
const HEAD_START: Duration = Duration::from_secs(1);

/// The addresses and how they fared.
#[derive(Debug)]
pub(super) struct Failover {
    collectors: Vec<Collector>,
    /// Where the next search begins.
    first: usize,
}

#[derive(Debug)]
struct Collector {
    address: String,
    backoff: Backoff,
    /// Time to wait before the next attempt.
    pause: Duration,
    /// Whether it has made a frame durable on this connection.
    took_frames: bool,
    /// How often it has said Welcome since it made a frame durable.
    welcomes: u32,
    /// Why it failed last, as the log was told.
    told: String,
}

impl Failover {
    pub(super) fn new(addresses: Vec<String>) -> Self {
        let collector = |address| Collector {
            address,
            backoff: Backoff::default(),
            pause: Duration::ZERO,
            took_frames: false,
            welcomes: 0,
            told: String::new(),
        };
        Failover { collectors: addresses.into_iter().map(collector).collect(), first: 0 }
    }

    /// Connects to whichever answers first; its place among the addresses. Waits as long as it takes.
    pub(super) async fn connect(
        &mut self,
        connector: &Connector,
        metrics: &OwnMetrics,
    ) -> (usize, Connection) {
        let count = self.collectors.len();
        let mut attempts = JoinSet::new();
        let mut waiting: VecDeque<usize> = VecDeque::new();
        let head_start = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(head_start);
        loop {
            if attempts.is_empty() && waiting.is_empty() {
                if count == 0 {
                    std::future::pending::<()>().await;
                }
                waiting.extend((0..count).map(|behind| (self.first + behind) % count));
                head_start.as_mut().reset(Instant::now());
            }
            tokio::select! {
                () = &mut head_start, if !waiting.is_empty() => {
                    if let Some(at) = waiting.pop_front() {
                        self.attempt(at, connector, &mut attempts);
                    }
                    head_start.as_mut().reset(Instant::now() + HEAD_START);
                }
                Some(joined) = attempts.join_next(), if !attempts.is_empty() => match joined {
                    // The other attempts end with their set.
                    Ok((at, Ok(connection))) => return (at, connection),
                    Ok((at, Err(error))) => {
                        self.failed(at, &error, metrics);
                        self.attempt(at, connector, &mut attempts);
                        head_start.as_mut().reset(Instant::now());
                    }
                    Err(error) => tracing::error!(%error, "An attempt to connect broke off"),
                }
            }
        }
    }

    fn attempt(
        &mut self,
        at: usize,
        connector: &Connector,
        attempts: &mut JoinSet<(usize, Result<Connection, PushError>)>,
    ) {
        let Some(collector) = self.collectors.get_mut(at) else { return };
        let (connector, address) = (connector.clone(), collector.address.clone());
        let pause = std::mem::take(&mut collector.pause);
        attempts.spawn(async move {
            tokio::time::sleep(pause).await;
            (at, connector.connect(&address).await)
        });
    }

    /// An attempt or a connection failed: the next one waits a little.
    fn failed(&mut self, at: usize, error: &PushError, metrics: &OwnMetrics) {
        metrics.connection_failures.inc();
        let others_work =
            self.collectors.iter().enumerate().any(|(other, of)| other != at && of.backoff.failures() == 0);
        let Some(Collector { address, backoff, pause, told, .. }) = self.collectors.get_mut(at) else {
            return;
        };
        let reason = error.to_string();
        if backoff.failures() == 0 || backoff.failures().is_power_of_two() || *told != reason {
            *told = reason;
            if others_work {
                tracing::warn!(collector = address, %error, "A collector takes no frames");
            } else {
                tracing::warn!(collector = address, %error, "No collector takes frames; the journal keeps them");
            }
        }
        *pause = if error.is_answer() { backoff.next_long_pause() } else { backoff.next_pause() };
    }

    /// A connection stands. One who only greets and takes no frames is no news each time he does.
    pub(super) fn connected(&mut self, at: usize, version: &str) {
        let Some(Collector { address, welcomes, .. }) = self.collectors.get_mut(at) else { return };
        *welcomes = welcomes.saturating_add(1);
        if *welcomes == 1 {
            tracing::info!(collector = address, version, "Connected to the collector");
        } else {
            tracing::debug!(collector = address, version, "Connected to the collector again");
        }
    }

    /// A collector has made a frame durable.
    pub(super) fn took_frames(&mut self, at: usize) {
        if let Some(collector) = self.collectors.get_mut(at) {
            if std::mem::take(&mut collector.welcomes) > 1 {
                tracing::info!(collector = collector.address, "The collector takes frames again");
            }
            collector.took_frames = true;
            collector.backoff.reset();
        }
    }

    /// A connection broke. The next search begins at its collector if that took frames, and behind it if
    /// it only said that it would.
    pub(super) fn ended(&mut self, at: usize, error: &PushError, metrics: &OwnMetrics) {
        self.failed(at, error, metrics);
        let took_frames =
            self.collectors.get_mut(at).is_some_and(|collector| std::mem::take(&mut collector.took_frames));
        self.first = if took_frames { at } else { at + 1 } % self.collectors.len().max(1);
    }

    /// Addresses that are preferred to the one at a place.
    pub(super) fn preferred_to(&self, at: usize) -> Vec<String> {
        self.collectors.iter().take(at).map(|collector| collector.address.clone()).collect()
    }
}

/// Asks the preferred collectors now and then, until one of them answers; its place, and the connection.
/// Without any it never returns.
pub(super) async fn until_preferred(
    connector: Connector,
    addresses: Vec<String>,
    interval: Duration,
) -> (usize, Connection) {
    if addresses.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        // Ten thousand agents do not return in the same moment.
        tokio::time::sleep(interval.mul_f64(0.5 + spread())).await;
        for (at, address) in addresses.iter().enumerate() {
            match connector.connect(address).await {
                Ok(connection) => return (at, connection),
                Err(error) => tracing::debug!(collector = address, %error, "It does not answer yet"),
            }
        }
    }
}
