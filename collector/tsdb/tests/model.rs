//! The engine against a plain map: any interleaving of appends of floats and native histograms, late appends,
//! deletions, flushes, restarts and power cuts answers every selection as the map does, every sample has the start
//! timestamp that came with it, and every hour's summary tells what the map's samples are.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use pharos_common::clock::ManualClock;
use pharos_common::histogram::{BucketSpan, FloatHistogram};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::STALE_NAN;
use pharos_common::storage_io::{MemoryIo, StorageIo};
use pharos_common::summary::{Span, SummaryFields};
use pharos_tsdb::histogram::Shape;
use pharos_tsdb::starts;
use pharos_tsdb::{
    ABSENT, AppendBatch, Database, GroupId, Lane, Options, Row, StreamMark, Unlimited, is_absent,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const HOUR_MS: i64 = 3_600_000;
const START_MS: i64 = 1_000 * HOUR_MS;
/// Columns of each group.
const WIDTHS: [usize; 3] = [1, 3, 9];
/// The number of the one group that is a native histogram.
const HISTOGRAM: usize = WIDTHS.len();

#[derive(Clone, Debug)]
enum Step {
    /// Appends a row; the time is told from the newest of the group, milliseconds.
    Append {
        group: usize,
        after_ms: i64,
        seed: u32,
    },
    /// Appends many rows at one second.
    Run {
        group: usize,
        rows: u16,
        seed: u32,
    },
    /// Appends a native histogram; the time is told from the newest, milliseconds.
    Histogram {
        after_ms: i64,
        seed: u32,
    },
    Flush,
    Checkpoint,
    /// Deletes a group's samples in a range, told from its newest, milliseconds.
    Delete {
        group: usize,
        from_ms: i64,
        length_ms: i64,
    },
    Clean,
    Restart,
    PowerCut,
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..WIDTHS.len();
    prop_oneof![
        6 => (group.clone(), 1..5_000i64, any::<u32>())
            .prop_map(|(group, after_ms, seed)| Step::Append { group, after_ms, seed }),
        3 => (group.clone(), -4 * HOUR_MS..=0, any::<u32>())
            .prop_map(|(group, after_ms, seed)| Step::Append { group, after_ms, seed }),
        3 => (prop_oneof![3 => 1..5_000i64, 1 => -4 * HOUR_MS..=0], any::<u32>())
            .prop_map(|(after_ms, seed)| Step::Histogram { after_ms, seed }),
        1 => (0..=HISTOGRAM, -5 * HOUR_MS..HOUR_MS, 0..2 * HOUR_MS)
            .prop_map(|(group, from_ms, length_ms)| Step::Delete { group, from_ms, length_ms }),
        1 => Just(Step::Clean),
        2 => (group, 1..400u16, any::<u32>()).prop_map(|(group, rows, seed)| Step::Run { group, rows, seed }),
        1 => Just(Step::Flush),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::PowerCut),
    ]
}

fn labels(group: usize, column: usize) -> Labels {
    Labels::from_pairs([
        ("__name__", "metric"),
        ("group", &group.to_string()),
        ("column", &column.to_string()),
    ])
}

/// A value of some kind that telemetry has, or none.
fn value(seed: u32, column: usize) -> f64 {
    let mixed = seed.wrapping_mul(2_654_435_761).wrapping_add(column as u32 * 40_503);
    match mixed % 7 {
        0 => ABSENT,
        1 => STALE_NAN,
        2 => f64::from(mixed >> 8),
        3 => f64::from(mixed >> 20) / 100.0,
        4 => f64::from(mixed).sqrt(),
        _ => 42.0,
    }
}

/// Since when a sample has counted, as its sender tells; 0 for not. It changes now and then, and once in a while
/// it is such as cannot be.
fn start_ms(seed: u32, timestamp_ms: i64) -> i64 {
    match seed % 8 {
        0 => 0,
        1 => timestamp_ms + 1,
        2 => timestamp_ms,
        _ => START_MS - i64::from(seed % 8 / 2) * 777 - 5 * HOUR_MS,
    }
}

