//! The protobuf format: metric families, each with its length before it.

use super::{Newest, NewestValue, exposed_labels};
use axum::http::{HeaderMap, header};
use pharos_common::histogram::{BucketSpan, CounterResetHint, FloatHistogram};
use pharos_common::labels::Labels;
use pharos_proto::prometheus_client as client;
use prost::Message;
use std::collections::BTreeMap;

pub(super) const CONTENT_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

const UNTYPED: i32 = 3;
const HISTOGRAM: i32 = 4;
const GAUGE_HISTOGRAM: i32 = 5;

/// Whether the scraper likes this format better than text. Formats liked equally are taken in its order.
pub(super) fn is_preferred(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut best: Option<(f64, bool)> = None;
    for format in accept.split(',') {
        let mut parameters = format.split(';').map(str::trim);
        let kind = parameters.next().unwrap_or("");
        let rest: Vec<&str> = parameters.collect();
        let has = |wanted: &str| rest.contains(&wanted);
        let is_ours = kind == "application/vnd.google.protobuf"
            && has("proto=io.prometheus.client.MetricFamily")
            && has("encoding=delimited");
        let is_text = matches!(kind, "text/plain" | "text/*" | "*/*" | "application/openmetrics-text");
        let quality =
            rest.iter().find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
        if let Some(quality) = quality
            && (is_ours || is_text)
            && best.is_none_or(|(so_far, _)| quality > so_far)
        {
            best = Some((quality, is_ours));
        }
    }
    best.is_some_and(|(quality, is_ours)| is_ours && quality > 0.0)
}

/// Writes series in order of their labels. A histogram with custom buckets is left out: the format has
/// no place for its bounds.
pub(super) fn write(newest: &BTreeMap<Labels, Newest>, external: &Labels) -> Vec<u8> {
    let mut out = Vec::new();
    let mut family = client::MetricFamily::default();
    for (labels, newest) in newest {
        let kind = match &newest.value {
            NewestValue::Float(_) => UNTYPED,
            NewestValue::Histogram(histogram) if histogram.uses_custom_buckets() => continue,
            NewestValue::Histogram(histogram) => match histogram.counter_reset_hint {
                CounterResetHint::Gauge => GAUGE_HISTOGRAM,
                _ => HISTOGRAM,
            },
        };
        if family.name.as_deref() != Some(labels.metric_name()) || family.r#type != Some(kind) {
            finish(&mut out, &family);
            family = client::MetricFamily {
                name: Some(labels.metric_name().to_owned()),
                r#type: Some(kind),
                metric: Vec::new(),
            };
        }
        family.metric.push(metric(&exposed_labels(labels, external), newest));
    }
    finish(&mut out, &family);
    out
}

fn finish(out: &mut Vec<u8>, family: &client::MetricFamily) {
    if !family.metric.is_empty() {
        out.extend_from_slice(&family.encode_length_delimited_to_vec());
    }
}

fn metric(labels: &Labels, newest: &Newest) -> client::Metric {
    let pair =
        |name: &str, value: &str| client::LabelPair { name: Some(name.into()), value: Some(value.into()) };
    let mut label: Vec<client::LabelPair> = labels.iter().map(|(name, value)| pair(name, value)).collect();
    // Else the scraper would fill in its own.
    if labels.get("instance").is_none() {
        label.push(pair("instance", ""));
    }
    let mut metric =
        client::Metric { label, timestamp_ms: Some(newest.timestamp_ms), ..client::Metric::default() };
    match &newest.value {
        NewestValue::Float(value) => metric.untyped = Some(client::Untyped { value: Some(*value) }),
        NewestValue::Histogram(histogram) => metric.histogram = Some(of_histogram(histogram)),
    }
    metric
}

fn of_histogram(histogram: &FloatHistogram) -> client::Histogram {
    let spans = |spans: &[BucketSpan]| {
        let one =
            |span: &BucketSpan| client::BucketSpan { offset: Some(span.offset), length: Some(span.length) };
        spans.iter().map(one).collect()
    };
    client::Histogram {
        sample_sum: Some(histogram.sum),
        sample_count_float: Some(histogram.count),
        schema: Some(histogram.schema),
        zero_threshold: Some(histogram.zero_threshold),
        zero_count_float: Some(histogram.zero_count),
        negative_span: spans(&histogram.negative_spans),
        negative_count: histogram.negative_buckets.clone(),
        positive_span: spans(&histogram.positive_spans),
        positive_count: histogram.positive_buckets.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scraper_says_what_it_likes_best() {
        #[track_caller]
        fn check(accept: &str, want: bool) {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            assert_eq!(is_preferred(&headers), want, "{accept}");
        }
        let protobuf =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        check("*/*", false);
        check("", false);
        check(protobuf, true);
        check(&format!("{protobuf};q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"), true);
        check(&format!("{protobuf};q=0.2,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"), false);
        check("application/vnd.google.protobuf;proto=other;encoding=delimited", false);
    }
}
