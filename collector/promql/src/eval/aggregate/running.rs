//! Aggregations of floats under way: series flow in one after the other, each group keeps an accumulator for
//! every step, and columns flow out at the end.
//!
//! Series are added in their order over all their steps, so sums have the bits that adding step by step gives.
//! A vector that is aggregated as it is read never exists as a whole.

use super::GroupKeys;
use crate::ast::{Aggregate, AggregateOp};
use crate::error::QueryError;
use crate::eval::column::{Column, Series, is_absent};
use crate::functions::Mean;
use crate::functions::math::add_compensated;
use crate::storage::Budget;
use pharos_common::labels::Labels;
use pharos_common::sample::STALE_NAN;
use std::ops::Range;

/// Groups of series under way.
pub(in crate::eval) struct Running<'p> {
    op: AggregateOp,
    keys: GroupKeys<'p>,
    groups: Vec<Group>,
    budget: &'p Budget,
    /// What accumulators take of it.
    held: usize,
}

struct Group {
    labels: Labels,
    /// Whether a member's name has to go.
    drop_name: bool,
    accumulators: Accumulators,
}

impl<'p> Running<'p> {
    /// Of an aggregation that adds up; `None` if it is another kind.
    pub(in crate::eval) fn new(aggregate: &'p Aggregate, budget: &'p Budget) -> Option<Self> {
        Accumulators::new(aggregate.op)?;
        let keys = GroupKeys::new(&aggregate.grouping, aggregate.without);
        Some(Running { op: aggregate.op, keys, groups: Vec::new(), budget, held: 0 })
    }

    /// Whether nothing was added yet.
    pub(in crate::eval) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Whether the series can be added: where native histograms are among them, floats are not all that counts.
    pub(in crate::eval) fn accepts(&self, series: &[Series]) -> bool {
        counts_alike(self.op) || !series.iter().any(|series| series.column.has_histograms())
    }

    /// Adds a series.
    ///
    /// # Errors
    /// If the accumulators do not fit into the budget.
    pub(in crate::eval) fn add(&mut self, series: &Series) -> Result<(), QueryError> {
        let (number, is_new) = self.keys.number(&series.labels);
        if is_new && let Some(accumulators) = Accumulators::new(self.op) {
            let labels = self.keys.last_labels();
            self.groups.push(Group { labels, drop_name: false, accumulators });
        }
        let Some(group) = self.groups.get_mut(number) else { return Ok(()) };
        group.drop_name |= series.drop_name;
        let grown = group.accumulators.add(&series.column);
        if grown > 0 {
            self.budget.take(grown)?;
            self.held += grown;
        }
        Ok(())
    }

    /// The groups that have a value, in the order in which they came.
    pub(in crate::eval) fn into_series(self) -> Vec<Series> {
        self.budget.put_back(self.held);
        let series = |group: Group| Series {
            labels: group.labels,
            drop_name: group.drop_name,
            column: group.accumulators.into_column(),
        };
        self.groups.into_iter().map(series).filter(|series| !series.column.is_empty()).collect()
    }
}

/// Whether floats and histograms count the same.
pub(super) fn counts_alike(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Count | AggregateOp::Group)
}

/// One accumulator for each step of a span.
pub(super) struct Accumulators {
    first: usize,
    kind: Kind,
}

enum Kind {
    /// Sums, [`STALE_NAN`] where there is none, and what rounding took from them.
    Sums {
        totals: Vec<f64>,
        compensations: Vec<f64>,
    },
    Means(Vec<Mean>),
    /// How many, or only whether there is any.
    Counts {
        counts: Vec<u64>,
        only_whether: bool,
    },
    /// The value that wins so far, [`STALE_NAN`] where there is none.
    Extremes {
        kept: Vec<f64>,
        largest: bool,
    },
    /// And whether roots are wanted.
    Spreads {
        spreads: Vec<Spread>,
        roots: bool,
    },
}

impl Accumulators {
    /// `None` for an aggregation that does not add up.
    pub(super) fn new(op: AggregateOp) -> Option<Self> {
        let kind = match op {
            AggregateOp::Sum => Kind::Sums { totals: Vec::new(), compensations: Vec::new() },
            AggregateOp::Avg => Kind::Means(Vec::new()),
            AggregateOp::Count => Kind::Counts { counts: Vec::new(), only_whether: false },
            AggregateOp::Group => Kind::Counts { counts: Vec::new(), only_whether: true },
            AggregateOp::Min => Kind::Extremes { kept: Vec::new(), largest: false },
            AggregateOp::Max => Kind::Extremes { kept: Vec::new(), largest: true },
            AggregateOp::Stdvar => Kind::Spreads { spreads: Vec::new(), roots: false },
            AggregateOp::Stddev => Kind::Spreads { spreads: Vec::new(), roots: true },
            _ => return None,
        };
        Some(Accumulators { first: 0, kind })
    }

