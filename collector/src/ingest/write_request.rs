//! Remote write 1.0: the decompressed bytes of a `prometheus.WriteRequest` in, its parts out, labels still
//! as raw bytes. What becomes of them is [`super::series_cache`]'s business.

use super::label_rules::LabelFault;
use super::protobuf::{Field, Fields, WireError};
use super::stream_groups::shortened;
use crate::limits::{HELP_BYTES_MAX, LABELS_PER_SERIES_MAX, SAMPLES_PER_WRITE_MAX};
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Metadata, MetricKind, TsdbError};
use std::borrow::Cow;
use std::ops::Range;

/// Why a request could not be taken as a whole.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// The bytes are no write request. Nothing of it is stored.
    #[error("malformed write request: {0}")]
    Malformed(#[from] WireError),
    /// A histogram is no protobuf message. Nothing of the request is stored.
    #[error("malformed histogram: {0}")]
    MalformedHistogram(#[from] prost::DecodeError),
    /// More samples than one request may have. Nothing of it is stored.
    #[error("the request has more than {SAMPLES_PER_WRITE_MAX} samples")]
    TooManySamples,
    /// The engine refuses; part of the request may be stored.
    #[error(transparent)]
    Storage(#[from] TsdbError),
}

/// About what a series with one sample takes.
const BYTES_PER_SERIES: usize = 160;

/// A request, read whole before anything of it is applied.
#[derive(Debug, Default)]
pub(super) struct Request<'a> {
    pub(super) series: Vec<RawSeries<'a>>,
    /// Of all series, one after the other.
    pub(super) samples: Vec<(TimestampMs, f64)>,
    /// Since when these samples have counted, if any of them says so; 0 where one does not.
    pub(super) starts: Vec<TimestampMs>,
    /// Of all series, one after the other, as they stand.
    pub(super) histograms: Vec<&'a [u8]>,
    /// As `starts`, of histograms.
    pub(super) histogram_starts: Vec<TimestampMs>,
    pub(super) exemplars: Vec<RawExemplar<'a>>,
    pub(super) metadata: Vec<(&'a str, Metadata)>,
    /// Bytes of the labels that were written out from a table.
    pub(super) label_bytes: usize,
}

/// An exemplar of one of a request's series.
#[derive(Debug)]
pub(super) struct RawExemplar<'a> {
    /// Position of its series in the request.
    pub(super) series: usize,
    /// The label fields as they stand.
    pub(super) labels: Cow<'a, [u8]>,
    pub(super) timestamp_ms: TimestampMs,
    pub(super) value: f64,
}

/// One series of a request.
#[derive(Debug)]
pub(super) struct RawSeries<'a> {
    /// The label fields as they stand.
    pub(super) labels: Cow<'a, [u8]>,
    /// Where its samples lie.
    pub(super) samples: Range<usize>,
    /// Where its histograms lie.
    pub(super) histograms: Range<usize>,
}

impl<'a> Request<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, WriteFault> {
        let mut request = Request::default();
        let about = message.len() / BYTES_PER_SERIES;
        request.series.reserve(about);
        request.samples.reserve(about);
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => {
                    let series = raw_series(field.bytes()?, &mut request)?;
                    request.series.push(series);
                }
                3 => request.metadata.push(metadata(field.bytes()?)?),
                _ => {}
            }
            if request.entries() > SAMPLES_PER_WRITE_MAX {
                return Err(WriteFault::TooManySamples);
            }
        }
        Ok(request)
    }

    /// Whether any sample of a series tells since when it counts.
    pub(super) fn has_starts(&self, series: &RawSeries<'_>) -> bool {
        let end = series.samples.end.min(self.starts.len());
        let of_series = self.starts.get(series.samples.start..end).unwrap_or_default();
        of_series.iter().any(|&start_ms| start_ms != 0)
    }

    /// What counts against the limit of samples.
    pub(super) fn entries(&self) -> usize {
        let described = self.series.len() + self.metadata.len();
        self.samples.len() + self.histograms.len() + self.exemplars.len() + described
    }
}

/// Labels of a series out of their raw bytes, in the order in which they stand.
pub(super) fn label_pairs(raw: &[u8]) -> Result<Vec<(&str, &str)>, LabelsFault> {
    let mut pairs = Vec::new();
    for label in Fields::of(raw) {
        pairs.push(label_pair(label?.bytes()?)?);
        if pairs.len() > LABELS_PER_SERIES_MAX {
            return Err(LabelFault::TooMany(pairs.len()).into());
        }
    }
    Ok(pairs)
}

