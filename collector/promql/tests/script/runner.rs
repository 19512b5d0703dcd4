//! Runs scripts.

use super::command::{Command, Eval, Numbered, Text, parse};
use super::compare::{floats_match, histograms_match};
use super::memory::Memory;
use super::nhcb;
use super::series::SequenceValue;
use super::summing::Summing;
use pharos_common::labels::Labels;
use pharos_promql::storage::Storage;
use pharos_promql::{Engine, MatrixSeries, QueryError, QueryOptions, QueryResult, SampleValue, Value};

/// What a script's cases came to.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failures: Vec<(usize, String)>,
}

/// Runs all commands of a script.
pub(crate) fn run(script: &str) -> Report {
    let mut report = Report::default();
    let commands = match parse(script) {
        Ok(commands) => commands,
        Err(error) => {
            report.failures.push((0, error));
            return report;
        }
    };
    let engine = Engine::default();
    let mut memory = Memory::default();
    for Numbered { line, command } in commands {
        match command {
            Command::Clear => memory = Memory::default(),
            Command::Load { gap_ms, with_nhcb, series } => {
                for (labels, values) in &series {
                    load(&mut memory, labels, values, gap_ms);
                }
                if with_nhcb {
                    nhcb::convert(&series, gap_ms, &mut memory);
                }
                memory.note_resets();
            }
            Command::Eval(eval) => match check(&engine, &memory, &eval) {
                Ok(()) => match check(&engine, &Summing(&memory), &eval) {
                    Ok(()) => report.passed += 1,
                    Err(error) => {
                        report.failures.push((line, format!("{}: from summaries: {error}", eval.query)));
                    }
                },
                Err(error) => report.failures.push((line, format!("{}: {error}", eval.query))),
            },
        }
    }
    report
}

fn load(memory: &mut Memory, labels: &Labels, values: &[SequenceValue], gap_ms: i64) {
    for (index, value) in values.iter().enumerate() {
        let timestamp_ms = index as i64 * gap_ms;
        match value {
            SequenceValue::Omitted => {}
            SequenceValue::Float(value) => memory.add_float(labels, timestamp_ms, *value),
            SequenceValue::Histogram(histogram, _) => {
                memory.add_histogram(labels, timestamp_ms, (**histogram).clone());
            }
        }
    }
}

fn check(engine: &Engine, storage: &dyn Storage, eval: &Eval) -> Result<(), String> {
    let options = QueryOptions::default();
    let result = match eval.step_ms {
        None => engine.instant(storage, &eval.query, eval.start_ms, &options),
        Some(step_ms) => engine.range(storage, &eval.query, eval.start_ms, eval.end_ms, step_ms, &options),
    };
    check_result(eval, result)?;
    if eval.step_ms.is_none() {
        check_as_range(engine, storage, eval)?;
    }
    Ok(())
}

fn check_result(eval: &Eval, result: Result<QueryResult, QueryError>) -> Result<(), String> {
    let result = match (&eval.fail, result) {
        (Some(text), Err(error)) => {
            let error = error.to_string();
            return if text.accepts(&error) { Ok(()) } else { Err(format!("failed otherwise: {error}")) };
        }
        (Some(_), Ok(_)) => return Err("did not fail".to_owned()),
        (None, Err(error)) => return Err(format!("failed: {error}")),
        (None, Ok(result)) => result,
    };
    check_remarks("warning", &eval.warn, eval.no_warn, &result.warnings)?;
    check_remarks("info", &eval.info, eval.no_info, &result.infos)?;
    match (eval.step_ms, &result.value) {
        (_, Value::String { text, .. }) => match &eval.string {
            Some(wanted) if wanted == text => Ok(()),
            wanted => Err(format!("want string {wanted:?}, got {text:?}")),
        },
        (_, Value::Scalar(sample)) => match eval.scalar {
            Some(wanted) if floats_match(wanted, sample.value) => Ok(()),
            wanted => Err(format!("want {wanted:?}, got {}", sample.value)),
        },
        (_, Value::Vector(samples)) => {
            if let Some(wanted) = eval.scalar {
                return Err(format!("want scalar {wanted}, got a vector"));
            }
            let found: Vec<_> = samples.iter().map(|sample| (&sample.labels, &sample.value)).collect();
            compare_vector(eval, &found, eval.ordered)
        }
        (Some(step_ms), Value::Matrix(matrix)) => compare_matrix(eval, matrix, eval.start_ms, step_ms),
        (None, Value::Matrix(matrix)) => match eval.range_vector {
            Some((from, _, step_ms)) => compare_matrix(eval, matrix, from, step_ms),
            None if eval.series.is_empty() && matrix.is_empty() => Ok(()),
            None => Err("a range vector needs `expect range vector`".to_owned()),
        },
    }
}

fn check_remarks(kind: &str, wanted: &[Text], none: bool, found: &[String]) -> Result<(), String> {
    if none && !found.is_empty() {
        return Err(format!("want no {kind}, got {found:?}"));
    }
    for text in wanted {
        if !found.iter().any(|found| text.accepts(found)) {
            let text = match text {
                Text::Any => "any",
                Text::Exactly(text) | Text::Regex(text) => text,
            };
            return Err(format!("want {kind} {text:?}, got {found:?}"));
        }
    }
    Ok(())
}

