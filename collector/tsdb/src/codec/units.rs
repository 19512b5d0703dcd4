//! Units in which values are whole numbers: pages of memory and KiB, ones, decimals as sensors and clocks
//! have them.
//!
//! Values of one series keep to one unit, so their differences are small whole numbers where the bits of the
//! doubles would look random.

use super::{INTEGER_MAX, from_scaled, to_scaled};

/// What a value is multiplied by: from units of 4,096 and 1,024 to nanoseconds. Their numbers are in files.
pub(crate) const UNITS: [f64; 10] = [1.0 / 4096.0, 1.0 / 1024.0, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e9];

/// The coarsest unit from number `from` on in which the value is a whole number.
pub(crate) fn unit_of(value: f64, from: usize) -> Option<(usize, i64)> {
    let candidates = UNITS.iter().enumerate().skip(from);
    candidates.filter_map(|(unit, &scale)| Some((unit, to_scaled(value, scale)?))).next()
}

/// The value of a whole number in a unit; `None` if there are no such unit and no such number.
#[inline]
pub(crate) fn value_of(unit: usize, integer: i64) -> Option<f64> {
    let in_range = integer.unsigned_abs() <= INTEGER_MAX as u64;
    UNITS.get(unit).filter(|_| in_range).map(|&scale| from_scaled(integer, scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_its_coarsest_unit() {
        #[track_caller]
        fn check(value: f64, want: Option<(usize, i64)>) {
            assert_eq!(unit_of(value, 0), want);
            if let Some((unit, integer)) = want {
                assert_eq!(value_of(unit, integer).map(f64::to_bits), Some(value.to_bits()));
            }
        }
        check(0.0, Some((0, 0)));
        check(-0.0, None);
        check(8192.0, Some((0, 2)));
        check(3072.0, Some((1, 3)));
        check(7.0, Some((2, 7)));
        check(-1234.56, Some((4, -123_456)));
        check(0.000_001, Some((8, 1)));
        check(12_345.678_901_234, Some((9, 12_345_678_901_234)));
        check(f64::NAN, None);
        check(0.1 + 0.2, None);
        check(1e300, None);
    }
}
