//! Operators between two vectors, arithmetic and comparisons: series are matched by their signatures
//! (the labels that count), then whole columns are combined.

use super::arithmetic::{Outcome, floats, points};
use crate::annotations::{Annotations, Place};
use crate::ast::{Binary, BinaryOp, Cardinality, VectorMatching};
use crate::error::QueryError;
use crate::eval::SeriesByLabels;
use crate::eval::column::{Column, Point, Series, is_absent};
use crate::eval::meter::Meter;
use crate::eval::result::without_metadata;
use crate::storage::Budget;
use pharos_common::labels::{Labels, METRIC_NAME, Quoted};
use std::collections::{HashMap, HashSet};

/// The signature of each series on both sides, as a number.
pub(super) struct Signatures {
    pub(super) lhs: Vec<usize>,
    pub(super) rhs: Vec<usize>,
    pub(super) count: usize,
}

impl Signatures {
    pub(super) fn of(lhs: &[Series], rhs: &[Series], matching: &VectorMatching) -> Self {
        let mut known: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut number = |series: &Series| {
            let next = known.len();
            *known.entry(signature(&series.labels, matching)).or_insert(next)
        };
        let lhs = lhs.iter().map(&mut number).collect();
        let rhs = rhs.iter().map(&mut number).collect();
        Signatures { lhs, rhs, count: known.len() }
    }
}

/// The labels that count for matching.
fn signature(labels: &Labels, matching: &VectorMatching) -> Labels {
    let is_named = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on {
        labels.filtered(is_named)
    } else {
        labels.filtered(|name| name != METRIC_NAME && !is_named(name))
    }
}

pub(super) struct Operation<'o> {
    pub(super) binary: &'o Binary,
    pub(super) matching: &'o VectorMatching,
    pub(super) place: &'o Place,
    pub(super) steps: usize,
}

/// Series of both sides with one signature. `many` is the left side, or for `group_right` the right.
#[derive(Clone, Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
}

