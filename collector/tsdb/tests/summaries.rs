//! Summaries against samples: whatever lies in blocks, roll-ups, the head and among late samples, what a
//! series sums up to over any spans is what its samples sum up to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::STALE_NAN;
use pharos_common::storage_io::{MemoryIo, StorageIo};
use pharos_common::summary::{Span, Summary, SummaryFields, sum_of_falls};
use pharos_tsdb::histogram::Shape;
use pharos_tsdb::{ABSENT, AppendBatch, Database, Options, Row, SUMMARY_GRAIN_MS, SummaryStats, Unlimited};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_000 * HOUR_MS;
const COLUMNS: usize = 5;

fn labels(column: usize) -> Labels {
    Labels::from_pairs([("__name__", "metric"), ("column", &column.to_string())])
}

fn open() -> Database {
    let options = Options { retention_ms: None, housekeeping: false, ..Options::default() };
    let clock = ManualClock::new(START_MS + 48 * HOUR_MS);
    let (database, _) =
        Database::open(Arc::new(MemoryIo::new()), Path::new("/data"), options, clock).unwrap();
    database
}

/// A counter that is reset now and then, decimals, noise around zero, whatever else there is, and a gauge of
/// whole numbers.
fn values(seed: u32, at: i64) -> [f64; COLUMNS] {
    let mixed = seed.wrapping_mul(2_654_435_761).rotate_left(13).wrapping_add(at as u32).wrapping_mul(40_503);
    let odd = match mixed % 11 {
        0 => ABSENT,
        1 => STALE_NAN,
        2 if mixed.is_multiple_of(5) => f64::NAN,
        3 if mixed.is_multiple_of(7) => f64::INFINITY,
        4 => -0.0,
        _ => f64::from(mixed >> 12).sqrt(),
    };
    let whole = f64::from((mixed >> 9) % 101);
    let noise = f64::from(mixed % 1_000) / 7.0 - 71.0;
    [(at / 1_000 % (seed as i64 % 9_000 + 600)) as f64, f64::from(mixed % 5_000) / 100.0, noise, odd, whole]
}

#[derive(Clone, Debug)]
enum Step {
    /// Rows at equal distances, from the newest time on or before it, in seconds.
    Run {
        after_s: i64,
        every_s: i64,
        rows: u16,
        seed: u32,
    },
    Flush,
    /// A column and a range, in seconds after the start.
    Delete {
        column: usize,
        from_s: i64,
        length_s: i64,
    },
    Clean,
}

fn step() -> impl Strategy<Value = Step> {
    let run = |after_s: std::ops::Range<i64>, rows: std::ops::Range<u16>| {
        (after_s, prop_oneof![Just(1i64), Just(7), Just(60), Just(300)], rows, any::<u32>())
            .prop_map(|(after_s, every_s, rows, seed)| Step::Run { after_s, every_s, rows, seed })
    };
    prop_oneof![
        6 => run(1..900, 1..700),
        2 => run(-20_000..0, 1..60),
        2 => Just(Step::Flush),
        1 => (0..COLUMNS, 0i64..9_000, 1i64..4_000)
            .prop_map(|(column, from_s, length_s)| Step::Delete { column, from_s, length_s }),
        1 => Just(Step::Clean),
    ]
}

/// Spans that rise: distances and lengths in seconds, most on the grid.
fn spans() -> impl Strategy<Value = Vec<Span>> {
    let length = prop_oneof![
        3 => (1i64..30).prop_map(|grains| grains * SUMMARY_GRAIN_MS),
        1 => 1i64..20_000_000,
    ];
    let gap = prop_oneof![3 => Just(0i64), 1 => (0i64..10).prop_map(|grains| grains * SUMMARY_GRAIN_MS),
        1 => 0i64..500_000];
    (prop_oneof![3 => Just(0i64), 1 => -9_999i64..400_000], prop::collection::vec((gap, length), 1..12))
        .prop_map(|(offset_ms, lengths)| {
            let mut until_ms = START_MS + offset_ms;
            let span = |(gap, length): (i64, i64)| {
                let after_ms = until_ms + gap;
                until_ms = after_ms + length;
                Span { after_ms, until_ms }
            };
            lengths.into_iter().map(span).collect()
        })
}

/// What a database has of noise, too: no bucket keeps the corrections of a gauge of fractions.
const NO_CORRECTIONS: SummaryFields =
    SummaryFields::FIRST.and(SummaryFields::LAST).and(SummaryFields::EXTREMES).and(SummaryFields::SUM);

fn matchers() -> [Matcher; 1] {
    [Matcher::equal("__name__", "metric")]
}

