//! Escalation: tier after tier is told until somebody acknowledges, the alert ends, or a silence applies.
//!
//! [`policy`] is what the configuration says, [`ladder`] decides purely what is due, and
//! [`crate::engine`] keeps the running escalations and carries the decisions out.

pub(crate) mod ladder;
pub(crate) mod policy;