/// Whether a column's sender tells it.
fn has_starts(group: usize, column: usize) -> bool {
    group == HISTOGRAM || group > 0 && column.is_multiple_of(2)
}

/// A few buckets here and there, in one of two layouts.
fn histogram(seed: u32) -> FloatHistogram {
    let bits = seed >> 8;
    let buckets: Vec<f64> = (0..6).map(|bucket| f64::from(bits >> (2 * bucket) & 3)).collect();
    FloatHistogram {
        schema: seed.is_multiple_of(5).into(),
        zero_threshold: 0.001,
        zero_count: f64::from(bits % 3),
        count: f64::from(bits % 3) + buckets.iter().sum::<f64>(),
        sum: f64::from(seed % 1_000) / 7.0,
        positive_spans: vec![BucketSpan { offset: (seed % 4) as i32 - 2, length: 6 }],
        positive_buckets: buckets,
        ..FloatHistogram::default()
    }
}

/// What tells histograms apart, however their buckets are written: layout, numbers, and buckets that count.
type Told = (i32, [u64; 3], BTreeMap<i32, u64>);

fn told(histogram: &FloatHistogram) -> Told {
    let mut buckets = BTreeMap::new();
    let (mut next, mut counts) = (0, histogram.positive_buckets.iter());
    for span in &histogram.positive_spans {
        next += span.offset;
        for _ in 0..span.length {
            buckets.insert(next, counts.next().unwrap().to_bits());
            next += 1;
        }
    }
    buckets.retain(|_, count| *count != 0);
    let numbers = [histogram.count, histogram.sum, histogram.zero_count].map(f64::to_bits);
    (histogram.schema, numbers, buckets)
}

struct Engine {
    io: MemoryIo,
    clock: Arc<ManualClock>,
    database: Database,
    groups: Vec<Option<GroupId>>,
    truth: BTreeMap<(usize, usize, i64), u64>,
    /// The start timestamps of samples that have one.
    starts: BTreeMap<(usize, usize, i64), i64>,
    /// The histograms, and the shape in which they are appended.
    histograms: BTreeMap<i64, Told>,
    shape: Option<Shape>,
    newest_ms: [i64; HISTOGRAM + 1],
}

impl Engine {
    fn new() -> Self {
        let io = MemoryIo::new();
        let clock = ManualClock::new(START_MS + 24 * HOUR_MS);
        let database = open(&io, &clock);
        Engine {
            io,
            clock,
            database,
            groups: vec![None; WIDTHS.len()],
            truth: BTreeMap::new(),
            starts: BTreeMap::new(),
            histograms: BTreeMap::new(),
            shape: None,
            newest_ms: [START_MS; HISTOGRAM + 1],
        }
    }

    fn append(&mut self, group: usize, timestamp_ms: i64, seed: u32) {
        let values: Vec<f64> = (0..WIDTHS[group]).map(|column| value(seed, column)).collect();
        let with_starts: Vec<usize> =
            (0..WIDTHS[group]).filter(|column| has_starts(group, *column)).collect();
        let mut cells = values.clone();
        for &column in &with_starts {
            let cell = match is_absent(values[column]) || values[column].to_bits() == STALE_NAN.to_bits() {
                true => ABSENT,
                false => starts::cell(start_ms(seed, timestamp_ms), timestamp_ms),
            };
            cells.push(cell);
            if !is_absent(cell) {
                self.starts.entry((group, column, timestamp_ms)).or_insert(cell as i64);
            }
        }
        loop {
            let id = *self.groups[group].get_or_insert_with(|| {
                let mut columns: Vec<Labels> =
                    (0..WIDTHS[group]).map(|column| labels(group, column)).collect();
                columns.extend(with_starts.iter().map(|&column| starts::column(&labels(group, column))));
                self.database.define_group(&columns).unwrap()
            });
            let row = Row { group: id, timestamp_ms, values: &cells };
            match self.database.append(&AppendBatch { rows: &[row], mark: None }) {
                Ok(_) => break,
                Err(pharos_tsdb::TsdbError::UnknownGroup(_)) => self.groups[group] = None,
                Err(error) => panic!("{error}"),
            }
        }
        for (column, value) in values.into_iter().enumerate().filter(|(_, value)| !is_absent(*value)) {
            self.truth.entry((group, column, timestamp_ms)).or_insert(value.to_bits());
        }
        self.newest_ms[group] = self.newest_ms[group].max(timestamp_ms);
    }

