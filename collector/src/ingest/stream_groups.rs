//! The groups of one agent's stream: definitions in, rows to append out, and what is overdue.
//!
//! This outlives a connection: when an agent goes silent its series still have to get stale markers, and
//! when it comes back with fewer columns the missing ones too.

use super::appender::{Appender, Group, PlannedRow, Source};
use super::label_rules::{LabelFault, checked_labels};
use super::pick::pick_mut;
use crate::limits::{HELP_BYTES_MAX, MISSED_INTERVALS_MAX, MISSED_TIME_MIN, STREAM_GROUPS_MAX};
use foldhash::HashMap;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::{STALE_NAN, TimestampMs};
use pharos_proto::v1;
use pharos_tsdb::{ABSENT, Appended, CommitNumber, Metadata, MetricKind, StreamMark, TsdbError};
use std::sync::Arc;
use std::time::Duration;

/// Most columns of a group, as the protocol says.
const COLUMNS_MAX: usize = 256;
/// Column ids lie below this, as the protocol says.
const COLUMN_IDS_MAX: u32 = 65_536;
/// A group that the engine refused is tried again after this time.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// What an agent may not say.
#[derive(Debug, thiserror::Error)]
pub enum StreamFault {
    /// A definition that makes no sense.
    #[error("group {group}: {message}")]
    Definition {
        /// The agent's number of the group.
        group: u32,
        /// What is wrong.
        message: String,
    },
    /// Labels that are not taken.
    #[error("group {group}: {source}")]
    Labels {
        /// The agent's number of the group.
        group: u32,
        /// What is wrong.
        #[source]
        source: LabelFault,
    },
    /// A reading of a group that was not defined on this connection.
    #[error("group {0} was not defined on this connection")]
    Undefined(u32),
    /// A reading whose bytes do not fit its group.
    #[error("reading of group {group}: {message}")]
    Reading {
        /// The agent's number of the group.
        group: u32,
        /// What is wrong.
        message: String,
    },
    /// The engine refuses.
    #[error(transparent)]
    Storage(#[from] TsdbError),
}

fn definition(group: u32, message: impl Into<String>) -> StreamFault {
    StreamFault::Definition { group, message: message.into() }
}

fn reading_fault(group: u32, message: impl Into<String>) -> StreamFault {
    StreamFault::Reading { group, message: message.into() }
}

#[derive(Debug)]
struct StreamGroup {
    /// The agent's number of it.
    number: u32,
    shared: Vec<(String, String)>,
    column_ids: Vec<u32>,
    labels: Vec<Labels>,
    /// `None` while the engine refuses it (limit of series).
    group: Option<Group>,
    refused_at: Option<Duration>,
    /// Newest timestamp read.
    newest_ms: Option<TimestampMs>,
    /// When the last live reading came, on the monotonic clock.
    arrived: Option<Duration>,
    interval_ms: u32,
    /// Whether the series carry stale markers now.
    stale: bool,
    /// Defined on the connection that is open now.
    current: bool,
}

/// How a stream's node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// When the last live reading came, on the monotonic clock.
    pub arrived: Duration,
    /// Time without a reading after which the node counts as gone.
    pub patience: Duration,
}

/// All groups of one stream.
#[derive(Debug, Default)]
pub struct StreamGroups {
    positions: HashMap<u32, usize>,
    groups: Vec<StreamGroup>,
    /// Of the newest frame stored since the collector started.
    newest_commit: Option<CommitNumber>,
}

impl StreamGroups {
    /// A new connection begins: every group must be defined again before it is read.
    pub fn begin_connection(&mut self) {
        for group in &mut self.groups {
            group.current = false;
        }
    }

