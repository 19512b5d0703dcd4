//! Native histograms: each is a row of a group, like everything else.
//!
//! The numbers of a histogram (count, zero count, sum, reset hint, one count per bucket) are sampled
//! together, so they are stored together: [`Shape`] tells which *part series* a histogram series has, and
//! [`Shape::values`] the row that stands for one histogram. Journal, pages, blocks, late samples and merges
//! treat them as what they are, columns of floats. Reads put the parts together again ([`assemble`]), so
//! that nobody outside this module ever sees a part.
//!
//! A part series has its histogram's labels and one more, [`PART_LABEL`], whose value is
//! `LAYOUT/PART`: the layout's key in hexadecimal, then `n` (count), `z` (zero count), `s` (sum), `h` (reset
//! hint), `pI` or `mI` (the bucket of index I above or below zero). The count's value has the layout itself
//! behind it. When a histogram gets a bucket that its shape lacks, the series goes on in a wider group;
//! rows of before then lack the bucket, which means that it was empty.

mod assemble;
mod layout;

pub(crate) use assemble::assemble;
pub use layout::Layout;

use pharos_common::histogram::{BucketSpan, CounterResetHint, FloatHistogram};
use pharos_common::labels::Labels;
use std::collections::BTreeSet;

/// The label that tells the parts of a histogram apart. It sorts behind the names of all usual labels, and
/// no series that comes from outside may have it.
pub const PART_LABEL: &str = "~histogram";

/// One number of a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    Count,
    ZeroCount,
    Sum,
    ResetHint,
    /// By index; bounds follow from the layout.
    Positive(i32),
    Negative(i32),
}

impl Part {
    /// Those that every histogram has.
    const ALWAYS: [Part; 4] = [Part::Count, Part::ZeroCount, Part::Sum, Part::ResetHint];

    fn parse(text: &str) -> Option<Part> {
        let (kind, index) = text.split_at_checked(1)?;
        match (kind, index) {
            ("n", "") => Some(Part::Count),
            ("z", "") => Some(Part::ZeroCount),
            ("s", "") => Some(Part::Sum),
            ("h", "") => Some(Part::ResetHint),
            ("p", index) => index.parse().ok().map(Part::Positive),
            ("m", index) => index.parse().ok().map(Part::Negative),
            _ => None,
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Count => f.write_str("n"),
            Part::ZeroCount => f.write_str("z"),
            Part::Sum => f.write_str("s"),
            Part::ResetHint => f.write_str("h"),
            Part::Positive(index) => write!(f, "p{index}"),
            Part::Negative(index) => write!(f, "m{index}"),
        }
    }
}

/// The parts that a histogram series has: a layout and the buckets that were ever filled.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    layout: Layout,
    parts: Vec<Part>,
}

impl Shape {
    /// The shape of one histogram: buckets that are empty in it have no part.
    pub fn of(histogram: &FloatHistogram) -> Shape {
        let mut parts: BTreeSet<Part> = Part::ALWAYS.into();
        parts.extend(filled(histogram).map(|(part, _)| part));
        Shape { layout: Layout::of(histogram), parts: parts.into_iter().collect() }
    }

    /// Whether a histogram can be told in this shape. A stale marker can, in any.
    pub fn fits(&self, histogram: &FloatHistogram) -> bool {
        histogram.is_stale()
            || Layout::of(histogram) == self.layout
                && filled(histogram).all(|(part, _)| self.parts.binary_search(&part).is_ok())
    }

    /// This shape with the buckets of another one added; that other one alone if its layout differs.
    pub fn widened(&self, other: Shape) -> Shape {
        if self.layout != other.layout {
            return other;
        }
        let parts: BTreeSet<Part> = self.parts.iter().copied().chain(other.parts).collect();
        Shape { layout: other.layout, parts: parts.into_iter().collect() }
    }

    /// Labels of the part series of a histogram series, in the order of [`Shape::values`].
    pub fn series(&self, labels: &Labels) -> Vec<Labels> {
        let key = self.layout.key();
        self.parts
            .iter()
            .map(|part| {
                let mut value = format!("{key:016x}/{part}");
                if *part == Part::Count {
                    value.push('/');
                    value.push_str(&self.layout.to_string());
                }
                let mut builder = labels.to_builder();
                builder.set(PART_LABEL, &value);
                builder.build()
            })
            .collect()
    }

    /// The row that stands for a histogram that [fits](Shape::fits).
    pub fn values(&self, histogram: &FloatHistogram) -> Vec<f64> {
        let mut row = vec![0.0; self.parts.len()];
        let mut set = |part: Part, value: f64| {
            if let Ok(at) = self.parts.binary_search(&part) {
                row[at] = value;
            }
        };
        set(Part::Count, histogram.count);
        set(Part::ZeroCount, histogram.zero_count);
        set(Part::Sum, histogram.sum);
        set(Part::ResetHint, hint_to_number(histogram.counter_reset_hint));
        for (part, count) in filled(histogram) {
            set(part, count);
        }
        row
    }
}

/// Buckets that are not empty.
fn filled(histogram: &FloatHistogram) -> impl Iterator<Item = (Part, f64)> {
    let side = |spans: &'_ [BucketSpan], counts: &'_ [f64], part: fn(i32) -> Part| {
        let counts = counts.to_vec();
        indexes(spans).zip(counts).map(move |(index, count)| (part(index), count)).collect::<Vec<_>>()
    };
    let negative = side(&histogram.negative_spans, &histogram.negative_buckets, Part::Negative);
    let positive = side(&histogram.positive_spans, &histogram.positive_buckets, Part::Positive);
    negative.into_iter().chain(positive).filter(|(_, count)| *count != 0.0)
}

/// Indexes of the buckets that spans cover.
fn indexes(spans: &[BucketSpan]) -> impl Iterator<Item = i32> {
    let mut next = 0i32;
    spans.iter().flat_map(move |span| {
        let first = next.wrapping_add(span.offset);
        next = first.wrapping_add(span.length as i32);
        (0..span.length).map(move |at| first.wrapping_add(at as i32))
    })
}

fn hint_to_number(hint: CounterResetHint) -> f64 {
    match hint {
        CounterResetHint::Unknown => 0.0,
        CounterResetHint::Reset => 1.0,
        CounterResetHint::NotReset => 2.0,
        CounterResetHint::Gauge => 3.0,
    }
}

fn hint_from_number(number: f64) -> CounterResetHint {
    match number {
        1.0 => CounterResetHint::Reset,
        2.0 => CounterResetHint::NotReset,
        3.0 => CounterResetHint::Gauge,
        _ => CounterResetHint::Unknown,
    }
}
