//! Series of remote write: recognised by the raw bytes of their labels, and adopted into groups.
//!
//! Label parsing dominates the cost of remote write, and a sender repeats the same labels for ever. So only
//! bytes never seen before are parsed. And what a sender read together it sends together, at one timestamp:
//! series of one target that are first seen side by side become one group of the engine, so that from then
//! on a scrape is a few rows and not a thousand.

use super::appender::{Appender, Group, PlannedRow, Source};
use super::histogram_table::HistogramTable;
use super::known_series::KnownSeries;
use super::label_rules::checked_labels;
use super::pick::pick_mut;
use super::row_plan::{RowPlan, Slot};
use super::series_writer::add;
use super::wire_histogram::{HistogramFault, from_wire};
use super::write_request::{LabelsFault, RawExemplar, RawSeries, Request, WriteFault, label_pairs};
use crate::limits::{
    ADOPTED_COLUMNS_MAX, ROWS_PER_APPEND_MAX, SERIES_CACHE_BYTES_MAX, SERIES_CACHE_ENTRIES_MAX,
    VALUES_PER_APPEND_MAX,
};
use pharos_common::histogram::HistogramSample;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_proto::prometheus as wire;
use pharos_tsdb::{Appended, Exemplar, TsdbError, starts};
use prost::Message;

/// Room for the slots of so many series is kept from request to request.
const SLOTS_KEPT: usize = 64 << 10;

/// Series known by the raw bytes of their labels, and the groups they are in.
#[derive(Debug, Default)]
pub struct SeriesCache {
    known: KnownSeries,
    groups: Vec<Group>,
    histograms: HistogramTable,
    plan: RowPlan,
    /// Slots of a request's series; kept from request to request for its memory.
    found: Vec<Option<Slot>>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Written {
    /// What the engine took.
    pub appended: Appended,
    /// Native histograms stored, repetitions included.
    pub histograms: u64,
    /// Exemplars of the request, to be kept once its samples are in.
    pub exemplars: Vec<(Labels, Exemplar)>,
    /// Exemplars kept, repetitions included.
    pub exemplars_kept: u64,
    /// Series left out, and the first reason.
    pub refused: Option<(usize, String)>,
}

impl Written {
    fn refuse(&mut self, reason: String) {
        self.refused.get_or_insert((0, reason)).0 += 1;
    }
}

/// A series seen for the first time.
struct NewSeries<'a> {
    /// The bytes it came as: more than one kind if a request tells its labels in different orders.
    raw: Vec<&'a [u8]>,
    labels: Labels,
    first_ms: TimestampMs,
    /// Whether its samples tell since when they count.
    starts: bool,
}

impl NewSeries<'_> {
    /// Columns that it takes: its samples and their start timestamps.
    fn columns(&self) -> impl Iterator<Item = Labels> {
        [Some(self.labels.clone()), self.starts.then(|| starts::column(&self.labels))].into_iter().flatten()
    }

    /// Whether two series come from the same reading of the same target.
    fn belongs_with(&self, other: &NewSeries<'_>) -> bool {
        let same = |name: &str| self.labels.get(name) == other.labels.get(name);
        self.first_ms == other.first_ms && same("instance") && same("job")
    }
}

