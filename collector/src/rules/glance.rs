//! What a rule over one series is at a glance: whether a value concerns it, without the rule itself.
//!
//! Rules flow in once, when they are loaded; a value of a series near its thresholds is held against all of its rules,
//! of which most have nothing to say. In an alert storm that is most of the work.

use super::file::OnMissing;
use super::rule::Rule;
use super::threshold::{Comparison, Threshold};

/// What of a rule over one series tells whether a series without an alert is any concern of it: small, for ten
/// thousand rules are looked at again and again.
#[derive(Clone, Debug)]
pub(super) struct Glance {
    /// Without its matchers.
    comparison: Comparison,
    fires_when_missing: bool,
}

impl Glance {
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let Some(Threshold::Single(Comparison { op, bound, bound_first, .. })) = rule.threshold else {
            return None;
        };
        let comparison = Comparison { matchers: Vec::new(), op, bound, bound_first };
        Some(Glance { comparison, fires_when_missing: rule.definition.on_missing() == OnMissing::Fire })
    }

    /// Whether it may have something to say of a value, or of there being none.
    #[inline]
    pub(super) fn may_speak(&self, live: Option<f64>) -> bool {
        self.fires_when_missing || live.is_some_and(|value| self.comparison.holds(value))
    }
}
