//! Answers of different servers compared: which series, which points, which values.

use anyhow::{Context, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Values closer than this are the same: sums in another order differ by so much.
const SAME_WITHIN: f64 = 1e-9;

/// Labels of a series as text.
type Labels = String;
/// Timestamps in milliseconds and values.
type Points = BTreeMap<i64, f64>;

/// An answer to a query.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    series: BTreeMap<Labels, Points>,
}

impl Answer {
    /// Reads the JSON of Prometheus' API.
    pub(crate) fn parse(body: &[u8]) -> anyhow::Result<Answer> {
        let json: Value = serde_json::from_slice(body)?;
        let mut series = BTreeMap::new();
        for item in json["data"]["result"].as_array().context("no result")? {
            let metric = item["metric"].as_object().context("no metric")?;
            let mut labels: Vec<(&String, &Value)> = metric.iter().collect();
            labels.sort_by_key(|(name, _)| *name);
            let labels: String = labels.iter().map(|(name, value)| format!("{name}={value},")).collect();
            let mut points = Points::new();
            let many = item["values"].as_array().into_iter().flatten();
            for point in many.chain(Some(&item["value"]).filter(|value| value.is_array())) {
                let at = point[0].as_f64().context("no timestamp")?;
                let value = point[1].as_str().context("no value")?;
                points.insert((at * 1_000.0).round() as i64, value.replace("Inf", "inf").parse()?);
            }
            if series.insert(labels, points).is_some() {
                bail!("a series is there twice");
            }
        }
        Ok(Answer { series })
    }

    /// How many series it has.
    pub(crate) fn len(&self) -> usize {
        self.series.len()
    }

    /// The same without metric names, which servers keep or drop by rules of their own.
    fn nameless(&self) -> Answer {
        let strip = |labels: &Labels| match labels.strip_prefix("__name__=") {
            Some(rest) => rest.split_once(',').map_or(String::new(), |(_, rest)| rest.to_owned()),
            None => labels.clone(),
        };
        Answer {
            series: self.series.iter().map(|(labels, points)| (strip(labels), points.clone())).collect(),
        }
    }

    /// FNV-1a of series, timestamps and the bits of the values: equal for equal answers.
    pub(crate) fn checksum(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        let mut add = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        for (labels, points) in &self.series {
            add(labels.as_bytes());
            for (at, value) in points {
                add(&at.to_le_bytes());
                add(&value.to_bits().to_le_bytes());
            }
        }
        format!("{hash:016x}")
    }

    /// How another server's answer relates to this one.
    pub(crate) fn compare(&self, other: &Answer) -> Agreement {
        let agreement = self.compare_as_is(other);
        if agreement.series_differ == 0 {
            return agreement;
        }
        let (mine, theirs) = (self.nameless(), other.nameless());
        let whole = mine.len() == self.len() && theirs.len() == other.len();
        if whole { mine.compare_as_is(&theirs) } else { agreement }
    }

    fn compare_as_is(&self, other: &Answer) -> Agreement {
        let missing = self.series.keys().filter(|labels| !other.series.contains_key(*labels)).count();
        let extra = other.series.keys().filter(|labels| !self.series.contains_key(*labels)).count();
        let mut agreement = Agreement { series_differ: missing + extra, ..Agreement::default() };
        for (labels, mine) in &self.series {
            let Some(theirs) = other.series.get(labels) else { continue };
            for (at, &value) in mine {
                match theirs.get(at) {
                    Some(&their) => {
                        agreement.points += 1;
                        agreement.difference = agreement.difference.max(difference(value, their));
                    }
                    None => agreement.points_differ += 1,
                }
            }
            agreement.points_differ += theirs.keys().filter(|at| !mine.contains_key(at)).count();
        }
        agreement
    }
}

/// The instances and the values, as milliseconds, of an instant query's answer that is timestamps.
pub(crate) fn timestamps(body: &[u8]) -> anyhow::Result<Vec<(String, i64)>> {
    let json: Value = serde_json::from_slice(body)?;
    let result = json["data"]["result"].as_array().context("no result")?.iter();
    let stamp = |item: &Value| {
        let seconds: f64 = item["value"][1].as_str()?.parse().ok()?;
        Some((item["metric"]["instance"].as_str()?.to_owned(), (seconds * 1_000.0).round() as i64))
    };
    Ok(result.filter_map(stamp).collect())
}

/// The relative difference of two values.
fn difference(mine: f64, theirs: f64) -> f64 {
    if mine.to_bits() == theirs.to_bits() || mine == theirs || (mine.is_nan() && theirs.is_nan()) {
        return 0.0;
    }
    let largest = mine.abs().max(theirs.abs());
    if largest.is_finite() { (mine - theirs).abs() / largest } else { 1.0 }
}

/// How far two answers agree.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Agreement {
    /// Series that one of them lacks.
    series_differ: usize,
    /// Points of common series that one of them lacks.
    points_differ: usize,
    /// Points of both.
    points: usize,
    /// The largest relative difference among those.
    difference: f64,
}

impl Agreement {
    /// The same series, points, and values but for rounding.
    pub(crate) fn same(&self) -> bool {
        self.series_differ == 0 && self.points_differ == 0 && self.difference <= SAME_WITHIN
    }

    /// For the results.
    pub(crate) fn json(&self, why: Option<&str>) -> Value {
        let class = match () {
            () if self.same() && self.difference == 0.0 => "identical",
            () if self.same() => "same but for rounding",
            () if self.series_differ == 0 && self.points_differ == 0 => "same series, other values",
            () if self.series_differ == 0 => "same series, other points",
            () => "other series",
        };
        let mut json = json!({"class": class});
        if !self.same() {
            json["series_differ"] = self.series_differ.into();
            json["points_differ"] = self.points_differ.into();
            json["points_same_time"] = self.points.into();
            json["largest_relative_difference"] = self.difference.into();
            json["why"] = why.into();
        }
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Answer {
        Answer::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn answers_are_compared_by_series_points_and_values() {
        let one = |name: &str, value: &str| {
            answer(&format!(
                r#"{{"data":{{"result":[{{"metric":{{{name}"a":"b"}},"values":[[1.5,"{value}"],[2,"NaN"]]}}]}}}}"#
            ))
        };
        let mine = one(r#""__name__":"x","#, "1");
        let class = |other: &Answer| mine.compare(other).json(None)["class"].as_str().unwrap().to_owned();
        assert_eq!(class(&mine), "identical");
        assert_eq!(class(&one("", "1")), "identical");
        assert_eq!(class(&one("", "1.0000000000001")), "same but for rounding");
        assert_eq!(class(&one("", "1.1")), "same series, other values");
        assert_eq!(class(&one("", "+Inf")), "same series, other values");
        assert_eq!(class(&one(r#""c":"d","#, "1")), "other series");
        let short = r#"{"data":{"result":[{"metric":{"a":"b"},"value":[1.5,"1"]}]}}"#;
        assert_eq!(class(&answer(short)), "same series, other points");
    }
}
