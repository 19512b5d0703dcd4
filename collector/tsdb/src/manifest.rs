//! The manifest: which blocks there are, so that one that has vanished is noticed, and what an opening wants to know
//! of each without reading its index.
//!
//! It is written behind every change of the set, and before blocks are removed. A block that it does not name
//! was published just before a crash, and is served; one that it names and that is gone was taken away by
//! somebody else. The name stays, so that it is told at every start, until its time has passed retention. What it
//! tells of a block holds for a file whose index has the checksum that it gives; of any other file the index is read.
//!
//! ```text
//! "PHBLIST" 02 | n, n x block | CRC-32            (version 1: n, n x name)
//! block   name, told u8: 0 nothing more, 1: checksum of the index u32 little-endian, cut-before zigzag,
//!         journal segment, n, n x replaced name, flags u8: 1 samples dropped, 2 roll-ups
//! ```

use crate::block::Facts;
use crate::block::Provenance;
use crate::codec::varint::{Cursor, push, push_bytes};
use crate::codec::zigzag;
use crate::framed::{Framed, text};
use std::collections::BTreeMap;

/// Name of the file in the storage folder.
pub(crate) const FILE_NAME: &str = "manifest";

const FILE: Framed = Framed { magic: *b"PHBLIST", version: 2 };

const THINNED: u8 = 1;
const ROLLED_UP: u8 = 2;

/// Blocks by name; of some it is told what their index says.
pub(crate) type Listed = BTreeMap<String, Option<Told>>;

/// What is told of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Of the index, as the block's footer has it.
    pub(crate) index_checksum: u32,
    pub(crate) facts: Facts,
}

/// The file's bytes.
pub(crate) fn encode(blocks: &Listed) -> Vec<u8> {
    FILE.encode(|out| {
        push(out, blocks.len() as u64);
        for (name, told) in blocks {
            push_bytes(out, name.as_bytes());
            out.push(told.is_some().into());
            if let Some(told) = told {
                encode_told(told, out);
            }
        }
    })
}

fn encode_told(told: &Told, out: &mut Vec<u8>) {
    let Facts { provenance, is_thinned, has_rollups } = &told.facts;
    out.extend_from_slice(&told.index_checksum.to_le_bytes());
    push(out, zigzag(provenance.cut_before_ms));
    push(out, provenance.journal_segment);
    push(out, provenance.replaces.len() as u64);
    provenance.replaces.iter().for_each(|name| push_bytes(out, name.as_bytes()));
    out.push(if *is_thinned { THINNED } else { 0 } | if *has_rollups { ROLLED_UP } else { 0 });
}

/// Reads the file back; `None` if it is damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Listed> {
    FILE.decode(bytes, |version, cursor| {
        (0..cursor.usize()?)
            .map(|_| {
                let name = text(cursor)?.to_owned();
                let is_told = version > 1 && cursor.byte()? != 0;
                Some((name, if is_told { Some(decode_told(cursor)?) } else { None }))
            })
            .collect()
    })
}

fn decode_told(cursor: &mut Cursor<'_>) -> Option<Told> {
    let index_checksum = cursor.array().map(u32::from_le_bytes)?;
    let (cut_before_ms, journal_segment) = (cursor.signed()?, cursor.varint()?);
    let replaces =
        (0..cursor.usize()?).map(|_| text(cursor).map(str::to_owned)).collect::<Option<Vec<_>>>()?;
    let flags = cursor.byte()?;
    let facts = Facts {
        provenance: Provenance { cut_before_ms, journal_segment, replaces },
        is_thinned: flags & THINNED != 0,
        has_rollups: flags & ROLLED_UP != 0,
    };
    Some(Told { index_checksum, facts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_as_written_and_any_damage_is_noticed() {
        let told = |cut_before_ms, flags: [bool; 2]| Told {
            index_checksum: 0xdead_beef,
            facts: Facts {
                provenance: Provenance {
                    cut_before_ms,
                    journal_segment: 7,
                    replaces: vec!["0-1.block".to_owned(), String::new()],
                },
                is_thinned: flags[0],
                has_rollups: flags[1],
            },
        };
        let blocks = Listed::from([
            ("1641592800000-00000002.block".to_owned(), Some(told(i64::MIN, [true, false]))),
            ("1641592800000-00000003.block".to_owned(), Some(told(5, [false, true]))),
            (String::new(), None),
        ]);
        let bytes = encode(&blocks);
        assert_eq!(decode(&bytes).unwrap(), blocks);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }

    #[test]
    fn version_1_had_names_alone() {
        let old = Framed { version: 1, ..FILE }.encode(|out| {
            push(out, 1);
            push_bytes(out, b"0-1.block");
        });
        assert_eq!(decode(&old).unwrap(), Listed::from([("0-1.block".to_owned(), None)]));
    }
}
