//! Remote write 2.0: the decompressed bytes of an `io.prometheus.write.v2.Request` in, the parts of a
//! [`Request`] out.
//!
//! Its label sets are numbers of texts in the request's own table. They are written out as 1.0 has them,
//! so that a series is recognised whichever version it comes by.
//!
//! Each sample may say since when it has counted; drafts of the specification had that once a series.

use super::protobuf::{Field, Fields, Wire, WireError};
use super::stream_groups::shortened;
use super::type_labels::{self, TYPE_LABEL, UNIT_LABEL};
use super::write_request::{RawExemplar, RawSeries, Request, WriteFault, common_sample, metric_kind, sample};
use crate::limits::{
    HELP_BYTES_MAX, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_PER_SERIES_MAX,
    SAMPLES_PER_WRITE_MAX, SYMBOLS_PER_WRITE_MAX, WRITE_DECOMPRESSED_BYTES_MAX,
};
use pharos_common::labels::METRIC_NAME;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::Metadata;
use std::borrow::Cow;
use std::ops::Range;

impl<'a> Request<'a> {
    /// Reads a request of version 2.0. With `type_labels` series get labels for type and unit.
    pub(super) fn parse_v2(message: &'a [u8], type_labels: bool) -> Result<Self, WriteFault> {
        // Nothing says that the texts come before the series that refer to them.
        let mut symbols: Vec<&'a str> = Vec::new();
        for field in Fields::of(message) {
            let field = field?;
            if field.number == 4 {
                if symbols.len() == SYMBOLS_PER_WRITE_MAX {
                    return Err(WireError::ManySymbols.into());
                }
                symbols.push(field.text()?);
            }
        }
        let mut request = Request::default();
        for field in Fields::of(message) {
            let field = field?;
            if field.number == 5 {
                request.add_series_v2(field.bytes()?, &symbols, type_labels)?;
            }
            if request.entries() > SAMPLES_PER_WRITE_MAX {
                return Err(WriteFault::TooManySamples);
            }
        }
        Ok(request)
    }

    /// `io.prometheus.write.v2.TimeSeries`
    fn add_series_v2(
        &mut self,
        message: &'a [u8],
        symbols: &[&'a str],
        type_labels: bool,
    ) -> Result<(), WireError> {
        let (first_sample, first_histogram) = (self.samples.len(), self.histograms.len());
        let mut references: Vec<u64> = Vec::new();
        let (mut metadata, mut created_ms) = (None, 0);
        let number = self.series.len();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => add_numbers(&field, &mut references)?,
                2 => {
                    let message = field.bytes()?;
                    let (sample, start_ms) = match common_sample(message) {
                        Some(sample) => (sample, 0),
                        None => (sample(message)?, start_of(message, SAMPLE_START)?),
                    };
                    self.samples.push(sample);
                    note_start(&mut self.starts, self.samples.len(), start_ms);
                }
                3 => {
                    let message = field.bytes()?;
                    self.histograms.push(message);
                    let start_ms = start_of(message, HISTOGRAM_START)?;
                    note_start(&mut self.histogram_starts, self.histograms.len(), start_ms);
                }
                4 => {
                    let exemplar = exemplar(field.bytes()?, number, symbols)?;
                    self.charge_labels(exemplar.labels.len())?;
                    self.exemplars.push(exemplar);
                }
                5 => metadata = Some(field.bytes()?),
                6 => created_ms = field.varint()? as i64,
                _ => {}
            }
        }
        if created_ms != 0 {
            fill_starts(&mut self.starts, first_sample..self.samples.len(), created_ms);
            fill_starts(&mut self.histogram_starts, first_histogram..self.histograms.len(), created_ms);
        }
        let pairs = pairs(&references, symbols)?;
        let metric = pairs.iter().find(|[name, _]| *name == METRIC_NAME).map_or("", |[_, value]| *value);
        let metadata =
            metadata.map(|metadata| read_metadata(metadata, symbols)).transpose()?.unwrap_or_default();
        let labels = match type_labels {
            true => label_fields(&with_type(&pairs, &metadata)),
            false => label_fields(&pairs),
        };
        self.charge_labels(labels.len())?;
        if !metric.is_empty() && metadata != Metadata::default() {
            self.metadata.push((metric, metadata));
        }
        self.series.push(RawSeries {
            labels: Cow::Owned(labels),
            samples: first_sample..self.samples.len(),
            histograms: first_histogram..self.histograms.len(),
        });
        Ok(())
    }

    /// Counts the bytes of a label set that was written out from the table of texts.
    fn charge_labels(&mut self, bytes: usize) -> Result<(), WireError> {
        self.label_bytes += bytes;
        if self.label_bytes > WRITE_DECOMPRESSED_BYTES_MAX { Err(WireError::ManyLabelBytes) } else { Ok(()) }
    }
}