impl SeriesCache {
    /// Appends all samples of a request. They can be read when this returns.
    ///
    /// # Errors
    /// If a histogram or label set is malformed, or the engine refuses; part of it may be stored.
    pub(super) async fn write(
        &mut self,
        appender: &Appender,
        request: &Request<'_>,
    ) -> Result<Written, WriteFault> {
        let histograms = request
            .histograms
            .iter()
            .map(|bytes| wire::Histogram::decode(*bytes).map(from_wire))
            .collect::<Result<Vec<_>, _>>()?;
        let mut written = Written::default();
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let mut before = None;
        found.extend(request.series.iter().map(|series| {
            let (position, slot) = self.known.find(&series.labels, before)?;
            before = Some(position);
            Some(slot)
        }));
        if !request.starts.is_empty() {
            // A series that tells start timestamps now and did not before gets a place for them.
            for (slot, series) in found.iter_mut().zip(&request.series) {
                *slot = slot.filter(|slot| slot.starts || !request.has_starts(series));
            }
        }
        if found.contains(&None) {
            self.learn(appender, request, &found, &mut written)?;
            for (slot, series) in found.iter_mut().zip(&request.series).filter(|(slot, _)| slot.is_none()) {
                *slot = self.known.find(&series.labels, None).map(|(_, slot)| slot);
            }
        }
        for (metric, metadata) in &request.metadata {
            appender.database().set_metadata(metric, metadata.clone());
        }
        self.plan.clear();
        for (series, slot) in request.series.iter().zip(&found) {
            if !series.histograms.is_empty() {
                let of_series = histograms.get(series.histograms.clone()).unwrap_or_default();
                let starts = request.histogram_starts.get(series.histograms.start..).unwrap_or_default();
                self.write_histograms(appender, series, (of_series, starts), &mut written).await?;
            }
            let Some(slot) = *slot else { continue };
            let Some(width) = self.groups.get(slot.group as usize).map(|group| group.columns().len()) else {
                continue;
            };
            let samples = request.samples.get(series.samples.clone()).unwrap_or_default();
            for (&sample, at) in samples.iter().zip(series.samples.start..) {
                let start_ms = request.starts.get(at).copied().unwrap_or(0);
                self.plan.add(slot, width, sample, start_ms);
                // Even of one series: each of its samples may take a row of its group.
                if self.plan.is_full() {
                    self.append_planned(appender, &mut written.appended).await?;
                }
            }
        }
        self.append_planned(appender, &mut written.appended).await?;
        found.clear();
        found.shrink_to(SLOTS_KEPT);
        self.found = found;
        written.exemplars = exemplars(request);
        if self.known.len() > SERIES_CACHE_ENTRIES_MAX || self.known.bytes() > SERIES_CACHE_BYTES_MAX {
            *self = SeriesCache::default();
        }
        Ok(written)
    }

