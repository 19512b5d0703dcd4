//! A reader that must not wait for a disk is answered from memory, or told that it cannot be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use pharos_common::summary::{Span, SummaryFields};
use pharos_tsdb::{AppendBatch, Database, Options, ReadBudget, ReadError, Row, Unlimited};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;
const ROWS: i64 = 720;

/// No limits, and no files.
struct InMemory;

impl ReadBudget for InMemory {
    type Refusal = Infallible;

    fn take(&self, _samples: usize) -> Result<(), Infallible> {
        Ok(())
    }

    fn give_back(&self, _samples: usize) {}

    fn may_read_files(&self) -> bool {
        false
    }

    fn check(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn open(io: &MemoryIo) -> Database {
    let options = Options { housekeeping: false, retention_ms: None, ..Options::default() };
    Database::open(Arc::new(io.clone()), Path::new("/tsdb"), options, ManualClock::new(48 * HOUR_MS))
        .unwrap()
        .0
}

fn select<B: ReadBudget>(database: &Database, budget: &B) -> Result<usize, ReadError<B::Refusal>> {
    let series = database.select(&[], 0, 48 * HOUR_MS, budget)?;
    Ok(series.iter().map(|series| series.values.len()).sum())
}

fn newest<B: ReadBudget>(database: &Database, budget: &B) -> Result<usize, ReadError<B::Refusal>> {
    Ok(database.select_newest(&[], 0, 48 * HOUR_MS, budget)?.len())
}

fn summarize<B: ReadBudget>(database: &Database, budget: &B) -> Result<u64, ReadError<B::Refusal>> {
    let spans =
        [Span { after_ms: 0, until_ms: HOUR_MS }, Span { after_ms: HOUR_MS, until_ms: 2 * HOUR_MS + 7 }];
    let mut summaries = database.summarize(&[], spans.into(), SummaryFields::ALL, budget)?.unwrap();
    let (mut count, mut out) = (0, Vec::new());
    while summaries.next_series(budget, &mut out)?.is_some() {
        count += out.iter().map(|summary| summary.count).sum::<u64>();
    }
    Ok(count)
}

#[test]
fn what_was_read_before_is_answered_without_a_file() {
    let io = MemoryIo::new();
    let database = open(&io);
    let group = database.define_group(&[Labels::from_pairs([("__name__", "metric")])]).unwrap();
    for row in 0..ROWS {
        let values = [(row * row % 97) as f64 / 7.0];
        let row = Row { group, timestamp_ms: row * 10_000, values: &values };
        database.append(&AppendBatch { rows: &[row], mark: None }).unwrap();
    }
    // The head is in memory.
    assert_eq!((select(&database, &InMemory).unwrap(), newest(&database, &InMemory).unwrap()), (720, 1));
    database.flush().unwrap();
    database.close().unwrap();
    drop(database);
    let database = open(&io);
    assert!(matches!(select(&database, &InMemory), Err(ReadError::NotInMemory)));
    assert!(matches!(newest(&database, &InMemory), Err(ReadError::NotInMemory)));
    assert!(matches!(summarize(&database, &InMemory), Err(ReadError::NotInMemory)));
    assert_eq!(select(&database, &Unlimited).unwrap(), 720);
    assert_eq!(summarize(&database, &Unlimited).unwrap(), 719);
    assert_eq!((select(&database, &InMemory).unwrap(), newest(&database, &InMemory).unwrap()), (720, 1));
    assert_eq!(summarize(&database, &InMemory).unwrap(), 719);
    assert_eq!(database.stats().damaged_bytes, 0);
}
