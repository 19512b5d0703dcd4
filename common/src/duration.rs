//! Durations as Prometheus writes them: `1h30m`, `500ms`, `0`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Prometheus keeps durations in an `i64` of nanoseconds; so no longer ones are accepted.
const LONGEST_MS: u64 = i64::MAX as u64 / 1_000_000;

const UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A duration in whole milliseconds, read and printed in Prometheus' notation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrometheusDuration(u64);

impl PrometheusDuration {
    /// From milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        PrometheusDuration(millis)
    }

    /// From seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        PrometheusDuration(seconds * 1_000)
    }

    /// In milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// In milliseconds, signed for arithmetic with timestamps.
    pub const fn as_millis_i64(self) -> i64 {
        self.0 as i64
    }

    /// As a standard duration.
    pub const fn to_std(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing was written.
    #[error("empty duration string")]
    Empty,
    /// Not units in falling order with whole numbers before them.
    #[error("not a valid duration string: {0:?} (write for example 30s, 5m, 1h30m or 15d)")]
    Malformed(String),
    /// Longer than 292 years.
    #[error("duration out of range: {0:?}")]
    OutOfRange(String),
}

impl FromStr for PrometheusDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        match text {
            "" => return Err(DurationError::Empty),
            "0" => return Ok(PrometheusDuration(0)),
            _ => {}
        }
        let malformed = || DurationError::Malformed(text.to_owned());
        let out_of_range = || DurationError::OutOfRange(text.to_owned());
        let mut total_ms = 0u64;
        let mut next_unit = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
            let (unit, tail) = tail.split_at(letters);
            let position = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(malformed)?;
            if number.is_empty() || position < next_unit {
                return Err(malformed());
            }
            next_unit = position + 1;
            let number: u64 = number.parse().map_err(|_| out_of_range())?;
            total_ms = number
                .checked_mul(UNITS[position].1)
                .and_then(|ms| total_ms.checked_add(ms))
                .filter(|&ms| ms <= LONGEST_MS)
                .ok_or_else(out_of_range)?;
            rest = tail;
        }
        Ok(PrometheusDuration(total_ms))
    }
}

/// As Prometheus' `model.Duration`: the largest units first; years and weeks only if they divide evenly.
impl fmt::Display for PrometheusDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, size) in UNITS {
            if matches!(unit, "y" | "w") && !rest.is_multiple_of(size) {
                continue;
            }
            let count = rest / size;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                rest -= count * size;
            }
        }
        Ok(())
    }
}

impl From<PrometheusDuration> for Duration {
    fn from(duration: PrometheusDuration) -> Duration {
        duration.to_std()
    }
}

impl<'de> Deserialize<'de> for PrometheusDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for PrometheusDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_prometheus_does() {
        #[track_caller]
        fn check(text: &str, millis: u64, printed: &str) {
            let duration: PrometheusDuration = text.parse().unwrap();
            assert_eq!(duration.as_millis(), millis);
            assert_eq!(duration.to_string(), printed);
        }
        check("0", 0, "0s");
        check("0s", 0, "0s");
        check("324ms", 324, "324ms");
        check("5m", 300_000, "5m");
        check("1h30m", 5_400_000, "1h30m");
        check("4d1h", 349_200_000, "4d1h");
        check("14d", 1_209_600_000, "2w");
        check("8w5d", 5_270_400_000, "61d");
        check("10y", 315_360_000_000, "10y");
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "1", "1y1m1d", "-1w", "1.5d", "d", "1s1s", "300y", "99999999999999999999y", "5 m"] {
            assert!(text.parse::<PrometheusDuration>().is_err(), "{text:?}");
        }
    }
}
