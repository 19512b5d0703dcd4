//! The manifest: which blocks there are, so that one that has vanished is noticed.
//!
//! It is written behind every change of the set, and before blocks are removed. A block that it does not name
//! was published just before a crash, and is served; one that it names and that is gone was taken away by
//! somebody else. The name stays, so that it is told at every start, until its time has passed retention.
//!
//! ```text
//! magic "PHBLIST" 01 | n, n x name | CRC-32 of what comes before, u32 little-endian
//! ```

use crate::codec::varint::{Cursor, push, push_bytes};

/// Name of the file in the storage folder.
pub(crate) const FILE_NAME: &str = "manifest";

const MAGIC: [u8; 8] = *b"PHBLIST\x01";

/// The file's bytes.
pub(crate) fn encode(names: &[String]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    push(&mut out, names.len() as u64);
    names.iter().for_each(|name| push_bytes(&mut out, name.as_bytes()));
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out
}

/// Reads the file back; `None` if it is damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<String>> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32fast::hash(body).to_le_bytes() != *checksum {
        return None;
    }
    let mut cursor = Cursor::new(body);
    if cursor.array()? != MAGIC {
        return None;
    }
    let names = (0..cursor.usize()?)
        .map(|_| Some(std::str::from_utf8(cursor.bytes()?).ok()?.to_owned()))
        .collect::<Option<Vec<String>>>()?;
    cursor.is_empty().then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_written_and_any_damage_is_noticed() {
        let names = ["1641592800000-00000002.block".to_owned(), String::new()];
        let bytes = encode(&names);
        assert_eq!(decode(&bytes).unwrap(), names);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }
}
