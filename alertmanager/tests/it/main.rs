//! The alertmanager from outside: real HTTP in, real HTTP out, a clock moved by hand.

mod amtool;
mod api;
mod crash;
mod remediation;
mod services;
mod support;
mod timetable;
