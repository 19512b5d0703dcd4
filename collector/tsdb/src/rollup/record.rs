//! The buckets of one series and level as bytes: one column per field, so that a query decodes what it
//! needs.
//!
//! ```text
//! record   buckets varint, bytes of each column (varints), columns
//! column   runs of the head's cheap codec: whole numbers (numbers, times, counts), or values
//! ```
//!
//! The first bucket of a block is a run by itself: it holds the one sample on the edge and fits in with
//! nothing. Further runs are short, so that an odd bucket widens few others.
//!
//! An empty column stands for what most series have: no flags, no resets, the least value first and the
//! largest last. FORMAT.md names the columns.

use super::total::Total;
use super::{Bucket, LEVELS_MS};
use crate::codec::short;
use crate::codec::varint::{self, Cursor};
use pharos_common::sample::{Sample, TimestampMs};
use pharos_common::summary::{self, Summary, SummaryFields};

/// Resets of a bucket whose corrections are kept: counters are reset rarely, and gauges have no rate.
const CORRECTIONS_MAX: u64 = 2;

/// More buckets in a record are damage: 300 years of the fine level.
const BUCKETS_MAX: usize = 1 << 25;

/// Buckets of each run after the first one's.
const RUN_ROWS: usize = 96;

const ENDS_STALE: i64 = 1;
const HAS_NAN: i64 = 2;
/// The sum depends on the order of adding.
const IS_INEXACT: i64 = 4;
/// Values of both signs, so that the sum does not tell their magnitude.
const IS_MIXED: i64 = 8;

// Columns in the order in which they are stored.
const NUMBER: usize = 0;
const FLAGS: usize = 1;
const COUNT: usize = 2;
const FIRST_MS: usize = 3;
const LAST_MS: usize = 4;
const FIRST: usize = 5;
const LAST: usize = 6;
const MIN: usize = 7;
const MAX: usize = 8;
const SUM: usize = 9;
const RESIDUAL: usize = 10;
const EXPONENT: usize = 11;
const CHANGES: usize = 12;
const RESETS: usize = 13;
const CORRECTIONS: usize = 14;
const COLUMNS: usize = 15;

/// The rows of each run of so many.
fn runs(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let rest = (1..rows).step_by(RUN_ROWS).map(move |start| start..(start + RUN_ROWS).min(rows));
    std::iter::once(0..rows.min(1)).chain(rest)
}

fn encode_integers(integers: &[i64], out: &mut Vec<u8>) {
    runs(integers.len()).for_each(|run| short::encode_timestamps(&integers[run], out));
}

fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    runs(values.len()).for_each(|run| short::encode_values(&values[run], out));
}

