//! Matchers as text (`severity="critical"`, `{a=~"x|y", b!=z}`) and as lists of conditions.

use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use serde::{Deserialize, Deserializer};
use std::fmt::Write;

/// Conditions that all hold for the label sets meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matchers(Vec<Matcher>);

/// Text that is no matcher.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum MatcherError {
    /// No operator, no name, or text left over.
    #[error("bad matcher format: {text:?} ({reason}; write for example severity=\"critical\")")]
    Malformed {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The pattern does not compile.
    #[error("{0}")]
    Pattern(String),
}

impl Matchers {
    /// All of `matchers`, in Alertmanager's order (by name, value, operator), which group keys rely on.
    pub(crate) fn new(mut matchers: Vec<Matcher>) -> Self {
        matchers
            .sort_by(|a, b| (a.name(), a.value(), order(a.op())).cmp(&(b.name(), b.value(), order(b.op()))));
        Matchers(matchers)
    }

    /// Whether all conditions hold.
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|matcher| matcher.matches_labels(labels))
    }

    /// The conditions.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Matcher> {
        self.0.iter()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the conditions of another list.
    pub(crate) fn join(&self, others: impl IntoIterator<Item = Matcher>) -> Self {
        Matchers::new(self.0.iter().cloned().chain(others).collect())
    }
}

fn order(op: MatchOp) -> u8 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    }
}

/// `{a="b",c=~"d"}`, as in Alertmanager's group keys.
impl std::fmt::Display for Matchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('{')?;
        for (index, matcher) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(
                f,
                "{separator}{}{}\"{}\"",
                matcher.name(),
                matcher.op().as_str(),
                escape(matcher.value())
            )?;
        }
        f.write_char('}')
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// Reads one or more matchers, with or without braces.
///
/// # Errors
/// If the text is no list of matchers.
pub(crate) fn parse(text: &str) -> Result<Vec<Matcher>, MatcherError> {
    let fault = |reason| MatcherError::Malformed { text: text.to_owned(), reason };
    let bare = text.trim();
    let inner = match bare.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(|| fault("unclosed brace"))?,
        None if bare.ends_with('}') => return Err(fault("unopened brace")),
        None => bare,
    };
    let mut rest = inner.trim();
    let mut matchers = Vec::new();
    while !rest.is_empty() {
        let (matcher, tail) = one(rest, &fault)?;
        matchers.push(matcher);
        rest = match tail.strip_prefix(',') {
            Some(tail) => tail.trim_start(),
            None if tail.is_empty() => tail,
            None => return Err(fault("a comma is missing")),
        };
    }
    Ok(matchers)
}

fn one<'a>(
    text: &'a str,
    fault: &impl Fn(&'static str) -> MatcherError,
) -> Result<(Matcher, &'a str), MatcherError> {
    let (name, rest) = if text.starts_with('"') {
        quoted(text).ok_or_else(|| fault("unterminated quote"))?
    } else {
        let end = text.find(['=', '!', '~', ',', ' ', '\t']).unwrap_or(text.len());
        (text[..end].to_owned(), &text[end..])
    };
    if name.is_empty() {
        return Err(fault("no label name"));
    }
    let rest = rest.trim_start();
    let operators =
        [("=~", MatchOp::Regex), ("!~", MatchOp::NotRegex), ("!=", MatchOp::NotEqual), ("=", MatchOp::Equal)];
    let (op, rest) = operators
        .iter()
        .find_map(|(sign, op)| rest.strip_prefix(sign).map(|rest| (*op, rest.trim_start())))
        .ok_or_else(|| fault("no operator: one of = != =~ !~"))?;
    let (value, rest) = if rest.starts_with('"') {
        quoted(rest).ok_or_else(|| fault("unterminated quote"))?
    } else {
        let end = rest.find(',').unwrap_or(rest.len());
        let value = rest[..end].trim();
        if value.contains('"') {
            return Err(fault("a quote inside an unquoted value"));
        }
        (value.to_owned(), &rest[end..])
    };
    let matcher = Matcher::new(name, op, value).map_err(|error| MatcherError::Pattern(error.to_string()))?;
    Ok((matcher, rest.trim_start()))
}

/// A string in double quotes with `\"`, `\\` and `\n`, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c @ ('"' | '\\') => out.push(c),
                // Other escapes stay as they are: regular expressions are full of them.
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    None
}

/// A list of matcher texts in a configuration file; a single text is a list of one.
impl<'de> Deserialize<'de> for Matchers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts: Vec<String> = crate::config::one_or_many(deserializer)?;
        let mut all = Vec::new();
        for text in texts {
            let parsed = parse(&text).map_err(serde::de::Error::custom)?;
            if parsed.is_empty() {
                return Err(serde::de::Error::custom("an empty matcher"));
            }
            all.extend(parsed);
        }
        Ok(Matchers::new(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_read_and_printed_as_in_alertmanager() {
        #[track_caller]
        fn check(text: &str, want: &str) {
            assert_eq!(Matchers::new(parse(text).unwrap()).to_string(), want);
        }
        check("severity=critical", r#"{severity="critical"}"#);
        check(r#"severity = "critical""#, r#"{severity="critical"}"#);
        check(r#"{b=~"x|y", a!=z}"#, r#"{a!="z",b=~"x|y"}"#);
        check(r#"a=~"\d+\"""#, r#"{a=~"\\d+\""}"#);
        check("a=", r#"{a=""}"#);
        check("alertname=Gpu Hot", r#"{alertname="Gpu Hot"}"#);
        check("", "{}");
    }

    #[test]
    fn what_is_no_matcher_is_refused() {
        for text in ["severity", "=x", "{a=b", "a=b}", r#"a="b"#, r#"a="b" c="d""#, "a=~(", "a<b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
