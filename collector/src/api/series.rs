//! `/series`, `/labels` and `/label/<name>/values`.

use super::answer::{Answer, ApiError, envelope, stream_json, success_with};
use super::json::{push_labels, write_list};
use super::parameters::Parameters;
use crate::collector::Collector;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use pharos_common::labels::Labels;
use pharos_common::matcher::Matcher;
use pharos_common::sample::TimestampMs;
use pharos_tsdb::{Database, TsdbError};
use std::collections::BTreeSet;
use std::sync::Arc;

const TRUNCATED: &str = "results truncated due to limit";

/// The selectors of `match[]`.
pub(crate) fn selectors(parameters: &Parameters) -> Result<Vec<Vec<Matcher>>, ApiError> {
    parameters
        .all("match[]")
        .map(|text| {
            pharos_promql::parse_selector(text).map_err(|error| ApiError::parameter("match[]", error))
        })
        .collect()
}

/// Runs a search on a thread for blocking work.
async fn search<T: Send + 'static>(
    collector: &Collector,
    work: impl FnOnce(&Database) -> Result<T, TsdbError> + Send + 'static,
) -> Result<T, ApiError> {
    let database = collector.database.clone();
    tokio::task::spawn_blocking(move || work(&database)).await.map_err(ApiError::internal)?.map_err(|error| {
        ApiError::new(axum::http::StatusCode::UNPROCESSABLE_ENTITY, "execution", error.to_string())
    })
}

/// Cuts a list; says whether something is gone.
fn cut<T>(list: &mut Vec<T>, limit: Option<usize>) -> Vec<String> {
    match limit {
        Some(limit) if list.len() > limit => {
            list.truncate(limit);
            vec![TRUNCATED.to_owned()]
        }
        _ => Vec::new(),
    }
}

/// `/api/v1/series`
pub(crate) async fn series(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    parameters.insist_on_all()?;
    let selectors = selectors(&parameters)?;
    if selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let limit = parameters.limit()?;
    let (start_ms, end_ms) = parameters.search_range()?;
    let mut found = search(&collector, move |database| {
        let mut found: Vec<Labels> = Vec::new();
        for matchers in &selectors {
            found.extend(database.series(matchers, start_ms, end_ms)?);
        }
        if selectors.len() > 1 {
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    })
    .await?;
    let warnings = cut(&mut found, limit);
    Ok(stream_json(parameters.encoding, move |out| {
        envelope(out, &warnings, &[], |out| {
            write_list(out, &found, |out, labels| {
                push_labels(out, labels);
                Ok(())
            })
        })
    }))
}

/// Names or values over all selectors, sorted.
async fn strings(
    collector: &Collector,
    parameters: &Parameters,
    list: impl Fn(&Database, &[Matcher], TimestampMs, TimestampMs) -> Result<Vec<String>, TsdbError>
    + Send
    + 'static,
) -> Answer {
    let mut selectors = selectors(parameters)?;
    let limit = parameters.limit()?;
    let (start_ms, end_ms) = parameters.search_range()?;
    let mut found = search(collector, move |database| {
        if selectors.is_empty() {
            selectors.push(Vec::new());
        }
        let mut found = BTreeSet::new();
        for matchers in &selectors {
            found.extend(list(database, matchers, start_ms, end_ms)?);
        }
        Ok(found.into_iter().collect::<Vec<_>>())
    })
    .await?;
    let warnings = cut(&mut found, limit);
    success_with(&found, &warnings, parameters.encoding)
}

/// `/api/v1/labels`
pub(crate) async fn labels(State(collector): State<Arc<Collector>>, parameters: Parameters) -> Answer {
    strings(&collector, &parameters, |database, matchers, start_ms, end_ms| {
        database.label_names(matchers, start_ms, end_ms)
    })
    .await
}

/// `/api/v1/label/<name>/values`
pub(crate) async fn label_values(
    State(collector): State<Arc<Collector>>,
    name: Result<Path<String>, PathRejection>,
    parameters: Parameters,
) -> Answer {
    // What is no UTF-8 is no name.
    let name = name.map_or_else(|_| String::new(), |Path(name)| unescape_name(&name));
    if name.is_empty() {
        return Err(ApiError::bad_data(format!("invalid label name: {name:?}")));
    }
    strings(&collector, &parameters, move |database, matchers, start_ms, end_ms| {
        database.label_values(&name, matchers, start_ms, end_ms)
    })
    .await
}

/// `U__a_2e_b` is `a.b`: how a name that a path cannot carry is written.
fn unescape_name(name: &str) -> String {
    let Some(escaped) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((plain, after)) = rest.split_once('_') {
        out.push_str(plain);
        if let Some(after) = after.strip_prefix('_') {
            out.push('_');
            rest = after;
            continue;
        }
        let code = after.split_once('_').and_then(|(digits, tail)| {
            let valid = (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let code = if valid { u32::from_str_radix(digits, 16).ok()? } else { return None };
            Some((char::from_u32(code)?, tail))
        });
        match code {
            Some((c, tail)) => {
                out.push(c);
                rest = tail;
            }
            // Not an escaped name after all.
            None => return name.to_owned(),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::unescape_name;

    #[test]
    fn escaped_names_are_read() {
        assert_eq!(unescape_name("job"), "job");
        assert_eq!(unescape_name("U__a_2e_b"), "a.b");
        assert_eq!(unescape_name("U__a__b_1F525_"), "a_b🔥");
        assert_eq!(unescape_name("U__a_zz_b"), "U__a_zz_b");
        assert_eq!(unescape_name("U__a_2e"), "U__a_2e");
    }
}
