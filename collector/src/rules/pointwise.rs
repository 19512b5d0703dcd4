//! Expressions whose series meet one with one: `100 * used / (used + free) > 90`, `a < 1 and b > 2`.
//!
//! Where every operator matches on all labels, a result depends only on the series that have the same
//! labels but for the name. Such an expression becomes a short program over one value per selector, which
//! runs without the query engine, without allocation, and for one set of labels at a time.

use pharos_common::matcher::Matcher;
use pharos_promql::ast::{Binary, BinaryOp, Cardinality, Expr, NodeId, NodeKind, ValueType};

/// Values that wait for their operator; deeper expressions are left to the query engine.
const STACK_MAX: usize = 16;

/// Selectors of one expression; more are left to the query engine.
const SELECTORS_MAX: usize = 32;

/// An expression over one value per selector.
#[derive(Clone, Debug)]
pub struct Pointwise {
    /// What the values are of, each selector once.
    pub selectors: Vec<Vec<Matcher>>,
    /// Operands before their operator.
    steps: Vec<Step>,
}

/// What an expression gives for one set of labels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The value.
    pub value: f64,
    /// The selector whose series' name the result keeps; `None` if it has no name.
    pub named_by: Option<usize>,
}

impl Found {
    fn unnamed(value: f64) -> Self {
        Found { value, named_by: None }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Selector(usize),
    Number(f64),
    Negate,
    Operate { op: BinaryOp, return_bool: bool, scalar_left: bool },
}

impl Pointwise {
    /// Compiles an expression; `None` if series of different labels meet in it, or it needs more than the
    /// newest samples.
    pub fn of(expr: &Expr) -> Option<Pointwise> {
        let mut compiled = Pointwise { selectors: Vec::new(), steps: Vec::new() };
        let mut pending = vec![(expr.root(), false)];
        let (mut depth, mut deepest) = (0usize, 0usize);
        while let Some((id, children_done)) = pending.pop() {
            let kind = &expr.node(id).kind;
            if !children_done && !matches!(kind, NodeKind::Number(_) | NodeKind::Selector(_)) {
                pending.push((id, true));
                let mut children = Vec::new();
                expr.for_each_child(id, |child| children.push(child));
                pending.extend(children.into_iter().rev().map(|child| (child, false)));
                continue;
            }
            match kind {
                NodeKind::Number(number) => compiled.steps.push(Step::Number(number.value)),
                NodeKind::Selector(selector) if selector.is_plain() => {
                    let index = compiled.selector(&selector.matchers)?;
                    compiled.steps.push(Step::Selector(index));
                }
                NodeKind::Paren(_) => continue,
                NodeKind::Unary(unary) if unary.negative => compiled.steps.push(Step::Negate),
                NodeKind::Unary(_) => continue,
                NodeKind::Binary(binary) => {
                    compiled.steps.push(operate(expr, binary)?);
                    depth -= 1;
                    continue;
                }
                _ => return None,
            }
            if matches!(kind, NodeKind::Number(_) | NodeKind::Selector(_)) {
                depth += 1;
                deepest = deepest.max(depth);
            }
        }
        (deepest <= STACK_MAX && !compiled.selectors.is_empty()).then_some(compiled)
    }

    fn selector(&mut self, matchers: &[Matcher]) -> Option<usize> {
        let same = |a: &Matcher, b: &Matcher| (a.name(), a.op(), a.value()) == (b.name(), b.op(), b.value());
        let known = self.selectors.iter().position(|known| {
            known.len() == matchers.len() && known.iter().zip(matchers).all(|(a, b)| same(a, b))
        });
        if known.is_none() {
            self.selectors.push(matchers.to_vec());
        }
        (self.selectors.len() <= SELECTORS_MAX).then(|| known.unwrap_or(self.selectors.len() - 1))
    }

    /// The result for the labels that `value` gives each selector's value of; `None` if there is none.
    pub fn evaluate(&self, value: impl Fn(usize) -> Option<f64>) -> Option<Found> {
        let mut stack = [None; STACK_MAX];
        let mut top = 0usize;
        for step in &self.steps {
            match *step {
                Step::Selector(index) => {
                    *stack.get_mut(top)? = value(index).map(|value| Found { value, named_by: Some(index) });
                    top += 1;
                }
                Step::Number(number) => {
                    *stack.get_mut(top)? = Some(Found::unnamed(number));
                    top += 1;
                }
                Step::Negate => {
                    let operand = stack.get_mut(top.checked_sub(1)?)?;
                    *operand = operand.map(|found: Found| Found::unnamed(-found.value));
                }
                Step::Operate { op, return_bool, scalar_left } => {
                    top = top.checked_sub(1)?;
                    let right = *stack.get(top)?;
                    let left = stack.get_mut(top.checked_sub(1)?)?;
                    *left = apply(op, return_bool, scalar_left, *left, right);
                }
            }
        }
        *stack.first()?
    }
}

fn operate(expr: &Expr, binary: &Binary) -> Option<Step> {
    if let Some(matching) = &binary.matching {
        let plain = matching.labels.is_empty()
            && !matching.on
            && matching.include.is_empty()
            && matching.fill_left.is_none()
            && matching.fill_right.is_none()
            && matches!(matching.cardinality, Cardinality::OneToOne | Cardinality::ManyToMany);
        if !plain {
            return None;
        }
    }
    let known =
        binary.op.is_set_operator() || binary.op.is_comparison() || arithmetic(binary.op, 1.0, 1.0).is_some();
    let scalar = |id: NodeId| expr.type_of(id) == ValueType::Scalar;
    known.then(|| Step::Operate {
        op: binary.op,
        return_bool: binary.return_bool,
        scalar_left: scalar(binary.lhs) && !scalar(binary.rhs),
    })
}

fn apply(
    op: BinaryOp,
    return_bool: bool,
    scalar_left: bool,
    left: Option<Found>,
    right: Option<Found>,
) -> Option<Found> {
    match op {
        BinaryOp::And => return right.and(left),
        BinaryOp::Or => return left.or(right),
        BinaryOp::Unless => return if right.is_none() { left } else { None },
        _ => {}
    }
    let (left, right) = (left?, right?);
    if !op.is_comparison() {
        return arithmetic(op, left.value, right.value).map(Found::unnamed);
    }
    let holds = compare(op, left.value, right.value);
    if return_bool {
        return Some(Found::unnamed(f64::from(u8::from(holds))));
    }
    holds.then_some(if scalar_left { right } else { left })
}

/// Whether a comparison holds, as IEEE 754 has it.
#[inline]
pub fn compare(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Greater => left > right,
        BinaryOp::Less => left < right,
        BinaryOp::GreaterEqual => left >= right,
        BinaryOp::LessEqual => left <= right,
        _ => false,
    }
}

