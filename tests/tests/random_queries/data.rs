//! An hour of samples with everything that makes series differ: gaps, stale markers, late starts and early
//! ends, counter resets, NaN and infinities, classic histograms; and how they are written to both.
//!
//! Prometheus 2 and 3 differ at the edges of windows and near a counter's zero, so each metric is made such
//! that the generator can ask questions that both answer alike (see `generator`):
//!
//! | metric | timestamps | values |
//! |---|---|---|
//! | `gauge`, `gauge_gaps`, `special`, `plateau` | whole multiples of 15 s: on the edges of windows | any |
//! | `jitter`, `counter`, `counter_gaps`, `requests_bucket` | never a whole or a half second | any, or counters |
//!
//! Prometheus 2 let a counter whose samples begin inside a window have begun further back than half an interval
//! if zero lay there. So counters stay far from zero where that may be: those with gaps all the time, the others
//! until no window reaches back to their start; then they reset to zero, too.
//!
//! Series are written in the order of their labels, and each begins with a stale marker before all samples:
//! among equal values `topk` takes those that come first, and Prometheus' head returns series in the order of
//! their creation.

use crate::random::Random;
use prost::Message;
use std::collections::BTreeMap;

/// When the first samples are taken.
pub(crate) const START_MS: i64 = 1_700_000_100_000;
/// How long they go on.
pub(crate) const SPAN_MS: i64 = 3_600_000;
/// No window that the generator asks for is longer.
const LONGEST_WINDOW_MS: i64 = 1_200_000;
/// Prometheus' stale marker.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// A message of remote write 1.0.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    series: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// A series and its samples.
struct Series {
    labels: BTreeMap<&'static str, String>,
    samples: Vec<Sample>,
}

/// Bodies of remote write, in time order: Prometheus takes nothing that is long before what it has.
pub(crate) fn writes(random: &mut Random) -> Vec<Vec<u8>> {
    let mut series = all_series(random);
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    for series in &mut series {
        series.samples.insert(0, Sample { value: STALE, timestamp: START_MS - 1 });
    }
    let slice_ms = 300_000;
    let mut bodies = Vec::new();
    for slice in -1..=SPAN_MS / slice_ms {
        let (from, to) = (START_MS + slice * slice_ms, START_MS + (slice + 1) * slice_ms);
        let series = series
            .iter()
            .map(|series| TimeSeries {
                labels: series
                    .labels
                    .iter()
                    .map(|(name, value)| Label { name: (*name).to_owned(), value: value.clone() })
                    .collect(),
                samples: series
                    .samples
                    .iter()
                    .copied()
                    .filter(|sample| (from..to).contains(&sample.timestamp))
                    .collect(),
            })
            .filter(|series| !series.samples.is_empty())
            .collect();
        let message = WriteRequest { series }.encode_to_vec();
        bodies.push(snap::raw::Encoder::new().compress_vec(&message).unwrap());
    }
    bodies
}

