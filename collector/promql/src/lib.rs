//! PromQL: text and a time range flow in, vectors and matrices flow out.
//!
//! The engine reads samples through [`storage::Storage`] only; it knows nothing of files or HTTP.

pub mod storage;
