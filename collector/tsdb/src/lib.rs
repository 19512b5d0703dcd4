//! The storage engine: ticks of samples flow in, columns of samples flow out, and what was acknowledged
//! survives a kill and a power cut.
//!
//! What was sampled together is stored together. A caller defines a *group* of series that share every
//! timestamp ([`Database::define_group`]), then appends rows to it ([`Database::append`]); a series that
//! arrives alone is a group of one. Rows go to the journal and to the head in memory. When the journal is
//! synced the commit is durable ([`Database::durable`]). The head is cut into immutable blocks on disk,
//! which are compacted to larger ones and dropped when retention has passed. [`Database::select`] merges
//! head and blocks. The engine knows nothing of HTTP, protobuf or PromQL.

mod block;
mod checkpoint;
mod codec;
mod commit;
mod compact;
mod cut;
mod database;
mod error;
mod exemplars;
mod framed;
#[doc(hidden)]
pub mod fuzz;
mod head;
mod hidden;
pub mod histogram;
mod journal_entry;
mod manifest;
mod merge;
mod metadata;
mod postings;
mod rollup;
mod row;
mod select;
pub mod starts;
mod summarize;
mod tombstones;

pub use database::{
    BlockInfo, Database, FileCheck, OpenReport, Options, Ranking, SUMMARY_GRAIN_MS, Selection, Statistics,
    Stats, Summaries, Verdict,
};
pub use error::{ReadError, SeriesLimit, TsdbError};
pub use exemplars::{AppendedExemplars, Exemplar};
pub use hidden::{is_hidden, is_reserved_label};
pub use metadata::{Metadata, MetricKind};
pub use row::{
    ABSENT, AppendBatch, Appended, CommitNumber, GroupId, Lane, Row, StreamId, StreamMark, is_absent,
};
pub use select::{ReadBudget, Reads, SelectedSeries, Unlimited};
pub use starts::{StartRun, Starts};
pub use summarize::SummaryStats;
