//! What can go wrong in the engine.

use crate::row::{GROUP_COLUMNS_MAX, GroupId};
use pharos_common::journal::JournalError;
use pharos_common::storage_io::IoError;
use std::path::PathBuf;

/// Why the engine could not do what it was asked to.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TsdbError {
    /// The journal cannot take more now (full disk, slow disk): try again later.
    #[error("storage takes no writes now: {0}; try again later")]
    Busy(String),
    /// The engine stopped taking writes after a failure it cannot judge. Reads go on.
    #[error("storage takes no writes since a failure: {0}; restart the collector")]
    Poisoned(String),
    /// The group is not (or no longer) known: define it again.
    #[error("group {0:?} is not defined")]
    UnknownGroup(GroupId),
    /// A row has another number of values than its group has columns.
    #[error("a row of {got} values for a group of {want} columns")]
    RowWidth {
        /// Columns of the group.
        want: usize,
        /// Values of the row.
        got: usize,
    },
    /// A group has no columns, or too many.
    #[error("a group has 1 to {GROUP_COLUMNS_MAX} columns, not {0}")]
    GroupWidth(usize),
    /// A new series would exceed a limit.
    #[error("the limit of {limit} {of} is reached; new series are refused, known ones go on")]
    TooManySeries {
        /// The limit.
        limit: usize,
        /// What it limits.
        of: SeriesLimit,
    },
    /// Another process has the folder open.
    #[error("{} is in use by another process; choose another folder with --storage.path", .0.display())]
    Locked(PathBuf),
    /// The folder was written by a newer version.
    #[error("{}: storage format {version} is newer than this program knows ({known}); upgrade Pharos", path.display())]
    NewerFormat {
        /// The folder or file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this program knows.
        known: u32,
    },
    /// A file operation failed.
    #[error("{0}")]
    Io(String),
    /// The engine is closed.
    #[error("storage is closed")]
    Closed,
}

/// What is limited of series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeriesLimit {
    /// All series in the head.
    #[error("active series")]
    Total,
    /// Series with one value of a label.
    #[error("active series with {label}={value:?}")]
    PerValue {
        /// The label.
        label: String,
        /// Its value.
        value: String,
    },
    /// Names and indexes of all series in the head.
    #[error("bytes of memory for active series")]
    Memory,
    /// Labels of one series.
    #[error("labels a series")]
    Labels,
    /// Bytes of one series' labels.
    #[error("bytes of labels a series")]
    LabelBytes,
    /// Bytes of the labels of series that come as one group.
    #[error("bytes of labels of series that come together")]
    GroupLabelBytes,
}

impl From<IoError> for TsdbError {
    fn from(error: IoError) -> Self {
        if error.is_full() { TsdbError::Busy(error.to_string()) } else { TsdbError::Io(error.to_string()) }
    }
}

impl From<JournalError> for TsdbError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Io(error) => error.into(),
            JournalError::Poisoned(_) => TsdbError::Poisoned(error.to_string()),
            JournalError::NewerFormat { path, version, .. } => {
                TsdbError::NewerFormat { path, version: u32::from(version), known: 1 }
            }
            other => TsdbError::Io(other.to_string()),
        }
    }
}

/// Why a read ended without an answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<Refusal> {
    /// The reader's budget refused to go on.
    #[error("the reader's budget refused to go on")]
    Refused(Refusal),
    /// Part of a block is damaged: rather no answer than a wrong one.
    #[error("{}: {what} is damaged; put the file back from a snapshot, or remove it to be answered without it", path.display())]
    Damaged {
        /// The block's file.
        path: PathBuf,
        /// Which part of it.
        what: String,
    },
    /// Files would have to be read, which the reader's budget does not allow.
    #[error("not in memory")]
    NotInMemory,
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] IoError),
}
