//! What the agent writes into its journal, byte by byte. All numbers are little-endian.
//!
//! ```text
//! 1  head        next group u32, next sequence u64                      first record of a segment
//! 2  definition  version u32, next column u32, key length u16, key, DefineGroup (protobuf)
//! 3  frame       sequence u64, timestamp i64, samples u32, lane u8, readings (protobuf)
//! 4  assigned    first u64, last u64: these live frames go to the backfill lane
//! ```

use crate::directory::Definition;
use bytes::Bytes;
use pharos_proto::v1::DefineGroup;
use prost::Message as _;

const HEAD: u8 = 1;
const DEFINITION: u8 = 2;
const FRAME: u8 = 3;
const ASSIGNED: u8 = 4;

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Head { next_group: u32, next_sequence: u64 },
    Definition(Definition),
    Frame(FrameRecord),
    Assigned { first: u64, last: u64 },
}

/// A frame as journalled.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FrameRecord {
    pub(super) sequence: u64,
    pub(super) timestamp_ms: i64,
    pub(super) samples: u32,
    /// Whether it was never sent live, so that it belongs to the backfill lane from birth.
    pub(super) backfill: bool,
    pub(super) readings: Bytes,
}

pub(super) fn encode_head(out: &mut Vec<u8>, next_group: u32, next_sequence: u64) {
    out.clear();
    out.push(HEAD);
    out.extend_from_slice(&next_group.to_le_bytes());
    out.extend_from_slice(&next_sequence.to_le_bytes());
}

pub(super) fn encode_definition(out: &mut Vec<u8>, definition: &Definition) {
    out.clear();
    out.push(DEFINITION);
    out.extend_from_slice(&definition.version.to_le_bytes());
    out.extend_from_slice(&definition.next_column.to_le_bytes());
    let key = definition.key.as_bytes();
    // Keys are names of mounts and devices, which the kernel keeps below 4 KiB.
    let key = &key[..key.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(&definition.message.encode_to_vec());
}

pub(super) fn encode_frame(out: &mut Vec<u8>, frame: &FrameRecord) {
    out.clear();
    out.push(FRAME);
    out.extend_from_slice(&frame.sequence.to_le_bytes());
    out.extend_from_slice(&frame.timestamp_ms.to_le_bytes());
    out.extend_from_slice(&frame.samples.to_le_bytes());
    out.push(u8::from(frame.backfill));
    out.extend_from_slice(&frame.readings);
}

pub(super) fn encode_assigned(out: &mut Vec<u8>, first: u64, last: u64) {
    out.clear();
    out.push(ASSIGNED);
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&last.to_le_bytes());
}

/// The record in `bytes`, or `None` if it is of no kind that we write.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let (&kind, rest) = bytes.split_first()?;
    let mut rest = Reader(rest);
    let record = match kind {
        HEAD => Record::Head { next_group: rest.u32()?, next_sequence: rest.u64()? },
        DEFINITION => {
            let (version, next_column) = (rest.u32()?, rest.u32()?);
            let length = usize::from(u16::from_le_bytes(rest.take()?));
            let (key, message) = rest.0.split_at_checked(length)?;
            let key = std::str::from_utf8(key).ok()?.to_owned();
            Record::Definition(Definition {
                key,
                version,
                next_column,
                message: DefineGroup::decode(message).ok()?,
            })
        }
        FRAME => Record::Frame(FrameRecord {
            sequence: rest.u64()?,
            timestamp_ms: i64::from_le_bytes(rest.take()?),
            samples: rest.u32()?,
            backfill: rest.take::<1>()? != [0],
            readings: Bytes::copy_from_slice(rest.0),
        }),
        ASSIGNED => Record::Assigned { first: rest.u64()?, last: rest.u64()? },
        _ => return None,
    };
    Some(record)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_come_back_and_truncated_ones_are_refused() {
        let frame = FrameRecord {
            sequence: 7,
            timestamp_ms: -1,
            samples: 3,
            backfill: true,
            readings: Bytes::from_static(b"abc"),
        };
        let definition = Definition {
            key: "disk/sda".into(),
            version: 2,
            next_column: 9,
            message: DefineGroup { group: 4, ..DefineGroup::default() },
        };
        let mut out = Vec::new();
        encode_frame(&mut out, &frame);
        assert_eq!(decode(&out), Some(Record::Frame(frame)));
        encode_definition(&mut out, &definition);
        assert_eq!(decode(&out), Some(Record::Definition(definition)));
        encode_assigned(&mut out, 1, 2);
        assert_eq!(decode(&out), Some(Record::Assigned { first: 1, last: 2 }));
        encode_head(&mut out, 5, 6);
        assert_eq!(decode(&out), Some(Record::Head { next_group: 5, next_sequence: 6 }));
        for end in 0..out.len() {
            assert_eq!(decode(&out[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_not_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }
}
