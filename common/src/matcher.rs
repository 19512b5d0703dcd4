//! Label matchers: `name="value"`, `!=`, `=~` and `!~`, as PromQL and Alertmanager use them.
//!
//! Regular expressions are anchored at both ends and `.` matches a newline, as in Prometheus 3. The
//! parts of a pattern that an index can use (a literal prefix, an alternation of literals) are worked
//! out once, when the matcher is made.

use crate::labels::{Labels, Quoted, is_legacy_label_name};
use regex::Regex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// How a [`Matcher`] compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as written.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// A pattern that is no regular expression, or one too large to compile.
#[derive(Debug, thiserror::Error)]
#[error("invalid regular expression {pattern:?}: {source}")]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// What the regex compiler says, boxed since it is large.
    #[source]
    pub source: Box<regex::Error>,
}

/// One condition on one label. A label that a series lacks counts as the empty string.
#[derive(Clone, Debug)]
pub struct Matcher {
    name: String,
    op: MatchOp,
    value: String,
    pattern: Option<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    /// What every match starts with.
    prefix: String,
    rest: Rest,
}

/// What a pattern asks of a value beyond its prefix.
#[derive(Clone, Debug)]
enum Rest {
    /// `abc.*`: nothing.
    Anything,
    /// `abc.+`: at least one character.
    Something,
    /// `abc|def`: to be one of these.
    OneOf(Vec<String>),
    /// To match the whole pattern, compiled and anchored.
    Regex(Regex),
}

/// Compiled size a single pattern may take, bytes: a bomb is refused instead of filling memory.
const REGEX_SIZE_LIMIT_BYTES: usize = 1 << 20;

impl Matcher {
    /// Makes a matcher.
    ///
    /// # Errors
    /// If the operator is a regex one and `value` does not compile.
    pub fn new(name: impl Into<String>, op: MatchOp, value: impl Into<String>) -> Result<Self, PatternError> {
        let value = value.into();
        let pattern = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Pattern::new(&value)?),
        };
        Ok(Matcher { name: name.into(), op, value, pattern })
    }

    /// `name="value"`: cannot fail.
    pub fn equal(name: impl Into<String>, value: impl Into<String>) -> Self {
        Matcher { name: name.into(), op: MatchOp::Equal, value: value.into(), pattern: None }
    }

    /// The label's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// The value or pattern as written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Whether a label value satisfies the condition.
    pub fn matches(&self, value: &str) -> bool {
        match self.op {
            MatchOp::Equal => self.value == value,
            MatchOp::NotEqual => self.value != value,
            MatchOp::Regex => self.pattern.as_ref().is_some_and(|pattern| pattern.matches(value)),
            MatchOp::NotRegex => !self.pattern.as_ref().is_some_and(|pattern| pattern.matches(value)),
        }
    }

    /// Whether a label set satisfies the condition.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or(""))
    }

    /// Whether a series without the label satisfies the condition.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// The only label values that can satisfy a positive matcher (`=`, or `=~` with an alternation of
    /// literals), for an index to look up directly.
    pub fn candidates(&self) -> Option<Vec<&str>> {
        match self.op {
            MatchOp::Equal => Some(vec![self.value.as_str()]),
            MatchOp::Regex => self.pattern.as_ref().and_then(|pattern| match &pattern.rest {
                Rest::OneOf(literals) => Some(literals.iter().map(String::as_str).collect()),
                _ => None,
            }),
            MatchOp::NotEqual | MatchOp::NotRegex => None,
        }
    }

    /// What every value that a regex pattern matches starts with (may be empty): an index with sorted
    /// values reads only that range.
    pub fn pattern_prefix(&self) -> &str {
        self.pattern.as_ref().map_or("", |pattern| &pattern.prefix)
    }
}

impl Pattern {
    fn new(pattern: &str) -> Result<Self, PatternError> {
        if let Some(literals) = literal_alternatives(pattern) {
            let prefix = common_prefix(&literals);
            return Ok(Pattern { prefix, rest: Rest::OneOf(literals) });
        }
        let prefix = literal_prefix(pattern);
        let rest = match pattern.get(prefix.len()..) {
            Some(".*") => Rest::Anything,
            Some(".+") => Rest::Something,
            _ => Rest::Regex(compiled(pattern)?),
        };
        Ok(Pattern { prefix, rest })
    }

