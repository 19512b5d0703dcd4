//! `label_replace` and `label_join`.

use crate::ast::Call;
use crate::error::QueryError;
use crate::eval::column::Series;
use crate::eval::{Evaluated, Evaluator, merge_same_labels};
use crate::plan::Grid;
use pharos_common::labels::METRIC_NAME;

/// Compiled size of a pattern, bytes: a bomb is refused instead of filling memory.
const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

impl Evaluator<'_> {
    pub(super) fn label_replace(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let [vector, target, replacement, source, pattern] = call.args[..] else {
            return Ok(Evaluated::Vector(Vec::new()));
        };
        let (target, replacement) = (self.text(target), self.text(replacement));
        let (source, pattern) = (self.text(source), self.text(pattern));
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(REGEX_SIZE_LIMIT_BYTES)
            .build()
            .map_err(|_| {
                QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
            })?;
        if target.is_empty() {
            return Err(QueryError::execution(format!(
                "invalid destination label name in label_replace(): {target}"
            )));
        }
        let mut series = self.take_vector(vector, grid);
        for series in &mut series {
            let value = series.labels.get(&source).unwrap_or("");
            if let Some(captures) = regex.captures(value) {
                let mut text = String::new();
                captures.expand(&replacement, &mut text);
                set_label(series, &target, &text);
            }
        }
        merge_same_labels(series).map(Evaluated::Vector)
    }

    pub(super) fn label_join(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let [vector, target, separator, ref sources @ ..] = call.args[..] else {
            return Ok(Evaluated::Vector(Vec::new()));
        };
        let (target, separator) = (self.text(target), self.text(separator));
        let sources: Vec<String> = sources.iter().map(|&source| self.text(source)).collect();
        if let Some(source) = sources.iter().find(|source| source.is_empty()) {
            return Err(QueryError::execution(format!(
                "invalid source label name in label_join(): {source}"
            )));
        }
        if target.is_empty() {
            return Err(QueryError::execution(format!(
                "invalid destination label name in label_join(): {target}"
            )));
        }
        let mut series = self.take_vector(vector, grid);
        for series in &mut series {
            let values: Vec<&str> =
                sources.iter().map(|source| series.labels.get(source).unwrap_or("")).collect();
            let text = values.join(&separator);
            set_label(series, &target, &text);
        }
        merge_same_labels(series).map(Evaluated::Vector)
    }
}

fn set_label(series: &mut Series, label: &str, value: &str) {
    let mut labels = series.labels.to_builder();
    labels.set(label, value);
    series.labels = labels.build();
    if label == METRIC_NAME {
        // A name that was given on purpose stays.
        series.drop_name = false;
    }
}
