//! `info`: labels of info metrics (`target_info` and the like) joined to series by `instance` and `job`.

use crate::ast::{Call, NodeId, NodeKind};
use crate::error::QueryError;
use crate::eval::column::{Column, Series};
use crate::eval::{Evaluated, Evaluator, SeriesByLabels};
use crate::plan::Grid;
use crate::storage::{Selection, SelectionHints, SeriesColumns};
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::is_stale_nan;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The info metric that is joined if no other is named.
const TARGET_INFO: &str = "target_info";

/// Labels that say to which series an info series belongs.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// An info series, and when its newest sample was taken at each step.
struct InfoSeries {
    labels: Labels,
    taken_ms: Vec<Option<i64>>,
}

/// Name and identifying labels of info series.
type Identity = (String, [String; 2]);

impl Evaluator<'_> {
    pub(super) fn info(&mut self, id: NodeId, call: &Call) -> Result<Evaluated, QueryError> {
        let grid = self.plan.grids[id.index()];
        let series = call.args.first().map_or(Ok(Vec::new()), |&arg| self.take_vector(arg, grid))?;
        let written: Vec<Matcher> = match call.args.get(1).map(|&arg| &self.plan.expr.node(arg).kind) {
            Some(NodeKind::Selector(selector)) => selector.matchers.clone(),
            _ => Vec::new(),
        };
        let has_selector = call.args.len() > 1;
        let (mut names, data): (Vec<Matcher>, Vec<Matcher>) =
            written.into_iter().partition(|matcher| matcher.name() == METRIC_NAME);
        if !has_selector {
            names = vec![Matcher::equal(METRIC_NAME, TARGET_INFO)];
        }
        // Info series themselves are not enriched.
        let is_info = |labels: &Labels| {
            !names.is_empty() && names.iter().all(|matcher| matcher.matches(labels.metric_name()))
        };
        let infos = self.info_series(&series, &is_info, &names, &data, grid)?;
        let held = infos.len() * grid.steps;
        let join = Join::new(infos, &data);
        let mut out = SeriesByLabels::new(self.budget);
        for series in series {
            if is_info(&series.labels) {
                out.add(series)?;
            } else {
                join.enrich(&series, grid.steps, &mut out)?;
            }
        }
        self.budget.put_back(held);
        Ok(Evaluated::Vector(out.into_series()))
    }

    /// The info series that may belong to any of the series.
    fn info_series(
        &mut self,
        series: &[Series],
        is_info: &dyn Fn(&Labels) -> bool,
        names: &[Matcher],
        data: &[Matcher],
        grid: Grid,
    ) -> Result<Vec<InfoSeries>, QueryError> {
        let mut matchers = Vec::new();
        for label in IDENTIFYING {
            let values: BTreeSet<&str> = series
                .iter()
                .filter(|series| !is_info(&series.labels))
                .filter_map(|series| series.labels.get(label))
                .collect();
            if !values.is_empty() {
                let pattern = values.iter().map(|value| regex::escape(value)).collect::<Vec<_>>().join("|");
                let matcher = Matcher::new(label, MatchOp::Regex, pattern);
                matchers.push(matcher.map_err(|error| QueryError::execution(error.to_string()))?);
            }
        }
        if matchers.is_empty() || grid.steps == 0 {
            return Ok(Vec::new());
        }
        if names.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, TARGET_INFO));
        }
        matchers.extend(names.iter().chain(data).cloned());
        let lookback_ms = self.plan.setting.lookback_ms;
        let selection = Selection {
            matchers: &matchers,
            start_ms: grid.start_ms.saturating_sub(lookback_ms - 1),
            end_ms: grid.end_ms(),
            hints: SelectionHints { function: "info", ..SelectionHints::default() },
        };
        let mut found = Vec::new();
        let mut set = self.storage.select(&selection, self.budget)?;
        while let Some(series) = set.next_series()? {
            self.budget.check()?;
            let cost = series.cost();
            self.stats.series_read += 1;
            self.stats.samples_read += cost;
            if !series.histograms.is_empty() {
                return Err(QueryError::execution(format!(
                    "this should be an info metric, with float samples: {}",
                    series.labels
                )));
            }
            self.budget.take(grid.steps)?;
            found.push(newest_times(&series, grid, lookback_ms));
            self.budget.put_back(cost);
        }
        Ok(found)
    }
}