    fn len(&self) -> usize {
        match &self.kind {
            Kind::Sums { totals, .. } => totals.len(),
            Kind::Means(means) => means.len(),
            Kind::Counts { counts, .. } => counts.len(),
            Kind::Extremes { kept, .. } => kept.len(),
            Kind::Spreads { spreads, .. } => spreads.len(),
        }
    }

    /// Adds a column; by how many steps the span grew.
    pub(super) fn add(&mut self, column: &Column) -> usize {
        let bounds = column.bounds();
        if bounds.is_empty() {
            return 0;
        }
        let before = self.len();
        self.cover(bounds.clone());
        let slots = bounds.start - self.first..bounds.end - self.first;
        let floats = column.floats();
        match &mut self.kind {
            Kind::Sums { totals, compensations } => {
                add_floats(&mut totals[slots.clone()], &mut compensations[slots], floats);
            }
            Kind::Means(means) => each(&mut means[slots], floats, Mean::add),
            Kind::Counts { counts, .. } if column.has_histograms() => {
                for (count, step) in counts[slots].iter_mut().zip(bounds) {
                    *count += u64::from(column.has(step));
                }
            }
            Kind::Counts { counts, .. } => {
                for (count, &float) in counts[slots].iter_mut().zip(floats) {
                    *count += u64::from(!is_absent(float));
                }
            }
            Kind::Extremes { kept, largest: true } => {
                each(&mut kept[slots], floats, |kept, new| {
                    if *kept < new || kept.is_nan() {
                        *kept = new;
                    }
                });
            }
            Kind::Extremes { kept, largest: false } => {
                each(&mut kept[slots], floats, |kept, new| {
                    if *kept > new || kept.is_nan() {
                        *kept = new;
                    }
                });
            }
            Kind::Spreads { spreads, .. } => each(&mut spreads[slots], floats, Spread::add),
        }
        self.len() - before
    }

    /// Widens the span.
    fn cover(&mut self, bounds: Range<usize>) {
        let span = if self.len() == 0 {
            bounds
        } else {
            self.first.min(bounds.start)..bounds.end.max(self.first + self.len())
        };
        if span == (self.first..self.first + self.len()) {
            return;
        }
        let front = self.first.saturating_sub(span.start) * usize::from(self.len() > 0);
        let steps = span.len();
        match &mut self.kind {
            Kind::Sums { totals, compensations } => {
                widen(totals, front, steps, STALE_NAN);
                widen(compensations, front, steps, 0.0);
            }
            Kind::Means(means) => widen(means, front, steps, Mean::default()),
            Kind::Counts { counts, .. } => widen(counts, front, steps, 0),
            Kind::Extremes { kept, .. } => widen(kept, front, steps, STALE_NAN),
            Kind::Spreads { spreads, .. } => widen(spreads, front, steps, Spread::default()),
        }
        self.first = span.start;
    }

    /// What has come together at each step.
    pub(super) fn into_column(self) -> Column {
        let floats: Vec<f64> = match self.kind {
            Kind::Sums { mut totals, compensations } => {
                for (total, compensation) in totals.iter_mut().zip(compensations) {
                    if !is_absent(*total) {
                        *total += compensation;
                    }
                }
                totals
            }
            Kind::Means(means) => {
                means.iter().map(|mean| if mean.is_empty() { STALE_NAN } else { mean.value() }).collect()
            }
            Kind::Counts { counts, only_whether } => counts
                .iter()
                .map(|&count| match count {
                    0 => STALE_NAN,
                    _ if only_whether => 1.0,
                    count => count as f64,
                })
                .collect(),
            Kind::Extremes { kept, .. } => kept,
            Kind::Spreads { spreads, roots } => spreads
                .iter()
                .map(|spread| match roots {
                    _ if spread.count == 0.0 => STALE_NAN,
                    true => spread.variance().sqrt(),
                    false => spread.variance(),
                })
                .collect(),
        };
        Column::starting_at(self.first, floats).trimmed()
    }
}

/// Makes a column longer: by `front` at its start, to `steps` in all.
fn widen<T: Clone>(column: &mut Vec<T>, front: usize, steps: usize, blank: T) {
    if front > 0 {
        column.splice(0..0, std::iter::repeat_n(blank.clone(), front));
    }
    column.resize(steps, blank);
}

