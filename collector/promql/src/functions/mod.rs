//! The functions of the language: one table says what each takes, gives and is made of.

pub(crate) mod classic_histogram;
pub(crate) mod dates;
pub(crate) mod math;
pub(crate) mod over_time;
pub(crate) mod quantile;
mod signature;

pub(crate) use over_time::Mean;
pub(crate) use signature::{DatePart, HistogramStat, Implementation, OverTime, find};
pub use signature::{Function, names};
