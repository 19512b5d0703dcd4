//! Which series and groups the head knows.

use super::group::Group;
use super::guard::Guard;
use crate::error::TsdbError;
use crate::hidden;
use crate::postings::Postings;
use crate::row::GroupId;
use crate::starts;
use pharos_common::labels::Labels;
use roaring::RoaringBitmap;
use std::collections::HashMap;
use std::sync::Arc;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Series by labels, groups by their columns, and the index over both.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    series: Vec<Option<HeadSeries>>,
    /// Numbers of closed series, to be used again.
    free: Vec<u32>,
    by_labels: FastMap<Labels, u32>,
    groups: Vec<Option<Arc<Group>>>,
    by_columns: FastMap<Box<[u32]>, GroupId>,
    postings: Postings,
    label_bytes: usize,
    /// Series that stand for nothing by themselves: parts of histograms, columns of start timestamps.
    uncounted: RoaringBitmap,
    group_bytes: usize,
}

/// What a series costs beside its labels' bytes: the allocation of them, its places in the table and in the
/// list (with the room that growing ones leave), and the list of its columns.
const SERIES_BYTES: usize = 190;

/// Where a series' samples are: a group and the column in it.
pub(crate) type Location = (GroupId, u16);

/// A series of the head.
#[derive(Debug)]
pub(crate) struct HeadSeries {
    pub(crate) labels: Labels,
    /// The columns it has been: one, or several when its group's columns changed.
    pub(crate) locations: Vec<Location>,
}

impl Registry {
    pub(crate) fn find_group(&self, columns: &[Labels]) -> Option<GroupId> {
        let columns: Option<Box<[u32]>> =
            columns.iter().map(|labels| self.by_labels.get(labels).copied()).collect();
        self.by_columns.get(&columns?).copied()
    }

    /// Those of the series that are new.
    pub(crate) fn unknown<'a>(&self, columns: &'a [Labels]) -> Vec<&'a Labels> {
        columns.iter().filter(|labels| !self.by_labels.contains_key(*labels)).collect()
    }

    pub(crate) fn define_group(&mut self, columns: &[Labels], guard: &Guard) -> Result<GroupId, TsdbError> {
        // Somebody may have defined it between the read lock and the write lock.
        if let Some(id) = self.find_group(columns) {
            return Ok(id);
        }
        guard.check(self, &self.unknown(columns))?;
        let id = GroupId(self.groups.len() as u32);
        let numbers: Box<[u32]> = columns
            .iter()
            .enumerate()
            .map(|(column, labels)| {
                let number = self.intern(labels);
                if let Some(Some(series)) = self.series.get_mut(number as usize) {
                    series.locations.push((id, column as u16));
                }
                number
            })
            .collect();
        self.group_bytes += Group::fixed_bytes(numbers.len());
        let starts = columns.iter().enumerate().filter(|(_, labels)| starts::is_column(labels));
        let starts = starts.map(|(column, _)| column as u16).collect();
        self.groups.push(Some(Arc::new(Group::new(numbers.clone(), starts))));
        self.by_columns.insert(numbers, id);
        Ok(id)
    }

    fn intern(&mut self, labels: &Labels) -> u32 {
        if let Some(&number) = self.by_labels.get(labels) {
            return number;
        }
        let entry = HeadSeries { labels: labels.clone(), locations: Vec::with_capacity(1) };
        let number = match self.free.pop() {
            Some(number) => {
                self.series[number as usize] = Some(entry);
                number
            }
            None => {
                self.series.push(Some(entry));
                self.series.len() as u32 - 1
            }
        };
        self.by_labels.insert(labels.clone(), number);
        self.postings.insert(number, labels);
        self.label_bytes += labels.as_bytes().len();
        if hidden::is_uncounted(labels) {
            self.uncounted.insert(number);
        }
        number
    }

    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Group>> {
        self.groups.get(id.0 as usize)?.clone()
    }

    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupId, Arc<Group>)> {
        self.groups
            .iter()
            .enumerate()
            .filter_map(|(id, group)| Some((GroupId(id as u32), Arc::clone(group.as_ref()?))))
    }

    pub(crate) fn series(&self, number: u32) -> Option<&HeadSeries> {
        self.series.get(number as usize)?.as_ref()
    }

    /// All series with their numbers.
    pub(crate) fn all_series(&self) -> impl Iterator<Item = (u32, &HeadSeries)> {
        self.series.iter().enumerate().filter_map(|(number, series)| Some((number as u32, series.as_ref()?)))
    }

    pub(crate) fn postings(&self) -> &Postings {
        &self.postings
    }

    /// Series as others count them: a histogram is one.
    pub(crate) fn series_count(&self) -> usize {
        self.by_labels.len() - self.uncounted.len() as usize
    }

    /// Those with this value of a label.
    pub(crate) fn count(&self, label: &str, value: &str) -> u64 {
        self.postings.count_without(label, value, &self.uncounted)
    }

    /// Series that [`Registry::series_count`] leaves out.
    pub(crate) fn uncounted(&self) -> &RoaringBitmap {
        &self.uncounted
    }

    pub(crate) fn group_count(&self) -> usize {
        self.by_columns.len()
    }

    /// Bytes in memory, about: labels, maps, postings and groups without their rows.
    pub(crate) fn memory_bytes(&self) -> usize {
        let series = self.label_bytes + self.by_labels.len() * SERIES_BYTES;
        series + self.postings.memory_bytes() + self.group_bytes + self.groups.len() * 8
    }

    /// Closes idle groups, then series that have neither a group nor (as `keep` says) late samples.
    pub(crate) fn close_groups(&mut self, idle: impl Fn(&Group) -> bool, keep: impl Fn(u32) -> bool) {
        let mut candidates = Vec::new();
        for (number, slot) in self.groups.iter_mut().enumerate() {
            let Some(group) = slot.take_if(|group| idle(group)) else { continue };
            self.by_columns.remove(&group.columns);
            self.group_bytes -= Group::fixed_bytes(group.columns.len());
            for &series in &group.columns {
                if let Some(Some(series)) = self.series.get_mut(series as usize) {
                    series.locations.retain(|(id, _)| id.0 as usize != number);
                }
            }
            candidates.extend_from_slice(&group.columns);
        }
        for number in candidates {
            let Some(slot) = self.series.get_mut(number as usize) else { continue };
            let Some(series) = slot.take_if(|series| series.locations.is_empty() && !keep(number)) else {
                continue;
            };
            self.by_labels.remove(&series.labels);
            self.postings.remove(number, &series.labels);
            self.label_bytes -= series.labels.as_bytes().len();
            self.uncounted.remove(number);
            self.free.push(number);
        }
    }
}