/// Adds each float that is there to its accumulator.
#[inline]
fn each<A>(accumulators: &mut [A], floats: &[f64], add: impl Fn(&mut A, f64)) {
    for (accumulator, &float) in accumulators.iter_mut().zip(floats) {
        if !is_absent(float) {
            add(accumulator, float);
        }
    }
}

/// Adds floats to sums.
///
/// What an addition loses is itself a float, and both Knuth's way of finding it, which has no branch, and
/// Neumaier's find it exactly: the bits are the same as long as everything is finite, which also tells that
/// nothing is absent.
fn add_floats(totals: &mut [f64], compensations: &mut [f64], floats: &[f64]) {
    const LANES: usize = 8;
    let totals = totals.chunks_mut(LANES);
    let compensations = compensations.chunks_mut(LANES);
    for ((totals, compensations), floats) in totals.zip(compensations).zip(floats.chunks(LANES)) {
        if let (Ok(old), Ok(lost), Ok(new)) = (
            <&[f64; LANES]>::try_from(&*totals),
            <&[f64; LANES]>::try_from(&*compensations),
            <&[f64; LANES]>::try_from(floats),
        ) {
            let mut sums = [0.0; LANES];
            let mut losses = [0.0; LANES];
            // Stays zero unless something is not finite.
            let mut finite = 0.0;
            for lane in 0..LANES {
                let sum = old[lane] + new[lane];
                let added = sum - old[lane];
                losses[lane] = lost[lane] + ((old[lane] - (sum - added)) + (new[lane] - added));
                sums[lane] = sum;
                finite += losses[lane] * 0.0;
            }
            if finite == 0.0 {
                totals.copy_from_slice(&sums);
                compensations.copy_from_slice(&losses);
                continue;
            }
        }
        for ((total, compensation), &float) in totals.iter_mut().zip(compensations).zip(floats) {
            if is_absent(float) {
                continue;
            }
            if is_absent(*total) {
                *total = float;
            } else {
                add_compensated(float, total, compensation);
            }
        }
    }
}

/// Mean and sum of squared distances, by Welford's method.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Spread {
    fn add(&mut self, value: f64) {
        if self.count == 0.0 {
            let squares = if value.is_finite() { 0.0 } else { f64::NAN };
            *self = Spread { count: 1.0, mean: value, squares };
            return;
        }
        self.count += 1.0;
        let delta = value - self.mean;
        self.mean += delta / self.count;
        self.squares += delta * (value - self.mean);
    }

    fn variance(&self) -> f64 {
        self.squares / self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn floats() -> impl Strategy<Value = (usize, Vec<f64>)> {
        let float = prop_oneof![
            -1e6..1e6f64,
            Just(1e300),
            Just(f64::MAX),
            Just(f64::INFINITY),
            Just(f64::NEG_INFINITY),
            Just(f64::NAN),
            Just(-0.0),
            Just(STALE_NAN),
        ];
        let usual = prop::collection::vec(-1e6..1e6f64, 1..40);
        (0usize..20, prop_oneof![prop::collection::vec(float, 1..40), usual])
    }

    /// Value by value, with branches.
    fn naive_sum(values: &[f64]) -> Option<f64> {
        let (&first, rest) = values.split_first()?;
        let (mut sum, mut compensation) = (first, 0.0);
        rest.iter().for_each(|&value| add_compensated(value, &mut sum, &mut compensation));
        Some(sum + compensation)
    }

    proptest! {
        #[test]
        fn sums_have_the_bits_of_adding_step_by_step(columns in prop::collection::vec(floats(), 1..12)) {
            let mut sums = Accumulators::new(AggregateOp::Sum).unwrap();
            let mut counts = Accumulators::new(AggregateOp::Count).unwrap();
            let columns: Vec<Column> = columns
                .into_iter()
                .map(|(first, floats)| Column::starting_at(first, floats).trimmed())
                .collect();
            for column in &columns {
                sums.add(column);
                counts.add(column);
            }
            let (sums, counts) = (sums.into_column(), counts.into_column());
            for step in 0..70 {
                let values: Vec<f64> =
                    columns.iter().map(|column| column.float(step)).filter(|&value| !is_absent(value)).collect();
                match naive_sum(&values) {
                    Some(want) if want.is_nan() => prop_assert!(sums.has(step) && sums.float(step).is_nan()),
                    Some(want) => prop_assert_eq!(sums.float(step).to_bits(), want.to_bits()),
                    None => prop_assert!(!sums.has(step)),
                }
                let count = if counts.has(step) { counts.float(step) } else { 0.0 };
                prop_assert_eq!(count, values.len() as f64);
            }
        }
    }
}
