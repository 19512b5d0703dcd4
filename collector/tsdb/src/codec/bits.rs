//! Numbers of one width, packed without gaps, lowest bit first.

/// Numbers so wide lie within eight bytes, wherever they begin.
const WORD_BITS_MAX: u32 = 57;

/// Bytes that `count` numbers of `width` bits take.
pub(crate) fn packed_bytes(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// Bits that hold every one of the numbers whose bitwise "or" is `union`.
pub(crate) fn width_of(union: u64) -> u32 {
    64 - union.leading_zeros()
}

/// Appends numbers of at most `width` bits each.
pub(crate) fn pack(out: &mut Vec<u8>, width: u32, numbers: impl Iterator<Item = u64>) {
    if width == 0 {
        return;
    }
    let mut buffer = 0u128;
    let mut filled = 0;
    for number in numbers {
        buffer |= u128::from(number) << filled;
        filled += width;
        while filled >= 64 {
            out.extend_from_slice(&(buffer as u64).to_le_bytes());
            buffer >>= 64;
            filled -= 64;
        }
    }
    let bytes = (filled as usize).div_ceil(8);
    out.extend_from_slice(&(buffer as u64).to_le_bytes()[..bytes]);
}

/// Hands `count` numbers of `width` bits (at most 64) to `each`. `None` if `bytes` is too short.
pub(crate) fn unpack(bytes: &[u8], width: u32, count: usize, mut each: impl FnMut(u64)) -> Option<()> {
    if width == 0 {
        (0..count).for_each(|_| each(0));
        return Some(());
    }
    if width > 64 || bytes.len() < packed_bytes(count, width) {
        return None;
    }
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    if width > WORD_BITS_MAX {
        return unpack_wide(bytes, width, count, mask, each);
    }
    let width = width as usize;
    let within = within_words(bytes, width, count);
    (0..within).for_each(|at| each(number(bytes, at * width, mask)));
    let (end, start) = end_of(bytes, within * width / 8);
    (within..count).for_each(|at| each(number(&end, at * width - start * 8, mask)));
    Some(())
}

/// Appends what `of` makes of each of `count` numbers of `width` bits (at most 64). `None` if `bytes` is too short.
#[inline]
pub(crate) fn unpack_into<T>(
    bytes: &[u8],
    width: u32,
    count: usize,
    out: &mut Vec<T>,
    mut of: impl FnMut(u64) -> T,
) -> Option<()> {
    if width == 0 {
        out.extend((0..count).map(|_| of(0)));
        return Some(());
    }
    if width > WORD_BITS_MAX {
        out.reserve(count);
        return unpack(bytes, width, count, |number| out.push(of(number)));
    }
    if bytes.len() < packed_bytes(count, width) {
        return None;
    }
    let (mask, width) = ((1 << width) - 1, width as usize);
    let within = within_words(bytes, width, count);
    out.extend((0..within).map(|at| of(number(bytes, at * width, mask))));
    let (end, start) = end_of(bytes, within * width / 8);
    out.extend((within..count).map(|at| of(number(&end, at * width - start * 8, mask))));
    Some(())
}

/// Numbers of so many bits that lie in eight bytes of all from their first byte on.
#[inline]
fn within_words(bytes: &[u8], width: usize, count: usize) -> usize {
    (bytes.len() * 8).checked_sub(64).map_or(0, |last| (last + 7) / width + 1).min(count)
}

#[inline]
fn number(bytes: &[u8], bit: usize, mask: u64) -> u64 {
    let word = bytes.get(bit / 8..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default();
    u64::from_le_bytes(word) >> (bit % 8) & mask
}

/// What follows the numbers that lie within words, with zeros behind it; and where it starts.
#[inline]
fn end_of(bytes: &[u8], start: usize) -> ([u8; 16], usize) {
    let start = start.min(bytes.len());
    let rest = &bytes[start..bytes.len().min(start + 8)];
    let mut end = [0; 16];
    end[..rest.len()].copy_from_slice(rest);
    (end, start)
}

/// The same for numbers that may reach over nine bytes.
fn unpack_wide(bytes: &[u8], width: u32, count: usize, mask: u64, mut each: impl FnMut(u64)) -> Option<()> {
    let mut buffer = 0u128;
    let mut filled = 0;
    let mut words = bytes.chunks(8);
    for _ in 0..count {
        if filled < width {
            let chunk = words.next()?;
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            buffer |= u128::from(u64::from_le_bytes(word)) << filled;
            filled += 64;
        }
        each(buffer as u64 & mask);
        buffer >>= width;
        filled -= width;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_unpacks(width in 0u32..=64, numbers in prop::collection::vec(any::<u64>(), 0..200)) {
            let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
            let numbers: Vec<u64> = numbers.into_iter().map(|number| number & mask).collect();
            let mut bytes = Vec::new();
            pack(&mut bytes, width, numbers.iter().copied());
            prop_assert_eq!(bytes.len(), packed_bytes(numbers.len(), width));
            let mut back = Vec::new();
            unpack(&bytes, width, numbers.len(), |number| back.push(number)).unwrap();
            prop_assert_eq!(&back, &numbers);
            let mut into = vec![7];
            unpack_into(&bytes, width, numbers.len(), &mut into, |number| number).unwrap();
            prop_assert_eq!(&into[1..], &numbers[..]);
            if !bytes.is_empty() {
                prop_assert!(unpack(&bytes[..bytes.len() - 1], width, numbers.len(), |_| ()).is_none());
                let bytes = &bytes[..bytes.len() - 1];
                prop_assert!(unpack_into(bytes, width, numbers.len(), &mut into, |_| 0).is_none());
            }
        }
    }
}
