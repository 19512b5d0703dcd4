//! What templates may ask of a value by `.Name`: the methods of Alertmanager's label sets, pairs and
//! lists of alerts, and of Go's times and durations.

use super::go_time;
use super::{TimeValue, Value};
use chrono::{Datelike, Timelike};

/// Calls a method, or returns `None` if the value has none of that name.
pub(super) fn call(receiver: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    match receiver {
        Value::Map(_) => map_method(receiver, name, arguments),
        Value::List(items) => list_method(items, name),
        Value::Time(time) => time_method(time, name, arguments),
        Value::Duration(nanos) => duration_method(*nanos, name),
        _ => None,
    }
}

/// Pairs sorted by name, `alertname` first.
fn sorted_pairs(map: &Value) -> Vec<(String, Value)> {
    let Value::Map(entries) = map else { return Vec::new() };
    let (mut first, rest): (Vec<_>, Vec<_>) = entries
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .partition(|(name, _)| name == "alertname");
    first.extend(rest);
    first
}

fn map_method(map: &Value, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let value = match name {
        "SortedPairs" => Value::list(
            sorted_pairs(map)
                .into_iter()
                .map(|(name, value)| Value::object([("Name", Value::from(name)), ("Value", value)])),
        ),
        "Names" => Value::list(sorted_pairs(map).into_iter().map(|(name, _)| Value::from(name))),
        "Values" => Value::list(sorted_pairs(map).into_iter().map(|(_, value)| value)),
        "Remove" => match arguments {
            [Value::List(names)] => {
                let gone = |name: &str| names.iter().any(|other| other.as_str() == Some(name));
                Value::map(sorted_pairs(map).into_iter().filter(|(name, _)| !gone(name)))
            }
            _ => return Some(Err("wants a list of names".to_owned())),
        },
        _ => return None,
    };
    Some(Ok(value))
}

fn list_method(items: &[Value], name: &str) -> Option<Result<Value, String>> {
    let field = |item: &Value, field: &str| match item {
        Value::Struct(fields) => fields.get(field).cloned(),
        _ => None,
    };
    let with_status = |status: &str| {
        let wanted = items
            .iter()
            .filter(|item| field(item, "Status").is_some_and(|found| found.as_str() == Some(status)));
        Value::list(wanted.cloned())
    };
    let value = match name {
        "Firing" => with_status("firing"),
        "Resolved" => with_status("resolved"),
        "Names" => Value::list(items.iter().filter_map(|item| field(item, "Name"))),
        "Values" => Value::list(items.iter().filter_map(|item| field(item, "Value"))),
        _ => return None,
    };
    Some(Ok(value))
}

fn time_method(time: &TimeValue, name: &str, arguments: &[Value]) -> Option<Result<Value, String>> {
    let at = &time.time;
    let value = match name {
        "Format" => match arguments {
            [Value::String(layout)] => Value::from(go_time::format(time, layout)),
            _ => return Some(Err("wants a layout".to_owned())),
        },
        "Unix" => Value::Int(at.timestamp()),
        "UnixMilli" => Value::Int(at.timestamp_millis()),
        "UnixNano" => Value::Int(at.timestamp_nanos_opt().unwrap_or(i64::MAX)),
        "UTC" | "Local" => Value::time_ms(at.timestamp_millis()),
        "IsZero" => Value::Bool(at.timestamp_millis() <= 0),
        "Year" => Value::Int(i64::from(at.year())),
        "Day" => Value::Int(i64::from(at.day())),
        "Hour" => Value::Int(i64::from(at.hour())),
        "Minute" => Value::Int(i64::from(at.minute())),
        "Second" => Value::Int(i64::from(at.second())),
        "Weekday" => Value::from(at.format("%A").to_string()),
        "Month" => Value::from(at.format("%B").to_string()),
        "Add" => match arguments {
            [Value::Duration(nanos)] => Value::Time(TimeValue {
                time: *at + chrono::Duration::nanoseconds(*nanos),
                zone: time.zone.clone(),
            }),
            _ => return Some(Err("wants a duration".to_owned())),
        },
        "Sub" => match arguments {
            [Value::Time(other)] => Value::Duration((*at - other.time).num_nanoseconds().unwrap_or(i64::MAX)),
            _ => return Some(Err("wants a time".to_owned())),
        },
        _ => return None,
    };
    Some(Ok(value))
}

fn duration_method(nanos: i64, name: &str) -> Option<Result<Value, String>> {
    let value = match name {
        "Seconds" => Value::Float(nanos as f64 / 1e9),
        "Minutes" => Value::Float(nanos as f64 / 60e9),
        "Hours" => Value::Float(nanos as f64 / 3_600e9),
        "Milliseconds" => Value::Int(nanos / 1_000_000),
        "String" => Value::from(super::format::display(&Value::Duration(nanos))),
        _ => return None,
    };
    Some(Ok(value))
}
