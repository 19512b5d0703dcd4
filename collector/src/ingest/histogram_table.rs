//! Native histograms on their way to the engine: each series keeps the groups of its parts at hand.
//!
//! `pharos_tsdb::histogram` says how a histogram becomes a row. Here a series whose histogram outgrows its
//! shape goes on in wider groups.

use super::appender::{Appender, Group, PlannedRow, Source};
use crate::limits::{ADOPTED_COLUMNS_MAX, SERIES_CACHE_ENTRIES_MAX};
use foldhash::HashMap;
use pharos_common::histogram::{FloatHistogram, HistogramSample};
use pharos_common::labels::Labels;
use pharos_tsdb::histogram::Shape;
use pharos_tsdb::{Appended, TsdbError};

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
    /// The shape's parts in runs of as many columns as a group may have.
    groups: Vec<Group>,
}

impl HistogramTable {
    /// Appends one histogram. It can be read when this returns. In the answer it counts as one sample.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn append(
        &mut self,
        appender: &Appender,
        labels: &Labels,
        sample: &HistogramSample,
        source: Source,
    ) -> Result<Appended, TsdbError> {
        let series = self.series(appender, labels, &sample.histogram)?;
        let values = series.shape.values(&sample.histogram);
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
    ) -> Result<&mut HistogramSeries, TsdbError> {
        if self.parts > PARTS_MAX {
            *self = HistogramTable::default();
        }
        let known = self.series.get(labels).map(|series| &series.shape);
        let shape = match known {
            Some(shape) if shape.fits(histogram) => None,
            Some(shape) => Some(shape.clone().widened(Shape::of(histogram))),
            None => Some(Shape::of(histogram)),
        };
        if let Some(shape) = shape {
            let parts = shape.series(labels);
            let groups = parts
                .chunks(ADOPTED_COLUMNS_MAX)
                .map(|columns| appender.define(columns.into()))
                .collect::<Result<_, _>>()?;
            self.parts += parts.len();
            self.series.insert(labels.clone(), HistogramSeries { shape, groups });
        }
        // It was there, or has just been put there.
        self.series.get_mut(labels).ok_or(TsdbError::Closed)
    }
}