    fn matches(&self, value: &str) -> bool {
        let Some(tail) = value.strip_prefix(self.prefix.as_str()) else { return false };
        match &self.rest {
            Rest::Anything => true,
            Rest::Something => !tail.is_empty(),
            Rest::OneOf(literals) => literals.iter().any(|literal| literal == value),
            Rest::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Patterns that stay compiled. To compile one takes as long as many a query, and dashboards and rules ask
/// the same ones again and again.
const COMPILED_MAX: usize = 512;

/// Longer patterns are compiled each time, so that those kept stay small.
const COMPILED_PATTERN_BYTES_MAX: usize = 1 << 10;

static COMPILED: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());

/// The pattern, anchored at both ends.
fn compiled(pattern: &str) -> Result<Regex, PatternError> {
    let known = || COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(regex) = known().get(pattern) {
        return Ok(regex.clone());
    }
    let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
        .size_limit(REGEX_SIZE_LIMIT_BYTES)
        .build()
        .map_err(|source| PatternError { pattern: pattern.to_owned(), source: Box::new(source) })?;
    if pattern.len() <= COMPILED_PATTERN_BYTES_MAX {
        let mut known = known();
        if known.len() >= COMPILED_MAX {
            // What is in use comes back soon.
            known.clear();
        }
        known.insert(pattern.to_owned(), regex.clone());
    }
    Ok(regex)
}

fn is_meta(c: char) -> bool {
    matches!(c, '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$')
}

/// `a|b|c` with no other syntax: the whole pattern is a list of strings.
fn literal_alternatives(pattern: &str) -> Option<Vec<String>> {
    pattern
        .split('|')
        .map(|part| (!part.chars().any(is_meta)).then(|| part.to_owned()))
        .collect::<Option<Vec<_>>>()
}

/// The literal text a pattern starts with, short of a character that a quantifier may repeat or drop.
fn literal_prefix(pattern: &str) -> String {
    // An alternation at the top level has no common prefix that could be read off so simply.
    if pattern.contains('|') {
        return String::new();
    }
    let mut prefix: String = pattern.chars().take_while(|&c| !is_meta(c)).collect();
    let next = pattern[prefix.len()..].chars().next();
    if matches!(next, Some('*' | '?' | '{' | '+')) {
        prefix.pop();
    }
    prefix
}

fn common_prefix(literals: &[String]) -> String {
    let mut prefix = literals.first().cloned().unwrap_or_default();
    for literal in literals {
        while !literal.starts_with(&prefix) {
            prefix.pop();
        }
    }
    prefix
}

/// Prometheus' notation, e.g. `job=~"a|b"`.
impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_label_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write!(f, "{}", Quoted(&self.name))?;
        }
        write!(f, "{}{}", self.op.as_str(), Quoted(&self.value))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.op == other.op && self.value == other.value
    }
}

impl Eq for Matcher {}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(op: MatchOp, pattern: &str, matching: &[&str], failing: &[&str]) {
        let matcher = Matcher::new("l", op, pattern).unwrap();
        for value in matching {
            assert!(matcher.matches(value), "{matcher} should match {value:?}");
        }
        for value in failing {
            assert!(!matcher.matches(value), "{matcher} should not match {value:?}");
        }
    }

    #[test]
    fn matchers_compare_as_prometheus_does() {
        check(MatchOp::Equal, "a", &["a"], &["", "b", "aa"]);
        check(MatchOp::NotEqual, "a", &["", "b"], &["a"]);
        check(MatchOp::Regex, "a|bc", &["a", "bc"], &["", "ab", "abc"]);
        check(MatchOp::Regex, "a|", &["a", ""], &["b"]);
        check(MatchOp::Regex, "foo.*", &["foo", "foo\nbar"], &["fo", "xfoo"]);
        check(MatchOp::Regex, "foo.+", &["foox", "foo\n", "fooé"], &["foo", "fo", "xfoo"]);
        check(MatchOp::Regex, ".*", &["", "a"], &[]);
        check(MatchOp::Regex, ".+", &["a"], &[""]);
        check(MatchOp::NotRegex, "foo.*", &["", "fo"], &["foo", "foox"]);
        check(MatchOp::Regex, "é?.*", &["", "é", "x"], &[]);
        check(MatchOp::Regex, "a|b.*", &["a", "bc"], &["ac"]);
        check(MatchOp::Regex, "foo*", &["fo", "foooo"], &["f", "foob"]);
        check(MatchOp::Regex, "foo?bar|x", &["fobar", "foobar", "x"], &["foo"]);
        check(MatchOp::Regex, "ab{2}", &["abb"], &["ab"]);
        check(MatchOp::NotRegex, "a.+", &["a", ""], &["ab"]);
        check(MatchOp::Regex, "(?i)abc", &["ABC"], &["ABCD"]);
        check(MatchOp::Regex, "", &[""], &["a"]);
    }

    #[test]
    fn a_bad_or_monstrous_pattern_is_an_error() {
        assert!(Matcher::new("l", MatchOp::Regex, "a(").is_err());
        assert!(Matcher::new("l", MatchOp::Regex, "((a{100}){100}){100}").is_err());
    }

    #[test]
    fn an_index_can_use_literals_and_prefixes() {
        let matcher = |pattern: &str| Matcher::new("l", MatchOp::Regex, pattern).unwrap();
        assert_eq!(matcher("a|b").candidates(), Some(vec!["a", "b"]));
        assert_eq!(matcher("a.b").candidates(), None);
        assert_eq!(matcher("node_cpu.*").pattern_prefix(), "node_cpu");
        assert_eq!(matcher("node_cpus?").pattern_prefix(), "node_cpu");
        assert_eq!(matcher("ab.*|cd").pattern_prefix(), "");
    }
}
