//! The cheap codec of pages in memory: a few hundred rows of one column, encoded and decoded at a few
//! nanoseconds a value.
//!
//! ```text
//! column   form u8, then
//!   0      constant   bits of the value, u64
//!   1…3    as 0x12, 0x14, 0x15: not written any more
//!   4      xor        first bits u64, trailing zero bits u8, width u8, xor with the predecessor, packed
//!   0x1U   steps      first (zigzag varint), then the steps from value to value as numbers
//!   0x2U   levels     the values as numbers
//!   0x3U   plateaus   first (zigzag varint), bitmap of the steps that are not 0, these steps as numbers if
//!                     there are any
//!   0x4U   constant   the value (zigzag varint)
//! numbers  the least (zigzag varint), width u8, what each is above the least, packed
//! ```
//!
//! `U` is a unit of `codec/units.rs`, in which the values are whole numbers. The shortest form is chosen.

use super::bits::{pack, packed_bytes, unpack, unpack_into, width_of};
use super::units::{UNITS, unit_of};
use super::varint::{self, Cursor};
use super::{SCALES, from_scaled, to_scaled, zigzag};

const CONSTANT: u8 = 0;
const XOR: u8 = 4;
const STEPS: u8 = 0x10;
const LEVELS: u8 = 0x20;
const PLATEAUS: u8 = 0x30;
const SHORT_CONSTANT: u8 = 0x40;
const UNIT_MASK: u8 = 0x0f;

/// Appends the values of a column.
pub(crate) fn encode_values(values: &[f64], out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    if values.iter().all(|value| value.to_bits() == first.to_bits()) {
        return encode_constant(first, out);
    }
    let mut on_stack = [0; VALUES_ON_STACK];
    let mut on_heap = Vec::new();
    let integers = if values.len() <= VALUES_ON_STACK {
        &mut on_stack[..values.len()]
    } else {
        on_heap.resize(values.len(), 0);
        &mut on_heap[..]
    };
    match scale_all(values, integers) {
        Some(unit) => encode_scaled(unit as u8, integers, out),
        None => encode_xor(values, out),
    }
}

/// Values that are scaled without allocating: more than a page of the head has.
const VALUES_ON_STACK: usize = 128;

/// Writes the values as whole numbers of the coarsest unit there is for all, and tells which; `None` if there
/// is none.
#[inline]
fn scale_all(values: &[f64], integers: &mut [i64]) -> Option<usize> {
    let mut unit = 0;
    loop {
        let scale = *UNITS.get(unit)?;
        let mut pairs = values.iter().zip(&mut *integers);
        let misfit = pairs.find_map(|(&value, integer)| match to_scaled(value, scale) {
            Some(scaled) => {
                *integer = scaled;
                None
            }
            None => Some(value),
        });
        match misfit {
            None => return Some(unit),
            Some(value) => unit = unit_of(value, unit + 1)?.0,
        }
    }
}

fn encode_constant(value: f64, out: &mut Vec<u8>) {
    match unit_of(value, 0) {
        Some((unit, integer)) => {
            out.push(SHORT_CONSTANT | unit as u8);
            varint::push(out, zigzag(integer));
        }
        None => {
            out.push(CONSTANT);
            out.extend_from_slice(&value.to_bits().to_le_bytes());
        }
    }
}

/// Numbers as they are packed: how many, the least, and the bits of each above it.
#[derive(Clone, Copy)]
struct Packing {
    count: usize,
    least: i64,
    width: u32,
}

impl Packing {
    #[inline]
    fn of(numbers: impl Iterator<Item = i64> + Clone) -> Packing {
        let least = numbers.clone().min().unwrap_or(0);
        let (count, union) = numbers
            .fold((0, 0), |(count, union), number| (count + 1, union | number.wrapping_sub(least) as u64));
        Packing { count, least, width: width_of(union) }
    }

    fn bytes(&self) -> usize {
        varint::length(zigzag(self.least)) + 1 + packed_bytes(self.count, self.width)
    }

