//! Parts of a reading are read side by side, and what they came to is joined in their order: whatever adds up
//! series does so as if one thread had read them all.

use super::part::Part;
use crate::error::QueryError;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts that were read before their turn, and where the joined ones go.
struct Joining<J> {
    /// The part whose turn it is.
    next: usize,
    waiting: BTreeMap<usize, Part>,
    join: J,
    /// The first part that failed, and why.
    failed: Option<(usize, QueryError)>,
}

/// Reads all parts on up to `threads` threads, each of which takes the next one that is left, and hands what they
/// came to to `join`, in their order. `start` makes what a thread keeps from part to part.
pub(super) fn read_all<S: Send, W>(
    sets: Vec<S>,
    threads: usize,
    start: impl Fn() -> W + Sync,
    read: impl Fn(S, &mut W) -> Result<Part, QueryError> + Sync,
    join: impl FnMut(Part) -> Result<(), QueryError> + Send,
) -> Result<(), QueryError> {
    let helpers = threads.min(sets.len()).saturating_sub(1);
    let left = Mutex::new(sets.into_iter().enumerate());
    let joining = Mutex::new(Joining { next: 0, waiting: BTreeMap::new(), join, failed: None });
    let work = || {
        let mut state = start();
        loop {
            let next = lock(&left).next();
            let Some((number, set)) = next else { return };
            let part = read(set, &mut state);
            if !lock(&joining).offer(number, part) {
                // Nobody needs what is left.
                lock(&left).by_ref().for_each(drop);
            }
        }
    };
    let all_returned = std::thread::scope(|scope| {
        let others: Vec<_> = (0..helpers).map(|_| scope.spawn(work)).collect();
        work();
        // Not by `all`: each must be waited for here.
        others.into_iter().map(|thread| thread.join().is_ok()).fold(true, |all, one| all & one)
    });
    let joining = joining.into_inner().unwrap_or_else(PoisonError::into_inner);
    match joining.failed {
        Some((_, error)) => Err(error),
        None if all_returned => Ok(()),
        None => Err(QueryError::execution("unexpected error: evaluation stopped")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<J: FnMut(Part) -> Result<(), QueryError>> Joining<J> {
    /// Takes a part, and joins those whose turn it is; whether to go on.
    fn offer(&mut self, number: usize, part: Result<Part, QueryError>) -> bool {
        match part {
            Ok(part) => {
                self.waiting.insert(number, part);
            }
            Err(error) => self.fail(number, error),
        }
        while self.failed.is_none()
            && let Some(part) = self.waiting.remove(&self.next)
        {
            if let Err(error) = (self.join)(part) {
                self.fail(self.next, error);
            }
            self.next += 1;
        }
        self.failed.is_none()
    }

    fn fail(&mut self, number: usize, error: QueryError) {
        if self.failed.as_ref().is_none_or(|(earlier, _)| number < *earlier) {
            self.failed = Some((number, error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(series_read: usize) -> Result<Part, QueryError> {
        Ok(Part { series_read, ..Part::default() })
    }

    #[test]
    fn parts_are_joined_in_their_order_whoever_reads_them() {
        for threads in [1, 2, 7] {
            let mut joined = Vec::new();
            let join = |part: Part| {
                joined.push(part.series_read);
                Ok(())
            };
            read_all((0..100).collect(), threads, || (), |number, ()| part(number), join).unwrap();
            assert_eq!(joined, (0..100).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_part_that_fails_ends_the_reading() {
        let read = |number: usize, (): &mut ()| match number {
            40 => Err(QueryError::execution("broken")),
            number => part(number),
        };
        for threads in [1, 3] {
            let mut joined = 0;
            let join = |_| {
                joined += 1;
                Ok(())
            };
            let error = read_all((0..100).collect(), threads, || (), read, join).unwrap_err();
            assert_eq!(error.to_string(), "broken");
            assert!(joined <= 40);
        }
        let refused =
            read_all(vec![1, 2], 1, || (), |number, ()| part(number), |_| Err(QueryError::TooManySamples));
        assert!(matches!(refused, Err(QueryError::TooManySamples)));
    }
}
