//! Receivers and the services they send to.
//!
//! An [`Integration`] turns a [`notice::Notice`] into one request of its service's protocol and says
//! whether a failure is worth another attempt. It neither waits nor retries: [`crate::delivery`] does,
//! with one lane per integration and group, so that a service that hangs delays nobody else.

pub(crate) mod email;
pub(crate) mod http;
pub(crate) mod notice;
pub(crate) mod opsgenie;
pub(crate) mod pagerduty;
pub(crate) mod slack;
pub(crate) mod teams;
pub(crate) mod webhook;

use crate::limits::{ATTEMPT_TIME_MAX, SENDS_PER_INTEGRATION_MAX};
use notice::{Notice, NoticeKind};
use pharos_common::duration::PrometheusDuration;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A named set of integrations.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) integrations: Vec<Arc<Integration>>,
}

/// One way to reach somebody.
#[derive(Debug)]
pub(crate) struct Integration {
    pub(crate) kind: &'static str,
    index: usize,
    /// `send_resolved` as written.
    written_resolved: Option<bool>,
    default_resolved: bool,
    attempt_time: Duration,
    notifier: Notifier,
    permits: Semaphore,
}

/// The services.
#[derive(Debug)]
pub(crate) enum Notifier {
    Slack(slack::Slack),
    PagerDuty(pagerduty::PagerDuty),
    Opsgenie(opsgenie::Opsgenie),
    Teams(teams::Teams),
    Email(Box<email::Email>),
    Webhook(webhook::Webhook),
    Log(LogNotifier),
}

/// A receiver that names nobody.
#[derive(Debug)]
pub(crate) struct LogNotifier {
    /// Whether its notices are worth a line at the default level.
    pub(crate) visible: bool,
}

/// A notice that was not delivered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct NotifyError {
    pub(crate) message: String,
    /// Whether another attempt may succeed.
    pub(crate) retry: bool,
    /// How long the service asks us to wait.
    pub(crate) retry_after: Option<Duration>,
}

impl NotifyError {
    pub(crate) fn last(message: impl Into<String>) -> Self {
        NotifyError { message: message.into(), retry: false, retry_after: None }
    }

    pub(crate) fn again(message: impl Into<String>) -> Self {
        NotifyError { message: message.into(), retry: true, retry_after: None }
    }
}

impl From<pharos_common::template::TemplateError> for NotifyError {
    fn from(error: pharos_common::template::TemplateError) -> Self {
        NotifyError::last(error.to_string())
    }
}

impl From<std::io::Error> for NotifyError {
    fn from(error: std::io::Error) -> Self {
        NotifyError::again(format!("cannot read a secret: {error}"))
    }
}

/// What a service gave back that is needed to change the message later.
pub(crate) type Receipt = Option<String>;

impl Integration {
    pub(crate) fn new(
        kind: &'static str,
        index: usize,
        written_resolved: Option<bool>,
        default_resolved: bool,
        timeout: Option<PrometheusDuration>,
        notifier: Notifier,
    ) -> Self {
        let attempt_time =
            timeout.filter(|timeout| timeout.as_millis() > 0).map_or(ATTEMPT_TIME_MAX, Duration::from);
        Integration {
            kind,
            index,
            written_resolved,
            default_resolved,
            attempt_time,
            notifier,
            permits: Semaphore::new(SENDS_PER_INTEGRATION_MAX),
        }
    }

    /// Its name within its receiver, e.g. `slack[0]`.
    pub(crate) fn name(&self) -> String {
        format!("{}[{}]", self.kind, self.index)
    }

    /// Whether route notices tell it of resolved alerts.
    pub(crate) fn send_resolved(&self) -> bool {
        self.written_resolved.unwrap_or(self.default_resolved)
    }

    /// Whether an escalation tells it that what it was told of is over: unless the configuration says no.
    pub(crate) fn tier_resolved(&self) -> bool {
        self.written_resolved.unwrap_or(true)
    }

    /// Time one attempt may take.
    pub(crate) fn attempt_time(&self) -> Duration {
        self.attempt_time
    }

    /// Whether it can say that somebody acknowledged.
    pub(crate) fn can_acknowledge(&self, receipt: &Receipt) -> bool {
        match &self.notifier {
            Notifier::PagerDuty(_) => true,
            Notifier::Slack(slack) => slack.can_edit() && receipt.is_some(),
            _ => false,
        }
    }

    /// Sends one notice, once.
    pub(crate) async fn notify(&self, notice: &Notice) -> Result<Receipt, NotifyError> {
        let _permit = self.permits.acquire().await;
        match &self.notifier {
            Notifier::Slack(slack) => slack.notify(notice).await,
            Notifier::PagerDuty(pagerduty) => pagerduty.notify(notice).await.map(|()| None),
            Notifier::Opsgenie(opsgenie) => opsgenie.notify(notice).await.map(|()| None),
            Notifier::Teams(teams) => teams.notify(notice).await.map(|()| None),
            Notifier::Email(email) => email.notify(notice).await.map(|()| None),
            Notifier::Webhook(webhook) => webhook.notify(notice).await.map(|()| None),
            Notifier::Log(log) => {
                log.write(notice);
                Ok(None)
            }
        }
    }
}

impl LogNotifier {
    fn write(&self, notice: &Notice) {
        if notice.kind == NoticeKind::Acknowledged {
            return;
        }
        let alerts: Vec<String> = notice
            .alerts
            .iter()
            .take(10)
            .map(|item| format!("{}{}", item.status(), item.alert.labels))
            .collect();
        let alerts = alerts.join(" ");
        let count = notice.alerts.len();
        if self.visible {
            tracing::info!(receiver = %notice.receiver, reason = notice.reason, count, %alerts, "Notification");
        } else {
            tracing::debug!(receiver = %notice.receiver, reason = notice.reason, count, %alerts, "Notification to a receiver without integrations");
        }
    }
}

/// Cuts a text to at most `runes_max` characters, the last one an ellipsis if anything is gone.
pub(crate) fn truncate(text: &str, runes_max: usize) -> String {
    if text.chars().count() <= runes_max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(runes_max.saturating_sub(1)).collect();
    out.push('…');
    out
}
