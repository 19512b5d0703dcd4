//! `histogram_quantile`, `histogram_quantiles` and `histogram_fraction`: of classic histograms, whose
//! buckets are series told apart by `le`, and of native ones.

use crate::annotations::{Annotations, Place, for_metric};
use crate::ast::{Call, NodeId};
use crate::error::QueryError;
use crate::eval::column::{Column, Point, Series};
use crate::eval::meter::Meter;
use crate::eval::{Evaluated, Evaluator, Scalar};
use crate::functions::classic_histogram::{self, Bucket, Mended};
use crate::functions::quantile::invalid;
use crate::number::{format_general, format_openmetrics, parse_float};
use crate::plan::Grid;
use crate::quote::go_quote;
use crate::storage::Budget;
use pharos_common::labels::Labels;
use std::collections::HashMap;

const BUCKET_LABEL: &str = "le";

/// Histograms of a vector, classic and native ones.
struct Histograms<'s> {
    classic: Vec<Classic<'s>>,
    native: Vec<&'s Series>,
}

/// The buckets of one classic histogram.
struct Classic<'s> {
    /// Labels but `le`.
    labels: Labels,
    /// Upper bounds and their series.
    buckets: Vec<(f64, &'s Series)>,
    /// The native histogram with the same labels: at steps where both are, neither counts.
    native: Option<&'s Series>,
}

impl<'s> Histograms<'s> {
    fn of(series: &'s [Series], place: &Place, annotations: &mut Annotations) -> Self {
        let mut index: HashMap<Labels, usize, foldhash::fast::RandomState> = HashMap::default();
        let mut histograms = Histograms { classic: Vec::new(), native: Vec::new() };
        for series in series {
            if series.column.has_histograms() {
                histograms.native.push(series);
            }
            let has_floats =
                series.column.floats().iter().any(|&value| !crate::eval::column::is_absent(value));
            if !has_floats {
                continue;
            }
            let bound = series.labels.get(BUCKET_LABEL).unwrap_or("");
            let Some(upper) = parse_float(bound) else {
                let text = format!(
                    "bucket label \"le\" is missing or has a malformed value of {}{}",
                    go_quote(bound),
                    for_metric(series.labels.metric_name())
                );
                annotations.warn(&text, place);
                continue;
            };
            let labels = series.labels.filtered(|name| name != BUCKET_LABEL);
            let next = histograms.classic.len();
            let classic = *index.entry(labels).or_insert_with_key(|labels| {
                let labels = labels.clone();
                histograms.classic.push(Classic { labels, buckets: Vec::new(), native: None });
                next
            });
            histograms.classic[classic].buckets.push((upper, series));
        }
        for native in &histograms.native {
            if let Some(&classic) = index.get(&native.labels) {
                histograms.classic[classic].native = Some(native);
            }
        }
        histograms
    }
}

impl Classic<'_> {
    /// Puts the buckets at a step into `buckets`; whether there are any that count.
    fn at(&self, step: usize, buckets: &mut Vec<Bucket>) -> bool {
        buckets.clear();
        buckets.extend(self.buckets.iter().filter_map(|&(upper, series)| {
            let count = series.column.float(step);
            (!crate::eval::column::is_absent(count)).then_some(Bucket { upper, count })
        }));
        !buckets.is_empty() && self.native.is_none_or(|native| native.column.histogram(step).is_none())
    }

    fn has(&self, step: usize) -> bool {
        self.buckets.iter().any(|(_, series)| !crate::eval::column::is_absent(series.column.float(step)))
    }
}

/// To put a bucket in its place takes about as long as to look at so many samples, ...
const BUCKET_VISITS: usize = 8;
/// ... and a native histogram has about so many buckets.
const NATIVE_VISITS: usize = 160;

