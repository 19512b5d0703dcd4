//! Text to tree: a lexer, a parser that keeps its own stack, and a type check.
//!
//! Text flows in, an [`Expr`] or the first [`ParseError`] flows out, in time linear in the text.
//! Depth costs heap, never call stack: nesting is a stack of [`frame`]s, and the tree is a vector.

mod bracket;
mod check;
mod error;
mod expression;
mod frame;
mod lexer;
mod matching;
mod modifier;
mod selector;
mod strings;
mod token;

pub use error::ParseError;

use crate::ast::{Expr, NodeKind};
use crate::span::Span;
use pharos_common::matcher::Matcher;

/// Longest query that is read, bytes. Prometheus takes what a request body may hold; this is far above
/// what people or dashboards write, and keeps positions and node ids in 32 bits.
pub const QUERY_LENGTH_BYTES_MAX: usize = 16 << 20;

/// Parses and type-checks a query.
///
/// # Errors
/// The first thing that is wrong, in Prometheus' words and with its place.
pub fn parse(query: &str) -> Result<Expr, ParseError> {
    if query.len() > QUERY_LENGTH_BYTES_MAX {
        let message = format!("query is longer than {QUERY_LENGTH_BYTES_MAX} bytes");
        return Err(ParseError::new(query, Span::new(0, 0), message));
    }
    let mut expr = expression::Parser::new(query)?.parse()?;
    check::check(&mut expr)?;
    Ok(expr)
}

/// Parses a series selector, `up{job="node"}` and no more, as `match[]` parameters have it.
///
/// # Errors
/// If the text is anything else.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>, ParseError> {
    let mut expr = parse(text)?;
    let root = expr.root.index();
    let span = expr.nodes[root].span;
    match &mut expr.nodes[root].kind {
        NodeKind::Selector(selector) if selector.is_plain() => Ok(std::mem::take(&mut selector.matchers)),
        _ => Err(ParseError::new(text, span, "expected a series selector and nothing else")),
    }
}