    fn append_histogram(&mut self, timestamp_ms: i64, seed: u32) {
        // Who sends a sample twice sends the same; another one in its place could fill in what it lacks.
        if self.histograms.contains_key(&timestamp_ms) {
            return;
        }
        let histogram = histogram(seed);
        let shape = match self.shape.take() {
            Some(shape) if shape.fits(&histogram) => shape,
            Some(shape) => shape.widened(Shape::of(&histogram)),
            None => Shape::of(&histogram),
        };
        let (mut columns, mut cells) = (shape.series(&labels(HISTOGRAM, 0)), shape.values(&histogram));
        columns.push(starts::column(&labels(HISTOGRAM, 0)));
        cells.push(starts::cell(start_ms(seed, timestamp_ms), timestamp_ms));
        if let Some(start_ms) = cells.last().filter(|cell| !is_absent(**cell)) {
            self.starts.insert((HISTOGRAM, 0, timestamp_ms), *start_ms as i64);
        }
        let group = self.database.define_group(&columns).unwrap();
        let row = Row { group, timestamp_ms, values: &cells };
        self.database.append(&AppendBatch { rows: &[row], mark: None }).unwrap();
        self.histograms.insert(timestamp_ms, told(&histogram));
        self.newest_ms[HISTOGRAM] = self.newest_ms[HISTOGRAM].max(timestamp_ms);
        self.shape = Some(shape);
    }

