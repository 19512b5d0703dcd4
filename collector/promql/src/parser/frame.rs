//! What the parser is inside of: one frame per open parenthesis, call, aggregation, sign or operator.

use crate::ast::{AggregateOp, BinaryOp, NodeId, VectorMatching};
use crate::functions::Function;
use crate::span::Span;

pub(super) enum Frame {
    /// `lhs op` and its right side is being read.
    Binary { op: BinaryOp, lhs: NodeId, return_bool: bool, matching: VectorMatching },
    /// A sign, and its operand is being read.
    Unary { negative: bool, start: usize },
    /// `(`
    Paren { start: usize },
    /// `name(`
    Call { function: &'static Function, start: usize, args: Vec<NodeId> },
    /// `sum(` or `sum by (…) (`
    Aggregate { op: AggregateOp, start: usize, modifier: Option<Grouping>, args: Vec<NodeId> },
}

/// `by (…)` or `without (…)`
pub(super) struct Grouping {
    pub(super) labels: Vec<String>,
    pub(super) without: bool,
}

/// The place of an operator between two operands, without blanks: where type errors point.
pub(super) fn operator_span(query: &str, lhs: Span, rhs: Span) -> Span {
    let between = query.get(lhs.end..rhs.start).unwrap_or("");
    let blank = [' ', '\t', '\n', '\r'];
    let start = lhs.end + (between.len() - between.trim_start_matches(blank).len());
    let end = lhs.end + between.trim_end_matches(blank).len();
    Span::new(start, end.max(start))
}
