//! What is known of a metric beside its samples.

/// A metric's type, as Prometheus names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MetricKind {
    /// Not told.
    #[default]
    Unknown,
    /// Rises, and starts again at zero.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A classic histogram.
    Histogram,
    /// A summary.
    Summary,
    /// Always 1; its labels tell something.
    Info,
}

impl MetricKind {
    /// Undoes `kind as u8`; numbers of later versions are unknown kinds.
    pub(crate) fn from_number(number: u8) -> Self {
        [
            MetricKind::Unknown,
            MetricKind::Counter,
            MetricKind::Gauge,
            MetricKind::Histogram,
            MetricKind::Summary,
            MetricKind::Info,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == number)
        .unwrap_or_default()
    }

    /// As in the text format and in `/api/v1/metadata`.
    pub fn as_str(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Summary => "summary",
            MetricKind::Info => "info",
        }
    }
}

/// What a metric means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: MetricKind,
    /// Its base unit, or empty.
    pub unit: String,
    /// What it tells.
    pub help: String,
}
