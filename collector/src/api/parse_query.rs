//! `/parse_query`: a query as Prometheus' JSON tree.

use super::answer::{Answer, ApiError, success};
use super::json::format_value;
use super::parameters::Parameters;
use pharos_common::matcher::Matcher;
use pharos_promql::ast::{
    AtModifier, Cardinality, DurationValue, Expr, NodeId, NodeKind, VectorMatching, VectorSelector,
};
use serde_json::{Value, json};

/// Nodes of a query that is shown as a tree; one of more is for machines, not for an editor.
const NODES_MAX: usize = 10_000;
/// Nesting of a query that is shown as a tree: JSON readers recurse.
const DEPTH_MAX: usize = 100;

/// `/api/v1/parse_query`
pub(crate) async fn parse_query(parameters: Parameters) -> Answer {
    let expr = pharos_promql::parse(parameters.get_or_empty("query"))
        .map_err(|error| ApiError::parameter("query", error))?;
    success(&tree(&expr)?, parameters.encoding)
}

/// Nodes lie before their parents, so one pass builds the tree without recursion.
fn tree(expr: &Expr) -> Result<Value, ApiError> {
    let mut built: Vec<(NodeId, Value, usize)> = Vec::new();
    for (id, node) in expr.nodes() {
        if built.len() >= NODES_MAX {
            return Err(ApiError::bad_data(format!("the query has more than {NODES_MAX} parts")));
        }
        let mut depth = 0;
        let mut take = |child: NodeId| {
            let position = built.iter().rposition(|(id, ..)| *id == child);
            let (_, value, below) = position.map_or((child, Value::Null, 0), |at| built.swap_remove(at));
            depth = depth.max(below + 1);
            value
        };
        let value = node_json(&node.kind, &mut take);
        if depth > DEPTH_MAX {
            return Err(ApiError::bad_data(format!("the query is nested deeper than {DEPTH_MAX}")));
        }
        built.push((id, value, depth));
    }
    let root = expr.root();
    Ok(built.into_iter().find(|(id, ..)| *id == root).map_or(Value::Null, |(_, value, _)| value))
}

fn node_json(kind: &NodeKind, take: &mut impl FnMut(NodeId) -> Value) -> Value {
    match kind {
        NodeKind::Number(number) => json!({"type": "numberLiteral", "val": format_value(number.value)}),
        NodeKind::String(string) => json!({"type": "stringLiteral", "val": string.to_text()}),
        NodeKind::Paren(inner) => json!({"type": "parenExpr", "expr": take(*inner)}),
        NodeKind::Unary(unary) => {
            let op = if unary.negative { "-" } else { "+" };
            json!({"type": "unaryExpr", "op": op, "expr": take(unary.expr)})
        }
        NodeKind::Selector(selector) => selector_json("vectorSelector", selector),
        NodeKind::Range(range) => {
            let mut json = selector_json("matrixSelector", &range.selector);
            json["range"] = millis(&range.range);
            json
        }
        NodeKind::Subquery(subquery) => {
            let (timestamp, start_or_end) = at(subquery.at);
            json!({
                "type": "subquery",
                "expr": take(subquery.expr),
                "range": millis(&subquery.range),
                "offset": millis(&subquery.offset),
                "step": subquery.step.as_ref().map_or(json!(0), millis),
                "timestamp": timestamp,
                "startOrEnd": start_or_end,
            })
        }
        NodeKind::Call(call) => json!({
            "type": "call",
            "func": {
                "name": call.function.name,
                "argTypes": call.function.args.iter().map(|of| of.as_str()).collect::<Vec<_>>(),
                "variadic": call.function.variadic,
                "returnType": call.function.returns.as_str(),
            },
            "args": call.args.iter().map(|arg| take(*arg)).collect::<Vec<_>>(),
        }),
        NodeKind::Aggregate(aggregate) => json!({
            "type": "aggregation",
            "op": aggregate.op.as_str(),
            "expr": take(aggregate.expr),
            "param": aggregate.param.map_or(Value::Null, &mut *take),
            "grouping": aggregate.grouping,
            "without": aggregate.without,
        }),
        NodeKind::Binary(binary) => json!({
            "type": "binaryExpr",
            "op": binary.op.as_str(),
            "lhs": take(binary.lhs),
            "rhs": take(binary.rhs),
            "matching": binary.matching.as_ref().map_or(Value::Null, matching),
            "bool": binary.return_bool,
        }),
    }
}

fn selector_json(kind: &str, selector: &VectorSelector) -> Value {
    let (timestamp, start_or_end) = at(selector.at);
    let matcher = |matcher: &Matcher| json!({"name": matcher.name(), "value": matcher.value(), "type": matcher.op().as_str()});
    json!({
        "type": kind,
        "name": selector.name,
        "matchers": selector.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "offset": millis(&selector.offset),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

/// A calculated duration has no number before it is evaluated.
fn millis(duration: &DurationValue) -> Value {
    match duration {
        DurationValue::Fixed(millis) => json!(millis),
        DurationValue::Expr(_) => json!(0),
    }
}

fn at(modifier: Option<AtModifier>) -> (Value, Value) {
    match modifier {
        None => (Value::Null, Value::Null),
        Some(AtModifier::Timestamp(timestamp_ms)) => (json!(timestamp_ms), Value::Null),
        Some(AtModifier::Start) => (Value::Null, json!("start")),
        Some(AtModifier::End) => (Value::Null, json!("end")),
    }
}

fn matching(matching: &VectorMatching) -> Value {
    let card = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({"card": card, "labels": matching.labels, "on": matching.on, "include": matching.include})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_become_trees() {
        let json = tree(&pharos_promql::parse("sum by (a) (rate(x{b!=\"1\"}[5m] offset 1m)) > -2").unwrap())
            .unwrap();
        assert_eq!(json["type"], "binaryExpr");
        assert_eq!(json["rhs"], json!({"type": "numberLiteral", "val": "-2"}));
        let sum = &json["lhs"];
        assert_eq!(
            (&sum["op"], &sum["grouping"], &sum["param"]),
            (&json!("sum"), &json!(["a"]), &Value::Null)
        );
        let range = &sum["expr"]["args"][0];
        assert_eq!(range["type"], "matrixSelector");
        assert_eq!((&range["range"], &range["offset"]), (&json!(300_000), &json!(60_000)));
        assert_eq!(range["matchers"][0], json!({"name": "b", "value": "1", "type": "!="}));
    }

    #[test]
    fn a_query_too_deep_for_json_is_refused() {
        let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
        assert!(tree(&pharos_promql::parse(&deep).unwrap()).is_err());
    }
}
