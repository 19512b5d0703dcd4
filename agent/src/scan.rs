//! Reading numbers and fields out of the kernel's text files, byte by byte and without allocation.
//!
//! Bytes of a file flow in, numbers flow out; whatever is not as expected is `None`, never a panic.

/// The lines of a text, without their line ends.
pub fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(line)
    })
}

/// The fields of a line, separated by spaces and tabs.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `line`.
    pub fn of(line: &'a [u8]) -> Self {
        Fields { rest: line }
    }

    /// The next field as a number.
    pub fn number(&mut self) -> Option<f64> {
        number(self.next()?)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| !is_blank(*byte))?;
        let rest = &self.rest[start..];
        let end = rest.iter().position(|byte| is_blank(*byte)).unwrap_or(rest.len());
        let (field, rest) = rest.split_at(end);
        self.rest = rest;
        Some(field)
    }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// `text` without blanks and line ends around it.
pub fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

/// A whole number, possibly negative.
pub fn integer(text: &[u8]) -> Option<i64> {
    match text.split_first()? {
        (b'-', digits) => unsigned(digits).and_then(|value| i64::try_from(value).ok()).map(|value| -value),
        _ => unsigned(text).and_then(|value| i64::try_from(value).ok()),
    }
}

/// A whole number of decimal digits.
pub fn unsigned(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// A whole number of hexadecimal digits, with or without `0x`.
pub fn hexadecimal(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"0x").unwrap_or(text);
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &byte| Some(value << 4 | u64::from((byte as char).to_digit(16)?)))
}

/// A number with or without sign and fraction. Never infinite, never NaN.
pub fn number(text: &[u8]) -> Option<f64> {
    if let Some(value) = unsigned(text) {
        return Some(value as f64);
    }
    // `parse` would also read "inf" and "nan", which no counter of the kernel is.
    if !text.iter().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e')) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_read_or_refused() {
        #[track_caller]
        fn check(text: &str, want: Option<f64>) {
            assert_eq!(number(text.as_bytes()), want, "{text:?}");
        }
        check("0", Some(0.0));
        check("18446744073709551615", Some(18_446_744_073_709_551_615.0));
        check("18446744073709551616", Some(18_446_744_073_709_551_616.0));
        check("-1", Some(-1.0));
        check("0.73", Some(0.73));
        for nothing in ["", "-", ".", "inf", "nan", "NaN", "0x10", "1e999", "12a"] {
            check(nothing, None);
        }
        assert_eq!(hexadecimal(b"0x1003"), Some(0x1003));
        assert_eq!(hexadecimal(b"00003257"), Some(0x3257));
        assert_eq!(hexadecimal(b"0x"), None);
        assert_eq!(hexadecimal(b"11112222333344445"), None);
        assert_eq!(integer(b"-9223372036854775808"), None);
        assert_eq!(integer(b"-1"), Some(-1));
    }

    #[test]
    fn fields_and_lines_are_cut_at_blanks_and_ends() {
        let fields: Vec<&[u8]> = Fields::of(b"  a\t b  c ").collect();
        assert_eq!(fields, [b"a", b"b", b"c"]);
        let found: Vec<&[u8]> = lines(b"x\n\ny").collect();
        assert_eq!(found, [b"x".as_slice(), b"", b"y"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for line in lines(&bytes) {
                for field in Fields::of(line) {
                    let _ = (number(field), integer(field), hexadecimal(field));
                }
            }
        }
    }
}