/// Appends the record of a series' buckets of one level.
pub(crate) fn encode(buckets: &[Bucket], width_ms: i64, out: &mut Vec<u8>) {
    let mut columns: [Vec<u8>; COLUMNS] = Default::default();
    let mut integers = |column: usize, of: &dyn Fn(&Bucket) -> i64, or_none: bool| {
        let numbers: Vec<i64> = buckets.iter().map(of).collect();
        if !(or_none && numbers.iter().all(|&number| number == 0)) {
            encode_integers(&numbers, &mut columns[column]);
        }
    };
    let totals = Total::of_all(&buckets.iter().map(|bucket| &bucket.summary).collect::<Vec<_>>());
    integers(NUMBER, &|bucket| bucket.number, false);
    integers(FLAGS, &|bucket| flags(&bucket.summary), true);
    integers(COUNT, &|bucket| bucket.summary.count as i64, false);
    let since = |bucket: &Bucket, sample: Sample| match bucket.summary.count {
        0 => 0,
        _ => sample.timestamp_ms.wrapping_sub(bucket.number.wrapping_mul(width_ms)),
    };
    integers(FIRST_MS, &|bucket| since(bucket, bucket.summary.first), false);
    integers(LAST_MS, &|bucket| since(bucket, bucket.summary.last), false);
    integers(EXPONENT, &|bucket| exponent(&bucket.summary), true);
    integers(CHANGES, &|bucket| bucket.summary.changes as i64, true);
    integers(RESETS, &|bucket| bucket.summary.resets as i64, true);
    let residuals: Vec<i64> = totals.iter().map(|total| total.residual).collect();
    if residuals.iter().any(|&residual| residual != 0) {
        encode_integers(&residuals, &mut columns[RESIDUAL]);
    }
    let values = |of: &dyn Fn(&Summary) -> f64| -> Vec<f64> {
        buckets
            .iter()
            .map(|bucket| if bucket.summary.count == 0 { 0.0 } else { of(&bucket.summary) })
            .collect()
    };
    let (first, last) = (values(&|summary| summary.first.value), values(&|summary| summary.last.value));
    let (min, max) = (values(&|summary| summary.min), values(&|summary| summary.max));
    let sums: Vec<f64> = totals.iter().map(|total| total.rounded).collect();
    let same = |left: &[f64], right: &[f64]| {
        left.iter().zip(right).all(|(left, right)| left.to_bits() == right.to_bits())
    };
    if !same(&min, &first) {
        encode_values(&min, &mut columns[MIN]);
    }
    if !same(&max, &last) {
        encode_values(&max, &mut columns[MAX]);
    }
    encode_values(&first, &mut columns[FIRST]);
    encode_values(&last, &mut columns[LAST]);
    encode_values(&sums, &mut columns[SUM]);
    let corrections: Vec<f64> = buckets
        .iter()
        .filter(|bucket| bucket.summary.resets <= CORRECTIONS_MAX)
        .flat_map(|bucket| bucket.summary.corrections.iter().copied())
        .collect();
    encode_values(&corrections, &mut columns[CORRECTIONS]);

    varint::push(out, buckets.len() as u64);
    for column in &columns {
        varint::push(out, column.len() as u64);
    }
    for column in &columns {
        out.extend_from_slice(column);
    }
}

fn flags(summary: &Summary) -> i64 {
    let flag = |is: bool, bit: i64| if is { bit } else { 0 };
    flag(summary.ends_stale, ENDS_STALE)
        | flag(summary.has_nan, HAS_NAN)
        | flag(!summary.is_exact, IS_INEXACT)
        | flag(is_mixed(summary), IS_MIXED)
}

fn is_mixed(summary: &Summary) -> bool {
    summary.min < 0.0 && summary.max > 0.0
}

/// The least power of two above the magnitude of a bucket of both signs.
fn exponent(summary: &Summary) -> i64 {
    match summary.magnitude {
        magnitude if is_mixed(summary) && magnitude.is_finite() => magnitude.log2().floor() as i64 + 1,
        _ => 0,
    }
}

/// Decoded columns of a record; kept from record to record for their memory.
#[derive(Debug, Default)]
pub(crate) struct BucketColumns {
    width_ms: i64,
    fields: SummaryFields,
    number: Vec<i64>,
    flags: Vec<i64>,
    count: Vec<i64>,
    first_ms: Vec<i64>,
    last_ms: Vec<i64>,
    first: Vec<f64>,
    last: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    sum: Vec<f64>,
    residual: Vec<i64>,
    exponent: Vec<i64>,
    changes: Vec<i64>,
    resets: Vec<i64>,
    /// Where each bucket's corrections begin, if any has one.
    correction_starts: Vec<u32>,
    corrections: Vec<f64>,
}

