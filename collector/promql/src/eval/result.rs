//! The end of a query: metric names that had to go, go; columns become samples.

use super::column::{Point, Series};
use super::{Evaluated, Evaluator, SAME_LABELS, merge_same_labels};
use crate::ast::{NodeKind, ValueType};
use crate::error::QueryError;
use crate::storage::{HistogramSample, SeriesColumns};
use crate::value::{MatrixSeries, QueryResult, SampleValue, Value, VectorSample};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::Sample;
use std::collections::HashSet;
use std::time::Instant;

/// Labels that say what is measured, not who is: they go with the metric's name.
fn is_metadata(label: &str) -> bool {
    matches!(label, METRIC_NAME | "__type__" | "__unit__")
}

/// The labels without those that say what is measured.
pub(crate) fn without_metadata(labels: &Labels) -> Labels {
    if labels.iter().any(|(name, _)| is_metadata(name)) {
        labels.filtered(|name| !is_metadata(name))
    } else {
        labels.clone()
    }
}

impl Evaluator<'_> {
    pub(super) fn finish(mut self) -> Result<QueryResult, QueryError> {
        let root = self.plan.expr.root;
        let grid = self.plan.grid;
        let is_instant = self.plan.setting.step_ms == 0;
        let time_ms = grid.start_ms;
        let text_node = self.plan.expr.unparenthesised(root);
        let value = match self.plan.expr.value_type() {
            ValueType::String => match &self.plan.expr.node(text_node).kind {
                NodeKind::String(text) => Value::String { timestamp_ms: time_ms, text: text.to_text() },
                _ => Value::String { timestamp_ms: time_ms, text: String::new() },
            },
            ValueType::Scalar => {
                let scalar = self.take_scalar(root, grid)?;
                if is_instant {
                    Value::Scalar(Sample { timestamp_ms: time_ms, value: scalar.at(0) })
                } else {
                    self.budget.take(grid.steps)?;
                    let floats = (0..grid.steps)
                        .map(|step| Sample { timestamp_ms: grid.time(step), value: scalar.at(step) })
                        .collect();
                    Value::Matrix(vec![MatrixSeries { floats, ..MatrixSeries::default() }])
                }
            }
            ValueType::Vector => {
                let series = self.take_vector(root, grid)?;
                if is_instant {
                    Value::Vector(instant_vector(series, time_ms)?)
                } else {
                    let merged = merge_same_labels(with_final_names(series), self.budget)?;
                    let columns = merged.into_iter().map(|series| super::to_samples(series, grid));
                    let matrix = columns.map(matrix_series).collect();
                    Value::Matrix(self.sorted(matrix))
                }
            }
            ValueType::Matrix => {
                let samples = match self.take(text_node, grid)? {
                    Evaluated::Samples(samples) => samples,
                    _ => self.subquery_samples(text_node)?,
                };
                let matrix = samples.into_iter().map(matrix_series).collect();
                Value::Matrix(self.sorted(matrix))
            }
        };
        let (warnings, infos) = self.annotations.into_texts();
        self.stats.peak_samples = self.budget.peak_samples();
        self.stats.reads = self.budget.reads();
        let samples_per_step = self.looked_at.map_or(Vec::new(), |counts| counts.into_steps(self.plan));
        Ok(QueryResult { value, warnings, infos, stats: self.stats, samples_per_step })
    }
}

impl Evaluator<'_> {
    fn sorted(&mut self, mut matrix: Vec<MatrixSeries>) -> Vec<MatrixSeries> {
        let started = Instant::now();
        matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
        self.stats.sorted = started.elapsed();
        matrix
    }
}

fn with_final_names(mut series: Vec<Series>) -> Vec<Series> {
    for series in &mut series {
        if series.drop_name {
            series.labels = without_metadata(&series.labels);
        }
    }
    series
}

fn instant_vector(series: Vec<Series>, time_ms: i64) -> Result<Vec<VectorSample>, QueryError> {
    let mut seen = HashSet::with_capacity(series.len());
    let mut vector = Vec::with_capacity(series.len());
    for series in with_final_names(series) {
        let value = match series.column.point(0) {
            Some(Point::Float(value)) => SampleValue::Float(value),
            Some(Point::Histogram(histogram)) => SampleValue::Histogram(histogram),
            None => continue,
        };
        if !seen.insert(series.labels.clone()) {
            return Err(QueryError::execution(SAME_LABELS));
        }
        vector.push(VectorSample { labels: series.labels, timestamp_ms: time_ms, value });
    }
    Ok(vector)
}

fn matrix_series(series: SeriesColumns) -> MatrixSeries {
    let floats = series
        .timestamps
        .iter()
        .zip(&series.values)
        .map(|(&timestamp_ms, &value)| Sample { timestamp_ms, value })
        .collect();
    let histograms: Vec<HistogramSample> = series.histograms;
    MatrixSeries { labels: series.labels, floats, histograms }
}
