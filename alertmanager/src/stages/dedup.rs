//! Decides from the notification log whether a receiver has news to hear.

use super::Reason;
use crate::alert::Fingerprint;
use crate::notification_log::LogEntry;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeSet;

/// Why a notice goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The receiver hears of this group for the first time, or again after all was resolved.
    First,
    /// More alerts fire than it knows of.
    NewAlerts,
    /// All alerts are resolved.
    AllResolved,
    /// Some alerts are resolved.
    SomeResolved,
    /// Nothing changed, but the repeat interval is over.
    Repeat,
}

impl News {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            News::First => "first_notification",
            News::NewAlerts => "new_alerts",
            News::AllResolved => "all_resolved",
            News::SomeResolved => "some_resolved",
            News::Repeat => "repeat_interval",
        }
    }
}

/// What is to be told to one integration.
pub(crate) fn news(
    known: Option<&LogEntry>,
    firing: &BTreeSet<Fingerprint>,
    resolved: &BTreeSet<Fingerprint>,
    send_resolved: bool,
    repeat_ms: i64,
    now_ms: TimestampMs,
) -> Result<News, Reason> {
    let Some(known) = known else {
        return if firing.is_empty() { Err(Reason::NothingNew) } else { Ok(News::First) };
    };
    if !firing.is_subset(&known.firing) {
        return Ok(if known.firing.is_empty() { News::First } else { News::NewAlerts });
    }
    if firing.is_empty() {
        return match (known.firing.is_empty(), send_resolved) {
            (true, _) => Err(Reason::NothingNew),
            (false, true) => Ok(News::AllResolved),
            (false, false) => Err(Reason::ResolvedNotWanted),
        };
    }
    if send_resolved && !resolved.is_subset(&known.resolved) {
        return Ok(News::SomeResolved);
    }
    if known.at_ms < now_ms - repeat_ms { Ok(News::Repeat) } else { Err(Reason::NothingNew) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_is_told() {
        #[track_caller]
        fn check(
            known: Option<(&[u64], &[u64], i64)>,
            (firing, resolved): (&[u64], &[u64]),
            send_resolved: bool,
            want: Result<News, Reason>,
        ) {
            let set = |list: &[u64]| list.iter().copied().map(Fingerprint).collect::<BTreeSet<_>>();
            let known = known.map(|(firing, resolved, at_ms)| LogEntry {
                firing: set(firing),
                resolved: set(resolved),
                at_ms,
                expires_at_ms: i64::MAX,
                receipt: None,
            });
            let got = news(known.as_ref(), &set(firing), &set(resolved), send_resolved, 1_000, 10_000);
            assert_eq!(got, want);
        }
        check(None, (&[1], &[]), true, Ok(News::First));
        check(None, (&[], &[1]), true, Err(Reason::NothingNew));
        check(Some((&[1], &[], 9_500)), (&[1], &[]), true, Err(Reason::NothingNew));
        check(Some((&[1], &[], 8_000)), (&[1], &[]), true, Ok(News::Repeat));
        check(Some((&[1], &[], 9_500)), (&[1, 2], &[]), true, Ok(News::NewAlerts));
        check(Some((&[1, 2], &[], 9_500)), (&[1], &[]), true, Err(Reason::NothingNew));
        check(Some((&[1, 2], &[], 9_500)), (&[1], &[2]), true, Ok(News::SomeResolved));
        check(Some((&[1, 2], &[], 9_500)), (&[1], &[2]), false, Err(Reason::NothingNew));
        check(Some((&[1], &[], 9_500)), (&[], &[1]), true, Ok(News::AllResolved));
        check(Some((&[1], &[], 9_500)), (&[], &[1]), false, Err(Reason::ResolvedNotWanted));
        check(Some((&[], &[1], 9_500)), (&[], &[1]), true, Err(Reason::NothingNew));
        check(Some((&[], &[1], 9_500)), (&[1], &[]), true, Ok(News::First));
    }
}
