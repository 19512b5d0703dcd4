//! Increases of native histograms.

use super::starts::restarted;
use crate::annotations::{Annotations, Place};
use crate::histogram::{Accumulator, compacted, is_reset};
use crate::quote::go_quote;
use crate::storage::HistogramSample;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use pharos_common::starts::Starts;

/// Where remarks go.
pub(super) struct Remarks<'r> {
    pub(super) name: &'r str,
    pub(super) place: &'r Place,
    pub(super) annotations: &'r mut Annotations,
}

impl Remarks<'_> {
    fn warn(&mut self, text: &str) {
        self.annotations.warn(&format!("{text} {}", go_quote(self.name)), self.place);
    }

    fn not_a_counter(&mut self) {
        self.warn("this native histogram metric is not a counter:");
    }

    fn not_a_gauge(&mut self) {
        self.warn("this native histogram metric is not a gauge:");
    }

    fn mixed_schemas(&mut self) {
        self.warn(
            "vector contains a mix of histograms with exponential and custom buckets schemas for metric name",
        );
    }

    fn reconciled(&mut self, operation: &str) {
        let text = format!("mismatched custom buckets were reconciled during {operation}");
        self.annotations.info(&text, self.place);
    }
}

/// What a series of at least two histograms has grown by, resets made good for counters.
pub(super) fn increase(
    samples: &[HistogramSample],
    is_counter: bool,
    starts: Option<&Starts>,
    remarks: &mut Remarks<'_>,
) -> Option<FloatHistogram> {
    let [first, inner @ .., last] = samples else { return None };
    let is_gauge = |sample: &HistogramSample| sample.histogram.counter_reset_hint == CounterResetHint::Gauge;
    let last = &last.histogram;
    if is_counter && samples.iter().any(is_gauge) {
        remarks.not_a_counter();
    }
    let (second, second_ms) = (&samples[1].histogram, samples[1].timestamp_ms);
    let mut before = FloatHistogram::clone(&first.histogram);
    if is_counter && (restarted(starts, first.timestamp_ms, second_ms) || is_reset(second, &before)) {
        // What was before a reset at once does not matter, nor whether its buckets fit.
        before = FloatHistogram {
            schema: second.schema,
            custom_values: second.custom_values.clone(),
            ..FloatHistogram::default()
        };
    }
    let custom = before.uses_custom_buckets();
    let differs = |histogram: &FloatHistogram| histogram.uses_custom_buckets() != custom;
    if differs(last) || (is_counter && inner.iter().any(|sample| differs(&sample.histogram))) {
        remarks.mixed_schemas();
        return None;
    }
    let mut schema = last.schema.min(before.schema);
    if is_counter {
        schema = inner.iter().map(|sample| sample.histogram.schema).fold(schema, i32::min);
    }
    let mut total = Accumulator::new(last);
    if !custom {
        total.reduce_to(schema);
    }
    match total.add(&before, -1.0) {
        Ok(added) if added.bounds_reconciled => remarks.reconciled("subtraction"),
        Ok(_) => {}
        Err(_) => {
            remarks.mixed_schemas();
            return None;
        }
    }
    if is_counter {
        let mut previous: &FloatHistogram = &before;
        let mut previous_ms = first.timestamp_ms;
        for sample in &samples[1..] {
            let now: &FloatHistogram = &sample.histogram;
            if restarted(starts, previous_ms, sample.timestamp_ms) || is_reset(now, previous) {
                match total.add(previous, 1.0) {
                    Ok(added) if added.bounds_reconciled => remarks.reconciled("addition"),
                    Ok(_) => {}
                    Err(_) => {
                        remarks.mixed_schemas();
                        return None;
                    }
                }
            }
            previous = now;
            previous_ms = sample.timestamp_ms;
        }
    } else if !is_gauge(first) || last.counter_reset_hint != CounterResetHint::Gauge {
        remarks.not_a_gauge();
    }
    let mut increase = compacted(&total.finish());
    increase.counter_reset_hint = CounterResetHint::Gauge;
    Some(increase)
}

/// The increase of samples, if there are several, and what the first had grown by since it was zero.
pub(super) fn since_zero(
    increase: Option<&FloatHistogram>,
    first: &FloatHistogram,
    remarks: &mut Remarks<'_>,
) -> Option<FloatHistogram> {
    let mut total = Accumulator::new(increase.unwrap_or(first));
    if increase.is_some() {
        match total.add(first, 1.0) {
            Ok(added) if added.bounds_reconciled => remarks.reconciled("addition"),
            Ok(_) => {}
            Err(_) => {
                remarks.mixed_schemas();
                return None;
            }
        }
    }
    let mut grown = compacted(&total.finish());
    grown.counter_reset_hint = CounterResetHint::Gauge;
    Some(grown)
}

/// What the last two samples are compared for.
pub(super) struct LastTwo {
    /// As a counter's.
    pub(super) is_rate: bool,
    /// Whether a start timestamp tells of a reset between them.
    pub(super) restarted: bool,
}

/// What a histogram has grown by from one sample to the next.
pub(super) fn last_difference(
    before: &FloatHistogram,
    now: &FloatHistogram,
    LastTwo { is_rate, restarted }: LastTwo,
    remarks: &mut Remarks<'_>,
) -> Option<FloatHistogram> {
    let gauges = [before, now].map(|histogram| histogram.counter_reset_hint == CounterResetHint::Gauge);
    if is_rate && gauges.contains(&true) {
        remarks.not_a_counter();
    }
    if !is_rate && gauges.contains(&false) {
        remarks.not_a_gauge();
    }
    let mut total = Accumulator::new(now);
    if !is_rate || !(restarted || is_reset(now, before)) {
        match total.add(before, -1.0) {
            Ok(added) if added.bounds_reconciled => remarks.reconciled("subtraction"),
            Ok(_) => {}
            Err(_) => {
                remarks.mixed_schemas();
                return None;
            }
        }
    }
    let mut difference = compacted(&total.finish());
    difference.counter_reset_hint = CounterResetHint::Gauge;
    Some(difference)
}
