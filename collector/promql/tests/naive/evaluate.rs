//! What a query means, written for obviousness: one time, one series, one sample after the other.

use super::query::{Query, Range, Selector};
use pharos_common::sample::is_stale_nan;
use std::collections::BTreeMap;

/// How old a sample may be for an instant selector.
const LOOKBACK_MS: i64 = 300_000;

/// Labels, sorted by name.
pub(crate) type Labels = BTreeMap<String, String>;
/// Samples of series.
pub(crate) type Samples = BTreeMap<Labels, Vec<(i64, f64)>>;
/// Start timestamps of samples of a series, by when these were taken.
pub(crate) type Starts = BTreeMap<i64, i64>;

/// All samples of all series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    pub(crate) samples: Samples,
    /// Where functions look at them.
    pub(crate) starts: BTreeMap<Labels, Starts>,
}

/// An instant vector.
pub(crate) type Vector = BTreeMap<Labels, f64>;

/// Series cannot be matched as the query wants it.
#[derive(Debug)]
pub(crate) struct Unmatchable;

/// The value of a query at one time.
pub(crate) fn evaluate(query: &Query, data: &Data, time_ms: i64) -> Result<Vector, Unmatchable> {
    Ok(match query {
        Query::Selector(selector) => {
            let time_ms = selector.time_ms(time_ms);
            let newest = |samples: &Vec<(i64, f64)>| {
                let newest = samples.iter().rev().find(|(taken_ms, _)| *taken_ms <= time_ms)?;
                (newest.0 > time_ms - LOOKBACK_MS && !is_stale_nan(newest.1)).then_some(newest.1)
            };
            selector
                .series(data)
                .filter_map(|(labels, samples)| Some((labels.clone(), newest(samples)?)))
                .collect()
        }
        Query::OverTime { function, range } => {
            let (range_s, series, end_ms) = match range {
                Range::Samples { of, range_s } => {
                    let series = of.series(data).map(|(labels, samples)| (labels.clone(), samples.clone()));
                    (*range_s, series.collect(), of.time_ms(time_ms))
                }
                Range::Subquery { of, range_s, step_s, offset_s } => {
                    let end_ms = time_ms - offset_s * 1_000;
                    let mut series = Samples::new();
                    for inner_ms in end_ms - range_s * 1_000 + 1..=end_ms {
                        if inner_ms.rem_euclid(step_s * 1_000) == 0 {
                            for (labels, value) in evaluate(of, data, inner_ms)? {
                                series.entry(labels).or_default().push((inner_ms, value));
                            }
                        }
                    }
                    (*range_s, series, end_ms)
                }
            };
            let start_ms = end_ms - range_s * 1_000;
            let mut vector = Vector::new();
            let untold = Starts::new();
            for (labels, samples) in &series {
                // What is computed has no start.
                let own = match range {
                    Range::Samples { .. } => data.starts.get(labels).unwrap_or(&untold),
                    Range::Subquery { .. } => &untold,
                };
                let inside: Vec<(i64, f64)> = samples
                    .iter()
                    .copied()
                    .filter(|(taken_ms, value)| {
                        *taken_ms > start_ms && *taken_ms <= end_ms && !is_stale_nan(*value)
                    })
                    .collect();
                if let Some(value) = over_time(function, &inside, own, start_ms, end_ms) {
                    vector.insert(labels.clone(), value);
                }
            }
            vector
        }
        Query::Aggregate { op, by, of } => {
            let mut groups: BTreeMap<Labels, Vec<f64>> = BTreeMap::new();
            for (labels, value) in evaluate(of, data, time_ms)? {
                groups.entry(only(&labels, by)).or_default().push(value);
            }
            let function = match *op {
                "group" => "present_over_time".to_owned(),
                op => format!("{op}_over_time"),
            };
            let value = |values: Vec<f64>| {
                let samples: Vec<(i64, f64)> = values.into_iter().map(|value| (0, value)).collect();
                over_time(&function, &samples, &Starts::new(), 0, 0)
            };
            groups.into_iter().filter_map(|(labels, values)| Some((labels, value(values)?))).collect()
        }
        Query::OneToOne { op, on, lhs, rhs } => {
            let (lhs, rhs) = (evaluate(lhs, data, time_ms)?, evaluate(rhs, data, time_ms)?);
            matched(op, on, &lhs, &rhs, false)?
        }
        Query::ManyToOne { op, on, lhs, rhs } => {
            let (lhs, rhs) = (evaluate(lhs, data, time_ms)?, evaluate(rhs, data, time_ms)?);
            matched(op, on, &lhs, &rhs, true)?
        }
        Query::Set { op, on, lhs, rhs } => {
            let (lhs, rhs) = (evaluate(lhs, data, time_ms)?, evaluate(rhs, data, time_ms)?);
            let has = |vector: &Vector, labels: &Labels| {
                vector.keys().any(|other| only(other, on) == only(labels, on))
            };
            match *op {
                "and" => lhs.into_iter().filter(|(labels, _)| has(&rhs, labels)).collect(),
                "unless" => lhs.into_iter().filter(|(labels, _)| !has(&rhs, labels)).collect(),
                _ => {
                    let rest: Vector = rhs.into_iter().filter(|(labels, _)| !has(&lhs, labels)).collect();
                    lhs.into_iter().chain(rest).collect()
                }
            }
        }
        Query::WithNumber { op, lhs, number } => evaluate(lhs, data, time_ms)?
            .into_iter()
            .filter_map(|(labels, value)| Some((labels, operate(op, value, *number)?)))
            .collect(),
    })
}

