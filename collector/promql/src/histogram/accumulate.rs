//! Adding histograms up: buckets by index, with compensation for what floats lose.
//!
//! Histograms of different resolution meet at the coarser one, zero buckets at the wider one, and custom
//! buckets at the bounds they share.

use super::buckets::{exponential_bound, indexed, to_spans};
use crate::functions::math::add_compensated;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use std::collections::BTreeMap;

/// A sum under way.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    sum: f64,
    compensation: f64,
}

impl Total {
    fn of(value: f64) -> Self {
        Total { sum: value, compensation: 0.0 }
    }

    fn add(&mut self, value: f64) {
        add_compensated(value, &mut self.sum, &mut self.compensation);
    }

    fn absorb(&mut self, other: Total) {
        self.add(other.sum);
        self.compensation += other.compensation;
    }

    fn scale(&mut self, factor: f64) {
        self.sum *= factor;
        self.compensation *= factor;
    }

    fn value(self) -> f64 {
        if self.sum.is_infinite() { self.sum } else { self.sum + self.compensation }
    }
}

type Buckets = BTreeMap<i32, Total>;

/// Exponential and custom buckets cannot be added to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incompatible;

/// What had to be done to add a histogram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// One said it was reset, the other that it was not.
    pub(crate) hints_collide: bool,
    /// Custom bounds differed and were reduced to those both have.
    pub(crate) bounds_reconciled: bool,
}

/// A histogram that others are added to.
#[derive(Clone, Debug)]
pub(crate) struct Accumulator {
    hint: CounterResetHint,
    schema: i32,
    custom_values: Vec<f64>,
    zero_threshold: f64,
    zero: Total,
    count: Total,
    sum: Total,
    positive: Buckets,
    negative: Buckets,
}

impl Accumulator {
    pub(crate) fn new(histogram: &FloatHistogram) -> Self {
        let totals = |spans, counts| {
            indexed(spans, counts).map(|(index, count)| (index, Total::of(count))).collect::<Buckets>()
        };
        Accumulator {
            hint: histogram.counter_reset_hint,
            schema: histogram.schema,
            custom_values: histogram.custom_values.clone(),
            zero_threshold: histogram.zero_threshold,
            zero: Total::of(histogram.zero_count),
            count: Total::of(histogram.count),
            sum: Total::of(histogram.sum),
            positive: totals(&histogram.positive_spans, &histogram.positive_buckets),
            negative: totals(&histogram.negative_spans, &histogram.negative_buckets),
        }
    }

    fn uses_custom_buckets(&self) -> bool {
        self.schema == pharos_common::histogram::CUSTOM_BUCKETS_SCHEMA
    }

    /// Adds a histogram, or takes it away with a `factor` of -1.
    pub(crate) fn add(&mut self, histogram: &FloatHistogram, factor: f64) -> Result<Added, Incompatible> {
        if self.uses_custom_buckets() != histogram.uses_custom_buckets() {
            return Err(Incompatible);
        }
        let mut other = Accumulator::new(histogram);
        let hints_collide = self.merge_hint(other.hint);
        let mut bounds_reconciled = false;
        if self.uses_custom_buckets() {
            bounds_reconciled = self.reconcile_bounds(&mut other);
        } else {
            self.reconcile_zero(&mut other);
            let schema = self.schema.min(other.schema);
            self.reduce_to(schema);
            other.reduce_to(schema);
        }
        other.scale(factor);
        self.zero.absorb(other.zero);
        self.count.absorb(other.count);
        self.sum.absorb(other.sum);
        for (own, others) in [(&mut self.positive, other.positive), (&mut self.negative, other.negative)] {
            for (index, total) in others {
                own.entry(index).or_default().absorb(total);
            }
        }
        Ok(Added { hints_collide, bounds_reconciled })
    }

    /// Multiplies everything.
    pub(crate) fn scale(&mut self, factor: f64) {
        if factor == 1.0 {
            return;
        }
        for total in [&mut self.zero, &mut self.count, &mut self.sum] {
            total.scale(factor);
        }
        for total in self.positive.values_mut().chain(self.negative.values_mut()) {
            total.scale(factor);
        }
    }

    /// Whether a count or the sum has left the range of floats.
    pub(crate) fn overflows(&self) -> bool {
        [self.zero, self.count, self.sum]
            .iter()
            .chain(self.positive.values())
            .chain(self.negative.values())
            .any(|total| total.sum.is_infinite())
    }

