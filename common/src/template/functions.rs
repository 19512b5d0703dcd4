//! The functions a template may call.

use super::format::{display, float_general, sprintf};
use super::{TimeValue, Value, go_time, host_names, humanize};
use regex::{Regex, RegexBuilder};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Why a function could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FunctionError(pub String);

impl From<&str> for FunctionError {
    fn from(message: &str) -> Self {
        FunctionError(message.to_owned())
    }
}

impl From<String> for FunctionError {
    fn from(message: String) -> Self {
        FunctionError(message)
    }
}

/// A function of a template: its arguments in, a value or the reason why not out.
pub type TemplateFunction = Arc<dyn Fn(&[Value]) -> Result<Value, FunctionError> + Send + Sync>;

/// A table of functions by name.
#[derive(Clone, Default)]
pub struct Functions {
    by_name: HashMap<String, TemplateFunction>,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl Functions {
    /// Go's built-in functions and the pure ones that Prometheus and Alertmanager add.
    pub fn standard() -> Self {
        let mut functions = Functions::default();
        functions.add_go_builtins();
        functions.add_text();
        functions.add_numbers();
        functions
    }

    /// Adds or replaces a function.
    pub fn add(
        &mut self,
        name: &str,
        function: impl Fn(&[Value]) -> Result<Value, FunctionError> + Send + Sync + 'static,
    ) -> &mut Self {
        self.by_name.insert(name.to_owned(), Arc::new(function));
        self
    }

    /// Whether a template may call `name`.
    pub fn has(&self, name: &str) -> bool {
        matches!(name, "and" | "or") || self.by_name.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&TemplateFunction> {
        self.by_name.get(name)
    }

    fn add_go_builtins(&mut self) {
        self.add("len", |arguments| match one(arguments)? {
            Value::List(items) => Ok(Value::Int(items.len() as i64)),
            Value::Map(entries) => Ok(Value::Int(entries.len() as i64)),
            Value::String(text) | Value::Html(text) => Ok(Value::Int(text.len() as i64)),
            other => Err(format!("len of type {}", other.kind()).into()),
        });
        self.add("index", |arguments| {
            let (first, path) = arguments.split_first().ok_or("wants a value to index")?;
            path.iter().try_fold(first.clone(), |value, key| index(&value, key))
        });
        self.add("slice", slice);
        self.add("call", |arguments| {
            let function = arguments.first().ok_or("wants a function")?;
            Err(format!("non-function of type {}", function.kind()).into())
        });
        self.add("not", |arguments| Ok(Value::Bool(!one(arguments)?.is_true())));
        self.add("print", |arguments| Ok(Value::from(print(arguments))));
        self.add("println", |arguments| {
            let texts: Vec<String> = arguments.iter().map(display).collect();
            Ok(Value::from(texts.join(" ") + "\n"))
        });
        self.add("printf", |arguments| {
            let (format, rest) = arguments.split_first().ok_or("wants a format")?;
            Ok(Value::from(sprintf(text(format)?, rest)?))
        });
        self.add("html", |arguments| Ok(Value::from(escape_html(&print(arguments)))));
        self.add("js", |arguments| Ok(Value::from(escape_js(&print(arguments)))));
        self.add("urlquery", |arguments| Ok(Value::from(escape_query(&print(arguments)))));
        self.add("eq", |arguments| {
            let (first, rest) = arguments.split_first().ok_or("missing argument for comparison")?;
            if rest.is_empty() {
                return Err("missing argument for comparison".into());
            }
            Ok(Value::Bool(rest.iter().any(|other| equal(first, other))))
        });
        self.add("ne", |arguments| {
            let (left, right) = two(arguments)?;
            Ok(Value::Bool(!equal(left, right)))
        });
        type Holds = fn(Ordering) -> bool;
        let orderings: [(&str, Holds); 4] = [
            ("lt", Ordering::is_lt),
            ("le", Ordering::is_le),
            ("gt", Ordering::is_gt),
            ("ge", Ordering::is_ge),
        ];
        for (name, holds) in orderings {
            self.add(name, move |arguments| {
                let (left, right) = two(arguments)?;
                // A NaN is in no order with anything: every comparison is false.
                Ok(Value::Bool(order(left, right)?.is_some_and(holds)))
            });
        }
    }

    fn add_text(&mut self) {
        self.add("toUpper", |arguments| Ok(Value::from(text(one(arguments)?)?.to_uppercase())));
        self.add("toLower", |arguments| Ok(Value::from(text(one(arguments)?)?.to_lowercase())));
        self.add("title", |arguments| Ok(Value::from(title(text(one(arguments)?)?))));
        self.add("trimSpace", |arguments| Ok(Value::from(text(one(arguments)?)?.trim())));
        self.add("join", |arguments| {
            let (separator, items) = two(arguments)?;
            let Value::List(items) = items else { return Err("wants a list of strings".into()) };
            let items: Vec<String> = items.iter().map(display).collect();
            Ok(Value::from(items.join(text(separator)?)))
        });
        self.add("match", |arguments| {
            let (pattern, subject) = two(arguments)?;
            Ok(Value::Bool(regex(text(pattern)?)?.is_match(text(subject)?)))
        });
        self.add("reReplaceAll", |arguments| {
            let [pattern, replacement, subject] = arguments else { return Err("wants 3 arguments".into()) };
            let replaced =
                regex(text(pattern)?)?.replace_all(text(subject)?, text(replacement)?).into_owned();
            Ok(Value::from(replaced))
        });
        for name in ["safeHtml", "safeUrl"] {
            self.add(name, |arguments| Ok(Value::Html(Arc::from(text(one(arguments)?)?))));
        }
        self.add("stringSlice", |arguments| Ok(Value::list(arguments.iter().cloned())));
        self.add("date", |arguments| {
            let (layout, time) = two(arguments)?;
            let Value::Time(time) = time else { return Err("wants a time".into()) };
            Ok(Value::from(go_time::format(time, text(layout)?)))
        });
        self.add("stripPort", |arguments| Ok(Value::from(host_names::without_port(text(one(arguments)?)?))));
        self.add("stripDomain", |arguments| {
            Ok(Value::from(host_names::without_domain(text(one(arguments)?)?)))
        });
    }

    fn add_numbers(&mut self) {
        self.add("humanize", |arguments| Ok(Value::from(humanize::humanize(float(one(arguments)?)?))));
        self.add("humanize1024", |arguments| {
            Ok(Value::from(humanize::humanize_1024(float(one(arguments)?)?)))
        });
        self.add("humanizeDuration", |arguments| {
            Ok(Value::from(humanize::humanize_duration(float(one(arguments)?)?)))
        });
        self.add("humanizePercentage", |arguments| {
            Ok(Value::from(humanize::humanize_percentage(float(one(arguments)?)?)))
        });
        self.add("humanizeTimestamp", |arguments| {
            let seconds = float(one(arguments)?)?;
            if !seconds.is_finite() {
                return Ok(Value::from(float_general(seconds, Some(4))));
            }
            Ok(Value::from(display(&time_of(seconds)?)))
        });
        self.add("toTime", |arguments| time_of(float(one(arguments)?)?));
        self.add("toDuration", |arguments| Ok(Value::Duration((float(one(arguments)?)? * 1e9) as i64)));
        self.add("parseDuration", |arguments| {
            let duration: crate::duration::PrometheusDuration =
                text(one(arguments)?)?.parse().map_err(|error| FunctionError(format!("{error}")))?;
            Ok(Value::Float(duration.as_millis() as f64 / 1e3))
        });
    }
}

fn time_of(seconds: f64) -> Result<Value, FunctionError> {
    let nanos = seconds * 1e9;
    // Beyond the years 1677 to 2262 nanoseconds do not fit: an error in Prometheus too.
    if !nanos.is_finite() || nanos.abs() >= i64::MAX as f64 {
        return Err(format!("{seconds} is no time").into());
    }
    // By way of whole nanoseconds, as Prometheus goes: that decides about the last digit.
    Ok(Value::time_ms(nanos as i64 / 1_000_000))
}

fn one(arguments: &[Value]) -> Result<&Value, FunctionError> {
    match arguments {
        [only] => Ok(only),
        _ => Err(format!("wants 1 argument, got {}", arguments.len()).into()),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), FunctionError> {
    match arguments {
        [first, second] => Ok((first, second)),
        _ => Err(format!("wants 2 arguments, got {}", arguments.len()).into()),
    }
}

fn text(value: &Value) -> Result<&str, FunctionError> {
    value.as_str().ok_or_else(|| format!("wants a string, got {}", value.kind()).into())
}

fn float(value: &Value) -> Result<f64, FunctionError> {
    match value {
        Value::String(text) => text.parse().map_err(|_| format!("{text:?} is no number").into()),
        value => value.as_f64().ok_or_else(|| format!("wants a number, got {}", value.kind()).into()),
    }
}

fn regex(pattern: &str) -> Result<Regex, FunctionError> {
    RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|error| FunctionError(error.to_string()))
}

fn index(value: &Value, key: &Value) -> Result<Value, FunctionError> {
    match (value, key) {
        (Value::List(items), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| items.get(at))
            .cloned()
            .ok_or_else(|| format!("index out of range: {at}").into()),
        (Value::Map(entries), Value::String(name)) => {
            Ok(entries.get(&**name).cloned().unwrap_or_else(|| Value::from("")))
        }
        (Value::String(text), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| text.as_bytes().get(at).copied())
            .map(|byte| Value::Int(i64::from(byte)))
            .ok_or_else(|| format!("index out of range: {at}").into()),
        (value, key) => Err(format!("can't index a {} with a {}", value.kind(), key.kind()).into()),
    }
}

fn slice(arguments: &[Value]) -> Result<Value, FunctionError> {
    let (value, bounds) = arguments.split_first().ok_or("wants a value to slice")?;
    let length = match value {
        Value::List(items) => items.len(),
        Value::String(text) => text.len(),
        other => return Err(format!("can't slice a {}", other.kind()).into()),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Int(bound)) => usize::try_from(*bound)
            .ok()
            .filter(|&bound| bound <= length)
            .ok_or_else(|| FunctionError(format!("index out of range: {bound}"))),
        Some(other) => Err(FunctionError(format!("can't slice with a {}", other.kind()))),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    match value {
        Value::List(items) => items
            .get(from..to)
            .map(|items| Value::list(items.iter().cloned()))
            .ok_or_else(|| "index out of range".into()),
        value => text(value)?.get(from..to).map(Value::from).ok_or_else(|| "index out of range".into()),
    }
}

/// Go's `fmt.Sprint`: a space between two neighbours of which neither is a string.
fn print(arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut previous_is_text = true;
    for value in arguments {
        let is_text = matches!(value, Value::String(_) | Value::Html(_));
        if !is_text && !previous_is_text {
            out.push(' ');
        }
        out.push_str(&display(value));
        previous_is_text = is_text;
    }
    out
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Int(_) | Value::Float(_), Value::Int(_) | Value::Float(_)) => left.as_f64() == right.as_f64(),
        (left, right) => match (left.as_str(), right.as_str()) {
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        },
    }
}

fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, FunctionError> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(Some(left.cmp(right)));
    }
    if let (Value::Time(TimeValue { time: left, .. }), Value::Time(TimeValue { time: right, .. })) =
        (left, right)
    {
        return Ok(Some(left.cmp(right)));
    }
    match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => Ok(left.partial_cmp(&right)),
        _ => Err(format!("incompatible types for comparison: {} and {}", left.kind(), right.kind()).into()),
    }
}

/// The first letter of every word in upper case, the others in lower case.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if inside {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        inside = c.is_alphanumeric() || matches!(c, '\'' | '_');
    }
    out
}

/// Text as it may stand in HTML, attribute values included.
pub(super) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn escape_js(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\'' => out.push_str("\\'"),
            '"' => out.push_str("\\\""),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if (c as u32) < 0x20 => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

fn escape_query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
