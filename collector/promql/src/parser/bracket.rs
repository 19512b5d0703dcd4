//! Brackets behind an operand (ranges and subqueries) and the durations in them and behind `offset`.

use super::error::ParseError;
use super::expression::Parser;
use super::token::{Keyword, TokenKind};
use crate::ast::{
    AggregateOp, BinaryOp, DurationExpr, DurationId, DurationNode, DurationOp, DurationValue, NodeId,
    NodeKind, Range, Subquery, UNARY_PRECEDENCE,
};
use crate::span::Span;

/// Where a duration stands, which decides how far it reaches and how errors name the place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DurationPlace {
    /// `[…`
    Range,
    /// `[5m:…`
    Step,
    /// `offset …`: one operand only, so that `a offset 5m + b` adds `b`.
    Offset,
}

impl DurationPlace {
    fn context(self) -> (&'static str, &'static str) {
        match self {
            DurationPlace::Range => ("subquery or range selector", "number, duration, step(), or range()"),
            DurationPlace::Step => ("subquery selector", "number, duration, step(), range(), or \"]\""),
            DurationPlace::Offset => ("offset", "number, duration, step(), or range()"),
        }
    }
}

enum Frame {
    Binary { op: DurationOp, precedence: u8, lhs: DurationId },
    Negative,
    Positive,
    Paren,
    Choice { op: DurationOp, first: Option<DurationId> },
}

/// Longest duration, seconds: nanoseconds in an `i64`.
const LONGEST_SECONDS: f64 = 9_223_372_036.854_775;

