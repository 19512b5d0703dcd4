//! The parser proper: operator precedence with an explicit stack of frames.

use super::error::ParseError;
use super::frame::{Frame, Grouping};
use super::lexer::Lexer;
use super::strings::unquote;
use super::token::{Keyword, Token, TokenKind};
use crate::ast::{
    Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, Node, NodeId, NodeKind, NumberLiteral,
    StringLiteral, UNARY_PRECEDENCE, Unary, ValueType, VectorMatching,
};
use crate::functions;
use crate::number::parse_number;
use crate::quote::go_quote;
use crate::span::Span;
use pharos_common::duration::PrometheusDuration;

/// Parts of a query: nodes, and what is still open. Each takes some hundred bytes until the query ends.
const PARTS_MAX: usize = 500_000;

pub(super) struct Parser<'q> {
    lexer: Lexer<'q>,
    /// The next token.
    pub(super) next: Token<'q>,
    /// Where the last token that was taken ends.
    pub(super) last_end: usize,
    pub(super) nodes: Vec<Node>,
    frames: Vec<Frame>,
}

impl<'q> Parser<'q> {
    pub(super) fn new(query: &'q str) -> Result<Self, ParseError> {
        let mut lexer = Lexer::new(query);
        let next = lexer.next_token()?;
        Ok(Parser { lexer, next, last_end: 0, nodes: Vec::new(), frames: Vec::new() })
    }

    pub(super) fn parse(mut self) -> Result<Expr, ParseError> {
        if self.next.is(TokenKind::Eof) {
            // Prometheus reports this without a position, which then points at the start.
            return Err(self.error(Span::default(), "no expression found in input"));
        }
        loop {
            let mut operand = self.operand()?;
            // After an operand: finish all that ends here, until something starts a new operand.
            while let Some(done) = operand {
                let node = self.postfix(done)?;
                if self.next.is(TokenKind::Eof) {
                    let root = self.reduce(node, 0)?;
                    let query = self.lexer.query().to_owned();
                    return Ok(Expr { nodes: self.nodes, root, query });
                }
                operand = self.after_operand(node)?;
            }
        }
    }

    pub(super) fn error(&self, span: Span, message: impl Into<String>) -> ParseError {
        ParseError::new(self.lexer.query(), span, message)
    }

    /// The complaint about the next token.
    pub(super) fn unexpected(&self, context: &str, expected: &str) -> ParseError {
        let mut message = format!("unexpected {}", self.next.describe());
        if !context.is_empty() {
            message += " in ";
            message += context;
        }
        if !expected.is_empty() {
            message += ", expected ";
            message += expected;
        }
        self.error(self.next.span(), message)
    }