    fn reopen(&mut self, io: MemoryIo) {
        let other = MemoryIo::new();
        // The old engine must be gone before the folder can be opened again.
        self.database = open(&other, &self.clock);
        self.database = open(&io, &self.clock);
        self.io = io;
        self.groups.fill(None);
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Append { group, after_ms, seed } => {
                self.append(group, self.newest_ms[group] + after_ms, seed);
            }
            Step::Run { group, rows, seed } => {
                for row in 0..u32::from(rows) {
                    self.append(group, self.newest_ms[group] + 1_000, seed.wrapping_add(row / 50));
                }
            }
            Step::Histogram { after_ms, seed } => {
                self.append_histogram(self.newest_ms[HISTOGRAM] + after_ms, seed);
            }
            Step::Flush => self.database.flush().unwrap(),
            Step::Delete { group, from_ms, length_ms } => {
                let start_ms = self.newest_ms[group] + from_ms;
                let end_ms = start_ms + length_ms;
                let matchers = [Matcher::equal("group", group.to_string())];
                self.database.delete_series(&matchers, start_ms, end_ms).unwrap();
                self.truth.retain(|&(of, _, at), _| of != group || !(start_ms..=end_ms).contains(&at));
                self.starts.retain(|&(of, _, at), _| of != group || !(start_ms..=end_ms).contains(&at));
                self.histograms.retain(|at, _| group != HISTOGRAM || !(start_ms..=end_ms).contains(at));
            }
            Step::Clean => drop(self.database.clean_tombstones().unwrap()),
            Step::Checkpoint => self.database.checkpoint().unwrap(),
            Step::Restart => {
                self.database.close().unwrap();
                self.reopen(self.io.clone());
            }
            Step::PowerCut => {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(self.database.durable(self.database.last_commit())).unwrap();
                self.reopen(self.io.after_power_cut());
            }
        }
        self.clock.advance(Duration::from_secs(1));
    }

    #[track_caller]
    fn check(&self, start_ms: i64, end_ms: i64) {
        let mut want: BTreeMap<Labels, Vec<(i64, u64)>> = BTreeMap::new();
        for (&(group, column, timestamp_ms), &bits) in &self.truth {
            if (start_ms..=end_ms).contains(&timestamp_ms) {
                want.entry(labels(group, column)).or_default().push((timestamp_ms, bits));
            }
        }
        let got: BTreeMap<Labels, Vec<(i64, u64)>> = self
            .database
            .select(&[], start_ms, end_ms, &Unlimited)
            .unwrap()
            .into_iter()
            .filter(|series| series.histograms.is_empty())
            .map(|series| {
                let bits = series.values.iter().map(|value| value.to_bits());
                (series.labels, series.timestamps.iter().copied().zip(bits).collect())
            })
            .collect();
        assert_eq!(got, want);
        // Parts have the same series in the same order.
        let parts = self.database.selection(&[], start_ms, end_ms, &Unlimited).unwrap().split(3);
        let mut in_parts: Vec<(Labels, Vec<(i64, u64)>)> = Vec::new();
        for mut part in parts {
            while let Some(series) = part.next_series(&Unlimited).unwrap() {
                if !series.histograms.is_empty() {
                    continue;
                }
                let bits = series.values.iter().map(|value| value.to_bits());
                in_parts.push((series.labels, series.timestamps.iter().copied().zip(bits).collect()));
            }
        }
        assert_eq!(
            in_parts,
            want.iter().map(|(labels, all)| (labels.clone(), all.clone())).collect::<Vec<_>>()
        );
        let newest: BTreeMap<Labels, Vec<(i64, u64)>> = self
            .database
            .select_newest(&[], start_ms, end_ms, &Unlimited)
            .unwrap()
            .into_iter()
            .filter(|series| series.histograms.is_empty())
            .map(|series| (series.labels, vec![(series.timestamps[0], series.values[0].to_bits())]))
            .collect();
        let last = |samples: &Vec<(i64, u64)>| samples.last().copied().into_iter().collect();
        assert_eq!(newest, want.iter().map(|(labels, samples)| (labels.clone(), last(samples))).collect());
        self.check_histograms(start_ms, end_ms);
        self.check_starts(start_ms, end_ms);
    }

    #[track_caller]
    fn check_starts(&self, from_ms: i64, to_ms: i64) {
        let mut got = BTreeMap::new();
        let found = self.database.selection_with_starts(&[], from_ms, to_ms, &Unlimited).unwrap();
        for mut part in found.split(3) {
            while let Some(series) = part.next_series(&Unlimited).unwrap() {
                let number = |name| series.labels.get(name).unwrap().parse::<usize>().unwrap();
                let histograms = series.histograms.iter().map(|sample| &sample.timestamp_ms);
                for &at in series.timestamps.iter().chain(histograms) {
                    if let Some(start_ms) = series.starts.at(at) {
                        got.insert((number("group"), number("column"), at), start_ms);
                    }
                }
                assert!(series.starts.runs().is_sorted_by(|run, next| {
                    run.first_ms < next.first_ms && run.start_ms != next.start_ms
                }));
            }
        }
        let want = self.starts.iter().filter(|((_, _, at), _)| (from_ms..=to_ms).contains(at));
        assert_eq!(got, want.map(|(key, start_ms)| (*key, *start_ms)).collect());
        for series in self.database.series(&[], from_ms, to_ms).unwrap() {
            assert!(!pharos_tsdb::is_hidden(&series), "{series}");
        }
    }

    #[track_caller]
    fn check_histograms(&self, start_ms: i64, end_ms: i64) {
        let of_histogram = [Matcher::equal("group", HISTOGRAM.to_string())];
        let got = self.database.select(&of_histogram, start_ms, end_ms, &Unlimited).unwrap();
        let got: BTreeMap<i64, Told> = got
            .iter()
            .flat_map(|series| &series.histograms)
            .map(|sample| (sample.timestamp_ms, told(&sample.histogram)))
            .collect();
        let want = self.histograms.iter().filter(|(at, _)| (start_ms..=end_ms).contains(*at));
        assert_eq!(got, want.map(|(at, told)| (*at, told.clone())).collect());
    }

    /// Summaries of hours, of which roll-ups serve what they can.
    #[track_caller]
    fn check_summaries(&self) {
        let hour = |hour: i64| START_MS + hour * HOUR_MS;
        let spans: Vec<Span> =
            (-5..3).map(|at| Span { after_ms: hour(at), until_ms: hour(at + 1) }).collect();
        for (group, width) in WIDTHS.into_iter().enumerate() {
            let of_group = [Matcher::equal("group", group.to_string())];
            let fields = SummaryFields::FIRST.and(SummaryFields::LAST).and(SummaryFields::EXTREMES);
            let read =
                self.database.summarize(&of_group, spans.as_slice().into(), fields, &Unlimited).unwrap();
            let (mut read, mut out) = (read.unwrap(), Vec::new());
            let mut got = BTreeMap::new();
            while let Some(labels) = read.next_series(&Unlimited, &mut out).unwrap() {
                let column: usize = labels.get("column").unwrap().parse().unwrap();
                for (at, summary) in out.iter().enumerate().filter(|(_, summary)| summary.count > 0) {
                    let ends = (summary.first.timestamp_ms, summary.last.timestamp_ms);
                    let values = [summary.first.value, summary.last.value, summary.min, summary.max];
                    got.insert((column, at), (summary.count, ends, values.map(f64::to_bits)));
                }
            }
            let mut want = BTreeMap::new();
            for column in 0..width {
                for (at, span) in spans.iter().enumerate() {
                    let range = (group, column, span.after_ms + 1)..=(group, column, span.until_ms);
                    let samples = self.truth.range(range).map(|(key, bits)| (key.2, f64::from_bits(*bits)));
                    let samples: Vec<(i64, f64)> =
                        samples.filter(|(_, value)| value.to_bits() != STALE_NAN.to_bits()).collect();
                    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
                    let values = samples.iter().map(|(_, value)| *value);
                    let (least, most) =
                        (values.clone().reduce(f64::min).unwrap(), values.reduce(f64::max).unwrap());
                    let told = [first.1, last.1, least, most].map(f64::to_bits);
                    want.insert((column, at), (samples.len() as u64, (first.0, last.0), told));
                }
            }
            assert_eq!(got, want);
        }
    }
}

