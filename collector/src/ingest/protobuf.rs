//! A walk over protobuf bytes without copying: fields come out as slices of the message.

use crate::limits::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_PER_SERIES_MAX, SYMBOLS_PER_WRITE_MAX,
    WRITE_DECOMPRESSED_BYTES_MAX,
};

/// A message that is cut short or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("the message ends within a field")]
    Truncated,
    /// A number of more than 64 bits, or field number 0.
    #[error("a malformed number")]
    Number,
    /// A kind of field that the format does not have.
    #[error("unknown wire type {0}")]
    WireType(u8),
    /// A field of another kind than the protocol says.
    #[error("field {0} has another type than expected")]
    Type(u32),
    /// A number that should name a text of the message's table.
    #[error("reference {0} is outside the table of symbols")]
    Reference(u64),
    /// An odd number of references to label names and values.
    #[error("a label name without a value")]
    Unpaired,
    /// A series with more labels than are taken.
    #[error("a series with {0} labels; at most {LABELS_PER_SERIES_MAX} are taken")]
    TooManyLabels(usize),
    /// A label that is longer than is taken.
    #[error(
        "a label is too long; names have at most {LABEL_NAME_BYTES_MAX} bytes, values {LABEL_VALUE_BYTES_MAX}"
    )]
    LongLabel,
    /// A table with more texts than are taken.
    #[error("more than {SYMBOLS_PER_WRITE_MAX} symbols")]
    ManySymbols,
    /// Labels that name a few long texts again and again.
    #[error("the labels, written out, are larger than {WRITE_DECOMPRESSED_BYTES_MAX} bytes")]
    ManyLabelBytes,
    /// Text that is no UTF-8.
    #[error("field {0} is no UTF-8")]
    Text(u32),
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wire<'a> {
    /// An integer of any kind.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// Four bytes.
    Fixed32(u32),
}

/// A field and where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub value: Wire<'a>,
    /// First byte of its tag within the message.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

impl<'a> Field<'a> {
    /// The bytes of a text, bytes or message.
    ///
    /// # Errors
    /// If it is something else.
    pub fn bytes(&self) -> Result<&'a [u8], WireError> {
        match self.value {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// The text.
    ///
    /// # Errors
    /// If it is something else, or no UTF-8.
    pub fn text(&self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::Text(self.number))
    }

    /// The integer.
    ///
    /// # Errors
    /// If it is something else.
    pub fn varint(&self) -> Result<u64, WireError> {
        match self.value {
            Wire::Varint(value) => Ok(value),
            _ => Err(WireError::Type(self.number)),
        }
    }

    /// The floating-point number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn double(&self) -> Result<f64, WireError> {
        match self.value {
            Wire::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(WireError::Type(self.number)),
        }
    }
}

/// The integers of a packed field.
pub fn packed_numbers(packed: &[u8]) -> impl Iterator<Item = Result<u64, WireError>> {
    let mut rest = Fields::of(packed);
    std::iter::from_fn(move || {
        if rest.position >= rest.message.len() {
            return None;
        }
        let number = rest.number();
        if number.is_err() {
            rest.position = rest.message.len();
        }
        Some(number)
    })
}

/// Walks the fields of one message. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    position: usize,
}

impl<'a> Fields<'a> {
    /// From the message's first byte.
    pub fn of(message: &'a [u8]) -> Self {
        Fields { message, position: 0 }
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        let byte = self.message.get(self.position).copied().ok_or(WireError::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    fn number(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(WireError::Number);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::Number)
    }

    fn slice(&mut self, length: u64) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(length).map_err(|_| WireError::Truncated)?;
        let end = self.position.checked_add(length).ok_or(WireError::Truncated)?;
        let bytes = self.message.get(self.position..end).ok_or(WireError::Truncated)?;
        self.position = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        self.slice(N as u64)?.try_into().map_err(|_| WireError::Truncated)
    }

    #[inline]
    fn field(&mut self) -> Result<Field<'a>, WireError> {
        let start = self.position;
        let tag = self.number()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Number)?;
        if number == 0 {
            return Err(WireError::Number);
        }
        let value = match tag as u8 & 7 {
            0 => Wire::Varint(self.number()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.number()?;
                Wire::Bytes(self.slice(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(WireError::WireType(other)),
        };
        Ok(Field { number, value, start, end: self.position })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.position >= self.message.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.position = self.message.len();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_come_out_with_their_places() {
        let message = [0x08, 0x96, 0x01, 0x12, 0x02, b'h', b'i'];
        let fields: Vec<_> = Fields::of(&message).map(Result::unwrap).collect();
        assert_eq!(fields[0], Field { number: 1, value: Wire::Varint(150), start: 0, end: 3 });
        assert_eq!(fields[1].text(), Ok("hi"));
        assert_eq!(fields[1].varint(), Err(WireError::Type(2)));
    }

    #[test]
    fn damage_is_an_error() {
        let error = |bytes: &[u8]| Fields::of(bytes).find_map(Result::err);
        assert_eq!(error(&[0x12, 0x05, b'h']), Some(WireError::Truncated));
        assert_eq!(error(&[0x00]), Some(WireError::Number));
        assert_eq!(error(&[0x0b]), Some(WireError::WireType(3)));
        assert_eq!(
            error(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            Some(WireError::Number)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Fields::of(&bytes).count() <= bytes.len());
        }
    }
}
