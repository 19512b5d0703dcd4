//! A group of series in memory: open rows, newest last, and sealed pages before them.

use super::page::{PAGE_ROWS, Page};
use crate::codec::row_model::RowModel;
use crate::row::is_absent;
use pharos_common::sample::{Sample, TimestampMs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A fixed list of series that share every timestamp. Other columns are another group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Head series of each column.
    pub(crate) columns: Box<[u32]>,
    /// Columns of start timestamps, whose cells are no samples.
    starts: Box<[u16]>,
    state: Mutex<GroupState>,
}

/// What changes in a group. The writer holds the lock for one row, readers while they copy.
#[derive(Debug)]
pub(crate) struct GroupState {
    /// What the journal tells the next row against.
    pub(crate) journal_model: RowModel,
    /// The journal epoch in which the group was last defined; 0 for never.
    pub(crate) journal_epoch: u64,
    /// Rows journalled since one was told in full.
    pub(crate) journal_rows: u32,
    /// The journal's era in which a row was last told; 0 for never.
    pub(crate) journal_era: u64,
    /// Rows journalled in that era.
    pub(crate) rows_in_era: u32,
    /// The scope of checkpoints in which the group was last defined; 0 for never.
    pub(crate) checkpoint_scope: u64,
    /// Newest timestamp ever appended, also of rows that were cut into blocks since.
    pub(crate) newest_ms: TimestampMs,
    /// The newest timestamp when somebody looked, and when that was first seen, by the clock.
    looked: (TimestampMs, TimestampMs),
    open_timestamps: Vec<TimestampMs>,
    /// Open rows, one after the other.
    open_values: Vec<f64>,
    pages: Vec<Arc<Page>>,
    /// The first so many pages are in checkpoints.
    pages_covered: usize,
    width: usize,
}

/// What a checkpoint takes of a group.
#[derive(Debug)]
pub(crate) struct GroupCapture {
    /// Pages that no checkpoint has.
    pub(crate) pages: Vec<Arc<Page>>,
    pub(crate) open_timestamps: Vec<TimestampMs>,
    pub(crate) open_values: Vec<f64>,
    /// Rows told since the journal's era asked for began, late ones included.
    pub(crate) rows_in_era: u32,
    pub(crate) newest_ms: TimestampMs,
}

impl Group {
    pub(crate) fn new(columns: Box<[u32]>, starts: Box<[u16]>) -> Self {
        let width = columns.len();
        Group {
            columns,
            starts,
            state: Mutex::new(GroupState {
                journal_model: RowModel::new(width),
                journal_epoch: 0,
                journal_rows: 0,
                journal_era: 0,
                rows_in_era: 0,
                checkpoint_scope: 0,
                newest_ms: TimestampMs::MIN,
                looked: (TimestampMs::MIN, TimestampMs::MIN),
                open_timestamps: Vec::new(),
                open_values: Vec::new(),
                pages: Vec::new(),
                pages_covered: 0,
                width,
            }),
        }
    }

    /// Bytes in memory, about, of a group without rows: itself, its columns in three places, what the journal
    /// expects of them, and its entry in the table of groups.
    pub(crate) fn fixed_bytes(width: usize) -> usize {
        std::mem::size_of::<Group>() + 180 + width * 20 + RowModel::memory_bytes(width)
    }

    /// Samples in a row of the group.
    pub(crate) fn samples_in(&self, values: &[f64]) -> u64 {
        let is_there = |value: &f64| !is_absent(*value);
        let cells = values.iter().filter(|value| is_there(value)).count();
        let of_starts = self.starts.iter().filter_map(|&column| values.get(usize::from(column)));
        (cells - of_starts.filter(|value| is_there(value)).count()) as u64
    }