    /// The histogram, with empty buckets where there are any.
    pub(crate) fn finish(self) -> FloatHistogram {
        let values =
            |buckets: Buckets| to_spans(buckets.into_iter().map(|(index, total)| (index, total.value())));
        let (positive_spans, positive_buckets) = values(self.positive);
        let (negative_spans, negative_buckets) = values(self.negative);
        FloatHistogram {
            counter_reset_hint: self.hint,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: self.zero.value(),
            count: self.count.value(),
            sum: self.sum.value(),
            positive_spans,
            negative_spans,
            positive_buckets,
            negative_buckets,
            custom_values: self.custom_values,
        }
    }

    /// What the sum says about resets. True if the two contradict each other.
    fn merge_hint(&mut self, other: CounterResetHint) -> bool {
        use CounterResetHint::{Gauge, Unknown};
        match (self.hint, other) {
            (own, other) if own == other => false,
            (Gauge, _) | (_, Gauge) => {
                self.hint = Gauge;
                false
            }
            (Unknown, _) | (_, Unknown) => {
                self.hint = Unknown;
                false
            }
            _ => {
                self.hint = Unknown;
                true
            }
        }
    }

    /// Widens the narrower zero bucket until both are equal.
    fn reconcile_zero(&mut self, other: &mut Accumulator) {
        while self.zero_threshold != other.zero_threshold {
            if self.zero_threshold < other.zero_threshold {
                self.widen_zero(other.zero_threshold);
            } else {
                other.widen_zero(self.zero_threshold);
            }
        }
    }

    /// Moves buckets into the zero bucket up to a distance from zero, further if that lies within a
    /// bucket that holds something.
    fn widen_zero(&mut self, mut threshold: f64) {
        let schema = self.schema;
        let bounds =
            |index: i32| (exponential_bound(index.wrapping_sub(1), schema), exponential_bound(index, schema));
        // A bucket around the threshold moves it outwards, which may reach another one.
        loop {
            let around = self.positive.iter().chain(&self.negative).find(|(index, total)| {
                let (lower, upper) = bounds(**index);
                lower < threshold && upper > threshold && total.sum != 0.0
            });
            match around {
                Some((&index, _)) => threshold = bounds(index).1,
                None => break,
            }
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            buckets.retain(|&index, total| {
                let inside = bounds(index).0 < threshold;
                if inside {
                    self.zero.absorb(*total);
                }
                !inside
            });
        }
        self.zero_threshold = threshold;
    }

    /// Merges buckets until the resolution is that of `schema`.
    pub(crate) fn reduce_to(&mut self, schema: i32) {
        let shift = (self.schema - schema).clamp(0, 31);
        if shift == 0 {
            return;
        }
        for buckets in [&mut self.positive, &mut self.negative] {
            let fine = std::mem::take(buckets);
            for (index, total) in fine {
                let coarse = (index.wrapping_sub(1) >> shift).wrapping_add(1);
                buckets.entry(coarse).or_default().absorb(total);
            }
        }
        self.schema = schema;
    }

    /// Reduces custom buckets to the bounds that both have. True if that changed any.
    fn reconcile_bounds(&mut self, other: &mut Accumulator) -> bool {
        if self.custom_values == other.custom_values {
            return false;
        }
        let shared: Vec<f64> =
            self.custom_values.iter().copied().filter(|bound| other.custom_values.contains(bound)).collect();
        self.merge_into_bounds(&shared);
        other.merge_into_bounds(&shared);
        true
    }

    /// Merges custom buckets into those with fewer bounds.
    pub(crate) fn merge_into_bounds(&mut self, bounds: &[f64]) {
        let fine = std::mem::take(&mut self.positive);
        for (index, total) in fine {
            let upper = usize::try_from(index).ok().and_then(|index| self.custom_values.get(index));
            let coarse = upper.map_or(bounds.len(), |upper| bounds.partition_point(|bound| bound < upper));
            self.positive.entry(coarse as i32).or_default().absorb(total);
        }
        self.custom_values = bounds.to_vec();
    }

    /// Widens the zero bucket to `threshold` and says how wide it had to become.
    pub(crate) fn zero_at_least(&mut self, threshold: f64) -> f64 {
        if threshold > self.zero_threshold {
            self.widen_zero(threshold);
        }
        self.zero_threshold
    }

    pub(crate) fn zero_count(&self) -> f64 {
        self.zero.value()
    }

    /// Whether a bucket holds less here than in `previous`.
    pub(crate) fn falls_below(&self, previous: &Accumulator) -> bool {
        let falls = |now: &Buckets, before: &Buckets| {
            before
                .iter()
                .any(|(index, before)| before.value() > now.get(index).map_or(0.0, |now| now.value()))
        };
        falls(&self.positive, &previous.positive) || falls(&self.negative, &previous.negative)
    }
}