impl Operation<'_> {
    fn is_swapped(&self) -> bool {
        self.matching.cardinality == Cardinality::OneToMany
    }

    pub(super) fn apply(
        &self,
        lhs: Vec<Series>,
        rhs: Vec<Series>,
        annotations: &mut Annotations,
        budget: &Budget,
    ) -> Result<Vec<Series>, QueryError> {
        let signatures = Signatures::of(&lhs, &rhs, self.matching);
        let mut sides = Sides { many: lhs, one: rhs, present: None };
        let (mut many_signatures, mut one_signatures) = (signatures.lhs, signatures.rhs);
        if self.is_swapped() {
            std::mem::swap(&mut sides.many, &mut sides.one);
            std::mem::swap(&mut many_signatures, &mut one_signatures);
        }
        let mut groups = vec![Group::default(); signatures.count];
        for (index, &signature) in many_signatures.iter().enumerate() {
            groups[signature].many.push(index);
        }
        for (index, &signature) in one_signatures.iter().enumerate() {
            groups[signature].one.push(index);
        }
        let mut out = Output::new(self.steps, budget);
        for group in &groups {
            self.group(group, &mut sides, &mut out, annotations)?;
        }
        Ok(out.into_series())
    }

    fn group(
        &self,
        group: &Group,
        sides: &mut Sides,
        out: &mut Output<'_>,
        annotations: &mut Annotations,
    ) -> Result<(), QueryError> {
        let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
        if let ([many], [one]) = (group.many.as_slice(), group.one.as_slice())
            && !fills
        {
            let (many, one) = (&sides.many[*many], &sides.one[*one]);
            out.meter.visit(many.column.len())?;
            let column = self.pair(&many.column, &one.column, annotations);
            return out.add(self.result(many, one, column));
        }
        // Two on the one side are an error also where they match nothing.
        if (group.one.is_empty() || group.many.is_empty() && group.one.len() == 1) && !fills {
            return Ok(());
        }
        if let [one] = group.one.as_slice()
            && self.matching.cardinality != Cardinality::OneToOne
            && !fills
        {
            let (many, one) = (&sides.many, &sides.one[*one]);
            let results: Vec<Series> =
                group.many.iter().map(|&index| self.result(&many[index], one, Column::default())).collect();
            let distinct: HashSet<&Labels> = results.iter().map(|result| &result.labels).collect();
            // Results that cannot be mistaken for each other need no check at each step.
            if distinct.len() == results.len() {
                for (&index, result) in group.many.iter().zip(results) {
                    let many = &many[index].column;
                    out.meter.visit(many.len())?;
                    out.add(Series { column: self.pair(many, &one.column, annotations), ..result })?;
                }
                return Ok(());
            }
        }
        self.general(group, sides, out, annotations)
    }

    /// One series on each side.
    fn pair(&self, many: &Column, one: &Column, annotations: &mut Annotations) -> Column {
        let (own, others) = (many.bounds(), one.bounds());
        let mut column = Column::default();
        let trims = matches!(self.binary.op, BinaryOp::TrimLower | BinaryOp::TrimUpper);
        let only_floats = !many.has_histograms() && !one.has_histograms() && !trims;
        for step in own.start.max(others.start)..own.end.min(others.end) {
            if only_floats {
                let (a, b) = (many.float(step), one.float(step));
                if is_absent(a) || is_absent(b) {
                    continue;
                }
                let (lhs, rhs) = if self.is_swapped() { (b, a) } else { (a, b) };
                match floats(self.binary.op, lhs, rhs) {
                    Some(_) if self.binary.return_bool => column.push_float(step, 1.0),
                    Some(value) => column.push_float(step, value),
                    None if self.binary.return_bool => column.push_float(step, 0.0),
                    None => {}
                }
            } else if let (Some(a), Some(b)) = (many.point(step), one.point(step))
                && let Some(Some(point)) = self.combine(&a, &b, annotations)
            {
                column.push(step, point);
            }
        }
        column
    }

    /// What two samples give. `None` if the operator does not know their types, `Some(None)` if a
    /// comparison does not hold.
    fn combine(&self, many: &Point, one: &Point, annotations: &mut Annotations) -> Option<Option<Point>> {
        let (lhs, rhs) = if self.is_swapped() { (one, many) } else { (many, one) };
        match points(self.binary.op, lhs, rhs, self.place, annotations) {
            Outcome::Refused => None,
            Outcome::Value(_, keep) if self.binary.return_bool => {
                Some(Some(Point::Float(f64::from(u8::from(keep)))))
            }
            Outcome::Value(value, keep) => Some(keep.then_some(value)),
        }
    }

    fn result(&self, many: &Series, one: &Series, column: Column) -> Series {
        Series {
            labels: self.result_labels(&many.labels, &one.labels),
            // A comparison keeps the name, unless that side has lost its own: `a * 2 > b`.
            drop_name: self.binary.return_bool || (self.binary.op.is_comparison() && many.drop_name),
            column,
        }
    }

    /// The labels of a result: those of the many side, less what the operator or matching takes away,
    /// and what `group_left` takes over from the one side.
    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let base = if self.binary.op.changes_schema() { without_metadata(many) } else { many.clone() };
        let is_named = |name: &str| self.matching.labels.iter().any(|label| label == name);
        let base = match (self.matching.cardinality, self.matching.on) {
            (Cardinality::OneToOne, true) => base.filtered(is_named),
            (Cardinality::OneToOne, false) if !self.matching.labels.is_empty() => {
                base.filtered(|name| !is_named(name))
            }
            _ => base,
        };
        if self.matching.include.is_empty() {
            return base;
        }
        let mut labels = base.to_builder();
        for name in &self.matching.include {
            labels.set(name, one.get(name).unwrap_or(""));
        }
        labels.build()
    }

    /// Several series on a side, or values that fill gaps: step by step, with the checks that go with it.
    fn general(
        &self,
        group: &Group,
        sides: &mut Sides,
        out: &mut Output<'_>,
        annotations: &mut Annotations,
    ) -> Result<(), QueryError> {
        let (fill_many, fill_one) = if self.is_swapped() {
            (self.matching.fill_right, self.matching.fill_left)
        } else {
            (self.matching.fill_left, self.matching.fill_right)
        };
        let mut results: HashMap<(usize, usize), Series> = HashMap::new();
        let mut order = Vec::new();
        let mut held = 0;
        for step in 0..self.steps {
            out.meter.visit(PAIR_VISITS + group.many.len() + group.one.len())?;
            let one = self.only_one(group, sides, step)?;
            let mut seen = HashSet::new();
            let mut matched = false;
            let present: Vec<usize> =
                group.many.iter().copied().filter(|&index| sides.many[index].column.has(step)).collect();
            let pairs: Vec<(usize, usize)> = match (present.is_empty(), one) {
                (false, Some(one)) => present.into_iter().map(|many| (many, one)).collect(),
                (false, None) if fill_one.is_some() => {
                    present.into_iter().map(|many| (many, FILLED)).collect()
                }
                (true, Some(one)) if fill_many.is_some() => vec![(FILLED, one)],
                _ => continue,
            };
            for (many, one) in pairs {
                out.meter.visit(PAIR_VISITS)?;
                let point = |series: &[Series], index: usize, fill: Option<f64>| match series.get(index) {
                    Some(series) => series.column.point(step),
                    None => fill.map(Point::Float),
                };
                let (Some(a), Some(b)) =
                    (point(&sides.many, many, fill_many), point(&sides.one, one, fill_one))
                else {
                    continue;
                };
                let Some(value) = self.combine(&a, &b, annotations) else { continue };
                let result = results.entry((many, one)).or_insert_with(|| {
                    order.push((many, one));
                    self.empty_result(sides, many, one)
                });
                if self.matching.cardinality == Cardinality::OneToOne {
                    if matched {
                        return Err(QueryError::execution(
                            "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
                        ));
                    }
                    matched = true;
                } else if !seen.insert(result.labels.clone()) {
                    return Err(QueryError::execution(
                        "multiple matches for labels: grouping labels must ensure unique matches",
                    ));
                }
                if let Some(value) = value {
                    let before = result.column.len();
                    result.column.push(step, value);
                    // With gaps, since a pair may meet rarely.
                    let grown = result.column.len() - before;
                    out.meter.budget.take(grown)?;
                    held += grown;
                }
            }
        }
        out.meter.budget.put_back(held);
        for key in order {
            if let Some(series) = results.remove(&key) {
                out.add(series)?;
            }
        }
        Ok(())
    }

    /// A result without values for a pair of which one may be filled in.
    fn empty_result(&self, sides: &Sides, many: usize, one: usize) -> Series {
        let filled = |labels: &Labels| Series {
            labels: self.filled_labels(labels),
            drop_name: false,
            column: Column::default(),
        };
        match (sides.many.get(many), sides.one.get(one)) {
            (Some(many), Some(one)) => self.result(many, one, Column::default()),
            (Some(many), None) => self.result(many, &filled(&many.labels), Column::default()),
            (None, Some(one)) => self.result(&filled(&one.labels), one, Column::default()),
            (None, None) => {
                self.result(&filled(&Labels::empty()), &filled(&Labels::empty()), Column::default())
            }
        }
    }

    /// The labels of a series that is not there: those that count for matching.
    fn filled_labels(&self, labels: &Labels) -> Labels {
        signature(labels, self.matching)
    }

    /// The series of the one side that is there at a step.
    fn only_one(&self, group: &Group, sides: &mut Sides, step: usize) -> Result<Option<usize>, QueryError> {
        let mut found = None;
        for &index in &group.one {
            if !sides.one[index].column.has(step) {
                continue;
            }
            let fills = self.matching.fill_left.is_some() || self.matching.fill_right.is_some();
            if let Some(first) = found
                && (fills || sides.many_present(step, self.steps))
            {
                return Err(self.duplicate(&sides.one[index], &sides.one[first]));
            }
            found = Some(index);
        }
        Ok(found)
    }

    fn duplicate(&self, new: &Series, old: &Series) -> QueryError {
        let side = if self.is_swapped() { "left" } else { "right" };
        // The same message whichever came first.
        let (new, old) = if new.labels <= old.labels { (new, old) } else { (old, new) };
        QueryError::execution(format!(
            "found duplicate series for the match group {} on the {side} hand-side of the operation: [{}, {}];many-to-many matching not allowed: matching labels must be unique on one side",
            go_labels(&signature(&new.labels, self.matching)),
            go_labels(&new.labels),
            go_labels(&old.labels)
        ))
    }
}

