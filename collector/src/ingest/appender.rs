//! The one way to the storage engine: rows in, and the values that threshold rules watch handed on.
//!
//! A [`Group`] remembers beside the engine's id what its columns are and which of them are watched, so
//! appending a tick neither hashes nor compares labels. A group that the engine closed for being idle is
//! defined again on the way.

use crate::metrics::Metrics;
use crate::rules::watch::{Arrived, ArrivedRow, GroupInterest, WatchIndex};
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{AppendBatch, Appended, CommitNumber, Database, GroupId, Row, StreamMark, TsdbError};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Rounds of defining groups again before giving up: the engine closes groups rarely.
const REDEFINE_ROUNDS_MAX: usize = 3;

/// Through which door samples came.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// An agent's stream.
    Stream,
    /// Remote write.
    RemoteWrite,
    /// Text import.
    Text,
    /// Rules and the collector itself.
    Derived,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Source::Stream => "stream",
            Source::RemoteWrite => "remote_write",
            Source::Text => "text",
            Source::Derived => "derived",
        }
    }
}

/// A group of series as ingest knows it.
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    columns: Arc<[Labels]>,
    interest: Option<Arc<GroupInterest>>,
    generation: u64,
}

impl Group {
    /// Which of them threshold rules watch.
    pub fn interest(&self) -> Option<&Arc<GroupInterest>> {
        self.interest.as_ref()
    }

    /// What its columns are, in order.
    pub fn columns(&self) -> &Arc<[Labels]> {
        &self.columns
    }
}

/// A row to append, by its group's position in the slice given to [`Appender::append`].
#[derive(Clone, Copy, Debug)]
pub struct PlannedRow<'a> {
    /// Which group.
    pub group: usize,
    /// When it was read.
    pub timestamp_ms: TimestampMs,
    /// One value per column.
    pub values: &'a [f64],
}

/// Appends rows. Clones share everything.
#[derive(Clone, Debug)]
pub struct Appender {
    database: Database,
    watch: WatchIndex,
    arrivals: mpsc::Sender<Arrived>,
    metrics: Arc<Metrics>,
}

impl Appender {
    /// Puts it together.
    pub fn new(
        database: Database,
        watch: WatchIndex,
        arrivals: mpsc::Sender<Arrived>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Appender { database, watch, arrivals, metrics }
    }

    /// The engine underneath.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Defines a group of series.
    ///
    /// # Errors
    /// What the engine says.
    pub fn define(&self, columns: Arc<[Labels]>) -> Result<Group, TsdbError> {
        let id = self.database.define_group(&columns)?;
        Ok(self.group(id, columns))
    }

    /// The same for somebody who tries one by one what is refused together: a refusal is not counted.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_define(&self, columns: Arc<[Labels]>) -> Result<Group, TsdbError> {
        let id = self.database.try_define_group(&columns)?;
        Ok(self.group(id, columns))
    }

    fn group(&self, id: GroupId, columns: Arc<[Labels]>) -> Group {
        let (generation, interest) = self.watch.interest(&columns);
        Group { id, columns, interest, generation }
    }

    /// Appends rows in one commit. They can be read when this returns, and are durable when the commit is.
    ///
    /// Waits only when the rules cannot keep up.
    ///
    /// # Errors
    /// What the engine says; nothing of the batch is stored then.
    pub async fn append(
        &self,
        groups: &mut [&mut Group],
        rows: &[PlannedRow<'_>],
        mark: Option<StreamMark>,
        source: Source,
    ) -> Result<Appended, TsdbError> {
        let (appended, arrived) = self.append_now(groups, rows, mark, source)?;
        if let Some(arrived) = arrived {
            // The judge is gone only at shutdown.
            let _ = self.arrivals.send(arrived).await;
        }
        Ok(appended)
    }

    fn append_now(
        &self,
        groups: &mut [&mut Group],
        rows: &[PlannedRow<'_>],
        mark: Option<StreamMark>,
        source: Source,
    ) -> Result<(Appended, Option<Arrived>), TsdbError> {
        let generation = self.watch.generation();
        for group in groups.iter_mut().filter(|group| group.generation != generation) {
            (group.generation, group.interest) = self.watch.interest(&group.columns);
        }
        let appended = self.append_defined(groups, rows, mark)?;
        self.count(&appended, source);
        let arrived = (!appended.repeated).then(|| gather(groups, rows, appended.commit)).flatten();
        Ok((appended, arrived))
    }

    fn append_defined(
        &self,
        groups: &mut [&mut Group],
        rows: &[PlannedRow<'_>],
        mark: Option<StreamMark>,
    ) -> Result<Appended, TsdbError> {
        let mut round = 0;
        loop {
            let resolved: Vec<Row<'_>> = rows
                .iter()
                .filter_map(|row| {
                    let group = groups.get(row.group)?;
                    Some(Row { group: group.id, timestamp_ms: row.timestamp_ms, values: row.values })
                })
                .collect();
            match self.database.append(&AppendBatch { rows: &resolved, mark }) {
                Err(TsdbError::UnknownGroup(_)) if round < REDEFINE_ROUNDS_MAX => {
                    round += 1;
                    for group in groups.iter_mut() {
                        group.id = self.database.define_group(&group.columns)?;
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn count(&self, appended: &Appended, source: Source) {
        self.metrics.samples.with_label_values(&[source.as_str()]).inc_by(appended.samples);
        let refused = |reason: &str, count: u64| {
            if count > 0 {
                self.metrics.samples_refused.with_label_values(&[reason]).inc_by(count);
            }
        };
        refused("duplicate", appended.duplicates);
        refused("too_old", appended.too_old);
        refused("too_new", appended.too_new);
    }
}

/// The values of watched columns; `None` if there are none.
fn gather(groups: &[&mut Group], rows: &[PlannedRow<'_>], commit: CommitNumber) -> Option<Arrived> {
    let mut arrived = Arrived { rows: Vec::new(), values: Vec::new(), at: Instant::now(), commit };
    for row in rows {
        let Some(interest) = groups.get(row.group).and_then(|group| group.interest.as_ref()) else {
            continue;
        };
        arrived.rows.push(ArrivedRow {
            interest: Arc::clone(interest),
            timestamp_ms: row.timestamp_ms,
            first_value: arrived.values.len(),
        });
        let value = |position: &usize| row.values.get(*position).copied().unwrap_or(pharos_tsdb::ABSENT);
        arrived.values.extend(interest.columns.iter().map(|(position, _)| value(position)));
    }
    (!arrived.rows.is_empty()).then_some(arrived)
}