fn open(io: &MemoryIo, clock: &Arc<ManualClock>) -> Database {
    let options = Options { housekeeping: false, ..Options::default() };
    let clock: Arc<ManualClock> = Arc::clone(clock);
    let (database, report) =
        Database::open(Arc::new(io.clone()), Path::new("/tsdb"), options, clock).unwrap();
    assert_eq!((report.damaged_bytes, report.rows_lost), (0, 0));
    database
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_interleaving_answers_as_a_plain_map(
        steps in prop::collection::vec(step(), 1..40),
        ranges in prop::collection::vec((-5 * HOUR_MS..2 * HOUR_MS, 0..3 * HOUR_MS), 3),
    ) {
        let mut engine = Engine::new();
        for step in &steps {
            engine.apply(step);
        }
        engine.check(i64::MIN, i64::MAX);
        for (start, length) in ranges {
            engine.check(START_MS + start, START_MS + start + length);
        }
        engine.check_summaries();
        engine.apply(&Step::Flush);
        engine.apply(&Step::Restart);
        engine.check(i64::MIN, i64::MAX);
        engine.check_summaries();
    }
}

#[test]
fn what_is_deleted_is_gone_everywhere_and_its_room_comes_back() {
    let mut engine = Engine::new();
    engine.apply(&Step::Run { group: 1, rows: 300, seed: 4 });
    engine.apply(&Step::Run { group: 2, rows: 300, seed: 4 });
    engine.apply(&Step::Delete { group: 2, from_ms: -HOUR_MS, length_ms: HOUR_MS });
    let names = |engine: &Engine| engine.database.label_values("group", &[], i64::MIN, i64::MAX).unwrap();
    for restarted in [false, true] {
        if restarted {
            engine.apply(&Step::PowerCut);
        }
        engine.check(i64::MIN, i64::MAX);
        assert_eq!(names(&engine), ["1"]);
    }
    let before = engine.database.stats().block_bytes;
    assert_eq!(engine.database.clean_tombstones().unwrap(), 1);
    assert!(engine.database.stats().block_bytes < before);
    engine.apply(&Step::Restart);
    assert_eq!(engine.database.clean_tombstones().unwrap(), 0);
    // What comes after a deletion is kept, also in its range.
    engine.append(2, engine.newest_ms[2] - 1_000, 4);
    engine.apply(&Step::Flush);
    engine.check(i64::MIN, i64::MAX);
    assert_eq!(names(&engine), ["1", "2"]);
}