    #[inline]
    fn write(&self, numbers: impl Iterator<Item = i64>, out: &mut Vec<u8>) {
        varint::push(out, zigzag(self.least));
        out.push(self.width as u8);
        pack(out, self.width, numbers.map(|number| number.wrapping_sub(self.least) as u64));
    }
}

/// Appends whole numbers of a unit, which are not all the same.
fn encode_scaled(unit: u8, integers: &[i64], out: &mut Vec<u8>) {
    let all_steps = integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    let moves = all_steps.clone().filter(|&step| step != 0);
    let first = zigzag(integers.first().copied().unwrap_or(0));
    let (levels, steps) = (Packing::of(integers.iter().copied()), Packing::of(all_steps.clone()));
    let plateaus = Packing::of(moves.clone());
    let bitmap_bytes = packed_bytes(integers.len() - 1, 1);
    let steps_bytes = varint::length(first) + steps.bytes();
    let plateaus_bytes = varint::length(first) + bitmap_bytes + plateaus.bytes();
    if levels.bytes() <= steps_bytes && levels.bytes() <= plateaus_bytes {
        out.push(LEVELS | unit);
        levels.write(integers.iter().copied(), out);
    } else if steps_bytes <= plateaus_bytes {
        out.push(STEPS | unit);
        varint::push(out, first);
        steps.write(all_steps, out);
    } else {
        out.push(PLATEAUS | unit);
        varint::push(out, first);
        pack(out, 1, all_steps.map(|step| u64::from(step != 0)));
        plateaus.write(moves, out);
    }
}

/// Reads the `count` values of a column and appends them.
pub(crate) fn decode_values(cursor: &mut Cursor<'_>, count: usize, out: &mut Vec<f64>) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    out.reserve(count);
    match cursor.byte()? {
        CONSTANT => {
            let value = f64::from_bits(cursor.u64()?);
            out.extend(std::iter::repeat_n(value, count));
            Some(())
        }
        form @ 1..=3 => {
            let scale = SCALES[usize::from(form - 1)];
            decode_integers(cursor, count, out, |integer| from_scaled(integer, scale))
        }
        XOR => decode_xor(cursor, count, out),
        form => {
            let scale = *UNITS.get(usize::from(form & UNIT_MASK))?;
            let of = |integer| from_scaled(integer, scale);
            match form & !UNIT_MASK {
                STEPS => decode_integers(cursor, count, out, of),
                LEVELS => decode_numbers(cursor, count, out, of),
                PLATEAUS => decode_plateaus(cursor, count, |integer| out.push(of(integer))),
                SHORT_CONSTANT => {
                    let value = from_scaled(cursor.signed()?, scale);
                    out.extend(std::iter::repeat_n(value, count));
                    Some(())
                }
                _ => None,
            }
        }
    }
}

fn decode_plateaus(cursor: &mut Cursor<'_>, count: usize, mut each: impl FnMut(i64)) -> Option<()> {
    let mut value = cursor.signed()?;
    let bitmap = cursor.take(packed_bytes(count - 1, 1))?;
    let moves: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    let packed = Packed::read(cursor, moves)?;
    let mut on_stack = [0; VALUES_ON_STACK];
    let mut on_heap = Vec::new();
    let steps = if moves <= VALUES_ON_STACK {
        &mut on_stack[..moves]
    } else {
        on_heap.resize(moves, 0);
        &mut on_heap[..]
    };
    let mut places = steps.iter_mut();
    unpack(packed.bytes, packed.width, moves, |excess| {
        if let Some(place) = places.next() {
            *place = packed.least.wrapping_add(excess as i64);
        }
    })?;
    let mut steps = steps.iter();
    each(value);
    unpack(bitmap, 1, count - 1, |moves| {
        if moves == 1 {
            value = value.wrapping_add(steps.next().copied().unwrap_or(0));
        }
        each(value);
    })
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
    decode_integers(cursor, count, out, |timestamp| timestamp)
}

