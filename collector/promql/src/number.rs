//! Numbers as text, the way Go's `strconv` writes and reads them.

pub(crate) use pharos_common::float_text::format_general;
pub use pharos_common::float_text::{format_exponent, format_float};

/// A float as OpenMetrics writes `le` and `quantile` labels: always recognisable as a float.
pub(crate) fn format_openmetrics(value: f64) -> String {
    let text = format_general(value);
    if value.is_finite() && !text.contains(['e', '.']) { text + ".0" } else { text }
}

/// Reads a number literal: decimal, hexadecimal, octal with a leading 0, underscores, `Inf`, `NaN`.
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    let clean: String = text.chars().filter(|&c| c != '_').collect();
    let lower = clean.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        return parse_hexadecimal(digits);
    }
    if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return i64::from_str_radix(&lower, 8).ok().map(|value| value as f64);
    }
    parse_float(&clean)
}

fn parse_hexadecimal(digits: &str) -> Option<f64> {
    // Go reads integers of 64 bits exactly; longer ones need an exponent, which the lexer does not pass.
    i64::from_str_radix(digits, 16).ok().map(|value| value as f64)
}

/// Reads a float as Go's `ParseFloat`: `inf`, `+Inf`, `infinity` and `nan` in any case are fine.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let named = unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity");
    if named {
        return Some(if text.starts_with('-') { f64::NEG_INFINITY } else { f64::INFINITY });
    }
    if text.eq_ignore_ascii_case("nan") {
        return Some(f64::from_bits(pharos_common::sample::NORMAL_NAN_BITS));
    }
    if unsigned.is_empty()
        || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Go refuses what overflows.
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_recognisable_as_floats() {
        assert_eq!(format_openmetrics(1.0), "1.0");
        assert_eq!(format_openmetrics(0.99), "0.99");
    }

    #[test]
    fn literals_are_read_as_go_reads_them() {
        #[track_caller]
        fn check(text: &str, want: Option<f64>) {
            assert_eq!(parse_number(text), want, "{text}");
        }
        check("0x1f", Some(31.0));
        check("010", Some(8.0));
        check("08", Some(8.0));
        check("1_000.5", Some(1000.5));
        check(".5e2", Some(50.0));
        check("iNf", Some(f64::INFINITY));
        check("1e400", None);
        check("0xfffffffffffffffff", None);
    }
}
