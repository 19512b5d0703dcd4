//! The spool: keeps frames until a collector has made them durable.
//!
//! Every frame gets its sequence here and is sent live if a collector is connected. What the collector has
//! not acknowledged a moment later, and everything while there is none, goes into the journal. A frame that
//! could not be sent live, or whose live copy never arrived, waits for the backfill lane and is read back
//! from the journal. Acknowledgements free the journal segment by segment. When the journal is full the
//! oldest frames go, counted; when the disk is full or hangs, frames still go out live.
//!
//! The [`ledger`] decides and never touches a file; the [`writer`] owns the journal and never decides;
//! [`keeper`] runs the writer on a thread of its own and lets everybody else talk to the ledger directly, so
//! that neither sampling nor the network ever waits for a disk.
//!
//! # Which lane a frame belongs to
//!
//! A frame has one lane at a time. It is *in flight* when sent live and not acknowledged, *pending* when it
//! belongs to the backfill lane, and *in doubt* when an earlier run of the agent sent it live and died. On
//! connecting, the collector tells its highest durable sequence of both lanes, which settles every doubt:
//! what lies above it moves to the backfill lane, and a record in the journal says so. Since the collector
//! stores a backfilled frame only if its sequence is above all others of that lane, backfill never
//! overtakes a frame in flight.
//!
//! # What is not in the journal
//!
//! A frame that the collector acknowledges within [`ledger::HOLD_TIME`] is never written: a copy of what is
//! durable elsewhere protects nothing. An agent that is killed loses at most the frames of that moment which
//! had not left the machine. Frames that bring new definitions are always written, for numbers once given
//! must never be given to something else, and so is one frame in [`ledger::SEQUENCES_UNWRITTEN_MAX`].

mod backfill;
pub mod keeper;
pub mod ledger;
mod open;
mod ranges;
mod record;
mod writer;

pub use backfill::BackfillFrame;
pub use keeper::{ACKNOWLEDGE_TIME_MAX, SpoolHandle, start};
pub use ledger::LiveFrame;
pub use open::{Opened, open};

use std::time::Duration;

/// Bytes of a stream's identity, as `Hello` carries it.
pub const STREAM_ID_BYTES: usize = 16;

/// Bounds of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Bytes of all its segments.
    pub bytes_max: u64,
    /// Age of its oldest frame.
    pub age_max: Duration,
    /// Bytes after which a segment is closed. Segments are freed whole.
    pub segment_bytes_max: u64,
}

impl Default for SpoolLimits {
    /// Two days of 500 series at 1 s.
    fn default() -> Self {
        SpoolLimits {
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(48 * 3_600),
            segment_bytes_max: 8 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