    /// Takes a definition. Columns that the group had and has no more get a stale marker.
    ///
    /// # Errors
    /// If the definition makes no sense or the engine fails.
    pub async fn define(
        &mut self,
        appender: &Appender,
        message: v1::DefineGroup,
        now: Duration,
    ) -> Result<(), StreamFault> {
        let number = message.group;
        let shared: Vec<(String, String)> =
            message.labels.into_iter().map(|label| (label.name, label.value)).collect();
        let mut column_ids = Vec::with_capacity(message.columns.len());
        let mut labels = Vec::with_capacity(message.columns.len());
        for column in &message.columns {
            column_ids.push(column.id);
            labels.push(column_labels(number, &shared, column)?);
        }
        remember_metadata(appender, &message.columns);
        self.put(appender, number, shared, column_ids, labels, now).await
    }

    /// Takes a change of columns.
    ///
    /// # Errors
    /// If the group is not defined, the change makes no sense, or the engine fails.
    pub async fn alter(
        &mut self,
        appender: &Appender,
        message: v1::AlterGroup,
        now: Duration,
    ) -> Result<(), StreamFault> {
        let number = message.group;
        let position = self.current_position(number)?;
        let old = &self.groups[position];
        let shared = old.shared.clone();
        let mut column_ids = Vec::new();
        let mut labels = Vec::new();
        for (id, known) in old.column_ids.iter().zip(&old.labels) {
            if !message.remove.contains(id) {
                column_ids.push(*id);
                labels.push(known.clone());
            }
        }
        if old.column_ids.len() - column_ids.len() != message.remove.len() {
            return Err(definition(number, "a column to remove is not there"));
        }
        for column in &message.add {
            column_ids.push(column.id);
            labels.push(column_labels(number, &shared, column)?);
        }
        remember_metadata(appender, &message.add);
        self.put(appender, number, shared, column_ids, labels, now).await
    }

    fn current_position(&self, number: u32) -> Result<usize, StreamFault> {
        self.positions
            .get(&number)
            .copied()
            .filter(|&position| self.groups[position].current)
            .ok_or(StreamFault::Undefined(number))
    }

    async fn put(
        &mut self,
        appender: &Appender,
        number: u32,
        shared: Vec<(String, String)>,
        column_ids: Vec<u32>,
        labels: Vec<Labels>,
        now: Duration,
    ) -> Result<(), StreamFault> {
        check_columns(number, &column_ids, &labels)?;
        let position = self.positions.get(&number).copied();
        if let Some(position) = position {
            let old = &mut self.groups[position];
            if old.labels == labels && old.group.is_some() {
                old.column_ids = column_ids;
                old.shared = shared;
                old.current = true;
                return Ok(());
            }
            end_missing_columns(appender, old, &labels).await?;
        } else if self.groups.len() >= STREAM_GROUPS_MAX {
            return Err(definition(number, format!("a stream has at most {STREAM_GROUPS_MAX} groups")));
        }
        let group = match define_or_refuse(appender, &labels) {
            Ok(group) => group,
            Err(error) => return Err(error.into()),
        };
        let (newest_ms, arrived, interval_ms) = position
            .map(|position| &self.groups[position])
            .map_or((None, None, 0), |old| (old.newest_ms, old.arrived, old.interval_ms));
        let refused_at = group.is_none().then_some(now);
        let fresh = StreamGroup {
            number,
            shared,
            column_ids,
            labels,
            group,
            refused_at,
            newest_ms,
            arrived,
            interval_ms,
            stale: false,
            current: true,
        };
        match position {
            Some(position) => self.groups[position] = fresh,
            None => {
                self.positions.insert(number, self.groups.len());
                self.groups.push(fresh);
            }
        }
        Ok(())
    }

