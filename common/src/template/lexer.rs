//! Splits template text into literal text and the tokens inside `{{ }}`.

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A keyword or function name.
    Word(String),
    /// `.name`
    Field(String),
    /// `.`
    Dot,
    /// `$` or `$name`
    Variable(String),
    String(String),
    Int(i64),
    Float(f64),
    Pipe,
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    ParenOpen,
    ParenClose,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) line: usize,
    /// Whether white space stands before it: `.a .b` are two arguments, `.a.b` is one.
    pub(super) spaced: bool,
}

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new() };
    let mut trim_next = false;
    loop {
        let (literal, found) = match lexer.rest.find(OPEN) {
            Some(at) => (&lexer.rest[..at], true),
            None => (lexer.rest, false),
        };
        let after = &lexer.rest[literal.len()..];
        let trims =
            found && after[OPEN.len()..].starts_with('-') && starts_with_space(&after[OPEN.len() + 1..]);
        let mut shown = literal;
        if trim_next {
            shown = shown.trim_start();
        }
        if trims {
            shown = shown.trim_end();
        }
        if !shown.is_empty() {
            lexer.push(Kind::Text(shown.to_owned()), false);
        }
        lexer.skip(literal.len());
        if !found {
            return Ok(lexer.tokens);
        }
        lexer.skip(OPEN.len() + if trims { 1 } else { 0 });
        trim_next = lexer.action()?;
    }
}

fn starts_with_space(text: &str) -> bool {
    text.starts_with([' ', '\t', '\r', '\n'])
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn skip(&mut self, bytes: usize) {
        let (gone, rest) = self.rest.split_at(bytes);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }

    fn push(&mut self, kind: Kind, spaced: bool) {
        self.tokens.push(Token { kind, line: self.line, spaced });
    }

    fn fault<T>(&self, message: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError::new(self.line, message))
    }

    /// Reads up to and with `}}`; returns whether the text behind is to be trimmed.
    fn action(&mut self) -> Result<bool, TemplateError> {
        let bare = self.rest.trim_start();
        if bare.starts_with("/*") {
            return self.comment();
        }
        self.push(Kind::Open, false);
        loop {
            let bare = self.rest.trim_start();
            let spaces = self.rest.len() - bare.len();
            let spaced = spaces > 0;
            self.skip(spaces);
            if spaced && self.rest.starts_with("-}}") {
                self.skip(3);
                self.push(Kind::Close, true);
                return Ok(true);
            }
            if self.rest.starts_with(CLOSE) {
                self.skip(2);
                self.push(Kind::Close, spaced);
                return Ok(false);
            }
            self.token(spaced)?;
        }
    }

    fn comment(&mut self) -> Result<bool, TemplateError> {
        let Some(end) = self.rest.find("*/") else { return self.fault("unclosed comment") };
        self.skip(end + 2);
        let bare = self.rest.trim_start();
        let spaces = self.rest.len() - bare.len();
        let (length, trims) = if spaces > 0 && bare.starts_with("-}}") {
            (spaces + 3, true)
        } else if bare.starts_with(CLOSE) {
            (spaces + 2, false)
        } else {
            return self.fault("comment ends before closing delimiter");
        };
        self.skip(length);
        Ok(trims)
    }

    fn token(&mut self, spaced: bool) -> Result<(), TemplateError> {
        let Some(first) = self.rest.chars().next() else { return self.fault("unclosed action") };
        let second = self.rest.chars().nth(1);
        let (kind, length) = match first {
            '|' => (Kind::Pipe, 1),
            ',' => (Kind::Comma, 1),
            '(' => (Kind::ParenOpen, 1),
            ')' => (Kind::ParenClose, 1),
            '=' => (Kind::Assign, 1),
            ':' if second == Some('=') => (Kind::Declare, 2),
            '"' => self.quoted()?,
            '`' => self.raw_quoted()?,
            '\'' => self.character()?,
            '.' if !second.is_some_and(|c| c.is_ascii_digit()) => {
                let name = word(&self.rest[1..]);
                match name {
                    "" => (Kind::Dot, 1),
                    name => (Kind::Field(name.to_owned()), 1 + name.len()),
                }
            }
            '$' => {
                let name = word(&self.rest[1..]);
                (Kind::Variable(name.to_owned()), 1 + name.len())
            }
            '0'..='9' | '.' | '+' | '-' => self.number()?,
            c if c == '_' || c.is_alphabetic() => {
                let name = word(self.rest);
                (Kind::Word(name.to_owned()), name.len())
            }
            other => return self.fault(format!("unexpected {other:?} in an action")),
        };
        self.push(kind, spaced);
        self.skip(length);
        Ok(())
    }

    fn number(&self) -> Result<(Kind, usize), TemplateError> {
        let length = self
            .rest
            .char_indices()
            .take_while(|&(at, c)| {
                c.is_ascii_alphanumeric()
                    || matches!(c, '.' | '_')
                    || (matches!(c, '+' | '-') && (at == 0 || self.rest[..at].ends_with(['e', 'E'])))
            })
            .count();
        let text = self.rest[..length].replace('_', "");
        let (sign, digits) = match text.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, text.strip_prefix('+').unwrap_or(&text)),
        };
        let based = [("0x", 16), ("0X", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, base)| {
            digits.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, base).ok())
        });
        if let Some(number) = based.or_else(|| digits.parse::<i64>().ok()) {
            return Ok((Kind::Int(sign * number), length));
        }
        match digits.parse::<f64>() {
            Ok(number) if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                Ok((Kind::Float(sign as f64 * number), length))
            }
            _ => self.fault(format!("bad number {text:?}")),
        }
    }

    fn raw_quoted(&self) -> Result<(Kind, usize), TemplateError> {
        match self.rest[1..].find('`') {
            Some(end) => Ok((Kind::String(self.rest[1..=end].to_owned()), end + 2)),
            None => self.fault("unterminated raw quoted string"),
        }
    }

    fn quoted(&self) -> Result<(Kind, usize), TemplateError> {
        let (text, length) = self.unescape('"')?;
        Ok((Kind::String(text), length))
    }

    fn character(&self) -> Result<(Kind, usize), TemplateError> {
        let (text, length) = self.unescape('\'')?;
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(c), None) => Ok((Kind::Int(i64::from(u32::from(c))), length)),
            _ => self.fault("malformed character constant"),
        }
    }

    fn unescape(&self, quote: char) -> Result<(String, usize), TemplateError> {
        let mut out = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => return Ok((out, at + 1)),
                '\n' => break,
                '\\' => {
                    let Some((_, escaped)) = chars.next() else { break };
                    let mut code = |digits: usize, base: u32| -> Option<char> {
                        let text: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                        u32::from_str_radix(&text, base).ok().and_then(char::from_u32)
                    };
                    let c = match escaped {
                        'n' => Some('\n'),
                        't' => Some('\t'),
                        'r' => Some('\r'),
                        'a' => Some('\x07'),
                        'b' => Some('\x08'),
                        'f' => Some('\x0c'),
                        'v' => Some('\x0b'),
                        '\\' | '"' | '\'' => Some(escaped),
                        'x' => code(2, 16),
                        'u' => code(4, 16),
                        'U' => code(8, 16),
                        _ => None,
                    };
                    match c {
                        Some(c) => out.push(c),
                        None => return self.fault("bad escape in a quoted string"),
                    }
                }
                c => out.push(c),
            }
        }
        self.fault("unterminated quoted string")
    }
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(text.len());
    &text[..end]
}