    async fn write_histograms(
        &mut self,
        appender: &Appender,
        series: &RawSeries<'_>,
        (histograms, starts): (&[Result<HistogramSample, HistogramFault>], &[TimestampMs]),
        written: &mut Written,
    ) -> Result<(), WriteFault> {
        let labels = match label_pairs(&series.labels).and_then(|pairs| Ok(checked_labels(pairs)?)) {
            Ok(labels) => labels,
            Err(LabelsFault::Labels(fault)) => {
                written.refuse(fault.to_string());
                return Ok(());
            }
            Err(LabelsFault::Wire(error)) => return Err(error.into()),
        };
        for (at, histogram) in histograms.iter().enumerate() {
            match histogram {
                Ok(sample) => {
                    let start_ms = starts.get(at).copied().unwrap_or(0);
                    let source = Source::RemoteWrite;
                    match self.histograms.append(appender, &labels, sample, start_ms, source).await {
                        Ok(appended) => {
                            written.histograms += appended.samples + appended.duplicates;
                            add(&mut written.appended, &appended);
                        }
                        Err(error @ TsdbError::TooManySeries { .. }) => written.refuse(error.to_string()),
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(fault) => written.refuse(format!("{labels}: {fault}")),
            }
        }
        Ok(())
    }

    /// Finds slots for series that were never seen before; one that is refused gets none.
    fn learn(
        &mut self,
        appender: &Appender,
        request: &Request<'_>,
        found: &[Option<Slot>],
        written: &mut Written,
    ) -> Result<(), WriteFault> {
        let mut together: Vec<NewSeries<'_>> = Vec::new();
        for (series, _) in request.series.iter().zip(found).filter(|(_, slot)| slot.is_none()) {
            let raw = series.labels.as_ref();
            let Some(&(first_ms, _)) =
                request.samples.get(series.samples.start).filter(|_| !series.samples.is_empty())
            else {
                continue;
            };
            let labels = match label_pairs(raw).and_then(|pairs| Ok(checked_labels(pairs)?)) {
                Ok(labels) => labels,
                Err(LabelsFault::Labels(fault)) => {
                    written.refuse(fault.to_string());
                    continue;
                }
                Err(LabelsFault::Wire(error)) => return Err(error.into()),
            };
            let new = NewSeries { raw: vec![raw], labels, first_ms, starts: request.has_starts(series) };
            if let Some(known) = together.iter_mut().find(|known| known.labels == new.labels) {
                known.raw.push(raw);
                known.starts |= new.starts;
                continue;
            }
            let fits = together.first().is_none_or(|first| first.belongs_with(&new));
            let columns: usize = together.iter().map(|series| 1 + usize::from(series.starts)).sum();
            if !fits || columns + 2 > ADOPTED_COLUMNS_MAX {
                self.adopt(appender, &mut together, written)?;
            }
            together.push(new);
        }
        self.adopt(appender, &mut together, written)
    }

    /// Makes a group of series that were seen together. When the engine takes no more new series they try
    /// one by one: those that it knows already go on.
    fn adopt(
        &mut self,
        appender: &Appender,
        together: &mut Vec<NewSeries<'_>>,
        written: &mut Written,
    ) -> Result<(), WriteFault> {
        if together.is_empty() {
            return Ok(());
        }
        match appender.try_define(together.iter().flat_map(NewSeries::columns).collect()) {
            Ok(group) => self.remember(group, together),
            Err(TsdbError::TooManySeries { .. }) => {
                for series in together.iter_mut() {
                    let is_known = series.raw.iter().all(|raw| self.known.find(raw, None).is_some());
                    if series.starts && appender.try_define(series.columns().collect()).is_err() {
                        // Rather without start timestamps than not at all.
                        series.starts = false;
                        if is_known {
                            continue;
                        }
                    }
                    match appender.define(series.columns().collect()) {
                        Ok(group) => self.remember(group, std::slice::from_ref(series)),
                        Err(error @ TsdbError::TooManySeries { .. }) => written.refuse(error.to_string()),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        together.clear();
        Ok(())
    }

    fn remember(&mut self, group: Group, columns: &[NewSeries<'_>]) {
        let number = self.groups.len() as u32;
        self.groups.push(group);
        let mut column = 0;
        for series in columns {
            for &raw in &series.raw {
                self.known.insert(raw, Slot { group: number, column, starts: series.starts });
            }
            column += 1 + u16::from(series.starts);
        }
    }

    async fn append_planned(&mut self, appender: &Appender, total: &mut Appended) -> Result<(), TsdbError> {
        let mut rest = self.plan.rows();
        while !rest.is_empty() {
            let chunk;
            (chunk, rest) = rest.split_at(rows_of_append(rest, |row| self.plan.values(row).len()));
            let mut positions: Vec<usize> = chunk.iter().map(|row| row.group as usize).collect();
            positions.sort_unstable();
            positions.dedup();
            let planned: Vec<PlannedRow<'_>> = chunk
                .iter()
                .filter_map(|row| {
                    Some(PlannedRow {
                        group: positions.binary_search(&(row.group as usize)).ok()?,
                        timestamp_ms: row.timestamp_ms,
                        values: self.plan.values(row),
                    })
                })
                .collect();
            let mut groups = pick_mut(&mut self.groups, &positions);
            add(total, &appender.append(&mut groups, &planned, None, Source::RemoteWrite).await?);
        }
        self.plan.clear();
        Ok(())
    }
}

/// How many of these rows go into one append; at least one.
fn rows_of_append<R>(rows: &[R], width: impl Fn(&R) -> usize) -> usize {
    let mut values = 0;
    let fits = |row: &&R| {
        values += width(row);
        values <= VALUES_PER_APPEND_MAX
    };
    rows.iter().take(ROWS_PER_APPEND_MAX).take_while(fits).count().max(1).min(rows.len())
}

/// Exemplars with the labels of their series. One whose labels cannot be used is left out: a sender that
/// sent its samples again for it would not help it.
fn exemplars(request: &Request<'_>) -> Vec<(Labels, Exemplar)> {
    let read = |raw: &RawExemplar<'_>| {
        let series = request.series.get(raw.series)?;
        let series = checked_labels(label_pairs(&series.labels).ok()?).ok()?;
        let labels = Labels::from_pairs(label_pairs(&raw.labels).ok()?);
        Some((series, Exemplar { labels, timestamp_ms: raw.timestamp_ms, value: raw.value }))
    };
    request.exemplars.iter().filter_map(read).collect()
}
