//! Measures queries over long ranges: loads a folder with days of samples, if it is empty, and asks.
//!
//! ```text
//! cargo run --release -p pharos-collector --example rollups -- FOLDER [DAYS [SERIES [SECONDS_BETWEEN_SAMPLES]]]
//! ```
//!
//! Each query is asked in turn cold for the engine (opened anew) and warm; `raw` is the same without
//! roll-ups, over one day.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

use pharos_collector::storage::DatabaseStorage;
use pharos_common::clock::{Clock, SystemClock};
use pharos_common::labels::Labels;
use pharos_common::storage_io::DiskIo;
use pharos_promql::storage::{Budget, Selection, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, EngineOptions, QueryOptions, Value};
use pharos_tsdb::{AppendBatch, Database, Options, Row, TsdbError};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const GROUP_COLUMNS: usize = 50;
/// All series; half of them are counters.
const ALL: &str = r#"{__name__=~"load|work_total"}"#;
/// Days between flushes: so many are cut by days at once.
const FLUSH_DAYS: i64 = 5;

/// The storage without its summaries.
struct Samples<'d>(&'d DatabaseStorage);

impl Storage for Samples<'_> {
    fn select<'s>(
        &'s self,
        selection: &Selection<'_>,
        budget: &'s Budget,
    ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
        self.0.select(selection, budget)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("which folder?")?);
    let mut number = |default: i64| arguments.next().map_or(Ok(default), |text| text.parse::<i64>());
    let (days, series, every_s) = (number(30)?, number(1_000)?, number(1)?);
    let end_ms = SystemClock::new().now_ms() / DAY_MS * DAY_MS;
    let marker = folder.join("loaded");
    let end_ms = match std::fs::read_to_string(&marker) {
        Ok(text) => text.trim().parse()?,
        Err(_) => {
            load(&folder, end_ms - days * DAY_MS, days, series as usize, every_s * 1_000)?;
            std::fs::write(&marker, end_ms.to_string())?;
            end_ms
        }
    };
    for (name, step_ms, offset_ms) in [
        ("on the hour", 2 * HOUR_MS, 0),
        ("on five minutes", 29 * 300_000, 0),
        ("off the grid", days * DAY_MS / 300, 1_000),
    ] {
        let step = format!("{}s", step_ms / 1_000);
        for query in [
            format!("avg_over_time({ALL}[{step}])"),
            format!("max_over_time({ALL}[{step}])"),
            ALL.to_owned(),
            format!("sum(rate(work_total[{step}]))"),
        ] {
            let range = (end_ms - days * DAY_MS + step_ms + offset_ms, end_ms + offset_ms, step_ms);
            let database = open(&folder)?;
            let storage = DatabaseStorage::new(database.clone());
            let cold = ask(&storage, &query, range)?;
            let warm = (0..5).map(|_| ask(&storage, &query, range)).collect::<Result<Vec<_>, _>>()?;
            let warm = warm.into_iter().min_by(|left, right| left.0.cmp(&right.0));
            let day = (end_ms - DAY_MS + step_ms, end_ms, step_ms);
            let raw = ask(&Samples(&storage), &query, day)?;
            println!(
                "{name:16} {query:28} cold {:>10.1?} warm {warm:>10.1?} raw a day {:>10.1?}",
                cold.0, raw.0
            );
            database.close()?;
        }
    }
    Ok(())
}

fn open(folder: &Path) -> Result<Database, TsdbError> {
    let options = Options { retention_ms: None, housekeeping: false, ..Options::default() };
    Ok(Database::open(Arc::new(DiskIo), folder, options, Arc::new(SystemClock::new()))?.0)
}

/// How long an answer takes, its points, and what it read.
fn ask(
    storage: &dyn Storage,
    query: &str,
    (start_ms, end_ms, step_ms): (i64, i64, i64),
) -> Result<(Duration, usize, pharos_promql::QueryStats), Box<dyn Error>> {
    let engine = Engine::new(EngineOptions { max_samples: usize::MAX / 2, ..EngineOptions::default() });
    let begin = Instant::now();
    let result = engine.range(storage, query, start_ms, end_ms, step_ms, &QueryOptions::default())?;
    let took = begin.elapsed();
    let points = match &result.value {
        Value::Matrix(series) => series.iter().map(|series| series.floats.len()).sum(),
        _ => 0,
    };
    Ok((took, points, result.stats))
}

/// Whole counters, counters of hundredths of a second, gauges of tenths, and noise.
fn value(series: usize, row: i64, random: u64) -> f64 {
    let random = random >> 11;
    match series % 4 {
        0 => (row * 1_500 + (random % 997) as i64) as f64,
        1 => (row * 37 + (random % 31) as i64) as f64 / 100.0,
        2 => ((row / 60 + (random % 40) as i64) % 900) as f64 / 10.0,
        _ => (random % 1_000_003) as f64 / 7.0,
    }
}

fn load(folder: &Path, start_ms: i64, days: i64, series: usize, every_ms: i64) -> Result<(), Box<dyn Error>> {
    let database = open(folder)?;
    let labels = |number: usize| {
        let node = format!("node{:03}", number / GROUP_COLUMNS);
        let name = if number % 4 < 2 { "work_total" } else { "load" };
        Labels::from_pairs([("__name__", name), ("node", &node), ("n", &number.to_string())])
    };
    let all: Vec<Labels> = (0..series).map(labels).collect();
    let begin = Instant::now();
    let mut random = 88_172_645_463_325_252u64;
    for day in 0..days {
        let groups = all
            .chunks(GROUP_COLUMNS)
            .map(|columns| database.define_group(columns))
            .collect::<Result<Vec<_>, _>>()?;
        let mut values = vec![0.0; series];
        for row in 0..DAY_MS / every_ms {
            let at = day * (DAY_MS / every_ms) + row;
            for (number, value_of) in values.iter_mut().enumerate() {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *value_of = value(number, at, random);
            }
            let timestamp_ms = start_ms + (at + 1) * every_ms;
            let rows: Vec<Row<'_>> = groups
                .iter()
                .zip(values.chunks(GROUP_COLUMNS))
                .map(|(&group, values)| Row { group, timestamp_ms, values })
                .collect();
            while let Err(error) = database.append(&AppendBatch { rows: &rows, mark: None }) {
                if !matches!(error, TsdbError::Busy(_)) {
                    return Err(error.into());
                }
                std::thread::yield_now();
            }
        }
        if (day + 1) % FLUSH_DAYS == 0 || day + 1 == days {
            database.flush()?;
            let bytes = database.stats().block_bytes;
            let samples = (day + 1) * (DAY_MS / every_ms) * series as i64;
            println!(
                "{} days, {:.3} bytes a sample, {:.0?}",
                day + 1,
                bytes as f64 / samples as f64,
                begin.elapsed()
            );
        }
    }
    database.close()?;
    Ok(())
}
