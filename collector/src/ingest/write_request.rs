//! Remote write 1.0: decompressed bytes of a `prometheus.WriteRequest` in, samples of known groups out.
//!
//! Label parsing dominates the cost of remote write, and a sender repeats the same labels for ever. So a
//! series is recognised by the raw bytes of its labels; only bytes never seen before are parsed.

use super::appender::{Appender, Group, PlannedRow, Source};
use super::label_rules::{LabelFault, checked_labels};
use super::pick::pick_mut;
use super::protobuf::{Fields, WireError};
use super::series_writer::add;
use super::stream_groups::shortened;
use crate::limits::{
    HELP_BYTES_MAX, LABELS_PER_SERIES_MAX, ROWS_PER_APPEND_MAX, SAMPLES_PER_WRITE_MAX,
    SERIES_CACHE_BYTES_MAX, SERIES_CACHE_ENTRIES_MAX,
};
use foldhash::HashMap;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Appended, Metadata, MetricKind, TsdbError};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Series known by the raw bytes of their labels.
#[derive(Debug, Default)]
pub struct SeriesCache {
    positions: HashMap<Box<[u8]>, usize>,
    groups: Vec<Group>,
    key_bytes: usize,
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Written {
    /// What the engine took.
    pub appended: Appended,
    /// Series left out, and the first reason.
    pub refused: Option<(usize, String)>,
}

/// Why a request could not be taken as a whole.
#[derive(Debug, thiserror::Error)]
pub enum WriteFault {
    /// The bytes are no write request. Nothing of it is stored.
    #[error("malformed write request: {0}")]
    Malformed(#[from] WireError),
    /// More samples than one request may have. Nothing of it is stored.
    #[error("the request has more than {SAMPLES_PER_WRITE_MAX} samples")]
    TooManySamples,
    /// The engine refuses; part of the request may be stored.
    #[error(transparent)]
    Storage(#[from] TsdbError),
}

/// A request, read whole before anything of it is applied.
#[derive(Debug, Default)]
struct Request<'a> {
    series: Vec<RawSeries<'a>>,
    /// Of all series, one after the other.
    samples: Vec<(TimestampMs, f64)>,
    metadata: Vec<(&'a str, Metadata)>,
}

/// One series of a request.
#[derive(Debug)]
struct RawSeries<'a> {
    /// The label fields as they stand.
    labels: Cow<'a, [u8]>,
    /// Where its samples lie.
    samples: Range<usize>,
    has_histograms: bool,
}

/// A sample and the position of its series' group.
type Planned = (usize, TimestampMs, f64);

impl<'a> Request<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, WriteFault> {
        let mut request = Request::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number {
                1 => {
                    let series = raw_series(field.bytes()?, &mut request.samples)?;
                    request.series.push(series);
                }
                3 => request.metadata.push(metadata(field.bytes()?)?),
                _ => {}
            }
            if request.samples.len() > SAMPLES_PER_WRITE_MAX {
                return Err(WriteFault::TooManySamples);
            }
        }
        Ok(request)
    }
}

impl SeriesCache {
    /// Appends all samples of a request. They can be read when this returns.
    ///
    /// # Errors
    /// If the request is malformed (nothing is stored) or the engine refuses.
    pub async fn write(&mut self, appender: &Appender, message: &[u8]) -> Result<Written, WriteFault> {
        let request = Request::parse(message)?;
        let mut written = Written::default();
        let planned = self.plan(appender, &request, &mut written)?;
        for (metric, metadata) in request.metadata {
            appender.database().set_metadata(metric, metadata);
        }
        for chunk in planned.chunks(ROWS_PER_APPEND_MAX) {
            add(&mut written.appended, &self.append(appender, chunk).await?);
        }
        if self.groups.len() > SERIES_CACHE_ENTRIES_MAX || self.key_bytes > SERIES_CACHE_BYTES_MAX {
            *self = SeriesCache::default();
        }
        Ok(written)
    }

    /// Finds the group of every series; one that is refused is left out.
    fn plan(
        &mut self,
        appender: &Appender,
        request: &Request<'_>,
        written: &mut Written,
    ) -> Result<Vec<Planned>, WriteFault> {
        let mut planned = Vec::with_capacity(request.samples.len());
        let mut refuse = |reason: String| {
            written.refused.get_or_insert((0, reason)).0 += 1;
        };
        for series in &request.series {
            if series.has_histograms {
                refuse("native histograms are not supported yet".to_owned());
            }
            let position = match self.positions.get(series.labels.as_ref()) {
                Some(&position) => position,
                None => match self.learn(appender, &series.labels) {
                    Ok(position) => position,
                    Err(Refusal::Labels(fault)) => {
                        refuse(fault.to_string());
                        continue;
                    }
                    Err(Refusal::Storage(error @ TsdbError::TooManySeries { .. })) => {
                        refuse(error.to_string());
                        continue;
                    }
                    Err(Refusal::Wire(error)) => return Err(error.into()),
                    Err(Refusal::Storage(error)) => return Err(error.into()),
                },
            };
            let samples = request.samples.get(series.samples.clone()).unwrap_or_default();
            planned.extend(samples.iter().map(|&(timestamp_ms, value)| (position, timestamp_ms, value)));
        }
        Ok(planned)
    }

