//! Queries as JSON, in the shape of Prometheus' `/api/v1/parse_query`.
//!
//! The text is written directly, with what is still to come on a stack: neither writing nor dropping it
//! recurses, however deep the query.

use super::{
    AtModifier, Cardinality, DurationValue, Expr, NodeId, NodeKind, RangeExtension, Subquery, VectorMatching,
    VectorSelector,
};
use crate::number::format_float;
use std::fmt::Write;

enum Piece {
    Text(String),
    Node(NodeId),
}

/// A query's tree as JSON text.
pub fn to_json(expr: &Expr) -> String {
    let mut out = String::new();
    let mut pieces = vec![Piece::Node(expr.root())];
    while let Some(piece) = pieces.pop() {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Node(id) => {
                // Last piece first.
                let parts = node(expr, id);
                pieces.extend(parts.into_iter().rev());
            }
        }
    }
    out
}

/// A node's text with its children in place. Keys are sorted, as Go sorts them.
fn node(expr: &Expr, id: NodeId) -> Vec<Piece> {
    let text = |text: String| Piece::Text(text);
    match &expr.node(id).kind {
        NodeKind::Number(number) => {
            vec![text(format!(r#"{{"type":"numberLiteral","val":"{}"}}"#, format_float(number.value)))]
        }
        NodeKind::String(string) => {
            vec![text(format!(r#"{{"type":"stringLiteral","val":{}}}"#, quoted(&string.to_text())))]
        }
        NodeKind::Selector(selector) => {
            vec![text(format!("{{{},\"type\":\"vectorSelector\"}}", series(selector, None)))]
        }
        NodeKind::Range(range) => {
            vec![text(format!(
                "{{{},\"type\":\"matrixSelector\"}}",
                series(&range.selector, Some(&range.range))
            ))]
        }
        NodeKind::Subquery(subquery) => vec![
            text("{\"expr\":".to_owned()),
            Piece::Node(subquery.expr),
            text(format!(",{},\"type\":\"subquery\"}}", subquery_times(subquery))),
        ],
        NodeKind::Paren(inner) => vec![
            text("{\"expr\":".to_owned()),
            Piece::Node(*inner),
            text(",\"type\":\"parenExpr\"}".to_owned()),
        ],
        NodeKind::Unary(unary) => vec![
            text("{\"expr\":".to_owned()),
            Piece::Node(unary.expr),
            text(format!(r#","op":"{}","type":"unaryExpr"}}"#, if unary.negative { '-' } else { '+' })),
        ],
        NodeKind::Aggregate(aggregate) => {
            let head = format!(
                ",\"grouping\":{},\"op\":\"{}\",\"param\":",
                list(&aggregate.grouping),
                aggregate.op.as_str()
            );
            vec![
                text("{\"expr\":".to_owned()),
                Piece::Node(aggregate.expr),
                text(head),
                aggregate.param.map_or_else(|| text("null".to_owned()), Piece::Node),
                text(format!(",\"type\":\"aggregation\",\"without\":{}}}", aggregate.without)),
            ]
        }
        NodeKind::Binary(binary) => vec![
            text(format!("{{\"bool\":{},\"lhs\":", binary.return_bool)),
            Piece::Node(binary.lhs),
            text(format!(
                ",\"matching\":{},\"op\":\"{}\",\"rhs\":",
                binary.matching.as_ref().map_or_else(|| "null".to_owned(), matching),
                binary.op
            )),
            Piece::Node(binary.rhs),
            text(",\"type\":\"binaryExpr\"}".to_owned()),
        ],
        NodeKind::Call(call) => {
            let mut pieces = vec![text("{\"args\":[".to_owned())];
            for (index, &arg) in call.args.iter().enumerate() {
                if index > 0 {
                    pieces.push(text(",".to_owned()));
                }
                pieces.push(Piece::Node(arg));
            }
            let function = call.function;
            let types: Vec<String> =
                function.args.iter().map(|value_type| quoted(value_type.as_str())).collect();
            pieces.push(text(format!(
                r#"],"func":{{"argTypes":[{}],"name":"{}","returnType":"{}","variadic":{}}},"type":"call"}}"#,
                types.join(","),
                function.name,
                function.returns.as_str(),
                function.variadic
            )));
            pieces
        }
    }
}

/// What selectors of both kinds have.
fn series(selector: &VectorSelector, range: Option<&DurationValue>) -> String {
    let matchers: Vec<String> = selector
        .matchers
        .iter()
        .map(|matcher| {
            let (name, value) = (quoted(matcher.name()), quoted(matcher.value()));
            format!("{{\"name\":{name},\"type\":\"{}\",\"value\":{value}}}", matcher.op().as_str())
        })
        .collect();
    let mut text = format!("\"anchored\":{}", selector.extension == RangeExtension::Anchored);
    let _ = write!(text, ",\"matchers\":[{}],\"name\":{}", matchers.join(","), quoted(&selector.name));
    text += &duration("offset", &selector.offset);
    if let Some(range) = range {
        text += &duration("range", range);
    }
    let _ = write!(text, ",\"smoothed\":{}", selector.extension == RangeExtension::Smoothed);
    text + &at(selector.at)
}

fn subquery_times(subquery: &Subquery) -> String {
    let mut text = duration("offset", &subquery.offset) + &duration("range", &subquery.range);
    let (start_or_end, timestamp) = at_parts(subquery.at);
    let _ = write!(text, ",\"startOrEnd\":{start_or_end}");
    text += &duration("step", subquery.step.as_ref().unwrap_or(&DurationValue::Fixed(0)));
    let _ = write!(text, ",\"timestamp\":{timestamp}");
    text.trim_start_matches(',').to_owned()
}

/// `,"key":milliseconds`, and for calculated durations their text as `"keyExpr"`.
fn duration(key: &str, value: &DurationValue) -> String {
    match value {
        DurationValue::Fixed(millis) => format!(",\"{key}\":{millis}"),
        DurationValue::Expr(expr) => format!(",\"{key}\":0,\"{key}Expr\":{}", quoted(&expr.to_string())),
    }
}

fn at(at: Option<AtModifier>) -> String {
    let (start_or_end, timestamp) = at_parts(at);
    format!(",\"startOrEnd\":{start_or_end},\"timestamp\":{timestamp}")
}

fn at_parts(at: Option<AtModifier>) -> (&'static str, String) {
    match at {
        None => ("null", "null".to_owned()),
        Some(AtModifier::Timestamp(millis)) => ("null", millis.to_string()),
        Some(AtModifier::Start) => ("\"start\"", "null".to_owned()),
        Some(AtModifier::End) => ("\"end\"", "null".to_owned()),
    }
}

fn matching(matching: &VectorMatching) -> String {
    let cardinality = match matching.cardinality {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    let fill = |value: Option<f64>| match value {
        None => "null".to_owned(),
        // JSON has no numbers for these.
        Some(value) if !value.is_finite() => quoted(&format_float(value)),
        Some(value) => format_float(value),
    };
    format!(
        "{{\"card\":\"{cardinality}\",\"fillValues\":{{\"lhs\":{},\"rhs\":{}}},\"include\":{},\"labels\":{},\"on\":{}}}",
        fill(matching.fill_left),
        fill(matching.fill_right),
        list(&matching.include),
        list(&matching.labels),
        matching.on
    )
}

fn list(labels: &[String]) -> String {
    let labels: Vec<String> = labels.iter().map(|label| quoted(label)).collect();
    format!("[{}]", labels.join(","))
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
