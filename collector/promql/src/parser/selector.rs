//! Vector selectors: a metric's name, label matchers, or both.

use super::error::ParseError;
use super::expression::Parser;
use super::strings::unquote;
use super::token::{Token, TokenKind};
use crate::ast::{BinaryOp, DurationValue, NodeId, NodeKind, RangeExtension, VectorSelector};
use crate::span::Span;
use pharos_common::labels::METRIC_NAME;
use pharos_common::matcher::{MatchOp, Matcher};

impl<'q> Parser<'q> {
    /// At `{`, or behind the metric's name.
    pub(super) fn vector_selector(&mut self, name: Option<Token<'q>>) -> Result<NodeId, ParseError> {
        let mut span = name.map_or(self.next.span(), |name| name.span());
        let mut matchers = Vec::new();
        if self.next.is(TokenKind::LeftBrace) {
            let brace = self.advance()?;
            let end = self.matchers(&mut matchers)?;
            span = Span::new(name.map_or(brace.start, |name| name.start), end);
        }
        let name = name.map_or(String::new(), |name| name.text.to_owned());
        if !name.is_empty() {
            matchers.push(Matcher::equal(METRIC_NAME, name.clone()));
        }
        let selector = VectorSelector {
            name,
            matchers,
            offset: DurationValue::Fixed(0),
            at: None,
            extension: RangeExtension::None,
        };
        Ok(self.add(NodeKind::Selector(selector), span))
    }

    /// The matchers up to and with the closing brace; gives the end of that.
    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<usize, ParseError> {
        if let Some(brace) = self.take_if(TokenKind::RightBrace)? {
            return Ok(brace.start + 1);
        }
        loop {
            matchers.push(self.matcher()?);
            if let Some(brace) = self.take_if(TokenKind::RightBrace)? {
                return Ok(brace.start + 1);
            }
            if self.take_if(TokenKind::Comma)?.is_none() {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
            if let Some(brace) = self.take_if(TokenKind::RightBrace)? {
                return Ok(brace.start + 1);
            }
        }
    }

    fn matcher(&mut self) -> Result<Matcher, ParseError> {
        let name = self.next;
        let label = match name.kind {
            TokenKind::Identifier => {
                self.advance()?;
                name.text.to_owned()
            }
            TokenKind::String => {
                self.advance()?;
                let label = self.text(name)?;
                if matches!(self.next.kind, TokenKind::Comma | TokenKind::RightBrace) {
                    // A string alone is the metric's name.
                    return Ok(Matcher::equal(METRIC_NAME, label));
                }
                label
            }
            _ => return Err(self.unexpected("label matching", "identifier or \"}\"")),
        };
        let op = match self.next.kind {
            TokenKind::Equal => MatchOp::Equal,
            TokenKind::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotEqualRegex => MatchOp::NotRegex,
            _ if name.is(TokenKind::String) => {
                return Err(self.unexpected("label matching", "\",\" or \"}\""));
            }
            _ => return Err(self.unexpected("label matching", "label matching operator")),
        };
        self.advance()?;
        if !self.next.is(TokenKind::String) {
            return Err(self.unexpected("label matching", "string"));
        }
        let value = self.advance()?;
        let text = self.text(value)?;
        Matcher::new(label, op, text).map_err(|error| {
            // The compiler's message shows the pattern over several lines; its last one says what is wrong.
            let reason = error.source.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let message = format!("error parsing regexp: {reason}: `{}`", error.pattern);
            self.error(name.span().to(value.span()), message)
        })
    }

    /// The text of a string token that must be UTF-8.
    pub(super) fn text(&self, token: Token<'q>) -> Result<String, ParseError> {
        String::from_utf8(unquote(token.text))
            .map_err(|_| self.error(token.span(), format!("invalid UTF-8 in string {}", token.text)))
    }
}
