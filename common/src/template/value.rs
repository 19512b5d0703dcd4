//! The data a template walks.

use chrono::{DateTime, FixedOffset, Utc};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A value in a template. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing; prints as `<no value>`.
    #[default]
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// Text that is safe in HTML as it stands.
    Html(Arc<str>),
    /// A point in time.
    Time(TimeValue),
    /// A span of time in nanoseconds.
    Duration(i64),
    /// A sequence.
    List(Arc<[Value]>),
    /// A set of labels or annotations: a key it lacks reads as the empty string.
    Map(Arc<BTreeMap<String, Value>>),
    /// An object with known fields: one it lacks is an error.
    Struct(Arc<BTreeMap<String, Value>>),
}

/// A point in time as a zone's clocks show it.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeValue {
    /// The time with the zone's offset then.
    pub time: DateTime<FixedOffset>,
    /// The zone's short name then, e.g. `UTC` or `CEST`.
    pub zone: Arc<str>,
}

impl Value {
    /// Text.
    pub fn string(text: impl AsRef<str>) -> Self {
        Value::String(Arc::from(text.as_ref()))
    }

    /// A set of labels.
    pub fn map<K: Into<String>, V: Into<Value>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Value::Map(Arc::new(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }

    /// An object.
    pub fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Self {
        Value::Struct(Arc::new(fields.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }

    /// A sequence.
    pub fn list(items: impl IntoIterator<Item = Value>) -> Self {
        Value::List(items.into_iter().collect())
    }

    /// A time in UTC, from milliseconds since the epoch.
    pub fn time_ms(millis: i64) -> Self {
        let time = DateTime::<Utc>::from_timestamp_millis(millis).unwrap_or_default();
        Value::Time(TimeValue { time: time.fixed_offset(), zone: Arc::from("UTC") })
    }

    /// Whether `if` takes its first branch.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(truth) => *truth,
            Value::Int(number) | Value::Duration(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::String(text) | Value::Html(text) => !text.is_empty(),
            Value::List(items) => !items.is_empty(),
            Value::Map(entries) => !entries.is_empty(),
            Value::Time(_) | Value::Struct(_) => true,
        }
    }

    /// What kind of value it is, for error messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::String(_) => "string",
            Value::Html(_) => "HTML",
            Value::Time(_) => "time",
            Value::Duration(_) => "duration",
            Value::List(_) => "list",
            Value::Map(_) => "map",
            Value::Struct(_) => "object",
        }
    }

    /// The text of a string or of HTML.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) | Value::Html(text) => Some(text),
            _ => None,
        }
    }

    /// A number of either kind, as a float.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            Value::Duration(nanos) => Some(*nanos as f64 / 1e9),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::string(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Float(number)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Value::Int(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Value::Bool(truth)
    }
}
