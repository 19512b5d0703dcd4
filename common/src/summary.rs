//! What functions over a range need of many samples: their number, ends, extremes, sum, and how a counter
//! fell.
//!
//! Samples flow in ([`Summary::append_run`]), or summaries of samples that follow each other in time
//! ([`Summary::append`]); out comes a summary of all of them, from which a window's result is the same as
//! from its samples. The storage engine keeps summaries of aligned stretches of time; the query engine
//! puts them together to windows. Both share this module so that there is one way to sum up.

use crate::sample::{Sample, TimestampMs, is_stale_nan};

/// Integers below this are exact in a double, and so are sums below it.
pub const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A stretch of time, open on the left as the windows of PromQL are: `after_ms < t <= until_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Exclusive.
    pub after_ms: TimestampMs,
    /// Inclusive.
    pub until_ms: TimestampMs,
}

impl Span {
    /// Milliseconds it lasts.
    pub fn length_ms(&self) -> i64 {
        self.until_ms.saturating_sub(self.after_ms)
    }
}

/// Which fields of a [`Summary`] are wanted; the others may hold anything. `count` and `ends_stale` always
/// are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SummaryFields(u8);

impl SummaryFields {
    /// None but those that always are there.
    pub const COUNT: SummaryFields = SummaryFields(0);
    /// `first`
    pub const FIRST: SummaryFields = SummaryFields(1);
    /// `last`
    pub const LAST: SummaryFields = SummaryFields(2);
    /// `min`, `max`
    pub const EXTREMES: SummaryFields = SummaryFields(4);
    /// All about the sum, and `has_nan`.
    pub const SUM: SummaryFields = SummaryFields(8);
    /// `changes`
    pub const CHANGES: SummaryFields = SummaryFields(16);
    /// `resets`
    pub const RESETS: SummaryFields = SummaryFields(32);
    /// `corrections`, with all of them and not as many as a storage keeps.
    pub const CORRECTIONS: SummaryFields = SummaryFields(64);
    /// All of them.
    pub const ALL: SummaryFields = SummaryFields(127);

    /// These and those.
    pub const fn and(self, other: SummaryFields) -> SummaryFields {
        SummaryFields(self.0 | other.0)
    }

    /// Whether any of `other` is among them.
    #[inline]
    pub const fn has(self, other: SummaryFields) -> bool {
        self.0 & other.0 != 0
    }

    /// With those that joining two summaries takes: what changed from the last sample of one to the first
    /// of the other.
    pub const fn closed(self) -> SummaryFields {
        let joints = SummaryFields::CHANGES.and(SummaryFields::RESETS).and(SummaryFields::CORRECTIONS);
        if self.has(joints) { self.and(SummaryFields::FIRST).and(SummaryFields::LAST) } else { self }
    }
}

/// See the module's documentation. Stale markers count for nothing but `ends_stale`.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Samples.
    pub count: u64,
    /// Whether the newest of all samples, stale markers included, is a stale marker.
    pub ends_stale: bool,
    /// Whether samples are missing: retention dropped them, and the summaries that are left are of longer
    /// stretches. Nothing can be told then.
    pub is_cut: bool,
    /// Whether one of the values is NaN.
    pub has_nan: bool,
    /// The oldest sample, if there is any.
    pub first: Sample,
    /// The newest, if there is any.
    pub last: Sample,
    /// The least value, the earliest of equals; NaN if all are.
    pub min: f64,
    /// The largest, likewise.
    pub max: f64,
    /// The sum, rounded.
    pub sum: f64,
    /// What is to be added to `sum` for what rounding took from it.
    pub compensation: f64,
    /// By how much `sum + compensation` may be off, beside the rounding of the last bits of `magnitude`.
    pub uncertainty: f64,
    /// At least the sum of all magnitudes.
    pub magnitude: f64,
    /// Whether all values are whole numbers and so few and small that every order of adding is exact.
    pub is_exact: bool,
    /// How often a value differs from the one before.
    pub changes: u64,
    /// How often a value is less than the one before.
    pub resets: u64,
    /// The values before each reset, in order, but for those in `fallen`.
    pub corrections: Vec<f64>,
    /// The sum of the other values before resets: positive whole numbers, which add up to the same in any
    /// order as long as all of a sum stays below [`EXACT_MAX`]. Gauges fall too often to keep each of them.
    pub fallen: f64,
}

impl Default for Summary {
    fn default() -> Self {
        let none = Sample { timestamp_ms: 0, value: 0.0 };
        Summary {
            count: 0,
            ends_stale: false,
            is_cut: false,
            has_nan: false,
            first: none,
            last: none,
            min: f64::NAN,
            max: f64::NAN,
            sum: 0.0,
            compensation: 0.0,
            uncertainty: 0.0,
            magnitude: 0.0,
            is_exact: true,
            changes: 0,
            resets: 0,
            corrections: Vec::new(),
            fallen: 0.0,
        }
    }
}

/// The sum of values before resets if [`Summary::fallen`] may stand for them; `None` if each must be kept.
pub fn sum_of_falls(corrections: &[f64]) -> Option<f64> {
    let is_whole = |value: &f64| *value > 0.0 && value.trunc() == *value;
    let sum: f64 = corrections.iter().sum();
    (corrections.iter().all(is_whole) && sum < EXACT_MAX).then_some(sum)
}

/// Whether a value differs from the one before; NaN does not from NaN.
#[inline]
pub fn is_change(before: f64, now: f64) -> bool {
    before != now && !(before.is_nan() && now.is_nan())
}

/// The rounded sum of two floats and what rounding took from it, exactly.
#[inline]
pub fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let total = a + b;
    let added = total - a;
    (total, (a - (total - added)) + (b - added))
}

impl Summary {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        let mut corrections = std::mem::take(&mut self.corrections);
        corrections.clear();
        *self = Summary { corrections, ..Summary::default() };
    }

    /// Whether there was no sample at all, not even a stale marker.
    pub fn is_empty(&self) -> bool {
        self.count == 0 && !self.ends_stale
    }

    /// Adds samples that are newer than all before, in time order. Stale markers may be among them.
    pub fn append_run(&mut self, timestamps: &[TimestampMs], values: &[f64], fields: SummaryFields) {
        let Some(&newest) = values.last() else { return };
        let mut from = 0;
        while let Some(rest) = values.get(from..)
            && !rest.is_empty()
        {
            let length = rest.iter().position(|&value| is_stale_nan(value)).unwrap_or(rest.len());
            if let Some(timestamps) = timestamps.get(from..from + length) {
                self.append_plain(timestamps, &rest[..length], fields);
            }
            from += length + 1;
        }
        self.ends_stale = is_stale_nan(newest);
    }

    fn append_plain(&mut self, timestamps: &[TimestampMs], values: &[f64], fields: SummaryFields) {
        let (Some((&first_ms, &first)), Some((&last_ms, &last))) =
            (timestamps.first().zip(values.first()), timestamps.last().zip(values.last()))
        else {
            return;
        };
        if self.count > 0 {
            self.join(first);
        } else {
            self.first = Sample { timestamp_ms: first_ms, value: first };
        }
        if fields.has(SummaryFields::EXTREMES) {
            for &value in values {
                self.offer_extremes(value, value);
            }
        }
        if fields.has(SummaryFields::SUM) {
            self.add_values(values);
        }
        if fields.has(SummaryFields::CHANGES) {
            let changes = values.windows(2).filter(|pair| is_change(pair[0], pair[1])).count();
            self.changes += changes as u64;
        }
        if fields.has(SummaryFields::RESETS.and(SummaryFields::CORRECTIONS)) {
            let fell = values.windows(2).filter(|pair| pair[1] < pair[0]).map(|pair| pair[0]);
            let before = self.corrections.len();
            self.corrections.extend(fell);
            self.resets += (self.corrections.len() - before) as u64;
        }
        self.count += values.len() as u64;
        self.last = Sample { timestamp_ms: last_ms, value: last };
    }

    fn add_values(&mut self, values: &[f64]) {
        let (mut sum, mut compensation, mut magnitude) = (self.sum, self.compensation, self.magnitude);
        let mut whole = true;
        for &value in values {
            let (total, lost) = two_sum(sum, value);
            sum = total;
            compensation += lost;
            magnitude += value.abs();
            whole &= value.trunc() == value;
        }
        self.has_nan |= values.iter().fold(false, |found, value| found | value.is_nan());
        (self.sum, self.compensation, self.magnitude) = (sum, compensation, magnitude);
        self.is_exact = self.is_exact && whole && magnitude < EXACT_MAX;
    }

    /// What happens between the last sample and one that follows it.
    fn join(&mut self, next: f64) {
        self.changes += u64::from(is_change(self.last.value, next));
        if next < self.last.value {
            self.resets += 1;
            self.corrections.push(self.last.value);
        }
    }

    /// Takes the extremes of later samples into account.
    #[inline]
    pub fn offer_extremes(&mut self, min: f64, max: f64) {
        if min < self.min || self.min.is_nan() {
            self.min = min;
        }
        if max > self.max || self.max.is_nan() {
            self.max = max;
        }
    }

    /// Adds a summary of samples that are newer than all before.
    pub fn append(&mut self, later: &Summary) {
        if later.count > 0 {
            if self.count > 0 {
                self.join(later.first.value);
            } else {
                self.first = later.first;
            }
            self.offer_extremes(later.min, later.max);
            self.add_total(&Total::of(later));
            self.changes += later.changes;
            self.resets += later.resets;
            self.corrections.extend_from_slice(&later.corrections);
            self.fallen += later.fallen;
            self.count += later.count;
            self.last = later.last;
            self.has_nan |= later.has_nan;
        }
        self.is_cut |= later.is_cut;
        if !later.is_empty() {
            self.ends_stale = later.ends_stale;
        }
    }

    /// Adds a sum to the sum.
    #[inline]
    pub fn add_total(&mut self, later: &Total) {
        let (total, lost) = two_sum(self.sum, later.sum);
        self.sum = total;
        self.compensation += lost + later.compensation;
        self.magnitude += later.magnitude;
        self.uncertainty += later.uncertainty;
        self.is_exact = self.is_exact && later.is_exact && self.magnitude < EXACT_MAX;
    }

    /// Adds whole numbers that are sums of whole numbers of one sign: as [`Summary::add_total`] of each, which below
    /// [`EXACT_MAX`] is plain addition in any order. `false`, and nothing is added, if that may be exceeded or the sum
    /// so far is not whole.
    #[inline]
    pub fn add_whole(&mut self, sums: &[f64]) -> bool {
        let is_whole = is_whole(self.sum) && self.compensation == 0.0;
        let (mut sum, mut magnitude) = (self.sum, self.magnitude);
        for &value in sums {
            sum += value;
            magnitude += value.abs();
        }
        if !(is_whole && self.is_exact && magnitude < EXACT_MAX) {
            return false;
        }
        (self.sum, self.magnitude) = (sum, magnitude);
        true
    }
}

/// Whether a number is whole; of those beyond 64 bits nothing is said.
#[inline]
pub fn is_whole(value: f64) -> bool {
    // A call of `trunc` costs more where the processor is not known to have an instruction for it.
    (value as i64) as f64 == value
}

/// What a [`Summary`] has of the sum, field by field.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields of a summary of the same names")]
pub struct Total {
    pub sum: f64,
    pub compensation: f64,
    pub uncertainty: f64,
    pub magnitude: f64,
    pub is_exact: bool,
}

impl Total {
    fn of(summary: &Summary) -> Total {
        Total {
            sum: summary.sum,
            compensation: summary.compensation,
            uncertainty: summary.uncertainty,
            magnitude: summary.magnitude,
            is_exact: summary.is_exact,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::STALE_NAN;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whole_sums_add_up_as_one_by_one(
            before in prop::sample::select(vec![0.0, -7.0, 0.5, 9e15]),
            sums in prop::collection::vec(
                prop_oneof![(-1_000_000i64..1_000_000).prop_map(|sum| sum as f64), Just(8e15), Just(-0.0), Just(f64::INFINITY)],
                0..40,
            ),
        ) {
            let mut all = Summary { sum: before, magnitude: f64::abs(before), ..Summary::default() };
            let mut each = all.clone();
            if all.add_whole(&sums) {
                for &sum in &sums {
                    let magnitude = sum.abs();
                    each.add_total(&Total { sum, compensation: 0.0, uncertainty: 0.0, magnitude, is_exact: true });
                }
            }
            prop_assert_eq!(format!("{all:?}"), format!("{each:?}"));
        }
    }

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            8 => (-50i32..50).prop_map(f64::from),
            4 => -1.0..1.0f64,
            1 => Just(STALE_NAN),
            1 => Just(f64::NAN),
            1 => Just(-0.0),
        ]
    }

    fn of(timestamps: &[i64], values: &[f64]) -> Summary {
        let mut summary = Summary::default();
        summary.append_run(timestamps, values, SummaryFields::ALL);
        summary
    }

    fn bits(values: &[f64]) -> Vec<u64> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(
            values in prop::collection::vec(value(), 0..60), cuts in prop::collection::vec(0usize..60, 0..5),
        ) {
            let timestamps: Vec<i64> = (0..values.len() as i64).map(|row| row * 7).collect();
            let whole = of(&timestamps, &values);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(values.len())).collect();
            cuts.push(values.len());
            cuts.sort_unstable();
            let mut joined = Summary::default();
            let mut from = 0;
            for cut in cuts {
                joined.append(&of(&timestamps[from..cut], &values[from..cut]));
                from = cut;
            }
            prop_assert_eq!((joined.count, joined.ends_stale, joined.has_nan, joined.is_exact),
                (whole.count, whole.ends_stale, whole.has_nan, whole.is_exact));
            prop_assert_eq!((joined.first, joined.last), (whole.first, whole.last));
            prop_assert_eq!(bits(&[joined.min, joined.max]), bits(&[whole.min, whole.max]));
            prop_assert_eq!((joined.changes, joined.resets), (whole.changes, whole.resets));
            prop_assert_eq!(bits(&joined.corrections), bits(&whole.corrections));
            if !whole.has_nan {
                let (total, want) = (joined.sum + joined.compensation, whole.sum + whole.compensation);
                prop_assert!((total - want).abs() <= 1e-28 * whole.magnitude, "{} {}", total, want);
            }
        }
    }

    #[test]
    fn only_positive_whole_falls_are_summed() {
        assert_eq!(sum_of_falls(&[3.0, 90.0, 1.0]), Some(94.0));
        for odd in [0.5, 0.0, -0.0, -3.0, f64::INFINITY, EXACT_MAX] {
            assert_eq!(sum_of_falls(&[3.0, odd]), None, "{odd}");
        }
    }

    #[test]
    fn only_a_newest_stale_marker_ends_a_series() {
        let values = [1.0, STALE_NAN, 2.0];
        let summary = of(&[1, 2, 3], &values);
        assert_eq!((summary.count, summary.ends_stale, summary.last.value), (2, false, 2.0));
        let summary = of(&[1, 2], &values[..2]);
        assert_eq!((summary.count, summary.ends_stale, summary.last.timestamp_ms), (1, true, 1));
        assert!(!of(&[2], &values[1..2]).is_empty());
    }
}
