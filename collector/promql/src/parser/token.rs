//! The words of the language: what the lexer hands to the parser.

use crate::ast::{AggregateOp, BinaryOp};
use crate::quote::{go_quote, go_quote_prefix};
use crate::span::Span;

/// What kind of word a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Eof,
    Identifier,
    MetricIdentifier,
    String,
    Number,
    Duration,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    Equal,
    EqualRegex,
    NotEqualRegex,
    At,
    Operator(BinaryOp),
    Aggregator(AggregateOp),
    Keyword(Keyword),
}

/// Words that are neither operators nor aggregations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Offset,
    Smoothed,
    Anchored,
    By,
    Without,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    Fill,
    FillLeft,
    FillRight,
    Bool,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

impl Keyword {
    /// Whether Prometheus counts it among the keywords proper when it describes a token; the others
    /// (`start`, `end`, `step`, `range`, …) are preprocessors and print as plain quoted words.
    fn is_plain_keyword(self) -> bool {
        !matches!(
            self,
            Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf
        )
    }
}

/// A word and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'q> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'q str,
    pub(crate) start: usize,
}

impl<'q> Token<'q> {
    pub(crate) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    pub(crate) fn is(&self, kind: TokenKind) -> bool {
        self.kind == kind
    }

    /// Whether the token can be a metric's name where an operand is expected.
    pub(crate) fn is_metric_name(&self) -> bool {
        match self.kind {
            TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregator(_) => true,
            TokenKind::Operator(op) => op.is_set_operator(),
            TokenKind::Keyword(keyword) => !matches!(
                keyword,
                Keyword::On
                    | Keyword::Ignoring
                    | Keyword::GroupLeft
                    | Keyword::GroupRight
                    | Keyword::Bool
                    | Keyword::Fill
                    | Keyword::FillLeft
                    | Keyword::FillRight
            ),
            _ => false,
        }
    }

    /// Whether the token can be a label's name in a grouping clause: any word can.
    pub(crate) fn is_label_name(&self) -> bool {
        match self.kind {
            TokenKind::Identifier
            | TokenKind::MetricIdentifier
            | TokenKind::Aggregator(_)
            | TokenKind::Keyword(_) => true,
            TokenKind::Operator(op) => op.is_set_operator() || op == BinaryOp::Atan2,
            _ => false,
        }
    }

    /// The token as error messages name it, e.g. `identifier "foo"` or `<op:+>`.
    pub(crate) fn describe(&self) -> String {
        match self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Identifier => format!("identifier {}", go_quote(self.text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", go_quote(self.text)),
            TokenKind::String => format!("string {}", self.abbreviated()),
            TokenKind::Number => format!("number {}", self.abbreviated()),
            TokenKind::Duration => format!("duration {}", self.abbreviated()),
            TokenKind::Operator(_) | TokenKind::EqualRegex | TokenKind::NotEqualRegex | TokenKind::At => {
                format!("<op:{}>", self.text)
            }
            TokenKind::Aggregator(_) => format!("<aggr:{}>", self.text),
            TokenKind::Keyword(keyword) if keyword.is_plain_keyword() => format!("<{}>", self.text),
            _ => self.abbreviated(),
        }
    }

    fn abbreviated(&self) -> String {
        if self.text.len() > 10 { go_quote_prefix(self.text, 10) } else { go_quote(self.text) }
    }
}

/// The keyword or operator a word stands for. Case does not matter.
pub(crate) fn keyword(word: &str) -> Option<TokenKind> {
    // The longest keyword has 12 letters; longer words need not be copied.
    let mut lower = [0u8; 12];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"and" => TokenKind::Operator(BinaryOp::And),
        b"or" => TokenKind::Operator(BinaryOp::Or),
        b"unless" => TokenKind::Operator(BinaryOp::Unless),
        b"atan2" => TokenKind::Operator(BinaryOp::Atan2),
        b"sum" => TokenKind::Aggregator(AggregateOp::Sum),
        b"avg" => TokenKind::Aggregator(AggregateOp::Avg),
        b"count" => TokenKind::Aggregator(AggregateOp::Count),
        b"min" => TokenKind::Aggregator(AggregateOp::Min),
        b"max" => TokenKind::Aggregator(AggregateOp::Max),
        b"group" => TokenKind::Aggregator(AggregateOp::Group),
        b"stddev" => TokenKind::Aggregator(AggregateOp::Stddev),
        b"stdvar" => TokenKind::Aggregator(AggregateOp::Stdvar),
        b"topk" => TokenKind::Aggregator(AggregateOp::Topk),
        b"bottomk" => TokenKind::Aggregator(AggregateOp::Bottomk),
        b"count_values" => TokenKind::Aggregator(AggregateOp::CountValues),
        b"quantile" => TokenKind::Aggregator(AggregateOp::Quantile),
        b"limitk" => TokenKind::Aggregator(AggregateOp::Limitk),
        b"limit_ratio" => TokenKind::Aggregator(AggregateOp::LimitRatio),
        b"offset" => TokenKind::Keyword(Keyword::Offset),
        b"smoothed" => TokenKind::Keyword(Keyword::Smoothed),
        b"anchored" => TokenKind::Keyword(Keyword::Anchored),
        b"by" => TokenKind::Keyword(Keyword::By),
        b"without" => TokenKind::Keyword(Keyword::Without),
        b"on" => TokenKind::Keyword(Keyword::On),
        b"ignoring" => TokenKind::Keyword(Keyword::Ignoring),
        b"group_left" => TokenKind::Keyword(Keyword::GroupLeft),
        b"group_right" => TokenKind::Keyword(Keyword::GroupRight),
        b"fill" => TokenKind::Keyword(Keyword::Fill),
        b"fill_left" => TokenKind::Keyword(Keyword::FillLeft),
        b"fill_right" => TokenKind::Keyword(Keyword::FillRight),
        b"bool" => TokenKind::Keyword(Keyword::Bool),
        b"start" => TokenKind::Keyword(Keyword::Start),
        b"end" => TokenKind::Keyword(Keyword::End),
        b"step" => TokenKind::Keyword(Keyword::Step),
        b"range" => TokenKind::Keyword(Keyword::Range),
        b"min_of" => TokenKind::Keyword(Keyword::MinOf),
        b"max_of" => TokenKind::Keyword(Keyword::MaxOf),
        b"inf" | b"nan" => TokenKind::Number,
        _ => return None,
    })
}
