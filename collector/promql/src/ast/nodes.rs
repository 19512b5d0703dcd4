//! The kinds of nodes, one struct each.

use super::{AggregateOp, BinaryOp, DurationValue, NodeId, ValueType};
use crate::functions::Function;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;

/// A number as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberLiteral {
    /// Its value; a duration in seconds.
    pub value: f64,
    /// Whether it was written as a duration (`5m`).
    pub is_duration: bool,
}

/// A text in quotes. Escapes may make bytes that are no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringLiteral {
    /// The text without quotes and escapes.
    pub bytes: Vec<u8>,
}

impl StringLiteral {
    /// The text, unless it is no UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// The text with what is no UTF-8 replaced.
    pub fn to_text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// `@ 1600000000`, `@ start()` or `@ end()`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtModifier {
    /// A time, milliseconds since the epoch.
    Timestamp(TimestampMs),
    /// The start of the query's range.
    Start,
    /// The end of the query's range.
    End,
}

impl AtModifier {
    /// The time it stands for in a query from `start_ms` to `end_ms`.
    pub fn resolve(self, start_ms: TimestampMs, end_ms: TimestampMs) -> TimestampMs {
        match self {
            AtModifier::Timestamp(timestamp_ms) => timestamp_ms,
            AtModifier::Start => start_ms,
            AtModifier::End => end_ms,
        }
    }
}

/// Whether samples outside a range count for its edges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RangeExtension {
    /// Only samples inside the range count.
    #[default]
    None,
    /// `anchored`: the last sample before the range stands for its start.
    Anchored,
    /// `smoothed`: values at the edges are interpolated.
    Smoothed,
}

/// Selects series, and the newest sample of each.
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The metric's name if it stands before the braces, else empty.
    pub name: String,
    /// All conditions. The one for a name before the braces comes last.
    pub matchers: Vec<Matcher>,
    /// `offset`; zero if not written.
    pub offset: DurationValue,
    /// `@`
    pub at: Option<AtModifier>,
    /// `anchored` or `smoothed`
    pub extension: RangeExtension,
}

impl VectorSelector {
    /// The metric's name, wherever it is written, if one `=` matcher fixes it.
    pub fn metric_name(&self) -> Option<&str> {
        self.matchers
            .iter()
            .find(|matcher| {
                matcher.name() == pharos_common::labels::METRIC_NAME
                    && matcher.op() == MatchOp::Equal
                    && !matcher.value().is_empty()
            })
            .map(Matcher::value)
    }

    /// Whether neither `@`, `offset` nor an extension moves what it reads: the plain newest sample.
    pub fn is_plain(&self) -> bool {
        self.at.is_none() && self.offset.is_zero() && self.extension == RangeExtension::None
    }
}

/// Selects series, and all samples of each in a range of time.
#[derive(Clone, Debug)]
pub struct Range {
    /// Which series; also carries `@`, `offset` and the extension.
    pub selector: VectorSelector,
    /// How far back, left-open.
    pub range: DurationValue,
}

/// Evaluates an instant vector at many times.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What to evaluate.
    pub expr: NodeId,
    /// How far back, left-open.
    pub range: DurationValue,
    /// How often; `None` for the default interval.
    pub step: Option<DurationValue>,
    /// `offset`; zero if not written.
    pub offset: DurationValue,
    /// `@`
    pub at: Option<AtModifier>,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which.
    pub function: &'static Function,
    /// Its arguments.
    pub args: Vec<NodeId>,
}

/// An aggregation.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// The instant vector.
    pub expr: NodeId,
    /// The parameter, for operators that have one.
    pub param: Option<NodeId>,
    /// Labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether `grouping` says what to drop.
    pub without: bool,
}

/// How many series on each side may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One with one.
    OneToOne,
    /// `group_left`
    ManyToOne,
    /// `group_right`
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// How series of two vectors find each other.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorMatching {
    /// How many on each side.
    pub cardinality: Cardinality,
    /// Labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// Whether `labels` are those that count (`on`).
    pub on: bool,
    /// Labels of `group_left` or `group_right`, taken over from the one side.
    pub include: Vec<String>,
    /// Stands for a missing series on the left.
    pub fill_left: Option<f64>,
    /// Stands for a missing series on the right.
    pub fill_right: Option<f64>,
    /// Written as one `fill(…)` for both sides.
    pub fill_both: bool,
}

impl Default for VectorMatching {
    fn default() -> Self {
        VectorMatching {
            cardinality: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
            fill_both: false,
        }
    }
}

/// An operator between two expressions.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Which.
    pub op: BinaryOp,
    /// What stands left.
    pub lhs: NodeId,
    /// What stands right.
    pub rhs: NodeId,
    /// `bool`: comparisons give 0 or 1 instead of filtering.
    pub return_bool: bool,
    /// How series are matched; `None` where a side is a scalar.
    pub matching: Option<VectorMatching>,
    /// Scalar or vector, from the operands.
    pub(crate) value_type: ValueType,
}

/// A sign before an expression.
#[derive(Clone, Copy, Debug)]
pub struct Unary {
    /// Whether the sign is `-`; else `+`.
    pub negative: bool,
    /// What follows.
    pub expr: NodeId,
}
