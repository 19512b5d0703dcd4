//! What this program lets its peers and its configuration hold: every bound with its unit and reason.

use std::time::Duration;

/// Alerts kept at once. A cluster of 10,000 nodes that all fail ten ways stays below it.
pub(crate) const ALERTS_MAX: usize = 200_000;
/// Groups at once, over all routes.
pub(crate) const GROUPS_MAX: usize = 100_000;
/// Silences kept, expired ones included until retention removes them.
pub(crate) const SILENCES_MAX: usize = 50_000;
/// Labels, or annotations, of one alert.
pub(crate) const LABELS_PER_ALERT_MAX: usize = 128;
/// Bytes of one label or annotation name or value.
pub(crate) const LABEL_BYTES_MAX: usize = 64 << 10;
/// Bytes of a request's body.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
/// Matchers of one silence.
pub(crate) const MATCHERS_PER_SILENCE_MAX: usize = 128;
/// Bytes of a silence's or an acknowledgement's author and comment.
pub(crate) const COMMENT_BYTES_MAX: usize = 16 << 10;
/// Bytes read of a receiver's answer: enough for an error message.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Attempts to deliver at once to one integration: a storm must not open a socket per group. The others
/// wait for their turn, in order.
pub(crate) const SENDS_PER_INTEGRATION_MAX: usize = 16;
/// Least time between two log lines of one integration that say the same of different notifications: a
/// service that is down must not fill the log.
pub(crate) const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Audit records kept.
pub(crate) const AUDIT_RECORDS_MAX: usize = 20_000;
/// Finished remediations kept.
pub(crate) const REMEDIATIONS_KEPT_MAX: usize = 5_000;
/// Bytes kept of what an action writes on each of stdout and stderr.
pub(crate) const ACTION_OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Time an action may take when its configuration says nothing.
pub(crate) const ACTION_TIME_DEFAULT: Duration = Duration::from_secs(30);

/// First pause between two attempts to deliver.
pub(crate) const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(500);
/// By how much every further pause is longer.
pub(crate) const RETRY_PAUSE_FACTOR: f64 = 1.5;
/// Longest pause between two attempts.
pub(crate) const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Time one attempt to deliver may take when its receiver says nothing.
pub(crate) const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(10);
/// Least time over which a notification is retried, however short its group's interval.
pub(crate) const DELIVERY_TIME_MIN: Duration = Duration::from_secs(10);
/// Time over which an escalation's notices are retried.
pub(crate) const TIER_DELIVERY_TIME_MAX: Duration = Duration::from_secs(300);
/// Time that deliveries in flight get at shutdown.
pub(crate) const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// First window in which alerts that join a group gather, where no `group_interval` is written.
pub(crate) const GATHER_WINDOW_FIRST: Duration = Duration::from_secs(1);
/// Longest such window.
pub(crate) const GATHER_WINDOW_MAX: Duration = Duration::from_secs(30);

/// How long a resolved alert stays readable after its groups are done with it.
pub(crate) const RESOLVED_KEPT: Duration = Duration::from_secs(15 * 60);
/// How long after a start an alert waits for its source to report it again: twice the usual resend delay.
pub(crate) const RESEND_GRACE: Duration = Duration::from_secs(120);
/// Pause between two attempts to open a state folder again that refused a write.
pub(crate) const REOPEN_INTERVAL: Duration = Duration::from_secs(5);
/// How often what has expired is removed.
pub(crate) const CLEAN_INTERVAL: Duration = Duration::from_secs(60);
