//! Drops everything while none of the route's `active_time_intervals`, if it has any, contains the time.

use super::{Member, Reason, View};

pub(crate) fn keeps(view: &View<'_>, _member: &Member) -> Result<(), Reason> {
    let active = view.route.active_intervals.is_empty()
        || view
            .route
            .active_intervals
            .iter()
            .filter_map(|name| view.intervals.get(name))
            .any(|list| list.iter().any(|interval| interval.contains(view.now_ms)));
    if active { Ok(()) } else { Err(Reason::NotActiveTime) }
}
