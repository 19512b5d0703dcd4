//! Rules that are loaded: their definition and where they stand.

use super::alert_state::{ActiveAlerts, Alert, Breach};
use super::context::RuleContext;
use super::file::{GroupDefinition, RuleDefinition, RuleKind};
use super::shared_reads::SharedSelectors;
use super::text::TextContext;
use super::threshold::Threshold;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::TimestampMs;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The one subject of rules that are evaluated as a whole.
pub const WHOLE: u64 = 0;

/// Whether a rule works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not evaluated yet.
    #[default]
    Unknown,
    /// The last evaluation succeeded.
    Good,
    /// It failed.
    Bad,
}

impl Health {
    /// As in `/api/v1/rules`.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Unknown => "unknown",
            Health::Good => "ok",
            Health::Bad => "err",
        }
    }
}

/// Where a rule stands.
#[derive(Clone, Debug, Default)]
pub struct RuleState {
    /// Alerts of an alerting rule.
    pub alerts: ActiveAlerts,
    /// Whether it works.
    pub health: Health,
    /// Why not.
    pub last_error: String,
    /// When it was last evaluated.
    pub last_evaluation_ms: Option<TimestampMs>,
    /// How long that took.
    pub evaluation_time: Duration,
    /// Series that the last evaluation of a recording rule wrote, and whether they are histograms.
    pub recorded: HashMap<Labels, bool>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// What it says.
    pub definition: RuleDefinition,
    /// Set if arriving samples decide it.
    pub threshold: Option<Threshold>,
    /// Its group's name.
    pub group: String,
    /// Most alerts; 0 for no limit.
    pub limit: usize,
    /// Its group's interval.
    pub interval_ms: i64,
    /// Whether its alerts' labels are the same for every value.
    pub steady_labels: bool,
    /// Shared with the same rule of before a reload, which may still be judging a sample.
    state: Arc<Mutex<RuleState>>,
}

