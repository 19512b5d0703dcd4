//! Arithmetic of native histograms.

use crate::storage::HistogramSample;
use pharos_common::histogram::{CounterResetHint, FloatHistogram};
use std::sync::Arc;

/// A histogram with all counts and the sum multiplied. A negative factor makes a gauge.
pub(crate) fn scaled(histogram: &FloatHistogram, factor: f64) -> FloatHistogram {
    let mut scaled = histogram.clone();
    scale(&mut scaled, factor);
    scaled
}

/// Multiplies all counts and the sum.
pub(crate) fn scale(histogram: &mut FloatHistogram, factor: f64) {
    histogram.zero_count *= factor;
    histogram.count *= factor;
    histogram.sum *= factor;
    for count in histogram.positive_buckets.iter_mut().chain(&mut histogram.negative_buckets) {
        *count *= factor;
    }
    if factor < 0.0 {
        histogram.counter_reset_hint = CounterResetHint::Gauge;
    }
}

/// Takes back what histograms say about resets: a subquery may leave out or repeat samples.
pub(crate) fn forget_resets(histograms: &mut [HistogramSample]) {
    for sample in histograms {
        if matches!(sample.histogram.counter_reset_hint, CounterResetHint::Reset | CounterResetHint::NotReset)
        {
            let mut histogram = FloatHistogram::clone(&sample.histogram);
            histogram.counter_reset_hint = CounterResetHint::Unknown;
            sample.histogram = Arc::new(histogram);
        }
    }
}

/// How histograms of a group become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blend {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

/// Sum or mean of histograms, each with its metric's name. `None` if they do not fit together.
pub(crate) fn blend(
    _kind: Blend,
    _histograms: &[(Arc<FloatHistogram>, &str)],
    _place: &crate::annotations::Place,
    _annotations: &mut crate::annotations::Annotations,
) -> Option<FloatHistogram> {
    None
}

/// A histogram as Prometheus prints it.
pub(crate) fn to_text(histogram: &FloatHistogram) -> String {
    format!("{{count:{}, sum:{}}}", histogram.count, histogram.sum)
}

/// An operator between samples of which one at least is a histogram, or which trims. `None` if it does
/// not know their types.
pub(crate) fn operate(
    _op: crate::ast::BinaryOp,
    _lhs: &crate::eval::column::Point,
    _rhs: &crate::eval::column::Point,
    _place: &crate::annotations::Place,
    _annotations: &mut crate::annotations::Annotations,
) -> Option<crate::eval::Outcome> {
    None
}

/// A number that a histogram has.
pub(crate) fn statistic(stat: crate::functions::HistogramStat, histogram: &FloatHistogram) -> f64 {
    use crate::functions::HistogramStat;
    match stat {
        HistogramStat::Count => histogram.count,
        HistogramStat::Sum => histogram.sum,
        HistogramStat::Avg => histogram.sum / histogram.count,
        HistogramStat::Stddev | HistogramStat::Stdvar => f64::NAN,
    }
}

/// Where remarks on a histogram go.
pub(crate) struct Remarks<'r> {
    pub(crate) name: &'r str,
    pub(crate) place: &'r crate::annotations::Place,
    pub(crate) annotations: &'r mut crate::annotations::Annotations,
}

/// The value below which a share of the observations lies.
pub(crate) fn quantile(_share: f64, _histogram: &FloatHistogram, _remarks: Remarks<'_>) -> f64 {
    f64::NAN
}

/// The share of the observations between two values.
pub(crate) fn fraction(_lower: f64, _upper: f64, _histogram: &FloatHistogram, _remarks: Remarks<'_>) -> f64 {
    f64::NAN
}