/// Evaluates all histograms of a vector at all steps.
fn each(
    series: &[Series],
    grid: Grid,
    place: &Place,
    annotations: &mut Annotations,
    budget: &Budget,
    mut classic_value: impl FnMut(usize, &Labels, &mut Vec<Bucket>, &mut Annotations) -> f64,
    mut native_value: impl FnMut(usize, &Series, &mut Annotations) -> Option<f64>,
) -> Result<Vec<Series>, QueryError> {
    let meter = Meter::new(budget);
    let histograms = Histograms::of(series, place, annotations);
    let mut out = Vec::new();
    for native in &histograms.native {
        let twin = histograms.classic.iter().find(|classic| classic.labels == native.labels);
        let mut column = Column::default();
        for step in native.column.bounds() {
            meter.visit(NATIVE_VISITS)?;
            if native.column.histogram(step).is_none() {
                continue;
            }
            if twin.is_some_and(|classic| classic.has(step)) {
                let text = format!(
                    "vector contains a mix of classic and native histograms{}",
                    for_metric(native.labels.metric_name())
                );
                annotations.warn(&text, place);
                continue;
            }
            if let Some(value) = native_value(step, native, annotations) {
                column.push_float(step, value);
            }
        }
        if !column.is_empty() {
            out.push(Series { labels: native.labels.clone(), drop_name: true, column });
        }
    }
    let mut buckets = Vec::new();
    for classic in &histograms.classic {
        let mut column = Column::default();
        for step in 0..grid.steps {
            meter.visit(BUCKET_VISITS * classic.buckets.len())?;
            if classic.at(step, &mut buckets) {
                column.push_float(step, classic_value(step, &classic.labels, &mut buckets, annotations));
            }
        }
        if !column.is_empty() {
            out.push(Series { labels: classic.labels.clone(), drop_name: true, column });
        }
    }
    Ok(out)
}

/// Remarks on mended buckets, one per metric for all steps.
#[derive(Default)]
struct MendedBuckets {
    by_metric: Vec<(String, Mended, usize, i64, i64)>,
}

impl MendedBuckets {
    fn add(&mut self, labels: &Labels, mended: Mended, time_ms: i64) {
        let name = labels.metric_name();
        match self.by_metric.iter_mut().find(|(known, ..)| known == name) {
            Some((_, all, count, _, last_ms)) => {
                all.first = all.first.min(mended.first);
                all.last = all.last.max(mended.last);
                all.most = all.most.max(mended.most);
                *count += 1;
                *last_ms = time_ms.max(*last_ms);
            }
            None => self.by_metric.push((name.to_owned(), mended, 1, time_ms, time_ms)),
        }
    }

    fn remark(self, place: &Place, annotations: &mut Annotations) {
        for (name, mended, count, first_ms, last_ms) in self.by_metric {
            let text = format!(
                "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}, from buckets {} to {}, with a max diff of {}, over {count} samples from {} to {}",
                for_metric(&name),
                format_general(mended.first),
                format_general(mended.last),
                two_digits(mended.most),
                crate::functions::dates::rfc3339(first_ms),
                crate::functions::dates::rfc3339(last_ms),
            );
            annotations.info(&text, place);
        }
    }
}

/// Go's `%.2g`.
fn two_digits(value: f64) -> String {
    let rounded: f64 = format!("{value:.1e}").parse().unwrap_or(value);
    let exponent = if rounded == 0.0 { 0 } else { rounded.abs().log10().floor() as i32 };
    if (-4..2).contains(&exponent) {
        crate::number::format_float(rounded)
    } else {
        let text = format!("{rounded:e}");
        match text.split_once('e') {
            Some((mantissa, _)) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.abs())
            }
            None => text,
        }
    }
}

