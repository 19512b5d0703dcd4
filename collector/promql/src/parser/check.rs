//! The type check: one loop over the nodes, children before parents.

use super::error::ParseError;
use super::frame::operator_span;
use crate::ast::{AggregateOp, Binary, Call, Cardinality, Expr, NodeId, NodeKind, ValueType, VectorSelector};
use crate::functions::Implementation;
use crate::quote::go_quote;
use crate::span::Span;
use pharos_common::labels::METRIC_NAME;
use pharos_common::matcher::Matcher;

/// Checks all nodes and fills in what follows from types (matching and type of operators).
pub(super) fn check(expr: &mut Expr) -> Result<(), ParseError> {
    // Types are looked up often and chains of signs may be long, so they are noted once per node.
    let mut types: Vec<ValueType> = Vec::with_capacity(expr.nodes.len());
    let label_selectors = label_selectors(expr);
    for index in 0..expr.nodes.len() {
        let value_type = {
            let checker = Checker { expr, types: &types };
            checker.node(index, label_selectors.contains(&index))?
        };
        if let NodeKind::Binary(binary) = &mut expr.nodes[index].kind {
            binary.value_type = value_type;
            settle_matching(binary, &types);
        }
        types.push(value_type);
    }
    Ok(())
}

/// Second arguments of `info`, which are lists of matchers and may match anything.
fn label_selectors(expr: &Expr) -> std::collections::HashSet<usize> {
    expr.nodes
        .iter()
        .filter_map(|node| match &node.kind {
            NodeKind::Call(call) if matches!(call.function.implementation, Implementation::Info) => {
                call.args.get(1).map(|arg| arg.index())
            }
            _ => None,
        })
        .collect()
}

/// Matching means something between vectors only; set operators match many to many.
fn settle_matching(binary: &mut Binary, types: &[ValueType]) {
    let is_vector = |id: NodeId| types.get(id.index()) == Some(&ValueType::Vector);
    if !is_vector(binary.lhs) || !is_vector(binary.rhs) {
        binary.matching = None;
    } else if let Some(matching) = &mut binary.matching
        && binary.op.is_set_operator()
    {
        matching.cardinality = Cardinality::ManyToMany;
    }
}

struct Checker<'e> {
    expr: &'e Expr,
    types: &'e [ValueType],
}