impl Selector {
    fn time_ms(&self, time_ms: i64) -> i64 {
        self.at_s.map_or(time_ms, |at_s| at_s * 1_000) - self.offset_s * 1_000
    }

    fn series<'d>(&self, data: &'d Data) -> impl Iterator<Item = (&'d Labels, &'d Vec<(i64, f64)>)> {
        let id = self.id;
        data.samples
            .iter()
            .filter(move |(labels, _)| id.is_none_or(|id| labels.get("id").is_some_and(|own| own == id)))
    }
}

fn only(labels: &Labels, names: &[&str]) -> Labels {
    labels
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect()
}

fn matched(op: &str, on: &[&str], lhs: &Vector, rhs: &Vector, many: bool) -> Result<Vector, Unmatchable> {
    let mut out = Vector::new();
    if lhs.is_empty() || rhs.is_empty() {
        return Ok(out);
    }
    let mut one: BTreeMap<Labels, f64> = BTreeMap::new();
    for (labels, value) in rhs {
        if one.insert(only(labels, on), *value).is_some() {
            return Err(Unmatchable);
        }
    }
    let mut met: Vec<Labels> = Vec::new();
    for (labels, value) in lhs {
        let key = only(labels, on);
        let Some(other) = one.get(&key) else { continue };
        let result = if many { labels.clone() } else { key };
        if met.contains(&result) {
            return Err(Unmatchable);
        }
        met.push(result.clone());
        if let Some(value) = operate(op, *value, *other) {
            out.insert(result, value);
        }
    }
    Ok(out)
}

fn operate(op: &str, a: f64, b: f64) -> Option<f64> {
    match op {
        "+" => Some(a + b),
        "-" => Some(a - b),
        "*" => Some(a * b),
        "/" => Some(a / b),
        ">" => (a > b).then_some(a),
        "<=" => (a <= b).then_some(a),
        "==" => (a == b).then_some(a),
        "!=" => (a != b).then_some(a),
        "> bool" => Some(if a > b { 1.0 } else { 0.0 }),
        other => panic!("{other}"),
    }
}

/// Whether a counter is to be taken for a new one, by what is told of two samples that follow each other.
fn is_restart(before: (i64, Option<i64>), now: (i64, Option<i64>)) -> bool {
    let (Some(start_ms), true) = (now.1, before.1 != now.1) else { return false };
    let is_delta = start_ms == before.0 && before.1.is_some_and(|start_before_ms| start_before_ms < before.0);
    start_ms < now.0 && (start_ms > before.0 || is_delta)
}

