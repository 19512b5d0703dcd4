//! Queries as text over several lines, as `format_query` and `promtool promql format` lay them out.

use super::print::{aggregate_head, infinite_base, operator, subquery_suffix, write_node};
use super::{Expr, NodeId, NodeKind};

/// Longest line, characters: what is shorter stays on one line.
const LINE_CHARS_MAX: usize = 100;

/// Deepest level that is indented. Deeper parts stay on one line, or the blanks alone would fill memory.
const INDENT_LEVELS_MAX: usize = 200;

const INDENT: &str = "  ";

enum Piece {
    Text(String),
    Node { id: NodeId, level: usize, indent_first: bool },
}

/// Lays a query out over several lines where it is too long for one.
pub fn prettify(expr: &Expr) -> String {
    let lengths = line_lengths(expr);
    let mut out = String::new();
    let mut pieces = vec![Piece::Node { id: expr.root(), level: 0, indent_first: true }];
    while let Some(piece) = pieces.pop() {
        match piece {
            Piece::Text(text) => out.push_str(&text),
            Piece::Node { id, level, indent_first } => {
                let short = lengths.get(id.index()).is_none_or(|&length| length <= LINE_CHARS_MAX);
                let whole = short || level >= INDENT_LEVELS_MAX;
                if let NodeKind::Binary(binary) = &expr.node(id).kind
                    && !whole
                {
                    // The operands stand one level deeper than the operator, on lines of their own.
                    let operator = format!("\n{}{}\n", INDENT.repeat(level), operator(binary));
                    pieces.push(Piece::Node { id: binary.rhs, level: level + 1, indent_first: true });
                    pieces.push(Piece::Text(operator));
                    pieces.push(match infinite_base(expr, binary) {
                        Some(base) if indent_first => {
                            Piece::Text(format!("{}{base}", INDENT.repeat(level + 1)))
                        }
                        Some(base) => Piece::Text(base.to_owned()),
                        None => Piece::Node { id: binary.lhs, level: level + 1, indent_first },
                    });
                    continue;
                }
                if indent_first {
                    out.push_str(&INDENT.repeat(level));
                }
                if whole {
                    // Writing to a string cannot fail.
                    let _ = write_node(&mut out, expr, id);
                } else {
                    split(expr, id, level, &mut out, &mut pieces);
                }
            }
        }
    }
    out
}

/// Writes the head of a node (no operator) that is too long, and leaves the rest, last piece first, on the stack.
fn split(expr: &Expr, id: NodeId, level: usize, out: &mut String, pieces: &mut Vec<Piece>) {
    let indent = INDENT.repeat(level);
    let child = |id| Piece::Node { id, level: level + 1, indent_first: true };
    let text = |text: &str| Piece::Text(text.to_owned());
    match &expr.node(id).kind {
        NodeKind::Call(call) if !call.args.is_empty() => {
            *out += &format!("{}(\n", call.function.name);
            pieces.push(Piece::Text(format!("\n{indent})")));
            for (index, &arg) in call.args.iter().enumerate().rev() {
                pieces.push(child(arg));
                if index > 0 {
                    pieces.push(text(",\n"));
                }
            }
        }
        NodeKind::Aggregate(aggregate) => {
            *out += &format!("{}(\n", aggregate_head(aggregate));
            pieces.push(Piece::Text(format!("\n{indent})")));
            pieces.push(child(aggregate.expr));
            if let Some(param) = aggregate.param {
                pieces.push(text(",\n"));
                pieces.push(child(param));
            }
        }
        NodeKind::Subquery(subquery) => {
            pieces.push(Piece::Text(subquery_suffix(subquery)));
            pieces.push(Piece::Node { id: subquery.expr, level, indent_first: false });
        }
        NodeKind::Unary(unary) => {
            out.push(if unary.negative { '-' } else { '+' });
            pieces.push(Piece::Node { id: unary.expr, level, indent_first: false });
        }
        NodeKind::Paren(inner) => {
            out.push_str("(\n");
            pieces.push(Piece::Text(format!("\n{indent})")));
            pieces.push(child(*inner));
        }
        _ => {
            let _ = write_node(out, expr, id);
        }
    }
}

/// Length of every node on one line, at least roughly beyond the limit: sums of the parts, in one pass.
fn line_lengths(expr: &Expr) -> Vec<usize> {
    let mut lengths: Vec<usize> = Vec::with_capacity(expr.nodes.len());
    for (id, node) in expr.nodes() {
        let own = match &node.kind {
            NodeKind::Subquery(subquery) => subquery_suffix(subquery).len(),
            NodeKind::Call(call) => call.function.name.len() + 2 + 2 * call.args.len().saturating_sub(1),
            NodeKind::Aggregate(aggregate) => {
                aggregate_head(aggregate).len() + 2 + if aggregate.param.is_some() { 2 } else { 0 }
            }
            NodeKind::Binary(binary) => operator(binary).len() + 2,
            NodeKind::Unary(_) => 1,
            NodeKind::Paren(_) => 2,
            _ => {
                let mut text = String::new();
                let _ = write_node(&mut text, expr, id);
                text.chars().count()
            }
        };
        let mut length = own;
        expr.for_each_child(id, |child| length += lengths.get(child.index()).copied().unwrap_or(0));
        lengths.push(length);
    }
    lengths
}
