//! What remediations can do.

pub(crate) mod exec;
