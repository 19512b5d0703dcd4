//! Floats as text, the way Go's `strconv` prints them: answers, label values and notifications show the
//! same digits as Prometheus' and Alertmanager's.
//!
//! Of two equally near shortest digits Go prints the even one (83859951180975.625 is `…75.62`), where Rust's
//! own formatting rounds up: the digits are those of `zmij`, which decides as Go does.

/// The shortest decimal digits that read back to the same finite number.
struct Digits {
    negative: bool,
    /// Without leading or trailing zeros; `0` alone for zero.
    digits: String,
    /// Where the decimal point stands among the digits: 1 is behind the first one.
    point: i32,
}

impl Digits {
    fn of(value: f64) -> Digits {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let leading = all.bytes().take_while(|&digit| digit == b'0').count();
        let digits = all.trim_matches('0');
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let negative = value.is_sign_negative();
        if digits.is_empty() {
            return Digits { negative, digits: "0".to_owned(), point: 1 };
        }
        Digits { negative, digits: digits.to_owned(), point: whole.len() as i32 - leading as i32 + exponent }
    }

    fn sign(&self) -> &'static str {
        if self.negative { "-" } else { "" }
    }

    /// Go's `'f'`.
    fn plain(&self) -> String {
        let (sign, digits, count) = (self.sign(), &self.digits, self.digits.len() as i32);
        if self.point <= 0 {
            return format!("{sign}0.{}{digits}", "0".repeat(self.point.unsigned_abs() as usize));
        }
        if self.point >= count {
            return format!("{sign}{digits}{}", "0".repeat((self.point - count) as usize));
        }
        let (whole, fraction) = digits.split_at(self.point as usize);
        format!("{sign}{whole}.{fraction}")
    }

    /// Go's `'e'`: at least two digits of exponent.
    fn exponent(&self) -> String {
        let (first, rest) = self.digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let exponent = self.point - 1;
        let direction = if exponent < 0 { '-' } else { '+' };
        format!("{}{first}{point}{rest}e{direction}{:02}", self.sign(), exponent.abs())
    }
}

/// `NaN`, `+Inf` and `-Inf` by name.
fn name_of(value: f64) -> Option<String> {
    let name = if value.is_nan() {
        "NaN"
    } else if value == f64::INFINITY {
        "+Inf"
    } else if value == f64::NEG_INFINITY {
        "-Inf"
    } else {
        return None;
    };
    Some(name.to_owned())
}

/// A float as Prometheus' API prints sample values: the shortest digits that read back to the same
/// number, never an exponent (Go's format `'f'`, precision -1). `NaN`, `+Inf` and `-Inf` by name.
pub fn format_float(value: f64) -> String {
    name_of(value).unwrap_or_else(|| Digits::of(value).plain())
}

/// A float with an exponent always (Go's format `'e'`, precision -1).
pub fn format_exponent(value: f64) -> String {
    name_of(value).unwrap_or_else(|| Digits::of(value).exponent())
}

/// A float as Go's `%g` and `%v` print it: with an exponent if that is below -4 or above 5.
pub fn format_general(value: f64) -> String {
    if let Some(name) = name_of(value) {
        return name;
    }
    let digits = Digits::of(value);
    if (-4..6).contains(&(digits.point - 1)) { digits.plain() } else { digits.exponent() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floats_print_as_go_prints_them() {
        assert_eq!(format_float(0.1), "0.1");
        assert_eq!(format_float(1e21), "1000000000000000000000");
        assert_eq!(format_float(-0.0), "-0");
        assert_eq!(format_float(-0.000_25), "-0.00025");
        assert_eq!(format_float(1234.5), "1234.5");
        assert_eq!(format_float(5e-324).len(), 326);
        assert_eq!(format_exponent(91.5), "9.15e+01");
        assert_eq!(format_exponent(-0.0), "-0e+00");
        assert_eq!(format_exponent(5e-324), "5e-324");
        assert_eq!(format_float(f64::NEG_INFINITY), "-Inf");
        assert_eq!(format_general(1e21), "1e+21");
        assert_eq!(format_general(123_456_789.0), "1.23456789e+08");
        assert_eq!(format_general(123_456.5), "123456.5");
        assert_eq!(format_general(0.00001), "1e-05");
    }

    /// As Debian's Prometheus prints these literals.
    #[test]
    #[expect(clippy::excessive_precision, reason = "the literals are what Prometheus was given")]
    fn a_tie_between_shortest_digits_goes_to_the_even_one() {
        assert_eq!(format_float(83_859_951_180_975.625), "83859951180975.62");
        assert_eq!(format_float(83_859_951_180_975.375), "83859951180975.38");
        assert_eq!(format_float(70_368_744_177_664.125), "70368744177664.12");
        assert_eq!(format_float(123_456_789_012_345.675), "123456789012345.67");
        assert_eq!(format_exponent(83_859_951_180_975.625), "8.385995118097562e+13");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(format_float(value).parse::<f64>().unwrap().to_bits(), bits);
            prop_assert_eq!(format_exponent(value).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
