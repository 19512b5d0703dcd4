//! Small files that are written whole: magic, version, contents, checksum.
//!
//! ```text
//! magic 7 | version u8 | contents | CRC-32 of what comes before, u32 little-endian
//! ```

use crate::codec::varint::Cursor;

/// A kind of such files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framed {
    pub(crate) magic: [u8; 7],
    /// The version that is written; all from 1 on are read.
    pub(crate) version: u8,
}

impl Framed {
    /// The file's bytes, with what `contents` appends.
    pub(crate) fn encode(self, contents: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.push(self.version);
        contents(&mut out);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Reads the contents back, told the version; `None` if the file is damaged, of another kind or a version that
    /// is not known, or if `contents` says so or leaves something.
    pub(crate) fn decode<T>(
        self,
        bytes: &[u8],
        contents: impl FnOnce(u8, &mut Cursor<'_>) -> Option<T>,
    ) -> Option<T> {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body).to_le_bytes() != *checksum {
            return None;
        }
        let mut cursor = Cursor::new(body);
        if cursor.array()? != self.magic {
            return None;
        }
        let version = cursor.byte().filter(|version| (1..=self.version).contains(version))?;
        let read = contents(version, &mut cursor)?;
        cursor.is_empty().then_some(read)
    }
}

/// A text with its length before it.
pub(crate) fn text<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    std::str::from_utf8(cursor.bytes()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Framed = Framed { magic: *b"PHFRAME", version: 2 };

    #[test]
    fn contents_come_back_and_any_damage_is_noticed() {
        let bytes = FILE.encode(|out| out.extend_from_slice(b"contents"));
        let read =
            |bytes: &[u8]| FILE.decode(bytes, |version, cursor| Some((version, cursor.take(8)?.to_vec())));
        assert_eq!(read(&bytes), Some((2, b"contents".to_vec())));
        assert_eq!(FILE.decode(&bytes, |_, cursor| cursor.take(7).map(drop)), None, "something is left");
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(read(&damaged), None);
            assert_eq!(read(&bytes[..at]), None);
        }
    }

    #[test]
    fn versions_before_are_read_and_later_ones_are_not() {
        let of = |version| Framed { version, ..FILE }.encode(|_| ());
        let read = |version| FILE.decode(&of(version), |version, _| Some(version));
        assert_eq!([0, 1, 2, 3].map(read), [None, Some(1), Some(2), None]);
    }
}
