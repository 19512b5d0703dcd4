//! Operators and aggregations over histograms.

use super::accumulate::{Accumulator, Added};
use super::trim::{Drop, trimmed};
use super::{compacted, divide, equal, scaled};
use crate::annotations::{Annotations, Place};
use crate::ast::BinaryOp;
use crate::eval::Outcome;
use crate::eval::column::Point;
use crate::quote::go_quote;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use std::sync::Arc;

/// An operator between samples of which one at least is a histogram, or which trims. `None` if it does
/// not know their types.
pub(crate) fn operate(
    op: BinaryOp,
    lhs: &Point,
    rhs: &Point,
    place: &Place,
    annotations: &mut Annotations,
) -> Option<Outcome> {
    let value = |histogram: FloatHistogram| Some(Outcome::Value(Point::Histogram(Arc::new(histogram)), true));
    match (lhs, op, rhs) {
        (Point::Float(factor), BinaryOp::Mul, Point::Histogram(histogram))
        | (Point::Histogram(histogram), BinaryOp::Mul, Point::Float(factor)) => {
            value(compacted(&scaled(histogram, *factor)))
        }
        (Point::Histogram(histogram), BinaryOp::Div, Point::Float(divisor)) => {
            let mut quotient = FloatHistogram::clone(histogram);
            divide(&mut quotient, *divisor);
            value(compacted(&quotient))
        }
        (Point::Histogram(histogram), BinaryOp::TrimUpper, Point::Float(bound)) => {
            value(trimmed(histogram, *bound, Drop::Above))
        }
        (Point::Histogram(histogram), BinaryOp::TrimLower, Point::Float(bound)) => {
            value(trimmed(histogram, *bound, Drop::Below))
        }
        (Point::Histogram(a), BinaryOp::Add | BinaryOp::Sub, Point::Histogram(b)) => {
            let mut sum = Accumulator::new(a);
            let is_sum = op == BinaryOp::Add;
            let Ok(added) = sum.add(b, if is_sum { 1.0 } else { -1.0 }) else {
                let text = format!("incompatible bucket layout encountered for binary operator {op}");
                annotations.warn(&text, place);
                return Some(Outcome::Refused);
            };
            remark(added, if is_sum { "addition" } else { "subtraction" }, place, annotations);
            let mut sum = sum.finish();
            if !is_sum {
                sum.counter_reset_hint = CounterResetHint::Gauge;
            }
            value(compacted(&sum))
        }
        (Point::Histogram(a), BinaryOp::Equal, Point::Histogram(b)) => {
            Some(Outcome::Value(lhs.clone(), equal(a, b)))
        }
        (Point::Histogram(a), BinaryOp::NotEqual, Point::Histogram(b)) => {
            Some(Outcome::Value(lhs.clone(), !equal(a, b)))
        }
        _ => None,
    }
}

/// Remarks on what had to be done to add histograms.
pub(crate) fn remark(added: Added, operation: &str, place: &Place, annotations: &mut Annotations) {
    if added.hints_collide {
        let text = format!("conflicting counter resets during histogram {operation}");
        annotations.warn(&text, place);
    }
    if added.bounds_reconciled {
        annotations.info(&format!("mismatched custom buckets were reconciled during {operation}"), place);
    }
}

/// How histograms of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blend {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

/// Sum or mean of histograms, each with its metric's name. `None` if they do not fit together.
pub(crate) fn blend(
    kind: Blend,
    histograms: &[(Arc<FloatHistogram>, &str)],
    place: &Place,
    annotations: &mut Annotations,
) -> Option<FloatHistogram> {
    let list: Vec<&FloatHistogram> = histograms.iter().map(|(histogram, _)| &**histogram).collect();
    match blend_plain(kind, &list) {
        Ok((histogram, mut added)) => {
            added.hints_collide = hints_collide(&list);
            remark(added, "aggregation", place, annotations);
            Some(compacted(&histogram))
        }
        Err(index) => {
            let name = histograms.get(index).map_or("", |(_, name)| name);
            let text = format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {}",
                go_quote(name)
            );
            annotations.warn(&text, place);
            None
        }
    }
}

/// Whether some say they were reset and others that they were not.
fn hints_collide(histograms: &[&FloatHistogram]) -> bool {
    let says = |hint| histograms.iter().any(|histogram| histogram.counter_reset_hint == hint);
    says(CounterResetHint::Reset) && says(CounterResetHint::NotReset)
}

/// Sum or mean of at least one histogram, and what had to be done. Fails with the index of the one that
/// does not fit.
pub(crate) fn blend_plain(
    kind: Blend,
    histograms: &[&FloatHistogram],
) -> Result<(FloatHistogram, Added), usize> {
    let Some((first, rest)) = histograms.split_first() else { return Err(0) };
    let mut total = Accumulator::new(first);
    let mut all = Added { hints_collide: hints_collide(histograms), bounds_reconciled: false };
    let mut count = 1.0;
    // From where the sum would overflow, the running mean is kept instead.
    let mut is_running = false;
    for (index, histogram) in rest.iter().enumerate() {
        count += 1.0;
        if !is_running {
            let before = if kind == Blend::Mean { Some(total.clone()) } else { None };
            let added = total.add(histogram, 1.0).map_err(|_| index + 1)?;
            all.bounds_reconciled |= added.bounds_reconciled;
            match before {
                Some(before) if total.overflows() => {
                    total = before;
                    total.scale(1.0 / (count - 1.0));
                    is_running = true;
                }
                _ => continue,
            }
        }
        total.scale((count - 1.0) / count);
        let mut part = FloatHistogram::clone(histogram);
        divide(&mut part, count);
        let added = total.add(&part, 1.0).map_err(|_| index + 1)?;
        all.bounds_reconciled |= added.bounds_reconciled;
    }
    let mut result = total.finish();
    if kind == Blend::Mean && !is_running {
        divide(&mut result, count);
    }
    Ok((result, all))
}