fn value_matches(wanted: &SequenceValue, found: &SampleValue) -> bool {
    match (wanted, found) {
        (SequenceValue::Float(wanted), SampleValue::Float(found)) => floats_match(*wanted, *found),
        (SequenceValue::Histogram(wanted, hinted), SampleValue::Histogram(found)) => {
            histograms_match(wanted, found, *hinted)
        }
        _ => false,
    }
}

fn compare_vector(eval: &Eval, found: &[(&Labels, &SampleValue)], ordered: bool) -> Result<(), String> {
    for (position, (labels, value)) in found.iter().enumerate() {
        let wanted = eval.series.iter().position(|(wanted, _)| wanted == *labels);
        let Some(wanted) = wanted else { return Err(format!("unexpected {labels} = {value:?}")) };
        if ordered && wanted != position {
            return Err(format!("{labels} at place {position}, want {wanted}"));
        }
        let values = &eval.series[wanted].1;
        if !values.first().is_some_and(|wanted| value_matches(wanted, value)) {
            return Err(format!("{labels}: want {:?}, got {value:?}", values.first()));
        }
    }
    match eval.series.iter().find(|(wanted, _)| !found.iter().any(|(labels, _)| *labels == wanted)) {
        Some((missing, _)) => Err(format!("missing {missing}")),
        None => Ok(()),
    }
}

fn compare_matrix(eval: &Eval, matrix: &[MatrixSeries], start_ms: i64, step_ms: i64) -> Result<(), String> {
    if let Some(wanted) = eval.scalar {
        let [series] = matrix else { return Err(format!("want scalar {wanted}")) };
        let matches = series.floats.iter().all(|sample| floats_match(wanted, sample.value));
        return if matches { Ok(()) } else { Err(format!("want {wanted}, got {:?}", series.floats)) };
    }
    for series in matrix {
        let wanted = eval.series.iter().find(|(labels, _)| *labels == series.labels);
        let Some((_, wanted)) = wanted else { return Err(format!("unexpected {series:?}")) };
        let mut found: Vec<(i64, SampleValue)> = series
            .floats
            .iter()
            .map(|sample| (sample.timestamp_ms, SampleValue::Float(sample.value)))
            .chain(
                series
                    .histograms
                    .iter()
                    .map(|sample| (sample.timestamp_ms, SampleValue::Histogram(sample.histogram.clone()))),
            )
            .collect();
        found.sort_by_key(|(timestamp_ms, _)| *timestamp_ms);
        let wanted: Vec<(i64, &SequenceValue)> = wanted
            .iter()
            .enumerate()
            .filter(|(_, value)| !matches!(value, SequenceValue::Omitted))
            .map(|(index, value)| (start_ms + index as i64 * step_ms, value))
            .collect();
        let matches = wanted.len() == found.len()
            && wanted
                .iter()
                .zip(&found)
                .all(|((at, wanted), (time, value))| at == time && value_matches(wanted, value));
        if !matches {
            return Err(format!("{}: want {wanted:?}, got {found:?}", series.labels));
        }
    }
    let missing = eval.series.iter().find(|(labels, values)| {
        values.iter().any(|value| !matches!(value, SequenceValue::Omitted))
            && !matrix.iter().any(|series| series.labels == *labels)
    });
    match missing {
        Some((labels, _)) => Err(format!("missing {labels}")),
        None => Ok(()),
    }
}

/// An instant query must give what a range query gives at that time.
fn check_as_range(engine: &Engine, storage: &dyn Storage, eval: &Eval) -> Result<(), String> {
    let depends_on_range =
        ["start()", "end()", "range()", "step()"].iter().any(|word| eval.query.contains(word));
    let is_rangeable = eval.fail.is_none()
        && !eval.ordered
        && !depends_on_range
        && eval.string.is_none()
        && eval.range_vector.is_none();
    if !is_rangeable {
        return Ok(());
    }
    let (time, minute) = (eval.start_ms, 60_000);
    let result =
        engine.range(storage, &eval.query, time - minute, time + minute, minute, &QueryOptions::default());
    let matrix = match result {
        Ok(QueryResult { value: Value::Matrix(matrix), .. }) => matrix,
        Err(QueryError::NotARangeExpression { .. }) => return Ok(()),
        other => return Err(format!("as a range: {other:?}")),
    };
    let at_time: Vec<(&Labels, SampleValue)> = matrix
        .iter()
        .filter_map(|series| {
            let float = series
                .floats
                .iter()
                .find(|sample| sample.timestamp_ms == time)
                .map(|sample| SampleValue::Float(sample.value));
            let histogram = || {
                series
                    .histograms
                    .iter()
                    .find(|sample| sample.timestamp_ms == time)
                    .map(|sample| SampleValue::Histogram(sample.histogram.clone()))
            };
            Some((&series.labels, float.or_else(histogram)?))
        })
        .collect();
    if let Some(wanted) = eval.scalar {
        return match at_time.as_slice() {
            [(_, SampleValue::Float(found))] if floats_match(wanted, *found) => Ok(()),
            found => Err(format!("as a range: want {wanted}, got {found:?}")),
        };
    }
    let found: Vec<_> = at_time.iter().map(|(labels, value)| (*labels, value)).collect();
    compare_vector(eval, &found, false).map_err(|error| format!("as a range: {error}"))
}