fn all_series(random: &mut Random) -> Vec<Series> {
    let mut all = Vec::new();
    for (job, instance) in [("a", "n1"), ("a", "n2"), ("b", "n1"), ("b", "n2"), ("b", "n3")] {
        for cpu in ["0", "1"] {
            let mut add = |name: &str, samples: Vec<Sample>| {
                let mut labels = BTreeMap::from([
                    ("__name__", name.to_owned()),
                    ("job", job.to_owned()),
                    ("instance", instance.to_owned()),
                    ("cpu", cpu.to_owned()),
                ]);
                if job == "b" {
                    labels.insert("env", if cpu == "0" { "prod" } else { "dev" }.to_owned());
                }
                all.push(Series { labels, samples });
            };
            add("gauge", walk(random, &grid(), false));
            add("plateau", plateaus(random, &grid()));
            let times = jittered(random);
            add("jitter", walk(random, &times, true));
            let times = jittered(random);
            add("counter", counter(random, &times, true));
            if instance != "n3" {
                let gaps = with_gaps(random, &grid());
                let samples = walk(random, &gaps, false);
                add("gauge_gaps", marked(random, samples));
                let times = jittered(random);
                let gaps = with_gaps(random, &times);
                let samples = counter(random, &gaps, false);
                add("counter_gaps", marked(random, samples));
                add("special", specials(random, &grid()));
            }
        }
        add_histogram(random, job, instance, &mut all);
        let labels = [
            ("__name__", "node_info"),
            ("job", job),
            ("instance", instance),
            ("zone", &format!("z{}", all.len() % 2)),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let samples = grid().into_iter().map(|timestamp| Sample { value: 1.0, timestamp }).collect();
        all.push(Series { labels: BTreeMap::from(labels), samples });
    }
    all
}

fn add_histogram(random: &mut Random, job: &str, instance: &str, all: &mut Vec<Series>) {
    let times = jittered(random);
    let mut counts = [1e7, 2e7, 3e7, 4e7, 5e7];
    let mut samples: [Vec<Sample>; 5] = Default::default();
    for timestamp in times {
        for _ in 0..random.below(20) {
            let bucket = random.below(5) as usize;
            for count in &mut counts[bucket..] {
                *count += 1.0;
            }
        }
        for (samples, &value) in samples.iter_mut().zip(&counts) {
            samples.push(Sample { value, timestamp });
        }
    }
    for (samples, bound) in samples.into_iter().zip(["0.1", "0.5", "1", "10", "+Inf"]) {
        let labels = [("__name__", "requests_bucket"), ("job", job), ("instance", instance), ("le", bound)]
            .map(|(name, value)| (name, value.to_owned()));
        all.push(Series { labels: BTreeMap::from(labels), samples });
    }
}

/// Every 15 s.
fn grid() -> Vec<i64> {
    (0..=SPAN_MS / 15_000).map(|index| START_MS + index * 15_000).collect()
}

/// About every 10 s, at 1 to 499 ms of a second.
fn jittered(random: &mut Random) -> Vec<i64> {
    (0..SPAN_MS / 10_000).map(|index| START_MS + index * 10_000 + 1 + random.below(499) as i64).collect()
}

/// Leaves out a start, an end and some in between.
fn with_gaps(random: &mut Random, times: &[i64]) -> Vec<i64> {
    let first = random.below(times.len() as u64 / 3) as usize;
    let end = times.len() - random.below(times.len() as u64 / 4) as usize;
    let mut missing = 0;
    times[first..end]
        .iter()
        .copied()
        .filter(|_| {
            if missing == 0 && random.once_in(25) {
                missing = 1 + random.below(40);
            }
            let kept = missing == 0;
            missing = missing.saturating_sub(1);
            kept
        })
        .collect()
}

fn walk(random: &mut Random, times: &[i64], fractions: bool) -> Vec<Sample> {
    let mut value = random.below(100) as f64;
    times
        .iter()
        .map(|&timestamp| {
            value += random.below(21) as f64 - 10.0;
            if fractions {
                value = (value * 10.0 + random.below(10) as f64).round() / 10.0;
            }
            Sample { value, timestamp }
        })
        .collect()
}

fn plateaus(random: &mut Random, times: &[i64]) -> Vec<Sample> {
    let mut value = 0.0;
    times
        .iter()
        .map(|&timestamp| {
            if random.once_in(8) {
                value = random.below(4) as f64;
            }
            Sample { value, timestamp }
        })
        .collect()
}

fn counter(random: &mut Random, times: &[i64], resets: bool) -> Vec<Sample> {
    let mut value = 1e7;
    times
        .iter()
        .map(|&timestamp| {
            value += random.below(50) as f64;
            if resets && timestamp > START_MS + LONGEST_WINDOW_MS && random.once_in(60) {
                value = random.below(5) as f64;
            }
            Sample { value, timestamp }
        })
        .collect()
}

fn specials(random: &mut Random, times: &[i64]) -> Vec<Sample> {
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0, 2.5, 1e100, 1e-100];
    times
        .iter()
        .map(|&timestamp| {
            let value = if random.once_in(3) { random.pick(&values) } else { random.below(10) as f64 };
            Sample { value, timestamp }
        })
        .collect()
}

/// Some samples become stale markers, as when a target goes away.
fn marked(random: &mut Random, mut samples: Vec<Sample>) -> Vec<Sample> {
    for sample in &mut samples {
        if random.once_in(20) {
            sample.value = STALE;
        }
    }
    samples
}
