//! Long work in between looks at a query's budget.

use crate::error::QueryError;
use crate::storage::Budget;
use std::cell::Cell;

/// Samples that are looked at from one look at the budget to the next.
pub(crate) const STRIDE: usize = 1 << 20;

/// Counts samples that are looked at, and every so many of them says whether to go on: a window of many
/// samples at each of many steps takes long.
pub(crate) struct Meter<'b> {
    pub(crate) budget: &'b Budget,
    left: Cell<usize>,
}

impl<'b> Meter<'b> {
    pub(crate) fn new(budget: &'b Budget) -> Self {
        Meter { budget, left: Cell::new(STRIDE) }
    }

    /// Counts samples that are about to be looked at.
    ///
    /// # Errors
    /// If the query may not go on.
    #[inline]
    pub(crate) fn visit(&self, samples: usize) -> Result<(), QueryError> {
        match self.left.get().checked_sub(samples) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => self.look(),
        }
    }

    #[cold]
    fn look(&self) -> Result<(), QueryError> {
        self.left.set(STRIDE);
        Ok(self.budget.check()?)
    }

    /// Counts samples and hands them on in pieces with a look at the budget in between.
    #[inline]
    pub(crate) fn pieces<'s, T>(
        &'s self,
        samples: &'s [T],
    ) -> impl Iterator<Item = Result<&'s [T], QueryError>> {
        samples.chunks(STRIDE).map(|piece| self.visit(piece.len()).map(|()| piece))
    }
}