fn summarize(
    database: &Database,
    spans: &[Span],
    fields: SummaryFields,
) -> (Vec<(Labels, Vec<Summary>)>, SummaryStats) {
    let mut read = database.summarize(&matchers(), spans.into(), fields, &Unlimited).unwrap().unwrap();
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while let Some(labels) = read.next_series(&Unlimited, &mut out).unwrap() {
        all.push((labels, out.clone()));
    }
    (all, read.stats())
}

/// The same from samples.
fn from_samples(database: &Database, spans: &[Span]) -> Vec<(Labels, Vec<Summary>)> {
    let (first, last) = (spans[0].after_ms + 1, spans[spans.len() - 1].until_ms);
    let of_span = |series: &pharos_tsdb::SelectedSeries, span: &Span| {
        let from = series.timestamps.partition_point(|&timestamp| timestamp <= span.after_ms);
        let to = series.timestamps.partition_point(|&timestamp| timestamp <= span.until_ms);
        let mut summary = Summary::default();
        summary.append_run(&series.timestamps[from..to], &series.values[from..to], SummaryFields::ALL);
        summary
    };
    let selected = database.select(&matchers(), first, last, &Unlimited).unwrap();
    let summed = |series: pharos_tsdb::SelectedSeries| {
        let summaries = spans.iter().map(|span| of_span(&series, span)).collect();
        (series.labels, summaries)
    };
    selected.into_iter().map(summed).collect()
}

/// Corrections that are not there one by one are summed up.
#[track_caller]
fn assert_same_falls(got: &Summary, want: &Summary, context: &str) {
    if want.fallen != 0.0 {
        let all = |summary: &Summary| summary.corrections.iter().sum::<f64>() + summary.fallen;
        return assert_eq!(all(got), all(want), "{context}");
    }
    let mut kept = got.corrections.iter().peekable();
    let is_kept = |value: &&f64| kept.next_if(|have| have.to_bits() == value.to_bits()).is_some();
    let (_, summed): (Vec<f64>, Vec<f64>) = want.corrections.iter().partition(is_kept);
    assert!(kept.next().is_none(), "{context}: {got:?} {want:?}");
    assert_eq!(sum_of_falls(&summed), Some(got.fallen), "{context}");
}

#[track_caller]
fn assert_same(got: &Summary, want: &Summary, context: &str) {
    let exact = |summary: &Summary| {
        let sample = |sample: pharos_common::sample::Sample| (sample.timestamp_ms, sample.value.to_bits());
        let ends = (summary.count > 0).then(|| (sample(summary.first), sample(summary.last)));
        let extremes = (summary.min.to_bits(), summary.max.to_bits());
        (summary.count, summary.ends_stale, summary.has_nan, ends, extremes, summary.changes, summary.resets)
    };
    assert_same_falls(got, want, context);
    let total = |summary: &Summary| summary.sum + summary.compensation;
    assert_eq!(exact(got), exact(want), "{context}");
    if got.is_exact {
        assert_eq!(total(got), total(want), "{context}");
        return;
    }
    // The last is what a double cannot tell of the sums themselves.
    let off = (got.sum - want.sum) + (got.compensation - want.compensation);
    let rounding = want.sum.abs() * f64::EPSILON * f64::EPSILON * 1e3 + got.magnitude * 1e-28;
    assert!(
        !total(want).is_finite() || off.abs() <= got.uncertainty + rounding,
        "{context}: {off} {got:?} {want:?}"
    );
}

#[track_caller]
fn check(database: &Database, spans: &[Span]) {
    let (got, _) = summarize(database, spans, SummaryFields::ALL);
    let want = from_samples(database, spans);
    // A series whose samples lie between the spans is there with nothing but empty summaries.
    let named: Vec<&Labels> = got.iter().map(|(labels, _)| labels).collect();
    assert!(named.is_sorted(), "{named:?}");
    assert!(want.iter().all(|(labels, _)| named.contains(&labels)), "{named:?}");
    for (labels, summaries) in &got {
        let none = vec![Summary::default(); spans.len()];
        let want = want.iter().find(|(have, _)| have == labels).map_or(&none, |(_, want)| want);
        assert_eq!(summaries.len(), spans.len());
        for ((got, want), span) in summaries.iter().zip(want).zip(spans) {
            assert_same(got, want, &format!("{labels} {span:?}"));
        }
    }
}

