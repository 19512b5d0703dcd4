//! Queries as text: Prometheus' canonical form, on one line.

use super::duration::write_seconds;
use super::{
    Aggregate, AtModifier, Binary, BinaryOp, Cardinality, DurationValue, Expr, Node, NodeId, NodeKind,
    RangeExtension, Subquery, VectorMatching, VectorSelector,
};
use crate::number::format_general;
use crate::quote::{go_quote, go_quote_bytes};
use pharos_common::labels::{METRIC_NAME, is_legacy_label_name};
use pharos_common::matcher::MatchOp;
use std::fmt::{self, Write};

enum Piece {
    Text(&'static str),
    Owned(String),
    Node(NodeId),
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_node(f, self, self.root)
    }
}

/// Writes a node. What is still to be written waits on a stack, so that depth costs no call stack.
pub(super) fn write_node(f: &mut dyn Write, expr: &Expr, root: NodeId) -> fmt::Result {
    let mut pieces = vec![Piece::Node(root)];
    while let Some(piece) = pieces.pop() {
        match piece {
            Piece::Text(text) => f.write_str(text)?,
            Piece::Owned(text) => f.write_str(&text)?,
            Piece::Node(id) => write_head(f, expr, expr.node(id), &mut pieces)?,
        }
    }
    Ok(())
}

/// Writes what a node starts with and leaves the rest, last piece first, on the stack.
fn write_head(f: &mut dyn Write, expr: &Expr, node: &Node, pieces: &mut Vec<Piece>) -> fmt::Result {
    match &node.kind {
        NodeKind::Number(_) | NodeKind::String(_) | NodeKind::Selector(_) | NodeKind::Range(_) => {
            write_leaf(f, node)
        }
        NodeKind::Subquery(subquery) => {
            pieces.push(Piece::Owned(subquery_suffix(subquery)));
            pieces.push(Piece::Node(subquery.expr));
            Ok(())
        }
        NodeKind::Call(call) => {
            write!(f, "{}(", call.function.name)?;
            pieces.push(Piece::Text(")"));
            for (index, &arg) in call.args.iter().enumerate().rev() {
                pieces.push(Piece::Node(arg));
                if index > 0 {
                    pieces.push(Piece::Text(", "));
                }
            }
            Ok(())
        }
        NodeKind::Aggregate(aggregate) => {
            f.write_str(&aggregate_head(aggregate))?;
            f.write_str("(")?;
            pieces.push(Piece::Text(")"));
            pieces.push(Piece::Node(aggregate.expr));
            if let Some(param) = aggregate.param {
                pieces.push(Piece::Text(", "));
                pieces.push(Piece::Node(param));
            }
            Ok(())
        }
        NodeKind::Binary(binary) => {
            pieces.push(Piece::Node(binary.rhs));
            pieces.push(Piece::Owned(format!(" {} ", operator(binary))));
            pieces.push(infinite_base(expr, binary).map_or(Piece::Node(binary.lhs), Piece::Text));
            Ok(())
        }
        NodeKind::Unary(unary) => {
            f.write_str(if unary.negative { "-" } else { "+" })?;
            pieces.push(Piece::Node(unary.expr));
            Ok(())
        }
        NodeKind::Paren(inner) => {
            f.write_str("(")?;
            pieces.push(Piece::Text(")"));
            pieces.push(Piece::Node(*inner));
            Ok(())
        }
    }
}

/// Infinity that is raised to a power stands without a sign: one would be read as the whole power's.
pub(super) fn infinite_base(expr: &Expr, binary: &Binary) -> Option<&'static str> {
    let NodeKind::Number(base) = &expr.node(binary.lhs).kind else { return None };
    (binary.op == BinaryOp::Pow && base.value == f64::INFINITY).then_some("Inf")
}

