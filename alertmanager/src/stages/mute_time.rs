//! Drops everything while one of the route's `mute_time_intervals` contains the time.

use super::{Member, Reason, View};

pub(crate) fn keeps(view: &View<'_>, _member: &Member) -> Result<(), Reason> {
    let mute = view
        .route
        .mute_intervals
        .iter()
        .filter_map(|name| view.intervals.get(name))
        .any(|list| list.iter().any(|interval| interval.contains(view.now_ms)));
    if mute { Err(Reason::MuteTime) } else { Ok(()) }
}
