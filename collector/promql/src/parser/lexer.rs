//! Text to tokens, one at a time and in one pass.
//!
//! The lexer knows three places: the expression itself, the inside of braces (where every word is a
//! label name) and the inside of brackets (durations only). Errors are those of Prometheus' lexer.

use super::error::ParseError;
use super::token::{Keyword, Token, TokenKind, keyword};
use crate::ast::{AggregateOp, BinaryOp};
use crate::quote::{go_quote, go_quote_char};
use crate::span::Span;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Expression,
    Braces,
    Brackets,
}

/// Reads tokens from a query.
pub(crate) struct Lexer<'q> {
    query: &'q str,
    position: usize,
    place: Place,
    parens: usize,
    colon_seen: bool,
    duration_seen: bool,
    /// Inside brackets: the last token was a number or duration.
    after_number: bool,
}

impl<'q> Lexer<'q> {
    pub(crate) fn new(query: &'q str) -> Self {
        Lexer {
            query,
            position: 0,
            place: Place::Expression,
            parens: 0,
            colon_seen: false,
            duration_seen: false,
            after_number: false,
        }
    }

    pub(crate) fn query(&self) -> &'q str {
        self.query
    }

    /// The next token; at the end of the text [`TokenKind::Eof`] again and again.
    pub(crate) fn next_token(&mut self) -> Result<Token<'q>, ParseError> {
        self.skip_blanks_and_comments();
        match self.place {
            Place::Expression => self.in_expression(),
            Place::Braces => self.in_braces(),
            Place::Brackets => self.in_brackets(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.query[self.position..].chars().next()
    }

    fn peek_byte(&self) -> Option<u8> {
        self.query.as_bytes().get(self.position).copied()
    }

    fn skip_blanks_and_comments(&mut self) {
        let bytes = self.query.as_bytes();
        while let Some(&byte) = bytes.get(self.position) {
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' => self.position += 1,
                b'#' if self.place != Place::Brackets => {
                    while bytes.get(self.position).is_some_and(|&byte| byte != b'\n' && byte != b'\r') {
                        self.position += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn token(&mut self, kind: TokenKind, length: usize) -> Token<'q> {
        let start = self.position;
        self.position += length;
        Token { kind, text: &self.query[start..self.position], start }
    }

    fn error(&self, start: usize, message: impl Into<String>) -> ParseError {
        ParseError::new(self.query, Span::new(start, self.query.len()), message)
    }

    fn in_expression(&mut self) -> Result<Token<'q>, ParseError> {
        let start = self.position;
        let Some(c) = self.peek() else {
            if self.parens > 0 {
                return Err(self.error(start, "unclosed left parenthesis"));
            }
            return Ok(self.token(TokenKind::Eof, 0));
        };
        let second = self.query.as_bytes().get(start + 1).copied();
        let operator = |op| TokenKind::Operator(op);
        Ok(match c {
            ',' => self.token(TokenKind::Comma, 1),
            '*' => self.token(operator(BinaryOp::Mul), 1),
            '/' => self.token(operator(BinaryOp::Div), 1),
            '%' => self.token(operator(BinaryOp::Mod), 1),
            '+' => self.token(operator(BinaryOp::Add), 1),
            '-' => self.token(operator(BinaryOp::Sub), 1),
            '^' => self.token(operator(BinaryOp::Pow), 1),
            '=' => match second {
                Some(b'=') => self.token(operator(BinaryOp::Equal), 2),
                Some(b'~') => {
                    return Err(self.error(start, "unexpected character after '=': '~'"));
                }
                _ => self.token(TokenKind::Equal, 1),
            },
            '!' => match second {
                Some(b'=') => self.token(operator(BinaryOp::NotEqual), 2),
                _ => return Err(self.unexpected_after_bang(start, "")),
            },
            '<' => match second {
                Some(b'=') => self.token(operator(BinaryOp::LessEqual), 2),
                Some(b'/') => self.token(operator(BinaryOp::TrimUpper), 2),
                _ => self.token(operator(BinaryOp::Less), 1),
            },
            '>' => match second {
                Some(b'=') => self.token(operator(BinaryOp::GreaterEqual), 2),
                Some(b'/') => self.token(operator(BinaryOp::TrimLower), 2),
                _ => self.token(operator(BinaryOp::Greater), 1),
            },
            '@' => self.token(TokenKind::At, 1),
            '(' => {
                self.parens += 1;
                self.token(TokenKind::LeftParen, 1)
            }
            ')' => self.right_paren(start)?,
            '{' => {
                self.place = Place::Braces;
                self.token(TokenKind::LeftBrace, 1)
            }
            '[' => {
                self.place = Place::Brackets;
                self.colon_seen = false;
                self.duration_seen = false;
                self.after_number = false;
                self.token(TokenKind::LeftBracket, 1)
            }
            ']' => return Err(self.error(start, "unexpected right bracket ']'")),
            '"' | '\'' => self.quoted(c)?,
            '`' => self.raw_string()?,
            c if c.is_ascii_digit() || (c == '.' && second.is_some_and(|b| b.is_ascii_digit())) => {
                self.number_or_duration()?
            }
            c if is_alpha(c) || c == ':' => self.word(),
            c => {
                return Err(self.error(start, format!("unexpected character: {}", go_quote_char(c))));
            }
        })
    }

    fn right_paren(&mut self, start: usize) -> Result<Token<'q>, ParseError> {
        if self.parens == 0 {
            return Err(self.error(start, "unexpected right parenthesis ')'"));
        }
        self.parens -= 1;
        Ok(self.token(TokenKind::RightParen, 1))
    }

    fn unexpected_after_bang(&self, start: usize, place: &str) -> ParseError {
        // At the end of the text Go prints the rune -1, which is the replacement character.
        let next = self.query[start + 1..].chars().next().unwrap_or('\u{fffd}');
        self.error(start, format!("unexpected character after '!'{place}: {}", go_quote_char(next)))
    }

    fn in_braces(&mut self) -> Result<Token<'q>, ParseError> {
        let start = self.position;
        let Some(c) = self.peek() else {
            return Err(self.error(start, "unexpected end of input inside braces"));
        };
        let second = self.query.as_bytes().get(start + 1).copied();
        Ok(match c {
            ',' => self.token(TokenKind::Comma, 1),
            '=' if second == Some(b'~') => self.token(TokenKind::EqualRegex, 2),
            '=' => self.token(TokenKind::Equal, 1),
            '!' => match second {
                Some(b'~') => self.token(TokenKind::NotEqualRegex, 2),
                Some(b'=') => self.token(TokenKind::Operator(BinaryOp::NotEqual), 2),
                _ => return Err(self.unexpected_after_bang(start, " inside braces")),
            },
            '"' | '\'' => self.quoted(c)?,
            '`' => self.raw_string()?,
            '{' => return Err(self.error(start, "unexpected left brace '{'")),
            '}' => {
                self.place = Place::Expression;
                self.token(TokenKind::RightBrace, 1)
            }
            c if is_alpha(c) => {
                let length = self.run(is_alphanumeric);
                self.token(TokenKind::Identifier, length)
            }
            c => {
                return Err(
                    self.error(start, format!("unexpected character inside braces: {}", go_quote_char(c)))
                );
            }
        })
    }

    fn in_brackets(&mut self) -> Result<Token<'q>, ParseError> {
        let start = self.position;
        let Some(c) = self.peek() else {
            let message = if self.after_number {
                "unclosed left bracket"
            } else {
                "unexpected end of input in duration expression"
            };
            return Err(self.error(start, message));
        };
        let after_number = std::mem::take(&mut self.after_number);
        Ok(match c {
            ']' => {
                self.place = Place::Expression;
                self.token(TokenKind::RightBracket, 1)
            }
            ':' => {
                if self.colon_seen {
                    let message = if after_number {
                        "unexpected colon ':'"
                    } else {
                        "unexpected repeated colon in duration expression"
                    };
                    return Err(self.error(start, message));
                }
                if !self.duration_seen {
                    return Err(self.error(start, "unexpected colon before duration in duration expression"));
                }
                self.colon_seen = true;
                self.token(TokenKind::Colon, 1)
            }
            '(' => {
                self.parens += 1;
                self.token(TokenKind::LeftParen, 1)
            }
            ')' => self.right_paren(start)?,
            ',' => self.token(TokenKind::Comma, 1),
            '+' => self.token(TokenKind::Operator(BinaryOp::Add), 1),
            '-' => self.token(TokenKind::Operator(BinaryOp::Sub), 1),
            '*' => self.token(TokenKind::Operator(BinaryOp::Mul), 1),
            '/' => self.token(TokenKind::Operator(BinaryOp::Div), 1),
            '%' => self.token(TokenKind::Operator(BinaryOp::Mod), 1),
            '^' => self.token(TokenKind::Operator(BinaryOp::Pow), 1),
            c if c.is_ascii_digit()
                || (c == '.' && self.query.as_bytes().get(start + 1).is_some_and(|b| b.is_ascii_digit())) =>
            {
                self.duration_seen = true;
                self.after_number = true;
                self.number_or_duration()?
            }
            '[' => return Err(self.error(start, "unexpected left bracket '['")),
            c => {
                let length = self.run(|c| is_alpha(c) || c == '_');
                let kind = keyword(&self.query[start..start + length]);
                match kind {
                    Some(
                        kind @ (TokenKind::Keyword(
                            Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf,
                        )
                        | TokenKind::Aggregator(AggregateOp::Min | AggregateOp::Max)),
                    ) => {
                        self.duration_seen = true;
                        self.token(kind, length)
                    }
                    _ if after_number && is_alpha(c) => {
                        let message = format!("unexpected character: {}, expected ':'", go_quote_char(c));
                        return Err(self.error(start, message));
                    }
                    _ => {
                        let message =
                            format!("unexpected character in duration expression: {}", go_quote_char(c));
                        return Err(self.error(start, message));
                    }
                }
            }
        })
    }

    /// Length of the run of characters ahead that `accept` takes.
    fn run(&self, accept: impl Fn(char) -> bool) -> usize {
        let rest = &self.query[self.position..];
        rest.find(|c| !accept(c)).unwrap_or(rest.len())
    }

    fn word(&mut self) -> Token<'q> {
        let length = self.run(|c| is_alphanumeric(c) || c == ':');
        let word = &self.query[self.position..self.position + length];
        let kind = match keyword(word) {
            Some(TokenKind::Keyword(Keyword::Fill | Keyword::FillLeft | Keyword::FillRight))
                if !self.paren_follows(self.position + length) =>
            {
                TokenKind::Identifier
            }
            Some(kind) => kind,
            None if word.contains(':') => TokenKind::MetricIdentifier,
            None => TokenKind::Identifier,
        };
        self.token(kind, length)
    }

    /// Whether the next character that is no blank is `(`: only then are `fill` and its kin keywords,
    /// so that metrics may bear these names.
    fn paren_follows(&self, position: usize) -> bool {
        self.query[position..].trim_start_matches([' ', '\t', '\n', '\r']).starts_with('(')
    }

    fn quoted(&mut self, quote: char) -> Result<Token<'q>, ParseError> {
        let start = self.position;
        let rest = &self.query[start + 1..];
        let mut chars = rest.char_indices();
        while let Some((index, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    None => return Err(self.error(start, "escape sequence not terminated")),
                    Some((at, escape)) => {
                        let digits = check_escape(&rest[at..], escape, quote)
                            .map_err(|message| self.error(start, message))?;
                        for _ in 0..digits {
                            chars.next();
                        }
                    }
                },
                '\n' => break,
                c if c == quote => return Ok(self.token(TokenKind::String, index + 2)),
                _ => {}
            }
        }
        Err(self.error(start, "unterminated quoted string"))
    }

    fn raw_string(&mut self) -> Result<Token<'q>, ParseError> {
        match self.query[self.position + 1..].find('`') {
            Some(index) => Ok(self.token(TokenKind::String, index + 2)),
            None => Err(self.error(self.position, "unterminated raw string")),
        }
    }

    fn number_or_duration(&mut self) -> Result<Token<'q>, ParseError> {
        let start = self.position;
        if self.scan_number() {
            let length = self.position - start;
            self.position = start;
            return Ok(self.token(TokenKind::Number, length));
        }
        if self.scan_duration_units() {
            let length = self.position - start;
            self.position = start;
            return Ok(self.token(TokenKind::Duration, length));
        }
        let text = &self.query[start..self.position];
        Err(self.error(start, format!("bad number or duration syntax: {}", go_quote(text))))
    }

    fn accept(&mut self, set: &[u8]) -> bool {
        let accepted = self.peek_byte().is_some_and(|byte| set.contains(&byte));
        if accepted {
            self.position += 1;
        }
        accepted
    }

    /// Moves past a number. What it leaves need not be a number yet (`5m` stops at `m`); false then.
    fn scan_number(&mut self) -> bool {
        let start = self.position;
        let mut digits: &[u8] = b"0123456789";
        if self.accept(b"0") && self.accept(b"xX") {
            self.accept(b"_");
            digits = b"0123456789abcdefABCDEF";
        }
        let hexadecimal = digits.len() > 10;
        let (mut dot, mut exponent) = (false, false);
        self.accept(b".");
        self.accept(digits);
        loop {
            if self.accept(digits) {
                continue;
            }
            match self.peek_byte() {
                Some(b'.') => {
                    self.position += 1;
                    if dot || hexadecimal || self.accept(b"_.") {
                        return false;
                    }
                    dot = true;
                }
                Some(b'e' | b'E') => {
                    self.position += 1;
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept(b"+-");
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                Some(b'_') => {
                    self.position += 1;
                    if self.accept(b"._eE") || self.peek_byte().is_none() {
                        return false;
                    }
                }
                _ => break,
            }
        }
        self.position > start && !self.peek().is_some_and(is_alphanumeric)
    }

    /// Moves past the units of a duration whose first number is read.
    fn scan_duration_units(&mut self) -> bool {
        if !self.accept(b"smhdwy") {
            return false;
        }
        self.accept(b"s");
        while self.accept(b"0123456789") {
            while self.accept(b"0123456789") {}
            if !self.accept(b"smhdw") {
                return false;
            }
            self.accept(b"s");
        }
        match self.peek() {
            Some(c) if is_alphanumeric(c) => {
                // The character that spoils the duration is shown in the error.
                self.position += c.len_utf8();
                false
            }
            _ => true,
        }
    }
}

