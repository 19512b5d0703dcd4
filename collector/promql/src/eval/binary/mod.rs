//! Operators between scalars and vectors.

mod arithmetic;
mod matching;
mod scalar;
mod set;

pub(crate) use arithmetic::Outcome;

use super::{Evaluated, Evaluator, Scalar};
use crate::ast::{Binary, NodeId, ValueType};
use crate::error::QueryError;

impl Evaluator<'_> {
    pub(super) fn binary(&mut self, id: NodeId, binary: &Binary) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let types = (self.plan.expr.type_of(binary.lhs), self.plan.expr.type_of(binary.rhs));
        let place = self.place(id);
        Ok(match types {
            (ValueType::Scalar, ValueType::Scalar) => {
                let lhs = self.take_scalar(binary.lhs, grid)?;
                let rhs = self.take_scalar(binary.rhs, grid)?;
                match (&lhs, &rhs) {
                    (Scalar::Constant(lhs), Scalar::Constant(rhs)) => {
                        Evaluated::Constant(arithmetic::scalars(binary.op, *lhs, *rhs))
                    }
                    _ => Evaluated::Scalar(
                        (0..grid.steps)
                            .map(|step| arithmetic::scalars(binary.op, lhs.at(step), rhs.at(step)))
                            .collect(),
                    ),
                }
            }
            (ValueType::Vector, ValueType::Scalar) => {
                let series = self.take_vector(binary.lhs, grid)?;
                let scalar = self.take_scalar(binary.rhs, grid)?;
                let operation =
                    scalar::Operation { binary, scalar: &scalar, is_swapped: false, place: &place };
                Evaluated::Vector(operation.apply(series, &mut self.annotations))
            }
            (ValueType::Scalar, ValueType::Vector) => {
                let scalar = self.take_scalar(binary.lhs, grid)?;
                let series = self.take_vector(binary.rhs, grid)?;
                let operation =
                    scalar::Operation { binary, scalar: &scalar, is_swapped: true, place: &place };
                Evaluated::Vector(operation.apply(series, &mut self.annotations))
            }
            _ => {
                let lhs = self.take_vector(binary.lhs, grid)?;
                let rhs = self.take_vector(binary.rhs, grid)?;
                let matching = binary.matching.clone().unwrap_or_default();
                self.budget.check()?;
                Evaluated::Vector(if binary.op.is_set_operator() {
                    set::apply(binary.op, lhs, rhs, &matching, grid.steps, self.budget)?
                } else {
                    let operation =
                        matching::Operation { binary, matching: &matching, place: &place, steps: grid.steps };
                    operation.apply(lhs, rhs, &mut self.annotations, self.budget)?
                })
            }
        })
    }
}