/// The first of `count` timestamps and the distance from each to the next; `None` if they are not even, or
/// malformed.
pub(crate) fn even_timestamps(cursor: &mut Cursor<'_>, count: usize) -> Option<(i64, i64)> {
    let first = cursor.signed()?;
    let packed = Packed::read(cursor, count.checked_sub(1)?)?;
    (packed.width == 0).then_some((first, packed.least))
}

/// Appends integers, at least one.
fn encode_integers(integers: &[i64], out: &mut Vec<u8>) {
    let steps = integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    varint::push(out, zigzag(integers.first().copied().unwrap_or(0)));
    Packing::of(steps.clone()).write(steps, out);
}

fn decode_integers<T>(
    cursor: &mut Cursor<'_>,
    count: usize,
    out: &mut Vec<T>,
    mut of: impl FnMut(i64) -> T,
) -> Option<()> {
    let mut value = cursor.signed()?;
    out.push(of(value));
    let steps = count - 1;
    let packed = Packed::read(cursor, steps)?;
    if packed.width == 0 {
        // As most columns of times and counts are.
        let step = packed.least;
        out.extend((1..=steps as i64).map(|row| of(value.wrapping_add(step.wrapping_mul(row)))));
        return Some(());
    }
    unpack_into(packed.bytes, packed.width, steps, out, |excess| {
        value = value.wrapping_add(packed.least.wrapping_add(excess as i64));
        of(value)
    })
}

fn decode_numbers<T>(
    cursor: &mut Cursor<'_>,
    count: usize,
    out: &mut Vec<T>,
    mut of: impl FnMut(i64) -> T,
) -> Option<()> {
    let packed = Packed::read(cursor, count)?;
    let least = packed.least;
    unpack_into(packed.bytes, packed.width, count, out, |excess| of(least.wrapping_add(excess as i64)))
}

/// Numbers as they lie there.
struct Packed<'a> {
    least: i64,
    width: u32,
    bytes: &'a [u8],
}

impl<'a> Packed<'a> {
    #[inline]
    fn read(cursor: &mut Cursor<'a>, count: usize) -> Option<Packed<'a>> {
        let least = cursor.signed()?;
        let width = u32::from(cursor.byte()?);
        if width > 64 {
            return None;
        }
        Some(Packed { least, width, bytes: cursor.take(packed_bytes(count, width))? })
    }
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
        assert_eq!(round_trip(&constant), 2);
        assert_eq!(round_trip(&[0.1 + 0.2; 120]), 9);
        let steady: Vec<f64> = (0..120).map(|second| f64::from(second) * 100.0).collect();
        assert!(round_trip(&steady) < 8);
        let cpu: Vec<f64> = (0..120).map(|second| (123_456 + second * 97) as f64 / 100.0).collect();
        assert!(round_trip(&cpu) < 12);
        let flag: Vec<f64> = (0..120).map(|second| f64::from(second / 50) * 71_000.0).collect();
        assert!(round_trip(&flag) < 24);
        let noise: Vec<f64> = (0..120).map(|second| f64::from(second * 7_919 % 64) / 1e6).collect();
        assert!(round_trip(&noise) < 95);
        let memory: Vec<f64> = (0..120).map(|second| f64::from(second * 31 % 8) * 4096.0).collect();
        assert!(round_trip(&memory) < 50);
    }

    #[test]
    fn forms_of_former_versions_are_read() {
        #[track_caller]
        fn check(form: u8, want: [f64; 3]) {
            // First 300, steps of at least 2 and 1 bit more: 2, then 3.
            let bytes = [form, 0xd8, 0x04, 4, 1, 0b10];
            let mut back = Vec::new();
            decode_values(&mut Cursor::new(&bytes), 3, &mut back).unwrap();
            assert_eq!(back, want);
        }
        check(1, [300.0, 302.0, 305.0]);
        check(2, [3.0, 3.02, 3.05]);
        check(3, [0.3, 0.302, 0.305]);
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