    /// Whether the cells of a column are samples.
    pub(crate) fn has_samples(&self, column: usize) -> bool {
        self.starts.iter().all(|&starts| usize::from(starts) != column)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupState {
    /// Appends a row that is newer than all before.
    pub(crate) fn push(&mut self, timestamp_ms: TimestampMs, values: &[f64]) {
        debug_assert!(timestamp_ms > self.newest_ms && values.len() == self.width);
        // Sealed only now, so that the newest row can be filled in as long as it is the newest.
        if self.open_timestamps.len() >= PAGE_ROWS {
            self.seal();
        }
        self.open_timestamps.push(timestamp_ms);
        self.open_values.extend_from_slice(values);
        self.newest_ms = timestamp_ms;
    }

    /// The newest row with what it lacks taken from `values`, if it lacks any of it.
    pub(crate) fn filled_last_row(&self, values: &[f64]) -> Option<Vec<f64>> {
        let (_, last) = self.last_row()?;
        let fills = |(have, new): (&f64, &f64)| is_absent(*have) && !is_absent(*new);
        let merged = |(have, new): (&f64, &f64)| if is_absent(*have) { *new } else { *have };
        let is_filled = last.iter().zip(values).any(fills);
        is_filled.then(|| last.iter().zip(values).map(merged).collect())
    }

    /// Puts a row in the place of the newest, which has the same timestamp.
    pub(crate) fn replace_last_row(&mut self, values: &[f64]) {
        let start = self.open_values.len() - self.width;
        self.open_values[start..].copy_from_slice(values);
    }

    /// Turns the open rows into a page.
    fn seal(&mut self) {
        if !self.open_timestamps.is_empty() {
            self.pages.push(Arc::new(Page::seal(&self.open_timestamps, &self.open_values)));
            self.open_timestamps.clear();
            self.open_values.clear();
        }
    }

    /// Turns the open rows into a page if all of them are older than `before_ms`, and frees their memory: a cut
    /// then shares the page instead of copying rows.
    pub(crate) fn seal_before(&mut self, before_ms: TimestampMs) {
        if self.open_timestamps.last().is_some_and(|&last_ms| last_ms < before_ms) {
            self.seal();
            self.open_timestamps.shrink_to_fit();
            self.open_values.shrink_to_fit();
        }
    }

    /// Takes what no checkpoint has. `era` is the journal's.
    pub(crate) fn capture(&self, era: u64) -> GroupCapture {
        GroupCapture {
            pages: self.pages.get(self.pages_covered..).unwrap_or_default().to_vec(),
            open_timestamps: self.open_timestamps.clone(),
            open_values: self.open_values.clone(),
            rows_in_era: if self.journal_era == era { self.rows_in_era } else { 0 },
            newest_ms: self.newest_ms,
        }
    }

    /// So many pages more are in checkpoints now.
    pub(crate) fn cover(&mut self, pages: usize) {
        self.pages_covered = (self.pages_covered + pages).min(self.pages.len());
    }

    /// Adds a page of a checkpoint, of which rows before `before_ms` are in blocks. `None` if it is not
    /// newer than all before.
    pub(crate) fn restore_page(&mut self, page: Page, before_ms: TimestampMs) -> Option<()> {
        if page.first_ms <= self.newest_ms || !self.open_timestamps.is_empty() {
            return None;
        }
        self.newest_ms = page.last_ms;
        if page.first_ms >= before_ms {
            self.pages.push(Arc::new(page));
        } else if page.last_ms >= before_ms {
            self.pages.push(Arc::new(rest_of_page(&page, self.width, before_ms)));
        }
        self.pages_covered = self.pages.len();
        Some(())
    }

    /// Open cells: what a checkpoint has to write again.
    pub(crate) fn open_cells(&self) -> usize {
        self.open_values.len()
    }

    /// The newest row, if it was not cut yet.
    pub(crate) fn last_row(&self) -> Option<(TimestampMs, &[f64])> {
        let timestamp = *self.open_timestamps.last()?;
        Some((timestamp, &self.open_values[self.open_values.len() - self.width..]))
    }

    /// Rows in memory.
    pub(crate) fn rows(&self) -> usize {
        self.open_timestamps.len() + self.pages.iter().map(|page| page.rows()).sum::<usize>()
    }

    /// Oldest timestamp in memory.
    pub(crate) fn oldest_ms(&self) -> Option<TimestampMs> {
        self.pages.first().map(|page| page.first_ms).or_else(|| self.open_timestamps.first().copied())
    }

    /// Bytes in memory, about, of the rows.
    pub(crate) fn row_bytes(&self) -> usize {
        self.pages.iter().map(|page| page.memory_bytes()).sum::<usize>()
            + self.open_values.capacity() * 8
            + self.open_timestamps.capacity() * 8
    }

    /// The newest timestamp, if it was another one in the last `active_ms` by the clock.
    pub(crate) fn reached_ms(&mut self, now_ms: TimestampMs, active_ms: i64) -> Option<TimestampMs> {
        if self.looked.0 != self.newest_ms {
            self.looked = (self.newest_ms, now_ms);
        }
        (now_ms.saturating_sub(self.looked.1) < active_ms && self.newest_ms > TimestampMs::MIN)
            .then_some(self.newest_ms)
    }

    /// As [`GroupState::row_bytes`], of what is older.
    pub(crate) fn row_bytes_before(&self, before_ms: TimestampMs) -> usize {
        if self.newest_ms < before_ms {
            return self.row_bytes();
        }
        self.pages.iter().filter(|page| page.last_ms < before_ms).map(|page| page.memory_bytes()).sum()
    }

    /// Forgets all rows before `before_ms`: they are in a block now.
    pub(crate) fn cut(&mut self, before_ms: TimestampMs) {
        let mut kept = Vec::new();
        for page in std::mem::take(&mut self.pages) {
            if page.last_ms < before_ms {
                self.pages_covered = self.pages_covered.saturating_sub(1);
                continue;
            }
            if page.first_ms >= before_ms {
                kept.push(page);
                continue;
            }
            kept.push(Arc::new(rest_of_page(&page, self.width, before_ms)));
        }
        self.pages = kept;
        let gone = self.open_timestamps.partition_point(|&timestamp| timestamp < before_ms);
        self.open_timestamps.drain(..gone);
        self.open_values.drain(..gone * self.width);
        // A cut for want of memory takes open rows too, and their room must come back.
        if gone > 0 || self.open_timestamps.is_empty() {
            self.open_timestamps.shrink_to_fit();
            self.open_values.shrink_to_fit();
        }
    }

    /// The newest value of a column among the open rows of the range. `None` if it has none there, though
    /// pages may.
    pub(crate) fn newest_open(
        &self,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        column: u16,
    ) -> Option<Sample> {
        let end = self.open_timestamps.partition_point(|&timestamp| timestamp <= end_ms);
        for row in (0..end).rev() {
            let timestamp_ms = *self.open_timestamps.get(row)?;
            if timestamp_ms < start_ms {
                return None;
            }
            let value = *self.open_values.get(row * self.width + usize::from(column))?;
            if !is_absent(value) {
                return Some(Sample { timestamp_ms, value });
            }
        }
        None
    }

    /// Whether any row may lie in the range.
    pub(crate) fn overlaps(&self, start_ms: TimestampMs, end_ms: TimestampMs) -> bool {
        self.newest_ms >= start_ms && self.oldest_ms().is_some_and(|oldest_ms| oldest_ms <= end_ms)
    }

    /// What a reader takes along: shared pages, and copies of the open rows' wanted columns.
    pub(crate) fn snapshot(
        &self,
        start_ms: TimestampMs,
        end_ms: TimestampMs,
        columns: &[u16],
    ) -> GroupSnapshot {
        let overlaps = |page: &&Arc<Page>| page.last_ms >= start_ms && page.first_ms <= end_ms;
        let ends = self.open_timestamps.first().zip(self.open_timestamps.last());
        let open = if ends.is_some_and(|(&first, &last)| last >= start_ms && first <= end_ms) {
            columns
                .iter()
                .map(|&column| {
                    self.open_values.iter().skip(usize::from(column)).step_by(self.width).copied().collect()
                })
                .collect()
        } else {
            vec![Vec::new(); columns.len()]
        };
        let has_open = open.iter().any(|column: &Vec<f64>| !column.is_empty());
        let mut snapshot = GroupSnapshot {
            pages: self.pages.iter().filter(overlaps).map(Arc::clone).collect(),
            open_timestamps: if has_open { self.open_timestamps.clone() } else { Vec::new() },
            open,
            rows_before: 0,
            start_ms,
            end_ms,
        };
        snapshot.rows_before = snapshot.rows_before_range();
        snapshot
    }
}

fn rest_of_page(page: &Page, width: usize, before_ms: TimestampMs) -> Page {
    let mut timestamps = Vec::new();
    page.timestamps(&mut timestamps);
    let from = timestamps.partition_point(|&timestamp| timestamp < before_ms);
    let rows = timestamps.len() - from;
    let mut values = vec![crate::row::ABSENT; rows * width];
    for at in 0..width {
        let column = page.column(at);
        let mut dense = column.values.into_iter();
        for row in 0..timestamps.len() {
            if column.present.is_empty() || column.present[row] {
                let value = dense.next().unwrap_or(crate::row::ABSENT);
                if row >= from {
                    values[(row - from) * width + at] = value;
                }
            }
        }
    }
    Page::seal(&timestamps[from..], &values)
}

/// A group's rows in a time range, as they were at one moment.
#[derive(Debug)]
pub(crate) struct GroupSnapshot {
    pages: Vec<Arc<Page>>,
    open_timestamps: Vec<TimestampMs>,
    /// Values of the open rows, per wanted column.
    open: Vec<Vec<f64>>,
    /// Rows taken along that lie before the range.
    rows_before: usize,
    start_ms: TimestampMs,
    end_ms: TimestampMs,
}

impl GroupSnapshot {
    /// Timestamps of all rows in the range.
    pub(crate) fn timestamps(&self) -> Arc<[TimestampMs]> {
        let mut all = Vec::new();
        for page in &self.pages {
            page.timestamps(&mut all);
        }
        all.extend_from_slice(&self.open_timestamps);
        let from = all.partition_point(|&timestamp| timestamp < self.start_ms);
        let to = all.partition_point(|&timestamp| timestamp <= self.end_ms);
        Arc::from(&all[from..to.max(from)])
    }

    /// The samples of the `index`-th wanted column (`column` of the group). Columns with a value in every
    /// row share `timestamps`, which [`GroupSnapshot::timestamps`] gave.
    pub(crate) fn column(
        &self,
        index: usize,
        column: u16,
        timestamps: &Arc<[TimestampMs]>,
    ) -> (Arc<[TimestampMs]>, Vec<f64>) {
        let mut values = Vec::with_capacity(timestamps.len() + PAGE_ROWS);
        let mut absent = false;
        for page in &self.pages {
            let read = page.column(usize::from(column));
            if read.present.is_empty() {
                values.extend_from_slice(&read.values);
            } else {
                absent = true;
                let mut dense = read.values.into_iter();
                values.extend(read.present.iter().map(|&present| {
                    if present { dense.next().unwrap_or(crate::row::ABSENT) } else { crate::row::ABSENT }
                }));
            }
        }
        values.extend_from_slice(&self.open[index]);
        absent |= self.open[index].iter().any(|&value| is_absent(value));
        // Rows before the range lie at the start, rows behind it at the end; `timestamps` has neither.
        values.drain(..self.rows_before.min(values.len()));
        values.truncate(timestamps.len());
        if !absent {
            return (Arc::clone(timestamps), values);
        }
        let kept: Vec<TimestampMs> = timestamps
            .iter()
            .zip(&values)
            .filter(|(_, value)| !is_absent(**value))
            .map(|(&timestamp, _)| timestamp)
            .collect();
        values.retain(|&value| !is_absent(value));
        (kept.into(), values)
    }

    fn rows_before_range(&self) -> usize {
        let Some(first) = self.pages.first() else {
            return self.open_timestamps.partition_point(|&timestamp| timestamp < self.start_ms);
        };
        if first.first_ms >= self.start_ms {
            return 0;
        }
        // Only the first page can begin before the range: earlier ones do not overlap it.
        let mut timestamps = Vec::new();
        first.timestamps(&mut timestamps);
        timestamps.partition_point(|&timestamp| timestamp < self.start_ms)
    }
}
