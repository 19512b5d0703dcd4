//! The living state, and the one place where it changes.
//!
//! Reports, silences, acknowledgements and approvals come in through methods; [`Engine::tick`] asks the
//! pure deciders (groups, ladders, guard) what is due and hands out [`Delivery`]s and actions; the loop
//! around it sleeps until the next deadline or until something comes in. The lock is held for decisions
//! only, never across I/O. Whatever must survive a kill is written under the lock and made durable before
//! anybody is told.

mod acknowledge;
mod groups;
mod ladders;
mod lifecycle;
mod repairs;

pub(crate) use acknowledge::{AcknowledgeError, Acknowledgement};
pub(crate) use ladders::TierKey;
pub(crate) use repairs::DecideError;

use crate::alert::{Alert, Fingerprint};
use crate::alert_store::AlertStore;
use crate::config::Settings;
use crate::delivery::{self, Delivery};
use crate::escalation::ladder::Escalation;
use crate::group::Group;
use crate::inhibit::Inhibitor;
use crate::limits;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::notification_log::{NotificationLog, NotifyKey};
use crate::remediate::audit::AuditEntry;
use crate::remediate::record::Remediation;
use crate::route::RouteId;
use crate::silence::{Silence, SilenceError, Silences};
use crate::state::{Kind, StateError, Store};
use arc_swap::ArcSwap;
use pharos_common::clock::SharedClock;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_common::server::Readiness;
use pharos_common::shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

/// The alertmanager's engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) clock: SharedClockDebug,
    pub(crate) settings: ArcSwap<Settings>,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) links: Links,
    readiness: Readiness,
    pub(crate) started_at_ms: TimestampMs,
    state: Mutex<State>,
    wake: Notify,
    tasks: TaskTracker,
    retention_ms: i64,
    /// No notice before this time (`--dispatch.start-delay`).
    quiet_until_ms: TimestampMs,
}

/// A clock in a structure that prints itself.
#[derive(Clone)]
pub(crate) struct SharedClockDebug(pub(crate) SharedClock);

impl std::fmt::Debug for SharedClockDebug {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl std::ops::Deref for SharedClockDebug {
    type Target = SharedClock;

    fn deref(&self) -> &SharedClock {
        &self.0
    }
}

/// Everything that changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) alerts: AlertStore,
    pub(crate) inhibitor: Inhibitor,
    pub(crate) silences: Silences,
    pub(crate) log: NotificationLog,
    pub(crate) groups: BTreeMap<(RouteId, Labels), Group>,
    pub(crate) escalations: BTreeMap<String, Escalation>,
    pub(crate) acknowledgements: BTreeMap<Fingerprint, Acknowledgement>,
    pub(crate) remediations: BTreeMap<String, Remediation>,
    /// How many notices of an acknowledgement are on their way.
    acknowledgements_in_flight: BTreeMap<Fingerprint, usize>,
    /// Route notices on their way, and which firing alerts they tell of.
    in_flight: BTreeMap<NotifyKey, InFlight>,
    /// Counts changes that every ladder has to look at: silences, acknowledgements, configuration.
    generation: u64,
    /// When a silence begins or ends next.
    silences_change_ms: Option<TimestampMs>,
    /// Escalation notices on their way.
    tiers_in_flight: BTreeSet<ladders::TierKey>,
    cleaned_at_ms: TimestampMs,
}

#[derive(Debug, Default)]
struct InFlight {
    firing: BTreeSet<Fingerprint>,
    /// Whether the group was looked at meanwhile and had to pass over this integration.
    passed_over: bool,
}

/// What one tick decided.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) deliveries: Vec<Delivery>,
    /// Remediations whose state is `Running` now and that are to be run once that is durable.
    pub(crate) actions: Vec<Remediation>,
    next_ms: Option<TimestampMs>,
}

impl Work {
    /// Something is due at this time.
    pub(crate) fn wake_at(&mut self, at_ms: TimestampMs) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("too many alerts: {0} are known already, and no more are taken")]
    Full(usize),
    #[error(transparent)]
    State(#[from] StateError),
}

/// How it is started.
pub(crate) struct EngineParts {
    pub(crate) clock: SharedClock,
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) links: Links,
    pub(crate) readiness: Readiness,
    pub(crate) retention: Duration,
    pub(crate) start_delay: Duration,
}

impl Engine {
    /// An engine that goes on where the state folder says the last one stood.
    pub(crate) fn start(parts: EngineParts) -> Arc<Self> {
        let now_ms = parts.clock.now_ms();
        let engine = Arc::new(Engine {
            clock: SharedClockDebug(parts.clock),
            settings: ArcSwap::from_pointee(parts.settings),
            store: parts.store,
            metrics: parts.metrics,
            links: parts.links,
            readiness: parts.readiness,
            started_at_ms: now_ms,
            state: Mutex::new(State { cleaned_at_ms: now_ms, ..State::default() }),
            wake: Notify::new(),
            tasks: TaskTracker::new(),
            retention_ms: parts.retention.as_millis() as i64,
            quiet_until_ms: now_ms + parts.start_delay.as_millis() as i64,
        });
        engine.restore(now_ms);
        engine
    }