fn newest_times(series: &SeriesColumns, grid: Grid, lookback_ms: i64) -> InfoSeries {
    let mut next = 0;
    let taken_ms = (0..grid.steps)
        .map(|step| {
            let time_ms = grid.time(step);
            while series.timestamps.get(next).is_some_and(|&taken| taken <= time_ms) {
                next += 1;
            }
            let newest = next.checked_sub(1)?;
            let taken = *series.timestamps.get(newest)?;
            let is_gone = series.values.get(newest).is_none_or(|&value| is_stale_nan(value));
            (taken > time_ms - lookback_ms && !is_gone).then_some(taken)
        })
        .collect();
    InfoSeries { labels: series.labels.clone(), taken_ms }
}

/// Info series by what they belong to.
struct Join<'d> {
    infos: Vec<InfoSeries>,
    by_identity: HashMap<Identity, Vec<usize>>,
    names: BTreeSet<String>,
    /// Which labels to take, and which values they must have.
    data: &'d [Matcher],
}

impl<'d> Join<'d> {
    fn new(infos: Vec<InfoSeries>, data: &'d [Matcher]) -> Self {
        let mut by_identity: HashMap<Identity, Vec<usize>> = HashMap::new();
        let mut names = BTreeSet::new();
        for (index, info) in infos.iter().enumerate() {
            let name = info.labels.metric_name().to_owned();
            names.insert(name.clone());
            by_identity.entry(identity(name, &info.labels)).or_default().push(index);
        }
        Join { infos, by_identity, names, data }
    }

    /// Adds a series to `out`, split up by the labels that its info series give it over time.
    fn enrich(&self, series: &Series, steps: usize, out: &mut SeriesByLabels<'_>) -> Result<(), QueryError> {
        let candidates: Vec<&[usize]> = self
            .names
            .iter()
            .filter_map(|name| self.by_identity.get(&identity(name.clone(), &series.labels)))
            .map(Vec::as_slice)
            .collect();
        let mut enriched: BTreeMap<Vec<usize>, (Option<Labels>, Column)> = BTreeMap::new();
        for step in series.column.bounds().start..series.column.bounds().end.min(steps) {
            let Some(point) = series.column.point(step) else { continue };
            let mut matched = Vec::with_capacity(candidates.len());
            for candidates in &candidates {
                matched.extend(self.newest(candidates, step)?);
            }
            let (labels, column) = match enriched.entry(matched) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let labels = self.labels(&series.labels, entry.key())?;
                    entry.insert((labels, Column::default()))
                }
            };
            if labels.is_some() {
                column.push(step, point);
            }
        }
        for (labels, column) in enriched.into_values() {
            if let Some(labels) = labels {
                out.add(Series { labels, drop_name: series.drop_name, column })?;
            }
        }
        Ok(())
    }

    /// Of info series with one identity the one with the newest sample.
    fn newest(&self, candidates: &[usize], step: usize) -> Result<Option<usize>, QueryError> {
        let mut newest: Option<(i64, usize)> = None;
        for &index in candidates {
            let Some(taken_ms) = self.infos[index].taken_ms.get(step).copied().flatten() else { continue };
            match newest {
                Some((known_ms, known)) if known_ms == taken_ms => {
                    return Err(QueryError::execution(format!(
                        "found duplicate series for info metric: existing {} @ {known_ms}, new {} @ {taken_ms}",
                        self.infos[known].labels, self.infos[index].labels
                    )));
                }
                Some((known_ms, _)) if known_ms > taken_ms => {}
                _ => newest = Some((taken_ms, index)),
            }
        }
        Ok(newest.map(|(_, index)| index))
    }

    /// The labels of a series with those of its info series; `None` if it lacks what is asked for.
    fn labels(&self, base: &Labels, matched: &[usize]) -> Result<Option<Labels>, QueryError> {
        if matched.is_empty() {
            let lacks = self.data.iter().any(|matcher| !matcher.matches_empty());
            return Ok((!lacks).then(|| base.clone()));
        }
        let mut added: BTreeMap<&str, &str> = BTreeMap::new();
        for &index in matched {
            for (name, value) in self.infos[index].labels.iter() {
                let is_wanted =
                    self.data.is_empty() || self.data.iter().any(|matcher| matcher.name() == name);
                if name == METRIC_NAME || !is_wanted {
                    continue;
                }
                if added.get(name).is_some_and(|known| *known != value) {
                    return Err(QueryError::execution(format!("conflicting label: {name}")));
                }
                if base.get(name).is_none() {
                    added.insert(name, value);
                }
            }
        }
        let mut labels = base.to_builder();
        for (name, value) in added {
            labels.set(name, value);
        }
        Ok(Some(labels.build()))
    }
}

fn identity(name: String, labels: &Labels) -> Identity {
    (name, IDENTIFYING.map(|label| labels.get(label).unwrap_or("").to_owned()))
}
