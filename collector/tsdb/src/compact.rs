//! Which blocks to merge, and how.
//!
//! The planner is a pure function of what blocks there are. Merging streams series by series in label
//! order, so it holds one series at a time.

use crate::block::reader::{Block, BlockError};
use crate::block::writer::BlockWriter;
use crate::block::{BLOCK_SPAN_MS, DAY_MS, Provenance};
use crate::error::TsdbError;
use crate::merge::Pieces;
use pharos_common::labels::Labels;
use pharos_common::sample::TimestampMs;
use std::collections::BTreeMap;

/// A block as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Position in the list of blocks.
    pub(crate) position: usize,
    pub(crate) oldest_ms: TimestampMs,
    pub(crate) newest_ms: TimestampMs,
}

/// Pieces of an unfinished window that are merged before it is complete: what every flush leaves.
const PIECES_MAX: usize = 4;

/// The next merge that is due, oldest first: blocks by position. `complete_ms`: everything older has been
/// cut, so windows that end before are complete.
pub(crate) fn plan(blocks: &[Candidate], complete_ms: TimestampMs) -> Option<Vec<usize>> {
    let due = |span: i64, pieces_max: usize| {
        let mut windows: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for block in blocks {
            let window = block.oldest_ms.div_euclid(span);
            if block.newest_ms.div_euclid(span) == window {
                windows.entry(window).or_default().push(block.position);
            }
        }
        windows.into_iter().find_map(|(window, positions)| {
            let complete = (window + 1) * span <= complete_ms;
            let wanted = if complete { 2 } else { pieces_max };
            (positions.len() >= wanted).then_some(positions)
        })
    };
    due(DAY_MS, usize::MAX).or_else(|| due(BLOCK_SPAN_MS, PIECES_MAX))
}

/// Blocks to drop so that the rest takes at most so many bytes: those that end first, by position. The one
/// that ends last stays. `blocks`: newest timestamp and bytes of each.
pub(crate) fn over_size(blocks: &[(TimestampMs, u64)], bytes_max: u64) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..blocks.len()).collect();
    positions.sort_by_key(|&position| blocks[position].0);
    let mut left: u64 = blocks.iter().map(|(_, bytes)| bytes).sum();
    positions.pop();
    positions.retain(|&position| {
        let goes = left > bytes_max;
        left -= if goes { blocks[position].1 } else { 0 };
        goes
    });
    positions
}

/// Merges blocks, earliest stored first, into one file.
pub(crate) fn merge(
    sources: &[&Block],
    mut writer: BlockWriter,
    name: &str,
    mut go_on: impl FnMut() -> bool,
) -> Result<u64, TsdbError> {
    let mut next: Vec<usize> = vec![0; sources.len()];
    let mut provenance = Provenance::default();
    let indexes = sources.iter().map(|source| source.index()).collect::<Result<Vec<_>, _>>()?;
    for (source, index) in sources.iter().zip(&indexes) {
        let have = &index.provenance;
        if have.journal_segment >= provenance.journal_segment {
            provenance.cut_before_ms = provenance.cut_before_ms.max(have.cut_before_ms);
            provenance.journal_segment = have.journal_segment;
        }
        provenance.replaces.push(source.file_name());
    }
    loop {
        if !go_on() {
            return Err(TsdbError::Closed);
        }
        let mut least: Option<Labels> = None;
        for (index, &at) in indexes.iter().zip(&next) {
            if let Some(series) = index.series.get(at)
                && least.as_ref().is_none_or(|least| series.labels < *least)
            {
                least = Some(series.labels.clone());
            }
        }
        let Some(least) = least else { break };
        let mut pieces = Pieces::default();
        for ((source, index), at) in sources.iter().zip(&indexes).zip(&mut next) {
            if index.series.get(*at).is_some_and(|series| series.labels == least)
                && let Some((labels, piece)) = source.series(index, *at)?
            {
                pieces.add(&labels, piece);
                *at += 1;
            }
        }
        for series in pieces.into_series() {
            writer.add(&series.labels, &series.timestamps, &series.values)?;
        }
    }
    Ok(writer.finish(name, provenance)?.1)
}

impl From<BlockError> for TsdbError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io(error) => error.into(),
            BlockError::NewerFormat { path, version } => TsdbError::NewerFormat {
                path,
                version: u32::from(version),
                known: u32::from(crate::block::VERSION),
            },
            BlockError::Damaged { .. } | BlockError::NotInMemory => TsdbError::Io(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    #[track_caller]
    fn check(hours: &[(i64, i64)], complete_hour: i64, want: Option<&[usize]>) {
        let blocks: Vec<Candidate> = hours
            .iter()
            .enumerate()
            .map(|(position, (from, to))| Candidate {
                position,
                oldest_ms: from * HOUR,
                newest_ms: to * HOUR - 1,
            })
            .collect();
        assert_eq!(plan(&blocks, complete_hour * HOUR).as_deref(), want);
    }

    #[test]
    fn the_oldest_blocks_go_until_the_rest_fits() {
        let blocks = [(30, 5), (10, 5), (20, 5)];
        assert_eq!(over_size(&blocks, 15), [] as [usize; 0]);
        assert_eq!(over_size(&blocks, 14), [1]);
        assert_eq!(over_size(&blocks, 9), [1, 2]);
        assert_eq!(over_size(&blocks, 0), [1, 2], "the newest stays");
        assert_eq!(over_size(&[], 0), [] as [usize; 0]);
    }

    #[test]
    fn complete_days_become_one_block() {
        check(&[], 0, None);
        check(&[(0, 2), (2, 4)], 4, None);
        check(&[(0, 2), (2, 4), (22, 24)], 24, Some(&[0, 1, 2]));
        check(&[(0, 24), (24, 26)], 26, None);
    }

    #[test]
    fn late_blocks_are_merged_into_their_window() {
        check(&[(0, 24), (3, 4)], 30, Some(&[0, 1]));
        check(&[(24, 26), (24, 25)], 27, Some(&[0, 1]));
        check(&[(24, 26), (26, 28)], 28, None);
    }

    #[test]
    fn an_unfinished_window_is_merged_when_it_has_many_pieces() {
        check(&[(24, 25), (25, 26)], 25, None);
        check(&[(24, 25), (24, 25), (24, 25), (25, 26)], 25, Some(&[0, 1, 2, 3]));
    }
}
