//! Drops alerts that a firing alert explains.

use super::{Member, Reason, View};

pub(crate) fn keeps(view: &View<'_>, member: &Member) -> Result<(), Reason> {
    match view.inhibitor.inhibiting(&member.alert.labels, view.alerts, view.now_ms) {
        Some(_) => Err(Reason::Inhibited),
        None => Ok(()),
    }
}
