//! Grouping clauses of aggregations and matching clauses of operators.

use super::error::ParseError;
use super::expression::Parser;
use super::frame::Grouping;
use super::token::{Keyword, TokenKind};
use crate::ast::{BinaryOp, Cardinality, VectorMatching};
use crate::quote::go_quote;

impl Parser<'_> {
    /// `by (…)` or `without (…)`, if it follows.
    pub(super) fn grouping(&mut self) -> Result<Option<Grouping>, ParseError> {
        Ok(self.grouping_with_end()?.map(|(grouping, _)| grouping))
    }

    /// The same with the place after its parenthesis.
    pub(super) fn grouping_with_end(&mut self) -> Result<Option<(Grouping, usize)>, ParseError> {
        let without = match self.next.kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance()?;
        let (labels, end) = self.grouping_labels()?;
        Ok(Some((Grouping { labels, without }, end)))
    }

    fn grouping_labels(&mut self) -> Result<(Vec<String>, usize), ParseError> {
        if self.take_if(TokenKind::LeftParen)?.is_none() {
            return Err(self.unexpected("grouping opts", "\"(\""));
        }
        let mut labels = Vec::new();
        loop {
            if let Some(paren) = self.take_closing(labels.is_empty())? {
                return Ok((labels, paren));
            }
            labels.push(self.grouping_label()?);
            if self.take_if(TokenKind::Comma)?.is_some() {
                // A comma before the parenthesis is allowed.
                if let Some(paren) = self.take_closing(true)? {
                    return Ok((labels, paren));
                }
            } else if !self.next.is(TokenKind::RightParen) {
                return Err(self.unexpected("grouping opts", "\",\" or \")\""));
            } else if let Some(paren) = self.take_closing(true)? {
                return Ok((labels, paren));
            }
        }
    }

    fn take_closing(&mut self, allowed: bool) -> Result<Option<usize>, ParseError> {
        if !allowed {
            return Ok(None);
        }
        Ok(self.take_if(TokenKind::RightParen)?.map(|paren| paren.start + 1))
    }

    fn grouping_label(&mut self) -> Result<String, ParseError> {
        let token = self.next;
        if token.is(TokenKind::String) {
            self.advance()?;
            let label = self.text(token)?;
            if label.is_empty() {
                let message = format!("invalid label name for grouping: {}", go_quote(&label));
                return Err(self.error(token.span(), message));
            }
            return Ok(label);
        }
        if !token.is_label_name() {
            return Err(self.unexpected("grouping opts", "label"));
        }
        self.advance()?;
        Ok(token.text.to_owned())
    }

    /// What may stand between an operator and its right side, `bool` aside.
    pub(super) fn vector_matching(&mut self) -> Result<VectorMatching, ParseError> {
        let mut matching = VectorMatching::default();
        match self.next.kind {
            TokenKind::Keyword(Keyword::On) => matching.on = true,
            TokenKind::Keyword(Keyword::Ignoring) => {}
            _ => {
                self.fill_values(&mut matching)?;
                return Ok(matching);
            }
        }
        self.advance()?;
        (matching.labels, _) = self.grouping_labels()?;
        matching.cardinality = match self.next.kind {
            TokenKind::Keyword(Keyword::GroupLeft) => Cardinality::ManyToOne,
            TokenKind::Keyword(Keyword::GroupRight) => Cardinality::OneToMany,
            _ => Cardinality::OneToOne,
        };
        if matching.cardinality != Cardinality::OneToOne {
            self.advance()?;
            if self.next.is(TokenKind::LeftParen) {
                (matching.include, _) = self.grouping_labels()?;
            }
        }
        self.fill_values(&mut matching)?;
        Ok(matching)
    }

    fn fill_values(&mut self, matching: &mut VectorMatching) -> Result<(), ParseError> {
        loop {
            match self.next.kind {
                TokenKind::Keyword(Keyword::Fill)
                    if matching.fill_left.is_none() && matching.fill_right.is_none() =>
                {
                    let value = self.fill_value()?;
                    matching.fill_left = Some(value);
                    matching.fill_right = Some(value);
                    matching.fill_both = true;
                    return Ok(());
                }
                TokenKind::Keyword(Keyword::FillLeft) if matching.fill_left.is_none() => {
                    matching.fill_left = Some(self.fill_value()?);
                }
                TokenKind::Keyword(Keyword::FillRight) if matching.fill_right.is_none() => {
                    matching.fill_right = Some(self.fill_value()?);
                }
                _ => return Ok(()),
            }
        }
    }

    /// `(1.5)` behind a fill keyword.
    fn fill_value(&mut self) -> Result<f64, ParseError> {
        self.advance()?;
        if self.take_if(TokenKind::LeftParen)?.is_none() {
            return Err(self.unexpected("", ""));
        }
        let negative = match self.next.kind {
            TokenKind::Operator(op @ (BinaryOp::Add | BinaryOp::Sub)) => {
                self.advance()?;
                op == BinaryOp::Sub
            }
            _ => false,
        };
        if !matches!(self.next.kind, TokenKind::Number | TokenKind::Duration) {
            return Err(self.unexpected("", ""));
        }
        let token = self.advance()?;
        let (value, _) = self.number_value(token)?;
        if self.take_if(TokenKind::RightParen)?.is_none() {
            return Err(self.unexpected("", ""));
        }
        Ok(if negative { -value } else { value })
    }
}