    /// Takes the next token.
    pub(super) fn advance(&mut self) -> Result<Token<'q>, ParseError> {
        self.check_parts(self.nodes.len() + self.frames.len())?;
        let following = self.lexer.next_token()?;
        self.last_end = self.next.span().end;
        Ok(std::mem::replace(&mut self.next, following))
    }

    /// Refuses a query of too many parts.
    pub(super) fn check_parts(&self, parts: usize) -> Result<(), ParseError> {
        if parts <= PARTS_MAX {
            return Ok(());
        }
        Err(self.error(self.next.span(), format!("query has more than {PARTS_MAX} parts")))
    }

    pub(super) fn take_if(&mut self, kind: TokenKind) -> Result<Option<Token<'q>>, ParseError> {
        if self.next.is(kind) { self.advance().map(Some) } else { Ok(None) }
    }

    pub(super) fn add(&mut self, kind: NodeKind, span: Span) -> NodeId {
        self.nodes.push(Node { kind, span });
        NodeId((self.nodes.len() - 1) as u32)
    }

    pub(super) fn span(&self, id: NodeId) -> Span {
        self.nodes[id.index()].span
    }

    /// Reads what an operand starts with. `None` if the operand itself is still to come.
    fn operand(&mut self) -> Result<Option<NodeId>, ParseError> {
        let token = self.next;
        match token.kind {
            TokenKind::Number | TokenKind::Duration => {
                self.advance()?;
                let (value, is_duration) = self.number_value(token)?;
                let number = NodeKind::Number(NumberLiteral { value, is_duration });
                Ok(Some(self.add(number, token.span())))
            }
            TokenKind::String => {
                self.advance()?;
                let bytes = unquote(token.text);
                Ok(Some(self.add(NodeKind::String(StringLiteral { bytes }), token.span())))
            }
            TokenKind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                self.frames.push(Frame::Unary { negative: op == BinaryOp::Sub, start: token.start });
                Ok(None)
            }
            TokenKind::LeftParen => {
                self.advance()?;
                self.frames.push(Frame::Paren { start: token.start });
                Ok(None)
            }
            TokenKind::LeftBrace => self.vector_selector(None).map(Some),
            _ if token.is_metric_name() => {
                self.advance()?;
                self.named(token)
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// What starts with a name: a call, an aggregation or a selector.
    fn named(&mut self, name: Token<'q>) -> Result<Option<NodeId>, ParseError> {
        match name.kind {
            TokenKind::Aggregator(op) => {
                let modifier = self.grouping()?;
                if modifier.is_none() && !self.next.is(TokenKind::LeftParen) {
                    return self.vector_selector(Some(name)).map(Some);
                }
                if !self.next.is(TokenKind::LeftParen) {
                    return Err(self.unexpected("aggregation", ""));
                }
                self.advance()?;
                let frame = Frame::Aggregate { op, start: name.start, modifier, args: Vec::new() };
                self.open_arguments(frame)
            }
            TokenKind::Identifier
            | TokenKind::Keyword(
                Keyword::Start
                | Keyword::End
                | Keyword::Step
                | Keyword::Range
                | Keyword::MinOf
                | Keyword::MaxOf,
            ) if self.next.is(TokenKind::LeftParen) => {
                self.advance()?;
                let Some(function) = functions::find(name.text) else {
                    let message = format!("unknown function with name {}", go_quote(name.text));
                    return Err(self.error(name.span(), message));
                };
                self.open_arguments(Frame::Call { function, start: name.start, args: Vec::new() })
            }
            _ => self.vector_selector(Some(name)).map(Some),
        }
    }

    /// After the `(` of a call or an aggregation.
    fn open_arguments(&mut self, frame: Frame) -> Result<Option<NodeId>, ParseError> {
        self.frames.push(frame);
        if !self.next.is(TokenKind::RightParen) {
            return Ok(None);
        }
        self.close_paren(None).map(Some)
    }

    /// After a whole operand: an operator, a comma or a closing parenthesis. `Some` if that made a
    /// larger operand.
    fn after_operand(&mut self, node: NodeId) -> Result<Option<NodeId>, ParseError> {
        match self.next.kind {
            TokenKind::Operator(op) => {
                self.advance()?;
                // A right-associative operator leaves its equals on the stack.
                let bound = op.precedence() + u8::from(op.is_right_associative());
                let lhs = self.reduce(node, bound)?;
                let return_bool = self.take_if(TokenKind::Keyword(Keyword::Bool))?.is_some();
                let matching = self.vector_matching()?;
                self.frames.push(Frame::Binary { op, lhs, return_bool, matching });
                Ok(None)
            }
            TokenKind::Comma => {
                let node = self.reduce(node, 0)?;
                match self.frames.last_mut() {
                    Some(Frame::Call { args, .. } | Frame::Aggregate { args, .. }) => args.push(node),
                    _ => return Err(self.unexpected("", "")),
                }
                let comma = self.advance()?;
                if self.next.is(TokenKind::RightParen) {
                    let message = "trailing commas not allowed in function call args";
                    return Err(self.error(comma.span(), message));
                }
                Ok(None)
            }
            TokenKind::RightParen => {
                let node = self.reduce(node, 0)?;
                self.close_paren(Some(node)).map(Some)
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// At a `)` that ends the innermost frame.
    fn close_paren(&mut self, last: Option<NodeId>) -> Result<NodeId, ParseError> {
        let closing = self.next;
        let end = closing.start + 1;
        match (self.frames.pop(), last) {
            (Some(Frame::Paren { start }), Some(inner)) => {
                self.advance()?;
                Ok(self.add(NodeKind::Paren(inner), Span::new(start, end)))
            }
            (Some(Frame::Call { function, start, mut args }), last) => {
                self.advance()?;
                args.extend(last);
                Ok(self.add(NodeKind::Call(Call { function, args }), Span::new(start, end)))
            }
            (Some(Frame::Aggregate { op, start, modifier, mut args }), last) => {
                self.advance()?;
                args.extend(last);
                let (modifier, end) = match modifier {
                    Some(modifier) => (Some(modifier), end),
                    None => self.trailing_grouping(end)?,
                };
                self.aggregate(op, Span::new(start, end), modifier, args)
            }
            _ => Err(self.unexpected("", "")),
        }
    }

    /// `by (…)` behind an aggregation, and where the aggregation then ends.
    fn trailing_grouping(&mut self, end: usize) -> Result<(Option<Grouping>, usize), ParseError> {
        if !matches!(self.next.kind, TokenKind::Keyword(Keyword::By | Keyword::Without)) {
            return Ok((None, end));
        }
        let grouping = self.grouping_with_end()?;
        Ok(match grouping {
            Some((grouping, end)) => (Some(grouping), end),
            None => (None, end),
        })
    }

    fn aggregate(
        &mut self,
        op: AggregateOp,
        span: Span,
        modifier: Option<Grouping>,
        args: Vec<NodeId>,
    ) -> Result<NodeId, ParseError> {
        if args.is_empty() {
            return Err(self.error(span, "no arguments for aggregate expression provided"));
        }
        let (param, expr) = match (op.takes_parameter(), args.as_slice()) {
            (false, &[expr]) => (None, expr),
            (true, &[param, expr]) => (Some(param), expr),
            (takes_parameter, args) => {
                let message = format!(
                    "wrong number of arguments for aggregate expression provided, expected {}, got {}",
                    if takes_parameter { 2 } else { 1 },
                    args.len()
                );
                return Err(self.error(span, message));
            }
        };
        let Grouping { labels: grouping, without } =
            modifier.unwrap_or(Grouping { labels: Vec::new(), without: false });
        Ok(self.add(NodeKind::Aggregate(Aggregate { op, expr, param, grouping, without }), span))
    }

    /// Closes signs and operators that bind at least as tightly as `bound`.
    fn reduce(&mut self, mut node: NodeId, bound: u8) -> Result<NodeId, ParseError> {
        loop {
            match self.frames.last() {
                Some(Frame::Unary { .. }) if UNARY_PRECEDENCE >= bound => {}
                Some(Frame::Binary { op, .. }) if op.precedence() >= bound => {}
                _ => return Ok(node),
            }
            node = match self.frames.pop() {
                Some(Frame::Unary { negative, start }) => self.signed(negative, start, node),
                Some(Frame::Binary { op, lhs, return_bool, matching }) => {
                    self.binary(op, lhs, node, return_bool, matching)
                }
                _ => return Ok(node),
            };
        }
    }

    fn signed(&mut self, negative: bool, start: usize, operand: NodeId) -> NodeId {
        let node = &mut self.nodes[operand.index()];
        if let NodeKind::Number(number) = &mut node.kind {
            // A sign before a literal is part of it.
            if negative {
                number.value = -number.value;
            }
            node.span.start = start;
            return operand;
        }
        let span = Span::new(start, node.span.end);
        self.add(NodeKind::Unary(Unary { negative, expr: operand }), span)
    }

    fn binary(
        &mut self,
        op: BinaryOp,
        lhs: NodeId,
        rhs: NodeId,
        return_bool: bool,
        matching: VectorMatching,
    ) -> NodeId {
        let span = self.span(lhs).to(self.span(rhs));
        let value_type = ValueType::Vector;
        self.add(
            NodeKind::Binary(Binary { op, lhs, rhs, return_bool, matching: Some(matching), value_type }),
            span,
        )
    }

    /// The value of a number or duration token, and whether it has units.
    pub(super) fn number_value(&self, token: Token<'q>) -> Result<(f64, bool), ParseError> {
        if token.is(TokenKind::Duration) {
            let duration: PrometheusDuration =
                token.text.parse().map_err(|error: pharos_common::duration::DurationError| {
                    self.error(token.span(), duration_message(&error))
                })?;
            return Ok((duration.as_millis() as f64 / 1000.0, true));
        }
        match parse_number(token.text) {
            Some(value) => Ok((value, false)),
            None => {
                let message = format!(
                    "error parsing number: strconv.ParseFloat: parsing {}: {}",
                    go_quote(token.text),
                    if token.text.parse::<f64>().is_ok() { "value out of range" } else { "invalid syntax" },
                );
                Err(self.error(token.span(), message))
            }
        }
    }
}

fn duration_message(error: &pharos_common::duration::DurationError) -> String {
    use pharos_common::duration::DurationError;
    match error {
        DurationError::Empty => "empty duration string".to_owned(),
        DurationError::Malformed(text) => format!("not a valid duration string: {}", go_quote(text)),
        DurationError::OutOfRange(_) => "duration out of range".to_owned(),
    }
}