fn append(database: &Database, start_ms: i64, every_ms: i64, rows: i64, seed: u32) {
    let columns: Vec<Labels> = (0..COLUMNS).map(labels).collect();
    let group = database.define_group(&columns).unwrap();
    for row in 0..rows {
        let timestamp_ms = start_ms + row * every_ms;
        let row = Row { group, timestamp_ms, values: &values(seed, timestamp_ms) };
        database.append(&AppendBatch { rows: &[row], mark: None }).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_spans_sum_up_to_what_the_samples_do(
        steps in prop::collection::vec(step(), 1..10), choices in prop::collection::vec(spans(), 1..4),
    ) {
        let database = open();
        let mut newest_ms = START_MS;
        for step in steps {
            match step {
                Step::Flush => database.flush().unwrap(),
                Step::Delete { column, from_s, length_s } => {
                    let column = Matcher::equal("column", column.to_string());
                    let from_ms = START_MS + from_s * 1_000;
                    database.delete_series(&[column], from_ms, from_ms + length_s * 1_000).unwrap();
                }
                Step::Clean => drop(database.clean_tombstones().unwrap()),
                Step::Run { after_s, every_s, rows, seed } => {
                    let start_ms = (newest_ms + after_s * 1_000).max(START_MS - HOUR_MS);
                    append(&database, start_ms, every_s * 1_000, i64::from(rows), seed);
                    newest_ms = newest_ms.max(start_ms + (i64::from(rows) - 1) * every_s * 1_000);
                }
            }
            for spans in &choices {
                check(&database, spans);
            }
        }
    }
}

fn hours(from: i64, to: i64) -> Vec<Span> {
    let at = |hour: i64| START_MS + hour * HOUR_MS;
    (from..to).map(|hour| Span { after_ms: at(hour), until_ms: at(hour + 1) }).collect()
}

#[test]
fn spans_on_the_grid_read_no_samples_of_blocks() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 360 * 5, 7);
    database.flush().unwrap();
    let (_, stats) = summarize(&database, &hours(0, 5), NO_CORRECTIONS);
    assert_eq!(stats.samples, 0);
    assert!(stats.buckets[1] >= 5, "{stats:?}");
    check(&database, &hours(0, 5));
}

#[test]
fn whole_gauges_have_their_falls_in_roll_ups() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 360 * 5, 7);
    database.flush().unwrap();
    let gauge = [Matcher::equal("column", "4")];
    let mut read = database
        .summarize(&gauge, hours(0, 5).into(), SummaryFields::CORRECTIONS, &Unlimited)
        .unwrap()
        .unwrap();
    let mut out = Vec::new();
    read.next_series(&Unlimited, &mut out).unwrap().unwrap();
    assert!(out.iter().all(|summary| summary.fallen > 1_000.0 && summary.resets > 100), "{out:?}");
    assert_eq!(read.stats().samples, 0);
}

#[test]
fn late_samples_cost_the_buckets_they_fall_into() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 360 * 5, 7);
    database.flush().unwrap();
    append(&database, START_MS + HOUR_MS + 5_000, 1_000, 1, 8);
    let (series, stats) = summarize(&database, &hours(0, 5), NO_CORRECTIONS);
    // Five minutes of each series, at 10 s, and the late sample.
    assert!(stats.samples > 0 && stats.samples <= (series.len() * 31) as u64, "{stats:?}");
    check(&database, &hours(0, 5));
}

#[test]
fn a_part_has_its_share_of_the_series() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 700, 7);
    database.flush().unwrap();
    let read = database.summarize(&[], hours(0, 2).into(), SummaryFields::ALL, &Unlimited).unwrap().unwrap();
    let (mut found, mut out) = (Vec::new(), Vec::new());
    for mut part in read.split(3) {
        while let Some(labels) = part.next_series(&Unlimited, &mut out).unwrap() {
            found.push(labels);
        }
    }
    assert_eq!(found, (0..COLUMNS).map(labels).collect::<Vec<_>>());
}

#[test]
fn native_histograms_are_left_to_their_samples() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 700, 7);
    let histogram = FloatHistogram { count: 3.0, sum: 1.5, ..FloatHistogram::default() };
    let shape = Shape::of(&histogram);
    let group = database.define_group(&shape.series(&Labels::from_pairs([("__name__", "latency")]))).unwrap();
    for row in 0..400 {
        let row = Row { group, timestamp_ms: START_MS + row * 10_000, values: &shape.values(&histogram) };
        database.append(&AppendBatch { rows: &[row], mark: None }).unwrap();
    }
    for _ in 0..2 {
        let all = database.summarize(&[], hours(0, 2).into(), SummaryFields::ALL, &Unlimited).unwrap();
        assert!(all.is_none());
        check(&database, &hours(0, 2));
        database.flush().unwrap();
    }
}

/// Whether the storage has dropped the samples of all blocks.
fn holds_no_samples(database: &Database) -> bool {
    database.select(&matchers(), i64::MIN, i64::MAX, &Unlimited).unwrap().is_empty()
}

