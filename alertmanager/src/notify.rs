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

use crate::limits::{ATTEMPT_TIME_MAX, FAILURE_LOG_INTERVAL, SENDS_PER_INTEGRATION_MAX};
use notice::{Notice, NoticeKind};
use pharos_common::duration::PrometheusDuration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

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
    /// Attempts that failed and are made again.
    pub(crate) retried_lines: LineLimit,
    /// Notifications that are given up.
    pub(crate) given_up_lines: LineLimit,
    /// Notifications of which the state folder does not know.
    pub(crate) unwritten_lines: LineLimit,
}

/// Lets a log line through now and then, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LineLimit(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    last: Option<Duration>,
    left_out: u64,
}

impl LineLimit {
    /// How many lines were left out since the last one, if one may be written now.
    pub(crate) fn admit(&self, now: Duration) -> Option<u64> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.last.is_some_and(|last| now.saturating_sub(last) < FAILURE_LOG_INTERVAL) {
            lines.left_out += 1;
            return None;
        }
        lines.last = Some(now);
        Some(std::mem::take(&mut lines.left_out))
    }
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
            retried_lines: LineLimit::default(),
            given_up_lines: LineLimit::default(),
            unwritten_lines: LineLimit::default(),
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

    /// Waits for the turn of one attempt; it lasts while what is returned is held.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.permits.acquire().await.ok()
    }

    /// Sends one notice, once.
    pub(crate) async fn notify(&self, notice: &Notice) -> Result<Receipt, NotifyError> {
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
        let alerts = described(notice);
        let count = notice.alerts.len();
        if self.visible {
            tracing::info!(receiver = %notice.receiver, reason = notice.reason, count, %alerts, "Notification");
        } else {
            tracing::debug!(receiver = %notice.receiver, reason = notice.reason, count, %alerts, "Notification to a receiver without integrations");
        }
    }
}

/// The alerts of a notice for a log line: state, labels and summary.
fn described(notice: &Notice) -> String {
    let alerts: Vec<String> = notice
        .alerts
        .iter()
        .take(10)
        .map(|item| {
            let summary = item.alert.summary();
            let gap = if summary.is_empty() { "" } else { " " };
            format!("{}{}{gap}{summary}", item.status(), item.alert.labels)
        })
        .collect();
    alerts.join("; ")
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn only_so_many_attempts_are_made_at_once() {
        let log = Notifier::Log(LogNotifier { visible: false });
        let integration = Integration::new("log", 0, None, true, None, log);
        let mut turns: Vec<_> =
            (0..SENDS_PER_INTEGRATION_MAX).map(|_| integration.turn().now_or_never().unwrap()).collect();
        assert!(integration.turn().now_or_never().is_none());
        turns.pop();
        assert!(integration.turn().now_or_never().is_some());
    }

    #[test]
    fn repeated_lines_become_one_with_a_count() {
        let lines = LineLimit::default();
        let at = |seconds| lines.admit(Duration::from_secs(seconds));
        assert_eq!(
            [at(0), at(1), at(29), at(30), at(31), at(90)],
            [Some(0), None, None, Some(2), None, Some(1)]
        );
    }

    #[test]
    fn a_line_about_a_notice_says_what_is_wrong() {
        let text = described(&notice::tests::notice());
        assert!(text.starts_with("firing{") && text.ends_with("} GPU 3 is hot"), "{text}");
    }
}