impl BucketColumns {
    /// Reads a record's wanted fields; `None` if the bytes are not a well-formed one.
    pub(crate) fn decode(&mut self, bytes: &[u8], width_ms: i64, fields: SummaryFields) -> Option<()> {
        self.width_ms = width_ms;
        self.fields = fields;
        let mut cursor = Cursor::new(bytes);
        let count = cursor.usize().filter(|&count| count <= BUCKETS_MAX)?;
        let mut lengths = [0usize; COLUMNS];
        for length in &mut lengths {
            *length = cursor.usize()?;
        }
        let mut columns: [&[u8]; COLUMNS] = [&[]; COLUMNS];
        for (column, length) in columns.iter_mut().zip(lengths) {
            *column = cursor.take(length)?;
        }
        let ends = fields.has(SummaryFields::FIRST.and(SummaryFields::LAST));
        let resets = fields.has(SummaryFields::RESETS.and(SummaryFields::CORRECTIONS));
        let extremes = fields.has(SummaryFields::EXTREMES);
        let sum = fields.has(SummaryFields::SUM);
        let first = fields.has(SummaryFields::FIRST);
        let last = fields.has(SummaryFields::LAST);
        let min_is_first = columns[MIN].is_empty();
        let max_is_last = columns[MAX].is_empty();
        let numbers = |into: &mut Vec<i64>, column: usize, wanted: bool| {
            into.clear();
            let mut cursor = Cursor::new(columns[column]);
            if !wanted || cursor.is_empty() {
                return Some(());
            }
            runs(count).try_for_each(|run| short::decode_timestamps(&mut cursor, run.len(), into))
        };
        numbers(&mut self.number, NUMBER, true)?;
        numbers(&mut self.flags, FLAGS, true)?;
        numbers(&mut self.count, COUNT, true)?;
        numbers(&mut self.first_ms, FIRST_MS, ends)?;
        numbers(&mut self.last_ms, LAST_MS, ends)?;
        numbers(&mut self.residual, RESIDUAL, sum)?;
        numbers(&mut self.exponent, EXPONENT, sum)?;
        numbers(&mut self.changes, CHANGES, fields.has(SummaryFields::CHANGES))?;
        numbers(&mut self.resets, RESETS, resets)?;
        let values = |into: &mut Vec<f64>, column: usize, count: usize, wanted: bool| {
            into.clear();
            if !wanted {
                return Some(());
            }
            let mut cursor = Cursor::new(columns[column]);
            runs(count).try_for_each(|run| short::decode_values(&mut cursor, run.len(), into))
        };
        values(&mut self.first, FIRST, count, first || extremes && min_is_first)?;
        values(&mut self.last, LAST, count, last || extremes && max_is_last)?;
        values(&mut self.min, MIN, count, extremes && !min_is_first)?;
        values(&mut self.max, MAX, count, extremes && !max_is_last)?;
        values(&mut self.sum, SUM, count, sum)?;
        self.find_corrections()?;
        let corrections = self.correction_starts.last().map_or(0, |&end| end as usize);
        values(&mut self.corrections, CORRECTIONS, corrections, corrections > 0)?;
        let has_all = |length: usize, wanted: bool| !wanted || length == count;
        let is_whole = has_all(self.number.len(), true)
            && has_all(self.count.len(), true)
            && (!ends || self.first_ms.len() == count && self.last_ms.len() == count)
            && self.number.windows(2).all(|pair| pair[0] < pair[1]);
        is_whole.then_some(())
    }

    /// From the number of resets of each bucket follows where its corrections are.
    fn find_corrections(&mut self) -> Option<()> {
        self.correction_starts.clear();
        if !self.fields.has(SummaryFields::CORRECTIONS) || self.resets.is_empty() {
            return Some(());
        }
        let mut start = 0u32;
        self.correction_starts.push(0);
        for &resets in &self.resets {
            if (0..=CORRECTIONS_MAX as i64).contains(&resets) {
                start = start.checked_add(resets as u32)?;
            }
            self.correction_starts.push(start);
        }
        Some(())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.number.len()
    }

    /// The first bucket whose number is `number` or more, by position.
    pub(crate) fn seek(&self, number: i64) -> usize {
        // Buckets mostly follow each other without a gap.
        let guess = self.number.first().and_then(|&first| usize::try_from(number.checked_sub(first)?).ok());
        match guess {
            Some(guess) if self.number.get(guess) == Some(&number) => guess,
            _ => self.number.partition_point(|&have| have < number),
        }
    }

    pub(crate) fn number(&self, at: usize) -> Option<i64> {
        self.number.get(at).copied()
    }

    /// Whether all wanted fields of a bucket are kept.
    #[inline]
    pub(crate) fn serves(&self, at: usize) -> bool {
        !self.fields.has(SummaryFields::CORRECTIONS)
            || self.resets.get(at).is_none_or(|&resets| (0..=CORRECTIONS_MAX as i64).contains(&resets))
    }

    /// Adds a bucket to a summary of what comes before it. `scratch` is for its use.
    #[inline]
    pub(crate) fn append_to(&self, at: usize, into: &mut Summary, scratch: &mut Summary) {
        let joints = SummaryFields::CHANGES.and(SummaryFields::RESETS).and(SummaryFields::CORRECTIONS);
        if self.fields.has(joints) {
            self.read(at, scratch);
            into.append(scratch);
        } else {
            self.append_apart(at, into);
        }
    }

