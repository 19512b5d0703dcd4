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
use crate::codec::{short, varint};
use pharos_common::sample::Sample;
use pharos_common::summary::{self, Summary};

/// Resets of a bucket whose corrections are kept one by one: counters are reset rarely. Of gauges, which fall
/// all the time, the sum is kept where it tells the same.
pub(super) const CORRECTIONS_MAX: u64 = 2;

/// More buckets in a record are damage: 300 years of the fine level.
pub(super) const BUCKETS_MAX: usize = 1 << 25;

/// Buckets of each run after the first one's.
const RUN_ROWS: usize = 96;

pub(super) const ENDS_STALE: i64 = 1;
pub(super) const HAS_NAN: i64 = 2;
/// The sum depends on the order of adding.
pub(super) const IS_INEXACT: i64 = 4;
/// Values of both signs, so that the sum does not tell their magnitude.
pub(super) const IS_MIXED: i64 = 8;
/// There is one correction: the sum of all.
pub(super) const FALLS_SUMMED: i64 = 16;

// Columns in the order in which they are stored.
pub(super) const NUMBER: usize = 0;
pub(super) const FLAGS: usize = 1;
pub(super) const COUNT: usize = 2;
pub(super) const FIRST_MS: usize = 3;
pub(super) const LAST_MS: usize = 4;
pub(super) const FIRST: usize = 5;
pub(super) const LAST: usize = 6;
pub(super) const MIN: usize = 7;
pub(super) const MAX: usize = 8;
pub(super) const SUM: usize = 9;
pub(super) const RESIDUAL: usize = 10;
pub(super) const EXPONENT: usize = 11;
pub(super) const CHANGES: usize = 12;
pub(super) const RESETS: usize = 13;
pub(super) const CORRECTIONS: usize = 14;
pub(super) const COLUMNS: usize = 15;

/// The rows of each run of so many.
pub(super) fn runs(rows: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
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
        .flat_map(|bucket| match &bucket.summary {
            few if few.resets <= CORRECTIONS_MAX => few.corrections.clone(),
            many => fallen(many).into_iter().collect(),
        })
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
        | flag(fallen(summary).is_some(), FALLS_SUMMED)
}

/// What stands for the corrections of a bucket of many resets, if anything does.
fn fallen(summary: &Summary) -> Option<f64> {
    (summary.resets > CORRECTIONS_MAX).then(|| summary::sum_of_falls(&summary.corrections)).flatten()
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

/// The narrowest bucket there is.
pub(crate) const FINEST_MS: i64 = LEVELS_MS[0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dense::tests::columns;
    use crate::rollup::Buckets;
    use crate::rollup::columns::BucketColumns;
    use pharos_common::summary::SummaryFields;
    use proptest::prelude::*;

    fn record(buckets: &[Bucket]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(buckets, LEVELS_MS[0], &mut bytes);
        bytes
    }

    /// Those of which the bits are set.
    fn fields(choice: u8) -> SummaryFields {
        let choices = [
            SummaryFields::FIRST,
            SummaryFields::LAST,
            SummaryFields::EXTREMES,
            SummaryFields::SUM,
            SummaryFields::CHANGES,
            SummaryFields::RESETS,
            SummaryFields::CORRECTIONS,
        ];
        let chosen = choices.into_iter().enumerate().filter(|(bit, _)| choice & (1 << bit) != 0);
        chosen.fold(SummaryFields::COUNT, |fields, (_, field)| fields.and(field))
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
                let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                if back.fallen != 0.0 {
                    prop_assert_eq!(summary::sum_of_falls(&want.corrections), Some(back.fallen));
                    prop_assert!(back.corrections.is_empty());
                } else if decoded.serves(at) {
                    prop_assert_eq!(bits(&back.corrections), bits(&want.corrections));
                }
                let off = (back.sum - want.sum) + (back.compensation - want.compensation);
                prop_assert!(!off.is_finite() || off.abs() <= back.uncertainty, "{} {:?} {:?}", off, back, want);
            }
        }

        #[test]
        fn any_choice_of_fields_is_that_of_all(values in columns(60), choice in 0u8..128) {
            let buckets = built(&values, 30_000);
            let fields = fields(choice);
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
        fn runs_of_buckets_are_what_bucket_by_bucket_is(
            values in columns(60), choice in 0u8..128, from in 0usize..60, length in 0usize..60,
        ) {
            let buckets = built(&values, 30_000);
            let mut decoded = BucketColumns::default();
            decoded.decode(&record(&buckets), LEVELS_MS[0], fields(choice)).unwrap();
            let from = from.min(decoded.len());
            let to = (from + length).min(decoded.len());
            let (mut whole, mut each, mut scratch) = Default::default();
            decoded.append_all(from..to, &mut whole, &mut scratch);
            (from..to).for_each(|at| decoded.append_to(at, &mut each, &mut scratch));
            prop_assert_eq!(format!("{whole:?}"), format!("{each:?}"));
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
