//! Bits, the highest of each byte first, and the numbers of few bits that Prometheus' chunks are made of.
//! Source: tsdb/chunkenc/{bstream,varbit}.go of Prometheus describe the format.

/// Bytes that are filled bit by bit.
#[derive(Debug, Default)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are free.
    free: u32,
}

impl Bits {
    /// Behind bytes that are written already.
    pub(super) fn after(bytes: Vec<u8>) -> Self {
        Bits { bytes, free: 0 }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The lowest `count` bits of `value`.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            let part = (value >> (left - now)) & ((1 << now) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part << (self.free - now)) as u8;
            }
            self.free -= now;
            left -= now;
        }
    }

    pub(super) fn put_bit(&mut self, bit: bool) {
        self.put(u64::from(bit), 1);
    }

    pub(super) fn put_float(&mut self, value: f64) {
        self.put(value.to_bits(), 64);
    }

    /// A number of seven bits a byte, the lowest first.
    pub(super) fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put((value & 0x7f) | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }

    /// The same for numbers below zero, too.
    pub(super) fn put_varint(&mut self, value: i64) {
        self.put_uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// A small number in few bits.
    pub(super) fn put_varbit_int(&mut self, value: i64) {
        let fits = |bits: u32| -((1 << (bits - 1)) - 1) <= value && value <= 1 << (bits - 1);
        self.put_sized(value as u64, value == 0, fits);
    }

    /// The same for numbers that are never below zero.
    pub(super) fn put_varbit_uint(&mut self, value: u64) {
        self.put_sized(value, value == 0, |bits| value < 1 << bits);
    }

    fn put_sized(&mut self, value: u64, is_zero: bool, fits: impl Fn(u32) -> bool) {
        const SIZES: [u32; 7] = [3, 6, 9, 12, 18, 25, 56];
        if is_zero {
            return self.put_bit(false);
        }
        match SIZES.iter().position(|&bits| fits(bits)) {
            // As many ones as the size's number, from one on, and a zero.
            Some(number) => {
                let ones = number as u32 + 1;
                self.put(((1 << ones) - 1) << 1, ones + 1);
                self.put(value, SIZES[number]);
            }
            None => {
                self.put(0xff, 8);
                self.put(value, 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_top() {
        let mut bits = Bits::default();
        bits.put_bit(true);
        bits.put(0b0110, 4);
        bits.put(0xabc, 12);
        assert_eq!(bits.into_bytes(), [0b1011_0101, 0b0101_1110, 0]);
    }

    #[test]
    fn numbers_are_as_long_as_they_need() {
        #[track_caller]
        fn check(put: impl FnOnce(&mut Bits), want: &[u8]) {
            let mut bits = Bits::default();
            put(&mut bits);
            assert_eq!(bits.into_bytes(), want);
        }
        check(|bits| bits.put_uvarint(300), &[0xac, 0x02]);
        check(|bits| bits.put_varint(-1), &[0x01]);
        check(|bits| bits.put_varbit_int(0), &[0]);
        check(|bits| bits.put_varbit_int(1), &[0b1000_1000]);
        check(|bits| bits.put_varbit_int(-3), &[0b1010_1000]);
        check(|bits| bits.put_varbit_int(4), &[0b1010_0000]);
        check(|bits| bits.put_varbit_int(-4), &[0b1101_1110, 0]);
        check(|bits| bits.put_varbit_uint(7), &[0b1011_1000]);
        check(|bits| bits.put_varbit_uint(8), &[0b1100_0100, 0]);
        check(|bits| bits.put_varbit_int(i64::MIN), &[0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    }
}