    /// Stores a tick in one commit. Says also how many samples were left out since the engine refuses
    /// their series.
    ///
    /// # Errors
    /// If a reading does not fit its group or the engine fails; nothing is stored then.
    pub async fn append(
        &mut self,
        appender: &Appender,
        readings: &[v1::Reading],
        mark: StreamMark,
        live: bool,
        now: Duration,
    ) -> Result<(Appended, usize), StreamFault> {
        let mut left_out = 0;
        let mut values: Vec<f64> = Vec::new();
        // Position of the group, timestamp, where the values lie.
        let mut planned: Vec<(usize, TimestampMs, std::ops::Range<usize>)> =
            Vec::with_capacity(readings.len());
        for reading in readings {
            let position = self.current_position(reading.group)?;
            let group = &mut self.groups[position];
            let first = values.len();
            unpack(reading, group.labels.len(), &mut values)?;
            if group.group.is_none() {
                retry_refused(appender, group, now)?;
            }
            if group.group.is_none() {
                left_out += values.len() - first;
                values.truncate(first);
                continue;
            }
            planned.push((position, reading.timestamp_ms, first..values.len()));
        }
        let mut positions: Vec<usize> = planned.iter().map(|(position, ..)| *position).collect();
        positions.sort_unstable();
        positions.dedup();
        let rows: Vec<PlannedRow<'_>> = planned
            .iter()
            .filter_map(|(position, timestamp_ms, range)| {
                Some(PlannedRow {
                    group: positions.binary_search(position).ok()?,
                    timestamp_ms: *timestamp_ms,
                    values: values.get(range.clone())?,
                })
            })
            .collect();
        let mut picked = pick_mut(&mut self.groups, &positions);
        let mut borrowed: Vec<&mut Group> =
            picked.iter_mut().filter_map(|group| group.group.as_mut()).collect();
        let appended = appender.append(&mut borrowed, &rows, Some(mark), Source::Stream).await?;
        if !appended.repeated {
            self.newest_commit = Some(appended.commit);
        }
        for reading in readings {
            let Some(&position) = self.positions.get(&reading.group) else { continue };
            let group = &mut self.groups[position];
            group.newest_ms = group.newest_ms.max(Some(reading.timestamp_ms));
            if live {
                group.arrived = Some(now);
                group.interval_ms = reading.interval_ms;
                group.stale = false;
            }
        }
        Ok((appended, left_out))
    }

    /// What must be durable for all of the stream's frames to be. `None` if none came since the start.
    pub fn newest_commit(&self) -> Option<CommitNumber> {
        self.newest_commit
    }

    /// How the node of this stream does, by the group that promises the most.
    pub fn freshness(&self) -> Option<Freshness> {
        let arrived = self.groups.iter().filter_map(|group| group.arrived).max()?;
        let interval_ms =
            self.groups.iter().map(|group| group.interval_ms).filter(|&interval| interval > 0).min()?;
        Some(Freshness { arrived, patience: patience(interval_ms) })
    }

    /// Writes stale markers for the groups whose promised interval passed without a reading.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn end_overdue(
        &mut self,
        appender: &Appender,
        now: Duration,
        now_ms: TimestampMs,
    ) -> Result<usize, TsdbError> {
        let positions: Vec<usize> = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| {
                let overdue = group
                    .arrived
                    .is_some_and(|arrived| now.saturating_sub(arrived) > patience(group.interval_ms));
                overdue && !group.stale && group.interval_ms > 0 && group.group.is_some()
            })
            .map(|(position, _)| position)
            .collect();
        if positions.is_empty() {
            return Ok(0);
        }
        let markers = [STALE_NAN; COLUMNS_MAX];
        let mut picked = pick_mut(&mut self.groups, &positions);
        let rows: Vec<PlannedRow<'_>> = picked
            .iter()
            .enumerate()
            .map(|(group, of)| PlannedRow {
                group,
                timestamp_ms: now_ms.max(of.newest_ms.map_or(now_ms, |newest| newest + 1)),
                values: &markers[..of.labels.len().min(COLUMNS_MAX)],
            })
            .collect();
        let mut borrowed: Vec<&mut Group> =
            picked.iter_mut().filter_map(|group| group.group.as_mut()).collect();
        appender.append(&mut borrowed, &rows, None, Source::Derived).await?;
        for group in picked {
            group.stale = true;
        }
        Ok(positions.len())
    }

    /// Counts changes of the urgency of watched series; whoever sees the same number twice missed none.
    pub(crate) fn urgency_changes(&self) -> u64 {
        let interests = self.groups.iter().filter_map(|group| group.group.as_ref()?.interest());
        let firsts = interests.filter_map(|interest| interest.columns.first());
        firsts.fold(0, |sum, (_, series)| sum.wrapping_add(series.urgency.node().changes()))
    }

    /// Calls `visit` with the agent's numbers of group and column and the urgency of every watched series.
    pub(crate) fn for_each_urgency(&self, mut visit: impl FnMut(u32, u32, u8)) {
        for group in self.groups.iter().filter(|group| group.current) {
            let Some(interest) = group.group.as_ref().and_then(Group::interest) else { continue };
            for (position, series) in &interest.columns {
                if let Some(column) = group.column_ids.get(*position) {
                    visit(group.number, *column, series.urgency.level());
                }
            }
        }
    }

    /// Number of series defined.
    pub fn series(&self) -> usize {
        self.groups.iter().map(|group| group.labels.len()).sum()
    }

    /// The agent's numbers of all groups, for tests and status pages.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.groups.iter().map(|group| group.number)
    }
}

