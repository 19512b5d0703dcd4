//! What can go wrong in the agent, as values that a caller can branch on.

use pharos_common::config::ConfigError;
use pharos_common::journal::JournalError;
use pharos_common::storage_io::IoError;
use std::io;
use std::path::PathBuf;

/// Why a sampler could not take its reading.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    /// A file cannot be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not look as the kernel writes it.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is odd.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{call}: {source}")]
    Call {
        /// Its name.
        call: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This machine has nothing for the sampler to read.
    #[error("nothing to read here: {0}")]
    Absent(&'static str),
    /// The source has more objects or columns than a group or an agent may hold.
    #[error("{what}: more than {limit}, the rest is left out")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many are kept.
        limit: usize,
    },
    /// A trace of GPUs cannot be played.
    #[error("{0}")]
    Replay(String),
}

/// Why the agent does not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration is wrong; the message names file, line, column and key.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A flag has a value that makes no sense.
    #[error("{flag}: {message}")]
    Flag {
        /// The flag.
        flag: String,
        /// What is wrong with its value.
        message: String,
    },
    /// The journal cannot be opened.
    #[error("cannot open the journal (--storage.path): {0}")]
    Journal(#[from] JournalError),
    /// A file of the agent cannot be read or written.
    #[error("--storage.path: {0}")]
    Storage(#[from] IoError),
    /// Two agents would write one journal, and the collector would take their frames for one node's.
    #[error("{} is in use by another agent; give this one a folder of its own (--storage.path)", .0.display())]
    InUse(PathBuf),
    /// The stream's identity is unreadable.
    #[error("{}: this is no stream identity; remove the folder to start a new stream", .0.display())]
    StreamId(PathBuf),
    /// A thread or a signal handler cannot be set up.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// A metric about the agent itself is wrong, which no outside input can cause.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl AgentError {
    /// Whether the user wrote something wrong (exit code 2) rather than the machine refusing (1).
    pub fn is_usage(&self) -> bool {
        matches!(self, AgentError::Config(_) | AgentError::Flag { .. })
    }
}
