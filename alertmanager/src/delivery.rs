//! Sending one notice: journalled before, retried until its deadline, audited after.
//!
//! Every delivery is a task of its own, so that a service that hangs delays nobody else. Delivery is at
//! least once: only a request in flight at a kill can be sent twice, and then under the same key.

use crate::alert::Fingerprint;
use crate::engine::{Engine, TierKey};
use crate::limits::{RETRY_PAUSE_FACTOR, RETRY_PAUSE_FIRST, RETRY_PAUSE_MAX};
use crate::notification_log::{LogEntry, NotifyKey};
use crate::notify::notice::{Notice, NoticeKind};
use crate::notify::{Integration, NotifyError, Receipt};
use crate::route::RouteId;
use crate::stages::Reason;
use crate::state::Kind;
use pharos_common::labels::Labels;
use pharos_common::shutdown::Shutdown;
use std::sync::Arc;
use std::time::Duration;

/// One notice on its way to one integration.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) origin: Origin,
    pub(crate) receiver: String,
    pub(crate) integration: Arc<Integration>,
    pub(crate) notice: Notice,
    /// For how long it is retried.
    pub(crate) time_max_ms: i64,
}

/// Who asked for it, and what is to be written down once it is delivered.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A group of a route.
    Route { place: (RouteId, Labels), key: NotifyKey, entry: LogEntry },
    /// A tier of an escalation.
    Tier { key: TierKey, round: u32, kind: NoticeKind },
    /// An acknowledgement.
    Acknowledge { fingerprint: Fingerprint },
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Delivered(Receipt),
    GivenUp(String),
    /// The program ends; nothing is known.
    Interrupted,
}

/// How long to wait before the attempt after `attempts` have failed.
pub(crate) fn pause_after(attempts: u32, asked: Option<Duration>) -> Duration {
    let factor = RETRY_PAUSE_FACTOR.powi(attempts.saturating_sub(1).min(64) as i32);
    let pause = RETRY_PAUSE_FIRST.mul_f64(factor.min(1_000.0)).min(RETRY_PAUSE_MAX);
    pause.max(asked.unwrap_or_default())
}

/// Delivers and reports back to the engine.
pub(crate) async fn run(engine: Arc<Engine>, delivery: Delivery, shutdown: Shutdown) {
    let integration = &delivery.integration;
    let labels = [integration.kind, delivery.receiver.as_str()];
    engine.metrics.notifications.with_label_values(&labels).inc();
    engine.metrics.in_flight.inc();
    let outbox_key =
        format!("{}/{}/{}", delivery.receiver, integration.name(), delivery.notice.idempotency_key());
    let started = engine.clock.monotonic();
    engine.store.put(Kind::Outbox, &outbox_key, &engine.now_ms());
    if let Err(error) = engine.store.durable().await {
        // A full disk must not keep people from being paged; it can only make them be paged twice.
        if let Some(left_out) = integration.unwritten_lines.admit(engine.clock.monotonic()) {
            tracing::error!(%error, receiver = %delivery.receiver, left_out, "A notification is sent without having been journalled; it may be sent again after a restart");
        }
    }
    let outcome = attempts(&engine, &delivery, &shutdown).await;
    let elapsed = engine.clock.monotonic().saturating_sub(started);
    let subject = delivery.notice.group_key.as_str();
    let detail = |text: &str| format!("{} {} {text}", delivery.receiver, integration.name());
    match &outcome {
        Outcome::Delivered(_) => {
            engine.metrics.latency.observe(elapsed.as_secs_f64());
            engine.audit(
                engine.now_ms(),
                "notification_sent",
                subject,
                "pharos",
                &detail(delivery.notice.reason),
            );
        }
        Outcome::GivenUp(error) => {
            engine.audit(engine.now_ms(), "notification_failed", subject, "pharos", &detail(error));
        }
        // Left in the outbox: the next start says that it is in doubt.
        Outcome::Interrupted => {}
    }
    if !matches!(outcome, Outcome::Interrupted) {
        engine.store.remove(Kind::Outbox, &outbox_key);
    }
    engine.delivered(delivery.origin, outcome);
    if let Err(error) = engine.store.durable().await
        && let Some(left_out) = integration.unwritten_lines.admit(engine.clock.monotonic())
    {
        tracing::error!(%error, receiver = %delivery.receiver, left_out, "A delivery cannot be written down; it may be sent again after a restart");
    }
    engine.metrics.in_flight.dec();
}

async fn attempts(engine: &Engine, delivery: &Delivery, shutdown: &Shutdown) -> Outcome {
    let integration = &delivery.integration;
    let labels = [integration.kind, delivery.receiver.as_str()];
    let deadline_ms = engine.now_ms() + delivery.time_max_ms;
    let mut failures = 0;
    loop {
        // Time spent waiting for a turn is no time of the attempt: the service has not been asked.
        let turn = tokio::select! {
            biased;
            turn = integration.turn() => turn,
            () = shutdown.cancelled() => return Outcome::Interrupted,
        };
        engine.metrics.attempts.with_label_values(&labels).inc();
        let attempt = tokio::select! {
            outcome = integration.notify(&delivery.notice) => outcome,
            () = engine.clock.sleep(integration.attempt_time()) => {
                Err(NotifyError::again(format!("no answer within {:?}", integration.attempt_time())))
            }
        };
        drop(turn);
        let error = match attempt {
            Ok(receipt) => return Outcome::Delivered(receipt),
            Err(error) => error,
        };
        failures += 1;
        let pause = pause_after(failures, error.retry_after);
        let in_time = engine.now_ms() + pause.as_millis() as i64 <= deadline_ms;
        if !error.retry || !in_time {
            let reason = if error.retry { Reason::DeadlinePassed } else { Reason::Refused };
            let labels = [integration.kind, delivery.receiver.as_str(), reason.as_str()];
            engine.metrics.notifications_failed.with_label_values(&labels).inc();
            if let Some(left_out) = integration.given_up_lines.admit(engine.clock.monotonic()) {
                tracing::error!(receiver = %delivery.receiver, integration = %integration.name(), attempts = failures,
                    reason = reason.as_str(), %error, left_out, "A notification is given up");
            }
            return Outcome::GivenUp(error.message);
        }
        if let Some(left_out) = integration.retried_lines.admit(engine.clock.monotonic()) {
            tracing::warn!(receiver = %delivery.receiver, integration = %integration.name(), attempts = failures,
                ?pause, %error, left_out, "A notification failed and is tried again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return Outcome::Interrupted,
            () = engine.clock.sleep(pause) => {}
        }
    }
}

impl Engine {
    /// A delivery ended.
    fn delivered(&self, origin: Origin, outcome: Outcome) {
        match origin {
            Origin::Route { place, key, entry } => self.route_delivered(&place, key, entry, outcome),
            Origin::Tier { key, round, kind } => self.tier_delivered(&key, round, kind, outcome),
            Origin::Acknowledge { fingerprint } => self.acknowledgement_delivered(fingerprint, outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_half_from_half_a_second() {
        let pauses: Vec<u128> = (1..=5).map(|failures| pause_after(failures, None).as_millis()).collect();
        assert_eq!(pauses, [500, 750, 1_125, 1_687, 2_531]);
        assert_eq!(pause_after(1_000, None), RETRY_PAUSE_MAX);
        assert_eq!(pause_after(1, Some(Duration::from_secs(7))), Duration::from_secs(7));
    }
}
