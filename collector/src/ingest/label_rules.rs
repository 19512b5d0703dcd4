//! Which labels a series may have, whichever door it comes through.

use crate::limits::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_PER_SERIES_MAX};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_tsdb::histogram::PART_LABEL;
use pharos_tsdb::is_reserved_label;
use pharos_tsdb::starts::START_LABEL;

/// Why a series is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// No metric name.
    #[error("series {0} has no metric name")]
    NoName(String),
    /// Too many labels.
    #[error("a series with {0} labels; at most {LABELS_PER_SERIES_MAX} are taken")]
    TooMany(usize),
    /// A label without a name.
    #[error("a label without a name (value {0:?})")]
    EmptyName(String),
    /// A label's name is too long.
    #[error("label name {0:?}… is longer than {LABEL_NAME_BYTES_MAX} bytes")]
    LongName(String),
    /// A label's value is too long.
    #[error("the value of label {0:?} is longer than {LABEL_VALUE_BYTES_MAX} bytes")]
    LongValue(String),
    /// One of the labels that the engine keeps for itself.
    #[error("labels {PART_LABEL:?} and {START_LABEL:?} are reserved")]
    Reserved,
    /// A label twice.
    #[error("label {0:?} is given twice")]
    Twice(String),
}

/// Builds the labels of a series from pairs in any order. Empty values mean "no such label".
///
/// # Errors
/// What is wrong with them.
pub fn checked_labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Labels, LabelFault> {
    let mut sorted: Vec<(&str, &str)> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    if sorted.len() > LABELS_PER_SERIES_MAX {
        return Err(LabelFault::TooMany(sorted.len()));
    }
    sorted.sort_unstable();
    for (name, value) in &sorted {
        if name.is_empty() {
            return Err(LabelFault::EmptyName(value.chars().take(40).collect()));
        }
        if is_reserved_label(name) {
            return Err(LabelFault::Reserved);
        }
        if name.len() > LABEL_NAME_BYTES_MAX {
            return Err(LabelFault::LongName(name.chars().take(40).collect()));
        }
        if value.len() > LABEL_VALUE_BYTES_MAX {
            return Err(LabelFault::LongValue((*name).to_owned()));
        }
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(LabelFault::Twice(pair[0].0.to_owned()));
    }
    let mut packed =
        Vec::with_capacity(sorted.iter().map(|(name, value)| name.len() + value.len() + 4).sum());
    let mut named = false;
    for (name, value) in &sorted {
        named |= *name == METRIC_NAME;
        pharos_common::labels::push_label(&mut packed, name, value);
    }
    let labels = Labels::from_bytes(&packed).unwrap_or_else(|| Labels::from_pairs(sorted));
    if named { Ok(labels) } else { Err(LabelFault::NoName(labels.to_string())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_checked() {
        let labels = checked_labels([("job", "a"), ("__name__", "up"), ("gone", "")]).unwrap();
        assert_eq!(labels.to_string(), r#"up{job="a"}"#);
        assert_eq!(checked_labels([("a", "1")]), Err(LabelFault::NoName(r#"{a="1"}"#.into())));
        assert_eq!(
            checked_labels([("__name__", "up"), ("a", "1"), ("a", "2")]),
            Err(LabelFault::Twice("a".into()))
        );
        for reserved in [PART_LABEL, START_LABEL] {
            assert_eq!(checked_labels([("__name__", "up"), (reserved, "1")]), Err(LabelFault::Reserved));
        }
        let long = "v".repeat(LABEL_VALUE_BYTES_MAX + 1);
        assert_eq!(
            checked_labels([("__name__", "up"), ("a", long.as_str())]),
            Err(LabelFault::LongValue("a".into()))
        );
        let many: Vec<(String, String)> =
            (0..=LABELS_PER_SERIES_MAX).map(|i| (format!("l{i}"), "1".to_owned())).collect();
        let many = many.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(checked_labels(many), Err(LabelFault::TooMany(LABELS_PER_SERIES_MAX + 1)));
    }
}
