//! Puts part series together to histograms again: selected series in, fewer series out.

use super::layout::Layout;
use super::{PART_LABEL, Part, hint_from_number};
use crate::select::{ReadBudget, SelectedSeries};
use crate::starts::Starts;
use pharos_common::histogram::{BucketSpan, FloatHistogram, HistogramSample};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The parts of one series and layout.
#[derive(Debug, Default)]
struct Parts {
    layout: Option<Layout>,
    by_part: BTreeMap<Part, SelectedSeries>,
}

/// Folds the part series among `selected` into the series they are parts of. Where a series has a float and
/// a histogram at one time, the float stays. The order of labels is kept.
///
/// # Errors
/// If the histograms are more than the budget allows.
pub(crate) fn assemble<B: ReadBudget>(
    selected: Vec<SelectedSeries>,
    budget: &B,
) -> Result<Vec<SelectedSeries>, B::Refusal> {
    if !selected.iter().any(|series| series.labels.get(PART_LABEL).is_some()) {
        return Ok(selected);
    }
    let mut plain: BTreeMap<Labels, SelectedSeries> = BTreeMap::new();
    let mut parts: HashMap<(Labels, String), Parts> = HashMap::new();
    for series in selected {
        let Some(value) = series.labels.get(PART_LABEL) else {
            plain.insert(series.labels.clone(), series);
            continue;
        };
        let mut fields = value.splitn(3, '/');
        let (Some(key), Some(part)) = (fields.next(), fields.next().and_then(Part::parse)) else { continue };
        let whole = series.labels.filtered(|name| name != PART_LABEL);
        let of = parts.entry((whole, key.to_owned())).or_default();
        if let Some(layout) = fields.next() {
            of.layout = Layout::parse(layout);
        }
        of.by_part.insert(part, series);
    }
    for ((labels, _), parts) in parts {
        budget.check()?;
        let folded: usize = parts.by_part.values().map(|series| series.values.len()).sum();
        let histograms = parts.into_histograms();
        budget.give_back(folded);
        budget.take(histograms.iter().map(|sample| sample.histogram.cost_in_samples()).sum())?;
        let series = plain.entry(labels.clone()).or_insert_with(|| SelectedSeries {
            labels,
            timestamps: Arc::from([]),
            values: Vec::new(),
            histograms: Vec::new(),
            starts: Starts::default(),
        });
        series.add_histograms(histograms);
    }
    Ok(plain.into_values().collect())
}

impl SelectedSeries {
    fn add_histograms(&mut self, mut more: Vec<HistogramSample>) {
        more.retain(|sample| self.timestamps.binary_search(&sample.timestamp_ms).is_err());
        self.histograms.append(&mut more);
        self.histograms.sort_by_key(|sample| sample.timestamp_ms);
        self.histograms.dedup_by_key(|sample| sample.timestamp_ms);
    }
}

impl Parts {
    fn into_histograms(mut self) -> Vec<HistogramSample> {
        let (Some(layout), Some(counts)) = (self.layout, self.by_part.remove(&Part::Count)) else {
            return Vec::new();
        };
        let mut columns: Vec<(Part, Column)> =
            self.by_part.into_iter().map(|(part, series)| (part, Column { series, next: 0 })).collect();
        let mut histograms = Vec::with_capacity(counts.values.len());
        for (&timestamp_ms, &count) in counts.timestamps.iter().zip(&counts.values) {
            let (mut positive, mut negative) = (Side::default(), Side::default());
            let mut histogram = FloatHistogram {
                schema: layout.schema,
                zero_threshold: layout.zero_threshold,
                custom_values: layout.custom_values.clone(),
                count,
                ..FloatHistogram::default()
            };
            for (part, column) in &mut columns {
                let Some(value) = column.at(timestamp_ms) else { continue };
                match part {
                    Part::Count => {}
                    Part::ZeroCount => histogram.zero_count = value,
                    Part::Sum => histogram.sum = value,
                    Part::ResetHint => histogram.counter_reset_hint = hint_from_number(value),
                    Part::Positive(index) => positive.push(*index, value),
                    Part::Negative(index) => negative.push(*index, value),
                }
            }
            (histogram.positive_spans, histogram.positive_buckets) = (positive.spans, positive.counts);
            (histogram.negative_spans, histogram.negative_buckets) = (negative.spans, negative.counts);
            if histogram.is_stale() {
                histogram = FloatHistogram { sum: histogram.sum, ..FloatHistogram::default() };
            }
            histograms.push(HistogramSample { timestamp_ms, histogram: Arc::new(histogram) });
        }
        histograms
    }
}

/// A part series that is read from old to new.
#[derive(Debug)]
struct Column {
    series: SelectedSeries,
    next: usize,
}

impl Column {
    fn at(&mut self, timestamp_ms: TimestampMs) -> Option<f64> {
        while *self.series.timestamps.get(self.next)? < timestamp_ms {
            self.next += 1;
        }
        let here = self.series.timestamps.get(self.next) == Some(&timestamp_ms);
        self.series.values.get(self.next).copied().filter(|_| here)
    }
}

