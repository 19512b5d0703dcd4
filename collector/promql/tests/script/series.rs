//! Series as scripts write them: a metric and a sequence of values.

use super::histogram;
use pharos_common::histogram::FloatHistogram;
use pharos_common::labels::{Labels, METRIC_NAME};
use pharos_common::sample::STALE_NAN;

/// A value of a sequence.
#[derive(Clone, Debug)]
pub(crate) enum SequenceValue {
    /// `_`
    Omitted,
    Float(f64),
    /// A histogram, and whether its reset hint is written.
    Histogram(Box<FloatHistogram>, bool),
}

/// Splits a line into its metric and its values.
pub(crate) fn parse(line: &str) -> Result<(Labels, Vec<SequenceValue>), String> {
    let end = metric_end(line);
    let (metric, values) = line.split_at(end);
    Ok((parse_metric(metric.trim())?, parse_values(values)?))
}

/// Where the metric ends: at the brace that closes its labels, or at the first blank.
fn metric_end(line: &str) -> usize {
    let name_end = line.find(|c: char| c.is_whitespace() || c == '{').unwrap_or(line.len());
    let after_name = line[name_end..].trim_start();
    if !after_name.starts_with('{') || after_name.starts_with("{{") {
        return name_end;
    }
    let mut quote = None;
    let mut escaped = false;
    for (index, c) in line.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(q) if c == '\\' && q != '`' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if c == '}' => return index + 1,
            None => {}
        }
    }
    line.len()
}

pub(crate) fn parse_metric(text: &str) -> Result<Labels, String> {
    if text.replace(char::is_whitespace, "") == "{}" || text.is_empty() {
        return Ok(Labels::empty());
    }
    let (matchers, dummy_name) = match pharos_promql::parse_selector(text) {
        Ok(matchers) => (matchers, false),
        // A set whose labels are all empty selects nothing, but is a fine metric.
        Err(error) => match pharos_promql::parse_selector(&format!("x{text}")) {
            Ok(matchers) => (matchers, true),
            Err(_) => return Err(error.to_string()),
        },
    };
    let pairs = matchers
        .iter()
        .filter(|matcher| !(dummy_name && matcher.name() == METRIC_NAME))
        .map(|matcher| (matcher.name().to_owned(), matcher.value().to_owned()));
    Ok(Labels::from_pairs(pairs))
}

fn parse_values(text: &str) -> Result<Vec<SequenceValue>, String> {
    let mut values = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = item_end(rest);
        let (item, after) = rest.split_at(end);
        parse_item(item, &mut values).map_err(|error| format!("{item}: {error}"))?;
        rest = after.trim_start();
    }
    Ok(values)
}

/// Items end at blanks outside `{{…}}`.
fn item_end(text: &str) -> usize {
    let mut depth = 0;
    let bytes = text.as_bytes();
    for (index, &byte) in bytes.iter().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b if b.is_ascii_whitespace() && depth == 0 => return index,
            _ => {}
        }
    }
    text.len()
}

fn parse_item(item: &str, values: &mut Vec<SequenceValue>) -> Result<(), String> {
    if item.starts_with("{{") {
        return histogram::parse_item(item, values);
    }
    if let Some(times) = item.strip_prefix('_') {
        let times = match times.strip_prefix('x') {
            Some(times) => times.parse::<usize>().map_err(|error| error.to_string())?,
            None => 1,
        };
        values.extend(std::iter::repeat_n(SequenceValue::Omitted, times));
        return Ok(());
    }
    if item == "stale" {
        values.push(SequenceValue::Float(STALE_NAN));
        return Ok(());
    }
    let (numbers, times) = match item.rsplit_once('x') {
        Some((numbers, times)) => (numbers, times.parse::<usize>().map_err(|error| error.to_string())?),
        None => (item, 0),
    };
    let (start, step) = split_step(numbers);
    let start = number(start)?;
    let step = if step.is_empty() { None } else { Some(number(step)?) };
    let mut value = start;
    for _ in 0..=times {
        values.push(SequenceValue::Float(value));
        if let Some(step) = step {
            value += step;
        }
    }
    Ok(())
}

/// `5+3` to `5` and `+3`: at the sign that neither starts the text nor follows an exponent.
fn split_step(text: &str) -> (&str, &str) {
    let bytes = text.as_bytes();
    for index in 1..bytes.len() {
        let is_exponent = matches!(bytes[index - 1], b'e' | b'E');
        if matches!(bytes[index], b'+' | b'-') && !is_exponent {
            return text.split_at(index);
        }
    }
    (text, "")
}

pub(crate) fn number(text: &str) -> Result<f64, String> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match unsigned.to_ascii_lowercase().as_str() {
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        other => other.parse::<f64>().map_err(|error| format!("{text:?}: {error}"))?,
    };
    Ok(if negative { -value } else { value })
}
