//! Series over all steps of a grid, as columns.
//!
//! A column holds the steps from the first to the last that have a value, so a series that lives for an
//! hour of a month costs an hour. Steps without a value in between are marked by the bits of the stale
//! marker, which no value can have: selectors drop it and arithmetic cannot make a signalling NaN.

use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::Labels;
use pharos_common::sample::{STALE_NAN, is_stale_nan};
use std::sync::Arc;

/// A series of an instant vector over all steps.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Whether the metric's name goes when the query ends.
    pub(crate) drop_name: bool,
    pub(crate) column: Column,
}

/// Values at steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Column {
    first: usize,
    floats: Vec<f64>,
    /// Empty, or as long as `floats`.
    histograms: Vec<Option<Arc<FloatHistogram>>>,
}

/// A value at a step.
#[derive(Clone, Debug)]
pub(crate) enum Point {
    Float(f64),
    Histogram(Arc<FloatHistogram>),
}

#[inline]
pub(crate) fn is_absent(value: f64) -> bool {
    is_stale_nan(value)
}

impl Column {
    /// The same float at all of `steps` steps.
    pub(crate) fn constant(value: f64, steps: usize) -> Self {
        Column { first: 0, floats: vec![value; steps], histograms: Vec::new() }
    }

    /// Floats from step 0 on.
    pub(crate) fn from_floats(floats: Vec<f64>) -> Self {
        Column { first: 0, floats, histograms: Vec::new() }
    }

    /// Floats from a step on, the stale marker where there is none.
    pub(crate) fn starting_at(first: usize, floats: Vec<f64>) -> Self {
        Column { first, floats, histograms: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.floats.is_empty()
    }

    /// Steps that are stored, with gaps.
    pub(crate) fn len(&self) -> usize {
        self.floats.len()
    }

    /// What the column takes of a budget.
    pub(crate) fn cost(&self) -> usize {
        self.floats.len() + self.histograms.iter().flatten().map(|h| h.cost_in_samples()).sum::<usize>()
    }

    /// First stored step, and one past the last.
    pub(crate) fn bounds(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.floats.len()
    }

    /// The stored floats; the first belongs to step `bounds().start`.
    pub(crate) fn floats(&self) -> &[f64] {
        &self.floats
    }

    /// Whether there is a float at each step from the first to the last.
    pub(crate) fn is_full_of_floats(&self) -> bool {
        self.histograms.is_empty() && !self.floats.iter().any(|&value| is_absent(value))
    }

    pub(crate) fn into_floats(self) -> Vec<f64> {
        self.floats
    }

    pub(crate) fn has_histograms(&self) -> bool {
        !self.histograms.is_empty()
    }

    /// The float at a step; the stale marker where there is none.
    #[inline]
    pub(crate) fn float(&self, step: usize) -> f64 {
        match step.checked_sub(self.first) {
            Some(index) => self.floats.get(index).copied().unwrap_or(STALE_NAN),
            None => STALE_NAN,
        }
    }

    #[inline]
    pub(crate) fn histogram(&self, step: usize) -> Option<&Arc<FloatHistogram>> {
        self.histograms.get(step.checked_sub(self.first)?)?.as_ref()
    }

    #[inline]
    pub(crate) fn has(&self, step: usize) -> bool {
        !is_absent(self.float(step)) || self.histogram(step).is_some()
    }

    #[inline]
    pub(crate) fn point(&self, step: usize) -> Option<Point> {
        let float = self.float(step);
        if !is_absent(float) {
            return Some(Point::Float(float));
        }
        self.histogram(step).map(|histogram| Point::Histogram(Arc::clone(histogram)))
    }

    /// The steps that have a value.
    pub(crate) fn points(&self) -> impl Iterator<Item = (usize, Point)> + '_ {
        self.bounds().filter_map(|step| Some((step, self.point(step)?)))
    }

    /// Makes room for the floats of so many steps.
    pub(crate) fn reserve(&mut self, steps: usize) {
        self.floats.reserve_exact(steps);
    }

    /// Sets the value at a step. Steps must rise.
    pub(crate) fn push(&mut self, step: usize, point: Point) {
        match point {
            Point::Float(value) => self.push_float(step, value),
            Point::Histogram(histogram) => self.push_histogram(step, histogram),
        }
    }

    /// Sets the float at a step. Steps must rise.
    #[inline]
    pub(crate) fn push_float(&mut self, step: usize, value: f64) {
        self.fill_gap(step);
        self.floats.push(value);
        if !self.histograms.is_empty() {
            self.histograms.push(None);
        }
    }

    pub(crate) fn push_histogram(&mut self, step: usize, histogram: Arc<FloatHistogram>) {
        self.fill_gap(step);
        self.histograms.resize(self.floats.len(), None);
        self.floats.push(STALE_NAN);
        self.histograms.push(Some(histogram));
    }

    #[inline]
    fn fill_gap(&mut self, step: usize) {
        if self.floats.is_empty() {
            self.first = step;
            return;
        }
        let next = self.first + self.floats.len();
        debug_assert!(step >= next, "steps must rise");
        if step > next {
            self.floats.resize(step - self.first, STALE_NAN);
            if !self.histograms.is_empty() {
                self.histograms.resize(step - self.first, None);
            }
        }
    }

