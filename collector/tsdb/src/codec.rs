//! Encodings of numbers: [`varint`], [`bits`] and [`bit_stream`] are the grains, [`short`] is the cheap codec of
//! pages in memory, [`dense`] the `pco` codec of blocks, [`page`] what it decodes to, [`row_model`] the journal's
//! form of rows, [`row`] the one before it.
//!
//! All promise the same three things, which tests prove: what went in comes out bit for bit, every
//! truncation is an error, and nothing that a reader is fed makes it panic.

pub(crate) mod bit_stream;
pub(crate) mod bits;
pub(crate) mod dense;
pub(crate) mod page;
pub(crate) mod row;
pub(crate) mod row_model;
pub(crate) mod short;
pub(crate) mod units;
pub(crate) mod varint;

/// Decimal scales of sensor values that blocks know: whole numbers, hundredths (CPU seconds, load), thousandths.
/// [`units`] has more.
pub(crate) const SCALES: [f64; 3] = [1.0, 100.0, 1000.0];

/// Largest magnitude of a scaled integer: every integer up to here is exact in a double, and so is a
/// difference of two.
pub(crate) const INTEGER_MAX: f64 = (1u64 << 51) as f64;

/// `value * scale` as an integer, if dividing it by `scale` again gives `value` bit for bit.
#[inline]
pub(crate) fn to_scaled(value: f64, scale: f64) -> Option<i64> {
    let scaled = (value * scale).round_ties_even();
    // A NaN is not within the range either.
    if !(-INTEGER_MAX..=INTEGER_MAX).contains(&scaled) {
        return None;
    }
    let integer = scaled as i64;
    (from_scaled(integer, scale).to_bits() == value.to_bits()).then_some(integer)
}

/// The double that [`to_scaled`] came from.
#[inline]
pub(crate) fn from_scaled(integer: i64, scale: f64) -> f64 {
    integer as f64 / scale
}

/// Maps small magnitudes of either sign to small unsigned numbers.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// Undoes [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
