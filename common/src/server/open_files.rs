//! The limit of open files: every connection takes one, and so does every file of the storage.
//!
//! Shells and service managers start programs with a soft limit of 1,024, made for `select`, and allow far
//! more. Like Go's runtime we raise the soft limit to the hard one, and keep some back for files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a program needs for itself: journal, blocks, logs, outgoing connections.
const FOR_FILES: u64 = 256;

/// Raises the soft limit of this process as far as it may. Returns the limit in force.
pub(super) fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok() {
        return maximum.unwrap_or(u64::MAX);
    }
    current.unwrap_or(u64::MAX)
}

/// How many connections fit into a limit of open files.
pub(super) fn for_connections(files: u64) -> usize {
    let kept = FOR_FILES.min(files / 2);
    usize::try_from(files - kept).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_never_take_the_last_file() {
        assert_eq!(for_connections(1_024), 768);
        assert_eq!(for_connections(20), 10);
        assert!(raise_limit() > 0);
    }
}
