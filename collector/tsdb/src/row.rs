//! What callers append: rows of groups, and the marks that make a stream's frames be stored once.

use pharos_common::sample::TimestampMs;

/// The most columns a group may have.
pub(crate) const GROUP_COLUMNS_MAX: usize = 256;

/// The most bytes that the labels of a group's columns may have together: a definition fits into a record of the
/// journal. Sixty columns with the longest labels that are taken by default are as many.
pub(crate) const GROUP_LABEL_BYTES_MAX: usize = 32 << 20;

/// The value of a column that has no sample in a row: one NaN among 2^52, which no program makes by
/// arithmetic. A sample that has these very bits counts as absent.
pub const ABSENT: f64 = f64::from_bits(0x7ff4_7068_6172_6f73);

/// Whether a value is [`ABSENT`].
#[inline]
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

/// A group that the head knows, until it is closed for being idle (then define it again).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub(crate) u32);

/// One tick of one group.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Which group.
    pub group: GroupId,
    /// When all its values were read.
    pub timestamp_ms: TimestampMs,
    /// One value per column of the group, in the order of its definition; [`ABSENT`] for none.
    pub values: &'a [f64],
}

/// Identity of an agent's stream.
pub type StreamId = [u8; 16];

/// A stream's lanes; each has its own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Fresh frames.
    Live,
    /// Frames that could not be sent when they were fresh.
    Backfill,
}

/// How far a lane of a stream has come: stored in the journal with the rows it speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamMark {
    /// Which stream.
    pub stream: StreamId,
    /// Which lane of it.
    pub lane: Lane,
    /// Everything of the lane up to here is stored.
    pub sequence: u64,
}

/// Rows that are appended together, and become durable together.
#[derive(Clone, Copy, Debug, Default)]
pub struct AppendBatch<'a> {
    /// The rows.
    pub rows: &'a [Row<'a>],
    /// The lane's progress, for frames of a stream. If the lane has come as far before, the batch is a
    /// repetition and nothing is stored.
    pub mark: Option<StreamMark>,
}

/// Number of a commit; rises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitNumber(pub(crate) u64);

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The batch is durable when this commit is ([`crate::Database::durable`]).
    pub commit: CommitNumber,
    /// Samples stored.
    pub samples: u64,
    /// Of these, samples older than their series' newest.
    pub late: u64,
    /// Samples that were there already (same timestamp); the first one stays.
    pub duplicates: u64,
    /// Samples refused for being older than retention.
    pub too_old: u64,
    /// Samples refused for being too far in the future.
    pub too_new: u64,
    /// Whether the whole batch was a repetition by its [`StreamMark`].
    pub repeated: bool,
}