    /// Changes every float; histograms go.
    pub(crate) fn map_floats(mut self, change: impl Fn(f64) -> f64) -> Self {
        self.histograms = Vec::new();
        for value in &mut self.floats {
            if !is_absent(*value) {
                *value = change(*value);
            }
        }
        self.trimmed()
    }

    /// Changes or drops every float of a column without histograms. `index` counts from the first step.
    pub(crate) fn map_indexed(mut self, change: impl Fn(usize, f64) -> Option<f64>) -> Self {
        let mut dropped = false;
        for (index, value) in self.floats.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = change(index, *value).unwrap_or_else(|| {
                    dropped = true;
                    STALE_NAN
                });
            }
        }
        if dropped { self.trimmed() } else { self }
    }

    /// Changes every histogram in place.
    pub(crate) fn map_histograms(&mut self, change: impl Fn(&FloatHistogram) -> FloatHistogram) {
        for histogram in self.histograms.iter_mut().flatten() {
            *histogram = Arc::new(change(histogram));
        }
    }

    /// Changes every float in place, keeping histograms.
    pub(crate) fn change_floats(&mut self, change: impl Fn(f64) -> f64) {
        for value in &mut self.floats {
            if !is_absent(*value) {
                *value = change(*value);
            }
        }
    }

    /// Keeps the values at steps that `keep` accepts.
    pub(crate) fn retain(mut self, mut keep: impl FnMut(usize) -> bool) -> Self {
        for index in 0..self.floats.len() {
            if !keep(self.first + index) {
                self.floats[index] = STALE_NAN;
                if let Some(histogram) = self.histograms.get_mut(index) {
                    *histogram = None;
                }
            }
        }
        self.trimmed()
    }

    /// The column without steps before its first and after its last value.
    pub(crate) fn trimmed(mut self) -> Self {
        let has = |index: usize| {
            !is_absent(self.floats[index]) || self.histograms.get(index).is_some_and(Option::is_some)
        };
        let Some(start) = (0..self.floats.len()).find(|&index| has(index)) else {
            return Column::default();
        };
        let end = (start..self.floats.len()).rev().find(|&index| has(index)).map_or(start, |last| last + 1);
        if end < self.floats.len() {
            self.floats.truncate(end);
            self.histograms.truncate(end);
        }
        if start > 0 {
            self.floats.drain(..start);
            if !self.histograms.is_empty() {
                self.histograms.drain(..start);
            }
            self.first += start;
        }
        if self.histograms.iter().all(Option::is_none) {
            self.histograms = Vec::new();
        }
        self
    }

    /// The value at step 0 at each of `steps` steps.
    pub(crate) fn broadcast(self, steps: usize) -> Self {
        match self.point(0) {
            None => Column::default(),
            Some(Point::Float(value)) => Column::constant(value, steps),
            Some(Point::Histogram(histogram)) => {
                Column { first: 0, floats: vec![STALE_NAN; steps], histograms: vec![Some(histogram); steps] }
            }
        }
    }

    /// What [`Column::broadcast`] to `steps` steps takes of a budget.
    pub(crate) fn broadcast_cost(&self, steps: usize) -> usize {
        match self.point(0) {
            None => 0,
            Some(Point::Float(_)) => steps,
            Some(Point::Histogram(histogram)) => steps.saturating_mul(1 + histogram.cost_in_samples()),
        }
    }

    /// Both columns in one. `None` if both have a value at the same step.
    pub(crate) fn merged(&self, other: &Column) -> Option<Column> {
        let (own, others) = (self.bounds(), other.bounds());
        let mut merged = Column::default();
        for step in own.start.min(others.start)..own.end.max(others.end) {
            match (self.point(step), other.point(step)) {
                (Some(_), Some(_)) => return None,
                (Some(point), None) | (None, Some(point)) => merged.push(step, point),
                (None, None) => {}
            }
        }
        Some(merged)
    }
}

impl FromIterator<(usize, Point)> for Column {
    fn from_iter<I: IntoIterator<Item = (usize, Point)>>(points: I) -> Self {
        let mut column = Column::default();
        for (step, point) in points {
            column.push(step, point);
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_stores_only_from_its_first_to_its_last_value() {
        let mut column = Column::default();
        column.push_float(1_000_000, 1.0);
        column.push_float(1_000_003, 2.0);
        assert_eq!(column.len(), 4);
        assert!(!column.has(0) && column.has(1_000_000) && !column.has(1_000_001));
        assert_eq!(column.float(1_000_003), 2.0);
        let column = column.retain(|step| step > 1_000_000);
        assert_eq!(column.bounds(), 1_000_003..1_000_004);
    }

    #[test]
    fn columns_merge_unless_they_meet() {
        let column =
            |steps: &[usize]| steps.iter().map(|&step| (step, Point::Float(1.0))).collect::<Column>();
        assert_eq!(column(&[0, 2]).merged(&column(&[1])).map(|merged| merged.len()), Some(3));
        assert!(column(&[0, 2]).merged(&column(&[2])).is_none());
    }
}
