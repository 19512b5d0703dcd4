//! `load_with_nhcb`: classic histograms also become native ones with custom buckets.

use super::memory::Memory;
use super::series::SequenceValue;
use pharos_common::histogram::{BucketSpan, CUSTOM_BUCKETS_SCHEMA, FloatHistogram};
use pharos_common::labels::{Labels, METRIC_NAME};
use std::collections::BTreeMap;

#[derive(Default)]
struct Parts {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

/// Adds the native histograms that a block of series makes.
pub(crate) fn convert(series: &[(Labels, Vec<SequenceValue>)], gap_ms: i64, memory: &mut Memory) {
    let mut histograms: BTreeMap<(Labels, i64), Parts> = BTreeMap::new();
    for (labels, values) in series {
        let name = labels.metric_name();
        let part = ["_bucket", "_count", "_sum"]
            .into_iter()
            .find_map(|suffix| Some((suffix, name.strip_suffix(suffix)?)));
        let Some((suffix, base)) = part else { continue };
        let mut key = labels.to_builder();
        key.set(METRIC_NAME, base).remove("le");
        let key = key.build();
        for (index, value) in values.iter().enumerate() {
            let SequenceValue::Float(value) = value else { continue };
            let parts = histograms.entry((key.clone(), index as i64 * gap_ms)).or_default();
            match suffix {
                "_count" => parts.count = Some(*value),
                "_sum" => parts.sum = Some(*value),
                _ => {
                    let bound = labels.get("le").and_then(|le| super::series::number(le).ok());
                    if let Some(bound) = bound {
                        parts.buckets.push((bound, *value));
                    }
                }
            }
        }
    }
    for ((labels, timestamp_ms), mut parts) in histograms {
        if parts.buckets.is_empty() {
            continue;
        }
        parts.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut histogram = FloatHistogram { schema: CUSTOM_BUCKETS_SCHEMA, ..FloatHistogram::default() };
        let mut below = 0.0;
        for &(bound, cumulative) in &parts.buckets {
            if bound.is_finite() {
                histogram.custom_values.push(bound);
            }
            histogram.positive_buckets.push(cumulative - below);
            below = cumulative;
        }
        histogram.count = parts.count.unwrap_or(below);
        histogram.sum = parts.sum.unwrap_or(0.0);
        let length = histogram.positive_buckets.len() as u32;
        histogram.positive_spans = vec![BucketSpan { offset: 0, length }];
        let histogram = pharos_promql::histogram::compacted(&histogram);
        memory.add_histogram(&labels, timestamp_ms, histogram);
    }
}