/// To match two samples takes about as long as to look at so many.
const PAIR_VISITS: usize = 16;

/// Stands for a series that is filled in.
const FILLED: usize = usize::MAX;

struct Sides {
    many: Vec<Series>,
    one: Vec<Series>,
    /// At which steps the many side has anything at all.
    present: Option<Vec<bool>>,
}

impl Sides {
    /// Whether any series of the many side has a value: without one nothing is matched, and nothing
    /// complained about.
    fn many_present(&mut self, step: usize, steps: usize) -> bool {
        let many = &self.many;
        let present = self.present.get_or_insert_with(|| {
            let mut present = vec![false; steps];
            for series in many {
                for step in series.column.bounds() {
                    present[step] |= series.column.has(step);
                }
            }
            present
        });
        present.get(step).copied().unwrap_or(false)
    }
}

/// Results of all groups.
struct Output<'b> {
    by_labels: SeriesByLabels<'b>,
    meter: Meter<'b>,
    series: Vec<Series>,
    steps: usize,
}

impl<'b> Output<'b> {
    fn new(steps: usize, budget: &'b Budget) -> Self {
        let (by_labels, meter) = (SeriesByLabels::new(budget), Meter::new(budget));
        Output { by_labels, meter, series: Vec::new(), steps }
    }

    fn into_series(self) -> Vec<Series> {
        if self.steps == 1 { self.series } else { self.by_labels.into_series() }
    }

    fn add(&mut self, series: Series) -> Result<(), QueryError> {
        if series.column.is_empty() {
            return Ok(());
        }
        if self.steps == 1 {
            // Told apart at the end of the query, when names have gone.
            self.series.push(series);
            return Ok(());
        }
        self.by_labels.add(series)
    }
}

/// Labels as Prometheus' own `String()` prints them: the name is a label like the others.
fn go_labels(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", Quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}