/// How long a series may be silent that was promised every `interval_ms`.
pub fn patience(interval_ms: u32) -> Duration {
    (Duration::from_millis(u64::from(interval_ms)) * MISSED_INTERVALS_MAX).max(MISSED_TIME_MIN)
}

fn define_or_refuse(appender: &Appender, labels: &[Labels]) -> Result<Option<Group>, TsdbError> {
    match appender.define(Arc::from(labels)) {
        Ok(group) => Ok(Some(group)),
        Err(TsdbError::TooManySeries { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn retry_refused(appender: &Appender, group: &mut StreamGroup, now: Duration) -> Result<(), TsdbError> {
    if group.refused_at.is_none_or(|at| now.saturating_sub(at) >= REFUSED_RETRY) {
        group.group = define_or_refuse(appender, &group.labels)?;
        group.refused_at = Some(now);
    }
    Ok(())
}

/// Columns that are gone end with a stale marker just after their group's newest reading.
async fn end_missing_columns(
    appender: &Appender,
    old: &mut StreamGroup,
    now_there: &[Labels],
) -> Result<(), TsdbError> {
    let (Some(group), Some(newest_ms)) = (old.group.as_mut(), old.newest_ms) else { return Ok(()) };
    let values: Vec<f64> =
        old.labels.iter().map(|labels| if now_there.contains(labels) { ABSENT } else { STALE_NAN }).collect();
    if old.stale || values.iter().all(|value| pharos_tsdb::is_absent(*value)) {
        return Ok(());
    }
    let row = PlannedRow { group: 0, timestamp_ms: newest_ms + 1, values: &values };
    appender.append(&mut [group], &[row], None, Source::Derived).await?;
    Ok(())
}

fn check_columns(number: u32, column_ids: &[u32], labels: &[Labels]) -> Result<(), StreamFault> {
    if labels.is_empty() || labels.len() > COLUMNS_MAX {
        return Err(definition(
            number,
            format!("a group has 1 to {COLUMNS_MAX} columns, not {}", labels.len()),
        ));
    }
    let mut ids = std::collections::HashSet::new();
    for id in column_ids {
        if *id >= COLUMN_IDS_MAX {
            return Err(definition(number, format!("column id {id} is not below {COLUMN_IDS_MAX}")));
        }
        if !ids.insert(id) {
            return Err(definition(number, format!("column id {id} is used twice")));
        }
    }
    let mut seen = std::collections::HashSet::new();
    match labels.iter().find(|labels| !seen.insert(*labels)) {
        Some(twice) => Err(definition(number, format!("two columns are the same series {twice}"))),
        None => Ok(()),
    }
}

fn column_labels(
    number: u32,
    shared: &[(String, String)],
    column: &v1::Column,
) -> Result<Labels, StreamFault> {
    let own = |name: &str| column.labels.iter().any(|label| label.name == name);
    let shared = shared
        .iter()
        .filter(|(name, _)| name != METRIC_NAME && !own(name))
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let own = column
        .labels
        .iter()
        .filter(|label| label.name != METRIC_NAME)
        .map(|label| (label.name.as_str(), label.value.as_str()));
    let name = std::iter::once((METRIC_NAME, column.name.as_str()));
    checked_labels(shared.chain(own).chain(name))
        .map_err(|source| StreamFault::Labels { group: number, source })
}

fn remember_metadata(appender: &Appender, columns: &[v1::Column]) {
    for column in columns {
        let kind = match column.r#type() {
            v1::MetricType::Unknown => MetricKind::Unknown,
            v1::MetricType::Counter => MetricKind::Counter,
            v1::MetricType::Gauge => MetricKind::Gauge,
            v1::MetricType::Histogram => MetricKind::Histogram,
            v1::MetricType::Summary => MetricKind::Summary,
            v1::MetricType::Info => MetricKind::Info,
        };
        if kind == MetricKind::Unknown && column.help.is_empty() && column.unit.is_empty() {
            continue;
        }
        let help = shortened(&column.help, HELP_BYTES_MAX).to_owned();
        let unit = shortened(&column.unit, 64).to_owned();
        appender.database().set_metadata(&column.name, Metadata { kind, unit, help });
    }
}

/// The text, cut at a character boundary.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Appends one value per column to `out`.
fn unpack(reading: &v1::Reading, columns: usize, out: &mut Vec<f64>) -> Result<(), StreamFault> {
    let (packed, remainder) = reading.values.as_chunks::<8>();
    if !remainder.is_empty() {
        return Err(reading_fault(reading.group, "values are not whole doubles"));
    }
    let mut packed = packed.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let count = packed.len();
    let fault = || reading_fault(reading.group, format!("{count} values for a group of {columns} columns"));
    if reading.present.is_empty() {
        if count != columns {
            return Err(fault());
        }
        out.extend(packed);
        return Ok(());
    }
    if reading.present.len() != columns.div_ceil(8) {
        return Err(reading_fault(reading.group, "the presence bitmap has another length than the columns"));
    }
    for column in 0..columns {
        let present = reading.present[column / 8] >> (column % 8) & 1 == 1;
        out.push(if present { packed.next().ok_or_else(fault)? } else { ABSENT });
    }
    let padding = columns.next_multiple_of(8) - columns;
    let last = reading.present.last().copied().unwrap_or(0);
    if packed.next().is_some() || (padding > 0 && last >> (8 - padding) != 0) {
        return Err(fault());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(present: &[u8], values: &[f64], columns: usize, want: Option<&[Option<f64>]>) {
        let reading = v1::Reading {
            present: present.to_vec().into(),
            values: values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
            ..v1::Reading::default()
        };
        let mut out = Vec::new();
        let got = unpack(&reading, columns, &mut out)
            .ok()
            .map(|()| out.iter().map(|&v| (!pharos_tsdb::is_absent(v)).then_some(v)).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), want);
    }

    #[test]
    fn readings_are_unpacked_by_their_bitmap() {
        check(&[], &[1.0, 2.0], 2, Some(&[Some(1.0), Some(2.0)]));
        check(&[0b10], &[2.0], 2, Some(&[None, Some(2.0)]));
        check(&[0b0], &[], 2, Some(&[None, None]));
    }

    #[test]
    fn readings_that_do_not_fit_are_refused() {
        check(&[], &[1.0], 2, None);
        check(&[0b11], &[1.0], 2, None);
        check(&[0b01], &[1.0, 2.0], 2, None);
        check(&[0b111], &[1.0, 2.0, 3.0], 2, None);
        check(&[0b11, 0], &[1.0, 2.0], 2, None);
    }

    #[test]
    fn patience_is_a_few_intervals_but_spares_a_restart() {
        assert_eq!(patience(1_000), Duration::from_secs(5));
        assert_eq!(patience(60_000), Duration::from_secs(180));
    }
}
