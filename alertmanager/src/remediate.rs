//! Remediation: actions that alerts set off, under strict limits.
//!
//! [`policy`] is what the configuration says, [`record`] where one remediation stands, [`guard`] judges
//! purely whether it may act now, [`audit`] is the record of everything that was done. An action happens
//! at most once: its state is on disk before it starts, and one that a crash left in doubt is never run
//! again but verified.

pub(crate) mod audit;
pub(crate) mod guard;
pub(crate) mod policy;
pub(crate) mod record;