/// Writes a node without children.
pub(super) fn write_leaf(f: &mut dyn Write, node: &Node) -> fmt::Result {
    match &node.kind {
        NodeKind::Number(number) => {
            struct Seconds(f64, bool);
            impl fmt::Display for Seconds {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    write_seconds(f, self.0, self.1)
                }
            }
            write!(f, "{}", Seconds(number.value, number.is_duration))
        }
        NodeKind::String(text) => f.write_str(&go_quote_bytes(&text.bytes)),
        NodeKind::Selector(selector) => {
            write_series(f, selector)?;
            f.write_str(&at(selector.at))?;
            f.write_str(extension(selector.extension))?;
            f.write_str(&offset(&selector.offset))
        }
        NodeKind::Range(range) => {
            write_series(f, &range.selector)?;
            write!(f, "[{}]", range.range)?;
            f.write_str(extension(range.selector.extension))?;
            f.write_str(&at(range.selector.at))?;
            f.write_str(&offset(&range.selector.offset))
        }
        _ => Ok(()),
    }
}

fn write_series(f: &mut dyn Write, selector: &VectorSelector) -> fmt::Result {
    f.write_str(&selector.name)?;
    let mut matchers: Vec<String> = selector
        .matchers
        .iter()
        .filter(|matcher| {
            let is_the_name = matcher.name() == METRIC_NAME
                && matcher.op() == MatchOp::Equal
                && matcher.value() == selector.name
                && !matcher.value().is_empty();
            !is_the_name
        })
        .map(|matcher| {
            let name = label_name(matcher.name());
            format!("{name}{}{}", matcher.op().as_str(), go_quote(matcher.value()))
        })
        .collect();
    // Only `info` takes a selector without anything.
    if matchers.is_empty() && !selector.name.is_empty() {
        return Ok(());
    }
    matchers.sort_unstable();
    write!(f, "{{{}}}", matchers.join(","))
}

fn label_name(name: &str) -> String {
    if is_legacy_label_name(name) { name.to_owned() } else { go_quote(name) }
}

fn label_list(labels: &[String]) -> String {
    labels.iter().map(|label| label_name(label)).collect::<Vec<_>>().join(", ")
}

fn at(at: Option<AtModifier>) -> String {
    match at {
        None => String::new(),
        Some(AtModifier::Timestamp(millis)) => format!(" @ {:.3}", millis as f64 / 1000.0),
        Some(AtModifier::Start) => " @ start()".to_owned(),
        Some(AtModifier::End) => " @ end()".to_owned(),
    }
}

fn extension(extension: RangeExtension) -> &'static str {
    match extension {
        RangeExtension::None => "",
        RangeExtension::Anchored => " anchored",
        RangeExtension::Smoothed => " smoothed",
    }
}

fn offset(offset: &DurationValue) -> String {
    if offset.is_zero() { String::new() } else { format!(" offset {offset}") }
}

/// `[5m:1m] @ 0 offset 1h`
pub(super) fn subquery_suffix(subquery: &Subquery) -> String {
    let step = subquery.step.as_ref().map_or(String::new(), ToString::to_string);
    format!("[{}:{step}]{}{}", subquery.range, at(subquery.at), offset(&subquery.offset))
}

/// `sum by (job) `
pub(super) fn aggregate_head(aggregate: &Aggregate) -> String {
    let op = aggregate.op;
    if aggregate.without {
        format!("{op} without ({}) ", label_list(&aggregate.grouping))
    } else if aggregate.grouping.is_empty() {
        op.to_string()
    } else {
        format!("{op} by ({}) ", label_list(&aggregate.grouping))
    }
}

/// `> bool on (job) group_left ()`
pub(super) fn operator(binary: &Binary) -> String {
    let mut text = binary.op.to_string();
    if binary.return_bool {
        text += " bool";
    }
    if let Some(matching) = &binary.matching {
        text += &matching_clause(matching);
    }
    text
}

fn matching_clause(matching: &VectorMatching) -> String {
    let mut text = String::new();
    let group = match matching.cardinality {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        Cardinality::OneToOne | Cardinality::ManyToMany => None,
    };
    if !matching.labels.is_empty() || matching.on || group.is_some() {
        let word = if matching.on { "on" } else { "ignoring" };
        text += &format!(" {word} ({})", label_list(&matching.labels));
    }
    if let Some(side) = group {
        text += &format!(" group_{side} ({})", label_list(&matching.include));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(value), Some(_)) if matching.fill_both => {
            text += &format!(" fill ({})", format_general(value));
        }
        (left, right) => {
            if let Some(value) = left {
                text += &format!(" fill_left ({})", format_general(value));
            }
            if let Some(value) = right {
                text += &format!(" fill_right ({})", format_general(value));
            }
        }
    }
    text
}
