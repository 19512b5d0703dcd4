//! `label_replace` and `label_join`.

use crate::ast::{Call, NodeId, NodeKind};
use crate::error::QueryError;
use crate::eval::column::Series;
use crate::eval::{Evaluated, Evaluator, merge_same_labels};
use crate::plan::Grid;
use pharos_common::labels::METRIC_NAME;

/// Compiled size of a pattern, bytes: a bomb is refused instead of filling memory.
const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

/// Length of a label's value that no query is charged for, bytes.
const TEXT_FREE_BYTES: usize = 1 << 10;

/// Samples that a label's value of so many bytes counts for until the query ends: labels live on in what is
/// made of them, and calls inside each other make them longer and longer.
fn text_cost(length: usize) -> usize {
    length.saturating_sub(TEXT_FREE_BYTES).div_ceil(16)
}

impl Evaluator<'_> {
    pub(super) fn label_replace(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let [vector, target, replacement, source, pattern] = call.args[..] else {
            return Ok(Evaluated::Vector(Vec::new()));
        };
        let (target, replacement) = (self.label_name(target), self.text(replacement));
        let (source, pattern) = (self.text(source), self.text(pattern));
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
            .size_limit(REGEX_SIZE_LIMIT_BYTES)
            .build()
            .map_err(|_| {
                QueryError::execution(format!("invalid regular expression in label_replace(): {pattern}"))
            })?;
        let target = target.map_err(|name| {
            QueryError::execution(format!("invalid destination label name in label_replace(): {name}"))
        })?;
        let references = replacement.matches('$').count();
        let mut series = self.take_vector(vector, grid)?;
        for series in &mut series {
            self.budget.check()?;
            let value = series.labels.get(&source).unwrap_or("");
            if let Some(captures) = regex.captures(value) {
                let most = replacement.len().saturating_add(references.saturating_mul(value.len()));
                self.budget.take(text_cost(most))?;
                let mut text = String::new();
                captures.expand(&replacement, &mut text);
                self.budget.put_back(text_cost(most));
                self.budget.take(text_cost(text.len()))?;
                set_label(series, &target, &text);
            }
        }
        merge_same_labels(series, self.budget).map(Evaluated::Vector)
    }

    pub(super) fn label_join(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let [vector, target, separator, ref sources @ ..] = call.args[..] else {
            return Ok(Evaluated::Vector(Vec::new()));
        };
        let separator = self.text(separator);
        let sources = sources.iter().map(|&source| self.label_name(source)).collect::<Result<Vec<_>, _>>();
        let sources = sources.map_err(|name| {
            QueryError::execution(format!("invalid source label name in label_join(): {name}"))
        })?;
        let target = self.label_name(target).map_err(|name| {
            QueryError::execution(format!("invalid destination label name in label_join(): {name}"))
        })?;
        let mut series = self.take_vector(vector, grid)?;
        for series in &mut series {
            let values: Vec<&str> =
                sources.iter().map(|source| series.labels.get(source).unwrap_or("")).collect();
            let length = values
                .iter()
                .fold(0usize, |length, value| length.saturating_add(value.len() + separator.len()));
            self.budget.check()?;
            self.budget.take(text_cost(length))?;
            let text = values.join(&separator);
            set_label(series, &target, &text);
        }
        merge_same_labels(series, self.budget).map(Evaluated::Vector)
    }
}

impl Evaluator<'_> {
    /// A label's name from an argument: any text but an empty one or one that is no UTF-8, which is given
    /// back as well as it can be shown.
    fn label_name(&self, id: NodeId) -> Result<String, String> {
        match &self.plan.expr.node(self.plan.expr.unparenthesised(id)).kind {
            NodeKind::String(text) => match text.as_str() {
                Some(name) if !name.is_empty() => Ok(name.to_owned()),
                _ => Err(text.to_text()),
            },
            _ => Err(String::new()),
        }
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
