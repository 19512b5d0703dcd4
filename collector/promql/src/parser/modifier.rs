//! What may follow an operand: a range, `offset`, `@`, `anchored`, `smoothed`.

use super::bracket::DurationPlace;
use super::error::ParseError;
use super::expression::Parser;
use super::token::{Keyword, TokenKind};
use crate::ast::{AtModifier, BinaryOp, NodeId, NodeKind, RangeExtension};

impl Parser<'_> {
    /// Reads everything that binds to an operand from behind.
    pub(super) fn postfix(&mut self, mut node: NodeId) -> Result<NodeId, ParseError> {
        loop {
            match self.next.kind {
                TokenKind::LeftBracket => node = self.bracket(node)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(node)?,
                TokenKind::At => self.at(node)?,
                TokenKind::Keyword(Keyword::Anchored) => {
                    self.advance()?;
                    self.extend(node, RangeExtension::Anchored)?;
                }
                TokenKind::Keyword(Keyword::Smoothed) => {
                    self.advance()?;
                    self.extend(node, RangeExtension::Smoothed)?;
                }
                _ => return Ok(node),
            }
        }
    }

    fn offset(&mut self, id: NodeId) -> Result<(), ParseError> {
        self.advance()?;
        let written = self.duration(DurationPlace::Offset)?;
        let end = self.last_end;
        let span = self.span(id);
        let offset = match &mut self.nodes[id.index()].kind {
            NodeKind::Selector(selector) => &mut selector.offset,
            NodeKind::Range(range) => &mut range.selector.offset,
            NodeKind::Subquery(subquery) => &mut subquery.offset,
            _ => {
                return Err(self.error(
                    span,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                ));
            }
        };
        if !offset.is_zero() {
            return Err(self.error(span, "offset may not be set multiple times"));
        }
        *offset = written;
        self.nodes[id.index()].span.end = end;
        Ok(())
    }

    fn at(&mut self, id: NodeId) -> Result<(), ParseError> {
        self.advance()?;
        let modifier = self.at_value(id)?;
        let end = self.last_end;
        let span = self.span(id);
        let at = match &mut self.nodes[id.index()].kind {
            NodeKind::Selector(selector) => &mut selector.at,
            NodeKind::Range(range) => &mut range.selector.at,
            NodeKind::Subquery(subquery) => &mut subquery.at,
            _ => {
                return Err(self.error(
                    span,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                ));
            }
        };
        if at.is_some() {
            return Err(self.error(span, "@ <timestamp> may not be set multiple times"));
        }
        *at = Some(modifier);
        self.nodes[id.index()].span.end = end;
        Ok(())
    }

    fn at_value(&mut self, id: NodeId) -> Result<AtModifier, ParseError> {
        let negative = match self.next.kind {
            TokenKind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                if !matches!(self.next.kind, TokenKind::Number | TokenKind::Duration) {
                    return Err(self.unexpected("@", "timestamp"));
                }
                op == BinaryOp::Sub
            }
            _ => false,
        };
        match self.next.kind {
            TokenKind::Number | TokenKind::Duration => {
                let token = self.advance()?;
                let (value, _) = self.number_value(token)?;
                let seconds = if negative { -value } else { value };
                let limit = i64::MAX as f64;
                if !(seconds < limit && seconds > -limit) {
                    let shown = if seconds.is_finite() {
                        format!("{seconds:.6}")
                    } else {
                        crate::number::format_float(seconds)
                    };
                    let message = format!("timestamp out of bounds for @ modifier: {shown}");
                    return Err(self.error(self.span(id), message));
                }
                Ok(AtModifier::Timestamp((seconds * 1000.0).round() as i64))
            }
            TokenKind::Keyword(keyword @ (Keyword::Start | Keyword::End)) => {
                self.advance()?;
                for kind in [TokenKind::LeftParen, TokenKind::RightParen] {
                    if self.take_if(kind)?.is_none() {
                        return Err(self.unexpected("@", "timestamp"));
                    }
                }
                Ok(if keyword == Keyword::Start { AtModifier::Start } else { AtModifier::End })
            }
            _ => Err(self.unexpected("@", "timestamp")),
        }
    }

    fn extend(&mut self, id: NodeId, wanted: RangeExtension) -> Result<(), ParseError> {
        let span = self.span(id);
        let word = if wanted == RangeExtension::Anchored { "anchored" } else { "smoothed" };
        let extension = match &mut self.nodes[id.index()].kind {
            NodeKind::Selector(selector) => &mut selector.extension,
            NodeKind::Range(range) => &mut range.selector.extension,
            NodeKind::Subquery(_) => {
                return Err(self.error(span, format!("{word} modifier is not supported for subqueries")));
            }
            _ => return Err(self.error(span, format!("{word} modifier not implemented"))),
        };
        if *extension != RangeExtension::None && *extension != wanted {
            return Err(self.error(span, "anchored and smoothed modifiers cannot be used together"));
        }
        *extension = wanted;
        Ok(())
    }
}
