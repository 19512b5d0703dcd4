//! Limits: an explosion of series is refused and its sender named, and storage keeps to its size.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use pharos_tsdb::{AppendBatch, Database, Options, Row, SeriesLimit, TsdbError, Unlimited};
use std::path::Path;
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;

fn open(io: &MemoryIo, options: Options) -> Database {
    let clock: Arc<ManualClock> = ManualClock::new(1_000 * DAY_MS);
    Database::open(Arc::new(io.clone()), Path::new("/tsdb"), options, clock).unwrap().0
}

fn options() -> Options {
    Options { housekeeping: false, retention_ms: None, ..Options::default() }
}

fn series(instance: &str, number: usize) -> Labels {
    Labels::from_pairs([("__name__", "metric"), ("instance", instance), ("id", &number.to_string())])
}

fn append(database: &Database, labels: Labels, timestamp_ms: i64) -> Result<(), TsdbError> {
    let group = database.define_group(&[labels])?;
    database.append(&AppendBatch { rows: &[Row { group, timestamp_ms, values: &[1.0] }], mark: None })?;
    Ok(())
}

#[test]
fn an_explosion_costs_its_sender_new_series_and_nobody_else_anything() {
    let per_value = Some(("instance".to_owned(), 10));
    let database = open(&MemoryIo::new(), Options { series_per_value: per_value, ..options() });
    for number in 0..10 {
        append(&database, series("bad", number), 1_000).unwrap();
    }
    for number in 10..500 {
        let refused = append(&database, series("bad", number), 1_000);
        let of = SeriesLimit::PerValue { label: "instance".to_owned(), value: "bad".to_owned() };
        assert_eq!(refused.unwrap_err().to_string(), TsdbError::TooManySeries { limit: 10, of }.to_string());
    }
    append(&database, series("good", 1), 1_000).unwrap();
    append(&database, series("bad", 3), 2_000).unwrap();
    assert_eq!(database.stats().series_refused, 490);
    let statistics = database.statistics(2, "instance");
    assert_eq!(statistics.refused_by_culprit, [("metric{instance=\"bad\"}".to_owned(), 490)]);
    assert_eq!(statistics.series_by_value, [("bad".to_owned(), 10), ("good".to_owned(), 1)]);
    assert_eq!(statistics.series_by_metric, [("metric".to_owned(), 11)]);
    assert_eq!(statistics.values_by_label, [("id".to_owned(), 10), ("instance".to_owned(), 2)]);
    assert_eq!((statistics.series, statistics.label_pairs, statistics.refused), (11, 13, 490));
    assert_eq!(database.select(&[], 0, 9_000, &Unlimited).unwrap().len(), 11);
}

#[test]
fn the_total_and_the_size_of_labels_are_limited() {
    let limits = Options { series_max: 3, labels_max: 4, label_bytes_max: 100, ..options() };
    let database = open(&MemoryIo::new(), limits);
    let refused = |labels: Labels| match append(&database, labels, 1_000) {
        Err(TsdbError::TooManySeries { limit, of }) => Some((limit, of)),
        _ => None,
    };
    let many = Labels::from_pairs(["a", "b", "c", "d", "e"].map(|name| (name, name)));
    assert_eq!(refused(many), Some((4, SeriesLimit::Labels)));
    assert_eq!(refused(Labels::from_pairs([("a", "x".repeat(100))])), Some((100, SeriesLimit::LabelBytes)));
    for number in 0..3 {
        assert_eq!(refused(series("a", number)), None);
    }
    assert_eq!(refused(series("a", 3)), Some((3, SeriesLimit::Total)));
    assert_eq!(refused(series("a", 2)), None);
}

#[test]
fn what_was_taken_once_is_there_after_a_restart_with_smaller_limits() {
    let io = MemoryIo::new();
    let database = open(&io, options());
    for number in 0..20 {
        append(&database, series("a", number), 1_000).unwrap();
    }
    database.close().unwrap();
    drop(database);
    let database = open(&io, Options { series_max: 5, ..options() });
    assert_eq!(database.select(&[], 0, 9_000, &Unlimited).unwrap().len(), 20);
    append(&database, series("a", 7), 2_000).unwrap();
    append(&database, series("a", 20), 2_000).unwrap_err();
}

#[test]
fn the_oldest_blocks_go_when_storage_is_too_large() {
    let io = MemoryIo::new();
    let database = open(&io, options());
    for day in 0..5 {
        for row in 0..50 {
            append(&database, series("a", 1), day * DAY_MS + row * row * 1_000).unwrap();
        }
        database.flush().unwrap();
    }
    let all = database.stats();
    assert_eq!(all.blocks, 5);
    drop(database);
    let retention_bytes = Some(all.block_bytes / 5 * 3 + all.journal_bytes + 100);
    let database = open(&io, Options { retention_bytes, housekeeping: true, ..options() });
    while database.stats().blocks > 3 {
        std::thread::yield_now();
    }
    assert!(database.select(&[], 0, 2 * DAY_MS - 1, &Unlimited).unwrap().is_empty());
    assert_eq!(database.select(&[], 2 * DAY_MS, 5 * DAY_MS, &Unlimited).unwrap()[0].values.len(), 150);
}
