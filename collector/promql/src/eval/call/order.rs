//! The order of an instant query's answer: by value or by labels.

use crate::eval::column::{Series, is_absent};
use std::cmp::Ordering;

/// By value, NaN last. A range query's answer is ordered by labels in any case.
pub(super) fn by_value(series: Vec<Series>, descending: bool, steps: usize) -> Vec<Series> {
    let mut series: Vec<Series> = series
        .into_iter()
        .filter_map(|mut series| {
            if series.column.has_histograms() {
                series.column = series.column.map_floats(|value| value);
            }
            (!series.column.is_empty()).then_some(series)
        })
        .collect();
    if steps == 1 {
        series.sort_by(|a, b| {
            let (a, b) = (a.column.float(0), b.column.float(0));
            debug_assert!(!is_absent(a) && !is_absent(b));
            match (a.is_nan(), b.is_nan()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let rising = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
                    if descending { rising.reverse() } else { rising }
                }
            }
        });
    }
    series
}

/// By the values of some labels, numbers in them by size; then by all labels.
pub(super) fn by_labels(mut series: Vec<Series>, labels: &[String], descending: bool) -> Vec<Series> {
    series.sort_by(|a, b| {
        let rising = labels
            .iter()
            .map(|label| natural(a.labels.get(label).unwrap_or(""), b.labels.get(label).unwrap_or("")))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.labels.cmp(&b.labels));
        if descending { rising.reverse() } else { rising }
    });
    series
}

/// Compares texts with the numbers in them by size: `n9` comes before `n10`.
fn natural(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (mut chunks_a, mut chunks_b) = (chunks(a), chunks(b));
    loop {
        let (chunk_a, chunk_b) = match (chunks_a.next(), chunks_b.next()) {
            (Some(a), Some(b)) => (a, b),
            (Some(_), None) => return Ordering::Greater,
            (None, Some(_)) => return Ordering::Less,
            // Numbers may be equal with different zeros before them.
            (None, None) => return a.cmp(b),
        };
        let order = match (chunk_a.parse::<i64>(), chunk_b.parse::<i64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            _ => chunk_a.cmp(chunk_b),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Runs of digits and runs of other characters.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != first).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        rest = after;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_texts_are_compared_by_size() {
        assert_eq!(natural("n9", "n10"), Ordering::Less);
        assert_eq!(natural("1.11.3", "1.2.3"), Ordering::Greater);
        assert_eq!(natural("a", "a"), Ordering::Equal);
        assert_eq!(natural("a", ""), Ordering::Greater);
    }
}
