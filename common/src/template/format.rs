//! Values as Go prints them: `%v` and the other verbs of `printf`.

use super::{TimeValue, Value, go_time};
use crate::float_text;
use std::fmt::Write;

/// The value as `{{ . }}` shows it.
pub(super) fn display(value: &Value) -> String {
    match value {
        Value::Nil => "<no value>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => float_shortest(*number),
        Value::String(text) | Value::Html(text) => text.to_string(),
        Value::Time(time) => show_time(time),
        Value::Duration(nanos) => show_duration(*nanos),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(display).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key}:{}", display(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Struct(fields) => {
            let fields: Vec<String> = fields.values().map(display).collect();
            format!("{{{}}}", fields.join(" "))
        }
    }
}

fn show_time(time: &TimeValue) -> String {
    go_time::format(time, "2006-01-02 15:04:05.999999999 -0700 MST")
}

/// Go's `time.Duration.String`: `1h2m3.5s`, `450ms`, `0s`.
fn show_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    if total == 0 {
        return "0s".to_owned();
    }
    if total < 1_000_000_000 {
        let (unit, size) = match total {
            0..1_000 => ("ns", 1.0),
            1_000..1_000_000 => ("µs", 1e3),
            _ => ("ms", 1e6),
        };
        return format!("{sign}{}{unit}", total as f64 / size);
    }
    let (hours, minutes) = (total / 3_600_000_000_000, total / 60_000_000_000 % 60);
    let seconds = (total % 60_000_000_000) as f64 / 1e9;
    let mut out = sign.to_owned();
    if hours > 0 {
        let _ = write!(out, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(out, "{minutes}m");
    }
    let _ = write!(out, "{seconds}s");
    out
}

/// The shortest text that reads back as the same number, with an exponent where Go's `%v` has one.
pub(super) fn float_shortest(number: f64) -> String {
    float_general(number, None)
}

fn special(number: f64) -> Option<&'static str> {
    match number {
        n if n.is_nan() => Some("NaN"),
        f64::INFINITY => Some("+Inf"),
        f64::NEG_INFINITY => Some("-Inf"),
        _ => None,
    }
}

/// Go's `%g`: with an exponent below -4 and from the precision up (6 where none is given).
pub(super) fn float_general(number: f64, precision: Option<usize>) -> String {
    let Some(precision) = precision else { return float_text::format_general(number) };
    if let Some(name) = special(number) {
        return name.to_owned();
    }
    let precision = precision.max(1);
    let scientific = format!("{number:.*e}", precision - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= precision as i32 {
        return format!("{}{}", strip_zeros(mantissa), go_exponent(exponent));
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    strip_zeros(&format!("{number:.decimals$}")).to_owned()
}

fn strip_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

fn go_exponent(exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("e{sign}{:02}", exponent.abs())
}

/// Widths and precisions beyond this are refused: they would only fill memory.
const WIDTH_MAX: usize = 4_096;

/// Go's `fmt.Sprintf` for the verbs that make sense on template values.
pub(super) fn sprintf(format: &str, arguments: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(&c) = chars.peek() {
            match c {
                '-' => flags.left = true,
                '+' => flags.plus = true,
                '#' => flags.sharp = true,
                '0' => flags.zero = true,
                ' ' => flags.space = true,
                _ => break,
            }
            chars.next();
        }
        flags.width = number(&mut chars)?;
        if chars.peek() == Some(&'.') {
            chars.next();
            flags.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        let Some(verb) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let text = match arguments.next() {
            Some(value) => one(verb, &flags, value),
            None => format!("%!{verb}(MISSING)"),
        };
        pad(&mut out, &text, &flags, verb);
    }
    let extra: Vec<String> = arguments.map(|value| format!("{}={}", value.kind(), display(value))).collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(out)
}

#[derive(Default)]
struct Flags {
    left: bool,
    plus: bool,
    sharp: bool,
    zero: bool,
    space: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

fn number(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut found: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let next = found.unwrap_or(0) * 10 + digit as usize;
        if next > WIDTH_MAX {
            return Err(format!("a width or precision over {WIDTH_MAX}"));
        }
        found = Some(next);
    }
    Ok(found)
}

fn one(verb: char, flags: &Flags, value: &Value) -> String {
    let bad = || format!("%!{verb}({}={})", value.kind(), display(value));
    let signed = |text: String| match text.as_bytes().first() {
        Some(b'-' | b'+') => text,
        _ if flags.plus => format!("+{text}"),
        _ if flags.space => format!(" {text}"),
        _ => text,
    };
    match (verb, value) {
        ('v', Value::Float(number)) => signed(float_general(*number, flags.precision)),
        ('v', value) => display(value),
        ('s', Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Nil) => bad(),
        ('s', value) => match flags.precision {
            Some(precision) => display(value).chars().take(precision).collect(),
            None => display(value),
        },
        ('q', Value::String(text) | Value::Html(text)) => crate::labels::Quoted(text).to_string(),
        ('t', Value::Bool(truth)) => truth.to_string(),
        ('d', Value::Int(number) | Value::Duration(number)) => signed(number.to_string()),
        ('x', Value::Int(number)) => signed(format!("{}{number:x}", if flags.sharp { "0x" } else { "" })),
        ('X', Value::Int(number)) => signed(format!("{}{number:X}", if flags.sharp { "0X" } else { "" })),
        ('o', Value::Int(number)) => signed(format!("{number:o}")),
        ('b', Value::Int(number)) => signed(format!("{number:b}")),
        ('c', Value::Int(number)) => {
            u32::try_from(*number).ok().and_then(char::from_u32).map_or_else(bad, String::from)
        }
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f' | 'F', Value::Float(number)) => match special(*number) {
            Some(name) => name.to_owned(),
            None => signed(format!("{number:.*}", flags.precision.unwrap_or(6))),
        },
        ('e', Value::Float(number)) => match special(*number) {
            Some(name) => name.to_owned(),
            None => {
                let text = format!("{number:.*e}", flags.precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                signed(format!("{mantissa}{}", go_exponent(exponent.parse().unwrap_or(0))))
            }
        },
        ('g', Value::Float(number)) => signed(float_general(*number, flags.precision)),
        ('T', value) => value.kind().to_owned(),
        _ => bad(),
    }
}

fn pad(out: &mut String, text: &str, flags: &Flags, verb: char) {
    let missing = flags.width.unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 {
        out.push_str(text);
    } else if flags.left {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.zero && !matches!(verb, 's' | 'q' | 'v') {
        let digits = text.trim_start_matches(['-', '+']);
        out.push_str(&text[..text.len() - digits.len()]);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(text);
    }
}
