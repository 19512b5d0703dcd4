//! Two answers to one query: are they the same, and if not, is that one of the differences that are known
//! between Prometheus 2.42 and 3?

use serde_json::Value;
use std::collections::BTreeMap;

/// Relative difference of two results that come of the same samples in another order of additions.
const RELATIVE: f64 = 1e-9;
/// The same where the result is nearly zero: of the inputs' magnitude.
const ABSOLUTE: f64 = 1e-9;

/// What became of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    Same,
    Known(Difference),
    Different(String),
}

/// Where Prometheus 3 answers differently by intention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// 2.42 removes a metric's name at once and then cannot tell two series apart; 3 does so at the end,
    /// where they may have come together in an aggregation or have gone.
    NamesGoAtTheEnd,
    /// A comparison of two vectors keeps the left one's labels; in 3 also the name that a function below had
    /// marked for removal.
    NameIsKept,
    /// 2.42 lets a comparison filter several matches of a series down to one.
    FilteredMatches,
}

/// Series by their labels, with times as they were printed.
type Series = BTreeMap<String, Vec<(String, f64)>>;

/// Compares status and body of both answers. Texts of errors are not compared: 3 words many of them anew.
pub(crate) fn compare(query: &str, ours: &(u16, String), theirs: &(u16, String)) -> Outcome {
    let json = |body: &str| serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
    let (our_json, their_json) = (json(&ours.1), json(&theirs.1));
    match (ours.0, theirs.0) {
        (200, 200) => {
            let (ours, theirs) = (&our_json["data"], &their_json["data"]);
            if ours["resultType"] != theirs["resultType"] {
                return Outcome::Different(format!("{} for {}", ours["resultType"], theirs["resultType"]));
            }
            let Some(what) = difference(&series(ours, true), &series(theirs, true)) else {
                return Outcome::Same;
            };
            match difference(&series(ours, false), &series(theirs, false)) {
                None if has_vector_comparison(query) => Outcome::Known(Difference::NameIsKept),
                _ => Outcome::Different(what),
            }
        }
        (200, _) => {
            let error = their_json["error"].as_str().unwrap_or_default();
            if error.contains("same labelset") {
                Outcome::Known(Difference::NamesGoAtTheEnd)
            } else {
                Outcome::Different(format!("an answer for the error {error:?}"))
            }
        }
        (422, 200)
            if our_json["error"].as_str().is_some_and(|error| error.starts_with("multiple matches")) =>
        {
            Outcome::Known(Difference::FilteredMatches)
        }
        (a, b) if a == b && our_json["errorType"] == their_json["errorType"] => Outcome::Same,
        (a, b) => Outcome::Different(format!("{a} {} for {b} {}", our_json["error"], their_json["error"])),
    }
}

/// Whether the query compares two vectors without `bool`, as the generator writes it.
fn has_vector_comparison(query: &str) -> bool {
    [" == ", " != ", " > ", " < ", " >= ", " <= "]
        .iter()
        .any(|op| query.split(op).skip(1).any(|rhs| !rhs.starts_with("bool")))
}

fn series(data: &Value, names: bool) -> Series {
    let point = |pair: &Value| {
        let value = pair[1].as_str().unwrap_or_default();
        (pair[0].to_string(), value.parse::<f64>().unwrap_or(f64::NAN))
    };
    if data["resultType"] == "scalar" {
        return BTreeMap::from([(String::new(), vec![point(&data["result"])])]);
    }
    let mut all = Series::new();
    for series in data["result"].as_array().into_iter().flatten() {
        let labels: BTreeMap<&String, &Value> = series["metric"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(label, _)| names || *label != "__name__")
            .collect();
        let points = match series["values"].as_array() {
            Some(values) => values.iter().map(point).collect(),
            None => vec![point(&series["value"])],
        };
        all.insert(format!("{labels:?}"), points);
    }
    all
}

fn difference(ours: &Series, theirs: &Series) -> Option<String> {
    for (labels, points) in ours {
        let Some(wanted) = theirs.get(labels) else { return Some(format!("{labels} is too many")) };
        let mut pairs = points.iter().zip(wanted);
        if let Some((ours, theirs)) =
            pairs.find(|(ours, theirs)| ours.0 != theirs.0 || !is_near(ours.1, theirs.1))
        {
            return Some(format!("{labels}: {ours:?} for {theirs:?}"));
        }
        if points.len() != wanted.len() {
            return Some(format!("{labels}: {} points for {}", points.len(), wanted.len()));
        }
    }
    let missing = theirs.keys().find(|labels| !ours.contains_key(*labels))?;
    Some(format!("{missing} is missing"))
}

fn is_near(a: f64, b: f64) -> bool {
    a == b
        || (a.is_nan() && b.is_nan())
        || (a - b).abs() <= ABSOLUTE
        || (a - b).abs() <= RELATIVE * a.abs().max(b.abs()) && a.is_finite() && b.is_finite()
}
