//! Rules that are evaluated on their group's interval, one after the other.

use super::alert_series;
use super::alert_state::{Alert, Breach, Timeline};
use super::context::RuleContext;
use super::file::RuleKind;
use super::missing;
use super::rule::{Group, Rule, WHOLE};
use super::shared_reads::SharedReads;
use crate::ingest::series_writer::LoneSample;
use crate::query_log::Origin;
use pharos_common::histogram::{FloatHistogram, HistogramSample};
use pharos_common::labels::Labels;
use pharos_common::sample::{STALE_NAN, TimestampMs};
use pharos_common::shutdown::Shutdown;
use pharos_promql::{SampleValue, Value};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Evaluates a group on its interval until `stop`. An evaluation that takes longer than the interval
/// delays the next one; what was missed is counted, not made up for.
pub async fn run_group(context: Arc<RuleContext>, group: Arc<Group>, stop: Shutdown) {
    let interval_ms = group.interval_ms.max(1);
    let mut next_ms = context.clock.now_ms().div_euclid(interval_ms) * interval_ms + interval_ms;
    loop {
        let wait_ms = u64::try_from(next_ms - context.clock.now_ms()).unwrap_or(0);
        tokio::select! {
            () = context.clock.sleep(Duration::from_millis(wait_ms)) => {}
            () = stop.cancelled() => return,
        }
        evaluate_group(&context, &group, next_ms).await;
        // The interval that is due right now is late, not missed.
        let missed = ((context.clock.now_ms() - next_ms) / interval_ms - 1).max(0);
        context.metrics.rule_intervals_missed.inc_by(missed.unsigned_abs());
        next_ms += interval_ms * (missed + 1);
    }
}

/// Evaluates a group's interval rules at one time.
pub async fn evaluate_group(context: &RuleContext, group: &Group, at_ms: TimestampMs) {
    let started = Instant::now();
    let storage = Arc::clone(context.queries.storage());
    let shared = Arc::new(SharedReads::new(storage, Arc::clone(&group.shared_selectors)));
    for rule in group.rules.iter().filter(|rule| rule.threshold.is_none()) {
        let began = Instant::now();
        let outcome = evaluate_rule(context, group, rule, &shared, at_ms).await;
        let label = if outcome.is_ok() { "success" } else { "failure" };
        context.metrics.rule_evaluations.with_label_values(&[label]).inc();
        let failure = outcome.err();
        let mut state = rule.state();
        if let Some(error) = &failure
            && *error != state.last_error
        {
            tracing::warn!(group = group.name, rule = rule.definition.name(), error, "A rule failed");
        }
        state.evaluated(at_ms, began.elapsed(), failure);
    }
    context.metrics.rule_reads_shared.inc_by(shared.reused() as u64);
    group.set_timing(at_ms, started.elapsed());
}

async fn evaluate_rule(
    context: &RuleContext,
    group: &Group,
    rule: &Rule,
    shared: &Arc<SharedReads>,
    at_ms: TimestampMs,
) -> Result<(), String> {
    let expr = rule.definition.expr.clone();
    let origin = || Origin::Rule { file: group.file.display().to_string(), group: group.name.clone() };
    // What is seen and written lies back by the offset, as in Prometheus; what is decided is decided now.
    let seen_ms = at_ms - group.query_offset_ms;
    let result = context
        .queries
        .run_rule_over(Arc::clone(shared), expr, seen_ms, origin)
        .await
        .map_err(|error| error.to_string())?;
    let vector: Vec<(Labels, SampleValue)> = match result.value {
        Value::Vector(vector) => vector.into_iter().map(|sample| (sample.labels, sample.value)).collect(),
        Value::Scalar(sample) => vec![(Labels::empty(), SampleValue::Float(sample.value))],
        Value::String { .. } | Value::Matrix(_) => {
            return Err("rule result is not a vector or scalar".to_owned());
        }
    };
    match rule.definition.kind {
        RuleKind::Record(_) => record(context, rule, vector, seen_ms).await,
        RuleKind::Alert { .. } => alert(context, rule, vector, at_ms, seen_ms).await,
    }
}

