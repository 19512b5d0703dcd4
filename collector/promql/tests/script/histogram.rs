//! Native histograms as scripts write them: `{{schema:0 sum:1 count:1 buckets:[1]}}`.

use super::series::{SequenceValue, number};
use pharos_common::histogram::{BucketSpan, CounterResetHint, FloatHistogram};

/// `{{…}}`, `{{…}}x5`, `{{…}}+{{…}}x5`
pub(crate) fn parse_item(item: &str, values: &mut Vec<SequenceValue>) -> Result<(), String> {
    let (first, rest) = literal(item)?;
    let (mut histogram, hinted) = parse(first)?;
    if rest.is_empty() {
        values.push(SequenceValue::Histogram(Box::new(histogram), hinted));
        return Ok(());
    }
    if let Some(times) = rest.strip_prefix('x') {
        let times: usize = times.parse().map_err(|_| format!("bad repetition {times:?}"))?;
        values.extend(std::iter::repeat_n(SequenceValue::Histogram(Box::new(histogram), hinted), times + 1));
        return Ok(());
    }
    let sign = if rest.starts_with('-') { -1.0 } else { 1.0 };
    let (step, rest) = literal(&rest[1..])?;
    let (step, step_hinted) = parse(step)?;
    let times = rest.strip_prefix('x').ok_or("expected x and a number")?;
    let times: usize = times.parse().map_err(|_| format!("bad repetition {times:?}"))?;
    for index in 0..=times {
        values.push(SequenceValue::Histogram(Box::new(histogram.clone()), step_hinted));
        if index < times {
            histogram = pharos_promql::histogram::sum(&histogram, &step, sign)
                .ok_or("histograms do not fit together")?;
        }
    }
    Ok(())
}

/// The inside of the first `{{…}}`, and what follows it.
fn literal(text: &str) -> Result<(&str, &str), String> {
    let inner = text.strip_prefix("{{").ok_or("expected {{")?;
    let end = inner.find("}}").ok_or("expected }}")?;
    Ok((&inner[..end], &inner[end + 2..]))
}

/// Reads the inside of a literal; also says whether the reset hint is written.
pub(crate) fn parse(text: &str) -> Result<(FloatHistogram, bool), String> {
    let mut histogram = FloatHistogram::default();
    let mut hinted = false;
    let (mut offset, mut negative_offset) = (0, 0);
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once(':').ok_or_else(|| format!("expected key: in {rest:?}"))?;
        let (value, after) = match after.strip_prefix('[') {
            Some(list) => list.split_once(']').ok_or("expected ]")?,
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        let list = || value.split_whitespace().map(number).collect::<Result<Vec<_>, _>>();
        let integer = || value.parse::<i32>().map_err(|error| error.to_string());
        match key.trim() {
            "schema" => histogram.schema = integer()?,
            "sum" => histogram.sum = number(value)?,
            "count" => histogram.count = number(value)?,
            "z_bucket" => histogram.zero_count = number(value)?,
            "z_bucket_w" => histogram.zero_threshold = number(value)?,
            "custom_values" => histogram.custom_values = list()?,
            "offset" => offset = integer()?,
            "n_offset" => negative_offset = integer()?,
            "buckets" => histogram.positive_buckets = list()?,
            "n_buckets" => histogram.negative_buckets = list()?,
            "counter_reset_hint" => {
                hinted = true;
                histogram.counter_reset_hint = match value {
                    "unknown" => CounterResetHint::Unknown,
                    "reset" => CounterResetHint::Reset,
                    "not_reset" => CounterResetHint::NotReset,
                    "gauge" => CounterResetHint::Gauge,
                    other => return Err(format!("bad counter_reset_hint {other}")),
                };
            }
            other => return Err(format!("bad histogram key {other:?}")),
        }
        rest = after.trim_start();
    }
    let spans = |offset: i32, buckets: &[f64]| match buckets.len() {
        0 => Vec::new(),
        length => vec![BucketSpan { offset, length: length as u32 }],
    };
    histogram.positive_spans = spans(offset, &histogram.positive_buckets);
    histogram.negative_spans = spans(negative_offset, &histogram.negative_buckets);
    Ok((histogram, hinted))
}