    /// The same where nothing is asked of what happens between two buckets.
    #[inline]
    fn append_apart(&self, at: usize, into: &mut Summary) {
        let flags = self.flags.get(at).copied().unwrap_or(0);
        into.ends_stale = flags & ENDS_STALE != 0;
        let count = self.count.get(at).copied().unwrap_or(0) as u64;
        if count == 0 {
            return;
        }
        if self.fields.has(SummaryFields::FIRST) && into.count == 0 {
            into.first = self.sample(at, &self.first_ms, &self.first);
        }
        if self.fields.has(SummaryFields::LAST) {
            into.last = self.sample(at, &self.last_ms, &self.last);
        }
        if self.fields.has(SummaryFields::EXTREMES) {
            let (min, max) = self.extremes(at);
            into.offer_extremes(min, max);
        }
        if self.fields.has(SummaryFields::SUM) {
            into.has_nan |= flags & HAS_NAN != 0;
            into.add_total(&self.total(at, flags));
        }
        into.count += count;
    }

    fn sample(&self, at: usize, times: &[i64], values: &[f64]) -> Sample {
        let base_ms = self.number.get(at).copied().unwrap_or(0).wrapping_mul(self.width_ms);
        let timestamp_ms: TimestampMs = base_ms.wrapping_add(times.get(at).copied().unwrap_or(0));
        Sample { timestamp_ms, value: values.get(at).copied().unwrap_or(0.0) }
    }

    fn extremes(&self, at: usize) -> (f64, f64) {
        let of = |column: &[f64]| column.get(at).copied().unwrap_or(0.0);
        let min = if self.min.is_empty() { &self.first } else { &self.min };
        let max = if self.max.is_empty() { &self.last } else { &self.max };
        (of(min), of(max))
    }

    #[inline]
    fn total(&self, at: usize, flags: i64) -> summary::Total {
        let stored = Total {
            rounded: self.sum.get(at).copied().unwrap_or(0.0),
            residual: self.residual.get(at).copied().unwrap_or(0),
        };
        let is_exact = flags & IS_INEXACT == 0;
        let exponent = || self.exponent.get(at).copied().unwrap_or(0).clamp(-2_000, 2_000) as i32;
        summary::Total {
            sum: stored.rounded,
            compensation: stored.compensation(),
            uncertainty: if is_exact { 0.0 } else { stored.uncertainty() },
            magnitude: if flags & IS_MIXED == 0 { stored.rounded.abs() } else { 2f64.powi(exponent()) },
            is_exact,
        }
    }

    /// A bucket's wanted fields.
    fn read(&self, at: usize, summary: &mut Summary) {
        let integer = |column: &[i64]| column.get(at).copied().unwrap_or(0);
        summary.clear();
        self.append_apart(at, summary);
        if summary.count == 0 {
            return;
        }
        summary.changes = integer(&self.changes) as u64;
        summary.resets = integer(&self.resets) as u64;
        if let (Some(&from), Some(&to)) = (self.correction_starts.get(at), self.correction_starts.get(at + 1))
            && let Some(corrections) = self.corrections.get(from as usize..to as usize)
        {
            summary.corrections.extend_from_slice(corrections);
        }
    }
}

