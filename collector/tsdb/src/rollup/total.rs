//! The sum of a bucket in few bytes: a double, and what that lacks in small fractions of its last bit.
//!
//! A double alone would cost half a unit in the last place a bucket, more than an answer of many buckets
//! may be off. The sum of decimals (hundredths of a CPU second) is, but for its last bits, a decimal again,
//! which packs better than a double; so the double that is stored may be a close decimal, too.

use crate::codec::{SCALES, from_scaled, to_scaled};
use pharos_common::summary::{Summary, two_sum};

/// Parts of the unit in the last place that are told.
const PARTS: f64 = 65_536.0;

/// Most units in the last place between a sum and the decimal that stands for it.
const UNITS_MAX: f64 = 4.0;

/// Distance to the next larger double.
pub(super) fn unit_in_last_place(value: f64) -> f64 {
    let value = value.abs();
    f64::from_bits(value.to_bits() + 1) - value
}

/// A sum as it is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Total {
    pub(super) rounded: f64,
    /// In parts of the last place of `rounded`.
    pub(super) residual: i64,
}

impl Total {
    /// Near the decimal of this scale; `None` if the sum is not.
    fn of(summary: &Summary, scale: Option<f64>) -> Option<Total> {
        let (sum, rest) = two_sum(summary.sum, summary.compensation);
        if !sum.is_finite() || !rest.is_finite() {
            // No rest tells more of what is infinite or not a number.
            return scale.is_none().then_some(Total { rounded: summary.sum, residual: 0 });
        }
        let rounded = match scale {
            None => sum,
            Some(scale) => {
                let near = from_scaled((sum * scale).round_ties_even() as i64, scale);
                to_scaled(near, scale)?;
                near
            }
        };
        let unit = unit_in_last_place(rounded) / PARTS;
        let rest = (sum - rounded) + rest;
        if rest == 0.0 {
            return Some(Total { rounded, residual: 0 });
        }
        let parts = (rest / unit).round();
        (parts.abs() <= PARTS * UNITS_MAX).then_some(Total { rounded, residual: parts as i64 })
    }

    /// The sums of many buckets, decimals if all are close to one.
    pub(super) fn of_all(summaries: &[&Summary]) -> Vec<Total> {
        let decimal = SCALES.iter().find_map(|&scale| {
            summaries.iter().map(|summary| Total::of(summary, Some(scale))).collect::<Option<Vec<_>>>()
        });
        decimal.unwrap_or_else(|| {
            let plain = |summary: &&Summary| {
                // Only a sum too small to have parts is none; it is rounded then.
                Total::of(summary, None).unwrap_or(Total { rounded: summary.sum, residual: 0 })
            };
            summaries.iter().map(plain).collect()
        })
    }

    pub(super) fn compensation(&self) -> f64 {
        match self.residual {
            0 => 0.0,
            parts => parts as f64 * (unit_in_last_place(self.rounded) / PARTS),
        }
    }

    /// By how much the sum may be off.
    pub(super) fn uncertainty(&self) -> f64 {
        // A whole part where half of one is meant: the least doubles have no halves.
        let unit = unit_in_last_place(self.rounded);
        if unit.is_finite() { (unit / PARTS).max(f64::MIN_POSITIVE) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::summary::SummaryFields;

    fn summary(values: &[f64]) -> Summary {
        let mut summary = Summary::default();
        let timestamps: Vec<i64> = (0..values.len() as i64).collect();
        summary.append_run(&timestamps, values, SummaryFields::ALL);
        summary
    }

    #[test]
    fn sums_come_back_to_a_part_of_their_last_place() {
        for scale in [1.0, 3.0, 7.0, 100.0, 1e6, 1e-6] {
            let values: Vec<f64> = (1..300).map(|row| f64::from(row * 37 % 101) / scale - 0.3).collect();
            let whole = summary(&values);
            let total = Total::of_all(&[&whole])[0];
            let off = (total.rounded - whole.sum) + (total.compensation() - whole.compensation);
            assert!(off.abs() <= total.uncertainty(), "{scale}: {off}");
        }
    }

    #[test]
    fn sums_of_decimals_are_decimals_with_a_rest() {
        let values: Vec<f64> = (0..300).map(|row| f64::from(row) / 100.0).collect();
        let total = Total::of_all(&[&summary(&values)])[0];
        assert_eq!(total.rounded, 448.5);
        assert_ne!(total.residual, 0);
    }

    #[test]
    fn what_is_no_number_stays_so() {
        for values in [[f64::INFINITY, 1.0], [f64::NAN, 1.0], [f64::MAX, f64::MAX]] {
            let total = Total::of_all(&[&summary(&values)])[0];
            assert!(!total.rounded.is_finite() && total.residual == 0);
            assert!(!total.uncertainty().is_nan());
        }
        assert_eq!(Total::of_all(&[&summary(&[0.0])])[0], Total { rounded: 0.0, residual: 0 });
    }
}
