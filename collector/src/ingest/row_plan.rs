//! Gathers samples that came series by series into rows of their groups.
//!
//! A request has either one sample per series (live) or a run of samples for each (a backlog). Series of a
//! group follow each other, so the row a sample belongs to is the one before, the next one, or the first.

use pharos_common::sample::TimestampMs;
use pharos_tsdb::{ABSENT, is_absent, starts};

/// Values a plan holds before it is appended, 8 bytes each.
const VALUES_MAX: usize = 1 << 20;

/// Room for so many values, and for so many rows, is kept from request to request: more than live senders fill.
const VALUES_KEPT: usize = 64 << 10;
const ROWS_KEPT: usize = 16 << 10;

/// Rows looked through for a timestamp before a row of its own is made.
const ROWS_LOOKED_BACK_MAX: usize = 32;

/// Where a series' samples go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Number of the group.
    pub(super) group: u32,
    /// Column in it.
    pub(super) column: u16,
    /// Whether the column behind it has their start timestamps.
    pub(super) starts: bool,
}

/// A row that waits to be appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) group: u32,
    pub(super) timestamp_ms: TimestampMs,
    start: usize,
    width: usize,
    /// The group's rows before and after, by number.
    before: Option<u32>,
    after: Option<u32>,
}

/// The rows of one group.
#[derive(Clone, Copy, Debug)]
struct GroupRows {
    first: u32,
    last: u32,
    /// The row that the last sample went to.
    current: u32,
}

/// See the module's documentation. Its buffers are kept from request to request.
#[derive(Debug, Default)]
pub(super) struct RowPlan {
    rows: Vec<Row>,
    values: Vec<f64>,
    by_group: Vec<Option<GroupRows>>,
    touched: Vec<u32>,
}

