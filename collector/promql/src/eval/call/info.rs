//! `info`: labels of info metrics joined to series.

use crate::ast::{Call, NodeId};
use crate::error::QueryError;
use crate::eval::{Evaluated, Evaluator};

impl Evaluator<'_> {
    pub(super) fn info(&mut self, id: NodeId, call: &Call) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let series = call.args.first().map_or(Vec::new(), |&arg| self.take_vector(arg, grid));
        Ok(Evaluated::Vector(series))
    }
}
