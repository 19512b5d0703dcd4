//! The values of a series for which no rule over it alone has anything to say.
//!
//! All thresholds of a series together leave one band of values and a few points in it. A sample within
//! the band is judged for all rules by two comparisons, however many there are.

use super::threshold::Comparison;
use pharos_promql::ast::BinaryOp;

/// Part of a bound's size within which a value counts as near.
const NEAR_SHARE: f64 = 0.1;

/// The quiet values of one series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quiet {
    /// Values from here ...
    low: f64,
    /// ... to here are far from every threshold ...
    high: f64,
    /// ... but for these, sorted.
    points: Box<[f64]>,
}

impl Quiet {
    /// Where none of the comparisons holds or is near.
    pub(crate) fn of<'a>(comparisons: impl Iterator<Item = &'a Comparison>) -> Self {
        let (mut low, mut high) = (f64::NEG_INFINITY, f64::INFINITY);
        let nothing = |low: &mut f64, high: &mut f64| (*low, *high) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut points = Vec::new();
        for comparison in comparisons {
            let bound = comparison.bound;
            let margin = if bound.is_finite() { bound.abs() * NEAR_SHARE } else { 0.0 };
            match comparison.upright() {
                // These hold for everything.
                BinaryOp::GreaterEqual if bound == f64::NEG_INFINITY => nothing(&mut low, &mut high),
                BinaryOp::LessEqual if bound == f64::INFINITY => nothing(&mut low, &mut high),
                BinaryOp::NotEqual if bound.is_nan() => nothing(&mut low, &mut high),
                BinaryOp::Greater => high = high.min(bound - margin),
                BinaryOp::GreaterEqual => high = high.min((bound - margin).next_down()),
                BinaryOp::Less => low = low.max(bound + margin),
                BinaryOp::LessEqual => low = low.max((bound + margin).next_up()),
                BinaryOp::Equal if !bound.is_nan() => points.push(bound + 0.0),
                BinaryOp::NotEqual => (low, high) = (low.max(bound), high.min(bound)),
                _ => {}
            }
        }
        points.sort_unstable_by(f64::total_cmp);
        Quiet { low, high, points: points.into() }
    }

    /// Whether no comparison holds for a value, or is near. Never for NaN.
    #[inline]
    pub(crate) fn contains(&self, value: f64) -> bool {
        value >= self.low && value <= self.high && (self.points.is_empty() || !self.is_point(value))
    }
}

impl Quiet {
    /// Zeros of both signs are one point: the bounds were stored as +0.
    fn is_point(&self, value: f64) -> bool {
        let at = self.points.partition_point(|point| *point < value);
        self.points.get(at).is_some_and(|point| *point == value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::threshold::Threshold;

    #[track_caller]
    fn check(rules: &[&str], quiet: &[f64], loud: &[f64]) {
        let comparisons: Vec<Comparison> = rules
            .iter()
            .map(|rule| match Threshold::of(&pharos_promql::parse(rule).unwrap()) {
                Some(Threshold::Single(comparison)) => comparison,
                other => panic!("{rule}: {other:?}"),
            })
            .collect();
        let band = Quiet::of(comparisons.iter());
        for value in quiet {
            assert!(band.contains(*value), "{rules:?} {value}");
            assert!(!comparisons.iter().any(|comparison| comparison.holds(*value)), "{rules:?} {value}");
        }
        for value in loud {
            assert!(!band.contains(*value), "{rules:?} {value}");
        }
    }

    #[test]
    fn a_band_is_what_all_rules_leave() {
        check(&["x > 90", "x > 85", "x < 10"], &[11.0, 76.5], &[77.0, 90.0, 91.0, 10.5, 9.0, f64::NAN]);
        check(&["90 < x", "x >= 50"], &[0.0, 44.9], &[45.0, 50.0]);
        check(&["x == 79", "0 == x"], &[1.0, 100.0, -5.0], &[79.0, 0.0, -0.0]);
        check(&["x != 1"], &[1.0], &[0.0, 2.0, f64::NAN]);
        check(&["x > 0"], &[0.0, -1.0], &[f64::MIN_POSITIVE, 1.0]);
        check(&["x <= -10"], &[-8.9], &[-9.0, -10.0]);
    }

    /// Nothing that holds lies in the band, whatever the rules.
    #[test]
    fn nothing_that_holds_is_quiet() {
        let bounds = [0.0, -1.0, 1.0, 90.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e300];
        let ops = [
            BinaryOp::Equal,
            BinaryOp::NotEqual,
            BinaryOp::Greater,
            BinaryOp::Less,
            BinaryOp::GreaterEqual,
            BinaryOp::LessEqual,
        ];
        for op in ops {
            for bound in bounds {
                for bound_first in [false, true] {
                    let comparison = Comparison { matchers: Vec::new(), op, bound, bound_first };
                    let quiet = Quiet::of(std::iter::once(&comparison));
                    for value in bounds.into_iter().chain([bound.next_up(), bound.next_down(), 0.5]) {
                        assert!(
                            !(comparison.holds(value) && quiet.contains(value)),
                            "{comparison:?} {value}"
                        );
                    }
                }
            }
        }
    }
}
