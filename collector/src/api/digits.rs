//! Numbers and times as digits, appended to bytes: what most of an answer consists of.

use super::json::format_value;
use pharos_common::sample::TimestampMs;

/// Whole numbers below this are exact, and print as they are.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// From here to [`WHOLE_MAX`] the shortest digits are printed without an exponent, by everybody alike.
const PLAIN_MIN: f64 = 1e-5;

/// Appends a value as [`format_value`] prints it.
pub(super) fn push_value(out: &mut Vec<u8>, value: f64) {
    let whole = value as i64;
    let magnitude = value.abs();
    if whole as f64 == value && magnitude < WHOLE_MAX && (whole != 0 || value.is_sign_positive()) {
        out.extend_from_slice(itoa::Buffer::new().format(whole).as_bytes());
    } else if (PLAIN_MIN..WHOLE_MAX).contains(&magnitude) {
        out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        out.extend_from_slice(format_value(value).as_bytes());
    }
}

/// Appends milliseconds as seconds, with three digits if need be.
pub(super) fn push_timestamp(out: &mut Vec<u8>, timestamp_ms: TimestampMs) {
    let millis = timestamp_ms.unsigned_abs();
    if timestamp_ms < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(itoa::Buffer::new().format(millis / 1_000).as_bytes());
    let fraction = (millis % 1_000) as u16;
    if fraction > 0 {
        let digit = |divisor: u16| b'0' + (fraction / divisor % 10) as u8;
        out.extend([b'.', digit(100), digit(10), digit(1)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_plain_way(
            value in prop_oneof![
                any::<f64>(),
                -1e6..1e6f64,
                (-1_000_000i64..1_000_000).prop_map(|number| number as f64),
                (-1_000_000i64..1_000_000).prop_map(|number| number as f64 / 1000.0),
                (-30i32..30, 1.0..10.0f64).prop_map(|(exponent, value)| value * 10f64.powi(exponent)),
                prop::sample::select(vec![0.0, -0.0, 1e-5, 1e-6, WHOLE_MAX, -WHOLE_MAX, 1e21, 9_007_199_254_740_991.0, 83_859_951_180_975.63]),
            ],
            timestamp_ms in prop_oneof![any::<i64>(), -5_000i64..5_000],
        ) {
            let mut out = Vec::new();
            push_value(&mut out, value);
            prop_assert_eq!(String::from_utf8(out).unwrap(), format_value(value));
            let mut out = Vec::new();
            push_timestamp(&mut out, timestamp_ms);
            let (sign, millis) = (if timestamp_ms < 0 { "-" } else { "" }, timestamp_ms.unsigned_abs());
            let fraction = if millis % 1_000 == 0 { String::new() } else { format!(".{:03}", millis % 1_000) };
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("{sign}{}{fraction}", millis / 1_000));
        }
    }
}