impl RowPlan {
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.rows.shrink_to(ROWS_KEPT);
        self.values.clear();
        self.values.shrink_to(VALUES_KEPT);
        for group in self.touched.drain(..) {
            if let Some(rows) = self.by_group.get_mut(group as usize) {
                *rows = None;
            }
        }
        self.touched.shrink_to(ROWS_KEPT);
    }

    /// Whether it should be appended before more is added.
    pub(super) fn is_full(&self) -> bool {
        self.values.len() >= VALUES_MAX
    }

    /// The rows, in the order in which they were begun.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The values of a row.
    pub(super) fn values(&self, row: &Row) -> &[f64] {
        self.values.get(row.start..row.start + row.width).unwrap_or_default()
    }

    /// Adds a sample to its group's row of that timestamp, with its start timestamp (0 for none) if the slot has
    /// a place for it.
    pub(super) fn add(
        &mut self,
        slot: Slot,
        width: usize,
        (timestamp_ms, value): (TimestampMs, f64),
        start_ms: TimestampMs,
    ) {
        let number = self.find(slot.group, timestamp_ms).filter(|&number| self.has_room(number, slot.column));
        let number = number.unwrap_or_else(|| self.begin(slot.group, width, timestamp_ms));
        if let Some(group) = self.by_group.get_mut(slot.group as usize).and_then(Option::as_mut) {
            group.current = number;
        }
        let Some(row) = self.rows.get(number as usize) else { return };
        let at = row.start + usize::from(slot.column);
        if let Some(cell) = self.values.get_mut(at) {
            *cell = value;
        }
        if slot.starts
            && let Some(cell) = self.values.get_mut(at + 1)
        {
            *cell = starts::cell(start_ms, timestamp_ms);
        }
    }

    fn row(&self, number: u32) -> Option<&Row> {
        self.rows.get(number as usize)
    }

    /// A second sample of one series at one timestamp must not replace the first.
    fn has_room(&self, number: u32, column: u16) -> bool {
        let cell = self.row(number).and_then(|row| self.values.get(row.start + usize::from(column)));
        cell.is_some_and(|value| is_absent(*value))
    }

    fn find(&self, group: u32, timestamp_ms: TimestampMs) -> Option<u32> {
        let rows = self.by_group.get(group as usize).copied().flatten()?;
        let fits = |number: &u32| self.row(*number).is_some_and(|row| row.timestamp_ms == timestamp_ms);
        let next = self.row(rows.current).and_then(|row| row.after);
        let likely = [Some(rows.current), next, Some(rows.first)];
        likely.into_iter().flatten().find(fits).or_else(|| {
            let before = |number: &u32| self.row(*number).and_then(|row| row.before);
            std::iter::successors(Some(rows.last), before).take(ROWS_LOOKED_BACK_MAX).find(fits)
        })
    }

    fn begin(&mut self, group: u32, width: usize, timestamp_ms: TimestampMs) -> u32 {
        let number = self.rows.len() as u32;
        let at = group as usize;
        if self.by_group.len() <= at {
            self.by_group.resize(at + 1, None);
        }
        let known = self.by_group.get(at).copied().flatten();
        if let Some(last) = known.and_then(|rows| self.rows.get_mut(rows.last as usize)) {
            last.after = Some(number);
        }
        let start = self.values.len();
        self.values.resize(start + width, ABSENT);
        let before = known.map(|rows| rows.last);
        self.rows.push(Row { group, timestamp_ms, start, width, before, after: None });
        let first = known.map_or(number, |rows| rows.first);
        if let Some(slot) = self.by_group.get_mut(at) {
            *slot = Some(GroupRows { first, last: number, current: number });
        }
        if known.is_none() {
            self.touched.push(group);
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(samples: &[(u16, TimestampMs, f64)], want: &[(TimestampMs, [f64; 2])]) {
        let mut plan = RowPlan::default();
        for &(column, timestamp_ms, value) in samples {
            plan.add(Slot { group: 3, column, starts: false }, 2, (timestamp_ms, value), 9);
        }
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let got: Vec<_> = plan.rows().iter().map(|row| (row.timestamp_ms, bits(plan.values(row)))).collect();
        let want: Vec<_> = want.iter().map(|(timestamp_ms, values)| (*timestamp_ms, bits(values))).collect();
        assert_eq!(got, want);
        plan.clear();
        assert!(plan.rows().is_empty() && plan.find(3, 1).is_none());
    }

    #[test]
    fn samples_of_one_reading_become_one_row() {
        check(&[(0, 1, 1.0), (1, 1, 2.0)], &[(1, [1.0, 2.0])]);
        check(&[(0, 1, 1.0)], &[(1, [1.0, ABSENT])]);
    }

    #[test]
    fn a_backlog_sent_series_by_series_becomes_rows_in_time_order() {
        check(
            &[(0, 1, 1.0), (0, 2, 2.0), (0, 3, 3.0), (1, 1, 10.0), (1, 2, 20.0), (1, 3, 30.0)],
            &[(1, [1.0, 10.0]), (2, [2.0, 20.0]), (3, [3.0, 30.0])],
        );
        check(
            &[(0, 1, 1.0), (0, 3, 3.0), (1, 2, 20.0)],
            &[(1, [1.0, ABSENT]), (3, [3.0, ABSENT]), (2, [ABSENT, 20.0])],
        );
    }

    #[test]
    fn a_start_timestamp_stands_behind_its_sample() {
        let mut plan = RowPlan::default();
        let slot = Slot { group: 0, column: 1, starts: true };
        for (timestamp_ms, start_ms) in [(10, 5), (20, 0)] {
            plan.add(slot, 3, (timestamp_ms, 1.0), start_ms);
        }
        let cells = |row: usize| plan.values(&plan.rows()[row])[1..].to_vec();
        assert_eq!(cells(0), [1.0, 5.0]);
        assert!(cells(1)[0] == 1.0 && is_absent(cells(1)[1]));
    }

    #[test]
    fn one_long_series_of_a_wide_group_fills_a_plan_and_its_room_comes_back() {
        let mut plan = RowPlan::default();
        let mut rows = 0;
        while !plan.is_full() {
            plan.add(Slot { group: 0, column: 7, starts: false }, 256, (rows, 1.0), 0);
            rows += 1;
        }
        assert_eq!(rows as usize, VALUES_MAX / 256);
        plan.clear();
        assert!(plan.values.capacity() <= VALUES_KEPT && plan.rows.capacity() <= ROWS_KEPT);
        // As many rows as there may be.
        let mut timestamp_ms = 0;
        while !plan.is_full() {
            plan.add(Slot { group: 1, column: 0, starts: false }, 1, (timestamp_ms, 1.0), 0);
            timestamp_ms += 1;
        }
        plan.clear();
        assert!(plan.values.capacity() <= VALUES_KEPT && plan.rows.capacity() <= ROWS_KEPT);
    }

    #[test]
    fn a_second_sample_at_one_timestamp_never_replaces_the_first() {
        check(&[(0, 1, 1.0), (0, 1, 9.0)], &[(1, [1.0, ABSENT]), (1, [9.0, ABSENT])]);
    }
}
