//! The shipped rules against their tests, which are written as `promtool test rules` takes them and pass
//! there too. Here the samples go through the judge and the interval evaluation as in a collector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that fails panics")]

#[path = "support/rig.rs"]
mod rig;

use pharos_collector::ingest::series_writer::LoneSample;
use pharos_collector::rules::alert_state::Phase;
use pharos_collector::rules::file::{Defaults, GroupDefinition, ON_MISSING, RuleKind, parse};
use pharos_common::duration::PrometheusDuration;
use pharos_common::histogram::{FloatHistogram, HistogramSample};
use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use rig::Rig;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestFile {
    rule_files: Vec<String>,
    evaluation_interval: PrometheusDuration,
    tests: Vec<Test>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    #[serde(default)]
    name: String,
    interval: PrometheusDuration,
    #[serde(default)]
    input_series: Vec<InputSeries>,
    #[serde(default)]
    alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputSeries {
    series: String,
    values: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertTest {
    eval_time: PrometheusDuration,
    alertname: String,
    #[serde(default)]
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedAlert {
    #[serde(default)]
    exp_labels: BTreeMap<String, String>,
    #[serde(default)]
    exp_annotations: BTreeMap<String, String>,
}

/// One firing alert, so that lists can be compared.
type Firing = (BTreeMap<String, String>, BTreeMap<String, String>);

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// `1x3`, `0+5x10`, `_x2`, `stale`: as Prometheus' tests write values. A count tells how many follow the first.
fn values(text: &str) -> Vec<Option<f64>> {
    let mut values = Vec::new();
    for item in text.split_whitespace() {
        let (item, count) = match item.rsplit_once('x') {
            Some((item, count)) => (item, count.parse::<usize>().unwrap()),
            None => (item, 0),
        };
        if item == "_" {
            values.extend(std::iter::repeat_n(None, count.max(1)));
            continue;
        }
        if item == "stale" {
            values.push(Some(STALE_NAN));
            continue;
        }
        let sign = item
            .char_indices()
            .skip(1)
            .find(|(at, c)| matches!(c, '+' | '-') && !item[..*at].ends_with(['e', 'E']));
        let (first, step) = match sign {
            Some((at, _)) => (&item[..at], item[at..].parse().unwrap()),
            None => (item, 0.0),
        };
        let first: f64 = first.parse().unwrap();
        values.extend((0..=count).map(|index| Some(first + step * index as f64)));
    }
    values
}

fn metric(text: &str) -> Labels {
    let matchers = pharos_promql::parse_selector(text).unwrap();
    Labels::from_pairs(matchers.iter().map(|matcher| (matcher.name(), matcher.value())))
}

/// The groups with nothing but what these alerts need.
fn only(groups: &[GroupDefinition], alerts: &BTreeSet<&str>) -> Vec<GroupDefinition> {
    let mut groups = groups.to_vec();
    for group in &mut groups {
        group.rules.retain(|rule| matches!(rule.kind, RuleKind::Record(_)) || alerts.contains(rule.name()));
    }
    groups.retain(|group| !group.rules.is_empty());
    groups
}

fn firing(rig: &Rig, alertname: &str) -> Vec<Firing> {
    let map = |labels: &Labels| labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut found: Vec<Firing> = Vec::new();
    for rule in rig.groups.iter().flat_map(|group| &group.rules) {
        let mut state = rule.state();
        rule.refresh_texts(&rig.context, &mut state);
        for alert in state.alerts.active().filter(|alert| alert.phase == Phase::Firing) {
            if rule.definition.name() == alertname && matches!(rule.definition.kind, RuleKind::Alert { .. }) {
                found.push((map(&alert.labels), alert.annotations.iter().cloned().collect()));
            }
        }
    }
    found.sort();
    found
}

async fn run(file: &Path, groups: &[GroupDefinition], interval_ms: i64, test: &Test) {
    let alerts: BTreeSet<&str> = test.alert_rule_test.iter().map(|of| of.alertname.as_str()).collect();
    let mut rig = Rig::new(only(groups, &alerts), 0);
    let series: Vec<(Labels, Vec<Option<f64>>)> =
        test.input_series.iter().map(|input| (metric(&input.series), values(&input.values))).collect();
    let sampled_every_ms = test.interval.as_millis_i64();
    let end_ms = test.alert_rule_test.iter().map(|of| of.eval_time.as_millis_i64()).max().unwrap_or(0);
    let mut next_sample = 0usize;
    for at_ms in (0..=end_ms).step_by(interval_ms as usize) {
        while next_sample as i64 * sampled_every_ms <= at_ms {
            let timestamp_ms = next_sample as i64 * sampled_every_ms;
            rig.advance_to(timestamp_ms);
            let tick: Vec<LoneSample> = series
                .iter()
                .filter_map(|(labels, values)| Some((labels.clone(), values.get(next_sample).copied()??)))
                .map(|(labels, value)| LoneSample { labels, timestamp_ms, value })
                .collect();
            rig.sample(&tick).await;
            next_sample += 1;
        }
        rig.advance_to(at_ms);
        rig.evaluate(at_ms).await;
        let here = |of: &&AlertTest| (at_ms..at_ms + interval_ms).contains(&of.eval_time.as_millis_i64());
        for expected in test.alert_rule_test.iter().filter(here) {
            let mut want: Vec<Firing> = expected
                .exp_alerts
                .iter()
                .map(|alert| {
                    let (mut labels, mut annotations) =
                        (alert.exp_labels.clone(), alert.exp_annotations.clone());
                    labels.insert("alertname".to_owned(), expected.alertname.clone());
                    annotations.remove(ON_MISSING);
                    (labels, annotations)
                })
                .collect();
            want.sort();
            let got = firing(&rig, &expected.alertname);
            let (file, name) = (file.display(), &test.name);
            assert_eq!(got, want, "{file}: {name}: {} at {at_ms} ms", expected.alertname);
        }
    }
}

async fn check(name: &str) {
    let file = repository().join("rules/tests").join(name);
    let text = std::fs::read_to_string(&file).unwrap();
    let tests: TestFile =
        pharos_common::config::parse(&file, &text).unwrap_or_else(|error| panic!("{error}"));
    let interval_ms = tests.evaluation_interval.as_millis_i64();
    let defaults = Defaults { interval_ms, query_offset_ms: 0 };
    let mut groups = Vec::new();
    for rule_file in &tests.rule_files {
        let path = file.parent().unwrap().join(rule_file);
        let text = std::fs::read_to_string(&path).unwrap();
        groups.extend(parse(&path, &text, defaults).unwrap_or_else(|error| panic!("{error}")));
    }
    // promtool evaluates every group at the test's interval, whatever its own.
    groups.iter_mut().for_each(|group| group.interval_ms = interval_ms);
    for test in &tests.tests {
        run(&file, &groups, interval_ms, test).await;
    }
    let tested: BTreeSet<&str> = tests
        .tests
        .iter()
        .flat_map(|test| &test.alert_rule_test)
        .filter(|of| !of.exp_alerts.is_empty())
        .map(|of| of.alertname.as_str())
        .collect();
    let untested: Vec<&str> = groups
        .iter()
        .flat_map(|group| &group.rules)
        .filter(|rule| matches!(rule.kind, RuleKind::Alert { .. }) && !tested.contains(rule.name()))
        .map(|rule| rule.name())
        .collect();
    assert!(untested.is_empty(), "{name} has no test in which these fire: {untested:?}");
}

#[tokio::test]
async fn host_rules_do_what_their_tests_say() {
    check("host.yml").await;
}

#[tokio::test]
async fn gpu_rules_do_what_their_tests_say() {
    check("gpu.yml").await;
}

#[tokio::test]
async fn inference_rules_do_what_their_tests_say() {
    check("inference.yml").await;
}

#[tokio::test]
async fn rules_of_pharos_do_what_their_tests_say() {
    check("pharos.yml").await;
}

#[tokio::test]
async fn histograms_are_recorded_and_raise_alerts_as_in_prometheus() {
    let text = r#"
groups:
  - name: latency
    rules:
      - {record: job:latency:sum, expr: sum by (job) (latency)}
      - {record: job:latency:count, expr: histogram_count(job:latency:sum)}
      - {alert: AnyLatency, expr: sum by (job) (latency)}
"#;
    let defaults = Defaults { interval_ms: 1_000, query_offset_ms: 0 };
    let mut rig = Rig::new(parse(Path::new("rules.yml"), text, defaults).unwrap(), 0);
    let labels = Labels::from_pairs([("__name__", "latency"), ("job", "api")]);
    let histogram = FloatHistogram { count: 7.0, sum: 3.5, zero_count: 7.0, ..FloatHistogram::default() };
    let of = |timestamp_ms, histogram| HistogramSample { timestamp_ms, histogram: Arc::new(histogram) };
    rig.advance_to(1_000);
    rig.context.write_histograms(&[(labels.clone(), of(1_000, histogram))]).await;
    rig.evaluate(1_000).await;
    let ask = |rig: &Rig, query: &str, at_ms| match rig.context.queries.run_small(query, at_ms).unwrap().value
    {
        pharos_promql::Value::Vector(vector) => vector.first().and_then(|sample| sample.value.as_float()),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(&rig, "histogram_sum(job:latency:sum)", 1_000), Some(3.5));
    assert_eq!(ask(&rig, "job:latency:count", 1_000), Some(7.0));
    assert_eq!(firing(&rig, "AnyLatency").len(), 1);

    // The series ends, and so does what was recorded of it.
    let stale = FloatHistogram { sum: STALE_NAN, ..FloatHistogram::default() };
    rig.advance_to(2_000);
    rig.context.write_histograms(&[(labels, of(2_000, stale))]).await;
    rig.evaluate(2_000).await;
    assert_eq!(ask(&rig, "histogram_sum(job:latency:sum)", 2_000), None);
    assert_eq!(ask(&rig, "job:latency:count", 2_000), None);
    assert!(firing(&rig, "AnyLatency").is_empty());
}
