//! The cheap codec of pages in memory: a few hundred rows of one column, encoded and decoded at a few
//! nanoseconds a value.
//!
//! ```text
//! column   form u8, then
//!   0 constant   bits of the value, u64
//!   1…3 scaled   whole numbers of 1, 1/100, 1/1000: first (zigzag varint), least difference (zigzag
//!                varint), width u8, differences less the least, packed
//!   4 xor        first bits u64, trailing zero bits u8, width u8, xor with the predecessor, packed
//! ```

use super::bits::{pack, packed_bytes, unpack, width_of};
use super::varint::{self, Cursor};
use super::{SCALES, from_scaled, to_scaled, zigzag};

const CONSTANT: u8 = 0;
const XOR: u8 = 4;

/// Appends the values of a column.
pub(crate) fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    let Some((&first, rest)) = values.split_first() else { return };
    if rest.iter().all(|value| value.to_bits() == first.to_bits()) {
        out.push(CONSTANT);
        out.extend_from_slice(&first.to_bits().to_le_bytes());
        return;
    }
    let mut on_stack = [0; VALUES_ON_STACK];
    let mut on_heap = Vec::new();
    let integers = if values.len() <= VALUES_ON_STACK {
        &mut on_stack[..values.len()]
    } else {
        on_heap.resize(values.len(), 0);
        &mut on_heap[..]
    };
    match SCALES.iter().position(|&scale| scale_all(values, scale, integers)) {
        Some(index) => {
            out.push(1 + index as u8);
            encode_integers(integers, out);
        }
        None => encode_xor(values, out),
    }
}

/// Values that are scaled without allocating: more than a page of the head has.
const VALUES_ON_STACK: usize = 128;

/// Writes the values as whole numbers of `1/scale`; `false` if one of them is none.
#[inline]
fn scale_all(values: &[f64], scale: f64, integers: &mut [i64]) -> bool {
    values.iter().zip(integers).all(|(&value, integer)| match to_scaled(value, scale) {
        Some(scaled) => {
            *integer = scaled;
            true
        }
        None => false,
    })
}

/// Reads the `count` values of a column and appends them.
pub(crate) fn decode_values(cursor: &mut Cursor<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    match cursor.byte()? {
        CONSTANT => {
            let value = f64::from_bits(cursor.u64()?);
            out.extend(std::iter::repeat_n(value, count));
            Some(())
        }
        form @ 1..=3 => {
            let scale = SCALES[usize::from(form - 1)];
            decode_integers(cursor, count, |integer| out.push(from_scaled(integer, scale)))
        }
        XOR => decode_xor(cursor, count, out),
        _ => None,
    }
}

/// Appends timestamps (or any integers that rise evenly).
pub(crate) fn encode_timestamps(timestamps: &[i64], out: &mut Vec<u8>) {
    if !timestamps.is_empty() {
        encode_integers(timestamps, out);
    }
}

/// Reads `count` timestamps and appends them.
pub(crate) fn decode_timestamps(cursor: &mut Cursor<'_>, count: usize, out: &mut Vec<i64>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    decode_integers(cursor, count, |timestamp| out.push(timestamp))
}

/// Appends integers, at least one.
fn encode_integers(integers: &[i64], out: &mut Vec<u8>) {
    let differences = || integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let least = differences().min().unwrap_or(0);
    let union = differences().fold(0, |union, difference| union | difference.wrapping_sub(least) as u64);
    let width = width_of(union);
    varint::push(out, zigzag(integers.first().copied().unwrap_or(0)));
    varint::push(out, zigzag(least));
    out.push(width as u8);
    pack(out, width, differences().map(|difference| difference.wrapping_sub(least) as u64));
}

fn decode_integers(cursor: &mut Cursor<'_>, count: usize, mut each: impl FnMut(i64)) -> Option<()> {
    let mut value = cursor.signed()?;
    let least = cursor.signed()?;
    let width = u32::from(cursor.byte()?);
    if width > 64 {
        return None;
    }
    let packed = cursor.take(packed_bytes(count - 1, width))?;
    each(value);
    unpack(packed, width, count - 1, |excess| {
        value = value.wrapping_add(least).wrapping_add(excess as i64);
        each(value);
    })
}

fn encode_xor(values: &[f64], out: &mut Vec<u8>) {
    let bits = |index: usize| values[index].to_bits();
    let union = (1..values.len()).fold(0, |union, index| union | (bits(index) ^ bits(index - 1)));
    let trailing = union.trailing_zeros().min(63);
    let width = width_of(union >> trailing);
    out.push(XOR);
    out.extend_from_slice(&bits(0).to_le_bytes());
    out.push(trailing as u8);
    out.push(width as u8);
    pack(out, width, (1..values.len()).map(|index| (bits(index) ^ bits(index - 1)) >> trailing));
}

fn decode_xor(cursor: &mut Cursor<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    let mut bits = cursor.u64()?;
    let trailing = cursor.byte()?;
    let width = u32::from(cursor.byte()?);
    if trailing > 63 || width > 64 {
        return None;
    }
    let packed = cursor.take(packed_bytes(count - 1, width))?;
    out.push(f64::from_bits(bits));
    unpack(packed, width, count - 1, |xor| {
        bits ^= xor << trailing;
        out.push(f64::from_bits(bits));
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::dense::tests::columns;
    use proptest::prelude::*;

    #[track_caller]
    fn round_trip(values: &[f64]) -> usize {
        let mut bytes = Vec::new();
        encode_values(values, &mut bytes);
        let mut back = Vec::new();
        let mut cursor = Cursor::new(&bytes);
        decode_values(&mut cursor, values.len(), &mut back).unwrap();
        assert!(cursor.is_empty());
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
        bytes.len()
    }

    #[test]
    fn telemetry_takes_little() {
        let constant = [4.5; 120];
        assert_eq!(round_trip(&constant), 9);
        let steady: Vec<f64> = (0..120).map(|second| f64::from(second) * 100.0).collect();
        assert!(round_trip(&steady) < 8);
        let cpu: Vec<f64> = (0..120).map(|second| (123_456 + second * 97) as f64 / 100.0).collect();
        assert!(round_trip(&cpu) < 12);
    }

    proptest! {
        #[test]
        fn any_column_round_trips(values in columns(130)) {
            round_trip(&values);
        }

        #[test]
        fn any_timestamps_round_trip(timestamps in prop::collection::vec(any::<i64>(), 0..130)) {
            let mut bytes = Vec::new();
            encode_timestamps(&timestamps, &mut bytes);
            let mut back = Vec::new();
            decode_timestamps(&mut Cursor::new(&bytes), timestamps.len(), &mut back).unwrap();
            prop_assert_eq!(back, timestamps);
        }

        #[test]
        fn every_truncation_is_an_error(values in columns(20), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode_values(&values, &mut bytes);
            if !bytes.is_empty() {
                let length = cut.index(bytes.len());
                let outcome = decode_values(&mut Cursor::new(&bytes[..length]), values.len(), &mut Vec::new());
                prop_assert!(outcome.is_none());
            }
        }

        #[test]
        fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..60), count in 0usize..40) {
            let _ = decode_values(&mut Cursor::new(&bytes), count, &mut Vec::new());
        }
    }
}
