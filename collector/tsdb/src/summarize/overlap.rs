//! Where sources of one series have samples between each other's, or some were deleted: no bucket tells the
//! truth there.

use super::Sources;
use crate::merge::Piece;
use crate::rollup::bucket_of;
use crate::rollup::record::FINEST_MS;
use pharos_common::sample::TimestampMs;
use pharos_common::summary::Span;

/// First and last timestamp of a source, and its samples if they are at hand.
struct Extent<'s> {
    first_ms: TimestampMs,
    last_ms: TimestampMs,
    piece: Option<&'s Piece>,
}

/// The spans, whole buckets of the finest level, in which the samples of more than one source may lie or
/// deleted ones did; rising and apart.
pub(super) fn contested(sources: &Sources) -> Vec<Span> {
    let blocks = sources.blocks.iter().map(|place| Extent {
        first_ms: place.first_ms,
        last_ms: place.last_ms,
        piece: None,
    });
    let pieces = sources.pieces.iter().filter_map(|piece| {
        let (&first_ms, &last_ms) = (piece.timestamps.first()?, piece.timestamps.last()?);
        Some(Extent { first_ms, last_ms, piece: Some(piece) })
    });
    let mut extents: Vec<Extent<'_>> = blocks.chain(pieces).collect();
    extents.sort_by_key(|extent| extent.first_ms);
    let mut spans: Vec<Span> =
        sources.deleted.iter().map(|&(first_ms, last_ms)| buckets_around(first_ms, last_ms)).collect();
    for (at, earlier) in extents.iter().enumerate() {
        for later in extents[at + 1..].iter().take_while(|later| later.first_ms <= earlier.last_ms) {
            let common = (later.first_ms, later.last_ms.min(earlier.last_ms));
            match [earlier.piece, later.piece].into_iter().flatten().min_by_key(|piece| piece.values.len()) {
                // All of them: those before and behind the other source would be summed up together.
                Some(piece) => around_samples(piece, &mut spans),
                None => spans.push(buckets_around(common.0, common.1)),
            }
        }
    }
    spans.sort_unstable_by_key(|span| span.after_ms);
    spans.dedup_by(|later, earlier| {
        let touches = later.after_ms <= earlier.until_ms;
        if touches {
            earlier.until_ms = earlier.until_ms.max(later.until_ms);
        }
        touches
    });
    spans
}

/// The buckets that hold the samples of a piece.
fn around_samples(piece: &Piece, spans: &mut Vec<Span>) {
    for &timestamp_ms in piece.timestamps.iter() {
        if spans.last().is_none_or(|span| !(span.after_ms < timestamp_ms && timestamp_ms <= span.until_ms)) {
            spans.push(buckets_around(timestamp_ms, timestamp_ms));
        }
    }
}

fn buckets_around(first_ms: TimestampMs, last_ms: TimestampMs) -> Span {
    Span {
        after_ms: bucket_of(first_ms, FINEST_MS).saturating_mul(FINEST_MS),
        until_ms: bucket_of(last_ms, FINEST_MS).saturating_add(1).saturating_mul(FINEST_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summarize::InBlock;
    use pharos_common::labels::Labels;

    const W: i64 = FINEST_MS;

    #[track_caller]
    fn check(blocks: &[(i64, i64)], pieces: &[&[i64]], want: &[(i64, i64)]) {
        let block = |(block, &(first_ms, last_ms))| InBlock { block, series: 0, first_ms, last_ms };
        let piece = |timestamps: &&[i64]| Piece {
            timestamps: (*timestamps).into(),
            values: vec![0.0; timestamps.len()],
        };
        let sources = Sources {
            labels: Labels::empty(),
            blocks: blocks.iter().enumerate().map(block).collect(),
            pieces: pieces.iter().map(piece).collect(),
            deleted: Vec::new(),
        };
        let got: Vec<(i64, i64)> =
            contested(&sources).iter().map(|span| (span.after_ms / W, span.until_ms / W)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn sources_that_follow_each_other_contest_nothing() {
        check(&[(0, 10 * W), (10 * W + 1, 20 * W)], &[&[20 * W + 1, 30 * W]], &[]);
        // Even inside one bucket.
        check(&[(0, 10), (11, 20)], &[], &[]);
    }

    #[test]
    fn blocks_contest_what_both_enclose() {
        check(&[(1, 10 * W), (3 * W + 5, 20 * W)], &[], &[(3, 10)]);
        check(&[(1, 10 * W), (3 * W + 5, 4 * W)], &[], &[(3, 4)]);
    }

    #[test]
    fn late_samples_contest_their_own_buckets() {
        check(&[(1, 10 * W)], &[&[W + 1, W + 2, 7 * W, 12 * W]], &[(1, 2), (6, 7), (11, 12)]);
        check(&[(1, 10 * W)], &[&[2 * W, 2 * W + 1]], &[(1, 3)]);
        // Also where they lie on either side of a block.
        check(&[(3 * W + 1, 5 * W)], &[&[2 * W, 7 * W]], &[(1, 2), (6, 7)]);
    }
}
