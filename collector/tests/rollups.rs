//! Queries that roll-ups serve against the same queries over samples: whatever was stored and however it
//! lies there, the answers are the same; sums and means at most two units in the last place apart.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_collector::storage::DatabaseStorage;
use pharos_common::clock::ManualClock;
use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use pharos_common::storage_io::MemoryIo;
use pharos_promql::storage::{Budget, Selection, SeriesSet, Storage, StorageError};
use pharos_promql::{Engine, QueryOptions, QueryStats, Value};
use pharos_tsdb::{ABSENT, AppendBatch, Database, Options, Row};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const START_MS: i64 = 1_000 * HOUR_MS;
const COLUMNS: usize = 8;

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

struct Stored {
    database: Database,
    storage: DatabaseStorage,
    newest_ms: i64,
}

impl Stored {
    fn new() -> Self {
        let options = Options { retention_ms: None, housekeeping: false, ..Options::default() };
        let clock = ManualClock::new(START_MS + 72 * HOUR_MS);
        let (database, _) =
            Database::open(Arc::new(MemoryIo::new()), Path::new("/data"), options, clock).unwrap();
        Stored { storage: DatabaseStorage::new(database.clone()), database, newest_ms: START_MS }
    }

    fn append(&mut self, start_ms: i64, every_ms: i64, rows: i64, seed: u32) {
        let labels =
            |column: usize| Labels::from_pairs([("__name__", "x_total"), ("kind", &column.to_string())]);
        let columns: Vec<Labels> = (0..COLUMNS).map(labels).collect();
        let group = self.database.define_group(&columns).unwrap();
        for row in 0..rows {
            let timestamp_ms = start_ms + row * every_ms;
            let row = Row { group, timestamp_ms, values: &values(seed, timestamp_ms) };
            self.database.append(&AppendBatch { rows: &[row], mark: None }).unwrap();
        }
        self.newest_ms = self.newest_ms.max(start_ms + (rows - 1) * every_ms);
    }
}

/// A counter of whole numbers and one of fractions, both reset now and then; decimals; noise around zero; a
/// constant that comes and goes; whatever else there is; and gauges of whole numbers, one of which is of fractions
/// at times, one of both signs.
fn values(seed: u32, at: i64) -> [f64; COLUMNS] {
    let mut mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(seed);
    mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 20;
    let since_reset = (at / 1_000 % (i64::from(seed) % 9_000 + 600)) as f64;
    let odd = match mixed % 13 {
        0 => f64::NAN,
        1 if mixed % 7 == 3 => f64::INFINITY,
        2 => -0.0,
        3 => STALE_NAN,
        _ => (mixed % 9_973) as f64 * 1e15,
    };
    let sometimes = match at / (7 * MINUTE_MS) % 4 {
        0 => 42.5,
        1 => STALE_NAN,
        _ => ABSENT,
    };
    let noise = (mixed % 1_000) as f64 / 7.0 - 71.0;
    let gauge = match at / (35 * MINUTE_MS) % 5 {
        0 => (mixed % 800) as f64 / 8.0,
        _ => (mixed % 101) as f64,
    };
    let signed = (mixed % 21) as f64 - if at / HOUR_MS % 3 == 0 { 10.0 } else { -1.0 };
    [
        since_reset,
        since_reset * 0.1 + 3.7,
        (mixed % 5_000) as f64 / 100.0,
        noise,
        sometimes,
        odd,
        gauge,
        signed,
    ]
}

const RANGED: [&str; 18] = [
    "sum_over_time",
    "avg_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "last_over_time",
    "first_over_time",
    "present_over_time",
    "absent_over_time",
    "rate",
    "increase",
    "delta",
    "changes",
    "resets",
    "ts_of_last_over_time",
    "ts_of_first_over_time",
    "quantile_over_time",
    "irate",
];