async fn record(
    context: &RuleContext,
    rule: &Rule,
    vector: Vec<(Labels, SampleValue)>,
    at_ms: TimestampMs,
) -> Result<(), String> {
    if rule.limit > 0 && vector.len() > rule.limit {
        return Err(format!("exceeded limit of {} with {} series", rule.limit, vector.len()));
    }
    let mut now_there: HashMap<Labels, bool> = HashMap::with_capacity(vector.len());
    let mut floats = Vec::with_capacity(vector.len());
    let mut histograms = Vec::new();
    let histogram = |histogram| HistogramSample { timestamp_ms: at_ms, histogram };
    for (found, value) in vector {
        let labels = rule.recorded_labels(&found);
        let is_histogram = matches!(value, SampleValue::Histogram(_));
        if now_there.insert(labels.clone(), is_histogram).is_some() {
            return Err(
                "vector contains metrics with the same labelset after applying rule labels".to_owned()
            );
        }
        match value {
            SampleValue::Float(value) => floats.push(LoneSample { labels, timestamp_ms: at_ms, value }),
            SampleValue::Histogram(value) => histograms.push((labels, histogram(value))),
        }
    }
    let before = std::mem::take(&mut rule.state().recorded);
    for (labels, was_histogram) in before {
        if now_there.contains_key(&labels) {
            continue;
        }
        if was_histogram {
            let stale = FloatHistogram { sum: STALE_NAN, ..FloatHistogram::default() };
            histograms.push((labels, histogram(Arc::new(stale))));
        } else {
            floats.push(LoneSample { labels, timestamp_ms: at_ms, value: STALE_NAN });
        }
    }
    rule.state().recorded = now_there;
    // The rules after it in the group see them.
    context.write_now(&floats).await;
    context.write_histograms(&histograms).await;
    Ok(())
}

async fn alert(
    context: &RuleContext,
    rule: &Rule,
    vector: Vec<(Labels, SampleValue)>,
    at_ms: TimestampMs,
    seen_ms: TimestampMs,
) -> Result<(), String> {
    // As in Prometheus a histogram is a breach too, of value 0.
    let value = |value: &SampleValue| value.as_float().unwrap_or(0.0);
    let found: Vec<Breach> =
        vector.iter().map(|(labels, found)| rule.breach(context, labels, value(found))).collect();
    let missing = missing::alerts_without_data(context, rule, &found, seen_ms).await;
    let (series, outcome) = take_found(context, rule, found, &missing, (at_ms, seen_ms));
    context.write_now(&series).await;
    outcome
}

/// Lets what was found, seen at one time, take effect at another. Gives the series to write.
fn take_found(
    context: &RuleContext,
    rule: &Rule,
    found: Vec<Breach>,
    missing: &HashSet<Labels>,
    (at_ms, seen_ms): (TimestampMs, TimestampMs),
) -> (Vec<LoneSample>, Result<(), String>) {
    let mut state = rule.state();
    let is_missing = |alert: &Alert| missing.contains(&alert.labels);
    let holds = rule.definition.holds();
    let changes = match state.alerts.judge_unless_missing(WHOLE, found, at_ms, at_ms, holds, is_missing) {
        Ok(changes) => changes,
        Err(duplicate) => return (Vec::new(), Err(duplicate.to_string())),
    };
    let decided_ms = context.clock.now_ms();
    let timeline = Timeline { sampled_ms: at_ms, received_ms: None, durable_ms: None, decided_ms };
    state.alerts.set_timeline(&changes, timeline);
    let active = state.alerts.active_count();
    if rule.limit > 0 && active > rule.limit {
        let dropped = state.alerts.clear();
        let failure = format!("exceeded limit of {} with {active} alerts", rule.limit);
        return (alert_series::of_dropped(&dropped, seen_ms), Err(failure));
    }
    let due = state.alerts.take_due(at_ms, context.notifier.room());
    let changed: HashSet<&Labels> = changes.iter().map(|change| &change.labels).collect();
    // What changed is written with its change.
    let lasting = state.alerts.active().filter(|alert| !changed.contains(&alert.labels));
    let mut series = alert_series::of_active(lasting, seen_ms);
    drop(state);
    series.extend(alert_series::of_changes(&changes, seen_ms));
    context.send(rule, due, at_ms);
    (series, Ok(()))
}
