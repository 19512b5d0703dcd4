//! Durations: written out, or to be calculated when the query's range and step are known.

use pharos_common::duration::PrometheusDuration;
use std::fmt::{self, Write};

/// A duration in a query.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationValue {
    /// Known, in milliseconds.
    Fixed(i64),
    /// `5m * 2`, `step()`, …
    Expr(DurationExpr),
}

impl DurationValue {
    /// Whether it is written as zero, or not written.
    pub fn is_zero(&self) -> bool {
        matches!(self, DurationValue::Fixed(0))
    }

    /// The milliseconds, if they are written out.
    pub fn fixed(&self) -> Option<i64> {
        match self {
            DurationValue::Fixed(millis) => Some(*millis),
            DurationValue::Expr(_) => None,
        }
    }

    /// The milliseconds it stands for.
    ///
    /// # Errors
    /// As [`DurationExpr::evaluate`].
    pub fn resolve(
        &self,
        step_ms: i64,
        range_ms: i64,
        allow_negative: bool,
    ) -> Result<i64, DurationExprError> {
        match self {
            DurationValue::Fixed(millis) => Ok(*millis),
            DurationValue::Expr(expr) => expr.evaluate(step_ms, range_ms, allow_negative),
        }
    }
}

impl fmt::Display for DurationValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DurationValue::Fixed(millis) if *millis < 0 => {
                write!(f, "-{}", PrometheusDuration::from_millis(millis.unsigned_abs()))
            }
            DurationValue::Fixed(millis) => {
                write!(f, "{}", PrometheusDuration::from_millis(millis.unsigned_abs()))
            }
            DurationValue::Expr(expr) => expr.fmt(f),
        }
    }
}

/// Names a node of one [`DurationExpr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationId(pub(crate) u32);

/// An operator or function on durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// `a % b`
    Mod,
    /// `a ^ b`
    Pow,
    /// `min_of(a, b)`
    Min,
    /// `max_of(a, b)`
    Max,
}

/// A part of a duration expression.
#[derive(Clone, Debug, PartialEq)]
pub enum DurationNode {
    /// A number of seconds, or a duration written with units.
    Number {
        /// Seconds.
        seconds: f64,
        /// Written with units.
        with_unit: bool,
    },
    /// `step()`
    Step,
    /// `range()`
    Range,
    /// `-a`
    Negative(DurationId),
    /// `(a)`
    Paren(DurationId),
    /// Two operands.
    Binary(DurationOp, DurationId, DurationId),
}

/// A duration to be calculated: nodes in one vector, operands first, the last is the whole.
#[derive(Clone, Debug, PartialEq)]
pub struct DurationExpr {
    pub(crate) nodes: Vec<DurationNode>,
}

/// Why a duration cannot be calculated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationExprError {
    /// `5m / 0`
    #[error("division by zero")]
    DivisionByZero,
    /// `5m % 0`
    #[error("modulo by zero")]
    ModuloByZero,
    /// Zero or less where time must pass.
    #[error("duration must be greater than 0")]
    NotPositive,
    /// Longer than 292 years.
    #[error("duration is out of range")]
    OutOfRange,
}

impl DurationExpr {
    /// The nodes, operands first; the last is the whole expression.
    pub fn nodes(&self) -> &[DurationNode] {
        &self.nodes
    }