/// The field of a sample that has its start timestamp.
const SAMPLE_START: u32 = 3;

/// The field of a histogram that has its start timestamp.
const HISTOGRAM_START: u32 = 17;

/// The start timestamp in a message; 0 if it has none.
fn start_of(message: &[u8], number: u32) -> Result<TimestampMs, WireError> {
    let mut start_ms = 0;
    for field in Fields::of(message) {
        let field = field?;
        if field.number == number {
            start_ms = field.varint()? as i64;
        }
    }
    Ok(start_ms)
}

/// Notes the start timestamp of the last of `count` samples. A request that has none costs no list.
#[inline]
fn note_start(starts: &mut Vec<TimestampMs>, count: usize, start_ms: TimestampMs) {
    if start_ms != 0 {
        starts.resize(count, 0);
        if let Some(last) = starts.last_mut() {
            *last = start_ms;
        }
    }
}

/// Gives those samples a start timestamp that have none.
fn fill_starts(starts: &mut Vec<TimestampMs>, samples: Range<usize>, start_ms: TimestampMs) {
    if !samples.is_empty() {
        starts.resize(samples.end, 0);
    }
    let of_series = starts.get_mut(samples).unwrap_or_default();
    of_series.iter_mut().filter(|start| **start == 0).for_each(|start| *start = start_ms);
}

/// The labels with those of type and unit, sorted.
fn with_type<'p>(pairs: &[[&'p str; 2]], metadata: &'p Metadata) -> Vec<[&'p str; 2]> {
    let is_own = |[name, _]: &[&str; 2]| !matches!(*name, TYPE_LABEL | UNIT_LABEL);
    let mut all: Vec<[&str; 2]> = pairs.iter().filter(|pair| is_own(pair)).copied().collect();
    all.extend(type_labels::of(metadata).map(|(name, value)| [name, value]));
    all.sort_unstable();
    all
}

/// `io.prometheus.write.v2.Exemplar`
fn exemplar(message: &[u8], series: usize, symbols: &[&str]) -> Result<RawExemplar<'static>, WireError> {
    let mut references: Vec<u64> = Vec::new();
    let (mut timestamp_ms, mut value) = (0, 0.0);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => add_numbers(&field, &mut references)?,
            2 => value = field.double()?,
            3 => timestamp_ms = field.varint()? as i64,
            _ => {}
        }
    }
    let labels = Cow::Owned(label_fields(&pairs(&references, symbols)?));
    Ok(RawExemplar { series, labels, timestamp_ms, value })
}

fn symbol<'a>(reference: u64, symbols: &[&'a str]) -> Result<&'a str, WireError> {
    let at = usize::try_from(reference).ok();
    at.and_then(|at| symbols.get(at)).copied().ok_or(WireError::Reference(reference))
}

