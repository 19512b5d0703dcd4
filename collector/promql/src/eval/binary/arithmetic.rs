//! Operators on single values.

use crate::annotations::{Annotations, Place};
use crate::ast::BinaryOp;
use crate::eval::column::Point;
use crate::quote::go_quote;

/// An operator between two numbers; comparisons give 0 or 1.
pub(super) fn scalars(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    match floats(op, lhs, rhs) {
        Some(_) if op.is_comparison() => 1.0,
        Some(value) => value,
        None => 0.0,
    }
}

/// An operator between two floats. A comparison that holds gives its left side, else nothing.
#[inline]
pub(super) fn floats(op: BinaryOp, lhs: f64, rhs: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => lhs + rhs,
        BinaryOp::Sub => lhs - rhs,
        BinaryOp::Mul => lhs * rhs,
        BinaryOp::Div => lhs / rhs,
        BinaryOp::Mod => lhs % rhs,
        BinaryOp::Pow => lhs.powf(rhs),
        BinaryOp::Atan2 => lhs.atan2(rhs),
        _ => return compare(op, lhs, rhs).then_some(lhs),
    })
}

#[inline]
fn compare(op: BinaryOp, lhs: f64, rhs: f64) -> bool {
    match op {
        BinaryOp::Equal => lhs == rhs,
        BinaryOp::NotEqual => lhs != rhs,
        BinaryOp::Greater => lhs > rhs,
        BinaryOp::Less => lhs < rhs,
        BinaryOp::GreaterEqual => lhs >= rhs,
        BinaryOp::LessEqual => lhs <= rhs,
        _ => false,
    }
}

/// What an operator makes of two samples.
pub(crate) enum Outcome {
    /// A value, and whether a comparison held.
    Value(Point, bool),
    /// The operator does not know these types; a remark says so.
    Refused,
}

/// An operator between two samples, histograms among them.
pub(super) fn points(
    op: BinaryOp,
    lhs: &Point,
    rhs: &Point,
    place: &Place,
    annotations: &mut Annotations,
) -> Outcome {
    match (lhs, rhs) {
        (Point::Float(lhs), Point::Float(rhs))
            if !matches!(op, BinaryOp::TrimLower | BinaryOp::TrimUpper) =>
        {
            match floats(op, *lhs, *rhs) {
                Some(value) => Outcome::Value(Point::Float(value), true),
                None => Outcome::Value(Point::Float(*lhs), false),
            }
        }
        _ => crate::histogram::operate(op, lhs, rhs, place, annotations).unwrap_or_else(|| {
            let text = format!(
                "incompatible sample types encountered for binary operator {}: {} {op} {}",
                go_quote(op.as_str()),
                type_name(lhs),
                type_name(rhs)
            );
            annotations.info(&text, place);
            Outcome::Refused
        }),
    }
}

fn type_name(point: &Point) -> &'static str {
    match point {
        Point::Float(_) => "float",
        Point::Histogram(_) => "histogram",
    }
}