fn is_alpha(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_ascii_alphanumeric()
}

/// Checks the escape that starts with `escape`; gives the number of characters that follow it.
fn check_escape(rest: &str, escape: char, quote: char) -> Result<usize, String> {
    let (skip, digits, base, max) = match escape {
        'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(0),
        c if c == quote => return Ok(0),
        '0'..='7' => (0, 3, 8, 255),
        'x' => (1, 2, 16, 255),
        'u' => (1, 4, 16, 0x10_ffff),
        'U' => (1, 8, 16, 0x10_ffff),
        c => return Err(format!("unknown escape sequence {}", describe_char(c))),
    };
    let mut value = 0u32;
    let mut chars = rest.chars().skip(skip);
    for _ in 0..digits {
        let Some(c) = chars.next() else { return Err("escape sequence not terminated".to_owned()) };
        let Some(digit) = c.to_digit(base) else {
            return Err(format!("illegal character {} in escape sequence", describe_char(c)));
        };
        value = value.wrapping_mul(base).wrapping_add(digit);
    }
    if value > max || (0xd800..0xe000).contains(&value) {
        return Err("escape sequence is an invalid Unicode code point".to_owned());
    }
    Ok(skip + digits - 1)
}

/// Go's `%#U`: `U+0041 'A'`.
fn describe_char(c: char) -> String {
    format!("U+{:04X} '{c}'", c as u32)
}
