//! Which queries are answered sooner than another thread would begin to.
//!
//! To hand a query to a thread and to hear from it takes longer than most queries of dashboards and rules
//! themselves. How long each took when it was asked last is remembered; one that was quick is evaluated where
//! it arrives, within limits at which it is given up there and begins anew on a thread of its own. One of them
//! is that it reads no file.

use crate::queries::{QueryFailure, When};
use pharos_promql::QueryError;
use pharos_promql::storage::StorageError;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A query that took no longer is quick.
const QUICK_TIME_MAX: Duration = Duration::from_micros(500);

/// What a quick query may take where others wait for the same thread.
pub(crate) const TRIAL_TIME_MAX: Duration = Duration::from_millis(3);

/// Samples that it may hold there.
pub(crate) const TRIAL_SAMPLES_MAX: usize = 200_000;

/// Queries that are remembered.
const KNOWN_MAX: usize = 4_096;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct QuickQueries {
    /// Whether it was quick, by a hash: at worst, one query is taken for another.
    known: Mutex<HashMap<u64, bool, foldhash::fast::RandomState>>,
    hasher: foldhash::quality::RandomState,
}

/// A query and over how many steps it is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryKey(u64);

impl QuickQueries {
    pub(crate) fn key(&self, query: &str, when: When) -> QueryKey {
        let mut hasher = self.hasher.build_hasher();
        query.hash(&mut hasher);
        if let When::Range { start_ms, end_ms, step_ms } = when {
            (end_ms.wrapping_sub(start_ms), step_ms).hash(&mut hasher);
        }
        QueryKey(hasher.finish())
    }

    /// Whether it was quick when it was asked last.
    pub(crate) fn is_quick(&self, key: QueryKey) -> bool {
        self.known().get(&key.0).copied().unwrap_or(false)
    }

    /// Remembers how long it took.
    pub(crate) fn took(&self, key: QueryKey, time: Duration) {
        self.remember(key, time <= QUICK_TIME_MAX);
    }

    /// Remembers that it was not as quick as it had been.
    pub(crate) fn gave_up(&self, key: QueryKey) {
        self.remember(key, false);
    }

    fn remember(&self, key: QueryKey, is_quick: bool) {
        let mut known = self.known();
        if known.len() >= KNOWN_MAX {
            // What is asked again comes back soon.
            known.clear();
        }
        known.insert(key.0, is_quick);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u64, bool, foldhash::fast::RandomState>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a query ended at the limits that hold where it was tried, so that it is to begin anew.
pub(crate) fn is_given_up(error: &QueryFailure) -> bool {
    matches!(
        error,
        QueryFailure::Query(
            QueryError::TooManySamples
                | QueryError::TimedOut { .. }
                | QueryError::Storage(StorageError::NotInMemory)
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_quick_that_was_so_the_last_time() {
        let queries = QuickQueries::default();
        let range = |end_ms, step_ms| When::Range { start_ms: 1_000, end_ms, step_ms };
        let key = queries.key("up", range(61_000, 1_000));
        assert!(!queries.is_quick(key));
        queries.took(key, Duration::from_micros(20));
        assert!(queries.is_quick(key));
        // The same range later is the same query; more steps, or an instant, are others.
        assert!(
            queries
                .is_quick(queries.key("up", When::Range { start_ms: 5_000, end_ms: 65_000, step_ms: 1_000 }))
        );
        assert!(!queries.is_quick(queries.key("up", range(61_000, 500))));
        assert!(!queries.is_quick(queries.key("up", When::Instant(61_000))));
        queries.took(key, QUICK_TIME_MAX * 2);
        assert!(!queries.is_quick(key));
        queries.took(key, Duration::ZERO);
        queries.gave_up(key);
        assert!(!queries.is_quick(key));
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let queries = QuickQueries::default();
        for number in 0..3 * KNOWN_MAX {
            queries.took(queries.key(&number.to_string(), When::Instant(0)), Duration::ZERO);
            assert!(queries.known().len() <= KNOWN_MAX);
        }
    }
}
