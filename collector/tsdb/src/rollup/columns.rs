//! A record's buckets as they are added to summaries: the wanted columns, decoded, of one series and level.
//!
//! Bytes of a record ([`super::record`]) flow in, summaries grow by whole buckets. Runs of buckets are added
//! column by column, which is what long ranges consist of.

use super::record::{
    BUCKETS_MAX, CHANGES, COLUMNS, CORRECTIONS, CORRECTIONS_MAX, COUNT, ENDS_STALE, EXPONENT, FALLS_SUMMED,
    FIRST, FIRST_MS, FLAGS, HAS_NAN, IS_INEXACT, IS_MIXED, LAST, LAST_MS, MAX, MIN, NUMBER, RESETS, RESIDUAL,
    SUM, runs,
};
use super::total::Total;
use crate::codec::short;
use crate::codec::varint::Cursor;
use pharos_common::sample::{Sample, TimestampMs};
use pharos_common::summary::{self, Summary, SummaryFields};
use std::ops::Range;

/// What is asked of what happens between two buckets.
const JOINTS: SummaryFields =
    SummaryFields::CHANGES.and(SummaryFields::RESETS).and(SummaryFields::CORRECTIONS);

/// Decoded columns of a record; kept from record to record for their memory.
#[derive(Debug, Default)]
pub(crate) struct BucketColumns {
    width_ms: i64,
    fields: SummaryFields,
    /// The numbers; none if they follow each other without a gap.
    number: Vec<i64>,
    /// The first number, and how many buckets there are.
    first_number: i64,
    buckets: usize,
    flags: Vec<i64>,
    /// Whether the flags say nothing but of corrections.
    is_plain: bool,
    /// Whether each bucket has all wanted fields.
    all_serve: bool,
    count: Vec<i64>,
    first_ms: Vec<i64>,
    last_ms: Vec<i64>,
    first: Vec<f64>,
    last: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    sum: Vec<f64>,
    /// Whether each sum is a whole number and that exactly.
    sums_are_whole: bool,
    residual: Vec<i64>,
    exponent: Vec<i64>,
    changes: Vec<i64>,
    resets: Vec<i64>,
    /// Where each bucket's corrections begin, if any has one.
    correction_starts: Vec<u32>,
    corrections: Vec<f64>,
}

/// The first number of buckets that follow each other without a gap; `None` if they do not.
fn first_without_gap(column: &[u8], count: usize) -> Option<i64> {
    let mut cursor = Cursor::new(column);
    let (mut first, mut next) = (None, None);
    for run in runs(count).filter(|run| !run.is_empty()) {
        let (start, step) = short::even_timestamps(&mut cursor, run.len())?;
        if run.len() > 1 && step != 1 || next.is_some_and(|next| next != start) {
            return None;
        }
        first = first.or(Some(start));
        next = Some(start.checked_add(i64::try_from(run.len()).ok()?)?);
    }
    first
}