impl Checker<'_> {
    fn type_of(&self, id: NodeId) -> ValueType {
        self.types.get(id.index()).copied().unwrap_or(ValueType::Scalar)
    }

    fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(&self.expr.query, span, message)
    }

    fn node(&self, index: usize, is_label_selector: bool) -> Result<ValueType, ParseError> {
        let node = &self.expr.nodes[index];
        Ok(match &node.kind {
            NodeKind::Number(_) => ValueType::Scalar,
            NodeKind::String(_) => ValueType::String,
            NodeKind::Selector(selector) => {
                self.selector(selector, node.span, is_label_selector)?;
                ValueType::Vector
            }
            NodeKind::Range(range) => {
                self.selector(&range.selector, node.span, false)?;
                ValueType::Matrix
            }
            NodeKind::Subquery(subquery) => {
                let inner = self.type_of(subquery.expr);
                if inner != ValueType::Vector {
                    let message =
                        format!("subquery is only allowed on instant vector, got {} instead", inner.as_str());
                    return Err(self.error(node.span, message));
                }
                ValueType::Matrix
            }
            NodeKind::Paren(inner) => self.type_of(*inner),
            NodeKind::Unary(unary) => {
                let inner = self.type_of(unary.expr);
                if !matches!(inner, ValueType::Scalar | ValueType::Vector) {
                    let message = format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {}",
                        go_quote(inner.documented())
                    );
                    return Err(self.error(node.span, message));
                }
                inner
            }
            NodeKind::Aggregate(aggregate) => {
                self.expect(aggregate.expr, ValueType::Vector, "aggregation expression")?;
                if let Some(param) = aggregate.param {
                    let wanted = match aggregate.op {
                        AggregateOp::CountValues => ValueType::String,
                        _ => ValueType::Scalar,
                    };
                    self.expect(param, wanted, "aggregation parameter")?;
                }
                ValueType::Vector
            }
            NodeKind::Binary(binary) => self.binary(binary, node.span)?,
            NodeKind::Call(call) => {
                self.call(call, node.span)?;
                call.function.returns
            }
        })
    }

    fn expect(&self, id: NodeId, wanted: ValueType, context: &str) -> Result<(), ParseError> {
        let found = self.type_of(id);
        if found == wanted {
            return Ok(());
        }
        let (wanted, found) = (wanted.documented(), found.documented());
        let message = format!("expected type {wanted} in {context}, got {found}");
        Err(self.error(self.expr.node(id).span, message))
    }

    fn selector(
        &self,
        selector: &VectorSelector,
        span: Span,
        is_label_selector: bool,
    ) -> Result<(), ParseError> {
        if !selector.name.is_empty() {
            // The last matcher is the name before the braces.
            let written = selector.matchers.split_last().map_or(&[][..], |(_, written)| written);
            if let Some(second) = written.iter().find(|matcher| matcher.name() == METRIC_NAME) {
                let message = format!(
                    "metric name must not be set twice: {} or {}",
                    go_quote(&selector.name),
                    go_quote(second.value())
                );
                return Err(self.error(span, message));
            }
            return Ok(());
        }
        if !is_label_selector && selector.matchers.iter().all(Matcher::matches_empty) {
            return Err(self.error(span, "vector selector must contain at least one non-empty matcher"));
        }
        Ok(())
    }

    fn binary(&self, binary: &Binary, span: Span) -> Result<ValueType, ParseError> {
        let op = binary.op;
        let (lhs, rhs) = (self.type_of(binary.lhs), self.type_of(binary.rhs));
        let (lhs_span, rhs_span) = (self.expr.node(binary.lhs).span, self.expr.node(binary.rhs).span);
        let at_operator = || operator_span(&self.expr.query, lhs_span, rhs_span);
        if binary.return_bool && !op.is_comparison() {
            return Err(self.error(at_operator(), "bool modifier can only be used on comparison operators"));
        }
        let scalars = lhs == ValueType::Scalar && rhs == ValueType::Scalar;
        if op.is_comparison() && !binary.return_bool && scalars {
            return Err(self.error(at_operator(), "comparisons between scalars must use BOOL modifier"));
        }
        let matching = binary.matching.clone().unwrap_or_default();
        if matching.on
            && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
        {
            let message = format!("label {} must not occur in ON and GROUP clause at once", go_quote(label));
            return Err(self.error(at_operator(), message));
        }
        for (found, side) in [(lhs, lhs_span), (rhs, rhs_span)] {
            if !matches!(found, ValueType::Scalar | ValueType::Vector) {
                let message = "binary expression must contain only scalar and instant vector types";
                return Err(self.error(side, message));
            }
        }
        let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
        if lhs != ValueType::Vector || rhs != ValueType::Vector {
            if !matching.labels.is_empty() {
                return Err(self.error(span, "vector matching only allowed between instant vectors"));
            }
            if fills {
                let message = "filling in missing series only allowed between instant vectors";
                return Err(self.error(span, message));
            }
        } else if op.is_set_operator() {
            if matching.cardinality != Cardinality::OneToOne
                && matching.cardinality != Cardinality::ManyToMany
            {
                let message = format!("no grouping allowed for {} operation", go_quote(op.as_str()));
                return Err(self.error(span, message));
            }
            if fills {
                return Err(self.error(span, "filling in missing series not allowed for set operators"));
            }
        }
        if (lhs == ValueType::Scalar || rhs == ValueType::Scalar) && op.is_set_operator() {
            let message =
                format!("set operator {} not allowed in binary scalar expression", go_quote(op.as_str()));
            return Err(self.error(span, message));
        }
        Ok(if scalars { ValueType::Scalar } else { ValueType::Vector })
    }

    fn call(&self, call: &Call, span: Span) -> Result<(), ParseError> {
        let function = call.function;
        let (declared, given) = (function.args.len(), call.args.len());
        let name = go_quote(function.name);
        if function.variadic == 0 {
            if declared != given {
                let message = format!("expected {declared} argument(s) in call to {name}, got {given}");
                return Err(self.error(span, message));
            }
        } else {
            let least = declared - 1;
            if least > given {
                let message = format!("expected at least {least} argument(s) in call to {name}, got {given}");
                return Err(self.error(span, message));
            }
            let most = least + function.variadic.max(0) as usize;
            if function.variadic > 0 && most < given {
                let message = format!("expected at most {most} argument(s) in call to {name}, got {given}");
                return Err(self.error(span, message));
            }
        }
        if matches!(function.implementation, Implementation::Info)
            && let Some(&selector) = call.args.get(1)
        {
            let at = self.expr.node(selector).span;
            match &self.expr.node(selector).kind {
                _ if self.type_of(selector) != ValueType::Vector => {
                    let found = self.type_of(selector).documented();
                    let message =
                        format!("expected type instant vector in call to function {name}, got {found}");
                    return Err(self.error(span, message));
                }
                NodeKind::Selector(selector) if selector.name.is_empty() => {}
                NodeKind::Selector(_) => {
                    let message = "expected label selectors only, got vector selector instead";
                    return Err(self.error(at, message));
                }
                _ => return Err(self.error(at, "expected label selectors only")),
            }
        }
        for (index, &arg) in call.args.iter().enumerate() {
            let Some(&wanted) = function.args.get(index.min(declared.saturating_sub(1))) else { break };
            let found = self.type_of(arg);
            if found != wanted {
                let (wanted, found) = (wanted.documented(), found.documented());
                let message = format!("expected type {wanted} in call to function {name}, got {found}");
                return Err(self.error(self.expr.node(arg).span, message));
            }
        }
        Ok(())
    }
}
