//! Folders as every published version wrote them are read by this one, sample by sample.
//!
//! What a folder holds is told here by arithmetic, so the files are compared with what was put in, not with
//! what some reader made of them. `fixtures/vN` is never written again once version N is published.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use pharos_common::storage_io::DiskIo;
use pharos_tsdb::{
    ABSENT, AppendBatch, Database, Lane, Metadata, MetricKind, OpenReport, Options, Row, StreamMark,
    Unlimited, is_absent,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A midnight.
const START_MS: i64 = 19_000 * 86_400_000;
/// The clock when the folder was last written.
const NOW_MS: i64 = START_MS + 5 * 3_600_000;
const STREAM: [u8; 16] = *b"a stream's name.";
/// Columns of the group that is read at even times.
const WIDTH: usize = 10;

/// Rows `from..to` of both groups, and where they lie when the folder is finished.
struct Part {
    rows: std::ops::Range<i64>,
    then: Then,
}

enum Then {
    Flush,
    Restart,
    Nothing,
}

/// What the folder was written by: blocks of one and of several pages, one of them merged, a checkpoint (since
/// version 2), and a journal of two epochs.
fn parts() -> [Part; 6] {
    [
        Part { rows: 0..1_500, then: Then::Flush },
        // Older than what was cut: the late path, merged into the block of its window.
        Part { rows: -40..0, then: Then::Flush },
        Part { rows: 1_500..1_530, then: Then::Flush },
        // Completes the first window, so its blocks are merged.
        Part { rows: 7_200..7_250, then: Then::Flush },
        Part { rows: 7_250..7_400, then: Then::Restart },
        Part { rows: 7_400..7_450, then: Then::Nothing },
    ]
}

fn even_labels(column: usize) -> Labels {
    let column = column.to_string();
    Labels::from_pairs([("__name__", "even_metric"), ("column", &column), ("instance", "gpu-node-0001")])
}

fn uneven_labels() -> Labels {
    Labels::from_pairs([("__name__", "uneven_metric"), ("text", "a \"quoted\" ü")])
}

fn even_ms(row: i64) -> i64 {
    START_MS + row * 1_000
}

fn uneven_ms(row: i64) -> i64 {
    START_MS + row * 1_000 + row.rem_euclid(7) * 13
}

/// A number that looks random, from 0 to 999.
fn mixed(row: i64, salt: i64) -> i64 {
    ((row + salt).wrapping_mul(2_654_435_761) >> 7).rem_euclid(1_000)
}

fn even_value(row: i64, column: usize) -> f64 {
    match column {
        0 => 42.0,
        1 => (row * 1_000 + mixed(row, 1)) as f64,
        2 => (123_456 + row * 97 + mixed(row, 2) / 100) as f64 / 100.0,
        3 => mixed(row, 3) as f64 / 1_000.0,
        4 => (mixed(row, 4) as f64).sqrt(),
        5 if row.rem_euclid(5) == 0 => ABSENT,
        5 => mixed(row, 5) as f64,
        6 if row.rem_euclid(100) == 99 => STALE_NAN,
        6 => row as f64,
        7 => [f64::NAN, f64::INFINITY, -0.0, 5e-324][row.rem_euclid(4) as usize],
        8 => f64::from_bits(0x3ff0_0000_0000_0000 | (mixed(row, 8) as u64) << 20),
        _ => -(mixed(row, 9) as f64) * 1e300,
    }
}

fn uneven_value(row: i64) -> f64 {
    (mixed(row, 10) / 50) as f64
}

type Samples = BTreeMap<Labels, Vec<(i64, u64)>>;

fn expected() -> Samples {
    let mut rows: Vec<i64> = parts().into_iter().flat_map(|part| part.rows).collect();
    rows.sort_unstable();
    let mut all = Samples::new();
    for row in rows {
        for column in 0..WIDTH {
            let value = even_value(row, column);
            if !is_absent(value) {
                all.entry(even_labels(column)).or_default().push((even_ms(row), value.to_bits()));
            }
        }
        all.entry(uneven_labels()).or_default().push((uneven_ms(row), uneven_value(row).to_bits()));
    }
    all
}

fn metadata() -> Metadata {
    Metadata { kind: MetricKind::Counter, unit: "seconds".to_owned(), help: "Of a frozen folder.".to_owned() }
}

fn open(folder: &Path, now_ms: i64) -> (Database, OpenReport) {
    let options = Options { housekeeping: false, retention_ms: None, ..Options::default() };
    Database::open(Arc::new(DiskIo), folder, options, ManualClock::new(now_ms)).unwrap()
}

fn selected(database: &Database, start_ms: i64, end_ms: i64) -> Samples {
    let series = database.select(&[], start_ms, end_ms, &Unlimited).unwrap();
    series
        .into_iter()
        .map(|series| {
            let bits = series.values.iter().map(|value| value.to_bits());
            (series.labels, series.timestamps.iter().copied().zip(bits).collect())
        })
        .collect()
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Opens a copy of a frozen folder and compares everything, before and after it is written anew.
fn check(version: &str) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("storage");
    copy(&fixtures().join(version), &folder);
    let (database, report) = open(&folder, NOW_MS);
    assert_eq!((report.damaged_bytes, report.torn_bytes, report.rows_lost), (0, 0, 0));
    assert!(report.blocks >= 1 && report.replayed_samples > 0);
    assert!(report.set_aside.is_empty());
    let want = expected();
    assert_eq!(selected(&database, i64::MIN, i64::MAX), want);
    let (from, to) = (even_ms(1_100), even_ms(7_210));
    let mut part = want.clone();
    part.values_mut().for_each(|samples| samples.retain(|(at, _)| (from..=to).contains(at)));
    assert_eq!(selected(&database, from, to), part);
    assert_eq!(database.stream_marks(&STREAM), (7_449, 3));
    assert_eq!(database.metadata(), [("even_metric".to_owned(), metadata())]);
    // An older program would not understand what is journalled from now on.
    assert_eq!(std::fs::read_to_string(folder.join("VERSION")).unwrap(), "2\n");
    database.flush().unwrap();
    assert_eq!(selected(&database, i64::MIN, i64::MAX), want);
    drop(database);
    let (database, report) = open(&folder, NOW_MS + 1_000);
    assert_eq!((report.damaged_bytes, report.replayed_samples), (0, 0));
    assert_eq!(selected(&database, i64::MIN, i64::MAX), want);
}

#[test]
fn a_folder_of_version_1_is_read_whole() {
    check("v1");
}

/// Journal rows told by models, definitions that leave out what is as in the labels before, checkpoints of version 2.
#[test]
fn a_folder_of_version_2_is_read_whole() {
    check("v2");
}

/// With a name in the variable `PHAROS_FREEZE`, writes `fixtures/NAME`: once, when a version is published.
#[test]
fn a_folder_is_frozen_as_this_version_writes_it() {
    if let Ok(name) = std::env::var("PHAROS_FREEZE") {
        let folder = fixtures().join(name);
        assert!(!folder.exists(), "{} is frozen already", folder.display());
        write(&folder);
        return std::fs::remove_file(folder.join("LOCK")).unwrap();
    }
    let place = tempfile::tempdir().unwrap();
    write(place.path());
    assert_eq!(selected(&open(place.path(), NOW_MS).0, i64::MIN, i64::MAX), expected());
}

fn write(folder: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut now_ms = NOW_MS - 60_000;
    let (mut database, _) = open(folder, now_ms);
    database.set_metadata("even_metric", metadata());
    let backfill = StreamMark { stream: STREAM, lane: Lane::Backfill, sequence: 3 };
    database.append(&AppendBatch { rows: &[], mark: Some(backfill) }).unwrap();
    for part in parts() {
        for row in part.rows {
            let even: Vec<Labels> = (0..WIDTH).map(even_labels).collect();
            let even = database.define_group(&even).unwrap();
            let uneven = database.define_group(&[uneven_labels()]).unwrap();
            let values: Vec<f64> = (0..WIDTH).map(|column| even_value(row, column)).collect();
            let rows = [
                Row { group: even, timestamp_ms: even_ms(row), values: &values },
                Row { group: uneven, timestamp_ms: uneven_ms(row), values: &[uneven_value(row)] },
            ];
            let mark = StreamMark { stream: STREAM, lane: Lane::Live, sequence: row.max(0) as u64 };
            let mark = (row > 0).then_some(mark);
            database.append(&AppendBatch { rows: &rows, mark }).unwrap();
            // Now and then, so that the journal has many records.
            if row % 10 == 0 {
                runtime.block_on(database.durable(database.last_commit())).unwrap();
            }
        }
        match part.then {
            Then::Flush => database.flush().unwrap(),
            Then::Nothing => {}
            Then::Restart => {
                database.checkpoint().unwrap();
                drop(database);
                now_ms += 30_000;
                database = open(folder, now_ms).0;
            }
        }
    }
    database.close().unwrap();
}
