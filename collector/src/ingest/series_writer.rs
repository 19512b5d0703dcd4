//! Series that arrive one by one: each is a group of one, kept at hand under its labels.
//!
//! Rules and the collector's own series come through here. What was not written for a while is
//! dropped from the table when it is full; the engine gives the same group again when asked.

use super::appender::{Appender, Group, PlannedRow, Source};
use crate::limits::{ROWS_PER_APPEND_MAX, SERIES_CACHE_ENTRIES_MAX};
use foldhash::{HashMap, HashMapExt};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Appended, Database, TsdbError, starts};
use std::sync::Arc;
use tokio::sync::Mutex;

/// One sample of one series.
#[derive(Clone, Debug)]
pub struct LoneSample {
    /// Which series.
    pub labels: Labels,
    /// When.
    pub timestamp_ms: TimestampMs,
    /// What.
    pub value: f64,
}

/// Writes samples of single series. Clones share the table.
#[derive(Clone, Debug)]
pub struct SeriesWriter {
    appender: Appender,
    source: Source,
    groups: Arc<Mutex<HashMap<Labels, Group>>>,
}

impl SeriesWriter {
    /// A writer with an empty table.
    pub fn new(appender: Appender, source: Source) -> Self {
        SeriesWriter { appender, source, groups: Arc::default() }
    }

    /// The way to the engine.
    pub fn appender(&self) -> &Appender {
        &self.appender
    }

    /// The engine underneath.
    pub fn database(&self) -> &Database {
        self.appender.database()
    }

    /// Appends samples, in commits of bounded size. They can be read when this returns; the last answer's
    /// commit is the one to wait for.
    ///
    /// # Errors
    /// What the engine says. Commits before the one that failed are stored; if it takes no more new series, so
    /// is everything of the series that it knows.
    pub async fn write(&self, samples: &[LoneSample]) -> Result<Appended, TsdbError> {
        self.write_with_starts(samples, &HashMap::new()).await
    }

    /// The same, where it is known of some series since when their samples have counted, in milliseconds.
    ///
    /// # Errors
    /// As [`SeriesWriter::write`].
    pub async fn write_with_starts(
        &self,
        samples: &[LoneSample],
        starts: &HashMap<Labels, TimestampMs>,
    ) -> Result<Appended, TsdbError> {
        let mut total = Appended::default();
        let mut refused = None;
        let mut table = self.groups.lock().await;
        for chunk in samples.chunks(ROWS_PER_APPEND_MAX) {
            if table.len() + chunk.len() > SERIES_CACHE_ENTRIES_MAX {
                table.clear();
            }
            let appended = self.write_chunk(&mut table, chunk, starts, &mut refused).await?;
            add(&mut total, &appended);
        }
        refused.map_or(Ok(total), Err)
    }

    async fn write_chunk(
        &self,
        table: &mut HashMap<Labels, Group>,
        chunk: &[LoneSample],
        starts: &HashMap<Labels, TimestampMs>,
        refused: &mut Option<TsdbError>,
    ) -> Result<Appended, TsdbError> {
        // Groups leave the table while they are appended to, since the appender wants them one by one.
        let mut positions: HashMap<&Labels, usize> = HashMap::default();
        let mut groups: Vec<Group> = Vec::with_capacity(chunk.len());
        let mut cells: Vec<(usize, TimestampMs, [f64; 2])> = Vec::with_capacity(chunk.len());
        for sample in chunk {
            let start_ms = starts.get(&sample.labels).copied();
            let position = match positions.get(&sample.labels) {
                Some(&position) => position,
                None => {
                    let known = table.remove(&sample.labels);
                    let group = match self.group(&sample.labels, known, start_ms.is_some()) {
                        Ok(group) => group,
                        Err(error @ TsdbError::TooManySeries { .. }) => {
                            *refused = Some(error);
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    groups.push(group);
                    positions.insert(&sample.labels, groups.len() - 1);
                    groups.len() - 1
                }
            };
            let start = starts::cell(start_ms.unwrap_or(0), sample.timestamp_ms);
            cells.push((position, sample.timestamp_ms, [sample.value, start]));
        }
        let rows: Vec<PlannedRow<'_>> = cells
            .iter()
            .filter_map(|&(group, timestamp_ms, ref cells)| {
                let width = groups.get(group)?.columns().len();
                Some(PlannedRow { group, timestamp_ms, values: cells.get(..width)? })
            })
            .collect();
        let mut borrowed: Vec<&mut Group> = groups.iter_mut().collect();
        let outcome = self.appender.append(&mut borrowed, &rows, None, self.source).await;
        for group in groups {
            if let Some(labels) = group.columns().first() {
                table.insert(labels.clone(), group);
            }
        }
        outcome
    }
}

impl SeriesWriter {
    /// The group of a series: the known one, if it has a place for start timestamps or none is wanted.
    fn group(&self, labels: &Labels, known: Option<Group>, with_start: bool) -> Result<Group, TsdbError> {
        let serves = |group: &Group| !with_start || group.columns().len() > 1;
        match known {
            Some(group) if serves(&group) => return Ok(group),
            None if !with_start => return self.appender.define(Arc::from([labels.clone()])),
            _ => {}
        }
        match self.appender.try_define(Arc::from([labels.clone(), starts::column(labels)])) {
            // Rather without start timestamps than not at all.
            Err(TsdbError::TooManySeries { .. }) => match known {
                Some(group) => Ok(group),
                None => self.appender.define(Arc::from([labels.clone()])),
            },
            outcome => outcome,
        }
    }
}

/// Adds what became of one commit to a total; the commit becomes the later one.
pub fn add(total: &mut Appended, appended: &Appended) {
    total.commit = total.commit.max(appended.commit);
    total.samples += appended.samples;
    total.late += appended.late;
    total.duplicates += appended.duplicates;
    total.too_old += appended.too_old;
    total.too_new += appended.too_new;
}