impl BucketColumns {
    /// Reads a record's wanted fields; `None` if the bytes are not a well-formed one.
    pub(crate) fn decode(&mut self, bytes: &[u8], width_ms: i64, fields: SummaryFields) -> Option<()> {
        self.width_ms = width_ms;
        self.fields = fields;
        let mut cursor = Cursor::new(bytes);
        let count = cursor.usize().filter(|&count| count <= BUCKETS_MAX)?;
        let mut lengths = [0usize; COLUMNS];
        for length in &mut lengths {
            *length = cursor.usize()?;
        }
        let mut columns: [&[u8]; COLUMNS] = [&[]; COLUMNS];
        for (column, length) in columns.iter_mut().zip(lengths) {
            *column = cursor.take(length)?;
        }
        let ends = fields.has(SummaryFields::FIRST.and(SummaryFields::LAST));
        let resets = fields.has(SummaryFields::RESETS.and(SummaryFields::CORRECTIONS));
        let extremes = fields.has(SummaryFields::EXTREMES);
        let sum = fields.has(SummaryFields::SUM);
        let first = fields.has(SummaryFields::FIRST);
        let last = fields.has(SummaryFields::LAST);
        let min_is_first = columns[MIN].is_empty();
        let max_is_last = columns[MAX].is_empty();
        let numbers = |into: &mut Vec<i64>, column: usize, wanted: bool| {
            into.clear();
            let mut cursor = Cursor::new(columns[column]);
            if !wanted || cursor.is_empty() {
                return Some(());
            }
            runs(count).try_for_each(|run| short::decode_timestamps(&mut cursor, run.len(), into))
        };
        self.buckets = count;
        let without_gap = first_without_gap(columns[NUMBER], count);
        self.first_number = without_gap.unwrap_or(0);
        numbers(&mut self.number, NUMBER, without_gap.is_none())?;
        numbers(&mut self.flags, FLAGS, true)?;
        numbers(&mut self.count, COUNT, true)?;
        numbers(&mut self.first_ms, FIRST_MS, ends)?;
        numbers(&mut self.last_ms, LAST_MS, ends)?;
        numbers(&mut self.residual, RESIDUAL, sum)?;
        numbers(&mut self.exponent, EXPONENT, sum)?;
        numbers(&mut self.changes, CHANGES, fields.has(SummaryFields::CHANGES))?;
        numbers(&mut self.resets, RESETS, resets)?;
        let values = |into: &mut Vec<f64>, column: usize, count: usize, wanted: bool| {
            into.clear();
            if !wanted {
                return Some(());
            }
            let mut cursor = Cursor::new(columns[column]);
            runs(count).try_for_each(|run| short::decode_values(&mut cursor, run.len(), into))
        };
        values(&mut self.first, FIRST, count, first || extremes && min_is_first)?;
        values(&mut self.last, LAST, count, last || extremes && max_is_last)?;
        values(&mut self.min, MIN, count, extremes && !min_is_first)?;
        values(&mut self.max, MAX, count, extremes && !max_is_last)?;
        values(&mut self.sum, SUM, count, sum)?;
        self.sums_are_whole = columns[RESIDUAL].is_empty()
            && columns[EXPONENT].is_empty()
            && self.sum.iter().all(|&sum| summary::is_whole(sum));
        self.find_corrections()?;
        let corrections = self.correction_starts.last().map_or(0, |&end| end as usize);
        values(&mut self.corrections, CORRECTIONS, corrections, corrections > 0)?;
        let has_all = |length: usize, wanted: bool| !wanted || length == count;
        let is_whole = has_all(self.number.len(), without_gap.is_none())
            && has_all(self.count.len(), true)
            && (!ends || self.first_ms.len() == count && self.last_ms.len() == count)
            && self.number.windows(2).all(|pair| pair[0] < pair[1]);
        self.is_plain = self.flags.iter().all(|flags| flags & !FALLS_SUMMED == 0);
        self.all_serve = !fields.has(SummaryFields::CORRECTIONS) || (0..count).all(|at| self.serves(at));
        is_whole.then_some(())
    }

    /// From the number of resets of each bucket follows where its corrections are.
    fn find_corrections(&mut self) -> Option<()> {
        self.correction_starts.clear();
        if !self.fields.has(SummaryFields::CORRECTIONS) || self.resets.is_empty() {
            return Some(());
        }
        let mut start = 0u32;
        self.correction_starts.push(0);
        for (at, &resets) in self.resets.iter().enumerate() {
            if (0..=CORRECTIONS_MAX as i64).contains(&resets) {
                start = start.checked_add(resets as u32)?;
            } else if self.has_summed_falls(at) {
                start = start.checked_add(1)?;
            }
            self.correction_starts.push(start);
        }
        Some(())
    }

    fn has_summed_falls(&self, at: usize) -> bool {
        self.flags.get(at).is_some_and(|flags| flags & FALLS_SUMMED != 0)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.buckets
    }

    /// The first bucket whose number is `number` or more, by position.
    pub(crate) fn seek(&self, number: i64) -> usize {
        if !self.number.is_empty() {
            return self.number.partition_point(|&have| have < number);
        }
        usize::try_from(number.saturating_sub(self.first_number).max(0)).unwrap_or(0).min(self.buckets)
    }

    #[inline]
    pub(crate) fn number(&self, at: usize) -> Option<i64> {
        match self.number.is_empty() {
            true => (at < self.buckets).then(|| self.first_number.saturating_add(at as i64)),
            false => self.number.get(at).copied(),
        }
    }

    /// Whether all wanted fields of a bucket are kept.
    #[inline]
    pub(crate) fn serves(&self, at: usize) -> bool {
        !self.fields.has(SummaryFields::CORRECTIONS)
            || self.resets.get(at).is_none_or(|&resets| (0..=CORRECTIONS_MAX as i64).contains(&resets))
            || self.has_summed_falls(at)
    }

    /// Whether all wanted fields of all buckets are kept.
    #[inline]
    pub(crate) fn all_serve(&self) -> bool {
        self.all_serve
    }

    /// Adds buckets that follow each other to a summary of what comes before them. `scratch` is for its use.
    pub(crate) fn append_all(&self, places: Range<usize>, into: &mut Summary, scratch: &mut Summary) {
        if self.is_plain && !self.fields.has(JOINTS) && !places.is_empty() {
            return self.append_plain(places, into);
        }
        places.for_each(|at| self.append_to(at, into, scratch));
    }

