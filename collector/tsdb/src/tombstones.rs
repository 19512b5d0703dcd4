//! Tombstones: which samples of blocks were deleted and are to be left out until they are cleaned away.
//!
//! A deletion cuts the head first, so everything it speaks of is in blocks; it tells which by the sequence
//! in their names, so samples that come later in the same range are not touched. All tombstones are in one
//! small file, written whole:
//!
//! ```text
//! "PHTOMBS" 01 | n, n x tombstone | CRC-32
//! tombstone  first and last timestamp zigzag, sequence, n, n x (name, op u8, value)
//! op         0 =   1 !=   2 =~   3 !~
//! ```

use crate::codec::varint::{Cursor, push, push_bytes};
use crate::codec::zigzag;
use crate::framed::{Framed, text};
use crate::merge::Piece;
use pharos_common::labels::Labels;
use pharos_common::matcher::{MatchOp, Matcher};
use pharos_common::sample::TimestampMs;
use std::sync::Arc;

const FILE: Framed = Framed { magic: *b"PHTOMBS", version: 1 };

const OPS: [MatchOp; 4] = [MatchOp::Equal, MatchOp::NotEqual, MatchOp::Regex, MatchOp::NotRegex];

/// One deletion.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tombstone {
    pub(crate) matchers: Vec<Matcher>,
    pub(crate) start_ms: TimestampMs,
    /// Included.
    pub(crate) end_ms: TimestampMs,
    /// Blocks from this sequence on are not meant.
    pub(crate) before_sequence: u64,
}

impl Tombstone {
    pub(crate) fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches_labels(labels))
    }
}

/// The samples of a series that no tombstone covers.
pub(crate) fn without_deleted(tombstones: &[Tombstone], labels: &Labels, piece: Piece) -> Piece {
    let mut piece = piece;
    for tombstone in tombstones.iter().filter(|tombstone| tombstone.matches(labels)) {
        let from = piece.timestamps.partition_point(|&timestamp| timestamp < tombstone.start_ms);
        let to = piece.timestamps.partition_point(|&timestamp| timestamp <= tombstone.end_ms);
        if from < to {
            piece.values.drain(from..to);
            let (before, behind) = (&piece.timestamps[..from], &piece.timestamps[to..]);
            piece.timestamps = before.iter().chain(behind).copied().collect::<Arc<[_]>>();
        }
    }
    piece
}

/// The file's bytes.
pub(crate) fn encode(tombstones: &[Tombstone]) -> Vec<u8> {
    FILE.encode(|out| {
        push(out, tombstones.len() as u64);
        for tombstone in tombstones {
            push(out, zigzag(tombstone.start_ms));
            push(out, zigzag(tombstone.end_ms));
            push(out, tombstone.before_sequence);
            push(out, tombstone.matchers.len() as u64);
            for matcher in &tombstone.matchers {
                push_bytes(out, matcher.name().as_bytes());
                out.push(OPS.iter().position(|op| *op == matcher.op()).unwrap_or(0) as u8);
                push_bytes(out, matcher.value().as_bytes());
            }
        }
    })
}

/// Reads the file back; `None` if it is damaged.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Tombstone>> {
    FILE.decode(bytes, |_, cursor| (0..cursor.usize()?).map(|_| decode_tombstone(cursor)).collect())
}

fn decode_tombstone(cursor: &mut Cursor<'_>) -> Option<Tombstone> {
    let (start_ms, end_ms) = (cursor.signed()?, cursor.signed()?);
    let before_sequence = cursor.varint()?;
    let matchers = (0..cursor.usize()?)
        .map(|_| {
            let name = text(cursor)?;
            let op = *OPS.get(usize::from(cursor.byte()?))?;
            Matcher::new(name, op, text(cursor)?).ok()
        })
        .collect::<Option<_>>()?;
    Some(Tombstone { matchers, start_ms, end_ms, before_sequence })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tombstone(start_ms: i64, end_ms: i64) -> Tombstone {
        let matchers =
            vec![Matcher::equal("job", "node"), Matcher::new("name", MatchOp::NotRegex, "a.*").unwrap()];
        Tombstone { matchers, start_ms, end_ms, before_sequence: 7 }
    }

    #[test]
    fn tombstones_come_back_as_written_and_any_damage_is_noticed() {
        let all = [tombstone(i64::MIN, i64::MAX), tombstone(-5, 5)];
        let bytes = encode(&all);
        assert_eq!(decode(&bytes).unwrap(), all);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            assert_eq!(decode(&damaged), None);
            assert_eq!(decode(&bytes[..at]), None);
        }
    }

    #[test]
    fn only_samples_of_the_range_and_of_matching_series_go() {
        let piece = || Piece { timestamps: [1, 2, 3, 4].into(), values: vec![1.0, 2.0, 3.0, 4.0] };
        #[track_caller]
        fn check(piece: Piece, job: &str, range: (i64, i64), want: &[i64]) {
            let labels = Labels::from_pairs([("job", job)]);
            let left = without_deleted(&[tombstone(range.0, range.1)], &labels, piece);
            assert_eq!(&*left.timestamps, want);
            assert_eq!(left.values, want.iter().map(|&at| at as f64).collect::<Vec<_>>());
        }
        check(piece(), "node", (2, 3), &[1, 4]);
        check(piece(), "node", (0, 9), &[]);
        check(piece(), "node", (5, 9), &[1, 2, 3, 4]);
        check(piece(), "other", (0, 9), &[1, 2, 3, 4]);
    }
}
