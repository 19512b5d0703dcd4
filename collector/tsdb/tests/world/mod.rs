//! A small engine on a file system in memory, and the truth beside it: what tests of durability share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part; a failed step fails it"
)]

use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::storage_io::MemoryIo;
use pharos_tsdb::{ABSENT, AppendBatch, Database, OpenReport, Options, Row, TsdbError, Unlimited, is_absent};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub const FOLDER: &str = "/tsdb";
pub const START_MS: i64 = 1_000 * 7_200_000;
/// Columns of each group.
pub const WIDTHS: [usize; 2] = [2, 5];

/// (group, column, timestamp) → bits.
pub type Truth = BTreeMap<(usize, usize, i64), u64>;

pub fn open(io: &MemoryIo) -> Result<(Database, OpenReport), TsdbError> {
    let options = Options { housekeeping: false, retention_ms: None, ..Options::default() };
    let clock: Arc<ManualClock> = ManualClock::new(START_MS + 7_200_000);
    Database::open(Arc::new(io.clone()), Path::new(FOLDER), options, clock)
}

fn labels(group: usize, column: usize) -> Labels {
    let (group, column) = (group.to_string(), column.to_string());
    Labels::from_pairs([("__name__", "metric"), ("group", &group), ("column", &column)])
}

pub fn value(group: usize, column: usize, timestamp_ms: i64) -> f64 {
    let mixed = (timestamp_ms / 500 + group as i64 * 31 + column as i64 * 17).wrapping_mul(40_503) >> 4;
    match (column + timestamp_ms as usize / 1_000) % 6 {
        0 => ABSENT,
        1 => (mixed % 100_000) as f64 / 100.0,
        2 => (mixed as f64).sqrt(),
        _ => 7.0,
    }
}

/// Appends one row of every group, and notes what of it counts.
pub fn append(database: &Database, truth: &mut Truth, timestamp_ms: i64) -> Result<(), TsdbError> {
    for (group, width) in WIDTHS.into_iter().enumerate() {
        let columns: Vec<Labels> = (0..width).map(|column| labels(group, column)).collect();
        let id = database.define_group(&columns)?;
        let values: Vec<f64> = (0..width).map(|column| value(group, column, timestamp_ms)).collect();
        let row = Row { group: id, timestamp_ms, values: &values };
        database.append(&AppendBatch { rows: &[row], mark: None })?;
        for (column, value) in values.into_iter().enumerate().filter(|(_, value)| !is_absent(*value)) {
            truth.entry((group, column, timestamp_ms)).or_insert(value.to_bits());
        }
    }
    Ok(())
}

pub fn durable(database: &Database) -> Result<(), TsdbError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(database.durable(database.last_commit()))
}

pub fn stored(database: &Database) -> Truth {
    let mut all = Truth::new();
    for series in database.select(&[], i64::MIN, i64::MAX, &Unlimited).unwrap() {
        let number = |name| series.labels.get(name).unwrap().parse::<usize>().unwrap();
        for (&timestamp_ms, value) in series.timestamps.iter().zip(&series.values) {
            all.insert((number("group"), number("column"), timestamp_ms), value.to_bits());
        }
    }
    all
}