impl Parser<'_> {
    /// At `[`.
    pub(super) fn bracket(&mut self, operand: NodeId) -> Result<NodeId, ParseError> {
        let bracket = self.advance()?;
        let range = self.duration(DurationPlace::Range)?;
        match self.next.kind {
            TokenKind::RightBracket => {
                let closing = self.advance()?;
                self.range(operand, range, bracket.span().to(closing.span()))
            }
            TokenKind::Colon => {
                self.advance()?;
                let step = if self.next.is(TokenKind::RightBracket) {
                    None
                } else {
                    Some(self.duration(DurationPlace::Step)?)
                };
                let Some(closing) = self.take_if(TokenKind::RightBracket)? else {
                    return Err(self.unexpected("subquery selector", "\"]\""));
                };
                let span = Span::new(self.span(operand).start, closing.start + 1);
                let offset = DurationValue::Fixed(0);
                let subquery = Subquery { expr: operand, range, step, offset, at: None };
                Ok(self.add(NodeKind::Subquery(subquery), span))
            }
            _ => Err(self.unexpected("subquery or range", "\":\" or \"]\"")),
        }
    }

    /// Turns a vector selector into a range of samples.
    fn range(&mut self, id: NodeId, range: DurationValue, brackets: Span) -> Result<NodeId, ParseError> {
        let refused = match &self.nodes[id.index()].kind {
            NodeKind::Selector(selector) if !selector.offset.is_zero() => {
                Some("no offset modifiers allowed before range")
            }
            NodeKind::Selector(selector) if selector.at.is_some() => {
                Some("no @ modifiers allowed before range")
            }
            NodeKind::Selector(_) => None,
            _ => Some("ranges only allowed for vector selectors"),
        };
        if let Some(message) = refused {
            return Err(self.error(brackets, message));
        }
        let node = &mut self.nodes[id.index()];
        node.span.end = brackets.end;
        if let NodeKind::Selector(selector) = &node.kind {
            node.kind = NodeKind::Range(Range { selector: selector.clone(), range });
        }
        Ok(id)
    }

    /// Reads a duration.
    pub(super) fn duration(&mut self, place: DurationPlace) -> Result<DurationValue, ParseError> {
        let (context, expected) = place.context();
        let start = self.next.start;
        let mut nodes = Vec::new();
        let mut frames: Vec<Frame> = Vec::new();
        // Parentheses open at the moment.
        let mut open = 0usize;
        'operand: loop {
            self.check_parts(nodes.len() + frames.len())?;
            let mut done = match self.next.kind {
                TokenKind::Number | TokenKind::Duration => {
                    let token = self.advance()?;
                    let (seconds, with_unit) = self.number_value(token)?;
                    if seconds.is_nan() || seconds.abs() > LONGEST_SECONDS {
                        return Err(self.error(token.span(), "duration out of range"));
                    }
                    push(&mut nodes, DurationNode::Number { seconds, with_unit })
                }
                TokenKind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                    self.advance()?;
                    frames.push(if op == BinaryOp::Sub { Frame::Negative } else { Frame::Positive });
                    continue;
                }
                TokenKind::LeftParen => {
                    self.advance()?;
                    frames.push(Frame::Paren);
                    open += 1;
                    continue;
                }
                TokenKind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                    self.advance()?;
                    for expected_token in [TokenKind::LeftParen, TokenKind::RightParen] {
                        if self.take_if(expected_token)?.is_none() {
                            return Err(self.unexpected(context, expected));
                        }
                    }
                    let node =
                        if keyword == Keyword::Step { DurationNode::Step } else { DurationNode::Range };
                    push(&mut nodes, node)
                }
                TokenKind::Keyword(Keyword::MinOf) | TokenKind::Aggregator(AggregateOp::Min) => {
                    self.open_choice(&mut frames, DurationOp::Min, place)?;
                    open += 1;
                    continue;
                }
                TokenKind::Keyword(Keyword::MaxOf) | TokenKind::Aggregator(AggregateOp::Max) => {
                    self.open_choice(&mut frames, DurationOp::Max, place)?;
                    open += 1;
                    continue;
                }
                _ => return Err(self.unexpected(context, expected)),
            };
            loop {
                let inside = open > 0;
                match self.next.kind {
                    TokenKind::Operator(op) if inside || place != DurationPlace::Offset => {
                        let Some((op, precedence)) = duration_op(op) else {
                            return Err(self.unexpected(context, expected));
                        };
                        let right = op == DurationOp::Pow;
                        done = self.reduce_duration(
                            &mut nodes,
                            &mut frames,
                            done,
                            precedence + u8::from(right),
                        )?;
                        self.advance()?;
                        self.refuse_zero_divisor(op)?;
                        frames.push(Frame::Binary { op, precedence, lhs: done });
                        continue 'operand;
                    }
                    TokenKind::RightParen if inside => {
                        done = self.reduce_duration(&mut nodes, &mut frames, done, 0)?;
                        self.advance()?;
                        open -= 1;
                        done = match frames.pop() {
                            Some(Frame::Choice { op, first: Some(first) }) => {
                                push(&mut nodes, DurationNode::Binary(op, first, done))
                            }
                            Some(Frame::Paren) => push(&mut nodes, DurationNode::Paren(done)),
                            _ => return Err(self.unexpected(context, expected)),
                        };
                    }
                    TokenKind::Comma if inside => {
                        done = self.reduce_duration(&mut nodes, &mut frames, done, 0)?;
                        match frames.last_mut() {
                            Some(Frame::Choice { first: first @ None, .. }) => *first = Some(done),
                            _ => return Err(self.unexpected(context, expected)),
                        }
                        self.advance()?;
                        continue 'operand;
                    }
                    _ if inside => return Err(self.unexpected(context, expected)),
                    _ => {
                        self.reduce_duration(&mut nodes, &mut frames, done, 0)?;
                        return self.finish_duration(nodes, start, place);
                    }
                }
            }
        }
    }

    fn open_choice(
        &mut self,
        frames: &mut Vec<Frame>,
        op: DurationOp,
        place: DurationPlace,
    ) -> Result<(), ParseError> {
        self.advance()?;
        if self.take_if(TokenKind::LeftParen)?.is_none() {
            let (context, expected) = place.context();
            return Err(self.unexpected(context, expected));
        }
        frames.push(Frame::Choice { op, first: None });
        Ok(())
    }

    fn reduce_duration(
        &self,
        nodes: &mut Vec<DurationNode>,
        frames: &mut Vec<Frame>,
        mut done: DurationId,
        bound: u8,
    ) -> Result<DurationId, ParseError> {
        loop {
            match frames.last() {
                Some(Frame::Negative | Frame::Positive) if UNARY_PRECEDENCE >= bound => {}
                Some(Frame::Binary { precedence, .. }) if *precedence >= bound => {}
                _ => return Ok(done),
            }
            match frames.pop() {
                Some(Frame::Negative) => {
                    done = match nodes.get_mut(done.0 as usize) {
                        Some(DurationNode::Number { seconds, .. }) => {
                            *seconds = -*seconds;
                            done
                        }
                        _ => push(nodes, DurationNode::Negative(done)),
                    };
                }
                Some(Frame::Binary { op, lhs, .. }) => {
                    done = push(nodes, DurationNode::Binary(op, lhs, done));
                }
                _ => {}
            }
        }
    }

    /// `5m / 0` is refused at once.
    fn refuse_zero_divisor(&self, op: DurationOp) -> Result<(), ParseError> {
        if !self.next.is(TokenKind::Number) || !matches!(op, DurationOp::Div | DurationOp::Mod) {
            return Ok(());
        }
        let (value, _) = self.number_value(self.next)?;
        if value != 0.0 {
            return Ok(());
        }
        let message = if op == DurationOp::Div { "division by zero" } else { "modulo by zero" };
        // Prometheus points at the operator, which stands before the divisor.
        Err(self.error(self.next.span(), message))
    }

    fn finish_duration(
        &self,
        nodes: Vec<DurationNode>,
        start: usize,
        place: DurationPlace,
    ) -> Result<DurationValue, ParseError> {
        if let [DurationNode::Number { seconds, .. }] = nodes.as_slice() {
            if place != DurationPlace::Offset && *seconds <= 0.0 {
                let span = Span::new(start, start + 1);
                return Err(self.error(span, "duration must be greater than 0"));
            }
            return Ok(DurationValue::Fixed(((seconds * 1e9).round() as i64) / 1_000_000));
        }
        Ok(DurationValue::Expr(DurationExpr { nodes }))
    }
}

fn push(nodes: &mut Vec<DurationNode>, node: DurationNode) -> DurationId {
    nodes.push(node);
    DurationId((nodes.len() - 1) as u32)
}

fn duration_op(op: BinaryOp) -> Option<(DurationOp, u8)> {
    let duration_op = match op {
        BinaryOp::Add => DurationOp::Add,
        BinaryOp::Sub => DurationOp::Sub,
        BinaryOp::Mul => DurationOp::Mul,
        BinaryOp::Div => DurationOp::Div,
        BinaryOp::Mod => DurationOp::Mod,
        BinaryOp::Pow => DurationOp::Pow,
        _ => return None,
    };
    Some((duration_op, op.precedence()))
}
