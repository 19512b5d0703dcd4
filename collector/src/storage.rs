//! Joins the query engine to the storage engine: selections and budgets go down, columns come up.

use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
use pharos_tsdb::{Database, ReadBudget, ReadError};

/// The storage engine as queries see it.
#[derive(Clone, Debug)]
pub struct DatabaseStorage {
    database: Database,
}

impl DatabaseStorage {
    /// Over an open engine.
    pub fn new(database: Database) -> Self {
        DatabaseStorage { database }
    }
}

struct QueryBudget<'a>(&'a Budget);

impl ReadBudget for QueryBudget<'_> {
    type Refusal = StorageError;

    fn take(&self, samples: usize) -> Result<(), StorageError> {
        self.0.take(samples)
    }

    fn give_back(&self, samples: usize) {
        self.0.put_back(samples);
    }

    fn check(&self) -> Result<(), StorageError> {
        self.0.check()
    }
}

impl Storage for DatabaseStorage {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        let Selection { matchers, start_ms, end_ms, .. } = *selection;
        let budget = QueryBudget(budget);
        let selected = if selection.hints.newest_only {
            self.database.select_newest(matchers, start_ms, end_ms, &budget)
        } else {
            self.database.select(matchers, start_ms, end_ms, &budget)
        };
        let selected = selected.map_err(|error| match error {
            ReadError::Refused(refusal) => refusal,
            other => StorageError::Failed(other.to_string().into()),
        })?;
        let columns: Vec<SeriesColumns> = selected
            .into_iter()
            .map(|series| SeriesColumns {
                histograms: series.histograms,
                ..SeriesColumns::floats(series.labels, series.timestamps, series.values)
            })
            .collect();
        Ok(Box::new(columns.into_iter()))
    }
}
