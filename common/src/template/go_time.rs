//! Go's way of formatting times: the layout shows how Mon Jan 2 15:04:05 2006 -0700 MST would look.

use super::TimeValue;
use std::fmt::Write;

/// Layout elements, longest first where one starts another, and what `chrono` calls them.
const ELEMENTS: [(&str, &str); 31] = [
    ("January", "%B"),
    ("Jan", "%b"),
    ("Monday", "%A"),
    ("Mon", "%a"),
    ("MST", "\0zone"),
    ("2006", "%Y"),
    ("-07:00:00", "%::z"),
    ("-07:00", "%:z"),
    ("-0700", "%z"),
    ("-07", "%#z"),
    ("Z07:00", "\0zulu:"),
    ("Z0700", "\0zulu"),
    ("002", "%j"),
    ("01", "%m"),
    ("02", "%d"),
    ("03", "%I"),
    ("04", "%M"),
    ("05", "%S"),
    ("06", "%y"),
    ("_2", "%e"),
    ("15", "%H"),
    ("PM", "%p"),
    ("pm", "%P"),
    (".000000000", "%.9f"),
    (".000000", "%.6f"),
    (".000", "%.3f"),
    (".999999999", "%.f"),
    (".999999", "%.f"),
    (".999", "%.f"),
    ("1", "%-m"),
    ("2", "%-d"),
];

/// Elements of one digit that come after the two-digit ones.
const SHORT_ELEMENTS: [(&str, &str); 3] = [("3", "%-I"), ("4", "%-M"), ("5", "%-S")];

pub(super) fn format(value: &TimeValue, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    'layout: while let Some(first) = rest.chars().next() {
        for (element, meaning) in ELEMENTS.iter().chain(&SHORT_ELEMENTS) {
            let Some(tail) = rest.strip_prefix(element) else { continue };
            // Writing to a String fails only for a bad format, and these are fixed.
            let _ = match *meaning {
                "\0zone" => write!(out, "{}", value.zone),
                "\0zulu:" if value.time.offset().local_minus_utc() == 0 => write!(out, "Z"),
                "\0zulu" if value.time.offset().local_minus_utc() == 0 => write!(out, "Z"),
                "\0zulu:" => write!(out, "{}", value.time.format("%:z")),
                "\0zulu" => write!(out, "{}", value.time.format("%z")),
                // Go writes no zeros at the end of such a fraction.
                "%.f" => {
                    let fraction = value.time.format("%.f").to_string();
                    write!(out, "{}", fraction.trim_end_matches('0').trim_end_matches('.'))
                }
                meaning => write!(out, "{}", value.time.format(meaning)),
            };
            rest = tail;
            continue 'layout;
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}
