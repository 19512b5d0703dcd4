//! Sizes of flags: `512MB`, with units of powers of 1,024 as in Prometheus.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// From small to large; each is 1,024 times the one before.
const UNITS: [&str; 7] = ["B", "KB", "MB", "GB", "TB", "PB", "EB"];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.replace("iB", "B");
        let power = UNITS.iter().position(|known| *known == unit);
        let number: Option<u64> = number.parse().ok();
        match (number, power) {
            (Some(0), _) if unit.is_empty() => Ok(ByteSize(0)),
            (Some(number), Some(power)) => number
                .checked_mul(1u64 << (10 * power))
                .map(ByteSize)
                .ok_or_else(|| format!("{text:?} is larger than any disk")),
            _ => {
                Err(format!("{text:?} is no size; write a whole number and a unit, for example 512MB or 2TB"))
            }
        }
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut number = self.0;
        let mut unit = 0;
        while number > 0 && number.is_multiple_of(1_024) && unit + 1 < UNITS.len() {
            number /= 1_024;
            unit += 1;
        }
        write!(f, "{number}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        #[track_caller]
        fn check(text: &str, bytes: u64, printed: &str) {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size, size.to_string().as_str()), (ByteSize(bytes), printed));
        }
        check("0", 0, "0B");
        check("1000B", 1_000, "1000B");
        check("512MB", 512 << 20, "512MB");
        check("2048MiB", 2 << 30, "2GB");
        for wrong in ["", "MB", "12", "1.5GB", "-1GB", "1XB", "99999999EB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