/// The buckets on one side of zero, gathered in order of their indexes.
#[derive(Debug, Default)]
struct Side {
    spans: Vec<BucketSpan>,
    counts: Vec<f64>,
    /// One past the last bucket.
    end: i32,
}

impl Side {
    /// An empty bucket has no place in the histogram.
    fn push(&mut self, index: i32, count: f64) {
        if count == 0.0 {
            return;
        }
        let offset = index.wrapping_sub(self.end);
        match self.spans.last_mut() {
            Some(last) if offset == 0 => last.length += 1,
            _ => self.spans.push(BucketSpan { offset, length: 1 }),
        }
        self.end = index.wrapping_add(1);
        self.counts.push(count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;
    use crate::select::Unlimited;
    use pharos_common::sample::STALE_NAN;
    use proptest::prelude::*;

    fn series(labels: Labels, timestamps: &[TimestampMs], values: Vec<f64>) -> SelectedSeries {
        SelectedSeries {
            labels,
            timestamps: timestamps.into(),
            values,
            histograms: Vec::new(),
            starts: Starts::default(),
        }
    }

    /// Splits histograms into part series as ingest does, and puts them together again.
    fn round_trip(histograms: &[FloatHistogram]) -> Vec<FloatHistogram> {
        let labels = Labels::from_pairs([("__name__", "latency"), ("node", "a")]);
        let mut columns: BTreeMap<Labels, Vec<(TimestampMs, f64)>> = BTreeMap::new();
        let mut shape = Shape::of(&histograms[0]);
        for (at, histogram) in histograms.iter().enumerate() {
            if !shape.fits(histogram) {
                shape = shape.widened(Shape::of(histogram));
            }
            for (labels, value) in shape.series(&labels).into_iter().zip(shape.values(histogram)) {
                columns.entry(labels).or_default().push((at as TimestampMs, value));
            }
        }
        let selected = columns
            .into_iter()
            .map(|(labels, samples)| {
                let timestamps: Vec<TimestampMs> = samples.iter().map(|(at, _)| *at).collect();
                series(labels, &timestamps, samples.into_iter().map(|(_, value)| value).collect())
            })
            .collect();
        let assembled = assemble(selected, &Unlimited).unwrap();
        assert_eq!(assembled.len(), 1);
        assert_eq!(assembled[0].labels, labels);
        assembled[0].histograms.iter().map(|sample| (*sample.histogram).clone()).collect()
    }

    fn histogram() -> impl Strategy<Value = FloatHistogram> {
        let buckets = || prop::collection::btree_map(-20i32..20, 1u32..1_000, 0..8);
        (buckets(), buckets(), -4i32..=8, 0u32..50, any::<bool>()).prop_map(
            |(positive, negative, schema, zeros, custom)| {
                let side = |buckets: BTreeMap<i32, u32>| {
                    let mut side = Side::default();
                    buckets.into_iter().for_each(|(index, count)| side.push(index, f64::from(count)));
                    side
                };
                let (positive, negative) = (side(positive), side(negative));
                let all: f64 = positive.counts.iter().chain(&negative.counts).sum();
                FloatHistogram {
                    schema: if custom { pharos_common::histogram::CUSTOM_BUCKETS_SCHEMA } else { schema },
                    custom_values: if custom { vec![0.1, 1.0 / 3.0, 1e-300] } else { Vec::new() },
                    zero_threshold: 2.938_735_877_055_719e-39,
                    zero_count: f64::from(zeros),
                    count: all + f64::from(zeros),
                    sum: all / 3.0,
                    positive_spans: positive.spans,
                    negative_spans: negative.spans,
                    positive_buckets: positive.counts,
                    negative_buckets: negative.counts,
                    ..FloatHistogram::default()
                }
            },
        )
    }

    proptest! {
        #[test]
        fn histograms_come_back_as_they_were(histograms in prop::collection::vec(histogram(), 1..6)) {
            prop_assert_eq!(format!("{:?}", round_trip(&histograms)), format!("{histograms:?}"));
        }
    }

    #[test]
    fn a_stale_marker_ends_a_histogram_series_in_any_shape() {
        let last = FloatHistogram { count: 3.0, zero_count: 3.0, sum: 1.0, ..FloatHistogram::default() };
        let stale = FloatHistogram { sum: STALE_NAN, ..FloatHistogram::default() };
        let back = round_trip(&[last, stale]);
        assert!(!back[0].is_stale() && back[1].is_stale());
    }

    #[test]
    fn a_float_stays_where_a_histogram_has_the_same_time() {
        let labels = Labels::from_pairs([("__name__", "latency")]);
        let shape = Shape::of(&FloatHistogram::default());
        let row = shape.values(&FloatHistogram::default());
        let mut selected = vec![series(labels.clone(), &[5], vec![1.0])];
        for (part, value) in shape.series(&labels).into_iter().zip(row) {
            selected.push(series(part, &[5, 6], vec![value, value]));
        }
        let assembled = assemble(selected, &Unlimited).unwrap();
        let times: Vec<TimestampMs> =
            assembled[0].histograms.iter().map(|sample| sample.timestamp_ms).collect();
        assert_eq!((assembled.len(), times), (1, vec![6]));
    }
}