fn query() -> impl Strategy<Value = String> {
    let range = prop_oneof![
        4 => (1i64..40).prop_map(|grains| format!("{}m", grains * 5)),
        1 => (300i64..9_000).prop_map(|seconds| format!("{seconds}s")),
    ];
    let offset = prop_oneof![3 => Just(String::new()), 1 => Just(" offset 10m".to_owned()),
        1 => (1i64..500).prop_map(|seconds| format!(" offset {seconds}s"))];
    let selector = prop_oneof![3 => Just("x_total"), 1 => Just(r#"x_total{kind!="5"}"#)];
    let over = (prop::sample::select(&RANGED[..]), selector, range, offset).prop_map(
        |(function, selector, range, offset)| match function {
            "quantile_over_time" => format!("{function}(0.5, {selector}[{range}]{offset})"),
            _ => format!("{function}({selector}[{range}]{offset})"),
        },
    );
    let instant = prop::sample::select(vec![
        "x_total",
        "timestamp(x_total)",
        "x_total offset 7m",
        "count(x_total)",
        "max_over_time(x_total[3h:30m])",
        "x_total + on(kind) max_over_time(x_total[1h])",
    ]);
    prop_oneof![5 => over, 1 => instant.prop_map(str::to_owned)]
}

#[derive(Clone, Debug)]
struct Case {
    query: String,
    offset_ms: i64,
    step_ms: i64,
}

fn case() -> impl Strategy<Value = Case> {
    let offset = prop_oneof![3 => Just(0i64), 1 => Just(5 * MINUTE_MS), 1 => -400_000i64..400_000];
    let step =
        prop_oneof![3 => (1i64..30).prop_map(|grains| grains * 5 * MINUTE_MS), 1 => 200_000i64..9_000_000];
    (query(), offset, step).prop_map(|(query, offset_ms, step_ms)| Case { query, offset_ms, step_ms })
}

#[derive(Clone, Debug)]
enum Step {
    /// Rows at equal distances, from the newest time on or before it.
    Run {
        after_s: i64,
        every_s: i64,
        rows: i64,
        seed: u32,
    },
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let run = |after_s: std::ops::Range<i64>, rows: std::ops::Range<i64>| {
        (after_s, prop::sample::select(vec![1i64, 10, 15, 60]), rows, any::<u32>())
            .prop_map(|(after_s, every_s, rows, seed)| Step::Run { after_s, every_s, rows, seed })
    };
    prop_oneof![6 => run(1..900, 100..1_000), 2 => run(-20_000..0, 1..60), 2 => Just(Step::Flush)]
}

fn ulps(left: f64, right: f64) -> u64 {
    // Bits of floats of one sign rise with them.
    let rank = |value: f64| match value.to_bits() {
        bits if bits >> 63 == 0 => (1 << 63) + i128::from(bits),
        bits => (1 << 63) - i128::from(bits & !(1 << 63)),
    };
    rank(left).abs_diff(rank(right)).try_into().unwrap()
}

type Answer = Vec<(Labels, Vec<(i64, f64)>)>;

fn answer(storage: &dyn Storage, case: &Case, end_ms: i64) -> (Answer, QueryStats) {
    let start_ms = START_MS + case.offset_ms;
    let end_ms = end_ms.max(start_ms);
    let options = QueryOptions::default();
    let result =
        Engine::default().range(storage, &case.query, start_ms, end_ms, case.step_ms, &options).unwrap();
    let Value::Matrix(series) = result.value else { panic!("{}", case.query) };
    let floats = |series: pharos_promql::MatrixSeries| {
        (series.labels, series.floats.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect())
    };
    (series.into_iter().map(floats).collect(), result.stats)
}

/// Asks both ways; tells what summaries read.
#[track_caller]
fn check(stored: &Stored, case: &Case) -> QueryStats {
    let end_ms = stored.newest_ms + 10 * MINUTE_MS;
    let (got, stats) = answer(&stored.storage, case, end_ms);
    let (want, _) = answer(&Samples(&stored.storage), case, end_ms);
    let adds = case.query.contains("sum_over") || case.query.contains("avg_over");
    let shape = |answer: &Answer| -> Vec<(Labels, Vec<i64>)> {
        let times = |samples: &[(i64, f64)]| samples.iter().map(|sample| sample.0).collect();
        answer.iter().map(|(labels, samples)| (labels.clone(), times(samples))).collect()
    };
    assert_eq!(shape(&got), shape(&want), "{case:?}");
    for ((labels, got), (_, want)) in got.iter().zip(&want) {
        for ((time, got), (_, want)) in got.iter().zip(want) {
            let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
            let near = adds && ulps(*got, *want) <= 2;
            assert!(same || near, "{case:?} {labels} at {time}: {got:e}, from samples {want:e}");
        }
    }
    stats
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn roll_ups_answer_as_samples_do(
        steps in prop::collection::vec(step(), 2..9), cases in prop::collection::vec(case(), 1..12),
    ) {
        let mut stored = Stored::new();
        for step in steps {
            match step {
                Step::Flush => stored.database.flush().unwrap(),
                Step::Run { after_s, every_s, rows, seed } => {
                    let start_ms = (stored.newest_ms + after_s * 1_000).max(START_MS - HOUR_MS);
                    stored.append(start_ms, every_s * 1_000, rows, seed);
                }
            }
        }
        for case in &cases {
            check(&stored, case);
        }
    }
}

/// Ten hours at 15 s, in blocks. The sample that would end them is left out: it begins a block of its own, and what
/// is as short as that is read by its samples.
fn ten_hours() -> Stored {
    let mut stored = Stored::new();
    stored.append(START_MS + 15_000, 15_000, 2_399, 77);
    stored.database.flush().unwrap();
    stored
}

#[test]
fn windows_on_the_grid_read_no_samples() {
    let stored = ten_hours();
    for function in ["avg_over_time", "max_over_time", "count_over_time", "changes", "delta"] {
        // Noise sums up to so little that samples may have to say it.
        let query = format!(r#"{function}(x_total{{kind=~"0|1|2"}}[1h])"#);
        let stats = check(&stored, &Case { query, offset_ms: 0, step_ms: HOUR_MS });
        assert_eq!(stats.summaries.samples, 0, "{function}");
        assert!(stats.summaries.hour_buckets > 20, "{function}: {stats:?}");
    }
}

#[test]
fn a_selector_at_coarse_steps_reads_no_samples() {
    let stored = ten_hours();
    let stats = check(&stored, &Case { query: "x_total".to_owned(), offset_ms: 0, step_ms: HOUR_MS });
    assert_eq!(stats.summaries.samples, 0);
    assert!(stats.summaries.five_minute_buckets > 20, "{stats:?}");
}

#[test]
fn windows_off_the_grid_read_samples_at_their_edges_alone() {
    let stored = ten_hours();
    let query = r#"avg_over_time(x_total{kind="2"}[2h])"#.to_owned();
    let stats = check(&stored, &Case { query, offset_ms: 77_777, step_ms: 2 * HOUR_MS });
    let (samples, buckets) = (stats.summaries.samples, stats.summaries.hour_buckets);
    assert!(samples > 0 && samples < 240 && buckets > 0, "{stats:?}");
}

#[test]
fn fine_steps_read_samples() {
    let stored = ten_hours();
    let query = "rate(x_total[5m])".to_owned();
    let stats = check(&stored, &Case { query, offset_ms: 0, step_ms: 15_000 });
    assert_eq!(stats.summaries.blocks, 0);
}

/// What is left of a storage whose samples retention took, one that came late among them.
fn thinned(late_ms: Option<i64>) -> (DatabaseStorage, i64) {
    let io = Arc::new(MemoryIo::new());
    let clock = ManualClock::new(START_MS + 6 * HOUR_MS);
    let open = |housekeeping| {
        let options = Options {
            retention_ms: Some(10 * HOUR_MS),
            rollup_retention_ms: Some(500 * HOUR_MS),
            housekeeping,
            ..Options::default()
        };
        Database::open(io.clone(), Path::new("/data"), options, clock.clone()).unwrap().0
    };
    let database = open(false);
    let mut stored =
        Stored { storage: DatabaseStorage::new(database.clone()), database, newest_ms: START_MS };
    stored.append(START_MS, 10_000, 360 * 5, 7);
    stored.database.flush().unwrap();
    if let Some(late_ms) = late_ms {
        stored.append(late_ms, 10_000, 1, 7);
    }
    stored.database.close().unwrap();
    drop(stored);
    clock.advance(std::time::Duration::from_secs(20 * 3_600));
    let database = open(true);
    let is_whole = || {
        let budget = pharos_tsdb::Unlimited;
        !database.select(&[], i64::MIN, i64::MAX, &budget).unwrap().is_empty()
    };
    while is_whole() {
        std::thread::yield_now();
    }
    database.close().unwrap();
    (DatabaseStorage::new(database), START_MS + 5 * HOUR_MS)
}

#[test]
fn where_samples_are_gone_windows_on_the_grid_are_answered_and_others_not_at_all() {
    let (storage, end_ms) = thinned(None);
    let points = |query: &str, start_ms: i64, end_ms: i64, step_ms: i64| {
        let (engine, options) = (Engine::default(), QueryOptions::default());
        let result = engine.range(&storage, query, start_ms, end_ms, step_ms, &options).unwrap();
        let Value::Matrix(matrix) = result.value else { panic!("a range query gives a matrix") };
        matrix.iter().map(|series| series.floats.len()).max().unwrap_or(0)
    };
    let five_ms = 5 * MINUTE_MS;
    // Shorter than an hour, and as short as the finest roll-ups.
    assert_eq!(points("count_over_time(x_total[5m])", end_ms - HOUR_MS, end_ms - five_ms, five_ms), 12);
    assert_eq!(points("rate(x_total[15m])", end_ms - five_ms, end_ms - five_ms, five_ms), 1);
    assert_eq!(points("x_total", end_ms - 2 * five_ms, end_ms - five_ms, five_ms), 2);
    // Off the grid, shorter than five minutes, or a function that needs the samples: nothing, and nothing wrong.
    assert_eq!(points("count_over_time(x_total[5m])", end_ms - HOUR_MS + 1, end_ms - five_ms, five_ms), 0);
    assert_eq!(points("count_over_time(x_total[1m])", end_ms - HOUR_MS, end_ms - five_ms, five_ms), 0);
    assert_eq!(points("quantile_over_time(0.5, x_total[15m])", end_ms - HOUR_MS, end_ms, five_ms), 0);
}

#[test]
fn what_came_late_is_told_when_samples_are_gone() {
    let late_ms = START_MS + HOUR_MS + 2 * MINUTE_MS + 5_000;
    let (storage, _) = thinned(Some(late_ms));
    let at_ms = START_MS + HOUR_MS + 5 * MINUTE_MS;
    let (engine, options) = (Engine::default(), QueryOptions::default());
    let query = "max(count_over_time(x_total[5m]))";
    let result = engine.instant(&storage, query, at_ms, &options).unwrap();
    let Value::Vector(vector) = result.value else { panic!("an instant query gives a vector") };
    assert_eq!(vector.len(), 1);
    assert_eq!(format!("{:?}", vector[0].value), "Float(31.0)", "thirty on the grid and the late one");
    assert_eq!(result.warnings, [""; 0]);
}

#[test]
fn answers_that_lack_samples_which_retention_took_come_with_a_warning() {
    let (storage, end_ms) = thinned(None);
    let (engine, options) = (Engine::default(), QueryOptions::default());
    let warnings = |query: &str, at_ms: i64| {
        engine.instant(&storage, query, at_ms, &options).unwrap().warnings.join("\n")
    };
    let on_grid_ms = end_ms - HOUR_MS;
    assert_eq!(warnings("sum_over_time(x_total[15m])", on_grid_ms), "");
    for query in [
        "stddev_over_time(x_total[15m])",
        "sum_over_time(x_total[15m] offset 7s)",
        "absent_over_time(x_total[1m])",
    ] {
        let got = warnings(query, on_grid_ms);
        assert!(
            got.contains("PromQL warning: retention has dropped samples of this range"),
            "{query}: {got}"
        );
    }
    assert_eq!(warnings("stddev_over_time(x_total[15m])", end_ms + 20 * HOUR_MS), "");
}