#[test]
fn a_frame_sent_twice_is_stored_once_even_across_a_kill() {
    let mut engine = Engine::new();
    let columns = [labels(0, 0)];
    let mark = |sequence| Some(StreamMark { stream: [7; 16], lane: Lane::Live, sequence });
    let send = |engine: &Engine, timestamp_ms, sequence| {
        let group = engine.database.define_group(&columns).unwrap();
        let row = Row { group, timestamp_ms, values: &[1.0] };
        engine.database.append(&AppendBatch { rows: &[row], mark: mark(sequence) }).unwrap()
    };
    assert!(!send(&engine, START_MS, 4).repeated);
    assert!(send(&engine, START_MS + 1, 4).repeated);
    engine.apply(&Step::PowerCut);
    assert_eq!(engine.database.stream_marks(&[7; 16]), (4, 0));
    assert!(send(&engine, START_MS + 1, 4).repeated);
    engine.apply(&Step::Flush);
    engine.apply(&Step::Flush);
    engine.apply(&Step::Restart);
    assert!(send(&engine, START_MS + 1, 3).repeated, "marks outlive the segment they were written in");
    assert!(!send(&engine, START_MS + 1, 5).repeated);
}

#[test]
fn samples_beyond_retention_or_far_ahead_are_refused_and_counted() {
    let engine = Engine::new();
    let group = engine.database.define_group(&[labels(0, 0)]).unwrap();
    let now_ms = START_MS + 24 * HOUR_MS;
    let append = |timestamp_ms| {
        let row = Row { group, timestamp_ms, values: &[1.0] };
        engine.database.append(&AppendBatch { rows: &[row], mark: None }).unwrap()
    };
    assert_eq!(append(now_ms - 31 * 24 * HOUR_MS).too_old, 1);
    assert_eq!(append(now_ms + 25 * HOUR_MS).too_new, 1);
    assert_eq!(append(now_ms).samples, 1);
}

#[test]
fn blocks_beyond_retention_are_dropped_whole() {
    let mut engine = Engine::new();
    engine.append(0, START_MS, 2);
    engine.apply(&Step::Flush);
    let Engine { io, clock, database, .. } = engine;
    assert_eq!(database.stats().blocks, 1);
    drop(database);
    let options = Options { retention_ms: Some(HOUR_MS), ..Options::default() };
    let (_database, report) =
        Database::open(Arc::new(io.clone()), Path::new("/tsdb"), options, clock).unwrap();
    assert_eq!(report.blocks, 1);
    while io.paths().iter().any(|path| path.extension().is_some_and(|end| end == "block")) {
        std::thread::yield_now();
    }
}

#[test]
fn names_values_and_series_are_those_of_the_range() {
    let mut engine = Engine::new();
    engine.append(1, START_MS, 2);
    let check = |engine: &Engine, start_ms: i64, end_ms: i64, found: bool| {
        let database = &engine.database;
        assert_eq!(database.label_names(&[], start_ms, end_ms).unwrap().is_empty(), !found);
        assert_eq!(database.label_values("group", &[], start_ms, end_ms).unwrap().is_empty(), !found);
        assert_eq!(database.series(&[], start_ms, end_ms).unwrap().is_empty(), !found);
    };
    for _ in ["in the head", "in a block"] {
        check(&engine, START_MS - 5, START_MS + 5, true);
        check(&engine, 0, START_MS - 1, false);
        check(&engine, START_MS + 1, i64::MAX, false);
        engine.apply(&Step::Flush);
    }
}

