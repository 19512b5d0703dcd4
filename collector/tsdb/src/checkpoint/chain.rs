//! Which files of a chain a restart needs: a pure function of what the newest file says of them all.

use pharos_common::journal::Position;
use pharos_common::sample::TimestampMs;

/// One file of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Number of the file; rises.
    pub(crate) number: u64,
    /// The file that begins its scope: groups have the numbers that files from there on gave them.
    pub(crate) scope: u64,
    /// Where the journal goes on behind it.
    pub(crate) replay_from: Position,
    /// Its newest timestamp.
    pub(crate) newest_ms: TimestampMs,
}

/// What is in blocks: in-order rows older than `before_ms` of journal segments before `segment`, and late
/// samples of those segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InBlocks {
    pub(crate) before_ms: TimestampMs,
    pub(crate) segment: u64,
}

impl InBlocks {
    /// Rows of the file that are older than the answer are in blocks.
    pub(crate) fn of(&self, link: &Link) -> TimestampMs {
        if link.replay_from.segment < self.segment { self.before_ms } else { TimestampMs::MIN }
    }
}

/// Position of the first file that is needed; the number of links if none is.
pub(crate) fn first_needed(links: &[Link], in_blocks: InBlocks) -> usize {
    let Some(first) = links.iter().position(|link| link.newest_ms >= in_blocks.of(link)) else {
        return links.len();
    };
    // Scopes rise, so the first file's is the earliest.
    links.iter().position(|link| link.number >= links[first].scope).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(links: &[(u64, u64, u64, i64)], in_blocks: (i64, u64), want: usize) {
        let link = |&(number, scope, segment, newest_ms)| Link {
            number,
            scope,
            replay_from: Position { segment, offset: 100 },
            newest_ms,
        };
        let links: Vec<Link> = links.iter().map(link).collect();
        let in_blocks = InBlocks { before_ms: in_blocks.0, segment: in_blocks.1 };
        assert_eq!(first_needed(&links, in_blocks), want);
    }

    #[test]
    fn files_whose_rows_are_in_blocks_are_not_needed() {
        check(&[], (0, 0), 0);
        check(&[(1, 1, 2, 10), (2, 2, 3, 20)], (i64::MIN, 0), 0);
        check(&[(1, 1, 2, 10), (2, 2, 3, 20)], (11, 4), 1);
        check(&[(1, 1, 2, 10), (2, 2, 3, 20)], (21, 4), 2);
    }

    #[test]
    fn files_that_define_groups_are_needed_as_long_as_their_scope_is() {
        check(&[(1, 1, 2, 10), (2, 1, 3, 20)], (11, 4), 0);
        check(&[(1, 1, 2, 10), (2, 2, 3, 20), (3, 2, 4, 30)], (21, 4), 1);
    }

    #[test]
    fn what_came_after_the_cut_is_needed_however_old() {
        check(&[(1, 1, 2, 10), (2, 2, 5, 3)], (11, 4), 1);
    }
}
