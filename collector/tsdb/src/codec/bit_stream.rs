//! Bits of any number one after the other, lowest first: what entropy codes are written in.

/// Most bits that [`BitWriter::put`] and [`BitReader::take`] move at once.
pub(crate) const BITS_AT_ONCE_MAX: u32 = 56;

/// Appends bits; [`BitWriter::finish`] fills the last byte with zeros.
#[derive(Debug)]
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    /// Bits that make no whole byte yet: always fewer than eight.
    buffer: u64,
    filled: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        BitWriter { out, buffer: 0, filled: 0 }
    }

    /// Appends the lowest `width` bits of `bits` (at most [`BITS_AT_ONCE_MAX`]); those above are zero.
    #[inline]
    pub(crate) fn put(&mut self, bits: u64, width: u32) {
        debug_assert!(width <= BITS_AT_ONCE_MAX && bits >> width == 0);
        self.buffer |= bits << self.filled;
        self.filled += width;
        let whole = (self.filled / 8) as usize;
        self.out.extend_from_slice(self.buffer.to_le_bytes().get(..whole).unwrap_or_default());
        self.buffer = self.buffer.checked_shr(whole as u32 * 8).unwrap_or(0);
        self.filled %= 8;
    }

    /// Appends the lowest `width` bits, which may be all 64.
    pub(crate) fn put_wide(&mut self, bits: u64, width: u32) {
        let low = width.min(32);
        self.put(bits & ((1 << low) - 1), low);
        self.put(bits >> 32 & ((1 << (width - low)) - 1), width - low);
    }

    pub(crate) fn finish(self) {
        if self.filled > 0 {
            self.out.push(self.buffer as u8);
        }
    }
}

/// Reads what a [`BitWriter`] wrote; zeros behind the end, which [`BitReader::is_past_end`] tells.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        BitReader { bytes, position: 0 }
    }

    /// At least the next [`BITS_AT_ONCE_MAX`] bits, in the lowest places.
    #[inline]
    pub(crate) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.position / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(word) => u64::from_le_bytes(*word),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        word >> (self.position % 8)
    }

    #[inline]
    pub(crate) fn skip(&mut self, width: u32) {
        self.position += width as usize;
    }

    /// The next `width` bits, at most [`BITS_AT_ONCE_MAX`].
    #[inline]
    pub(crate) fn take(&mut self, width: u32) -> u64 {
        let bits = self.peek() & ((1 << width) - 1);
        self.skip(width);
        bits
    }

    /// The next `width` bits, which may be all 64.
    pub(crate) fn take_wide(&mut self, width: u32) -> u64 {
        let low = width.min(32);
        self.take(low) | self.take(width.saturating_sub(low).min(32)) << 32
    }

    /// Whether more was read than there is.
    pub(crate) fn is_past_end(&self) -> bool {
        self.position > self.bytes.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_back_in_order(numbers in prop::collection::vec((any::<u64>(), 0u32..=64), 0..60)) {
            let cut = |number: u64, width: u32| number & 1u64.checked_shl(width).map_or(u64::MAX, |bit| bit - 1);
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            for &(number, width) in &numbers {
                writer.put_wide(cut(number, width), width);
            }
            writer.finish();
            let bits: u32 = numbers.iter().map(|(_, width)| width).sum();
            prop_assert_eq!(bytes.len(), bits.div_ceil(8) as usize);
            let mut reader = BitReader::new(&bytes);
            for &(number, width) in &numbers {
                prop_assert_eq!(reader.take_wide(width), cut(number, width));
            }
            prop_assert!(!reader.is_past_end());
            reader.skip(8);
            prop_assert!(reader.is_past_end());
        }
    }
}
