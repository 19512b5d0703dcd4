//! `and`, `or`, `unless`.

use super::matching::Signatures;
use crate::ast::{BinaryOp, VectorMatching};
use crate::error::QueryError;
use crate::eval::column::Series;
use crate::eval::merge_same_labels;
use crate::storage::Budget;

/// At which steps a signature is there.
type Presence = Vec<bool>;

pub(super) fn apply(
    op: BinaryOp,
    lhs: Vec<Series>,
    rhs: Vec<Series>,
    matching: &VectorMatching,
    steps: usize,
    budget: &Budget,
) -> Result<Vec<Series>, QueryError> {
    let signatures = Signatures::of(&lhs, &rhs, matching);
    match op {
        BinaryOp::Or => {
            let present = presence(&lhs, &signatures.lhs, signatures.count, steps);
            let rest = masked(rhs, &signatures.rhs, &present, false);
            let mut both = lhs;
            both.extend(rest);
            // At one step, series with equal labels are told apart by the names they will lose.
            if steps == 1 { Ok(both) } else { merge_same_labels(both, budget) }
        }
        op => {
            let present = presence(&rhs, &signatures.rhs, signatures.count, steps);
            Ok(masked(lhs, &signatures.lhs, &present, op == BinaryOp::And))
        }
    }
}

fn presence(series: &[Series], signatures: &[usize], count: usize, steps: usize) -> Vec<Option<Presence>> {
    let mut present: Vec<Option<Presence>> = vec![None; count];
    for (series, &signature) in series.iter().zip(signatures) {
        let present = present[signature].get_or_insert_with(|| vec![false; steps]);
        for step in series.column.bounds() {
            present[step] |= series.column.has(step);
        }
    }
    present
}

/// Keeps of each series the steps at which its signature is present on the other side, or is not.
fn masked(
    series: Vec<Series>,
    signatures: &[usize],
    present: &[Option<Presence>],
    keep_present: bool,
) -> Vec<Series> {
    series
        .into_iter()
        .zip(signatures)
        .filter_map(|(mut series, &signature)| match &present[signature] {
            None if keep_present => None,
            None => Some(series),
            Some(present) => {
                series.column = series.column.retain(|step| present[step] == keep_present);
                (!series.column.is_empty()).then_some(series)
            }
        })
        .collect()
}