/// Names and values. They are looked at before they are written out: a text may be long, and named again and again.
fn pairs<'a>(references: &[u64], symbols: &[&'a str]) -> Result<Vec<[&'a str; 2]>, WireError> {
    let (pairs, rest) = references.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(WireError::Unpaired);
    }
    let pair = |[name, value]: &[u64; 2]| {
        let (name, value) = (symbol(*name, symbols)?, symbol(*value, symbols)?);
        let is_long = name.len() > LABEL_NAME_BYTES_MAX || value.len() > LABEL_VALUE_BYTES_MAX;
        if is_long { Err(WireError::LongLabel) } else { Ok([name, value]) }
    };
    pairs.iter().map(pair).collect()
}

/// Numbers of label names and values: repeated, packed or one by one.
fn add_numbers(field: &Field<'_>, numbers: &mut Vec<u64>) -> Result<(), WireError> {
    let mut add = |number| {
        numbers.push(number);
        let labels = numbers.len() / 2;
        if labels > LABELS_PER_SERIES_MAX { Err(WireError::TooManyLabels(labels)) } else { Ok(()) }
    };
    match field.value {
        Wire::Varint(number) => add(number),
        _ => super::protobuf::packed_numbers(field.bytes()?).try_for_each(|number| add(number?)),
    }
}

/// Labels as version 1.0 writes them: fields 1 of a series, each with the name in field 1 and the value in
/// field 2.
fn label_fields(pairs: &[[&str; 2]]) -> Vec<u8> {
    let mut fields =
        Vec::with_capacity(pairs.iter().map(|[name, value]| name.len() + value.len() + 12).sum());
    pairs.iter().for_each(|[name, value]| push_label(&mut fields, name, value));
    fields
}

fn push_label(out: &mut Vec<u8>, name: &str, value: &str) {
    let text = |length: usize| 1 + varint_bytes(length) + length;
    out.push(0x0a);
    push_varint(out, text(name.len()) + text(value.len()));
    for (tag, text) in [(0x0a, name), (0x12, value)] {
        out.push(tag);
        push_varint(out, text.len());
        out.extend_from_slice(text.as_bytes());
    }
}

fn varint_bytes(number: usize) -> usize {
    (number | 1).ilog2() as usize / 7 + 1
}

