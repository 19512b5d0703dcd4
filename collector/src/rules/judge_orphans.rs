//! Alerts of before a restart or reload whose series are not there, or say something else now.

use super::file::OnMissing;
use super::judge::{Finding, Judge, Moment};
use super::rule::Rule;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::sync::Arc;

impl Judge {
    /// Alerts whose series are not there: kept or resolved, as the rule says.
    pub(super) fn judge_orphan(&mut self, number: u32, subject: u64, moment: Moment) {
        let Some(rule) = self.table.rules.get(number as usize).cloned() else { return };
        let finding = match rule.definition.on_missing() {
            OnMissing::Keep | OnMissing::Fire => Finding::StillMissing,
            OnMissing::Resolve => Finding::Nothing,
        };
        self.decide(&rule, (number, subject), finding, true, moment.now_ms, moment);
    }

    /// The data of an alert of nobody is back, and says that it is over.
    pub(super) fn resolve_orphan(
        &mut self,
        rule: &Arc<Rule>,
        number: u32,
        found: &Labels,
        value: f64,
        sampled_ms: TimestampMs,
        moment: Moment,
    ) {
        let labels = rule.breach(&self.context, found, value).labels;
        let orphan = rule.state().alerts.orphan(&labels);
        if let Some(orphan) = orphan {
            self.decide(rule, (number, orphan), Finding::Nothing, true, sampled_ms, moment);
        }
    }

    /// The data of an alert of before a restart says that it is over: a breach that comes now is another one.
    pub(super) fn end_remembered(
        &mut self,
        rule: &Rule,
        number: u32,
        found: &Labels,
        value: f64,
        moment: Moment,
    ) {
        let labels = rule.breach(&self.context, found, value).labels;
        let mut state = rule.state();
        state.alerts.end_remembered(&labels, moment.now_ms, rule.definition.holds());
        if !state.alerts.has_remembered() {
            self.remembering.remove(&number);
        }
    }
}
