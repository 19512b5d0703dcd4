//! Drops alerts that a silence covers.

use super::{Member, Reason, View};

pub(crate) fn keeps(view: &View<'_>, member: &Member) -> Result<(), Reason> {
    if view.silences.silences(&member.alert.labels, view.now_ms) { Err(Reason::Silenced) } else { Ok(()) }
}