#[test]
fn roll_ups_outlive_their_samples() {
    let io = Arc::new(MemoryIo::new());
    let clock = ManualClock::new(START_MS + 6 * HOUR_MS);
    let open = |housekeeping| {
        let options = Options {
            retention_ms: Some(10 * HOUR_MS),
            rollup_retention_ms: Some(50 * HOUR_MS),
            housekeeping,
            ..Options::default()
        };
        Database::open(io.clone(), Path::new("/data"), options, clock.clone()).unwrap().0
    };
    let database = open(false);
    append(&database, START_MS + 10_000, 10_000, 360 * 5, 7);
    database.flush().unwrap();
    let (before, _) = summarize(&database, &hours(0, 5), NO_CORRECTIONS);
    database.close().unwrap();
    drop(database);
    clock.advance(Duration::from_secs(20 * 3_600));
    let database = open(true);
    wait_until(|| holds_no_samples(&database));
    assert_eq!(database.samples_since_ms(), START_MS + 5 * HOUR_MS + 1);
    let (after, stats) = summarize(&database, &hours(0, 5), NO_CORRECTIONS);
    assert_eq!(stats.samples, 0);
    for ((labels, before), (_, after)) in before.iter().zip(&after) {
        before.iter().zip(after).for_each(|(want, got)| assert_same(got, want, &labels.to_string()));
        assert!(after.iter().all(|summary| !summary.is_cut), "{labels}");
    }
    // Nothing is told of what only samples could tell.
    let off_grid = [Span { after_ms: START_MS + 7, until_ms: START_MS + HOUR_MS + 7 }];
    let (cut, _) = summarize(&database, &off_grid, NO_CORRECTIONS);
    assert!(cut.iter().all(|(_, summaries)| summaries[0].is_cut));
    // A deletion takes the roll-ups of its series.
    database.delete_series(&[Matcher::equal("column", "0")], START_MS, START_MS + HOUR_MS).unwrap();
    database.clean_tombstones().unwrap();
    let inside = [Span { after_ms: START_MS + HOUR_MS, until_ms: START_MS + 2 * HOUR_MS - SUMMARY_GRAIN_MS }];
    let (left, _) = summarize(&database, &inside, NO_CORRECTIONS);
    assert!(left.iter().all(|(series, _)| *series != labels(0)) && left.len() == COLUMNS - 1);
    clock.advance(Duration::from_secs(40 * 3_600));
    wait_until(|| database.stats().blocks == 0);
}

fn wait_until(is_so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience);
        std::thread::yield_now();
    }
}

#[test]
fn buckets_that_still_count_deleted_samples_are_not_used() {
    let database = open();
    append(&database, START_MS + 10_000, 10_000, 700, 7);
    database.delete_series(&[], START_MS + 20 * 60_000, START_MS + 30 * 60_000).unwrap();
    check(&database, &hours(0, 2));
    database.clean_tombstones().unwrap();
    check(&database, &hours(0, 2));
}

#[test]
fn damaged_roll_ups_cost_time_only_as_long_as_the_samples_are_whole() {
    let io = Arc::new(MemoryIo::new());
    let open = |io: Arc<MemoryIo>| {
        let options = Options { retention_ms: None, housekeeping: false, ..Options::default() };
        Database::open(io, Path::new("/data"), options, ManualClock::new(START_MS + 48 * HOUR_MS))
    };
    let (database, _) = open(Arc::clone(&io)).unwrap();
    append(&database, START_MS + 10_000, 10_000, 700, 7);
    database.flush().unwrap();
    let want = summarize(&database, &hours(0, 2), SummaryFields::ALL).0;
    let block = io.paths().into_iter().find(|path| path.extension().is_some_and(|e| e == "block")).unwrap();
    let (mut by_samples, length) = (0, io.read(&block).unwrap().len());
    for place in (0..length).step_by(41) {
        let damaged = io.after_power_cut();
        damaged.corrupt(&block, |bytes| bytes[place] ^= 4);
        let Ok((database, _)) = open(Arc::new(damaged)) else { continue };
        if database.select(&matchers(), i64::MIN, i64::MAX, &Unlimited).map_or(0, |series| series.len())
            < COLUMNS
        {
            continue;
        }
        let (got, stats) = summarize(&database, &hours(0, 2), SummaryFields::ALL);
        for ((labels, want), (_, got)) in want.iter().zip(&got) {
            want.iter()
                .zip(got)
                .for_each(|(want, got)| assert_same(got, want, &format!("{labels}, byte {place}")));
        }
        by_samples += usize::from(stats.samples > 0);
    }
    assert!(by_samples > 0, "some byte of the roll-ups was hit");
}
