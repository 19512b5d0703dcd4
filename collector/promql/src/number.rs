//! Numbers as text, the way Go's `strconv` writes and reads them.

/// A float as Prometheus' API prints sample values: the shortest digits that read back to the same
/// number, never an exponent (Go's format `'f'`, precision -1). `NaN`, `+Inf` and `-Inf` by name.
pub fn format_float(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

/// A float as Go's `%g` and `%v` print it: with an exponent if that is below -4 or above 5.
pub(crate) fn format_general(value: f64) -> String {
    format_with_exponent(value)
}

/// A float as OpenMetrics writes `le` and `quantile` labels: always recognisable as a float.
pub(crate) fn format_openmetrics(value: f64) -> String {
    let text = format_with_exponent(value);
    if value.is_finite() && !text.contains(['e', '.']) { text + ".0" } else { text }
}

fn format_with_exponent(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return format_float(value);
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format_float(value);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
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
    fn floats_print_as_go_prints_them() {
        assert_eq!(format_float(0.1), "0.1");
        assert_eq!(format_float(1e21), "1000000000000000000000");
        assert_eq!(format_float(-0.0), "-0");
        assert_eq!(format_float(f64::NEG_INFINITY), "-Inf");
        assert_eq!(format_general(1e21), "1e+21");
        assert_eq!(format_general(123_456_789.0), "1.23456789e+08");
        assert_eq!(format_general(123_456.5), "123456.5");
        assert_eq!(format_general(0.00001), "1e-05");
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
