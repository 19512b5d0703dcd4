//! Samples in, through three doors: the agents' stream, remote write, and text.
//!
//! All of them end in [`appender::Appender`], which writes to the engine and hands what threshold rules
//! watch on to them.

pub mod appender;
mod created;
pub mod exposition;
pub mod histogram_table;
pub mod http_write;
mod known_series;
pub mod label_rules;
mod pick;
pub mod protobuf;
pub mod rate_limit;
pub mod remote_write;
mod row_plan;
pub mod series_cache;
pub mod series_writer;
pub mod stream;
pub mod stream_groups;
mod stream_hints;
pub mod stream_registry;
pub mod text;
pub(crate) mod type_labels;
pub(crate) mod wire_histogram;
pub mod write_gate;
pub mod write_request;
mod write_request_v2;