/// The narrowest bucket there is.
pub(crate) const FINEST_MS: i64 = LEVELS_MS[0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dense::tests::columns;
    use crate::rollup::Buckets;
    use proptest::prelude::*;

    fn record(buckets: &[Bucket]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(buckets, LEVELS_MS[0], &mut bytes);
        bytes
    }

    fn built(values: &[f64], distance_ms: i64) -> Vec<Bucket> {
        let timestamps: Vec<i64> = (0..values.len() as i64).map(|row| row * distance_ms - 400_000).collect();
        let mut buckets = Buckets::default();
        buckets.build(&timestamps, values);
        buckets.levels[0].clone()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn buckets_come_back(values in columns(400), distance_ms in 1i64..200_000) {
            let buckets = built(&values, distance_ms);
            let mut decoded = BucketColumns::default();
            decoded.decode(&record(&buckets), LEVELS_MS[0], SummaryFields::ALL).unwrap();
            prop_assert_eq!(decoded.len(), buckets.len());
            for (at, bucket) in buckets.iter().enumerate() {
                prop_assert_eq!(decoded.seek(bucket.number), at);
                let (mut back, want) = (Summary::default(), &bucket.summary);
                decoded.read(at, &mut back);
                let bits = |sample: Sample| (sample.timestamp_ms, sample.value.to_bits());
                prop_assert_eq!((back.count, back.ends_stale), (want.count, want.ends_stale));
                prop_assert_eq!((back.changes, back.resets), (want.changes, want.resets));
                if want.count == 0 {
                    continue;
                }
                prop_assert_eq!(bits(back.first), bits(want.first));
                prop_assert_eq!(bits(back.last), bits(want.last));
                prop_assert_eq!((back.min.to_bits(), back.max.to_bits()), (want.min.to_bits(), want.max.to_bits()));
                prop_assert_eq!((back.has_nan, back.is_exact), (want.has_nan, want.is_exact));
                prop_assert!(back.magnitude >= want.magnitude * 0.999_999 || !want.magnitude.is_finite());
                if decoded.serves(at) {
                    let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    prop_assert_eq!(bits(&back.corrections), bits(&want.corrections));
                }
                let off = (back.sum - want.sum) + (back.compensation - want.compensation);
                prop_assert!(!off.is_finite() || off.abs() <= back.uncertainty, "{} {:?} {:?}", off, back, want);
            }
        }

        #[test]
        fn any_choice_of_fields_is_that_of_all(values in columns(60), choice in 0u8..128) {
            let buckets = built(&values, 30_000);
            let choices = [SummaryFields::FIRST, SummaryFields::LAST, SummaryFields::EXTREMES,
                SummaryFields::SUM, SummaryFields::CHANGES, SummaryFields::RESETS, SummaryFields::CORRECTIONS];
            let mut fields = SummaryFields::COUNT;
            for (bit, field) in choices.into_iter().enumerate() {
                if choice & (1 << bit) != 0 {
                    fields = fields.and(field);
                }
            }
            let (mut all, mut some) = (BucketColumns::default(), BucketColumns::default());
            let bytes = record(&buckets);
            all.decode(&bytes, LEVELS_MS[0], SummaryFields::ALL).unwrap();
            some.decode(&bytes, LEVELS_MS[0], fields).unwrap();
            let (mut whole, mut part) = (Summary::default(), Summary::default());
            for at in 0..all.len() {
                all.read(at, &mut whole);
                some.read(at, &mut part);
                prop_assert_eq!((whole.count, whole.ends_stale), (part.count, part.ends_stale));
                let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
                prop_assert!(!fields.has(SummaryFields::FIRST) || whole.first == part.first);
                prop_assert!(!fields.has(SummaryFields::LAST) || whole.last == part.last);
                prop_assert!(!fields.has(SummaryFields::EXTREMES) || same(whole.min, part.min) && same(whole.max, part.max));
                prop_assert!(!fields.has(SummaryFields::SUM) || same(whole.sum, part.sum));
                prop_assert!(!fields.has(SummaryFields::CHANGES) || whole.changes == part.changes);
                prop_assert!(!fields.has(SummaryFields::RESETS) || whole.resets == part.resets);
            }
        }

        #[test]
        fn every_truncation_is_an_error(values in columns(40), cut in any::<prop::sample::Index>()) {
            let buckets = built(&values, 30_000);
            if !buckets.is_empty() {
                let bytes = record(&buckets);
                let bytes = &bytes[..cut.index(bytes.len())];
                let outcome = BucketColumns::default().decode(bytes, LEVELS_MS[0], SummaryFields::ALL);
                prop_assert!(outcome.is_none());
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 1..120), count in 0u8..8) {
            bytes[0] = count;
            let mut columns = BucketColumns::default();
            if columns.decode(&bytes, LEVELS_MS[0], SummaryFields::ALL).is_some() {
                let mut scratch = Summary::default();
                (0..columns.len()).for_each(|at| columns.read(at, &mut scratch));
            }
        }
    }

    #[test]
    fn a_steady_counter_takes_little() {
        let values: Vec<f64> = (0..86_400).map(|second| f64::from(second) * 1_000.0).collect();
        let bytes = record(&built(&values, 1_000)).len();
        assert!(bytes * 50 < values.len(), "{bytes}");
    }
}
