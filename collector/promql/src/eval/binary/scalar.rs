//! Operators between a vector and a scalar.

use super::arithmetic::{Outcome, floats, points};
use crate::annotations::{Annotations, Place};
use crate::ast::{Binary, BinaryOp};
use crate::eval::Scalar;
use crate::eval::column::{Column, Point, Series};

pub(super) struct Operation<'o> {
    pub(super) binary: &'o Binary,
    pub(super) scalar: &'o Scalar,
    /// Whether the scalar stands left.
    pub(super) is_swapped: bool,
    pub(super) place: &'o Place,
}

impl Operation<'_> {
    pub(super) fn apply(&self, series: Vec<Series>, annotations: &mut Annotations) -> Vec<Series> {
        let drops_name = self.binary.op.changes_schema() || self.binary.return_bool;
        let trims = matches!(self.binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        series
            .into_iter()
            .filter_map(|mut series| {
                series.column = if series.column.has_histograms() || trims {
                    self.mixed(&series.column, annotations)
                } else {
                    self.floats(series.column)
                };
                series.drop_name |= drops_name;
                (!series.column.is_empty()).then_some(series)
            })
            .collect()
    }

    /// The operator over a column of floats.
    fn floats(&self, column: Column) -> Column {
        let op = self.binary.op;
        let first = column.bounds().start;
        let value = |index: usize, float: f64| {
            let scalar = self.scalar.at(first + index);
            let (lhs, rhs) = if self.is_swapped { (scalar, float) } else { (float, scalar) };
            floats(op, lhs, rhs)
        };
        if self.binary.return_bool {
            return column
                .map_indexed(|index, float| Some(f64::from(u8::from(value(index, float).is_some()))));
        }
        if op.is_comparison() {
            // What is kept is the vector's element, also if it stands right.
            return column.map_indexed(|index, float| value(index, float).map(|_| float));
        }
        column.map_indexed(value)
    }

    fn mixed(&self, column: &Column, annotations: &mut Annotations) -> Column {
        let mut out = Column::default();
        for (step, point) in column.points() {
            let scalar = Point::Float(self.scalar.at(step));
            let (lhs, rhs) = if self.is_swapped { (&scalar, &point) } else { (&point, &scalar) };
            let Outcome::Value(value, keep) = points(self.binary.op, lhs, rhs, self.place, annotations)
            else {
                continue;
            };
            if self.binary.return_bool {
                out.push_float(step, f64::from(u8::from(keep)));
            } else if self.binary.op.is_comparison() {
                if keep {
                    out.push(step, point);
                }
            } else {
                out.push(step, value);
            }
        }
        out
    }
}