/// Why a series' labels cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LabelsFault {
    /// They are no labels at all: the request is malformed.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// They are not such as a series may have.
    #[error(transparent)]
    Labels(#[from] LabelFault),
}

/// `prometheus.TimeSeries`
#[inline]
fn raw_series<'a>(message: &'a [u8], request: &mut Request<'a>) -> Result<RawSeries<'a>, WireError> {
    // Every known sender writes the labels first and together: nothing of them is looked at but their lengths.
    let (labels, behind) = message.split_at(labels_length(message));
    let (first, first_histogram) = (request.samples.len(), request.histograms.len());
    let first_exemplar = request.exemplars.len();
    for field in Fields::of(behind) {
        let field = field?;
        match field.number {
            1 => {
                request.samples.truncate(first);
                request.histograms.truncate(first_histogram);
                request.exemplars.truncate(first_exemplar);
                return scattered_series(message, request);
            }
            2 => request.samples.push(sample(field.bytes()?)?),
            3 => {
                let exemplar = raw_exemplar(field.bytes()?, request.series.len())?;
                request.exemplars.push(exemplar);
            }
            4 => request.histograms.push(field.bytes()?),
            _ => {}
        }
    }
    Ok(RawSeries {
        labels: Cow::Borrowed(labels),
        samples: first..request.samples.len(),
        histograms: first_histogram..request.histograms.len(),
    })
}

/// Bytes of the label fields that a series begins with, as far as they are short and there whole.
#[inline]
fn labels_length(message: &[u8]) -> usize {
    const LABEL: u8 = 1 << 3 | 2;
    let mut at = 0;
    while let Some(&[LABEL, length @ ..0x80]) = message.get(at..at + 2) {
        let end = at + 2 + usize::from(length);
        if end > message.len() {
            break;
        }
        at = end;
    }
    at
}

/// A series whose labels stand elsewhere, too, or are long.
#[cold]
fn scattered_series<'a>(message: &'a [u8], request: &mut Request<'a>) -> Result<RawSeries<'a>, WireError> {
    let (first, first_histogram) = (request.samples.len(), request.histograms.len());
    let mut labels = LabelFields::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => labels.add(message, &field)?,
            2 => request.samples.push(sample(field.bytes()?)?),
            3 => {
                let exemplar = raw_exemplar(field.bytes()?, request.series.len())?;
                request.exemplars.push(exemplar);
            }
            4 => request.histograms.push(field.bytes()?),
            _ => {}
        }
    }
    Ok(RawSeries {
        labels: labels.of(message),
        samples: first..request.samples.len(),
        histograms: first_histogram..request.histograms.len(),
    })
}

/// `prometheus.Exemplar`
fn raw_exemplar(message: &[u8], series: usize) -> Result<RawExemplar<'_>, WireError> {
    let mut labels = LabelFields::default();
    let (mut timestamp_ms, mut value) = (0, 0.0);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => labels.add(message, &field)?,
            2 => value = field.double()?,
            3 => timestamp_ms = field.varint()? as i64,
            _ => {}
        }
    }
    Ok(RawExemplar { series, labels: labels.of(message), timestamp_ms, value })
}

/// The label fields of a message. Every known sender writes them first and together; then they are one
/// slice of it.
#[derive(Debug, Default)]
struct LabelFields {
    together: Option<(usize, usize)>,
    scattered: Vec<u8>,
}

impl LabelFields {
    #[inline]
    fn add(&mut self, message: &[u8], field: &Field<'_>) -> Result<(), WireError> {
        field.bytes()?;
        match &mut self.together {
            None => self.together = Some((field.start, field.end)),
            Some((_, end)) if *end == field.start && self.scattered.is_empty() => *end = field.end,
            Some((start, end)) => {
                if self.scattered.is_empty() {
                    self.scattered.extend_from_slice(&message[*start..*end]);
                }
                self.scattered.extend_from_slice(&message[field.start..field.end]);
            }
        }
        Ok(())
    }

    fn of(self, message: &[u8]) -> Cow<'_, [u8]> {
        match self.together {
            Some((start, end)) if self.scattered.is_empty() => Cow::Borrowed(&message[start..end]),
            _ => Cow::Owned(self.scattered),
        }
    }
}