    fn learn(&mut self, appender: &Appender, raw: &[u8]) -> Result<usize, Refusal> {
        let mut pairs = Vec::new();
        for label in Fields::of(raw) {
            pairs.push(label_pair(label?.bytes()?)?);
            if pairs.len() > LABELS_PER_SERIES_MAX {
                return Err(LabelFault::TooMany(pairs.len()).into());
            }
        }
        let labels = checked_labels(pairs)?;
        let group = appender.define(Arc::from([labels]))?;
        self.groups.push(group);
        let position = self.groups.len() - 1;
        self.key_bytes += raw.len();
        self.positions.insert(raw.into(), position);
        Ok(position)
    }

    async fn append(&mut self, appender: &Appender, planned: &[Planned]) -> Result<Appended, TsdbError> {
        let mut positions: Vec<usize> = planned.iter().map(|(position, ..)| *position).collect();
        if !positions.is_sorted() {
            positions.sort_unstable();
        }
        positions.dedup();
        let rows: Vec<PlannedRow<'_>> = planned
            .iter()
            .filter_map(|(position, timestamp_ms, value)| {
                Some(PlannedRow {
                    group: positions.binary_search(position).ok()?,
                    timestamp_ms: *timestamp_ms,
                    values: std::slice::from_ref(value),
                })
            })
            .collect();
        let mut groups = pick_mut(&mut self.groups, &positions);
        appender.append(&mut groups, &rows, None, Source::RemoteWrite).await
    }
}

enum Refusal {
    Wire(WireError),
    Labels(LabelFault),
    Storage(TsdbError),
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Refusal::Wire(error)
    }
}

impl From<LabelFault> for Refusal {
    fn from(fault: LabelFault) -> Self {
        Refusal::Labels(fault)
    }
}

impl From<TsdbError> for Refusal {
    fn from(error: TsdbError) -> Self {
        Refusal::Storage(error)
    }
}

/// `prometheus.TimeSeries`
fn raw_series<'a>(
    message: &'a [u8],
    samples: &mut Vec<(TimestampMs, f64)>,
) -> Result<RawSeries<'a>, WireError> {
    let first = samples.len();
    let mut labels: Option<(usize, usize)> = None;
    let mut scattered: Vec<u8> = Vec::new();
    let mut has_histograms = false;
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => {
                field.bytes()?;
                // Every known sender writes the labels first and together; then they are one slice.
                match &mut labels {
                    None => labels = Some((field.start, field.end)),
                    Some((_, end)) if *end == field.start && scattered.is_empty() => *end = field.end,
                    Some((start, end)) => {
                        if scattered.is_empty() {
                            scattered.extend_from_slice(&message[*start..*end]);
                        }
                        scattered.extend_from_slice(&message[field.start..field.end]);
                    }
                }
            }
            2 => samples.push(sample(field.bytes()?)?),
            4 => has_histograms = true,
            _ => {}
        }
    }
    let labels = match labels {
        Some((start, end)) if scattered.is_empty() => Cow::Borrowed(&message[start..end]),
        _ => Cow::Owned(scattered),
    };
    Ok(RawSeries { labels, samples: first..samples.len(), has_histograms })
}

/// `prometheus.Sample`
fn sample(message: &[u8]) -> Result<(TimestampMs, f64), WireError> {
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

/// `prometheus.MetricMetadata`
fn metadata(message: &[u8]) -> Result<(&str, Metadata), WireError> {
    let mut metric = "";
    let mut metadata = Metadata::default();
    for field in Fields::of(message) {
        let field = field?;
        match field.number {
            1 => {
                metadata.kind = match field.varint()? {
                    1 => MetricKind::Counter,
                    2 => MetricKind::Gauge,
                    3 | 4 => MetricKind::Histogram,
                    5 => MetricKind::Summary,
                    6 | 7 => MetricKind::Info,
                    _ => MetricKind::Unknown,
                }
            }
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
    fn labels_are_one_slice_wherever_they_stand() {
        let label = [0x0a, 0x03, 0x0a, 0x01, b'a'];
        let sample = [0x12, 0x00];
        let together: Vec<u8> = [&label[..], &label, &sample].concat();
        let scattered: Vec<u8> = [&label[..], &sample, &label].concat();
        let labels = |message: &[u8]| raw_series(message, &mut Vec::new()).unwrap().labels.into_owned();
        assert_eq!(labels(&together), labels(&scattered));
    }
}
