//! Native histograms on their way to the engine: each series keeps the groups of its parts at hand.
//!
//! `pharos_tsdb::histogram` says how a histogram becomes a row. Here a series whose histogram outgrows its
//! shape goes on in wider groups.

use super::appender::{Appender, Group, PlannedRow, Source};
use crate::limits::{ADOPTED_COLUMNS_MAX, SERIES_CACHE_ENTRIES_MAX};
use foldhash::HashMap;
use pharos_common::histogram::{FloatHistogram, HistogramSample};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::histogram::Shape;
use pharos_tsdb::{Appended, TsdbError, starts};

/// Part series that the table holds, over all histogram series.
const PARTS_MAX: usize = SERIES_CACHE_ENTRIES_MAX / 4;

/// Histogram series by their labels.
#[derive(Debug, Default)]
pub struct HistogramTable {
    series: HashMap<Labels, HistogramSeries>,
    parts: usize,
}

#[derive(Debug)]
struct HistogramSeries {
    shape: Shape,
    /// Whether the last column has start timestamps.
    starts: bool,
    /// The shape's parts in runs of as many columns as a group may have.
    groups: Vec<Group>,
}

impl HistogramTable {
    /// Appends one histogram, which has counted since `start_ms` (0 if that is not known). It can be read when this
    /// returns. In the answer it counts as one sample.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn append(
        &mut self,
        appender: &Appender,
        labels: &Labels,
        sample: &HistogramSample,
        start_ms: TimestampMs,
        source: Source,
    ) -> Result<Appended, TsdbError> {
        let series = self.series(appender, labels, &sample.histogram, start_ms != 0)?;
        let mut values = series.shape.values(&sample.histogram);
        if series.starts {
            values.push(starts::cell(start_ms, sample.timestamp_ms));
        }
        let rows: Vec<PlannedRow<'_>> = values
            .chunks(ADOPTED_COLUMNS_MAX)
            .enumerate()
            .map(|(group, values)| PlannedRow { group, timestamp_ms: sample.timestamp_ms, values })
            .collect();
        let mut groups: Vec<&mut Group> = series.groups.iter_mut().collect();
        let appended = appender.append(&mut groups, &rows, None, source).await?;
        Ok(Appended {
            samples: appended.samples.min(1),
            late: appended.late.min(1),
            duplicates: appended.duplicates.min(1),
            too_old: appended.too_old.min(1),
            too_new: appended.too_new.min(1),
            ..appended
        })
    }

    /// The series, in a shape in which the histogram can be told.
    fn series(
        &mut self,
        appender: &Appender,
        labels: &Labels,
        histogram: &FloatHistogram,
        with_start: bool,
    ) -> Result<&mut HistogramSeries, TsdbError> {
        if self.parts > PARTS_MAX {
            *self = HistogramTable::default();
        }
        let known = self.series.get(labels);
        let starts = with_start || known.is_some_and(|known| known.starts);
        let shape = match known {
            Some(known) if known.shape.fits(histogram) && known.starts == starts => None,
            Some(known) if known.shape.fits(histogram) => Some(known.shape.clone()),
            Some(known) => Some(known.shape.clone().widened(Shape::of(histogram))),
            None => Some(Shape::of(histogram)),
        };
        if let Some(shape) = shape {
            let mut parts = shape.series(labels);
            parts.extend(starts.then(|| starts::column(labels)));
            let is_told = known.is_some_and(|known| known.shape == shape);
            let groups: Result<_, _> =
                parts.chunks(ADOPTED_COLUMNS_MAX).map(|columns| appender.define(columns.into())).collect();
            match groups {
                Ok(groups) => {
                    self.parts += parts.len();
                    self.series.insert(labels.clone(), HistogramSeries { shape, starts, groups });
                }
                // Rather without start timestamps than not at all.
                Err(TsdbError::TooManySeries { .. }) if is_told => {}
                Err(error) => return Err(error),
            }
        }
        // It was there, or has just been put there.
        self.series.get_mut(labels).ok_or(TsdbError::Closed)
    }
}