    /// The same for buckets with samples, none of which ends in a stale marker, whose sums are exact, and where
    /// nothing is asked of what happens between them.
    fn append_plain(&self, places: Range<usize>, into: &mut Summary) {
        let last = places.end - 1;
        into.ends_stale = false;
        if self.fields.has(SummaryFields::FIRST) && into.count == 0 {
            into.first = self.sample(places.start, &self.first_ms, &self.first);
        }
        if self.fields.has(SummaryFields::LAST) {
            into.last = self.sample(last, &self.last_ms, &self.last);
        }
        if self.fields.has(SummaryFields::EXTREMES) {
            let (least, largest) = self.extreme_columns();
            let (least, largest) = (least.get(places.clone()), largest.get(places.clone()));
            for (&min, &max) in least.unwrap_or_default().iter().zip(largest.unwrap_or_default()) {
                into.offer_extremes(min, max);
            }
        }
        if self.fields.has(SummaryFields::SUM) {
            let sums = self.sum.get(places.clone()).unwrap_or_default();
            if !(self.sums_are_whole && into.add_whole(sums)) {
                places.clone().for_each(|at| into.add_total(&self.total(at, 0)));
            }
        }
        into.count += self.count.get(places).unwrap_or_default().iter().sum::<i64>() as u64;
    }

    /// Adds a bucket to a summary of what comes before it. `scratch` is for its use.
    #[inline]
    pub(crate) fn append_to(&self, at: usize, into: &mut Summary, scratch: &mut Summary) {
        if self.fields.has(JOINTS) {
            self.read(at, scratch);
            into.append(scratch);
        } else {
            self.append_apart(at, into);
        }
    }

    /// The same where nothing is asked of what happens between two buckets.
    #[inline]
    fn append_apart(&self, at: usize, into: &mut Summary) {
        let flags = self.flags.get(at).copied().unwrap_or(0);
        into.ends_stale = flags & ENDS_STALE != 0;
        let count = self.count.get(at).copied().unwrap_or(0) as u64;
        if count == 0 {
            return;
        }
        if self.fields.has(SummaryFields::FIRST) && into.count == 0 {
            into.first = self.sample(at, &self.first_ms, &self.first);
        }
        if self.fields.has(SummaryFields::LAST) {
            into.last = self.sample(at, &self.last_ms, &self.last);
        }
        if self.fields.has(SummaryFields::EXTREMES) {
            let (min, max) = self.extremes(at);
            into.offer_extremes(min, max);
        }
        if self.fields.has(SummaryFields::SUM) {
            into.has_nan |= flags & HAS_NAN != 0;
            into.add_total(&self.total(at, flags));
        }
        into.count += count;
    }

    fn sample(&self, at: usize, times: &[i64], values: &[f64]) -> Sample {
        let base_ms = self.number(at).unwrap_or(0).wrapping_mul(self.width_ms);
        let timestamp_ms: TimestampMs = base_ms.wrapping_add(times.get(at).copied().unwrap_or(0));
        Sample { timestamp_ms, value: values.get(at).copied().unwrap_or(0.0) }
    }

    fn extremes(&self, at: usize) -> (f64, f64) {
        let of = |column: &[f64]| column.get(at).copied().unwrap_or(0.0);
        let (least, largest) = self.extreme_columns();
        (of(least), of(largest))
    }

    fn extreme_columns(&self) -> (&[f64], &[f64]) {
        let least = if self.min.is_empty() { &self.first } else { &self.min };
        (least, if self.max.is_empty() { &self.last } else { &self.max })
    }

    #[inline]
    fn total(&self, at: usize, flags: i64) -> summary::Total {
        let stored = Total {
            rounded: self.sum.get(at).copied().unwrap_or(0.0),
            residual: self.residual.get(at).copied().unwrap_or(0),
        };
        let is_exact = flags & IS_INEXACT == 0;
        let exponent = || self.exponent.get(at).copied().unwrap_or(0).clamp(-2_000, 2_000) as i32;
        summary::Total {
            sum: stored.rounded,
            compensation: stored.compensation(),
            uncertainty: if is_exact { 0.0 } else { stored.uncertainty() },
            magnitude: if flags & IS_MIXED == 0 { stored.rounded.abs() } else { 2f64.powi(exponent()) },
            is_exact,
        }
    }

    /// A bucket's wanted fields.
    pub(super) fn read(&self, at: usize, summary: &mut Summary) {
        let integer = |column: &[i64]| column.get(at).copied().unwrap_or(0);
        summary.clear();
        self.append_apart(at, summary);
        if summary.count == 0 {
            return;
        }
        summary.changes = integer(&self.changes) as u64;
        summary.resets = integer(&self.resets) as u64;
        if let (Some(&from), Some(&to)) = (self.correction_starts.get(at), self.correction_starts.get(at + 1))
            && let Some(corrections) = self.corrections.get(from as usize..to as usize)
        {
            match corrections {
                &[sum] if self.has_summed_falls(at) => summary.fallen = sum,
                each => summary.corrections.extend_from_slice(each),
            }
        }
    }
}
