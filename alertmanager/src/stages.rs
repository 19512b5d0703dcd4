//! The stages a flush passes, one file each. Every stage is a pure function of what it is shown; what it
//! drops, it drops for a named [`Reason`], which is also a metric label.

pub(crate) mod active_time;
pub(crate) mod dedup;
pub(crate) mod inhibit;
pub(crate) mod mute_time;
pub(crate) mod silence;

use crate::alert::{Alert, Fingerprint};
use crate::alert_store::AlertStore;
use crate::inhibit::Inhibitor;
use crate::route::Route;
use crate::silence::Silences;
use crate::time_interval::TimeInterval;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeMap;

/// Why alerts of a flush were not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Reason {
    /// Another alert that fires explains it.
    Inhibited,
    /// A silence applies.
    Silenced,
    /// The route is mute at this time.
    MuteTime,
    /// The route is active only at other times.
    NotActiveTime,
    /// The receiver knows already, and it is not yet time to repeat.
    NothingNew,
    /// Only resolved alerts, and the receiver does not want to hear of those.
    ResolvedNotWanted,
    /// The notice before is still being delivered to this receiver.
    InFlight,
    /// The route has just told the receiver that the first tier would tell.
    ToldByRoute,
    /// The receiver refused it, and sending it again would not help.
    Refused,
    /// The receiver could not be reached in time.
    DeadlinePassed,
}

impl Reason {
    /// As the metric label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Reason::Inhibited => "inhibited",
            Reason::Silenced => "silenced",
            Reason::MuteTime => "mute_time",
            Reason::NotActiveTime => "not_active_time",
            Reason::NothingNew => "nothing_new",
            Reason::ResolvedNotWanted => "resolved_not_wanted",
            Reason::InFlight => "in_flight",
            Reason::ToldByRoute => "told_by_route",
            Reason::Refused => "refused",
            Reason::DeadlinePassed => "deadline_passed",
        }
    }
}

/// What the stages may look at.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) now_ms: TimestampMs,
    pub(crate) route: &'a Route,
    pub(crate) alerts: &'a AlertStore,
    pub(crate) silences: &'a Silences,
    pub(crate) inhibitor: &'a Inhibitor,
    pub(crate) intervals: &'a BTreeMap<String, Vec<TimeInterval>>,
}

/// One alert on its way through the stages.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) alert: Alert,
}
