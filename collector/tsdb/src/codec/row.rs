//! The journal's form of a row: which columns changed since the group's row before, and by how much.
//!
//! ```text
//! row      changed columns: bitmap, one bit a column, lowest first
//!          then for each changed column a varint n, whose two low bits tell
//!   0…2    n>>2 = zigzag difference in whole numbers of 1, 1/100, 1/1000
//!   3      n>>2 = significant bytes less 1 (3 bits), trailing zero bytes (3 bits); then those bytes of
//!          the xor with the value before
//! ```
//!
//! A group's first row in a segment is told against zeros, so that every segment stands alone.

use super::varint::{self, Cursor};
use super::{SCALES, from_scaled, to_scaled, unzigzag, zigzag};

const XOR: u64 = 3;

/// Differences must leave room for the two low bits of the varint.
const DIFFERENCE_MAX: u64 = 1 << 60;

/// Appends `row`, told against `previous`, which then becomes `row`.
pub(crate) fn encode(previous: &mut [f64], row: &[f64], out: &mut Vec<u8>) {
    let bitmap = out.len();
    out.resize(bitmap + row.len().div_ceil(8), 0);
    for (column, (previous, &value)) in previous.iter_mut().zip(row).enumerate() {
        if previous.to_bits() == value.to_bits() {
            continue;
        }
        out[bitmap + column / 8] |= 1 << (column % 8);
        encode_change(*previous, value, out);
        *previous = value;
    }
}

#[inline]
fn encode_change(previous: f64, value: f64, out: &mut Vec<u8>) {
    for (index, &scale) in SCALES.iter().enumerate() {
        if let (Some(before), Some(now)) = (to_scaled(previous, scale), to_scaled(value, scale)) {
            let difference = zigzag(now - before);
            if difference < DIFFERENCE_MAX {
                varint::push(out, difference << 2 | index as u64);
                return;
            }
        }
    }
    let xor = previous.to_bits() ^ value.to_bits();
    let trailing = xor.trailing_zeros() / 8;
    let significant = 8 - xor.leading_zeros() / 8 - trailing;
    varint::push(out, (u64::from(significant - 1) | u64::from(trailing) << 3) << 2 | XOR);
    out.extend_from_slice(&(xor >> (trailing * 8)).to_le_bytes()[..significant as usize]);
}

/// Reads a row told against `row`, and puts it there. On `None` the contents of `row` are undefined.
pub(crate) fn decode(cursor: &mut Cursor<'_>, row: &mut [f64]) -> Option<()> {
    let bitmap = cursor.take(row.len().div_ceil(8))?;
    for (byte, columns) in bitmap.iter().zip(row.chunks_mut(8)) {
        let mut changed = *byte;
        while changed != 0 {
            let column = changed.trailing_zeros() as usize;
            changed &= changed - 1;
            let value = columns.get_mut(column)?;
            *value = decode_change(*value, cursor)?;
        }
    }
    Some(())
}

/// Steps over a row of `width` columns, whatever it is told against.
pub(crate) fn skip(cursor: &mut Cursor<'_>, width: usize) -> Option<()> {
    let bitmap = cursor.take(width.div_ceil(8))?;
    let changed: u32 = bitmap.iter().map(|byte| byte.count_ones()).sum();
    for _ in 0..changed {
        let head = cursor.varint()?;
        if head & 3 == XOR {
            cursor.take((head >> 2 & 7) as usize + 1)?;
        }
    }
    Some(())
}

#[inline]
fn decode_change(previous: f64, cursor: &mut Cursor<'_>) -> Option<f64> {
    let head = cursor.varint()?;
    if head & 3 != XOR {
        let scale = SCALES[(head & 3) as usize];
        let before = to_scaled(previous, scale)?;
        return Some(from_scaled(before.checked_add(unzigzag(head >> 2))?, scale));
    }
    let significant = (head >> 2 & 7) as usize + 1;
    let trailing = (head >> 5 & 7) as usize;
    if significant + trailing > 8 {
        return None;
    }
    let mut xor = [0; 8];
    xor[trailing..trailing + significant].copy_from_slice(cursor.take(significant)?);
    Some(f64::from_bits(previous.to_bits() ^ u64::from_le_bytes(xor)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::ABSENT;
    use proptest::prelude::*;

    fn values() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            (-1000i32..1000).prop_map(f64::from),
            (-1000i32..1000).prop_map(|tick| f64::from(tick) / 100.0),
            Just(ABSENT),
            Just(0.0),
            Just(-0.0),
        ]
    }

    #[test]
    fn a_counter_of_hundredths_takes_two_bytes_a_tick() {
        let mut previous = [1234.56];
        let mut out = Vec::new();
        encode(&mut previous, &[1235.55], &mut out);
        assert_eq!(out.len(), 1 + 2);
    }

    proptest! {
        #[test]
        fn rows_round_trip(rows in (1usize..40).prop_flat_map(|width| {
            prop::collection::vec(prop::collection::vec(values(), width), 1..6)
        })) {
            let mut previous = vec![0.0; rows[0].len()];
            let mut bytes = Vec::new();
            for row in &rows {
                encode(&mut previous, row, &mut bytes);
            }
            let mut cursor = Cursor::new(&bytes);
            let mut back = vec![0.0; rows[0].len()];
            for row in &rows {
                decode(&mut cursor, &mut back).unwrap();
                for (value, want) in back.iter().zip(row) {
                    prop_assert_eq!(value.to_bits(), want.to_bits());
                }
            }
            prop_assert!(cursor.is_empty());
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60), width in 1usize..20) {
            let _ = decode(&mut Cursor::new(&bytes), &mut vec![0.0; width]);
        }
    }
}
