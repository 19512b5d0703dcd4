//! Series that arrive one by one: each is a group of one, kept at hand under its labels.
//!
//! Rules and the collector's own series come through here. What was not written for a while is
//! dropped from the table when it is full; the engine gives the same group again when asked.

use super::appender::{Appender, Group, PlannedRow, Source};
use crate::limits::{ROWS_PER_APPEND_MAX, SERIES_CACHE_ENTRIES_MAX};
use foldhash::HashMap;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Appended, Database, TsdbError};
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
        let mut total = Appended::default();
        let mut refused = None;
        let mut table = self.groups.lock().await;
        for chunk in samples.chunks(ROWS_PER_APPEND_MAX) {
            if table.len() + chunk.len() > SERIES_CACHE_ENTRIES_MAX {
                table.clear();
            }
            let appended = self.write_chunk(&mut table, chunk, &mut refused).await?;
            add(&mut total, &appended);
        }
        refused.map_or(Ok(total), Err)
    }

    async fn write_chunk(
        &self,
        table: &mut HashMap<Labels, Group>,
        chunk: &[LoneSample],
        refused: &mut Option<TsdbError>,
    ) -> Result<Appended, TsdbError> {
        // Groups leave the table while they are appended to, since the appender wants them one by one.
        let mut positions: HashMap<&Labels, usize> = HashMap::default();
        let mut groups: Vec<Group> = Vec::with_capacity(chunk.len());
        let mut rows = Vec::with_capacity(chunk.len());
        for sample in chunk {
            let position = match positions.get(&sample.labels) {
                Some(&position) => position,
                None => {
                    let group = match table.remove(&sample.labels) {
                        Some(group) => group,
                        None => match self.appender.define(Arc::from([sample.labels.clone()])) {
                            Ok(group) => group,
                            Err(error @ TsdbError::TooManySeries { .. }) => {
                                *refused = Some(error);
                                continue;
                            }
                            Err(error) => return Err(error),
                        },
                    };
                    groups.push(group);
                    positions.insert(&sample.labels, groups.len() - 1);
                    groups.len() - 1
                }
            };
            rows.push(PlannedRow {
                group: position,
                timestamp_ms: sample.timestamp_ms,
                values: std::slice::from_ref(&sample.value),
            });
        }
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

/// Adds what became of one commit to a total; the commit becomes the later one.
pub fn add(total: &mut Appended, appended: &Appended) {
    total.commit = total.commit.max(appended.commit);
    total.samples += appended.samples;
    total.late += appended.late;
    total.duplicates += appended.duplicates;
    total.too_old += appended.too_old;
    total.too_new += appended.too_new;
}