/// `prometheus.Sample`
#[inline]
pub(super) fn sample(message: &[u8]) -> Result<(TimestampMs, f64), WireError> {
    if let Some(sample) = common_sample(message) {
        return Ok(sample);
    }
    let (mut timestamp_ms, mut value) = (0, 0.0);
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => value = field.double()?,
            2 => timestamp_ms = field.varint()? as i64,
            _ => {}
        }
    }
    Ok((timestamp_ms, value))
}

/// A sample as nearly all are: the value, then a timestamp of six bytes, which is from 2004 to 2109.
#[inline]
pub(super) fn common_sample(message: &[u8]) -> Option<(TimestampMs, f64)> {
    const VALUE: u8 = 1 << 3 | 1;
    const TIMESTAMP: u8 = 2 << 3;
    let [VALUE, value @ .., TIMESTAMP, a, b, c, d, e, f] = <&[u8; 16]>::try_from(message).ok()? else {
        return None;
    };
    let continued = [a, b, c, d, e].iter().all(|&&byte| byte >= 0x80) && *f < 0x80;
    let timestamp = [f, e, d, c, b, a].iter().fold(0, |sum, &&byte| sum << 7 | i64::from(byte & 0x7f));
    continued.then_some((timestamp, f64::from_le_bytes(*value)))
}

/// `prometheus.Label`
fn label_pair(message: &[u8]) -> Result<(&str, &str), WireError> {
    let (mut name, mut value) = ("", "");
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => name = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((name, value))
}

/// Both versions number the kinds alike.
pub(super) fn metric_kind(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 | 4 => MetricKind::Histogram,
        5 => MetricKind::Summary,
        6 | 7 => MetricKind::Info,
        _ => MetricKind::Unknown,
    }
}

/// `prometheus.MetricMetadata`
fn metadata(message: &[u8]) -> Result<(&str, Metadata), WireError> {
    let mut metric = "";
    let mut metadata = Metadata::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => metadata.kind = metric_kind(field.varint()?),
            2 => metric = field.text()?,
            4 => metadata.help = shortened(field.text()?, HELP_BYTES_MAX).to_owned(),
            5 => metadata.unit = shortened(field.text()?, 64).to_owned(),
            _ => {}
        }
    }
    Ok((metric, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_proto::prometheus as wire;
    use prost::Message;

    fn request() -> Vec<u8> {
        let label = |name: &str, value: &str| wire::Label { name: name.into(), value: value.into() };
        wire::WriteRequest {
            timeseries: vec![wire::TimeSeries {
                labels: vec![label("__name__", "up"), label("job", "a")],
                samples: vec![wire::Sample { value: 1.5, timestamp: -7 }],
                ..wire::TimeSeries::default()
            }],
            metadata: vec![wire::MetricMetadata {
                r#type: 2,
                metric_family_name: "up".into(),
                help: "Whether".into(),
                unit: String::new(),
            }],
        }
        .encode_to_vec()
    }

    #[test]
    fn every_truncation_is_an_error_or_a_shorter_request() {
        let whole = request();
        Request::parse(&whole).unwrap();
        for length in 0..whole.len() {
            let series_end = 2 + usize::from(whole[1]);
            let outcome = Request::parse(&whole[..length]);
            assert_eq!(outcome.is_ok(), length == 0 || length == series_end, "{length} bytes");
        }
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let whole = request();
        for position in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[position] ^= 1 << bit;
                let _ = Request::parse(&damaged);
            }
        }
    }

    #[test]
    fn samples_of_all_times_are_read() {
        for timestamp in
            [0, 1, -1, 1 << 34, (1 << 35) - 1, 1 << 35, 1_700_000_000_123, (1 << 42) - 1, 1 << 42]
        {
            let message = wire::Sample { value: -1.5, timestamp }.encode_to_vec();
            assert_eq!(sample(&message).unwrap(), (timestamp, -1.5));
        }
    }

    #[test]
    fn labels_are_one_slice_wherever_they_stand() {
        let label = [0x0a, 0x03, 0x0a, 0x01, b'a'];
        let sample = [0x12, 0x00];
        let together: Vec<u8> = [&label[..], &label, &sample].concat();
        let scattered: Vec<u8> = [&label[..], &sample, &label].concat();
        let labels =
            |message: &[u8]| raw_series(message, &mut Request::default()).unwrap().labels.into_owned();
        assert_eq!(labels(&together), labels(&scattered));
        let long = [&[0x0a, 0x83, 0x00][..], &label[2..], &label, &sample].concat();
        assert_eq!(labels(&long), long[..long.len() - sample.len()]);
    }
}
