//! Limits: an explosion of series is refused and its sender named, and storage keeps to its size.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::histogram::{BucketSpan, FloatHistogram};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::storage_io::MemoryIo;
use pharos_tsdb::histogram::Shape;
use pharos_tsdb::{
    AppendBatch, Database, Metadata, MetricKind, Options, Row, SeriesLimit, TsdbError, Unlimited,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DAY_MS: i64 = 86_400_000;

fn open(io: &MemoryIo, options: Options) -> Database {
    open_at(io, options, ManualClock::new(1_000 * DAY_MS))
}

fn open_at(io: &MemoryIo, options: Options, clock: Arc<ManualClock>) -> Database {
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

/// Offers new series of a sender until one is refused for want of memory; how many were taken.
fn explode(database: &Database, timestamp_ms: i64) -> usize {
    for number in 0..100_000 {
        match append(database, series("bad", number), timestamp_ms) {
            Ok(()) => {}
            Err(TsdbError::TooManySeries { of: SeriesLimit::Memory, .. }) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nothing was refused");
}

#[test]
fn an_explosion_without_a_known_sender_ends_at_the_memory_for_series() {
    let database = open(&MemoryIo::new(), Options { head_bytes_max: 2 << 20, ..options() });
    append(&database, series("good", 1), 1_000).unwrap();
    let taken = explode(&database, 1_000);
    assert!(database.stats().head_index_bytes <= (1 << 20) + 4_096, "{:?}", database.stats());
    assert!(taken > 500, "{taken}");
    for number in taken..5_000 {
        append(&database, series("bad", number), 1_000).unwrap_err();
    }
    append(&database, series("good", 1), 2_000).unwrap();
    append(&database, series("bad", 7), 2_000).unwrap();
    let statistics = database.statistics(1, "instance");
    assert_eq!(
        statistics.refused_by_culprit,
        [("metric{instance=\"bad\"}".to_owned(), 5_001 - taken as u64)]
    );
}

#[test]
fn what_an_explosion_left_makes_room_by_itself() {
    let clock = ManualClock::new(1_000 * DAY_MS);
    let options = Options { head_bytes_max: 2 << 20, housekeeping: true, ..options() };
    let database = open_at(&MemoryIo::new(), options, Arc::clone(&clock));
    let mut now_ms = 1_000 * DAY_MS;
    explode(&database, now_ms);
    append(&database, series("good", 1), now_ms).unwrap_err();
    // Somebody whom the engine knows goes on writing, and the newcomer goes on asking.
    for _ in 0..2 {
        let written = database.stats().block_bytes_written;
        clock.advance(Duration::from_secs(600));
        now_ms += 600_000;
        append(&database, series("good", 1), now_ms).unwrap_err();
        append(&database, series("bad", 0), now_ms).unwrap();
        while database.stats().block_bytes_written == written {
            std::thread::yield_now();
        }
    }
    // The cut is seen a little before it has closed what is idle.
    while append(&database, series("good", 1), now_ms).is_err() {
        std::thread::yield_now();
    }
    assert_eq!(database.stats().head_series, 2);
}

#[test]
fn samples_are_written_out_before_memory_is_full_and_none_is_lost() {
    const WIDTH: usize = 200;
    const ROWS: i64 = 3_000;
    let head_bytes_max = 2 << 20;
    let io = MemoryIo::new();
    let database = open(&io, Options { head_bytes_max, housekeeping: true, ..options() });
    let columns: Vec<Labels> = (0..WIDTH).map(|number| series("a", number)).collect();
    // Nothing that compresses.
    let value = |row: i64, column: usize| {
        f64::from_bits((row as u64 * 256 + column as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2)
    };
    let mut group = database.define_group(&columns).unwrap();
    for row in 0..ROWS {
        let values: Vec<f64> = (0..WIDTH).map(|column| value(row, column)).collect();
        let append = |group| {
            let rows = [Row { group, timestamp_ms: row * 1_000, values: &values }];
            database.append(&AppendBatch { rows: &rows, mark: None })
        };
        if let Err(TsdbError::UnknownGroup(_)) = append(group) {
            group = database.define_group(&columns).unwrap();
            append(group).unwrap();
        }
    }
    let before = ROWS as u64 * WIDTH as u64 * 8;
    assert!(before > 2 * head_bytes_max as u64);
    while database.stats().head_sample_bytes > head_bytes_max as u64 {
        std::thread::yield_now();
    }
    assert!(database.stats().blocks > 0);
    for (column, found) in database.select(&[], 0, ROWS * 1_000, &Unlimited).unwrap().iter().enumerate() {
        let column = columns.iter().position(|labels| *labels == found.labels).unwrap_or(column);
        assert_eq!(found.values.len() as i64, ROWS);
        assert!((0..ROWS).all(|row| found.values[row as usize].to_bits() == value(row, column).to_bits()));
    }
}

/// A label set of so many bytes that is like no other.
fn large(number: usize, bytes: usize) -> Labels {
    let text = format!("{number:08}{}{number:08}", "x".repeat(bytes));
    Labels::from_pairs([("__name__", "large"), ("text", &text)])
}

#[test]
fn a_giant_append_is_taken_and_harms_nobody() {
    let io = MemoryIo::new();
    let database = open(&io, options());
    append(&database, series("good", 1), 1_000).unwrap();
    // More than a record of the journal may have.
    const GROUPS: usize = 1_200;
    let groups: Vec<_> =
        (0..GROUPS).map(|number| database.define_group(&[large(number, 60_000)]).unwrap()).collect();
    let row = |&group| Row { group, timestamp_ms: 1_000, values: &[2.0] };
    let rows: Vec<Row<'_>> = groups.iter().map(row).collect();
    let appended = database.append(&AppendBatch { rows: &rows, mark: None }).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(database.durable(appended.commit)).unwrap();
    append(&database, series("good", 1), 2_000).unwrap();
    database.close().unwrap();
    assert_eq!(database.poisoned(), None);
    drop(database);
    let (database, report) =
        Database::open(Arc::new(io), Path::new("/tsdb"), options(), ManualClock::new(1_000 * DAY_MS))
            .unwrap();
    assert_eq!((report.replayed_samples, report.damaged_bytes), (GROUPS as u64 + 2, 0));
    let good = database.select(&[Matcher::equal("instance", "good")], 0, 9_000, &Unlimited).unwrap();
    assert_eq!(*good[0].timestamps, [1_000, 2_000]);
}

#[test]
fn a_group_whose_definition_no_record_holds_is_refused() {
    let database = open(&MemoryIo::new(), Options { label_bytes_max: 1 << 20, ..options() });
    let columns: Vec<Labels> = (0..40).map(|number| large(number, 1_000_000)).collect();
    let refused = database.define_group(&columns).unwrap_err();
    assert!(
        matches!(refused, TsdbError::TooManySeries { of: SeriesLimit::GroupLabelBytes, .. }),
        "{refused}"
    );
    append(&database, series("good", 1), 1_000).unwrap();
}

/// Says what so many metrics mean, in a kilobyte each.
fn describe(database: &Database, metrics: std::ops::Range<usize>) {
    for number in metrics {
        let help = "h".repeat(1_000);
        let metadata = Metadata { kind: MetricKind::Counter, unit: String::new(), help };
        database.set_metadata(&format!("metric_{number:06}"), metadata);
    }
}

#[test]
fn metadata_has_its_bound_and_what_is_known_stays_and_can_change() {
    let io = MemoryIo::new();
    let database = open(&io, options());
    describe(&database, 0..20_000);
    let known = database.metadata();
    let bytes: usize = known.iter().map(|(metric, metadata)| metric.len() + metadata.help.len()).sum();
    assert!((7 << 20..8 << 20).contains(&bytes), "{bytes}");
    assert_eq!(known[0].0, "metric_000000");
    // Shorter texts take the place of longer ones, also when nothing more goes in.
    let metadata = Metadata { kind: MetricKind::Gauge, unit: String::new(), help: "short".to_owned() };
    database.set_metadata("metric_000000", metadata.clone());
    assert_eq!(database.metadata()[0].1, metadata);
    append(&database, series("good", 1), 1_000).unwrap();
    database.close().unwrap();
    drop(database);
    let database = open(&io, options());
    assert_eq!(database.metadata().len(), known.len());
    assert_eq!(database.metadata()[0].1, metadata);
}

#[test]
fn a_native_histogram_counts_as_one_series() {
    let per_value = Some(("instance".to_owned(), 2));
    let database = open(&MemoryIo::new(), Options { series_per_value: per_value, ..options() });
    let histogram = FloatHistogram {
        count: 3.0,
        positive_spans: vec![BucketSpan { offset: 0, length: 3 }],
        positive_buckets: vec![1.0; 3],
        ..FloatHistogram::default()
    };
    let shape = Shape::of(&histogram);
    for number in 0..2 {
        let columns = shape.series(&series("a", number));
        assert_eq!(columns.len(), 7);
        let group = database.define_group(&columns).unwrap();
        let values = shape.values(&histogram);
        let rows = [Row { group, timestamp_ms: 1_000, values: &values }];
        database.append(&AppendBatch { rows: &rows, mark: None }).unwrap();
    }
    let third = shape.series(&series("a", 2));
    database.define_group(&third).unwrap_err();
    let statistics = database.statistics(3, "instance");
    assert_eq!((statistics.series, database.stats().head_series), (2, 2));
    assert_eq!(statistics.series_by_metric, [("metric".to_owned(), 2)]);
    assert_eq!(statistics.series_by_value, [("a".to_owned(), 2)]);
    assert_eq!(statistics.refused_by_culprit, [("metric{instance=\"a\"}".to_owned(), 1)]);
}

#[test]
fn deleted_series_count_for_no_limit() {
    let per_value = Some(("instance".to_owned(), 10));
    let database = open(&MemoryIo::new(), Options { series_per_value: per_value, ..options() });
    for number in 0..10 {
        append(&database, series("a", number), 1_000).unwrap();
    }
    append(&database, series("a", 10), 1_000).unwrap_err();
    let wanted = [Matcher::equal("instance", "a"), Matcher::equal("id", "3")];
    database.delete_series(&wanted, i64::MIN, i64::MAX).unwrap();
    assert_eq!(database.stats().head_series, 9);
    append(&database, series("a", 10), 2_000).unwrap();
    append(&database, series("a", 3), 2_000).unwrap_err();
    // Those that stay are as they were.
    assert_eq!(database.select(&[], 0, 9_000, &Unlimited).unwrap().len(), 10);
}
