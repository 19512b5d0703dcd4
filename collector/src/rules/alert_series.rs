//! Alerts as series: `ALERTS` and `ALERTS_FOR_STATE`, and alerts read back from them after a restart.

use super::alert_state::{Alert, Change, Phase, Remembered};
use crate::ingest::series_writer::LoneSample;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::Matcher;
use pharos_common::sample::{STALE_NAN, TimestampMs, is_stale_nan};
use pharos_tsdb::{Database, ReadError, Unlimited};
use std::collections::HashMap;

/// 1 while an alert is pending or fires.
pub const ALERTS: &str = "ALERTS";
/// Since when an alert is active, seconds since the epoch.
pub const ALERTS_FOR_STATE: &str = "ALERTS_FOR_STATE";

/// How long before a restart an alert may have been written to be taken up again.
const OUTAGE_MS_MAX: i64 = 3_600_000;

fn alerts(labels: &Labels, phase: Phase) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(METRIC_NAME, ALERTS).set("alertstate", phase.as_str());
    builder.build()
}

fn for_state(labels: &Labels) -> Labels {
    let mut builder = labels.to_builder();
    builder.set(METRIC_NAME, ALERTS_FOR_STATE);
    builder.build()
}

fn active(
    labels: &Labels,
    phase: Phase,
    active_at_ms: TimestampMs,
    timestamp_ms: TimestampMs,
) -> [LoneSample; 2] {
    // Seconds, as Prometheus writes them, but with their fraction, so that a restart does not move the start.
    let since = active_at_ms as f64 / 1_000.0;
    [
        LoneSample { labels: alerts(labels, phase), timestamp_ms, value: 1.0 },
        LoneSample { labels: for_state(labels), timestamp_ms, value: since },
    ]
}

/// What to write for changes of phase: the new state, and stale markers for what is over.
pub fn of_changes(changes: &[Change], timestamp_ms: TimestampMs) -> Vec<LoneSample> {
    // An alert without `for` is pending and firing at one moment; only the end of that counts.
    let mut net: HashMap<&Labels, (Option<Phase>, &Change)> = HashMap::new();
    for change in changes {
        net.entry(&change.labels).or_insert((change.from, change)).1 = change;
    }
    let mut samples = Vec::new();
    let stale = |labels: Labels| LoneSample { labels, timestamp_ms, value: STALE_NAN };
    for (labels, (from, last)) in net {
        if let Some(from @ (Phase::Pending | Phase::Firing)) = from
            && from != last.to
        {
            samples.push(stale(alerts(labels, from)));
        }
        match last.to {
            Phase::Resolved if matches!(from, Some(Phase::Pending | Phase::Firing)) => {
                samples.push(stale(for_state(labels)));
            }
            Phase::Resolved => {}
            phase => samples.extend(active(labels, phase, last.active_at_ms, timestamp_ms)),
        }
    }
    samples
}

/// What to write to keep the series of alerts alive.
pub fn of_active<'a>(
    active_alerts: impl Iterator<Item = &'a Alert>,
    timestamp_ms: TimestampMs,
) -> Vec<LoneSample> {
    active_alerts
        .flat_map(|alert| active(&alert.labels, alert.phase, alert.active_at_ms, timestamp_ms))
        .collect()
}

/// Stale markers for alerts that are dropped.
pub fn of_dropped(dropped: &[Labels], timestamp_ms: TimestampMs) -> Vec<LoneSample> {
    dropped
        .iter()
        .flat_map(|labels| [alerts(labels, Phase::Pending), alerts(labels, Phase::Firing), for_state(labels)])
        .map(|labels| LoneSample { labels, timestamp_ms, value: STALE_NAN })
        .collect()
}

/// The alerts that were active before a restart, by their labels. Blocking.
///
/// # Errors
/// If the storage cannot be read.
pub fn remembered(
    database: &Database,
    now_ms: TimestampMs,
) -> Result<HashMap<Labels, Remembered>, ReadError<std::convert::Infallible>> {
    let matchers = [Matcher::equal(METRIC_NAME, ALERTS_FOR_STATE)];
    let selected = database.select(&matchers, now_ms - OUTAGE_MS_MAX, now_ms, &Unlimited)?;
    Ok(selected
        .into_iter()
        .filter_map(|series| {
            let (&seen_at_ms, &value) = (series.timestamps.last()?, series.values.last()?);
            let active_at_ms = (value * 1_000.0).round() as i64;
            (!is_stale_nan(value)).then(|| {
                (series.labels.without_name(), Remembered { active_at_ms, seen_at_ms, is_shared: false })
            })
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(changes: &[(Option<Phase>, Phase)], want: &[&str]) {
        let labels = Labels::from_pairs([("alertname", "Hot")]);
        let changes: Vec<Change> = changes
            .iter()
            .map(|&(from, to)| Change { labels: labels.clone(), from, to, active_at_ms: 5_900 })
            .collect();
        let got: Vec<String> = of_changes(&changes, 7_000)
            .iter()
            .map(|sample| {
                let value =
                    if is_stale_nan(sample.value) { "stale".into() } else { sample.value.to_string() };
                format!("{} {value}", sample.labels)
            })
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn changes_become_series() {
        let pending = r#"ALERTS{alertname="Hot", alertstate="pending"}"#;
        let firing = r#"ALERTS{alertname="Hot", alertstate="firing"}"#;
        let since = r#"ALERTS_FOR_STATE{alertname="Hot"}"#;
        let at = |series: &str, value: &str| format!("{series} {value}");
        check(&[(None, Phase::Pending)], &[&at(pending, "1"), &at(since, "5.9")]);
        check(
            &[(None, Phase::Pending), (Some(Phase::Pending), Phase::Firing)],
            &[&at(firing, "1"), &at(since, "5.9")],
        );
        check(
            &[(Some(Phase::Pending), Phase::Firing)],
            &[&at(pending, "stale"), &at(firing, "1"), &at(since, "5.9")],
        );
        check(&[(Some(Phase::Firing), Phase::Resolved)], &[&at(firing, "stale"), &at(since, "stale")]);
        check(&[(Some(Phase::Resolved), Phase::Resolved)], &[]);
    }
}