    /// The milliseconds it stands for in a query with this step and range.
    ///
    /// # Errors
    /// If it divides by zero, leaves the range of durations, or is not positive where it must be.
    pub fn evaluate(
        &self,
        step_ms: i64,
        range_ms: i64,
        allow_negative: bool,
    ) -> Result<i64, DurationExprError> {
        let mut values: Vec<f64> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let value = |id: &DurationId| values.get(id.0 as usize).copied().unwrap_or(0.0);
            values.push(match node {
                DurationNode::Number { seconds, .. } => *seconds,
                DurationNode::Step => step_ms as f64 / 1000.0,
                DurationNode::Range => range_ms as f64 / 1000.0,
                DurationNode::Negative(inner) => -value(inner),
                DurationNode::Paren(inner) => value(inner),
                DurationNode::Binary(op, lhs, rhs) => apply(*op, value(lhs), value(rhs))?,
            });
        }
        let seconds = values.last().copied().unwrap_or(0.0);
        if seconds <= 0.0 && !allow_negative {
            return Err(DurationExprError::NotPositive);
        }
        // Durations are nanoseconds in an i64 in Prometheus.
        if seconds.is_nan() || seconds.abs() * 1e9 >= i64::MAX as f64 {
            return Err(DurationExprError::OutOfRange);
        }
        Ok((seconds * 1000.0) as i64)
    }
}

fn apply(op: DurationOp, lhs: f64, rhs: f64) -> Result<f64, DurationExprError> {
    Ok(match op {
        DurationOp::Add => lhs + rhs,
        DurationOp::Sub => lhs - rhs,
        DurationOp::Mul => lhs * rhs,
        DurationOp::Div if rhs == 0.0 => return Err(DurationExprError::DivisionByZero),
        DurationOp::Div => lhs / rhs,
        DurationOp::Mod if rhs == 0.0 => return Err(DurationExprError::ModuloByZero),
        DurationOp::Mod => lhs % rhs,
        DurationOp::Pow => lhs.powf(rhs),
        DurationOp::Min => lhs.min(rhs),
        DurationOp::Max => lhs.max(rhs),
    })
}

impl fmt::Display for DurationExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        enum Piece {
            Text(&'static str),
            Node(DurationId),
        }
        // A stack of what is still to be written, so that depth costs no call stack.
        let mut pieces = vec![Piece::Node(DurationId(self.nodes.len().saturating_sub(1) as u32))];
        while let Some(piece) = pieces.pop() {
            let id = match piece {
                Piece::Text(text) => {
                    f.write_str(text)?;
                    continue;
                }
                Piece::Node(id) => id,
            };
            match self.nodes.get(id.0 as usize) {
                None => {}
                Some(DurationNode::Number { seconds, with_unit }) => {
                    write_seconds(f, *seconds, *with_unit)?;
                }
                Some(DurationNode::Step) => f.write_str("step()")?,
                Some(DurationNode::Range) => f.write_str("range()")?,
                Some(DurationNode::Negative(inner)) => {
                    f.write_char('-')?;
                    pieces.push(Piece::Node(*inner));
                }
                Some(DurationNode::Paren(inner)) => {
                    f.write_char('(')?;
                    pieces.extend([Piece::Text(")"), Piece::Node(*inner)]);
                }
                Some(DurationNode::Binary(op, lhs, rhs)) => {
                    let (before, between, after) = match op {
                        DurationOp::Add => ("", " + ", ""),
                        DurationOp::Sub => ("", " - ", ""),
                        DurationOp::Mul => ("", " * ", ""),
                        DurationOp::Div => ("", " / ", ""),
                        DurationOp::Mod => ("", " % ", ""),
                        DurationOp::Pow => ("", " ^ ", ""),
                        DurationOp::Min => ("min_of(", ", ", ")"),
                        DurationOp::Max => ("max_of(", ", ", ")"),
                    };
                    f.write_str(before)?;
                    pieces.extend([
                        Piece::Text(after),
                        Piece::Node(*rhs),
                        Piece::Text(between),
                        Piece::Node(*lhs),
                    ]);
                }
            }
        }
        Ok(())
    }
}

/// A number of seconds as a literal prints: with units if it was written so.
pub(crate) fn write_seconds(f: &mut fmt::Formatter<'_>, seconds: f64, with_unit: bool) -> fmt::Result {
    if !with_unit {
        return f.write_str(&crate::number::format_float(seconds));
    }
    if seconds < 0.0 {
        f.write_char('-')?;
    }
    write!(f, "{}", PrometheusDuration::from_millis((seconds.abs() * 1000.0).round() as u64))
}
