//! Starting from the state folder, changing the configuration, and forgetting what is over.

use super::{Engine, State};
use crate::alert::{Alert, Fingerprint};
use crate::config::Settings;
use crate::inhibit::Inhibitor;
use crate::limits;
use crate::notification_log::{LogEntry, NotifyKey};
use crate::remediate::record::Remediation;
use crate::silence::{Silence, SilenceState};
use crate::state::{Kind, StateError};
use pharos_common::sample::TimestampMs;
use pharos_common::shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Engine {
    /// Reads back what the last run left.
    pub(super) fn restore(&self, now_ms: TimestampMs) {
        let settings = self.settings.load_full();
        let mut state = self.lock();
        for (_, silence) in self.store.all::<Silence>(Kind::Silences) {
            let id = silence.id.clone();
            if let Err(error) = state.silences.restore(silence) {
                tracing::error!(%id, %error, "A silence cannot be restored");
            }
        }
        for (key, entry) in self.store.all::<LogEntry>(Kind::NotificationLog) {
            if let Some(key) = NotifyKey::from_bytes(&key) {
                state.log.put(key, entry);
            }
        }
        for (_, acknowledgement) in self.store.all::<super::Acknowledgement>(Kind::Acknowledgements) {
            state.acknowledgements.insert(acknowledgement.fingerprint, acknowledgement);
        }
        for (_, escalation) in self.store.all::<crate::escalation::ladder::Escalation>(Kind::Escalations) {
            state.escalations.insert(escalation.id(), escalation);
        }
        for (_, remediation) in self.store.all::<Remediation>(Kind::Remediations) {
            state.remediations.insert(remediation.id.clone(), remediation);
        }
        self.judge_doubtful_repairs(&mut state, &settings, now_ms);
        state.inhibitor = Inhibitor::new(Arc::clone(&settings.inhibit_rules));
        for (_, mut alert) in self.store.all::<Alert>(Kind::Alerts) {
            // Its source could not report it while this program was down: that is no reason to say that it
            // is over. One that was said to be over (not after it was reported) stays so.
            let fired = !alert.is_resolved_at(now_ms);
            if alert.ends_at_ms > alert.updated_at_ms {
                alert.ends_at_ms = alert.ends_at_ms.max(now_ms + limits::RESEND_GRACE.as_millis() as i64);
            }
            state.inhibitor.add(&alert);
            let fingerprint = alert.fingerprint();
            state.alerts.put(alert, now_ms);
            self.regroup_alert(&mut state, &settings, fingerprint, now_ms);
            if fired {
                self.start_missing_ladders(&mut state, &settings, fingerprint, now_ms);
            }
        }
        let doubtful = self.store.all::<serde_json::Value>(Kind::Outbox);
        for (key, _) in &doubtful {
            self.store.remove(Kind::Outbox, key);
        }
        self.metrics.in_doubt.set(doubtful.len() as i64);
        if !doubtful.is_empty() {
            tracing::warn!(
                count = doubtful.len(),
                "Notifications were in flight when the program was killed; those not known to be delivered are sent again under the same key"
            );
        }
    }

    /// Until shutdown: opens the state folder again when it has refused a write, until it takes them.
    pub(crate) async fn mend_store(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(limits::REOPEN_INTERVAL) => {}
            }
            let Some(why) = self.store.broken() else { continue };
            self.store_refuses(&why);
            let engine = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || engine.reopen_store()).await {
                Ok(Ok(())) if self.store.durable().await.is_ok() => {
                    self.metrics.state_refuses.set(0);
                    self.readiness.set_ready();
                    tracing::info!(
                        "The state folder can be written again; everything known was written to it"
                    );
                }
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "The state folder cannot be opened again yet"),
                Err(error) => tracing::error!(%error, "Opening the state folder again failed"),
            }
        }
    }

    /// Says that nothing can be made durable.
    pub(super) fn store_refuses(&self, why: &str) {
        self.metrics.state_refuses.set(1);
        self.readiness.set_not_ready(format!("the state folder cannot be written: {why}"));
    }

    /// Memory is ahead of the disk: all of it is written anew. Only audit entries made meanwhile are lost.
    fn reopen_store(&self) -> Result<(), StateError> {
        self.store.close();
        // Nothing changes between opening and writing.
        let state = self.lock();
        self.store.reopen()?;
        let store = &self.store;
        let text = |text: &dyn std::fmt::Display| text.to_string().into_bytes();
        store.replace(Kind::Silences, state.silences.iter().map(|silence| (text(&silence.id), silence)));
        store.replace(Kind::NotificationLog, state.log.iter().map(|(key, entry)| (key.to_bytes(), entry)));
        store.replace(Kind::Alerts, state.alerts.iter().map(|(key, alert)| (text(&key), alert)));
        store.replace(Kind::Escalations, state.escalations.iter().map(|(id, one)| (text(id), one)));
        store.replace(
            Kind::Acknowledgements,
            state.acknowledgements.iter().map(|(key, one)| (text(key), one)),
        );
        store.replace(Kind::Remediations, state.remediations.iter().map(|(id, one)| (text(id), one)));
        Ok(())
    }

    /// Goes on with another configuration: groups form anew, everything else stays.
    pub(crate) fn apply(&self, settings: Settings) {
        let now_ms = self.now_ms();
        let settings = Arc::new(settings);
        {
            let mut state = self.lock();
            self.settings.store(Arc::clone(&settings));
            state.generation += 1;
            state.groups.clear();
            state.inhibitor = Inhibitor::new(Arc::clone(&settings.inhibit_rules));
            let known: Vec<Fingerprint> = state.alerts.iter().map(|(fingerprint, _)| fingerprint).collect();
            for fingerprint in known {
                let Some(alert) = state.alerts.get(fingerprint).cloned() else { continue };
                state.inhibitor.add(&alert);
                self.regroup_alert(&mut state, &settings, fingerprint, now_ms);
                if !alert.is_resolved_at(now_ms) {
                    self.start_ladders(&mut state, &settings, &alert, now_ms);
                    self.consider_repairs(&mut state, &settings, &alert, now_ms);
                }
            }
        }
        self.wake();
    }

    fn regroup_alert(
        &self,
        state: &mut State,
        settings: &Settings,
        fingerprint: Fingerprint,
        now_ms: TimestampMs,
    ) {
        if let Some(alert) = state.alerts.get(fingerprint).cloned() {
            self.join_groups(state, settings, &alert, true, now_ms);
        }
    }

    /// Removes what is over.
    pub(super) fn clean(&self, state: &mut State, now_ms: TimestampMs) {
        if now_ms - state.cleaned_at_ms < limits::CLEAN_INTERVAL.as_millis() as i64 {
            return;
        }
        state.cleaned_at_ms = now_ms;
        for id in state.silences.forget_before(now_ms, self.retention_ms) {
            self.store.remove(Kind::Silences, id);
        }
        for key in state.log.forget(now_ms) {
            self.store.remove(Kind::NotificationLog, key.to_bytes());
        }
        let kept_ms = limits::RESOLVED_KEPT.as_millis() as i64;
        let needed: BTreeSet<Fingerprint> =
            state.groups.values().flat_map(|group| group.members.iter().copied()).collect();
        let over: Vec<Alert> = state
            .alerts
            .iter()
            .filter(|(fingerprint, alert)| {
                alert.ends_at_ms + kept_ms < now_ms && !needed.contains(fingerprint)
            })
            .map(|(_, alert)| alert.clone())
            .collect();
        for alert in over {
            state.inhibitor.remove(&alert);
            state.alerts.remove(alert.fingerprint());
            self.store.remove(Kind::Alerts, alert.fingerprint().to_string());
        }
        self.clean_repairs(state);
    }

    /// Brings the gauges up to date, when somebody asks for them.
    pub(crate) fn show_metrics(&self) {
        let now_ms = self.now_ms();
        let state = self.lock();
        self.metrics.groups.set(state.groups.len() as i64);
        for wanted in [SilenceState::Pending, SilenceState::Active, SilenceState::Expired] {
            let count = state.silences.iter().filter(|silence| silence.state_at(now_ms) == wanted).count();
            self.metrics.silences.with_label_values(&[wanted.as_str()]).set(count as i64);
        }
        let mut by_state: BTreeMap<&'static str, i64> =
            ["escalating", "acknowledged", "silenced", "resolved"].map(|name| (name, 0)).into();
        for escalation in state.escalations.values() {
            let world = self.circumstances(&state, &escalation.alert, now_ms);
            *by_state.entry(escalation.state(&world)).or_default() += 1;
        }
        for (name, count) in by_state {
            self.metrics.escalations.with_label_values(&[name]).set(count);
        }
        let firing = state.alerts.iter().filter(|(_, alert)| !alert.is_resolved_at(now_ms)).count();
        self.metrics.alerts.with_label_values(&["active"]).set(firing as i64);
        self.metrics.alerts.with_label_values(&["resolved"]).set((state.alerts.len() - firing) as i64);
        self.metrics.state_damaged_records.set(self.store.damaged_records() as i64);
        self.metrics.state_failed_writes.set(self.store.failed_writes() as i64);
    }
}