    /// The state, to look at or to change. Never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not stop alerting: the state is consistent between statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> TimestampMs {
        self.clock.now_ms()
    }

    /// Runs until shutdown, then lets deliveries in flight finish for a while.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let work = self.tick();
            let wait = work.next_ms.map_or(limits::CLEAN_INTERVAL, |next| {
                Duration::from_millis(u64::try_from(next - self.now_ms()).unwrap_or(0))
            });
            // The wall clock may step; an hour's sleep must not miss that.
            let wait = wait.min(limits::CLEAN_INTERVAL);
            self.start_work(work, &shutdown);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wake.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
        self.tasks.close();
        if tokio::time::timeout(limits::DRAIN_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "Some notifications are still in flight; they are sent again at the next start"
            );
        }
    }

    fn start_work(self: &Arc<Self>, work: Work, shutdown: &Shutdown) {
        for delivery in work.deliveries {
            self.tasks.spawn(delivery::run(Arc::clone(self), delivery, shutdown.clone()));
        }
        for remediation in work.actions {
            self.tasks.spawn(Arc::clone(self).act(remediation));
        }
    }

    /// Decides everything that is due now.
    pub(crate) fn tick(&self) -> Work {
        let now_ms = self.now_ms();
        let settings = self.settings.load_full();
        let mut state = self.lock();
        let mut work = Work::default();
        if let Some(why) = self.store.broken() {
            self.store_refuses(&why);
        }
        let silences_changed = state.silences_change_ms.is_some_and(|at| at <= now_ms);
        // Sources of inhibition come and go by themselves.
        if silences_changed || !settings.inhibit_rules.is_empty() {
            state.generation += 1;
        }
        state.silences_change_ms = state.silences.next_change_after(now_ms);
        self.end_acknowledgements(&mut state, now_ms, &mut work);
        self.tick_repairs(&mut state, &settings, now_ms, &mut work);
        self.tick_groups(&mut state, &settings, now_ms, &mut work);
        self.tick_ladders(&mut state, &settings, now_ms, &mut work);
        self.pass_on_acknowledgements(&mut state, now_ms, &mut work);
        self.clean(&mut state, now_ms);
        if let Some(at) = state.silences_change_ms {
            work.wake_at(at);
        }
        work
    }

    /// Asks for a tick.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Takes reports in. They are durable when this returns.
    pub(crate) async fn receive(&self, reports: Vec<Alert>) -> Result<(), ReceiveError> {
        let now_ms = self.now_ms();
        let settings = self.settings.load_full();
        let mut refused = 0;
        {
            let mut state = self.lock();
            for report in reports {
                let known = state.alerts.get(report.fingerprint()).is_some();
                if !known && state.alerts.len() >= limits::ALERTS_MAX {
                    refused += 1;
                    continue;
                }
                self.take_in(&mut state, &settings, report, now_ms);
            }
        }
        self.wake();
        self.store.durable().await?;
        if refused > 0 { Err(ReceiveError::Full(limits::ALERTS_MAX)) } else { Ok(()) }
    }

    fn take_in(&self, state: &mut State, settings: &Settings, report: Alert, now_ms: TimestampMs) {
        let received = state.alerts.put(report, now_ms);
        let alert = &received.alert;
        self.store.put(Kind::Alerts, alert.fingerprint().to_string(), alert);
        state.inhibitor.add(alert);
        let changed = received.starts_firing || received.stops_firing;
        self.join_groups(state, settings, alert, changed, now_ms);
        if changed {
            let own = crate::escalation::ladder::escalation_id("", alert.fingerprint());
            for (_, escalation) in
                state.escalations.range_mut(own.clone()..).take_while(|(id, _)| id.starts_with(&own))
            {
                escalation.rest = None;
            }
        }
        if !alert.is_resolved_at(now_ms) {
            self.start_ladders(state, settings, alert, now_ms);
            self.consider_repairs(state, settings, alert, now_ms);
        }
    }

    /// Creates or changes a silence; durable when this returns.
    pub(crate) async fn set_silence(
        &self,
        silence: Silence,
    ) -> Result<Result<String, SilenceError>, StateError> {
        let now_ms = self.now_ms();
        let changed = {
            let mut state = self.lock();
            state.generation += 1;
            state.silences.set(silence, now_ms, || uuid::Uuid::new_v4().to_string())
        };
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => return Ok(Err(error)),
        };
        let mut id = String::new();
        for silence in changed {
            self.store.put(Kind::Silences, &silence.id, &silence);
            self.audit(now_ms, "silence_set", &silence.id, &silence.created_by, &silence.comment);
            id = silence.id;
        }
        self.wake();
        self.store.durable().await?;
        Ok(Ok(id))
    }

    /// Ends a silence; durable when this returns.
    pub(crate) async fn expire_silence(&self, id: &str) -> Result<Result<(), SilenceError>, StateError> {
        let now_ms = self.now_ms();
        let expired = {
            let mut state = self.lock();
            state.generation += 1;
            state.silences.expire(id, now_ms)
        };
        match expired {
            Ok(silence) => {
                self.store.put(Kind::Silences, &silence.id, &silence);
                self.audit(now_ms, "silence_expired", id, "api", "");
            }
            Err(error) => return Ok(Err(error)),
        }
        self.wake();
        self.store.durable().await?;
        Ok(Ok(()))
    }

    /// Writes to the audit record.
    pub(crate) fn audit(&self, at_ms: TimestampMs, event: &str, subject: &str, actor: &str, detail: &str) {
        self.store.audit(&AuditEntry {
            at_ms,
            event: event.to_owned(),
            subject: subject.to_owned(),
            actor: actor.to_owned(),
            detail: detail.to_owned(),
        });
    }
}
