//! Which expressions are thresholds: those that the newest samples alone decide.
//!
//! `gpu_temp > 90` is decided by one sample of one series. `a < 1 and b > 2` is decided by the newest
//! samples of the series that have the same labels; `a < 1 and on (instance) b > 2` by those of one node,
//! as long as the series that meet carry the same `instance`. Anything with a range, a function or an
//! aggregation is evaluated on the interval.

use super::pointwise::{Pointwise, compare};
use pharos_common::labels::METRIC_NAME;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_promql::ast::{Binary, BinaryOp, Expr, NodeId, NodeKind};

/// The label that says which node a series is of.
pub const NODE_LABEL: &str = "instance";

/// An expression that arriving samples decide.
#[derive(Clone, Debug)]
pub enum Threshold {
    /// One series against one number.
    Single(Comparison),
    /// Several selectors whose series meet one with one: judged per set of labels.
    Pointwise(Pointwise),
    /// Several selectors that meet within a node: evaluated over the node's newest samples.
    Joined {
        /// The selectors' matchers.
        selectors: Vec<Vec<Matcher>>,
    },
}

/// `selector OP number`
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Which series.
    pub matchers: Vec<Matcher>,
    /// How to compare.
    pub op: BinaryOp,
    /// With what.
    pub bound: f64,
    /// Whether the number stands on the left.
    pub bound_first: bool,
}

impl Comparison {
    /// The operator as it reads with the number on the right.
    pub fn upright(&self) -> BinaryOp {
        match (self.bound_first, self.op) {
            (true, BinaryOp::Greater) => BinaryOp::Less,
            (true, BinaryOp::Less) => BinaryOp::Greater,
            (true, BinaryOp::GreaterEqual) => BinaryOp::LessEqual,
            (true, BinaryOp::LessEqual) => BinaryOp::GreaterEqual,
            (_, op) => op,
        }
    }

    /// Whether a value breaches the threshold.
    #[inline]
    pub fn holds(&self, value: f64) -> bool {
        let (left, right) = if self.bound_first { (self.bound, value) } else { (value, self.bound) };
        compare(self.op, left, right)
    }
}

impl Threshold {
    /// Recognises an expression; `None` if it must be evaluated on the interval.
    pub fn of(expr: &Expr) -> Option<Threshold> {
        let root = expr.unparenthesised(expr.root());
        let NodeKind::Binary(binary) = &expr.node(root).kind else { return None };
        if let Some(comparison) = single(expr, binary) {
            return Some(Threshold::Single(comparison));
        }
        let filters = binary.op.is_set_operator() || (binary.op.is_comparison() && !binary.return_bool);
        if !filters || !expr.nodes().all(|(_, node)| decided_within_a_node(&node.kind)) {
            return None;
        }
        if let Some(pointwise) = Pointwise::of(expr) {
            return Some(Threshold::Pointwise(pointwise));
        }
        let selectors: Vec<_> = expr.selectors().map(|selector| selector.matchers.clone()).collect();
        (!selectors.is_empty()).then_some(Threshold::Joined { selectors })
    }

    /// The name of the one metric that it is about, where the expression says it.
    pub fn metric(&self) -> Option<&str> {
        let Threshold::Single(comparison) = self else { return None };
        let names = |matcher: &&Matcher| matcher.name() == METRIC_NAME && matcher.op() == MatchOp::Equal;
        comparison.matchers.iter().find(names).map(Matcher::value)
    }

    /// The matchers of all its selectors.
    pub fn selectors(&self) -> Vec<Vec<Matcher>> {
        match self {
            Threshold::Single(comparison) => vec![comparison.matchers.clone()],
            Threshold::Pointwise(pointwise) => pointwise.selectors.clone(),
            Threshold::Joined { selectors } => selectors.clone(),
        }
    }
}

fn single(expr: &Expr, binary: &Binary) -> Option<Comparison> {
    if !binary.op.is_comparison() || binary.return_bool {
        return None;
    }
    let comparison = |selector: NodeId, bound: f64, bound_first: bool| match &expr
        .node(expr.unparenthesised(selector))
        .kind
    {
        NodeKind::Selector(selector) if selector.is_plain() => {
            Some(Comparison { matchers: selector.matchers.clone(), op: binary.op, bound, bound_first })
        }
        _ => None,
    };
    match (number(expr, binary.lhs), number(expr, binary.rhs)) {
        (None, Some(bound)) => comparison(binary.lhs, bound, false),
        (Some(bound), None) => comparison(binary.rhs, bound, true),
        _ => None,
    }
}

/// A literal, with or without a sign.
fn number(expr: &Expr, id: NodeId) -> Option<f64> {
    let id = expr.unparenthesised(id);
    match &expr.node(id).kind {
        NodeKind::Unary(unary) => {
            let value = expr.constant(unary.expr)?;
            Some(if unary.negative { -value } else { value })
        }
        _ => expr.constant(id),
    }
}

fn decided_within_a_node(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::Number(_) | NodeKind::Unary(_) | NodeKind::Paren(_) => true,
        NodeKind::Selector(selector) => selector.is_plain(),
        NodeKind::Binary(binary) => binary.matching.as_ref().is_none_or(|matching| {
            let named = matching.labels.iter().any(|label| label == NODE_LABEL);
            matching.on == named
        }),
        NodeKind::String(_)
        | NodeKind::Range(_)
        | NodeKind::Subquery(_)
        | NodeKind::Call(_)
        | NodeKind::Aggregate(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, want: &str) {
        let got = match Threshold::of(&pharos_promql::parse(query).unwrap()) {
            None => "interval".to_owned(),
            Some(Threshold::Single(c)) => format!("single {} {} {}", c.op, c.bound, c.bound_first),
            Some(Threshold::Pointwise(p)) => format!("pointwise {}", p.selectors.len()),
            Some(Threshold::Joined { selectors }) => format!("joined {}", selectors.len()),
        };
        assert_eq!(got, want, "{query}");
    }

    #[test]
    fn thresholds_are_recognised() {
        check("gpu_temp > 90", "single > 90 false");
        check("(gpu_temp{gpu=\"0\"}) >= (-5)", "single >= -5 false");
        check("0 == up", "single == 0 true");
        check("a < 1 and b > 2", "pointwise 2");
        check("a < 1 unless on (instance) b", "joined 2");
        check("1 - a / b > 0.9", "pointwise 2");
        check("a / ignoring (mode) b > 1", "joined 2");
        check("a or b", "pointwise 2");
        check("a == 48 or a == 64", "pointwise 1");
    }

    #[test]
    fn what_needs_more_than_the_newest_samples_of_a_node_is_not() {
        check("rate(a[5m]) > 1", "interval");
        check("sum(a) > 1", "interval");
        check("a > 1 and on (job) b > 1", "interval");
        check("a > 1 and ignoring (instance) b > 1", "interval");
        check("a offset 5m > 1", "interval");
        check("a > bool 1", "interval");
        check("a + b", "interval");
        check("a", "interval");
        check("absent(a)", "interval");
        check("a > time()", "interval");
    }

    #[test]
    fn comparisons_are_ieee() {
        let Some(Threshold::Single(c)) = Threshold::of(&pharos_promql::parse("a != 1").unwrap()) else {
            panic!()
        };
        assert!(c.holds(f64::NAN));
        assert!(!c.holds(1.0));
    }
}
