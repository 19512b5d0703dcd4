//! `count_values`: as many series per group as there are different values.

use super::group_labels;
use crate::ast::Aggregate;
use crate::error::QueryError;
use crate::eval::column::{Column, Point, Series};
use crate::eval::meter::Meter;
use crate::number::format_float;
use crate::storage::Budget;
use pharos_common::labels::Labels;
use std::collections::HashMap;

/// To write a value as text takes about as long as to look at so many floats.
const TEXT_VISITS: usize = 64;

/// Samples that a series counts for by itself, from where there are more of them than were counted: values
/// that change from step to step make as many as there are samples.
const SERIES_COST: usize = 16;

pub(super) fn count_values(
    series: Vec<Series>,
    label: &str,
    aggregate: &Aggregate,
    steps: usize,
    budget: &Budget,
) -> Result<Vec<Series>, QueryError> {
    let mut grouping = aggregate.grouping.clone();
    if !aggregate.without {
        grouping.push(label.to_owned());
    }
    let mut index: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
    let mut counted: Vec<Series> = Vec::new();
    // Labels of a series with a value, found once for runs of equal values.
    let inputs = series.len();
    let mut known: Vec<Option<(String, usize)>> = vec![None; inputs];
    let mut counts: Vec<u64> = Vec::new();
    let meter = Meter::new(budget);
    let mut held = 0;
    let mut hold = |cost: usize| {
        held += cost;
        budget.take(cost)
    };
    for step in 0..steps {
        meter.visit(counts.len())?;
        counts.fill(0);
        for (series, known) in series.iter().zip(&mut known) {
            meter.visit(TEXT_VISITS)?;
            let text = match series.column.point(step) {
                Some(Point::Float(value)) => format_float(value),
                Some(Point::Histogram(histogram)) => crate::histogram::to_text(&histogram),
                None => continue,
            };
            let group = match known {
                Some((before, group)) if *before == text => *group,
                _ => {
                    let mut labels = series.labels.to_builder();
                    labels.set(label, &text);
                    let labels = group_labels(&labels.build(), &grouping, aggregate.without);
                    let next = counted.len();
                    let group = *index.entry(labels).or_insert_with_key(|labels| {
                        counted.push(Series {
                            labels: labels.clone(),
                            drop_name: false,
                            column: Column::default(),
                        });
                        next
                    });
                    if counted.len() > next && next >= inputs {
                        hold(SERIES_COST + text.len() / 16)?;
                    }
                    *known = Some((text, group));
                    group
                }
            };
            counts.resize(counted.len(), 0);
            counts[group] += 1;
        }
        for (series, &count) in counted.iter_mut().zip(&counts) {
            if count > 0 {
                let before = series.column.len();
                series.column.push_float(step, count as f64);
                hold(series.column.len() - before)?;
            }
        }
    }
    budget.put_back(held);
    Ok(counted)
}