#[test]
fn a_snapshot_is_a_storage_folder_of_its_own() {
    let mut engine = Engine::new();
    engine.append(1, START_MS, 2);
    let snapshot = engine.database.snapshot("first").unwrap();
    let (truth, starts) = (engine.truth.clone(), engine.starts.clone());
    engine.append(1, START_MS + 1, 3);
    engine.apply(&Step::Flush);
    assert!(engine.database.snapshot("first").is_err(), "a snapshot is never overwritten");
    let options = Options { housekeeping: false, ..Options::default() };
    let clock: Arc<ManualClock> = Arc::clone(&engine.clock);
    let (copy, _) = Database::open(Arc::new(engine.io.after_power_cut()), &snapshot, options, clock).unwrap();
    engine.database = copy;
    (engine.truth, engine.starts) = (truth, starts);
    engine.check(i64::MIN, i64::MAX);
}

#[test]
fn a_flush_leaves_the_journal_empty() {
    let mut engine = Engine::new();
    let journal_bytes = |engine: &Engine| -> usize {
        let files = engine.io.paths().into_iter().filter(|path| path.starts_with("/tsdb/journal"));
        files.map(|path| engine.io.read(&path).unwrap().len()).sum()
    };
    // Every row has other values, so that the size does not hang on how many rows share a record.
    for row in 0..300 {
        engine.append(2, START_MS + i64::from(row) * 1_000, row);
    }
    engine.apply(&Step::Restart);
    assert!(journal_bytes(&engine) > 4_000);
    engine.apply(&Step::Flush);
    assert!(journal_bytes(&engine) < 100);
    engine.check(i64::MIN, i64::MAX);
}

#[test]
fn a_folder_opens_once() {
    let engine = Engine::new();
    let second = Database::open(
        Arc::new(engine.io.clone()),
        Path::new("/tsdb"),
        Options::default(),
        ManualClock::new(START_MS),
    );
    assert!(matches!(second, Err(pharos_tsdb::TsdbError::Locked(_))));
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_goes_on_by_itself() {
    let mut engine = Engine::new();
    engine.append(0, START_MS, 2);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(engine.database.durable(engine.database.last_commit())).unwrap();
    engine.io.set_capacity(Some(0));
    engine.append(0, START_MS + 1, 2);
    let refused = runtime.block_on(engine.database.durable(engine.database.last_commit()));
    assert!(matches!(refused, Err(pharos_tsdb::TsdbError::Busy(_))));
    engine.check(i64::MIN, i64::MAX);
    engine.io.set_capacity(None);
    while runtime.block_on(engine.database.durable(engine.database.last_commit())).is_err() {
        std::thread::yield_now();
    }
    engine.append(0, START_MS + 2, 2);
    engine.apply(&Step::PowerCut);
    engine.check(i64::MIN, i64::MAX);
}

#[test]
fn a_damaged_journal_record_costs_only_what_builds_on_it_and_never_a_wrong_value() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut engine = Engine::new();
    for row in 0..200 {
        engine.append(1, START_MS + row * 1_000, row as u32 * 7);
        runtime.block_on(engine.database.durable(engine.database.last_commit())).unwrap();
    }
    let journal =
        engine.io.paths().into_iter().find(|path| path.to_string_lossy().contains("/journal/")).unwrap();
    let truth = engine.truth.clone();
    let whole = runtime.block_on(async { engine.io.after_power_cut() });
    for place in (20..1_500).step_by(37) {
        let io = whole.after_power_cut();
        io.corrupt(&journal, |bytes| {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= 0x10;
            }
        });
        let options = Options { housekeeping: false, ..Options::default() };
        let clock: Arc<ManualClock> = Arc::clone(&engine.clock);
        let (database, report) = Database::open(Arc::new(io), Path::new("/tsdb"), options, clock).unwrap();
        assert!(report.damaged_bytes > 0, "{place}");
        for series in database.select(&[], i64::MIN, i64::MAX, &Unlimited).unwrap() {
            let column: usize = series.labels.get("column").unwrap().parse().unwrap();
            for (&timestamp_ms, value) in series.timestamps.iter().zip(&series.values) {
                assert_eq!(truth.get(&(1, column, timestamp_ms)), Some(&value.to_bits()), "{place}");
            }
        }
    }
}