impl Evaluator<'_> {
    fn argument_place(&self, arg: Option<NodeId>) -> Place {
        arg.map_or(Place(String::new()), |arg| self.place(self.plan.expr.unparenthesised(arg)))
    }

    pub(super) fn histogram_quantile(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let &[share_arg, vector_arg] = call.args.as_slice() else { return Ok(Evaluated::Vector(Vec::new())) };
        let (share_place, vector_place) =
            (self.argument_place(Some(share_arg)), self.argument_place(Some(vector_arg)));
        let shares = self.take_scalar(share_arg, grid)?;
        let series = self.take_vector(vector_arg, grid)?;
        let mut annotations = std::mem::take(&mut self.annotations);
        remark_on_shares(&shares, grid, &share_place, &mut annotations);
        let out =
            quantiles(&series, &shares, grid, &share_place, &vector_place, &mut annotations, self.budget)?;
        self.annotations.merge(annotations);
        Ok(Evaluated::Vector(out))
    }

    pub(super) fn histogram_quantiles(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let [vector_arg, label, shares @ ..] = call.args.as_slice() else {
            return Ok(Evaluated::Vector(Vec::new()));
        };
        let label = self.text(*label);
        let vector_place = self.argument_place(Some(*vector_arg));
        let shares: Vec<(Scalar, Place)> = shares
            .iter()
            .map(|&share| Ok((self.take_scalar(share, grid)?, self.argument_place(Some(share)))))
            .collect::<Result<_, QueryError>>()?;
        let series = self.take_vector(*vector_arg, grid)?;
        let mut annotations = std::mem::take(&mut self.annotations);
        let mut all: Vec<Series> = Vec::new();
        for (shares, share_place) in &shares {
            remark_on_shares(shares, grid, share_place, &mut annotations);
            let found = quantiles(
                &series,
                shares,
                grid,
                &vector_place,
                &vector_place,
                &mut annotations,
                self.budget,
            )?;
            for series in found {
                self.budget.check()?;
                add_by_share(&mut all, series, &label, shares);
            }
        }
        self.annotations.merge(annotations);
        Ok(Evaluated::Vector(all))
    }

    pub(super) fn histogram_fraction(&mut self, call: &Call, grid: Grid) -> Result<Evaluated, QueryError> {
        let &[lower, upper, vector] = call.args.as_slice() else { return Ok(Evaluated::Vector(Vec::new())) };
        let first_place = self.argument_place(Some(lower));
        let vector_place = self.argument_place(Some(vector));
        let (lower, upper) = (self.take_scalar(lower, grid)?, self.take_scalar(upper, grid)?);
        let series = self.take_vector(vector, grid)?;
        let mut annotations = std::mem::take(&mut self.annotations);
        let out = each(
            &series,
            grid,
            &vector_place,
            &mut annotations,
            self.budget,
            |step, _, buckets, _| classic_histogram::fraction(lower.at(step), upper.at(step), buckets),
            |step, series, annotations| {
                let histogram = series.column.histogram(step)?;
                let name = series.labels.metric_name();
                let remarks = crate::histogram::Remarks { name, place: &first_place, annotations };
                Some(crate::histogram::fraction(lower.at(step), upper.at(step), histogram, remarks))
            },
        )?;
        self.annotations.merge(annotations);
        Ok(Evaluated::Vector(out))
    }
}

fn remark_on_shares(shares: &Scalar, grid: Grid, place: &Place, annotations: &mut Annotations) {
    let mut last = None;
    for step in 0..grid.steps {
        let share = shares.at(step);
        if last != Some(share.to_bits()) {
            last = Some(share.to_bits());
            if let Some(text) = invalid(share) {
                annotations.warn(&text, place);
            }
        }
        if matches!(shares, Scalar::Constant(_)) {
            break;
        }
    }
}

fn quantiles(
    series: &[Series],
    shares: &Scalar,
    grid: Grid,
    share_place: &Place,
    vector_place: &Place,
    annotations: &mut Annotations,
    budget: &Budget,
) -> Result<Vec<Series>, QueryError> {
    let mut all_mended = MendedBuckets::default();
    let out = each(
        series,
        grid,
        vector_place,
        annotations,
        budget,
        |step, labels, buckets, _| {
            let (value, mended) = classic_histogram::quantile(shares.at(step), buckets);
            if let Some(mended) = mended {
                all_mended.add(labels, mended, grid.time(step));
            }
            value
        },
        |step, series, annotations| {
            let histogram = series.column.histogram(step)?;
            let name = series.labels.metric_name();
            let remarks = crate::histogram::Remarks { name, place: share_place, annotations };
            Some(crate::histogram::quantile(shares.at(step), histogram, remarks))
        },
    )?;
    all_mended.remark(vector_place, annotations);
    Ok(out)
}

/// Adds a series once per share it has over time, with the share as a label.
fn add_by_share(all: &mut Vec<Series>, series: Series, label: &str, shares: &Scalar) {
    let labelled = |share: f64| {
        let mut labels = series.labels.to_builder();
        labels.set(label, &format_openmetrics(share));
        labels.build()
    };
    if let Scalar::Constant(share) = shares {
        all.push(Series { labels: labelled(*share), ..series });
        return;
    }
    // A share of its own at each step makes as many series as there are steps.
    let mut by_share: HashMap<u64, usize, foldhash::fast::RandomState> = HashMap::default();
    for (step, point) in series.column.points() {
        let Point::Float(value) = point else { continue };
        let share = shares.at(step);
        let index = *by_share.entry(share.to_bits()).or_insert_with(|| {
            let column = Column::default();
            all.push(Series { labels: labelled(share), drop_name: series.drop_name, column });
            all.len() - 1
        });
        all[index].column.push_float(step, value);
    }
}
