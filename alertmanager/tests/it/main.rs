//! The alertmanager from outside: real HTTP in, real HTTP out, a clock moved by hand.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod amtool;
mod api;
mod crash;
mod remediation;
mod services;
mod support;
mod timetable;