fn over_time(
    function: &str,
    samples: &[(i64, f64)],
    starts: &Starts,
    start_ms: i64,
    end_ms: i64,
) -> Option<f64> {
    let told = |at_ms: i64| (at_ms, starts.get(&at_ms).copied());
    let falls = |pair: &&[(i64, f64)]| pair[1].1 < pair[0].1 || is_restart(told(pair[0].0), told(pair[1].0));
    let values: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
    let (first, last) = (*values.first()?, *values.last()?);
    let count = values.len() as f64;
    let pairs = || values.windows(2).map(|pair| (pair[0], pair[1]));
    let mean = values.iter().sum::<f64>() / count;
    let variance = || values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / count;
    Some(match function {
        "sum_over_time" => values.iter().sum(),
        "avg_over_time" => mean,
        "count_over_time" => count,
        "present_over_time" => 1.0,
        "first_over_time" => first,
        "last_over_time" => last,
        // NaN only if there is nothing else.
        "min_over_time" => values.iter().copied().fold(f64::NAN, f64::min),
        "max_over_time" => values.iter().copied().fold(f64::NAN, f64::max),
        "stdvar_over_time" => variance(),
        "stddev_over_time" => variance().sqrt(),
        "quantile_over_time" => {
            let mut sorted = values.clone();
            // NaN is less than all numbers.
            sorted.sort_by(|a, b| {
                b.is_nan().cmp(&a.is_nan()).then(a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))
            });
            let rank = 0.3 * (count - 1.0);
            let (low, high) = (sorted[rank.floor() as usize], sorted[rank.ceil() as usize]);
            low * (1.0 - rank.fract()) + high * rank.fract()
        }
        "changes" => pairs().filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64,
        "resets" => samples.windows(2).filter(falls).count() as f64,
        "irate" | "idelta" => {
            let [.., before, newest] = samples else { return None };
            if function == "idelta" {
                newest.1 - before.1
            } else {
                let rise = if falls(&&[*before, *newest][..]) { newest.1 } else { newest.1 - before.1 };
                rise / ((newest.0 - before.0) as f64 / 1_000.0)
            }
        }
        "rate" | "increase" | "delta" => {
            let is_counter = function != "delta";
            let mut rise = last - first;
            if is_counter {
                rise += samples.windows(2).filter(falls).map(|pair| pair[0].1).sum::<f64>();
            }
            let seconds = |from_ms: i64, to_ms: i64| (to_ms - from_ms) as f64 / 1_000.0;
            let (first_ms, last_ms) = (samples[0].0, samples[samples.len() - 1].0);
            let zero_ms =
                starts.get(&first_ms).filter(|zero_ms| **zero_ms > start_ms && **zero_ms < first_ms);
            if samples.len() < 2 && !(is_counter && zero_ms.is_some()) {
                return None;
            }
            let sampled = seconds(first_ms, last_ms);
            let between = if samples.len() < 2 { 0.0 } else { sampled / (count - 1.0) };
            // What is further away than a sample's distance is taken to be half of one.
            let reach = |gap: f64| if gap >= between * 1.1 { between / 2.0 } else { gap };
            if let (Some(&zero_ms), true) = (zero_ms, is_counter) {
                // One more sample, of which nobody needs to guess how long it was there before.
                let (sampled, after) = (seconds(zero_ms, last_ms), reach(seconds(last_ms, end_ms)));
                let factor = (sampled + after) / sampled;
                let rise = rise + first;
                return Some(
                    rise * if function == "rate" { factor / seconds(start_ms, end_ms) } else { factor },
                );
            }
            let mut before = reach(seconds(start_ms, first_ms));
            if is_counter && rise > 0.0 && first >= 0.0 {
                before = before.min(sampled * (first / rise));
            }
            // In Prometheus' order: a filter around it may hang on the last bit.
            let factor = (sampled + before + reach(seconds(last_ms, end_ms))) / sampled;
            rise * if function == "rate" { factor / seconds(start_ms, end_ms) } else { factor }
        }
        other => panic!("{other}"),
    })
}
