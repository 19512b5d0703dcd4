//! Rules: files in, alerts and recorded series out.
//!
//! A rule whose expression is a threshold is judged by [`judge`] when a sample arrives; the others are
//! evaluated by [`evaluate`] on their group's interval. Both share one state machine ([`alert_state`]),
//! write the same series ([`alert_series`]) and send through [`notify`].

pub mod alert_series;
pub mod alert_state;
pub mod context;
pub mod evaluate;
pub mod file;
mod glance;
pub mod judge;
mod judge_limit;
mod judge_orphans;
mod judge_series;
mod judge_task;
mod judge_telling;
pub mod manager;
mod missing;
pub mod notify;
pub mod outbox;
pub mod pointwise;
mod quiet;
pub mod rule;
pub mod shared_reads;
pub mod shipped;
pub mod text;
pub mod threshold;
pub mod urgency;
pub mod watch;