fn push_varint(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// `io.prometheus.write.v2.Metadata`
fn read_metadata(message: &[u8], symbols: &[&str]) -> Result<Metadata, WireError> {
    let mut metadata = Metadata::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => metadata.kind = metric_kind(field.varint()?),
            3 => metadata.help = shortened(symbol(field.varint()?, symbols)?, HELP_BYTES_MAX).to_owned(),
            4 => metadata.unit = shortened(symbol(field.varint()?, symbols)?, 64).to_owned(),
            _ => {}
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_proto::prometheus as v1;
    use pharos_proto::prometheus_v2 as v2;
    use prost::Message;

    fn request() -> Vec<u8> {
        let symbols = ["", "__name__", "up", "job", "a", "Whether it is up"];
        v2::Request {
            symbols: symbols.map(str::to_owned).into(),
            timeseries: vec![v2::TimeSeries {
                labels_refs: vec![1, 2, 3, 4],
                samples: vec![v2::Sample { value: 1.5, timestamp: -7, start_timestamp: 3 }],
                metadata: Some(v2::Metadata { r#type: 2, help_ref: 5, unit_ref: 0 }),
                ..v2::TimeSeries::default()
            }],
        }
        .encode_to_vec()
    }

    #[test]
    fn series_get_labels_of_type_and_unit_where_they_are_wanted() {
        let labels = |type_labels| {
            let message = request();
            let request = Request::parse_v2(&message, type_labels).unwrap();
            let series = v1::TimeSeries::decode(&*request.series[0].labels).unwrap();
            series
                .labels
                .into_iter()
                .map(|label| format!("{}={}", label.name, label.value))
                .collect::<Vec<_>>()
        };
        assert_eq!(labels(false), ["__name__=up", "job=a"]);
        assert_eq!(labels(true), ["__name__=up", "__type__=gauge", "job=a"]);
    }

    #[test]
    fn a_series_has_the_label_bytes_of_version_1() {
        let label = |name: &str, value: &str| v1::Label { name: name.into(), value: value.into() };
        let long = "v".repeat(200);
        let old = v1::TimeSeries {
            labels: vec![label("__name__", "up"), label("job", &long)],
            ..Default::default()
        };
        assert_eq!(label_fields(&[["__name__", "up"], ["job", &long]]), old.encode_to_vec());
    }

    #[test]
    fn samples_and_metadata_come_out() {
        let message = request();
        let parsed = Request::parse_v2(&message, false).unwrap();
        assert_eq!(parsed.samples, [(-7, 1.5)]);
        assert_eq!(parsed.series.len(), 1);
        let (metric, metadata) = &parsed.metadata[0];
        assert_eq!((*metric, metadata.help.as_str()), ("up", "Whether it is up"));
    }

    #[test]
    fn start_timestamps_come_from_the_sample_or_else_from_its_series() {
        let sample = |timestamp, start_timestamp| v2::Sample { value: 1.0, timestamp, start_timestamp };
        let now_ms = 1_700_000_000_000;
        #[track_caller]
        fn check(samples: &[v2::Sample], created_ms: u64, want: &[i64]) {
            let mut series = v2::TimeSeries {
                labels_refs: vec![1, 2],
                samples: samples.to_vec(),
                histograms: vec![v1::Histogram::default()],
                ..v2::TimeSeries::default()
            }
            .encode_to_vec();
            if created_ms > 0 {
                // Field 6 of drafts, which the message has no more.
                series.push(6 << 3);
                prost::encoding::encode_varint(created_ms, &mut series);
            }
            let mut message = [0x22, 0x00, 0x22, 0x08].to_vec();
            message.extend_from_slice(b"__name__\x22\x01a");
            message.push(0x2a);
            prost::encoding::encode_varint(series.len() as u64, &mut message);
            message.extend(series);
            let request = Request::parse_v2(&message, false).unwrap();
            assert_eq!(request.samples.len(), samples.len());
            assert_eq!(request.starts, want);
            assert_eq!(request.histogram_starts, vec![created_ms as i64; usize::from(created_ms > 0)]);
        }
        check(&[sample(now_ms, 0), sample(now_ms + 1, 0)], 0, &[]);
        check(&[sample(now_ms, 0), sample(5, 3)], 0, &[0, 3]);
        check(&[sample(now_ms, now_ms - 1), sample(now_ms + 1, 0)], 0, &[now_ms - 1]);
        check(&[sample(now_ms, 0), sample(now_ms + 1, 4)], 7, &[7, 4]);
    }

    #[test]
    fn a_histogram_has_its_start_timestamp_in_field_17() {
        let message = [&v1::Histogram::default().encode_to_vec()[..], &[0x88, 0x01, 0x2a]].concat();
        assert_eq!(start_of(&message, HISTOGRAM_START), Ok(42));
    }

    #[test]
    fn references_outside_the_table_are_malformed() {
        let mut request = v2::Request::decode(request().as_slice()).unwrap();
        request.timeseries[0].labels_refs[1] = 99;
        let outcome = Request::parse_v2(&request.encode_to_vec(), false).map(drop);
        assert!(outcome.unwrap_err().to_string().contains("reference 99"));
        request.timeseries[0].labels_refs = vec![1];
        let message = request.encode_to_vec();
        assert!(
            Request::parse_v2(&message, false).map(drop).unwrap_err().to_string().contains("without a value")
        );
    }

    #[test]
    fn truncations_and_flipped_bits_never_panic() {
        let whole = request();
        for position in 0..whole.len() {
            let _ = Request::parse_v2(&whole[..position], false);
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                let _ = Request::parse_v2(&damaged, true);
            }
        }
    }
}