fn arithmetic(op: BinaryOp, left: f64, right: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pharos_common::labels::{Labels, METRIC_NAME};
    use pharos_common::sample::TimestampMs;
    use pharos_promql::storage::{Budget, Selection, SeriesColumns, SeriesSet, Storage, StorageError};
    use pharos_promql::{Engine, EngineOptions, QueryOptions, Value};
    use std::sync::Arc;

    const AT_MS: TimestampMs = 1_000;

    /// One series `a`, `b` and `c` each, those that have a value.
    struct OneOfEach([Option<f64>; 3]);

    impl Storage for OneOfEach {
        fn select<'s>(
            &'s self,
            selection: &Selection<'_>,
            _budget: &'s Budget,
        ) -> Result<Box<dyn SeriesSet + 's>, StorageError> {
            let series = ["a", "b", "c"].into_iter().zip(self.0).filter_map(|(name, value)| {
                let labels = Labels::from_pairs([(METRIC_NAME, name), ("gpu", "0")]);
                let wanted = selection.matchers.iter().all(|matcher| matcher.matches_labels(&labels));
                let value = value.filter(|_| wanted)?;
                Some(SeriesColumns::floats(labels, Arc::from([AT_MS]), vec![value]))
            });
            Ok(Box::new(series.collect::<Vec<_>>().into_iter()))
        }
    }

    /// The program says what the query engine says, whichever series are there.
    #[track_caller]
    fn check(query: &str) {
        let expr = pharos_promql::parse(query).unwrap();
        let compiled = Pointwise::of(&expr).unwrap_or_else(|| panic!("{query} is not pointwise"));
        let engine = Engine::new(EngineOptions::default());
        let choices = [None, Some(0.0), Some(1.0), Some(2.5), Some(-3.0), Some(f64::NAN)];
        for a in choices {
            for b in choices {
                for c in choices {
                    let series = OneOfEach([a, b, c]);
                    let result =
                        engine.instant_expr(&series, &expr, AT_MS, &QueryOptions::default()).unwrap();
                    let Value::Vector(vector) = result.value else { panic!("{query}") };
                    let want = vector.first().and_then(|sample| sample.value.as_float());
                    let want_name = vector.first().and_then(|sample| sample.labels.get(METRIC_NAME));
                    let got = compiled.evaluate(|index| {
                        let name = compiled.selectors[index][0].value();
                        [a, b, c][usize::from(name.as_bytes()[0] - b'a')]
                    });
                    let name = got.and_then(|found| found.named_by);
                    let name = name.map(|index| compiled.selectors[index][0].value());
                    assert_eq!(name, want_name, "{query} of {a:?} {b:?} {c:?}");
                    let got = got.map(|found| found.value.to_bits());
                    assert_eq!(got, want.map(f64::to_bits), "{query} of {a:?} {b:?} {c:?}");
                }
            }
        }
    }

    #[test]
    fn the_program_says_what_the_query_engine_says() {
        for query in [
            "a > 1",
            "1 < a",
            "a > b",
            "a == 0 or a == 1 or b == 2.5",
            "a > 0 and b < 2",
            "a unless b > 1",
            "a > 0 and b > 0 unless c",
            "100 * a / (a + b) > 50",
            "1 - a / b > 0.9",
            "-a > b",
            "a % 2 == 1",
            "a ^ 2 > b",
            "(a > bool 1) == 1",
            "a or b and c",
            "a and b or c",
            "a < 2 * 3 - 4",
        ] {
            check(query);
        }
    }

    #[test]
    fn what_brings_other_series_together_is_left_to_the_engine() {
        for query in
            ["a > 1 and on (gpu) b", "a / ignoring (mode) b > 1", "rate(a[1m]) > 1", "sum(a) > 1", "1 > 0"]
        {
            let expr = pharos_promql::parse(query);
            assert!(expr.ok().and_then(|expr| Pointwise::of(&expr)).is_none(), "{query}");
        }
    }

    #[test]
    fn each_selector_is_there_once() {
        let expr = pharos_promql::parse("a == 48 or a == 64 or a{gpu=\"0\"} == 95").unwrap();
        assert_eq!(Pointwise::of(&expr).unwrap().selectors.len(), 2);
    }
}