impl Rule {
    /// A rule that goes on where it stood before a reload, under whatever definition.
    pub fn new(definition: RuleDefinition, group: &GroupDefinition, before: Option<&Rule>) -> Self {
        let alerting = matches!(definition.kind, RuleKind::Alert { .. });
        let on_arrival = alerting && group.query_offset_ms == 0;
        let threshold = on_arrival.then(|| Threshold::of(&definition.expr)).flatten();
        let state = match before {
            None => Arc::default(),
            Some(before) if before.threshold.is_some() == threshold.is_some() => Arc::clone(&before.state),
            // Whoever judged it until now goes on for a moment, and must not do so here.
            Some(before) => {
                let mut state = before.state().clone();
                state.alerts.give_all_to(WHOLE);
                Arc::new(Mutex::new(state))
            }
        };
        if before.is_some_and(|before| !before.definition.is_same(&definition)) {
            state.lock().unwrap_or_else(PoisonError::into_inner).alerts.outdate_texts();
        }
        let steady_labels = definition.labels.iter().all(|(_, text)| text.is_steady());
        Rule {
            definition,
            steady_labels,
            threshold,
            group: group.name.clone(),
            limit: group.limit,
            interval_ms: group.interval_ms,
            state,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> MutexGuard<'_, RuleState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The alert that a result stands for.
    pub fn breach(&self, context: &RuleContext, found: &Labels, value: f64) -> Breach {
        let external = context.external_labels();
        let text = TextContext {
            labels: found,
            value,
            external_labels: &external,
            external_url: &context.external_url,
            functions: &context.functions,
        };
        // Texts may name the metric; the alert is about the thing that it measures.
        let mut labels = found.without_name().to_builder();
        for (name, label) in &self.definition.labels {
            labels.set(name, &label.expand(&text));
        }
        labels.set("alertname", self.definition.name());
        let (labels, annotations) = (labels.build(), self.annotations(&text));
        Breach { found: found.clone(), labels, annotations, value }
    }

    fn annotations(&self, text: &TextContext<'_>) -> Vec<(String, String)> {
        match &self.definition.kind {
            RuleKind::Record(_) => Vec::new(),
            RuleKind::Alert { annotations, .. } => {
                annotations.iter().map(|(name, annotation)| (name.clone(), annotation.expand(text))).collect()
            }
        }
    }

    /// Writes the annotations of alerts again whose value changed since: it is done when somebody reads
    /// them, not with every sample.
    pub fn refresh_texts(&self, context: &RuleContext, state: &mut RuleState) {
        let external = context.external_labels();
        state.alerts.refresh_texts(|found, value| {
            self.annotations(&TextContext {
                labels: found,
                value,
                external_labels: &external,
                external_url: &context.external_url,
                functions: &context.functions,
            })
        });
    }

    /// Writes an alert's annotations for its present value.
    pub fn write_texts(&self, context: &RuleContext, alert: &mut Alert) {
        alert.annotations = self.annotations(&TextContext {
            labels: &alert.found,
            value: alert.value,
            external_labels: &context.external_labels(),
            external_url: &context.external_url,
            functions: &context.functions,
        });
    }

    /// Whether an alert with these labels, written down before a restart, may be one of this rule.
    pub fn may_have_raised(&self, labels: &Labels) -> bool {
        let alerting = matches!(self.definition.kind, RuleKind::Alert { .. });
        alerting
            && labels.get("alertname") == Some(self.definition.name())
            && self
                .definition
                .labels
                .iter()
                .all(|(name, text)| !text.is_plain() || labels.get(name).unwrap_or("") == text.source())
    }

    /// Takes alerts of before a restart up again whose data may be missing now.
    pub fn keep_remembered(&self, state: &mut RuleState, now_ms: TimestampMs) {
        let own =
            |name: &str| name == "alertname" || self.definition.labels.iter().any(|(own, _)| own == name);
        let subject = |index| if self.threshold.is_some() { u64::MAX - index } else { WHOLE };
        let metric = self.threshold.as_ref().and_then(Threshold::metric);
        let found = |labels: &Labels| {
            let mut found = labels.filtered(|name| !own(name)).to_builder();
            if let Some(metric) = metric {
                found.set(METRIC_NAME, metric);
            }
            found.build()
        };
        state.alerts.keep_remembered(now_ms, self.definition.holds(), subject, found);
    }

    /// The series that a result of a recording rule is written to.
    pub fn recorded_labels(&self, found: &Labels) -> Labels {
        let mut labels = found.to_builder();
        labels.set(METRIC_NAME, self.definition.name());
        for (name, label) in &self.definition.labels {
            labels.set(name, label.source());
        }
        labels.build()
    }
}

impl RuleState {
    /// Notes how an evaluation went.
    pub fn evaluated(&mut self, at_ms: TimestampMs, took: Duration, failure: Option<String>) {
        self.last_evaluation_ms = Some(at_ms);
        self.evaluation_time = took;
        self.health = if failure.is_some() { Health::Bad } else { Health::Good };
        self.last_error = failure.unwrap_or_default();
    }
}

/// A group of rules that are evaluated in order.
#[derive(Debug)]
pub struct Group {
    /// The file it is in.
    pub file: PathBuf,
    /// Its name.
    pub name: String,
    /// How often it is evaluated.
    pub interval_ms: i64,
    /// How far back its queries look.
    pub query_offset_ms: i64,
    /// Most results of one rule; 0 for no limit.
    pub limit: usize,
    /// Its rules, in order.
    pub rules: Vec<Arc<Rule>>,
    /// What its interval rules read more than once.
    pub shared_selectors: Arc<SharedSelectors>,
    timing: Mutex<(Option<TimestampMs>, Duration)>,
}

impl Group {
    /// A group whose rules keep their state, each that of the rule which it [continues](RuleDefinition::continues);
    /// of several such the unchanged one, or the first that nobody else has.
    pub fn new(definition: GroupDefinition, before: Option<&Group>) -> Self {
        let mut left: Vec<&Arc<Rule>> = before.iter().flat_map(|group| &group.rules).collect();
        let mut take = |wanted: &dyn Fn(&RuleDefinition) -> bool| {
            let at = left.iter().position(|old| wanted(&old.definition))?;
            Some(left.remove(at))
        };
        let unchanged: Vec<Option<&Arc<Rule>>> =
            definition.rules.iter().map(|rule| take(&|old| old.is_same(rule))).collect();
        let rules = unchanged
            .into_iter()
            .zip(&definition.rules)
            .map(|(unchanged, rule)| {
                let old = unchanged.or_else(|| take(&|old| rule.continues(old)));
                Arc::new(Rule::new(rule.clone(), &definition, old.map(Arc::as_ref)))
            })
            .collect();
        let mut group = Group {
            file: definition.file,
            name: definition.name,
            interval_ms: definition.interval_ms,
            query_offset_ms: definition.query_offset_ms,
            limit: definition.limit,
            rules,
            shared_selectors: Arc::default(),
            timing: Mutex::default(),
        };
        group.shared_selectors = Arc::new(SharedSelectors::of(&group));
        group
    }

    /// When it was last evaluated, and how long that took.
    pub fn timing(&self) -> (Option<TimestampMs>, Duration) {
        *self.timing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an evaluation.
    pub fn set_timing(&self, at_ms: TimestampMs, took: Duration) {
        *self.timing.lock().unwrap_or_else(PoisonError::into_inner) = (Some(at_ms), took);
    }

    /// Whether a rule of it is evaluated on the interval.
    pub fn has_interval_rules(&self) -> bool {
        self.rules.iter().any(|rule| rule.threshold.is_none())
    }
}
